//! `exec`: the wrapper, with embedded mode.

use std::ffi::OsString;

use crate::globals::Globals;
use crate::{output, session};

/// Hands everything over to the wrapper, which usually becomes the command and does not come back.
pub(super) fn run(globals: &Globals, args: Vec<OsString>) -> std::process::ExitCode {
    match session::for_wrapper(globals) {
        Ok(wrapper) => keyside_exec_wrapper::run(wrapper, args),
        Err(failure) => {
            output::complain(&failure);
            keyside_exec_wrapper::exit_code::FAILED.into()
        }
    }
}
