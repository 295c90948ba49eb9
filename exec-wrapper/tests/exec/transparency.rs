//! Nothing of the wrapper shows in the child.

use crate::harness::{Place, WRAPPER, ran};

/// Runs the same shell lines around the command with and without the wrapper, and compares what the command prints.
#[track_caller]
fn same(before: &str, redirections: &str, command: &str) -> String {
    let place = Place::with_agent();
    let run = |wrapper: &str| {
        let script = format!("{before}\nexec {wrapper} /bin/sh -c '{command}' {redirections}");
        let run = ran(place.program("/bin/sh").arg("-c").arg(script));
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:?}");
        run.stdout
    };
    let plain = run("");
    assert!(!plain.is_empty());
    assert_eq!(run(&format!("{WRAPPER} -e SECRET={{{{db.password}}}} -F FILE={{{{db.user}}}} --")), plain);
    plain
}

#[test]
fn signal_dispositions_and_the_mask_are_inherited() {
    let command = "exec grep -E \"^(SigPnd|ShdPnd|SigBlk|SigIgn|SigCgt)\" /proc/self/status";
    let default = same("", "", command);
    let ignored = same("trap \"\" PIPE HUP CHLD", "", command);
    assert_ne!(default, ignored);
}

#[test]
fn closed_stdio_stays_closed() {
    let list = "cd /proc/$$/fd; for fd in 0 1 2 3 4 5 6 7; do if [ -e $fd ]; then echo $fd; fi; done";
    assert_eq!(same("", "", list), "0\n1\n2\n");
    assert_eq!(same("", "<&-", list), "1\n2\n");
    assert_eq!(same("", "<&- 2>&-", list), "1\n");
    assert_eq!(same("", "7</dev/null", list), "0\n1\n2\n7\n");
    // With stdout closed the answer goes to stderr and from there to a file.
    let place = Place::with_agent();
    let out = place.path("out");
    let script = format!(
        "exec {WRAPPER} -e A={{{{db.user}}}} -- /bin/sh -c '{}' >&- 2>{}",
        list.replace("echo $fd", "echo $fd >&2"),
        out.display()
    );
    assert_eq!(ran(place.program("/bin/sh").arg("-c").arg(script)).code, Some(0));
    assert_eq!(std::fs::read_to_string(out).expect("written"), "0\n2\n");
}

#[test]
fn limits_umask_directory_and_process_group_are_inherited() {
    same(
        "ulimit -c 100; umask 027; cd /usr",
        "",
        "ulimit -a; ulimit -H -c; umask; pwd; cut -d \" \" -f 4,5,6 /proc/$$/stat >/dev/null",
    );
    same("ulimit -c 0", "", "ulimit -c");
}

#[test]
fn the_step_has_no_child_it_did_not_start_and_may_be_dumped() {
    same(
        "",
        "",
        "read children </proc/$$/task/$$/children; echo \"[$children]\"; grep -E \"^(NoNewPrivs|Seccomp|CapEff|CapPrm|CapBnd)\" /proc/$$/status; ls -l /proc/$$/environ | cut -c 1-10",
    );
}

#[test]
fn the_process_stays_the_same_one() {
    let place = Place::with_agent();
    let child = place
        .wrapper(&["-e", "A={{db.user}}", "--", "sh", "-c", "echo $$"])
        .stdout(std::process::Stdio::piped())
        .spawn();
    let child = child.expect("started");
    let pid = child.id();
    let out = child.wait_with_output().expect("ended").stdout;
    assert_eq!(String::from_utf8_lossy(&out).trim(), pid.to_string());
}

#[test]
fn a_reader_of_stderr_that_went_away_does_not_change_the_exit_code() {
    let place = Place::without_agent();
    let script = format!("{{ {WRAPPER} -- no-such-command; echo $? >code; }} 2>&1 >/dev/null | true; cat code");
    ran(place.program("/bin/sh").arg("-c").arg(script)).printed("127\n");
}
