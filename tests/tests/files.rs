//! A step's files: their place, their modes, and their end.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::PathBuf;
use std::process::Stdio;

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
    let args = [
        "--files",
        "dir",
        "-f",
        "a={{db.user}}1",
        "-f",
        "deep/b={{db.user}}2",
        "-F",
        "VAR={{db.user}}3",
        "--secret-files",
        "db",
    ];
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
        let run = home.wrapper(["--files", "dir", "-f", "a={{db.user}}", "--files-dir"]).arg(&disk).args(args);
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
    let args = ["--files", "dir", "-f", "a={{db.password}}", "-f", "deep/b={{db.password}}"];
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
    shell(&home, &agent, &["--files", "dir", "-f", "a={{db.missing}}"], "true").end().expect_code(125);
    cleaned(&home, "a failed start");
    home.wrapper(["--files", "dir", "-f", "a={{db.user}}", "--", "/no/such/program"])
        .with(&agent)
        .end()
        .expect_code(127);
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
    let run = shell(&home, &agent, &["--user", "1234:1235", "--files", "dir", "-f", "a={{db.user}}"], script);
    let text = run.end().expect_code(0).text();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..5], ["1234", "1235", "reader", "700 1234 1235", "400 1234 1235"], "{text}");
    let directory = PathBuf::from(lines[5]);
    eventually("the files are removed", || (!directory.exists()).then_some(()));
    // The base that was made for that uid stays empty; it is not in the home.
    let _ = std::fs::remove_dir(directory.parent().unwrap());
}

/// Tells whether this process may mount.
fn may_mount() -> bool {
    let status = std::process::Command::new("unshare").args(["--mount", "true"]).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

#[test]
fn both_programs_hand_over_files_of_every_kind() {
    let home = Home::new();
    let agent = agent(&home);
    let mut kinds = vec!["auto", "dir", "memfd"];
    if may_mount() {
        kinds.push("private");
    } else {
        remark("skipped: private files need CAP_SYS_ADMIN");
    }
    for kind in kinds {
        let args = ["--files", kind, "-F", "VAR={{db.user}}", "--", "/bin/sh", "-c", "cat $VAR; sh -c 'cat $VAR'"];
        for run in [home.wrapper(args), home.keyside(["exec"]).args(args)] {
            assert_eq!(run.with(&agent).end().expect_code(0).text(), "readerreader", "{kind}");
        }
    }
}

#[test]
fn without_a_capability_files_go_to_a_directory_or_memfds_and_private_is_an_error_that_says_why() {
    let home = Home::new();
    if programs::is_root() {
        home.give_to(1000);
    }
    for program in ["keyside-exec", "keyside"] {
        // Nothing to resolve, so nobody to ask.
        let run = |args: &[&str]| {
            let run = if program == "keyside" { home.keyside(["exec"]) } else { home.wrapper([] as [&str; 0]) };
            let run = run.args(args).args(["-F", "VAR=text", "--", "/bin/sh", "-c", "cat $VAR; echo; echo ${VAR%/*}"]);
            if programs::is_root() { run.as_user(1000) } else { run }.end()
        };
        let auto = run(&["-v"]).expect_code(0);
        assert!(auto.text().starts_with("text\n") && auto.text().contains("/keyside/"), "{auto:?}");
        assert!(auto.stderr.contains("files: weak: dir, ") && auto.stderr.contains("CAP_SYS_ADMIN"), "{auto:?}");
        assert_eq!(run(&["--files", "memfd"]).expect_code(0).text(), "text\n/proc/self/fd\n");
        run(&["--files", "private"]).expect_complaint(125, &["CAP_SYS_ADMIN", "--files auto", "--files dir"]);
        cleaned(&home, "an exit");
    }
}

#[test]
fn private_files_go_with_the_last_process_that_can_see_them() {
    if !may_mount() {
        remark("skipped: private files need CAP_SYS_ADMIN");
        return;
    }
    let home = Home::new();
    let agent = agent(&home);
    let point = home.join("point");
    let started = home.join("started");
    let args = ["--files", "private", "-f", "a={{db.password}}", "--files-dir"];
    let mut step = home.wrapper(args).arg(&point).with(&agent);
    step = step.args(["--", "/bin/sh", "-c", "touch \"$0\"; exec sleep 1000"]).arg(&started);
    let mut step = step.start();
    eventually("the step runs", || started.exists().then_some(()));
    // Outside there is an empty directory; inside there is the value.
    assert_eq!(std::fs::read_dir(&point).unwrap().count(), 0);
    let inside = PathBuf::from(format!("/proc/{}/root", step.pid())).join(point.strip_prefix("/").unwrap()).join("a");
    assert_eq!(std::fs::read_to_string(inside).unwrap(), home.canary());
    assert!(step.is_running());
    step.signal(Signal::KILL);
    assert_eq!(step.end().signal(), Some(9));
    let shown = format!(" {} ", point.display());
    let is_mounted = || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let mut mounts = processes.filter_map(|entry| std::fs::read_to_string(entry.path().join("mountinfo")).ok());
        mounts.any(|mounts| mounts.contains(&shown))
    };
    let took = eventually("nobody sees the mount", || (!is_mounted()).then_some(())).1;
    remark(format_args!("the private file system went {took:?} after kill -9 (promised: 5 s)"));
    assert_eq!(std::fs::read_dir(&point).unwrap().count(), 0);
}
