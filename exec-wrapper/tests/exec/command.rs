//! The command: where it is found, how the exit codes tell who failed, which flags are refused.

use std::os::unix::fs::PermissionsExt as _;

use crate::harness::{Place, is_root, ran};

#[test]
fn the_exit_code_is_the_commands_own() {
    let place = Place::without_agent();
    assert_eq!(place.run(&["--", "sh", "-c", "exit 7"]).code, Some(7));
    assert_eq!(place.run(&["--", "sh", "-c", "kill -9 $$"]).code, None);
}

#[test]
fn a_missing_command_is_127_and_one_that_cannot_be_executed_126_before_any_request() {
    let place = Place::with_agent();
    let file = place.write("work/plain", "#!/bin/sh\n");
    let file = file.to_str().expect("text");
    for (command, code) in [
        ("no-such-command", 127),
        ("/no/such", 127),
        ("", 127),
        (file, 126),
        ("/", 126),
        ("./plain", 126),
        ("./plain/x", 127),
    ] {
        place.run(&["-e", "A={{db.user}}", "--", command]).refused(code, &["hint: "]);
    }
    assert_eq!(place.seen.count(), 0);
}

#[test]
fn the_command_is_looked_up_on_the_childs_path() {
    let place = Place::with_agent();
    let script = place.write("home/mine", "#!/bin/sh\necho mine $0\n");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    let home = format!("PATH={}", place.path("home").display());
    let run = place.run(&["-e", &home, "--", "mine"]);
    assert_eq!(run.stdout, format!("mine {}\n", script.display()));
    place.run(&["-e", "PATH=/nonexistent", "--", "true"]).refused(127, &["true"]);
    // A file without permission on the way does not hide the one behind it.
    place.write("work/mine", "");
    let both = format!("PATH={}:{}", place.path("work").display(), place.path("home").display());
    assert_eq!(place.run(&["-e", &both, "--", "mine"]).code, Some(0));
}

#[test]
fn a_script_without_an_interpreter_line_is_run_by_sh() {
    let place = Place::without_agent();
    let script = place.write("work/script", "echo ran $1\n");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    place.run(&["--", "./script", "x"]).printed("ran x\n");
}

#[test]
fn argument_bytes_are_kept_and_argv0_is_what_was_typed() {
    let place = Place::without_agent();
    use std::os::unix::ffi::OsStrExt as _;
    let odd = std::ffi::OsStr::from_bytes(b"\xff\xfe {{db.user}} \n");
    let run = place.wrapper(&["--", "cat", "/proc/self/cmdline"]).arg(odd).output().expect("runs");
    assert_eq!(run.stdout[..26], *b"cat\0/proc/self/cmdline\0\xff\xfe ");
}

#[test]
fn a_wrong_flag_is_125_with_a_suggestion() {
    let place = Place::with_agent();
    place.run(&["--secrets", "db", "--", "true"]).refused(125, &["--secrets", "did you mean --secret?"]);
    place.run(&["--wait", "soon", "--", "true"]).refused(125, &["--wait"]);
    place.run(&[]).refused(125, &["no command"]);
    place.run(&["-q"]).refused(125, &["no command"]);
}

#[test]
fn what_is_not_in_this_version_is_refused_by_name() {
    let place = Place::with_agent();
    for (args, named) in [
        (&["--mask"][..], "--mask"),
        (&["--init", "always"], "--init"),
        (&["--on-change", "restart"], "--on-change"),
        (&["--on-change", "ignore", "--on-change", "signal:HUP"], "--on-change"),
    ] {
        place.run(&[args, &["--", "echo", "started"]].concat()).refused(125, &[named, "not in this version"]);
    }
    place.run(&["shim", "/tmp/x", "python"]).refused(125, &["shim", "not in this version"]);
    place.run(&["--agent", "embedded", "-e", "A={{db.user}}", "--", "true"]).refused(125, &["embedded"]);
    place.run(&["--on-change", "ignore", "--init", "auto", "--debounce", "1s", "--", "echo", "ok"]).printed("ok\n");
}

#[test]
fn help_and_version_go_to_stdout() {
    let place = Place::without_agent();
    let help = place.run(&["--help"]);
    assert!(help.code == Some(0) && help.stdout.contains("Examples") && help.stderr.is_empty());
    assert_eq!(place.run(&["--version"]).stdout, format!("keyside-exec {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn chdir_changes_where_the_command_runs_and_is_found() {
    let place = Place::without_agent();
    let script = place.write("home/tool", "#!/bin/sh\npwd\n");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    place.run(&["--chdir", "../home", "--", "./tool"]).printed(&format!("{}\n", place.path("home").display()));
    place.run(&["--chdir", "/no/such", "--", "true"]).refused(125, &["--chdir"]);
}

#[test]
fn user_becomes_somebody_else_for_good_without_supplementary_groups() {
    if !is_root("user_becomes_somebody_else_for_good_without_supplementary_groups") {
        return;
    }
    let place = Place::without_agent();
    let run = |user: &str| {
        place.run(&["--user", user, "--", "grep", "-E", "^(Uid|Gid|Groups|CapEff)", "/proc/self/status"]).stdout
    };
    let expected = |gid: u32| {
        format!(
            "Uid:\t1234\t1234\t1234\t1234\nGid:\t{gid}\t{gid}\t{gid}\t{gid}\nGroups:\t \nCapEff:\t0000000000000000\n"
        )
    };
    assert_eq!(run("1234:77"), expected(77));
    assert_eq!(run("1234"), expected(rustix::process::getegid().as_raw()));
}

#[test]
fn user_without_root_is_refused() {
    let place = Place::without_agent();
    if !is_root("user_without_root_is_refused, from root") {
        place.run(&["--user", "0", "--", "true"]).refused(125, &["--user needs root"]);
        return;
    }
    // The test's directory is the tester's alone; the inner wrapper needs nothing of it.
    let mut wrapper = place.wrapper(&["--user", "1234", "--", crate::harness::WRAPPER, "--user", "0", "--", "true"]);
    let readable = std::fs::File::open(crate::harness::WRAPPER).is_ok();
    assert!(readable);
    let run = ran(wrapper.current_dir("/"));
    assert!(run.code == Some(125) || run.code == Some(126), "{run:?}");
}

#[test]
fn an_option_never_takes_the_two_dashes_or_no_time_at_all_for_its_value() {
    let place = Place::with_agent();
    place.run(&["--env", "--", "echo", "hi"]).refused(125, &["--env needs a value", "hint: "]);
    place.run(&["--secret", "--", "true"]).refused(125, &["--secret needs a value", "hint: "]);
    place.run(&["--timeout", "0", "--", "true"]).refused(125, &["--timeout must be longer than 0", "hint: "]);
    place.write("config/keyside/keyside.toml", "[exec]\ntimeout = \"0s\"\n");
    place.run(&["--", "true"]).refused(125, &["--timeout must be longer than 0", "hint: "]);
}

#[test]
fn a_stdout_that_cannot_be_written_is_told_with_a_hint() {
    let place = Place::without_agent();
    let full = std::fs::File::options().write(true).open("/dev/full").expect("it is there");
    let child = place.wrapper(&["--dry-run", "--", "true"]).stdout(full).output().expect("it runs");
    let stderr = String::from_utf8_lossy(&child.stderr).into_owned();
    assert_eq!(child.status.code(), Some(125), "{stderr}");
    assert!(stderr.starts_with("keyside: cannot write to stdout") && stderr.contains("\nhint: "), "{stderr}");
}
