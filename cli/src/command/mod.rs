//! The commands: one file each, and the one list of all.

mod agent;
mod check;
mod check_report;
mod doctor;
mod exec;
mod get;
mod health;
#[cfg(feature = "plugin")]
mod plugin;
mod purge;
mod quickstart;
mod ready;
mod secret;
mod status;
mod watch;

use std::ffi::OsString;
use std::process::ExitCode;

use crate::args::{Cli, Command};
use crate::exit::Failure;
use crate::globals::Globals;

/// Runs the command of `cli`; `rest` is what stands behind the word of `exec` and `secret`.
pub(crate) fn run(cli: &Cli, globals: &Globals, rest: Vec<OsString>) -> Result<ExitCode, Failure> {
    let exit = match &cli.command {
        Command::Exec => return Ok(exec::run(globals, rest)),
        Command::Quickstart(args) => quickstart::run(globals, args),
        Command::Agent(args) => agent::run(globals, args),
        Command::Check(args) => check::run(globals, args),
        Command::Get(args) => get::run(globals, args),
        Command::Secret => secret::run(globals, &rest),
        Command::Status(args) => status::run(globals, args),
        Command::Doctor(args) => doctor::run(globals, args),
        Command::Ready(args) => ready::run(globals, args),
        Command::Health => health::run(globals),
        Command::Watch(args) => watch::run(globals, args),
        Command::Purge(args) => purge::run(globals, args),
        #[cfg(feature = "plugin")]
        Command::Plugin(command) => plugin::run(globals, command),
    };
    exit.map(|exit| exit.code().into())
}
