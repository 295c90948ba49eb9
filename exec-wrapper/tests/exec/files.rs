//! Files of every kind: what they hold, what they may be called, and that nothing of them stays.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::harness::{
    CANARY, Place, Step, WRAPPER, agent_at, answer, eventually, is_empty, is_root, may_mount, memory, ran,
};

/// The kinds that have a directory, as far as they can be had here.
fn kinds_with_directory(test: &str) -> Vec<&'static str> {
    let mut kinds = vec!["dir", "auto"];
    if may_mount(&format!("{test}, private")) {
        kinds.push("private");
    }
    kinds
}

/// Tells whether no process of ours has anything mounted at `point`, and nothing is in it.
fn is_gone(point: &Path) -> bool {
    let processes = std::fs::read_dir("/proc").expect("listed").flatten();
    let mut mounts = processes.filter_map(|entry| std::fs::read_to_string(entry.path().join("mountinfo")).ok());
    let shown = format!(" {} ", point.display());
    is_empty(point) && !mounts.any(|mounts| mounts.contains(&shown))
}

#[test]
fn every_source_of_a_file_gives_exactly_its_bytes_in_each_kind_of_directory() {
    let place = Place::with_agent();
    let source = place.write("work/app.conf.in", b"\xff user={{db.user}}\nplain \\{{ here");
    for kind in kinds_with_directory("every_source_of_a_file_gives_exactly_its_bytes_in_each_kind_of_directory") {
        let base = memory();
        let mut wrapper =
            place.wrapper(&["--files", kind, "-f", "sub/pw={{db.password}}", "-F", "CERT={{tls.cert.pem}}"]);
        wrapper.args(["--secret-files", "tls", "--template", &format!("app.conf={}", source.display())]);
        wrapper.arg("--files-dir").arg(base.path()).args(["--", "sh", "-c"]);
        wrapper.arg("cd $KEYSIDE_FILES; cat sub/pw app.conf tls/key \"$CERT\" tls/cert.pem; echo; test $CERT = $KEYSIDE_FILES/CERT; echo $?");
        let run = wrapper.output().expect("ran");
        let expected = [CANARY.as_bytes(), b"\xff user=alice\nplain {{ hereKEYCERT\nCERT\n\n0\n"].concat();
        assert_eq!(run.stdout, expected, "{kind}: {}", String::from_utf8_lossy(&run.stderr));
        assert_eq!(run.stderr, b"");
        eventually("the files are gone", || is_gone(base.path()));
    }
}

#[test]
fn modes_are_exact_under_any_umask_and_the_directory_is_on_memory() {
    let place = Place::with_agent();
    for kind in kinds_with_directory("modes_are_exact_under_any_umask_and_the_directory_is_on_memory") {
        let script = format!(
            "umask 777; exec {} --files {kind} -f a={{{{db.user}}}} -f b/c=x -- sh -c 'cd $KEYSIDE_FILES; stat -c \"%a %u\" . a b b/c; stat -f -c %T .; umask'",
            crate::harness::WRAPPER
        );
        let uid = rustix::process::geteuid().as_raw();
        let run = ran(place.program("/bin/sh").arg("-c").arg(script));
        run.printed(&format!("700 {uid}\n400 {uid}\n700 {uid}\n400 {uid}\ntmpfs\n0777\n"));
    }
}

#[test]
fn names_that_could_lead_elsewhere_are_refused_before_anything_is_written() {
    let place = Place::with_agent();
    let long = format!("{}=1", "x".repeat(256));
    for kind in kinds_with_directory("names_that_could_lead_elsewhere_are_refused_before_anything_is_written") {
        let base = memory();
        let dir = base.path().to_str().expect("text");
        let args = ["--files", kind, "--files-dir", dir];
        for name in ["../a=1", "/a=1", "a/../b=1", "a\nb=1", "a/=1", &long] {
            place.run(&[&args[..], &["-f", name, "--", "true"]].concat()).refused(125, &["--file"]);
        }
        let both = ["-f", "a=1", "-f", "A=2", "--", "true"];
        place.run(&[&args[..], &both].concat()).refused(125, &["differ only by case"]);
        assert!(is_empty(base.path()) && place.seen.count() == 0);
    }
    for kind in kinds_with_directory("names_that_could_lead_elsewhere_are_refused_before_anything_is_written") {
        let base = memory();
        let dir = base.path().to_str().expect("text");
        let args = ["--files", kind, "--files-dir", dir, "--secret-files"];
        place.run(&[&args[..], &["path", "--", "true"]].concat()).refused(125, &["../x"]);
        place.run(&[&args[..], &["case", "--", "true"]].concat()).refused(125, &["differ only by case"]);
        eventually("nothing stays", || is_gone(base.path()));
    }
}

#[test]
fn nothing_stays_when_the_launch_fails() {
    let place = Place::with_agent();
    let script = place.write("work/script", "#!/no/such/interpreter\n");
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
    for kind in kinds_with_directory("nothing_stays_when_the_launch_fails") {
        let base = memory();
        let dir = base.path().to_str().expect("text");
        let run = |args: &[&str]| place.run(&[&["--files", kind, "--files-dir", dir], args].concat());
        run(&["-f", "a={{no.such}}", "--", "true"]).refused(125, &["{{no.such}}"]);
        run(&["-f", "a={{db.password}}", "-e", "N={{nul.key}}", "--", "true"]).refused(125, &["NUL"]);
        run(&["-f", "a={{db.password}}", "--", "./script"]).refused(127, &["interpreter"]);
        run(&["-f", "a={{db.password}}", "--", "/no/such"]).refused(127, &["/no/such"]);
        run(&["-f", "a={{db.password}}", "--report", "/no/such/report", "--", "true"]).refused(125, &["report"]);
        eventually("the files are gone", || is_gone(base.path()));
    }
}

#[test]
fn nothing_stays_when_the_agent_goes_away_in_the_middle_of_its_answer() {
    let place = Place::without_agent();
    agent_at(&place.socket(), |_, _, body| answer(body)[..60].to_owned() + "\u{0}");
    for kind in kinds_with_directory("nothing_stays_when_the_agent_goes_away_in_the_middle_of_its_answer") {
        let base = memory();
        let dir = base.path().to_str().expect("text");
        let args =
            ["--files", kind, "--files-dir", dir, "-f", "a={{db.password}}", "--wait", "0", "--timeout", "500ms"];
        place.run(&[&args[..], &["--", "echo", "started"]].concat()).refused(125, &["agent"]);
        eventually("the files are gone", || is_gone(base.path()));
    }
}

#[test]
fn nothing_stays_when_the_wrapper_is_killed_while_it_waits_for_the_agent() {
    let place = Place::without_agent();
    let socket = place.socket();
    // A request that is never answered.
    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("a free path");
    for kind in kinds_with_directory("nothing_stays_when_the_wrapper_is_killed_while_it_waits_for_the_agent") {
        let base = memory();
        let mut wrapper = place.wrapper(&["--files", kind, "-f", "a={{db.password}}", "--files-dir"]);
        let mut step = Step::start(wrapper.arg(base.path()).args(["--", "echo", "started"]));
        let (mut stream, _) = listener.accept().expect("the wrapper");
        std::io::Read::read_exact(&mut stream, &mut [0; 64]).expect("a request");
        step.kill();
        assert!(!step.end().success());
        assert_eq!(step.line(), "");
        eventually("the files are gone", || is_gone(base.path()));
    }
}

#[test]
fn nothing_stays_when_the_wrapper_is_killed_between_writing_the_files_and_starting_the_command() {
    const NAME: &str = "nothing_stays_when_the_wrapper_is_killed_between_writing_the_files_and_starting_the_command";
    let place = Place::with_agent();
    for kind in kinds_with_directory(NAME) {
        let base = memory();
        // The report is written after the files, and a FIFO takes it only when somebody reads.
        let fifo = place.path(&format!("{kind}-fifo"));
        ran(place.program("mkfifo").arg(&fifo)).printed("");
        let mut wrapper = place.wrapper(&["--files", kind, "-f", "a={{db.password}}", "--files-dir"]);
        wrapper.arg(base.path()).arg("--report").arg(&fifo).args(["--", "echo", "started"]);
        let mut step = Step::start(&mut wrapper);
        let mounted = kind != "dir" && may_mount(NAME);
        let seen = if !mounted {
            base.path().join(step.pid().as_raw_nonzero().to_string()).join("a")
        } else {
            let root = Path::new("/proc").join(step.pid().as_raw_nonzero().to_string()).join("root");
            root.join(base.path().strip_prefix("/").expect("absolute")).join("a")
        };
        eventually("the file is written", || std::fs::read_to_string(&seen).is_ok_and(|text| text == CANARY));
        step.kill();
        assert!(!step.end().success());
        assert_eq!(step.line(), "");
        eventually("the files are gone", || is_gone(base.path()));
    }
}

#[test]
fn no_value_is_asked_for_before_there_is_a_place_for_it() {
    let place = Place::with_agent();
    let file = place.write("file", "");
    let blocked = file.join("below");
    for kind in ["auto", "dir", "private"] {
        let mut wrapper = place.wrapper(&["--files", kind, "-f", "a={{db.password}}", "--files-dir"]);
        ran(wrapper.arg(&blocked).args(["--", "echo", "started"])).refused(125, &["hint: "]);
    }
    // So few descriptors that no memfd can be made.
    let script = format!(
        "ulimit -n 4; exec {} --files memfd -F A={{{{db.password}}}} -F B=1 -F C=1 -F D=1 -- echo started",
        crate::harness::WRAPPER
    );
    ran(place.program("/bin/sh").arg("-c").arg(script)).refused(125, &["memfd"]);
    assert_eq!(place.seen.count(), 0);
}

#[test]
fn a_dry_run_and_verbose_tell_how_strong_the_files_are_and_why_and_make_nothing() {
    let place = Place::with_agent();
    let base = memory();
    let point = base.path().join("point");
    let mounts = may_mount("a_dry_run_and_verbose_tell_how_strong_the_files_are_and_why_and_make_nothing, private");
    let told = |kind: &str, file: &str| {
        let mut args = vec!["--dry-run", "--files", kind, file, "A={{db.user}}"];
        if kind != "memfd" {
            args.extend(["--files-dir", point.to_str().expect("text")]);
        }
        let run = place.run(&[&args[..], &["--", "true"]].concat());
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
        assert!(!point.exists() && place.seen.count() == 0);
        let dry = run.stdout.lines().find(|line| line.starts_with("files: ")).expect("told").to_owned();
        let resident = run.stdout.lines().last().expect("a line").to_owned();
        args[0] = "-v";
        let run = place.run(&[&args[..], &["--", "true"]].concat());
        assert!(run.stderr.contains(&format!("keyside: {dry}\n")), "{dry} is not in {run:?}");
        let _ = std::fs::remove_dir_all(&point);
        place.seen.forget();
        (dry, resident)
    };
    let (dir, resident) = told("dir", "-f");
    assert!(dir.starts_with("files: weak: dir, in ") && dir.contains("swapped out"), "{dir}");
    assert!(resident.contains("cleaner"), "{resident}");
    let (memfd, resident) = told("memfd", "-F");
    assert!(memfd.starts_with("files: weak: memfd, ") && resident == "stays resident: no", "{memfd}, {resident}");
    let (auto, resident) = told("auto", "-f");
    if mounts {
        assert!(auto.starts_with(&format!("files: secure: private, at {}; ", point.display())), "{auto}");
        assert_eq!(told("private", "-f"), (auto, resident));
    } else {
        assert!(auto.starts_with("files: weak: dir, ") && auto.contains("; not private: "), "{auto}");
    }
}

#[test]
fn the_kind_may_stand_in_the_configuration_and_a_flag_lies_over_it() {
    let place = Place::with_agent();
    place.write(
        "config/keyside/keyside.toml",
        "[exec]\nfiles = 'memfd'\n[profile.p]\nfiles = 'dir'\n[profile.bad]\nfiles = 'memory'\n",
    );
    let show = ["-F", "A={{db.user}}", "--", "sh", "-c", "printenv KEYSIDE_FILES; echo; echo ${A%/*}; cat $A"];
    place.run(&show).printed("\n/proc/self/fd\nalice");
    for flags in [&["--profile", "p"][..], &["--files", "dir"]] {
        let run = place.run(&[flags, &show].concat());
        assert!(run.stdout.starts_with("/dev/shm/keyside-") && run.stdout.ends_with("alice"), "{run:?}");
    }
    place.run(&[&["--profile", "bad"], &show[..]].concat()).refused(125, &["private, dir or memfd"]);
    if may_mount("the_kind_may_stand_in_the_configuration_and_a_flag_lies_over_it, private") {
        let point = place.path("point");
        let text = format!("[exec]\nfiles = 'private'\nfiles_dir = '{}'\n", point.display());
        place.write("config/keyside/keyside.toml", text);
        let shown = point.display();
        place.run(&show).printed(&format!("{shown}\n\n{shown}\nalice"));
    }
}

#[test]
fn a_variable_set_by_env_and_by_file_env_is_an_error() {
    Place::with_agent()
        .run(&["-e", "A=1", "-F", "A=2", "--", "true"])
        .refused(125, &["A is set by --env and by --file-env"]);
}

#[test]
fn lenient_leaves_a_malformed_place_in_template_files_only() {
    let place = Place::with_agent();
    let source = place.write("work/t", "{{ nonsense {{db.user}}");
    let template = format!("t={}", source.display());
    place.run(&["--template", &template, "--", "true"]).refused(125, &["--template t: malformed"]);
    place
        .run(&["--lenient", "--template", &template, "--", "sh", "-c", "cat $KEYSIDE_FILES/t"])
        .printed("{{ nonsense alice");
    place.run(&["--lenient", "-f", "a={{oops", "--", "true"]).refused(125, &["--file a: malformed"]);
}

#[test]
fn without_files_the_variable_is_not_touched() {
    let place = Place::without_agent();
    ran(place.wrapper(&["--", "printenv", "KEYSIDE_FILES"]).env("KEYSIDE_FILES", "mine")).printed("mine\n");
}

#[test]
fn a_limit_of_file_sizes_is_a_failure_that_is_told_and_no_end_by_a_signal() {
    let place = Place::with_agent();
    let run = |kind: &str, flags: &str| {
        let script = format!("ulimit -f 0; exec {WRAPPER} --files {kind} {flags} -- echo started");
        ran(place.program("sh").args(["-c", &script]))
    };
    let mut kinds = vec!["dir", "memfd"];
    let point = place.path("point");
    let private = format!("private --files-dir {}", point.display());
    if may_mount("a_limit_of_file_sizes_is_a_failure_that_is_told_and_no_end_by_a_signal") {
        kinds.push(&private);
    }
    for kind in kinds {
        run(kind, "-F A={{db.user}}").refused(125, &["cannot write the file A", "ulimit -f"]);
    }
    let report = format!("--report {}", place.path("report.json").display());
    run("dir", &report).refused(125, &["cannot write the report"]);
}

#[test]
fn the_step_gets_the_disposition_of_sigxfsz_it_would_have_had() {
    let place = Place::with_agent();
    let run = |before: &str, wrapper: &str| {
        let script = format!("{before} exec {wrapper} grep ^SigIgn /proc/self/status");
        let run = ran(place.program("sh").args(["-c", &script]));
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:?}");
        run.stdout
    };
    let wrapper = format!("{WRAPPER} --files memfd -F A={{{{db.user}}}} --");
    for before in ["", "trap '' XFSZ;"] {
        assert_eq!(run(before, &wrapper), run(before, ""));
    }
    assert_ne!(run("", ""), run("trap '' XFSZ;", ""));
}

#[test]
fn a_place_that_the_steps_user_cannot_reach_is_refused() {
    const TEST: &str = "a_place_that_the_steps_user_cannot_reach_is_refused";
    if !is_root(TEST) {
        return;
    }
    let place = Place::with_agent();
    let memory = memory();
    let barred = memory.path().join("barred");
    std::fs::create_dir(&barred).expect("made");
    let set = |path: &Path, mode| std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("our own");
    set(memory.path(), 0o755);
    set(&barred, 0o700);
    let run = |kind: &str, more: &[&str]| {
        let point = barred.join(kind);
        let mut wrapper = place.wrapper(&["--user", "1234:77", "--files", kind, "-f", "a={{db.user}}", "--files-dir"]);
        ran(wrapper.arg(&point).args(more).args(["--", "sh", "-c", "cat $KEYSIDE_FILES/a"]))
    };
    let shown = barred.display().to_string();
    let mut kinds = vec!["dir", "auto"];
    if may_mount(TEST) {
        kinds.push("private");
    }
    for kind in &kinds {
        run(kind, &[]).refused(125, &["uid 1234", &shown, "--files-dir"]);
        run(kind, &["--dry-run"]).refused(125, &["uid 1234", &shown, "--files-dir"]);
    }
    assert!(is_empty(&barred));
    set(&barred, 0o711);
    for kind in &kinds {
        run(kind, &[]).printed("alice");
    }
}
