//! What protects this process while it may hold values. Nothing of it reaches the child: execve makes the new program
//! dumpable again by itself, and the core limit is put back before it.

use std::io::Write as _;
use std::panic::Location;

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// The limit to put back.
pub(crate) struct Hardened {
    core: Option<Rlimit>,
}

impl Hardened {
    /// Keeps other processes of our uid out of our memory, and our memory out of core files. Only the soft limit is
    /// lowered: the hard one could not be raised again.
    pub(crate) fn begin() -> Self {
        let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
        let core = getrlimit(Resource::Core);
        if core.current == Some(0) {
            return Self { core: None };
        }
        let lowered = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: core.maximum });
        Self { core: lowered.is_ok().then_some(core) }
    }

    /// Puts the core limit back.
    pub(crate) fn end(&mut self) {
        if let Some(core) = self.core.take() {
            let _ = setrlimit(Resource::Core, core);
        }
    }
}

/// Has a panic say where it happened and nothing else: its message may quote what the program was looking at, a value
/// for one. For the first line of a program's main.
pub fn hide_panic_messages() {
    std::panic::set_hook(Box::new(|panic| {
        // Nobody is left to be told that standard error is closed.
        let _ = std::io::stderr().write_all(panic_text(panic.location()).as_bytes());
    }));
}

fn panic_text(place: Option<&Location<'_>>) -> String {
    let place = place.map(|place| format!(" at {}:{}", place.file(), place.line())).unwrap_or_default();
    format!("keyside: internal error{place}\nhint: this is a fault of Keyside; please report it with its place\n")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const CHILD: &str = "KEYSIDE_TEST_PANICS";

    /// Runs itself once more, as a process whose standard error can be read.
    #[test]
    fn a_panic_tells_its_place_and_not_its_message() {
        let name = "hardening::tests::a_panic_tells_its_place_and_not_its_message";
        if std::env::var_os(CHILD).is_some() {
            hide_panic_messages();
            // As an `expect` would quote the error that it meets.
            String::from_utf8(b"canary\xff".to_vec()).expect("a message");
        }
        let child = Command::new(std::env::current_exe().expect("/proc is mounted"))
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, "1")
            .env("RUST_BACKTRACE", "full")
            .output()
            .expect("it runs");
        let text = String::from_utf8_lossy(&child.stderr).into_owned();
        assert!(!child.status.success());
        assert!(text.starts_with("keyside: internal error at ") && text.contains("hardening.rs:"), "{text}");
        assert!(text.contains("\nhint: "), "{text}");
        let all = text + &String::from_utf8_lossy(&child.stdout);
        assert!(!all.contains("canary") && !all.contains("a message"), "{all}");
    }
}
