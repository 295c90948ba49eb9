//! What steps that are gone have left behind, because their cleaner was killed too.

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};

use super::directory::{SHARED_MEMORY, is_token};
use super::place::Owner;
use super::tree::{empty, open_component};

/// Removes what steps that are gone left on `base`: directories of ours, named by a pid, with no cleaner.
pub(super) fn sweep(base_path: &Path, base: &OwnedFd, owner: Owner) {
    let uids = [owner.uid, rustix::process::geteuid().as_raw()];
    for (name, fd) in abandoned(base_path, base, &uids, FlockOperation::NonBlockingLockExclusive) {
        empty(fd.as_fd(), 0);
        let _ = rustix::fs::unlinkat(base, name.as_str(), AtFlags::REMOVEDIR);
    }
}

/// Finds what steps that are gone left on `base`, as directories of `uids` that now have our lock.
///
/// The cleaner's lock tells most: it holds in every pid namespace. Where it is gone, a living process of that pid may
/// still be the step (somebody killed its cleaner alone), or anybody (the pid came from a container that was killed
/// whole): see [`is_step`].
fn abandoned(
    base_path: &Path,
    base: &OwnedFd,
    uids: &[u32],
    lock: FlockOperation,
) -> impl Iterator<Item = (String, OwnedFd)> {
    Dir::read_from(base).into_iter().flatten().flatten().filter_map(move |entry| {
        let name = entry.file_name().to_str().ok()?;
        let pid = pid_of(name)?;
        let fd = open_component(base.as_fd(), name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).ok()?;
        let uid = rustix::fs::fstat(&fd).ok()?.st_uid;
        let is_left =
            uids.contains(&uid) && rustix::fs::flock(&fd, lock).is_ok() && !is_step(pid, uid, &base_path.join(name));
        is_left.then(|| (name.to_owned(), fd))
    })
}

/// Returns the directories that steps which are gone have left at the default places, because their cleaner was killed
/// too. Root is told of every user's, anybody else of their own. Nothing is changed. A directory younger than `settled`
/// is passed over: a start may not have locked it yet, or a cleaner may be at work.
pub fn left_behind(settled: Duration) -> Vec<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let own = rustix::process::geteuid().as_raw();
    let in_runtime = runtime.map(|path| (path.join("keyside"), own));
    let shared = bases_in(Path::new(SHARED_MEMORY), own);
    in_runtime.into_iter().chain(shared).flat_map(|(base, uid)| left_on(&base, uid, settled)).collect()
}

/// Finds the bases in a directory where everybody may make one, each with the user whose steps' files it is for.
fn bases_in(root: &Path, own: u32) -> Vec<(PathBuf, u32)> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let base = |entry: std::fs::DirEntry| {
        let name = entry.file_name();
        let uid = uid_of_base(name.to_str()?)?;
        (own == 0 || uid == own).then(|| (entry.path(), uid))
    };
    let mut bases: Vec<_> = entries.filter_map(base).collect();
    bases.sort();
    bases
}

fn left_on(base_path: &Path, uid: u32, settled: Duration) -> Vec<PathBuf> {
    let own = rustix::process::geteuid().as_raw();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(base) = rustix::fs::open(base_path, flags, Mode::empty()) else { return Vec::new() };
    // A wrapper would not use what somebody else has put there.
    if !rustix::fs::fstat(&base).is_ok_and(|stat| [0, own, uid].contains(&stat.st_uid)) {
        return Vec::new();
    }
    let is_settled = |fd: OwnedFd| {
        let made = File::from(fd).metadata().and_then(|found| found.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        SystemTime::now().duration_since(made).is_ok_and(|age| age >= settled)
    };
    abandoned(base_path, &base, &[uid, own], FlockOperation::NonBlockingLockShared)
        .filter_map(|(name, fd)| is_settled(fd).then(|| base_path.join(name)))
        .collect()
}

/// Tells whether a living process is the step whose files are in `path`: it has that pid and uid, and that path in its
/// environment. One whose environment we may not read has more rights than our children have, and is none of them.
fn is_step(pid: u32, uid: u32, path: &Path) -> bool {
    // We have just been started: a directory with our own pid is a dead one's.
    if pid == std::process::id() {
        return false;
    }
    let alive = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .is_some_and(|pid| !matches!(rustix::process::pidfd_open(pid, PidfdFlags::empty()), Err(Errno::SRCH)));
    if !alive {
        return false;
    }
    let process = PathBuf::from(format!("/proc/{pid}"));
    let Ok(status) = std::fs::read_to_string(process.join("status")) else {
        // Without /proc there is no telling.
        return !Path::new("/proc/self").exists();
    };
    let Ok(environment) = std::fs::read(process.join("environ")) else { return false };
    if !status.contains(&format!("\nUid:\t{uid}\t")) {
        return false;
    }
    let wanted = [b"KEYSIDE_FILES=", path.as_os_str().as_encoded_bytes()].concat();
    environment.split(|&byte| byte == 0).any(|entry| entry == wanted)
}

/// Reads `keyside-<uid>` or `keyside-<uid>-<token>`.
fn uid_of_base(name: &str) -> Option<u32> {
    let rest = name.strip_prefix("keyside-")?;
    let (uid, token) = rest.split_once('-').map_or((rest, None), |(uid, token)| (uid, Some(token)));
    let is_ours = uid.bytes().all(|byte| byte.is_ascii_digit()) && token.is_none_or(is_token);
    if is_ours { uid.parse().ok() } else { None }
}

/// Reads `<pid>` or `<pid>.<n>`.
fn pid_of(name: &str) -> Option<u32> {
    let (pid, rest) = name.split_once('.').unwrap_or((name, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits(pid) && digits(rest) { pid.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_form_pid_are_ever_swept() {
        assert_eq!((pid_of("12"), pid_of("12.3")), (Some(12), Some(12)));
        for name in ["", "x", "12x", "agent.sock", "12.", ".12", "12.3.4", "-1", "99999999999"] {
            assert_eq!(pid_of(name), None, "{name}");
        }
    }

    #[test]
    fn left_over_is_what_no_cleaner_holds_and_no_step_stands_behind_whoever_has_its_pid_now() {
        let base = tempfile::tempdir().expect("a directory");
        let own = rustix::process::geteuid().as_raw();
        // Our parent lives and has no files of ours; the others are above every possible pid (PID_MAX_LIMIT is 2^22).
        let parent = rustix::process::getppid().expect("a parent").as_raw_nonzero().to_string();
        for name in ["4194999", "4194998", "notes", &parent] {
            std::fs::create_dir(base.path().join(name)).expect("writable");
        }
        let held = File::open(base.path().join("4194998")).expect("readable");
        rustix::fs::flock(&held, FlockOperation::NonBlockingLockExclusive).expect("free");
        let mut found = left_on(base.path(), own, Duration::ZERO);
        found.sort();
        let mut expected = [base.path().join("4194999"), base.path().join(parent)];
        expected.sort();
        assert_eq!(found, expected);
        assert!(base.path().join("4194999").exists(), "only looked at");
        assert_eq!(left_on(base.path(), own, Duration::from_secs(3600)), [] as [PathBuf; 0], "it may be a start's");
        assert_eq!(left_on(&base.path().join("none"), own, Duration::ZERO), [] as [PathBuf; 0]);
    }

    #[test]
    fn a_living_step_whose_cleaner_was_killed_still_has_its_files() {
        let base = tempfile::tempdir().expect("a directory");
        let mut step = std::process::Command::new("sleep");
        let path = base.path().join("4194999");
        std::fs::create_dir(&path).expect("writable");
        let mut step = step.arg("60").env("KEYSIDE_FILES", &path).spawn().expect("sleep");
        let uid = rustix::process::geteuid().as_raw();
        // spawn() returns when the old program is gone, which is a moment before the new one's environment can be read.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !is_step(step.id(), uid, &path) {
            assert!(std::time::Instant::now() < until, "its environment names the directory");
            std::thread::yield_now();
        }
        assert!(!is_step(step.id(), uid, &base.path().join("other")));
        step.kill().expect("killed");
        step.wait().expect("reaped");
        assert!(!is_step(step.id(), uid, &path));
    }

    #[test]
    fn root_looks_into_the_bases_of_everybody_and_others_into_their_own() {
        let root = tempfile::tempdir().expect("a directory");
        let token = "keyside-7-0123456789abcdef";
        for name in ["keyside-7", token, "keyside-8", "keyside-7-x", "keyside-", "keyside-7-", "other-7"] {
            std::fs::create_dir(root.path().join(name)).expect("writable");
        }
        let sevens = [(root.path().join("keyside-7"), 7), (root.path().join(token), 7)];
        assert_eq!(bases_in(root.path(), 7), sevens);
        let [first, second] = sevens;
        assert_eq!(bases_in(root.path(), 0), [first, second, (root.path().join("keyside-8"), 8)]);
    }
}
