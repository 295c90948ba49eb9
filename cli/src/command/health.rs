//! `health`: does the agent live?

use std::time::Duration;

use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::output::print;
use crate::session::{PROBE, Session};

/// Prints `ok`, or fails with 69.
pub(super) fn run(globals: &Globals) -> Result<Exit, Failure> {
    let mut session = Session::of_running(globals, Duration::ZERO)?.probing(PROBE);
    session.request("ask for the agent's health", "GET", "/v1/health", None)?;
    print(b"ok\n")?;
    Ok(Exit::Done)
}
