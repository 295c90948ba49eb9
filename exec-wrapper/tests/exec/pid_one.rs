//! The wrapper as PID 1, for whom the kernel drops signals that have no handler.

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Place, Step, WRAPPER, eventually, pid_namespace, ran};

/// The child of `unshare`, which is PID 1 in its own namespace.
fn child_of(step: &Step) -> Pid {
    let pid = step.pid().as_raw_nonzero();
    let mut found = None;
    eventually("unshare has its child", || {
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        found = children.split_whitespace().next().and_then(|child| child.parse().ok()).and_then(Pid::from_raw);
        found.is_some()
    });
    found.expect("a child")
}

/// Tells whether a process has a handler for `signal`.
fn catches(pid: Pid, signal: Signal) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0").trim();
    u64::from_str_radix(caught, 16).is_ok_and(|bits| bits >> (signal.as_raw() - 1) & 1 == 1)
}

#[test]
fn as_pid_1_a_signal_to_end_is_obeyed_while_the_agent_is_waited_for() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let place = Place::without_agent();
        let Some(namespace) = pid_namespace(&place, "as_pid_1_a_signal_to_end_is_obeyed_while_the_agent_is_waited_for")
        else {
            return;
        };
        let mut unshare = place.program("unshare");
        unshare.args(namespace).args([WRAPPER, "-e", "A={{db.user}}", "--wait", "1h", "--"]);
        let mut step = Step::start(unshare.args(["echo", "started"]));
        let wrapper = child_of(&step);
        eventually("the wrapper waits", || catches(wrapper, signal));
        kill_process(wrapper, signal).expect("our own");
        assert_eq!(step.end().code(), Some(code));
        assert_eq!(step.line(), "");
    }
}

#[test]
fn as_pid_1_the_step_gets_the_dispositions_it_would_have_had() {
    let place = Place::with_agent();
    let Some(namespace) = pid_namespace(&place, "as_pid_1_the_step_gets_the_dispositions_it_would_have_had") else {
        return;
    };
    let show = "exec grep -E '^Sig(Blk|Ign|Cgt)|^ShdPnd' /proc/self/status";
    let run = |before: &str, wrapper: &str| {
        let script = format!("{before} exec {wrapper} /bin/sh -c \"{show}\"");
        let run = ran(place.program("unshare").args(namespace).args(["sh", "-c", &script]));
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:?}");
        run.stdout
    };
    let wrapper = format!("{WRAPPER} -e A={{{{db.user}}}} --");
    for before in ["", "trap '' TERM HUP;"] {
        assert_eq!(run(before, &wrapper), run(before, ""));
    }
    assert_ne!(run("", ""), run("trap '' TERM HUP;", ""));
}

#[test]
fn as_pid_1_it_is_told_that_nothing_stays_for_its_duties() {
    let place = Place::without_agent();
    let Some(namespace) = pid_namespace(&place, "as_pid_1_it_is_told_that_nothing_stays_for_its_duties") else {
        return;
    };
    let run = |flags: &[&str]| {
        let run = ran(place.program("unshare").args(namespace).arg(WRAPPER).args(flags).args(["--", "true"]));
        assert_eq!(run.code, Some(0), "{run:?}");
        format!("{}{}", run.stdout, run.stderr).contains("as PID 1 the command has to reap orphans")
    };
    assert!(run(&["--dry-run"]) && run(&["-v"]));
    assert!(!run(&[]) && !run(&["--dry-run", "--init", "never"]) && !run(&["-v", "--init", "never"]));
    // Any other process has no such duties.
    assert!(!place.run(&["--dry-run", "--", "true"]).stdout.contains("PID 1"));
}
