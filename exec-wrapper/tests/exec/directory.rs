//! `--files dir`: the directory on memory, and its cleaner.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::harness::{
    CANARY, Place, Step, WRAPPER, eventually, is_empty, is_root, may_mount, memory, pid_namespace, ran,
};

/// Starts a step that says where its files are and then waits.
fn waiting_step(place: &Place, base: &Path) -> (Step, PathBuf) {
    let mut wrapper = place.wrapper(&["--files", "dir", "-f", "pw={{db.password}}", "--files-dir"]);
    let mut step = Step::start(wrapper.arg(base).args(["--", "sh", "-c", "echo $KEYSIDE_FILES; exec sleep 1000"]));
    let files = PathBuf::from(step.line());
    (step, files)
}

#[test]
fn the_files_go_when_the_step_ends_however_it_ends() {
    let place = Place::with_agent();
    let base = memory();
    let (mut child, files) = waiting_step(&place, base.path());
    assert_eq!(std::fs::read_to_string(files.join("pw")).expect("there"), CANARY);
    assert!(files.starts_with(base.path()));
    child.kill();
    // Even while its parent has not reaped it.
    eventually("the files are gone", || is_empty(base.path()));
}

#[test]
fn what_a_killed_cleaner_left_is_removed_by_the_next_start_and_a_living_steps_files_stay() {
    // A cleaner is not dumpable: only root may look into it, to find it or more.
    if !is_root("what_a_killed_cleaner_left_is_removed_by_the_next_start_and_a_living_steps_files_stay") {
        return;
    }
    let place = Place::with_agent();
    let base = memory();
    // One has a cleaner, one has lost it, both live; the third is dead and so is its cleaner.
    let (mut living, living_files) = waiting_step(&place, base.path());
    let (mut bereft, bereft_files) = waiting_step(&place, base.path());
    let (mut child, files) = waiting_step(&place, base.path());
    for files in [&bereft_files, &files] {
        let cleaner = rustix::process::Pid::from_raw(cleaner_of(files)).expect("a pid");
        rustix::process::kill_process(cleaner, rustix::process::Signal::KILL).expect("killed");
    }
    child.kill();
    child.end();
    // The lock of the killed cleaner goes with it, in its own time.
    eventually("the next start removes the rest", || {
        let dir = base.path().to_str().expect("text");
        place.run(&["--files", "dir", "-f", "a=x", "--files-dir", dir, "--", "true"]).printed("");
        !files.exists()
    });
    for (step, files) in [(&mut living, living_files), (&mut bereft, bereft_files)] {
        assert_eq!(std::fs::read_to_string(files.join("pw")).expect("there"), CANARY);
        step.kill();
        step.end();
    }
    eventually("all files are gone", || {
        place
            .run(&["--files", "dir", "-f", "a=x", "--files-dir", base.path().to_str().expect("text"), "--", "true"])
            .printed("");
        is_empty(base.path())
    });
}

#[test]
fn the_cleaner_holds_no_pipe_of_the_caller_and_no_value() {
    // A cleaner is not dumpable: only root may look into it, to find it or more.
    if !is_root("the_cleaner_holds_no_pipe_of_the_caller_and_no_value") {
        return;
    }
    let place = Place::with_agent();
    let base = memory();
    let (mut child, files) = waiting_step(&place, base.path());
    let cleaner = cleaner_of(&files);
    let open: Vec<_> = std::fs::read_dir(format!("/proc/{cleaner}/fd")).expect("listed").flatten().collect();
    assert_eq!(open.len(), 3);
    for fd in open {
        let target = std::fs::read_link(fd.path()).expect("a link");
        assert!(target.starts_with(base.path()) || target.to_string_lossy().contains("pidfd"), "{target:?}");
    }
    {
        let maps = std::fs::read_to_string(format!("/proc/{cleaner}/maps")).expect("maps");
        let memory = std::fs::File::open(format!("/proc/{cleaner}/mem")).expect("mem");
        let mut seen = 0;
        for line in maps.lines().filter(|line| line.contains(" rw-p ")) {
            let (start, end) = line.split(' ').next().and_then(|range| range.split_once('-')).expect("a range");
            let (start, end) =
                (u64::from_str_radix(start, 16).expect("hex"), u64::from_str_radix(end, 16).expect("hex"));
            let mut bytes = vec![0; usize::try_from(end - start).expect("fits")];
            if std::os::unix::fs::FileExt::read_exact_at(&memory, &mut bytes, start).is_ok() {
                seen += bytes.len();
                assert!(!bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()));
            }
        }
        assert!(seen > 0);
    }
    child.kill();
    child.end();
}

#[test]
fn what_a_pid_namespace_that_was_killed_whole_left_is_removed_by_the_next_start() {
    const NAME: &str = "what_a_pid_namespace_that_was_killed_whole_left_is_removed_by_the_next_start";
    let place = Place::with_agent();
    let Some(namespace) = pid_namespace(&place, NAME) else { return };
    let base = memory();
    let dir = base.path().to_str().expect("text");
    // The step is PID 1 there: when it ends, its cleaner is killed with it.
    let script = "echo $KEYSIDE_FILES; echo $$; exec sleep 1000";
    let mut unshare = place.program("unshare");
    unshare.args(namespace).args([WRAPPER, "--files", "dir", "-f", "pw={{db.password}}", "--files-dir", dir]);
    let mut child = Step::start(unshare.args(["--", "sh", "-c", script]));
    let files = PathBuf::from(child.line());
    assert_eq!(child.line(), "1");
    assert_eq!(files, base.path().join("1"));
    // While it lives, another start leaves it alone, though pid 1 is somebody else here.
    place.run(&["--files", "dir", "-f", "a=x", "--files-dir", dir, "--", "true"]).printed("");
    assert!(files.join("pw").exists());
    child.kill();
    child.end();
    eventually("the next start removes the rest", || {
        place.run(&["--files", "dir", "-f", "a=x", "--files-dir", dir, "--", "true"]).printed("");
        !files.exists()
    });
}

#[test]
fn a_disk_is_refused_unless_it_is_permitted() {
    let place = Place::with_agent();
    let candidates = [env!("CARGO_TARGET_TMPDIR"), "/var/tmp", "/tmp"];
    let disk = candidates.into_iter().find_map(|dir| tempfile::tempdir_in(dir).ok()).expect("a directory on a disk");
    let dir = disk.path().to_str().expect("text");
    let args = ["--files", "dir", "-f", "a={{db.user}}", "--files-dir", dir, "--", "sh", "-c", "cat $KEYSIDE_FILES/a"];
    if rustix::fs::statfs(disk.path()).expect("statfs").f_type == 0x0102_1994 {
        eprintln!("SKIPPED, there is no disk here");
        return;
    }
    place.run(&args).refused(125, &["not on tmpfs", "--insecure-files"]);
    assert_eq!(place.seen.count(), 0);
    let run = place.run(&[&["--insecure-files"], &args[..]].concat());
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), "alice"));
    assert!(run.stderr.contains("disk"), "{run:?}");
    eventually("the files are gone", || is_empty(disk.path()));
}

#[test]
fn files_belong_to_the_user_of_the_step() {
    if !is_root("files_belong_to_the_user_of_the_step") {
        return;
    }
    let place = Place::with_agent();
    let show = "cat $KEYSIDE_FILES/d/a; stat -c \" %u %g %a\" $KEYSIDE_FILES $KEYSIDE_FILES/d $KEYSIDE_FILES/d/a; echo $KEYSIDE_FILES";
    let mut wrapper =
        place.wrapper(&["--user", "1234:77", "--files", "dir", "-f", "d/a={{db.user}}", "--", "sh", "-c", show]);
    let run = ran(wrapper.current_dir("/"));
    let (listing, path) = run.stdout.trim_end().rsplit_once('\n').expect("two parts");
    assert_eq!(listing, "alice 1234 77 700\n 1234 77 700\n 1234 77 400", "{}", run.stderr);
    eventually("the files are gone", || !Path::new(path).exists());
    let base = Path::new(path).parent().expect("a base");
    let metadata = base.metadata().expect("there");
    assert_eq!((metadata.uid(), metadata.mode() & 0o7777), (1234, 0o700));
    // Another test may use it just now, and then removes it.
    let _ = std::fs::remove_dir(base);
}

/// Finds the process called keyside-cleaner that holds `files` open. It takes that name in its own time.
fn cleaner_of(files: &Path) -> i32 {
    let mut found = None;
    eventually("a cleaner", || {
        let processes = std::fs::read_dir("/proc").expect("listed").flatten();
        found = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(|pid: &i32| {
            let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            comm.trim() == "keyside-cleaner"
                && std::fs::read_link(format!("/proc/{pid}/fd/2")).is_ok_and(|link| link == files)
        });
        found.is_some()
    });
    found.expect("a cleaner")
}

#[test]
fn a_full_directory_starts_nothing_and_leaves_nothing() {
    if !may_mount("a_full_directory_starts_nothing_and_leaves_nothing") {
        return;
    }
    let place = Place::with_agent();
    std::fs::create_dir(place.path("small")).expect("made");
    let script = format!(
        "mount -t tmpfs -o size=16k small {0} && {1} --files dir --files-dir {0} -f a={{{{db.password}}}} -f b={{{{big.100000}}}} -- echo started; echo $?; \
         i=0; while [ -n \"$(ls {0})\" ] && [ $i -lt 10000 ]; do i=$((i + 1)); done; ls {0}",
        place.path("small").display(),
        WRAPPER
    );
    let run = ran(place.program("unshare").args(["--mount", "sh", "-c", &script]));
    assert_eq!(run.stdout, "125\n", "{run:?}");
    assert!(run.stderr.contains("cannot write the file b") && run.stderr.contains("--files-dir"), "{run:?}");
}

#[test]
fn another_user_cannot_keep_a_step_from_starting_by_taking_its_name_on_shared_memory() {
    if !is_root("another_user_cannot_keep_a_step_from_starting_by_taking_its_name_on_shared_memory") {
        return;
    }
    let place = Place::with_agent();
    // A uid of this test's own.
    let uid = 700_000 + std::process::id() % 100_000;
    let squatted = PathBuf::from(format!("/dev/shm/keyside-{uid}"));
    std::fs::create_dir(&squatted).expect("a free name");
    std::os::unix::fs::chown(&squatted, Some(4321), Some(4321)).expect("root");
    let user = uid.to_string();
    let run = || {
        let mut wrapper = place.wrapper(&["--user", &user, "--files", "dir", "-f", "a={{db.user}}", "--"]);
        wrapper.args(["sh", "-c", "cat $KEYSIDE_FILES/a; echo; echo $KEYSIDE_FILES"]).current_dir("/");
        let run = ran(&mut wrapper);
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:?}");
        let path = PathBuf::from(run.stdout.strip_prefix("alice\n").expect("the value").trim_end());
        eventually("the files are gone", || !path.exists());
        path.parent().expect("a base").to_owned()
    };
    let base = run();
    assert!(base.to_str().is_some_and(|base| base.starts_with(&format!("{}-", squatted.display()))), "{base:?}");
    let metadata = base.metadata().expect("there");
    assert_eq!((metadata.uid(), metadata.mode() & 0o7777), (uid, 0o700));
    // It is found again, and not one more made for each start.
    assert_eq!(run(), base);
    for directory in [base, squatted] {
        std::fs::remove_dir(directory).expect("empty");
    }
}
