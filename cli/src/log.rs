//! The agent's log: lines on standard error, text or JSON, filtered.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::SubscriberBuilder;

use crate::args::LogFormat;
use crate::exit::{Exit, Failure};
use crate::globals::Globals;

/// Starts the log of this process. `quiet_by_default` is for an agent that belongs to one command.
///
/// Errors: `KEYSIDE_LOG` is no filter (78).
pub fn start(globals: &Globals, quiet_by_default: bool) -> Result<(), Failure> {
    let filter = match (globals.verbosity, &globals.log_filter) {
        (0, Some(filter)) => EnvFilter::builder().parse(filter).map_err(|_| {
            Failure::new(Exit::Config, "KEYSIDE_LOG is no log filter")
                .hint("write a level such as `info`, or `keyside=trace,info`")
        })?,
        (verbosity, _) => {
            let usual = if quiet_by_default { 1 } else { 2 };
            let level = match usual + verbosity {
                ..0 => "off",
                0 => "error",
                1 => "warn",
                2 => "info",
                3 => "debug",
                4.. => "trace",
            };
            EnvFilter::new(level)
        }
    };
    let builder: SubscriberBuilder<_, _, _, _> = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(globals.color_for(std::io::stderr().is_terminal()));
    match globals.log_format {
        LogFormat::Text => builder.with_target(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}
