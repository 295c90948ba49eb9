//! A step's files: their place, their modes, and their end.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::PathBuf;

use keyside_tests::eventually::eventually;
use keyside_tests::remark::remark;
use keyside_tests::step::{agent, printed, shell};
use keyside_tests::{Home, programs};
use rustix::process::{Pid, Signal, kill_process};

#[test]
fn files_have_mode_0400_in_directories_of_mode_0700_and_their_paths_are_told() {
    let home = Home::new();
    let agent = agent(&home);
    let script = "cd $KEYSIDE_FILES; stat -c '%a %n' . a deep deep/b VAR db db/user; printenv VAR; cat a deep/b \"$VAR\" db/user; pwd";
    let args = ["-f", "a={{db.user}}1", "-f", "deep/b={{db.user}}2", "-F", "VAR={{db.user}}3", "--secret-files", "db"];
    let run = shell(&home, &agent, &args, script).umask(0);
    let seen = printed(run);
    let directory = seen.lines().last().unwrap().rsplit_once("/").unwrap().0;
    assert_eq!(
        directory.trim_start_matches("reader1reader2reader3reader"),
        home.runtime().join("keyside").to_str().unwrap()
    );
    let modes: Vec<_> = seen.lines().take(7).collect();
    assert_eq!(modes, ["700 .", "400 a", "700 deep", "400 deep/b", "400 VAR", "700 db", "400 db/user"]);
    assert!(seen.lines().nth(7).unwrap().ends_with("/VAR"), "{seen}");
    assert!(seen.contains("reader1reader2reader3reader"), "{seen}");
}

#[test]
fn names_that_lead_out_of_the_directory_are_refused_before_anything_is_written() {
    let home = Home::new();
    let agent = agent(&home);
    let started = home.join("started");
    for name in ["../x", "/abs", "a/../../x", "", ".", "a//b", "a\nb", &"x".repeat(256)] {
        let run =
            home.wrapper(["-f", &format!("{name}={{{{db.user}}}}"), "--", "touch"]).arg(&started).with(&agent).end();
        run.expect_complaint(125, &["--file"]);
    }
    let run =
        home.wrapper(["-f", "a={{db.user}}", "-f", "A={{db.user}}", "--", "touch"]).arg(&started).with(&agent).end();
    run.expect_complaint(125, &["differ only by case"]);
    assert!(!started.exists());
    assert!(home.step_directories().is_empty());
}

#[test]
fn a_disk_is_refused_for_files_unless_it_is_permitted() {
    let home = Home::new();
    let agent = agent(&home);
    // A home below /dev/shm would be on memory.
    let disk = home.join("disk");
    std::fs::create_dir(&disk).unwrap();
    let run = |args: &[&str]| {
        let run = home.wrapper(["-f", "a={{db.user}}", "--files-dir"]).arg(&disk).args(args);
        run.args(["--", "/bin/sh", "-c", "cat $KEYSIDE_FILES/a"]).with(&agent).end()
    };
    let kind = std::process::Command::new("stat").args(["-f", "-c", "%T"]).arg(&disk).output().unwrap().stdout;
    if kind.starts_with(b"tmpfs") {
        remark("skipped: the temporary directory of this machine is on memory");
        return;
    }
    run(&[]).expect_complaint(125, &[disk.to_str().unwrap(), "tmpfs"]);
    assert_eq!(run(&["--insecure-files"]).expect_code(0).text(), "reader");
}

/// Waits for the cleaner, and says how long it took.
fn cleaned(home: &Home, after: &str) {
    let took = home.wait_for_cleaners();
    remark(format_args!("files removed {took:?} after {after} (promised: 5 s)"));
}

#[test]
fn the_files_are_removed_when_the_step_ends_in_whatever_way() {
    let home = Home::new();
    let agent = agent(&home);
    let args = ["-f", "a={{db.password}}", "-f", "deep/b={{db.password}}"];
    shell(&home, &agent, &args, "touch $KEYSIDE_FILES/deep/own; exit 3").end().expect_code(3);
    cleaned(&home, "an exit");

    let started = home.join("started");
    let mut step =
        home.wrapper(args).with(&agent).args(["--", "/bin/sh", "-c", "touch \"$0\"; sleep 1000"]).arg(&started).start();
    eventually("the step runs", || started.exists().then_some(()));
    let left = home.step_directories();
    assert_eq!(left.len(), 1);
    assert!(left[0].ends_with(step.pid().to_string()), "{left:?} is not named by the step");
    assert!(step.is_running());
    // Its own sleep is not in its process group's hands; the shell goes, and the files with it.
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", step.pid())).unwrap_or_default();
    step.signal(Signal::KILL);
    assert_eq!(step.end().signal(), Some(9));
    cleaned(&home, "kill -9");
    for child in children.split_whitespace() {
        let pid = child.parse().ok().and_then(Pid::from_raw).unwrap();
        // Only what our own step started, while it is still called so.
        if std::fs::read_to_string(format!("/proc/{child}/comm")).is_ok_and(|name| name == "sleep\n") {
            kill_process(pid, Signal::KILL).unwrap();
        }
    }

    // A start that fails leaves nothing either.
    shell(&home, &agent, &["-f", "a={{db.missing}}"], "true").end().expect_code(125);
    cleaned(&home, "a failed start");
    home.wrapper(["-f", "a={{db.user}}", "--", "/no/such/program"]).with(&agent).end().expect_code(127);
    cleaned(&home, "a command that does not exist");
}

#[test]
fn a_step_of_another_user_reads_its_files_and_nobody_else_does() {
    if !programs::is_root() {
        remark("skipped: only root can run a step as somebody else");
        return;
    }
    let home = Home::new();
    home.let_others_in();
    let agent = agent(&home);
    let script = "id -u; id -G; cat $KEYSIDE_FILES/a; echo; stat -c '%a %u %g' $KEYSIDE_FILES $KEYSIDE_FILES/a; echo $KEYSIDE_FILES";
    let run = shell(&home, &agent, &["--user", "1234:1235", "-f", "a={{db.user}}"], script);
    let text = run.end().expect_code(0).text();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..5], ["1234", "1235", "reader", "700 1234 1235", "400 1234 1235"], "{text}");
    let directory = PathBuf::from(lines[5]);
    eventually("the files are removed", || (!directory.exists()).then_some(()));
    // The base that was made for that uid stays empty; it is not in the home.
    let _ = std::fs::remove_dir(directory.parent().unwrap());
}
