//! `purge`: the agent forgets, now.

use std::time::Duration;

use keyside_protocol::message::{NamesRequest, PurgeReply};

use crate::args::PurgeArgs;
use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::output::print;
use crate::session::{Session, to_json};

/// Prints how many values were forgotten.
pub(super) fn run(globals: &Globals, args: &PurgeArgs) -> Result<Exit, Failure> {
    let mut session = Session::of_running(globals, Duration::ZERO)?;
    let names = (!args.names.is_empty()).then(|| args.names.clone());
    let request = to_json(&NamesRequest { secrets: names });
    let reply: PurgeReply = session.ask("purge the agent's memory", "POST", "/v1/purge", Some(&request))?;
    let secrets = if reply.purged == 1 { "secret" } else { "secrets" };
    print(format!("purged {} {secrets}\n", reply.purged).as_bytes())?;
    Ok(Exit::Done)
}
