//! Where a step's secret files go, how strong that is, and what steps that were killed have left.

use std::fs::File;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock, fstatfs};
use rustix::mount::{FsOpenFlags, fsconfig_create, fsconfig_set_flag, fsopen};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::CapabilitySet;

use super::finding::{Findings, Verdict};
use super::memory::has_capability;

const TMPFS_MAGIC: u64 = 0x0102_1994;
const RAMFS_MAGIC: u64 = 0x8584_58f6;

/// A directory younger than this may belong to a start that has not locked it yet.
const SETTLED: Duration = Duration::from_secs(5);

/// How much a detached tmpfs of our own can do here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OwnMount {
    No,
    Swappable,
    NoSwap,
}

pub(super) fn look(findings: &mut Findings) {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    runtime_directory(runtime.as_deref(), findings);
    let shm = Path::new("/dev/shm");
    let in_runtime = runtime.as_deref().is_some_and(is_memory);
    let memory = if in_runtime { runtime.as_deref() } else { is_memory(shm).then_some(shm) };
    mode_of_auto(own_mount(), memory, findings);
    let own = rustix::process::geteuid().as_raw();
    let bases = runtime.map(|runtime| runtime.join("keyside")).into_iter().chain([shm.join(format!("keyside-{own}"))]);
    left_over(&bases.flat_map(|base| abandoned(&base, SETTLED)).collect::<Vec<_>>(), findings);
}

fn runtime_directory(runtime: Option<&Path>, findings: &mut Findings) {
    const CHECK: &str = "runtime directory";
    let Some(path) = runtime else {
        findings.add(CHECK, Verdict::Ok, "XDG_RUNTIME_DIR is not set: sockets go to /run/keyside, files to /dev/shm");
        return;
    };
    let shown = path.display();
    let own = rustix::process::geteuid().as_raw();
    match path.metadata() {
        Ok(found) if found.uid() != own || found.mode() & 0o077 != 0 => findings.advise(
            CHECK,
            Verdict::Weak,
            format!("{shown} is not this user's alone (owner {}, mode {:04o})", found.uid(), found.mode() & 0o7777),
            "set XDG_RUNTIME_DIR to a directory of mode 0700 that belongs to this user",
        ),
        Ok(_) if !is_memory(path) => findings.advise(
            CHECK,
            Verdict::Weak,
            format!("{shown} is on a disk: files of steps go to /dev/shm instead"),
            "mount a tmpfs there, as systemd-logind does",
        ),
        Ok(_) => findings.add(CHECK, Verdict::Secure, format!("{shown}, this user's alone, on memory")),
        Err(error) => findings.advise(
            CHECK,
            Verdict::Wrong,
            format!("{shown} cannot be used: {}", crate::output::io_text(&error)),
            "make it (mode 0700), or unset XDG_RUNTIME_DIR",
        ),
    }
}

/// Says what `--files auto` comes to, and how strong that is, in the wrapper's own words.
fn mode_of_auto(own_mount: OwnMount, memory: Option<&Path>, findings: &mut Findings) {
    const CHECK: &str = "secret files";
    match (own_mount, memory) {
        (OwnMount::NoSwap, _) => findings.add(
            CHECK,
            Verdict::Secure,
            "`--files auto` can be private: a tmpfs that only the step sees, and that is never swapped",
        ),
        (OwnMount::Swappable, _) => findings.advise(
            CHECK,
            Verdict::Weak,
            "`--files auto` can be private, a tmpfs that only the step sees; where swap is on it may be swapped",
            "Linux 6.4 can forbid that (noswap), outside of user namespaces",
        ),
        (OwnMount::No, Some(place)) => findings.advise(
            CHECK,
            Verdict::Weak,
            format!(
                "`--files auto` is dir: below {}, on memory; other processes of this user can read it",
                place.display()
            ),
            "CAP_SYS_ADMIN allows private; steps that do not trust each other need different users",
        ),
        (OwnMount::No, None) => findings.advise(
            CHECK,
            Verdict::Insecure,
            "there is no directory on memory: `--files auto` fails, and `--insecure-files` writes to a disk",
            "mount a tmpfs at /dev/shm or at XDG_RUNTIME_DIR, or use `--files memfd`",
        ),
    }
}

/// Makes a tmpfs that is mounted nowhere, and lets go of it.
fn own_mount() -> OwnMount {
    if !has_capability(CapabilitySet::SYS_ADMIN) {
        return OwnMount::No;
    }
    let made = |no_swap: bool| {
        let tmpfs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        if no_swap {
            fsconfig_set_flag(&tmpfs, "noswap")?;
        }
        fsconfig_create(&tmpfs)
    };
    match (made(true), made(false)) {
        (Ok(()), _) => OwnMount::NoSwap,
        (_, Ok(())) => OwnMount::Swappable,
        _ => OwnMount::No,
    }
}

fn is_memory(path: &Path) -> bool {
    let Ok(directory) = File::open(path) else { return false };
    #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast, reason = "the type differs between architectures")]
    fstatfs(&directory).is_ok_and(|found| matches!(found.f_type as u64 & 0xFFFF_FFFF, TMPFS_MAGIC | RAMFS_MAGIC))
}

/// Returns the directories of steps in `base` that no cleaner holds and whose process is gone.
fn abandoned(base: &Path, settled: Duration) -> Vec<PathBuf> {
    let own = rustix::process::geteuid().as_raw();
    let entries = std::fs::read_dir(base).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some(pid) = pid_of(name) else { return false };
            let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
            let Ok(directory) = File::options().read(true).custom_flags(flags).open(path) else { return false };
            let Ok(found) = directory.metadata() else { return false };
            let made = found.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            let is_settled = SystemTime::now().duration_since(made).is_ok_and(|age| age >= settled);
            // A cleaner holds the lock for as long as its step lives; ours goes with the descriptor.
            found.uid() == own
                && is_settled
                && !is_alive(pid)
                && flock(&directory, FlockOperation::NonBlockingLockShared).is_ok()
        })
        .collect()
}

fn is_alive(pid: i32) -> bool {
    let pid = Pid::from_raw(pid);
    pid.is_some_and(|pid| !matches!(pidfd_open(pid, PidfdFlags::empty()), Err(rustix::io::Errno::SRCH)))
}

/// Reads `<pid>` or `<pid>.<n>`, the names of steps' directories.
fn pid_of(name: &str) -> Option<i32> {
    let (pid, number) = name.split_once('.').unwrap_or((name, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits(pid) && digits(number) { pid.parse().ok() } else { None }
}

fn left_over(paths: &[PathBuf], findings: &mut Findings) {
    const CHECK: &str = "left-over files";
    if paths.is_empty() {
        findings.add(CHECK, Verdict::Secure, "none in the default directories");
        return;
    }
    let shown: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    findings.advise(
        CHECK,
        Verdict::Insecure,
        format!("steps that were killed together with their cleaner have left {}", shown.join(", ")),
        "remove them; the next step with files of this user does so too",
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_cleaner_holds_and_no_process_stands_behind_is_left_over() {
        let base = tempfile::tempdir().expect("a directory");
        // Above every possible pid (PID_MAX_LIMIT is 2^22).
        for name in ["4194999", "4194998", "notes", &std::process::id().to_string()] {
            std::fs::create_dir(base.path().join(name)).expect("writable");
        }
        let held = File::open(base.path().join("4194998")).expect("readable");
        flock(&held, FlockOperation::NonBlockingLockExclusive).expect("free");
        assert_eq!(abandoned(base.path(), Duration::ZERO), [base.path().join("4194999")]);
        assert_eq!(abandoned(base.path(), Duration::from_secs(3600)), [] as [PathBuf; 0], "it may be a start's");
        assert_eq!(abandoned(&base.path().join("none"), Duration::ZERO), [] as [PathBuf; 0]);
    }

    #[test]
    fn without_any_memory_to_write_to_secret_files_are_insecure() {
        let verdict = |mount, place: Option<&str>| {
            let mut findings = Findings::default();
            mode_of_auto(mount, place.map(Path::new), &mut findings);
            findings.last().verdict
        };
        assert_eq!(verdict(OwnMount::NoSwap, None), Verdict::Secure);
        assert_eq!(verdict(OwnMount::No, Some("/dev/shm")), Verdict::Weak);
        assert_eq!(verdict(OwnMount::No, None), Verdict::Insecure);
    }
}
