//! The agent's socket, and the agent itself where one runs.

use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use keyside_exec_wrapper::socket::{Located, default_paths, locate};
use keyside_protocol::message::{BackendState, StatusReply};

use super::configuration::Configured;
use super::finding::{Findings, Verdict};
use super::ownership::open_directory_above;
use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::output::io_text;
use crate::session::{PROBE, Session, load_request};

/// Finds the socket by the rule of every client.
pub(super) fn place(globals: &Globals) -> Located {
    // A configuration that cannot be read is said where it is looked at.
    let in_file = keyside_config::configured_socket(&load_request(globals)).unwrap_or_default();
    locate(globals.socket.as_deref(), None, in_file.as_deref())
}

/// Looks at the agent, and returns what it says of itself where it can be asked.
pub(super) fn look(
    globals: &Globals,
    place: Located,
    configured: &Configured,
    findings: &mut Findings,
) -> Option<StatusReply> {
    match place {
        Located::Nowhere => {
            nowhere(configured, findings);
            None
        }
        Located::Named(path) | Located::Default(path) => {
            if socket(&path, findings) {
                agent(globals, findings)
            } else {
                None
            }
        }
    }
}

fn nowhere(configured: &Configured, findings: &mut Findings) {
    let paths: Vec<_> = default_paths().iter().map(|path| path.display().to_string()).collect();
    let paths = paths.join(" and ");
    if configured.is_sound {
        let what = format!("none runs at {paths}: commands start a private one for themselves");
        findings.add("agent", Verdict::Ok, what);
    } else {
        findings.advise(
            "agent",
            Verdict::Wrong,
            format!("none runs at {paths}, and a private one would not start with this configuration"),
            "name the socket of an agent with --socket, or try `keyside quickstart`",
        );
    }
}

/// Looks at the socket and what lies above it; false when nobody can be asked there.
fn socket(path: &Path, findings: &mut Findings) -> bool {
    const CHECK: &str = "socket";
    const START: &str = "start an agent there with `keyside agent`, or name another socket with --socket";
    let shown = path.display();
    let found = match path.symlink_metadata() {
        Ok(found) => found,
        Err(error) => {
            let what = format!("{shown} cannot be used: {}", io_text(&error));
            findings.advise(CHECK, Verdict::Wrong, what, START);
            return false;
        }
    };
    if !found.file_type().is_socket() {
        findings.advise(
            CHECK,
            Verdict::Wrong,
            format!("{shown} is no socket"),
            "remove it, or name another with --socket",
        );
        return false;
    }
    let (owner, mode) = (found.uid(), found.mode() & 0o7777);
    let own = rustix::process::geteuid().as_raw();
    match open_directory_above(path, &[own, owner]) {
        Some(open) => findings.advise(
            CHECK,
            Verdict::Weak,
            format!("{shown}: the directory {} {}, who could put another socket there", open.path.display(), open.why),
            "clients refuse a server that is neither root nor themselves nor --agent-uid; better, keep it below directories of root or the agent",
        ),
        None => findings.add(CHECK, Verdict::Secure, format!("{shown}, owner {owner}, mode {mode:04o}")),
    }
    match UnixStream::connect(path) {
        Ok(stream) => {
            identity(&stream, findings);
            true
        }
        Err(error) => {
            let hint = match error.kind() {
                ErrorKind::PermissionDenied => {
                    "ask the operator for the socket's group, or run this as a user who may connect"
                }
                _ => START,
            };
            findings.advise("agent", Verdict::Wrong, format!("{shown} refuses: {}", io_text(&error)), hint);
            false
        }
    }
}

fn identity(stream: &UnixStream, findings: &mut Findings) {
    let Ok(server) = nix::sys::socket::getsockopt(stream, nix::sys::socket::sockopt::PeerCredentials) else { return };
    if server.uid() == 0 {
        findings.advise(
            "agent's user",
            Verdict::Weak,
            "root: it has dropped its capabilities, and still owns what root owns",
            "run the agent as a user of its own",
        );
    } else {
        findings.add("agent's user", Verdict::Ok, format!("uid {}", server.uid()));
    }
}

/// Asks the agent. A client of ours refuses a server that it does not trust, and so does this one.
fn agent(globals: &Globals, findings: &mut Findings) -> Option<StatusReply> {
    let said = |failure: Failure, findings: &mut Findings| {
        // A broken configuration has been said already.
        if failure.exit != Exit::Config {
            let hint = failure.hint.unwrap_or_else(|| "see the agent's log".to_owned());
            findings.advise("agent", Verdict::Wrong, failure.what, hint);
        }
        None
    };
    let mut session = match Session::of_running(globals, Duration::ZERO) {
        Ok(session) => session.probing(PROBE),
        Err(failure) => return said(failure, findings),
    };
    let status: StatusReply = match session.ask("ask the agent for its status", "GET", "/v1/status", None) {
        Ok(status) => status,
        Err(failure) => return said(failure, findings),
    };
    let ours = env!("CARGO_PKG_VERSION");
    if works_with(ours, &status.version) {
        findings.add("agent", Verdict::Ok, format!("version {}, pid {}", status.version, status.pid));
    } else {
        findings.advise(
            "agent",
            Verdict::Weak,
            format!("version {}, more than two minor versions from ours ({ours})", status.version),
            "update the older of the two",
        );
    }
    if status.audit == "failing" {
        findings.advise(
            "audit log",
            Verdict::Wrong,
            "the agent cannot write it; where it is required, reads are refused",
            "make room on its disk, or let the agent write to its directory: it goes on by itself",
        );
    }
    for backend in &status.backends {
        back_end(backend, findings);
    }
    if status.ready {
        findings.add("ready", Verdict::Ok, "every required back-end has answered");
    } else {
        findings.advise("ready", Verdict::Wrong, "a required back-end has not answered yet", "mend it, as said above");
    }
    Some(status)
}

fn back_end(backend: &BackendState, findings: &mut Findings) {
    const CHECK: &str = "back-end";
    let mut what = format!("{} ({}): {}", backend.name, backend.kind, backend.state);
    if let Some(error) = &backend.error {
        what = format!("{what}: {error}");
    }
    let verdict = match backend.state.as_str() {
        "ok" => Verdict::Ok,
        "unknown" => Verdict::Unknown,
        _ if backend.required => Verdict::Wrong,
        _ => Verdict::Weak,
    };
    match &backend.hint {
        Some(hint) => findings.advise(CHECK, verdict, what, hint),
        None => findings.add(CHECK, verdict, what),
    }
}

/// Tells whether two versions are at most two minor versions apart.
fn works_with(ours: &str, theirs: &str) -> bool {
    let read = |version: &str| -> Option<(u64, u64)> {
        let mut numbers = version.split('.').map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    };
    match (read(ours), read(theirs)) {
        (Some(ours), Some(theirs)) => ours.0 == theirs.0 && ours.1.abs_diff(theirs.1) <= 2,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::works_with;

    #[test]
    fn an_agent_may_be_two_minor_versions_away() {
        for (theirs, works) in [("0.1.0", true), ("0.3.9", true), ("0.4.0", false), ("1.1.0", false), ("new", false)] {
            assert_eq!(works_with("0.1.0", theirs), works, "{theirs}");
        }
    }
}
