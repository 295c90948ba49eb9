//! `watch`: a line for each change of a secret, as it happens.

use std::collections::BTreeMap;
use std::io::stdout;
use std::os::fd::AsFd as _;
use std::time::Duration;

use keyside_exec_wrapper::client::encode_segment;
use keyside_exec_wrapper::stream::{Lines, Next};
use keyside_protocol::message::{Hello, WatchEvent};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::args::{WatchArgs, WatchFormat};
use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::output::{print, printable, say};
use crate::session::{Session, unreadable};

/// The pause before the agent is tried again.
const PAUSE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Follows the agent's events until nobody reads the lines any more. An agent that goes away is tried again; one that
/// refuses is not.
pub(super) fn run(globals: &Globals, args: &WatchArgs) -> Result<Exit, Failure> {
    let doing = format!("watch {}", named(args.names.iter().map(String::as_str)));
    let query: Vec<_> = args.names.iter().map(|name| format!("secret={}", encode_segment(name))).collect();
    let target = format!("/v1/watch?{}", query.join("&"));
    let mut follower = Follower { doing, format: args.format, quiet: globals.verbosity < 0, seen: None };
    let mut lines = Session::of_running(globals, Duration::ZERO)?.stream(&follower.doing, &target)?;
    loop {
        if !follower.follow(&mut lines)? {
            return Ok(Exit::Done);
        }
        if !follower.quiet {
            say("keyside: the agent has closed the stream; trying again");
        }
        lines = loop {
            if !somebody_reads_after_a_pause() {
                return Ok(Exit::Done);
            }
            let again = Session::of_running(globals, Duration::ZERO);
            match again.and_then(|session| session.stream(&follower.doing, &target)) {
                Ok(lines) => break lines,
                Err(failure) if failure.exit == Exit::Unavailable => {}
                Err(failure) => return Err(failure),
            }
        };
    }
}

/// Waits, and tells whether standard output still has a reader.
fn somebody_reads_after_a_pause() -> bool {
    let output = stdout();
    let mut fds = [PollFd::new(&output, PollFlags::empty())];
    !matches!(poll(&mut fds, Some(&PAUSE)), Ok(ready) if ready > 0)
}

struct Follower {
    doing: String,
    format: WatchFormat,
    quiet: bool,
    /// The agent's instance and the revision of each secret that is there, as last told.
    seen: Option<(String, BTreeMap<String, u64>)>,
}

impl Follower {
    /// Prints events until the stream ends (true) or nobody reads them (false).
    fn follow(&mut self, lines: &mut Lines) -> Result<bool, Failure> {
        let mut event = String::new();
        loop {
            let line = match lines.next(Some(stdout().as_fd())) {
                Ok(Next::Line(line)) => line,
                Ok(Next::Unwanted) => return Ok(false),
                // What cannot be read is as good as its end: the next stream begins anew.
                Ok(Next::Ended) | Err(_) => return Ok(true),
            };
            if let Some(name) = line.strip_prefix("event: ") {
                name.clone_into(&mut event);
            } else if let Some(data) = line.strip_prefix("data: ") {
                self.take(&event, data)?;
            }
        }
    }

    fn take(&mut self, event: &str, data: &str) -> Result<(), Failure> {
        let unreadable = |error| unreadable(&self.doing, &error);
        if event == "hello" {
            let hello: Hello = serde_json::from_str(data).map_err(unreadable)?;
            return self.greeted(hello);
        }
        // What a newer agent tells besides is no change.
        if !["change", "delete", "stale", "fresh"].contains(&event) {
            return Ok(());
        }
        let told: WatchEvent = serde_json::from_str(data).map_err(unreadable)?;
        if let Some((_, revisions)) = &mut self.seen {
            match event {
                "delete" => revisions.remove(&told.secret),
                _ => revisions.insert(told.secret.clone(), told.revision),
            };
        }
        self.show(event, &told.secret, Some(&told.version), told.revision)
    }

    /// Says what is watched, or, after an interruption, what is another than before it.
    fn greeted(&mut self, hello: Hello) -> Result<(), Failure> {
        match self.seen.take() {
            None => {
                if !self.quiet {
                    let there = named(hello.revisions.keys().map(String::as_str));
                    let there = if there.is_empty() { "none of them is there" } else { &format!("there: {there}") };
                    say(&format!("keyside: {} ({there})", self.doing.replacen("watch", "watching", 1)));
                }
            }
            Some((instance, before)) => {
                // Revisions of another run of the agent say nothing about those before.
                let same = instance == hello.instance;
                for (name, revision) in &hello.revisions {
                    if !same || before.get(name) != Some(revision) {
                        self.show("change", name, None, *revision)?;
                    }
                }
                if same {
                    for (name, revision) in before.iter().filter(|(name, _)| !hello.revisions.contains_key(*name)) {
                        self.show("delete", name, None, *revision)?;
                    }
                }
            }
        }
        self.seen = Some((hello.instance, hello.revisions));
        Ok(())
    }

    fn show(&self, event: &str, name: &str, version: Option<&str>, revision: u64) -> Result<(), Failure> {
        let line = match self.format {
            WatchFormat::Text => format!("{event} {} revision {revision}\n", printable(name)),
            WatchFormat::Json => {
                let mut line = serde_json::json!({ "event": event, "secret": name, "revision": revision });
                if let Some(version) = version {
                    line["version"] = version.into();
                }
                format!("{line}\n")
            }
        };
        print(line.as_bytes())
    }
}

/// Names in a sentence.
fn named<'n>(names: impl Iterator<Item = &'n str>) -> String {
    names.map(|name| format!("`{}`", printable(name))).collect::<Vec<_>>().join(", ")
}
