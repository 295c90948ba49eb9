//! `--files private`: a file system in the step's own mount namespace.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::harness::{CANARY, Place, Ran, Step, WRAPPER, eventually, is_empty, is_root, may_mount, memory, ran};

/// What is mounted at `point`, as `process` sees it.
fn mounts_at(process: &str, point: &Path) -> Vec<String> {
    let mounts = std::fs::read_to_string(format!("/proc/{process}/mountinfo")).unwrap_or_default();
    let shown = format!(" {} ", point.display());
    mounts.lines().filter(|line| line.contains(&shown)).map(str::to_owned).collect()
}

/// Tells whether any process at all sees a mount at `point`.
fn is_mounted_anywhere(point: &Path) -> bool {
    let processes = std::fs::read_dir("/proc").expect("listed").flatten();
    processes.filter_map(|entry| entry.file_name().into_string().ok()).any(|pid| !mounts_at(&pid, point).is_empty())
}

/// Starts a step with a private file `pw` that says where its files are and then waits for a line.
fn waiting_step(place: &Place, point: &Path) -> Step {
    let mut wrapper = place.wrapper(&["--files", "private", "-f", "pw={{db.password}}", "--files-dir"]);
    let script = "echo $KEYSIDE_FILES; read -r _; cat $KEYSIDE_FILES/pw; echo; sh -c 'cat $KEYSIDE_FILES/pw; echo'";
    let mut step = Step::start(wrapper.arg(point).args(["--", "sh", "-c", script]));
    assert_eq!(Path::new(&step.line()), point);
    step
}

#[test]
fn private_files_are_seen_by_the_step_and_what_it_starts_and_nowhere_else() {
    if !may_mount("private_files_are_seen_by_the_step_and_what_it_starts_and_nowhere_else") {
        return;
    }
    let place = Place::with_agent();
    let point = place.path("point");
    let mut step = waiting_step(&place, &point);
    // Outside, the mount point is an empty directory.
    assert!(point.is_dir() && is_empty(&point) && mounts_at("self", &point).is_empty());
    let pid = step.pid().as_raw_nonzero().to_string();
    let mounts = mounts_at(&pid, &point);
    assert_eq!(mounts.len(), 1);
    for option in [" rw,nosuid,nodev,noexec,", " - tmpfs keyside ", "size=262144k", "nr_inodes=65536", "mode=700"] {
        assert!(mounts[0].contains(option), "{option:?} is not in {mounts:?}");
    }
    assert!(!mounts[0].contains("shared:"), "{mounts:?}");
    // Another step at the same place sees its own files only.
    let mut other = waiting_step(&place, &point);
    other.say("go on");
    assert_eq!((other.line(), other.line()), (CANARY.to_owned(), CANARY.to_owned()));
    assert!(other.end().success());
    // The step and a grandchild.
    step.say("go on");
    assert_eq!((step.line(), step.line()), (CANARY.to_owned(), CANARY.to_owned()));
    assert!(step.end().success());
    eventually("the mount is gone", || !is_mounted_anywhere(&point));
    assert!(is_empty(&point));
}

#[test]
fn a_private_step_has_no_child_it_did_not_start_and_the_mount_goes_when_it_is_killed() {
    if !may_mount("a_private_step_has_no_child_it_did_not_start_and_the_mount_goes_when_it_is_killed") {
        return;
    }
    let place = Place::with_agent();
    let point = place.path("point");
    let mut step = waiting_step(&place, &point);
    let pid = step.pid().as_raw_nonzero();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("listed");
    assert_eq!(children, "");
    let cleaners = std::fs::read_dir("/proc").expect("listed").flatten().any(|entry| {
        let comm = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let of_ours = std::fs::read_link(entry.path().join("fd/2")).is_ok_and(|link| link.starts_with(&point));
        comm.trim() == "keyside-cleaner" && of_ours
    });
    assert!(!cleaners);
    assert!(is_mounted_anywhere(&point));
    step.kill();
    assert!(!step.end().success());
    eventually("the mount is gone", || !is_mounted_anywhere(&point));
    assert!(is_empty(&point));
}

#[test]
fn private_files_live_exactly_as_long_as_their_last_user() {
    if !may_mount("private_files_live_exactly_as_long_as_their_last_user") {
        return;
    }
    let place = Place::with_agent();
    let point = place.path("point");
    let (fifo, out) = (place.path("fifo"), place.path("out"));
    ran(place.program("mkfifo").arg(&fifo)).printed("");
    let script = format!(
        "{{ read -r _ <{}; cat $KEYSIDE_FILES/a >{1}.new; mv {1}.new {1}; }} >/dev/null 2>&1 &",
        fifo.display(),
        out.display()
    );
    let mut wrapper = place.wrapper(&["--files", "private", "-f", "a={{db.user}}", "--files-dir"]);
    ran(wrapper.arg(&point).args(["--", "sh", "-c", &script])).printed("");
    assert!(is_mounted_anywhere(&point));
    std::fs::write(&fifo, "go on\n").expect("it reads");
    eventually("the last user is done", || std::fs::read_to_string(&out).is_ok_and(|text| text == "alice"));
    eventually("the mount is gone", || !is_mounted_anywhere(&point));
}

#[test]
fn where_mounts_are_shared_nothing_leaks_out_and_later_mounts_of_the_host_come_in() {
    if !may_mount("where_mounts_are_shared_nothing_leaks_out_and_later_mounts_of_the_host_come_in") {
        return;
    }
    let place = Place::with_agent();
    let (point, later) = (place.path("point"), place.path("later"));
    std::fs::create_dir(&later).expect("made");
    // A host of its own: private to the real one first, then shared within.
    let host = "mount --make-rshared / && echo up && while read -r line; do eval \"$line\"; done";
    let mut unshare = place.program("unshare");
    let mut host = Step::start(unshare.args(["--mount", "--propagation", "private", "sh", "-c", host]));
    assert_eq!(host.line(), "up");
    let fifo = place.path("fifo");
    ran(place.program("mkfifo").arg(&fifo)).printed("");
    let step = format!("echo up; read -r _ <{}; ls {}; cat $KEYSIDE_FILES/a; echo", fifo.display(), later.display());
    let step = place.write("work/step", step);
    let (point_shown, later_shown) = (point.display(), later.display());
    host.say(&format!(
        "{WRAPPER} --files private --files-dir {point_shown} -f a={{{{db.user}}}} -- sh {} &",
        step.display()
    ));
    assert_eq!(host.line(), "up");
    host.say(&format!("grep -c ' {point_shown} ' /proc/self/mountinfo"));
    assert_eq!(host.line(), "0");
    host.say(&format!("mount -t tmpfs later {later_shown} && touch {later_shown}/seen && echo >{}", fifo.display()));
    assert_eq!((host.line(), host.line()), ("seen".to_owned(), "alice".to_owned()));
    assert!(host.end().success());
}

#[test]
fn private_files_belong_to_the_user_of_the_step() {
    if !is_root("private_files_belong_to_the_user_of_the_step")
        || !may_mount("private_files_belong_to_the_user_of_the_step")
    {
        return;
    }
    let place = Place::with_agent();
    let base = memory();
    std::fs::set_permissions(base.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("ours");
    let show = "cat $KEYSIDE_FILES/d/a; stat -c ' %u %g %a' $KEYSIDE_FILES $KEYSIDE_FILES/d $KEYSIDE_FILES/d/a; id -u";
    let mut wrapper = place.program("sh");
    wrapper.args(["-c", "umask 077; exec \"$@\"", "sh", WRAPPER, "--user", "1234:77", "--files", "private"]);
    wrapper
        .args(["-f", "d/a={{db.user}}"])
        .arg("--files-dir")
        .arg(base.path().join("new/point"))
        .args(["--", "sh", "-c", show]);
    ran(wrapper.current_dir("/")).printed("alice 1234 77 700\n 1234 77 700\n 1234 77 400\n1234\n");
    // What was made for it outside is root's, and everybody may see that it is empty.
    let made = base.path().join("new/point").metadata().expect("there");
    assert_eq!((made.uid(), made.mode() & 0o7777), (0, 0o755));
}

#[test]
fn a_mount_that_would_hide_something_or_could_be_taken_away_is_refused() {
    if !may_mount("a_mount_that_would_hide_something_or_could_be_taken_away_is_refused") {
        return;
    }
    let place = Place::with_agent();
    let base = memory();
    let run = |kind: &str, dir: &Path| {
        let mut wrapper = place.wrapper(&["--files", kind, "-v", "-f", "a={{db.user}}", "--files-dir"]);
        ran(wrapper.arg(dir).args(["--", "sh", "-c", "cat $KEYSIDE_FILES/a; echo; echo $KEYSIDE_FILES"]))
    };
    std::fs::create_dir(base.path().join("full")).expect("made");
    std::fs::write(base.path().join("full/notes"), "mine").expect("written");
    run("private", &base.path().join("full")).refused(125, &["not empty", "--files-dir"]);
    run("private", &base.path().join("full/notes")).refused(125, &["mount point"]);
    std::os::unix::fs::symlink("full", base.path().join("link")).expect("linked");
    run("private", &base.path().join("link")).refused(125, &["mount point"]);
    // `auto` takes a directory in the same place, never another place.
    let auto = run("auto", &base.path().join("full"));
    assert!(auto.stdout.starts_with(&format!("alice\n{}/full/", base.path().display())), "{auto:?}");
    assert!(auto.stderr.contains("files: weak: dir, ") && auto.stderr.contains("not empty"), "{auto:?}");
    run("auto", &base.path().join("full/notes")).refused(125, &["full/notes"]);
    if is_root("a_mount_that_would_hide_something_or_could_be_taken_away_is_refused, of another user") {
        std::fs::create_dir(base.path().join("foreign")).expect("made");
        std::os::unix::fs::chown(base.path().join("foreign"), Some(4321), None).expect("root");
        run("private", &base.path().join("foreign")).refused(125, &["belongs to uid 4321"]);
    }
}

/// Expects `private` to be refused with `why`, and `auto` to take a directory and to tell why; `run` gets the words of
/// `--files` and what follows.
#[track_caller]
fn auto_is_dir(place: &Place, why: &str, run: impl Fn(&[&str]) -> Ran) {
    let rest = ["-v", "-f", "a={{db.user}}", "--", "sh", "-c", "cat $KEYSIDE_FILES/a; echo; echo $KEYSIDE_FILES"];
    let seen = place.seen.count();
    run(&[&["--files", "private"], &rest[..]].concat())
        .refused(125, &["--files private cannot be had", why, "--files dir"]);
    run(&[&["--dry-run", "--files", "private"], &rest[..]].concat()).refused(125, &[why]);
    assert_eq!(place.seen.count(), seen);
    let auto = run(&rest);
    assert_eq!(auto.code, Some(0), "{auto:?}");
    let path = PathBuf::from(auto.stdout.strip_prefix("alice\n").expect("the value").trim_end());
    assert!(path.starts_with("/dev/shm"), "{path:?}");
    let told = format!("not private: {why}");
    assert!(auto.stderr.contains("files: weak: dir, in /dev/shm/") && auto.stderr.contains(&told), "{auto:?}");
    let dry = run(&[&["--dry-run"], &rest[..]].concat());
    assert!(dry.stdout.contains(&told) && dry.stdout.contains("a cleaner removes the files"), "{dry:?}");
    eventually("the files are gone", || !path.exists());
}

#[test]
fn without_the_capability_private_is_an_error_and_auto_is_a_directory() {
    let place = Place::with_agent();
    let bounded = ["--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin", "--ambient-caps", "-sys_admin"];
    auto_is_dir(&place, "it needs CAP_SYS_ADMIN", |args| {
        if rustix::process::geteuid().is_root() {
            ran(place.program("setpriv").args(bounded).arg(WRAPPER).args(args))
        } else {
            place.run(args)
        }
    });
}

/// Installs a seccomp filter that answers the call with this number by this error, and becomes the rest of the line.
const FILTER: &str = r"
import ctypes, os, struct, sys
number, error = int(sys.argv[1]), int(sys.argv[2])
def op(code, jt, jf, k): return struct.pack('HBBI', code, jt, jf, k)
program = op(0x20, 0, 0, 0) + op(0x15, 0, 1, number) + op(0x06, 0, 0, 0x00050000 | error) + op(0x06, 0, 0, 0x7fff0000)
code = ctypes.create_string_buffer(program)
class Program(ctypes.Structure): _fields_ = [('len', ctypes.c_ushort), ('filter', ctypes.c_void_p)]
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(38, 1, 0, 0, 0)
assert libc.prctl(22, 2, ctypes.byref(Program(4, ctypes.cast(code, ctypes.c_void_p)))) == 0
os.execv(sys.argv[3], sys.argv[3:])
";

#[test]
fn where_the_kernel_or_a_filter_refuses_a_call_private_is_an_error_and_auto_is_a_directory() {
    if !may_mount("where_the_kernel_or_a_filter_refuses_a_call_private_is_an_error_and_auto_is_a_directory") {
        return;
    }
    let (eperm, enosys) = ("1", "38");
    // The mount calls have one number everywhere.
    let cases = [
        ("430", enosys, "this kernel has no fsopen"),
        ("430", eperm, "fsopen is refused: permission denied"),
        ("431", eperm, "fsconfig is refused: permission denied"),
        ("432", eperm, "fsmount is refused: permission denied"),
    ];
    for (number, error, why) in cases {
        let place = Place::with_agent();
        auto_is_dir(&place, why, |args| {
            ran(place.program("/usr/bin/python3").args(["-c", FILTER, number, error, WRAPPER]).args(args))
        });
    }
    // What fails only at the mount itself cannot be foreseen, and a start copes with it all the same.
    let unshare = if cfg!(target_arch = "x86_64") { "272" } else { "97" };
    for (number, why) in [(unshare, "unshare is refused"), ("429", "move_mount is refused")] {
        let place = Place::with_agent();
        let run = |kind: &str| {
            let mut python = place.program("/usr/bin/python3");
            python.args(["-c", FILTER, number, eperm, WRAPPER, "-v", "--files", kind, "-f", "a={{db.user}}"]);
            ran(python.args(["--", "sh", "-c", "cat $KEYSIDE_FILES/a"]))
        };
        run("private").refused(125, &[why]);
        let auto = run("auto");
        assert_eq!((auto.code, auto.stdout.as_str()), (Some(0), "alice"), "{auto:?}");
        assert!(auto.stderr.contains("files: weak: dir, in /dev/shm/") && auto.stderr.contains(why), "{auto:?}");
    }
}

#[test]
fn where_the_default_mount_point_cannot_be_made_private_is_an_error_and_auto_is_a_directory() {
    if !may_mount("where_the_default_mount_point_cannot_be_made_private_is_an_error_and_auto_is_a_directory") {
        return;
    }
    let place = Place::with_agent();
    auto_is_dir(&place, "/run/keyside-files cannot be used as a mount point: read-only", |args| {
        // As in a container whose root file system is read-only.
        let script = "mount -t tmpfs -o ro none /run && exec \"$@\"";
        ran(place.program("unshare").args(["--mount", "sh", "-c", script, "sh", WRAPPER]).args(args))
    });
}

#[test]
fn in_a_chroot_private_is_an_error_and_auto_is_a_directory() {
    if !may_mount("in_a_chroot_private_is_an_error_and_auto_is_a_directory") {
        return;
    }
    let place = Place::with_agent();
    let root = place.path("root");
    std::fs::create_dir(&root).expect("made");
    // A plain directory with everything in it.
    let script = "for entry in /*; do
            if [ -L $entry ]; then cp -P $entry $0/; elif [ -d $entry ]; then mkdir $0$entry && mount --rbind $entry $0$entry; fi
        done
        exec /usr/sbin/chroot $0 \"$@\"";
    auto_is_dir(&place, "the root directory is no mount point", |args| {
        let run = ran(place
            .program("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", script])
            .arg(&root)
            .arg(WRAPPER)
            .args(args));
        for entry in std::fs::read_dir(&root).expect("listed").flatten() {
            let path = entry.path();
            // Empty, now that their mounts went with the namespace.
            if path.is_symlink() { std::fs::remove_file(path) } else { std::fs::remove_dir(path) }.expect("removed");
        }
        run
    });
}

#[test]
fn inside_a_private_step_another_one_takes_a_directory_and_both_keep_their_files() {
    if !may_mount("inside_a_private_step_another_one_takes_a_directory_and_both_keep_their_files") {
        return;
    }
    let place = Place::with_agent();
    let inner = format!("{WRAPPER} -f b={{{{db.template}}}} -- sh -c 'cat $A $KEYSIDE_FILES/b'");
    place.run(&["-F", "A={{db.user}}", "--", "sh", "-c", &inner]).printed("alice{{db.user}} ${HOME}");
}

#[test]
fn in_a_user_namespace_private_files_work_and_are_told_to_be_weak() {
    let place = Place::with_agent();
    let unshare = ["--user", "--map-root-user", "--mount"];
    if !place.program("unshare").args(unshare).arg("true").output().is_ok_and(|output| output.status.success()) {
        eprintln_skipped("in_a_user_namespace_private_files_work_and_are_told_to_be_weak");
        return;
    }
    let point = place.path("point");
    let mut wrapper = place.program("unshare");
    wrapper.args(unshare).args([WRAPPER, "-v", "--files", "private", "-f", "a={{db.user}}", "--files-dir"]);
    let run = ran(wrapper.arg(&point).args(["--", "sh", "-c", "cat $KEYSIDE_FILES/a"]));
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), "alice"), "{run:?}");
    assert!(run.stderr.contains("files: weak: private, at ") && run.stderr.contains("swapped out"), "{run:?}");
    assert!(is_empty(&point));
}

#[allow(clippy::print_stderr, reason = "a test that is not run must be seen not to have been")]
fn eprintln_skipped(test: &str) {
    eprintln!("SKIPPED, needs user namespaces: {test}");
}
