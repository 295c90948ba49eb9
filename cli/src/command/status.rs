//! `status`: the agent at a glance.

use std::time::Duration;

use keyside_protocol::message::StatusReply;
use keyside_protocol::units::ByteSize;

use crate::args::{StatusArgs, StatusFormat};
use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::output::{Paint, columns, paint, print, print_on, printable, stdout_is_terminal};
use crate::session::{PROBE, Session, unreadable};

const DOING: &str = "ask for the agent's status";

/// Between two looks with `--watch`.
const PAUSE: Duration = Duration::from_secs(1);

/// Prints what the agent says of itself: once, or again and again until interrupted, the reader is gone, or the agent.
pub(super) fn run(globals: &Globals, args: &StatusArgs) -> Result<Exit, Failure> {
    let mut session = Session::of_running(globals, Duration::ZERO)?.probing(PROBE);
    if !args.watch {
        print(look(&mut session, globals, args)?.as_bytes())?;
        return Ok(Exit::Done);
    }
    let redraws = args.format == StatusFormat::Text && stdout_is_terminal();
    let mut first = true;
    loop {
        let text = look(&mut session, globals, args)?;
        let text = match (args.format, redraws, first) {
            // From the upper left corner, the rest of each line and of the screen cleared: nothing flickers.
            (_, true, _) => format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n")),
            (StatusFormat::Text, _, false) => format!("\n{text}"),
            _ => text,
        };
        let text = if redraws && first { format!("\x1b[2J{text}") } else { text };
        if !print_on(text.as_bytes())? {
            return Ok(Exit::Done);
        }
        first = false;
        std::thread::sleep(PAUSE);
    }
}

fn look(session: &mut Session, globals: &Globals, args: &StatusArgs) -> Result<String, Failure> {
    let reply = session.request(DOING, "GET", "/v1/status", None)?;
    let unreadable = |error| unreadable(DOING, &error);
    Ok(match args.format {
        // Through a value of any shape: what a newer agent adds is printed too.
        StatusFormat::Json => {
            let value: serde_json::Value = serde_json::from_slice(reply.body()).map_err(unreadable)?;
            if args.watch { format!("{value}\n") } else { format!("{value:#}\n") }
        }
        StatusFormat::Text => {
            let status = serde_json::from_slice(reply.body()).map_err(unreadable)?;
            text(&status, globals.color_for(stdout_is_terminal()))
        }
    })
}

fn text(status: &StatusReply, color: bool) -> String {
    let ready = if status.ready { paint("ready", Paint::Green, color) } else { paint("not ready", Paint::Red, color) };
    let cache = &status.cache;
    let mut rows = vec![
        vec![
            "agent".to_owned(),
            format!("{ready}, version {}, pid {}, up {}", status.version, status.pid, span(status.uptime_seconds)),
        ],
        vec!["instance".into(), printable(&status.instance).into_owned()],
        vec!["level".into(), status.validation_level.to_string()],
        vec!["scopes".into(), status.scope_order.clone()],
        vec![
            "cache".into(),
            format!(
                "{} secrets, {} of {}; {} fresh, {} stale, {} missed; {} back-end calls",
                cache.entries,
                ByteSize(cache.bytes),
                ByteSize(cache.max_bytes),
                cache.hits,
                cache.stale_hits,
                cache.misses,
                cache.backend_calls
            ),
        ],
        vec!["connections".into(), format!("{}, of which {} watch", status.connections, status.watchers)],
    ];
    if status.audit == "failing" {
        let state = paint("failing", Paint::Red, color);
        rows.push(vec!["audit log".into(), format!("{state}: it cannot be written; see the agent's log")]);
    } else if !status.audit.is_empty() {
        rows.push(vec!["audit log".into(), printable(&status.audit).into_owned()]);
    }
    for listener in &status.listeners {
        rows.push(vec!["listener".into(), printable(listener).into_owned()]);
    }
    for backend in &status.backends {
        let state = match backend.state.as_str() {
            "ok" => paint("ok", Paint::Green, color),
            "unknown" => paint("unknown", Paint::Yellow, color),
            other => paint(other, Paint::Red, color),
        };
        let required = if backend.required { "" } else { ", not required" };
        let mut text = format!("{} ({}{required}): {state}", backend.name, backend.kind);
        for more in [backend.error.as_deref(), backend.hint.as_deref()].into_iter().flatten() {
            text.push_str("; ");
            text.push_str(&printable(more));
        }
        rows.push(vec!["back-end".into(), text]);
    }
    columns(&rows)
}

/// Seconds as the two largest units.
fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::span;

    #[test]
    fn a_span_shows_its_two_largest_units() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (61, "1m 1s"), (3_660, "1h 1m"), (90_000, "1d 1h")] {
            assert_eq!(span(seconds), text);
        }
    }
}
