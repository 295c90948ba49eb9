//! Where a step's secret files go, how strong that is, and what steps that were killed have left.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::fstatfs;
use rustix::mount::{FsOpenFlags, fsconfig_create, fsconfig_set_flag, fsopen};
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
    left_over(&keyside_exec_wrapper::left_behind(SETTLED), findings);
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
        "remove them; the next step with files of the same user does so too",
    );
}

#[cfg(test)]
mod tests {
    use super::*;

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
