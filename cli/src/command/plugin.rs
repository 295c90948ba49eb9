//! `plugin test`: examines somebody's plug-in from the outside.

use std::collections::BTreeMap;

use keyside_agent::backend::plugin::conformance::{Finding, Options, Verdict, examine};
use serde::Serialize;

use crate::args::{PluginCommand, PluginFormat, PluginTestArgs};
use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::log;
use crate::output::{Paint, columns, io_text, paint, print, printable, say, stdout_is_terminal};

/// What an agent allows by default.
const MAX_VALUE: u64 = 1 << 20;

pub(super) fn run(globals: &Globals, command: &PluginCommand) -> Result<Exit, Failure> {
    match command {
        PluginCommand::Test(args) => test(globals, args),
    }
}

/// Prints a finding for each promise; 1 when one is broken.
fn test(globals: &Globals, args: &PluginTestArgs) -> Result<Exit, Failure> {
    // It is going to read values.
    keyside_agent::harden().map_err(|error| {
        Failure::new(Exit::Unavailable, format!("cannot protect this process's memory: {}", io_text(&error)))
            .hint("does a sandbox forbid prctl or setrlimit?")
    })?;
    log::start(globals, true)?;
    let options = Options {
        command: args.command.clone(),
        env: args.env.iter().cloned().collect::<BTreeMap<_, _>>(),
        timeout: args.timeout.0,
        max_value: MAX_VALUE,
        writes: args.writes,
    };
    let findings = examine(options).map_err(|error| {
        Failure::new(Exit::Unavailable, format!("cannot run the plug-in: {}", io_text(&error)))
            .hint("has this machine run out of processes or open files?")
    })?;
    let failed = findings.iter().filter(|finding| finding.verdict == Verdict::Failed).count();
    let text = match args.format {
        PluginFormat::Text => text(&findings, globals.color_for(stdout_is_terminal())),
        PluginFormat::Json => json(&findings, failed == 0),
    };
    print(text.as_bytes())?;
    if globals.verbosity >= 0 {
        let shown = if failed == 0 { "no promise".to_owned() } else { format!("{failed} of {}", findings.len()) };
        say(&format!("keyside: {shown} broken"));
        if failed > 0 {
            say(
                "hint: docs/plugin-protocol.md says what is due; `keyside -v plugin test` shows the plug-in's own log lines",
            );
        }
    }
    Ok(if failed == 0 { Exit::Done } else { Exit::No })
}

fn text(findings: &[Finding], color: bool) -> String {
    let rows: Vec<Vec<String>> = findings
        .iter()
        .map(|finding| {
            let verdict = match finding.verdict {
                Verdict::Passed => paint("passed", Paint::Green, color),
                Verdict::Failed => paint("failed", Paint::Red, color),
                Verdict::Skipped => paint("skipped", Paint::Yellow, color),
            };
            vec![verdict, finding.check.to_owned(), printable(&finding.what).into_owned()]
        })
        .collect();
    columns(&rows)
}

#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    findings: Vec<Line<'a>>,
}

#[derive(Serialize)]
struct Line<'a> {
    check: &'a str,
    verdict: &'a str,
    what: &'a str,
}

fn json(findings: &[Finding], ok: bool) -> String {
    let lines = findings.iter().map(|finding| Line {
        check: finding.check,
        verdict: finding.verdict.as_str(),
        what: &finding.what,
    });
    let report = Report { ok, findings: lines.collect() };
    let text = serde_json::to_string_pretty(&report).expect("texts and a truth value are JSON");
    format!("{text}\n")
}
