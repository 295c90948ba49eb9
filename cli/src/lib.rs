//! Keyside's one front door for people: the program `keyside`.
//!
//! # Layout, in the order of the flow
//!
//! * [`args`]: the command line as written.
//! * [`globals`]: the options for every command as meant, flags over the environment.
//! * [`command`]: the commands, one file each.
//! * [`session`]: a connection to the agent, on its socket or embedded.
//! * [`source`]: strings in files of any kind, with their places.
//! * [`pairs`]: a secret's pairs as JSON, YAML, shell assignments, dotenv.
//! * [`table`]: what has no values, as table, JSON, YAML, CSV.
//! * [`log`]: the agent's log.
//! * [`exit`]: exit codes, and how a failure becomes text and code.
//! * [`output`]: standard output and standard error.
//! * `sys`: the two system calls that need `unsafe`.

pub mod args;
pub mod command;
pub mod exit;
pub mod globals;
pub mod log;
pub mod output;
pub mod pairs;
pub mod session;
pub mod source;
mod sys;
pub mod table;

use std::ffi::OsString;
use std::process::ExitCode;

use args::Parsed;
use exit::{Exit, Failure};
use globals::Globals;

/// Runs the program with the process's own arguments and environment.
pub fn main() -> ExitCode {
    keyside_exec_wrapper::hide_panic_messages();
    let args: Vec<OsString> = std::env::args_os().collect();
    run(&args).unwrap_or_else(|mut failure| {
        if failure.exit == Exit::Usage {
            failure.hint.get_or_insert_with(|| args::where_to_look(&args));
        }
        match args::logs_json(&args) {
            true => log::complain(&failure),
            false => output::complain(&failure),
        }
        // Before its command runs, `exec` has one code for every failure.
        if args::is_exec(&args) { keyside_exec_wrapper::exit_code::FAILED.into() } else { failure.exit.code().into() }
    })
}

fn run(args: &[OsString]) -> Result<ExitCode, Failure> {
    let variable = |name: &str| std::env::var_os(name);
    // Help is coloured before the options are known; `--color` in front of it still counts.
    let never = args.windows(2).any(|pair| pair[0] == "--color" && pair[1] == "never");
    let color = globals::color(never.then_some(args::ColorArg::Never), variable) != args::ColorArg::Never
        && output::stdout_is_terminal();
    match args::parse(args, color)? {
        Parsed::Print(text) => output::print(text.as_bytes()).map(|()| ExitCode::SUCCESS),
        Parsed::Run(cli, rest) => {
            let globals = Globals::new(&cli.globals, variable)?;
            command::run(&cli, &globals, rest)
        }
    }
}
