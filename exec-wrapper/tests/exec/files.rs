//! Files: what they hold, who may read them, and that nothing of them stays.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use crate::harness::{CANARY, Place, eventually, is_root, ran};

/// A fresh directory on memory that these tests own.
fn memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").expect("/dev/shm is there")
}

fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).map_or(true, |mut entries| entries.next().is_none())
}

/// A step that is ended with its test, however that ends.
struct Step(Child);

impl Step {
    fn end(&mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("reaped");
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a step that says where its files are and then waits.
fn waiting_step(place: &Place, base: &Path) -> (Step, PathBuf) {
    let mut wrapper = place.wrapper(&["-f", "pw={{db.password}}", "--files-dir"]);
    wrapper.arg(base).args(["--", "sh", "-c", "echo $KEYSIDE_FILES; exec sleep 1000"]);
    let mut child = wrapper.stdout(Stdio::piped()).spawn().expect("started");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    (Step(child), PathBuf::from(line.trim_end()))
}

#[test]
fn every_kind_of_file_holds_exactly_its_bytes() {
    let place = Place::with_agent();
    let base = memory();
    let source = place.write("work/app.conf.in", b"\xff user={{db.user}}\nplain \\{{ here");
    let mut wrapper = place.wrapper(&[
        "-f",
        "sub/pw={{db.password}}",
        "-F",
        "CERT={{tls.cert.pem}}",
        "--secret-files",
        "tls",
        "--template",
    ]);
    wrapper.arg(format!("app.conf={}", source.display())).arg("--files-dir").arg(base.path()).args(["--", "sh", "-c"]);
    wrapper.arg("cd $KEYSIDE_FILES; cat sub/pw app.conf tls/key \"$CERT\" tls/cert.pem; echo; test $CERT = $KEYSIDE_FILES/CERT; echo $?");
    let run = wrapper.output().expect("ran");
    let expected = [CANARY.as_bytes(), b"\xff user=alice\nplain {{ hereKEYCERT\nCERT\n\n0\n"].concat();
    assert_eq!(run.stdout, expected, "{}", String::from_utf8_lossy(&run.stderr));
    assert_eq!(run.stderr, b"");
    eventually("the files are gone", || is_empty(base.path()));
}

#[test]
fn modes_are_exact_under_any_umask_and_the_directory_is_on_memory() {
    let place = Place::with_agent();
    let script = format!(
        "umask 777; exec {} -f a={{{{db.user}}}} -f b/c=x -- sh -c 'cd $KEYSIDE_FILES; stat -c \"%a %u\" . a b b/c; stat -f -c %T .'",
        crate::harness::WRAPPER
    );
    let uid = rustix::process::geteuid().as_raw();
    let run = ran(place.program("/bin/sh").arg("-c").arg(script));
    run.printed(&format!("700 {uid}\n400 {uid}\n700 {uid}\n400 {uid}\ntmpfs\n"));
}

#[test]
fn the_files_go_when_the_step_ends_however_it_ends() {
    let place = Place::with_agent();
    let base = memory();
    let (mut child, files) = waiting_step(&place, base.path());
    assert_eq!(std::fs::read_to_string(files.join("pw")).expect("there"), CANARY);
    assert!(files.starts_with(base.path()));
    child.0.kill().expect("killed");
    // Even while its parent has not reaped it.
    eventually("the files are gone", || is_empty(base.path()));
}

#[test]
fn the_files_go_when_the_launch_fails() {
    let place = Place::with_agent();
    let base = memory();
    let dir = base.path().to_str().expect("text");
    place.run(&["-f", "a={{no.such}}", "--files-dir", dir, "--", "true"]).refused(125, &["{{no.such}}"]);
    eventually("the directory is gone", || is_empty(base.path()));
    let script = place.write("work/script", "#!/no/such/interpreter\n");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    place.run(&["-f", "a={{db.password}}", "--files-dir", dir, "--", "./script"]).refused(127, &["interpreter"]);
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
    child.end();
    // The lock of the killed cleaner goes with it, in its own time.
    eventually("the next start removes the rest", || {
        let dir = base.path().to_str().expect("text");
        place.run(&["-f", "a=x", "--files-dir", dir, "--", "true"]).printed("");
        !files.exists()
    });
    for (step, files) in [(&mut living, living_files), (&mut bereft, bereft_files)] {
        assert_eq!(std::fs::read_to_string(files.join("pw")).expect("there"), CANARY);
        step.end();
    }
    eventually("all files are gone", || {
        place.run(&["-f", "a=x", "--files-dir", base.path().to_str().expect("text"), "--", "true"]).printed("");
        is_empty(base.path())
    });
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
    child.end();
}

#[test]
fn what_a_pid_namespace_that_was_killed_whole_left_is_removed_by_the_next_start() {
    if !is_root("what_a_pid_namespace_that_was_killed_whole_left_is_removed_by_the_next_start") {
        return;
    }
    let place = Place::with_agent();
    let base = memory();
    let dir = base.path().to_str().expect("text");
    // The step is PID 1 there: when it ends, its cleaner is killed with it.
    let script = "echo $KEYSIDE_FILES; echo $$; exec sleep 1000";
    let mut unshare = place.program("unshare");
    unshare.args([
        "--pid",
        "--fork",
        "--kill-child",
        crate::harness::WRAPPER,
        "-f",
        "pw={{db.password}}",
        "--files-dir",
        dir,
    ]);
    let mut child = Step(unshare.args(["--", "sh", "-c", script]).stdout(Stdio::piped()).spawn().expect("started"));
    let mut lines = BufReader::new(child.0.stdout.take().expect("piped")).lines();
    let files = PathBuf::from(lines.next().expect("a line").expect("text"));
    assert_eq!(lines.next().expect("a line").expect("text"), "1");
    assert_eq!(files, base.path().join("1"));
    // While it lives, another start leaves it alone, though pid 1 is somebody else here.
    place.run(&["-f", "a=x", "--files-dir", dir, "--", "true"]).printed("");
    assert!(files.join("pw").exists());
    child.end();
    eventually("the next start removes the rest", || {
        place.run(&["-f", "a=x", "--files-dir", dir, "--", "true"]).printed("");
        !files.exists()
    });
}

#[test]
fn a_disk_is_refused_unless_it_is_permitted() {
    let place = Place::with_agent();
    let candidates = [env!("CARGO_TARGET_TMPDIR"), "/var/tmp", "/tmp"];
    let disk = candidates.into_iter().find_map(|dir| tempfile::tempdir_in(dir).ok()).expect("a directory on a disk");
    let dir = disk.path().to_str().expect("text");
    let args = ["-f", "a={{db.user}}", "--files-dir", dir, "--", "sh", "-c", "cat $KEYSIDE_FILES/a"];
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
fn names_that_could_lead_elsewhere_are_refused_before_anything_is_written() {
    let place = Place::with_agent();
    let base = memory();
    let dir = base.path().to_str().expect("text");
    let long = format!("{}=1", "x".repeat(256));
    for name in ["../a=1", "/a=1", "a/../b=1", "a\nb=1", "a/=1", &long] {
        place.run(&["-f", name, "--files-dir", dir, "--", "true"]).refused(125, &["--file"]);
    }
    place.run(&["-f", "a=1", "-f", "A=2", "--files-dir", dir, "--", "true"]).refused(125, &["differ only by case"]);
    assert!(is_empty(base.path()) && place.seen.count() == 0);
    place.run(&["--secret-files", "path", "--files-dir", dir, "--", "true"]).refused(125, &["../x"]);
    place.run(&["--secret-files", "case", "--files-dir", dir, "--", "true"]).refused(125, &["differ only by case"]);
    eventually("nothing stays", || is_empty(base.path()));
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
fn files_belong_to_the_user_of_the_step() {
    if !is_root("files_belong_to_the_user_of_the_step") {
        return;
    }
    let place = Place::with_agent();
    let show = "cat $KEYSIDE_FILES/d/a; stat -c \" %u %g %a\" $KEYSIDE_FILES $KEYSIDE_FILES/d $KEYSIDE_FILES/d/a; echo $KEYSIDE_FILES";
    let mut wrapper = place.wrapper(&["--user", "1234:77", "-f", "d/a={{db.user}}", "--", "sh", "-c", show]);
    let run = ran(wrapper.current_dir("/"));
    let (listing, path) = run.stdout.trim_end().rsplit_once('\n').expect("two parts");
    assert_eq!(listing, "alice 1234 77 700\n 1234 77 700\n 1234 77 400", "{}", run.stderr);
    eventually("the files are gone", || !Path::new(path).exists());
    let base = Path::new(path).parent().expect("a base").metadata().expect("there");
    assert_eq!((base.uid(), base.mode() & 0o7777), (1234, 0o700));
}
