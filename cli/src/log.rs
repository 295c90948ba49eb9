//! The agent's log: lines on standard error, text or JSON, filtered.

use std::io::IsTerminal as _;

use serde::Serialize;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::fmt::SubscriberBuilder;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::args::LogFormat;
use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::output::say;

/// AWS's library, by the beginning of its targets. It quotes what sources of credentials answer: replies of the metadata service
/// and its session token, a program's standard error. What failed is told by the error that our own log has of it.
const QUOTES_REPLIES: &[&str] =
    &["aws_config", "aws_credential_types", "aws_runtime", "aws_sdk_", "aws_sigv4", "aws_smithy_"];

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
            // Azure's library tells of each reply that we tell of ourselves.
            EnvFilter::new(if usual + verbosity < 3 {
                format!("{level},azure_core=warn,typespec_client_core=warn")
            } else {
                level.to_owned()
            })
        }
    };
    let builder: SubscriberBuilder<_, _, _, _> = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // Whoever read the log may have gone. The library would say so on the same stream, and panic.
        .log_internal_errors(false)
        .with_ansi(globals.color_for(std::io::stderr().is_terminal()));
    // Whatever level is asked for.
    let spoken = FilterFn::new(|event| !QUOTES_REPLIES.iter().any(|library| event.target().starts_with(library)));
    match globals.log_format {
        LogFormat::Text => builder.with_target(false).finish().with(spoken).init(),
        LogFormat::Json => builder.json().flatten_event(true).finish().with(spoken).init(),
    }
    Ok(())
}

/// A line of the log that the log itself cannot write: it may not have begun.
#[derive(Serialize)]
struct Line<'a> {
    timestamp: String,
    level: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    target: &'static str,
}

/// Writes a failure to standard error as lines of the JSON log, one for each mistake.
pub fn complain(failure: &Failure) {
    let mut complaints: Vec<(&str, Option<&str>)> = Vec::new();
    for line in &failure.lines {
        match (line.strip_prefix("hint: "), complaints.last_mut()) {
            (Some(hint), Some(last)) => last.1 = Some(hint),
            _ => complaints.push((line.strip_prefix("keyside: ").unwrap_or(line), None)),
        }
    }
    complaints.push((&failure.what, failure.hint.as_deref()));
    for (message, hint) in complaints {
        let mut timestamp = String::new();
        // Writing to a string cannot fail.
        let _ = SystemTime.format_time(&mut Writer::new(&mut timestamp));
        let line = Line { timestamp, level: "ERROR", message, hint, target: "keyside" };
        say(&serde_json::to_string(&line).expect("text is always JSON"));
    }
}
