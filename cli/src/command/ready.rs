//! `ready [--wait TIME]`: has every required back-end answered once?

use std::time::{Duration, Instant};

use keyside_protocol::message::ReadyReply;

use crate::args::ReadyArgs;
use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::output::{print, printable};
use crate::session::{PROBE, Session};

/// How long to wait between two questions: short, since somebody waits for the answer.
const PAUSE: Duration = Duration::from_millis(100);

/// The least time for an answer: what is left of the wait may be too short for any.
const LEAST: Duration = Duration::from_millis(500);

/// Asks, again and again until the wait is over; the socket may appear meanwhile.
pub(super) fn run(globals: &Globals, args: &ReadyArgs) -> Result<Exit, Failure> {
    let wait = args.wait.0;
    let end = Instant::now() + wait;
    loop {
        // An agent that takes questions and does not answer ends the wait on time, too.
        let left = if wait.is_zero() { PROBE } else { end.saturating_duration_since(Instant::now()) };
        let failure = match ask(globals, left.clamp(LEAST, PROBE)) {
            Ok(()) => {
                print(b"ready\n")?;
                return Ok(Exit::Done);
            }
            // Neither a wrong command line nor a refusal mends itself.
            Err(failure) if failure.exit != Exit::Unavailable => return Err(failure),
            Err(failure) => failure,
        };
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(failure);
        }
        std::thread::sleep(PAUSE.min(left));
    }
}

fn ask(globals: &Globals, within: Duration) -> Result<(), Failure> {
    let mut session = Session::of_running(globals, Duration::ZERO)?.probing(within);
    let doing = "learn that the agent is ready";
    let reply = session.send(doing, "GET", "/v1/ready", &[], None)?;
    if reply.status == 200 {
        return Ok(());
    }
    let problem = reply.problem();
    // The state of each back-end says more than the sentence around it.
    let states = [problem.as_ref().map(|problem| problem.detail.as_bytes()), Some(reply.body())];
    let states = states.into_iter().flatten().find_map(|bytes| serde_json::from_slice::<ReadyReply>(bytes).ok());
    match (states, problem) {
        (Some(reply), _) => {
            let waiting: Vec<_> = reply
                .backends
                .iter()
                .filter(|backend| backend.required && backend.state != "ok")
                .map(|backend| match &backend.error {
                    Some(error) => format!("back-end `{}` is {}: {}", backend.name, backend.state, printable(error)),
                    None => format!("back-end `{}` is {}", backend.name, backend.state),
                })
                .collect();
            let mut failure =
                Failure::new(Exit::Unavailable, format!("the agent is not ready: {}", waiting.join("; ")));
            failure.hint = reply.backends.into_iter().find_map(|backend| backend.hint);
            Err(failure)
        }
        (None, Some(problem)) => Err(crate::exit::of_problem(doing, problem)),
        (None, None) => {
            Err(Failure::new(Exit::Unavailable, format!("the agent is not ready (status {})", reply.status)))
        }
    }
}
