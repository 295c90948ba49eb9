//! What steps that are gone have left behind, because their cleaner was killed too.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};

use super::place::Owner;
use super::tree::{empty, open_component};

/// Removes what steps that are gone left on `base`: directories of ours, named by a pid, with no cleaner.
///
/// The cleaner's lock tells most: it holds in every pid namespace. Where it is gone, a living process of that pid may
/// still be the step (somebody killed its cleaner alone), or anybody (the pid came from a container that was killed
/// whole): see [`is_step`].
pub(super) fn sweep(base_path: &Path, base: &OwnedFd, owner: Owner) {
    let Ok(entries) = Dir::read_from(base) else { return };
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().to_str() else { continue };
        let Some(pid) = pid_of(name) else { continue };
        let Ok(fd) = open_component(base.as_fd(), name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()) else {
            continue;
        };
        let Ok(stat) = rustix::fs::fstat(&fd) else { continue };
        let ours = stat.st_uid == owner.uid || stat.st_uid == rustix::process::geteuid().as_raw();
        if ours
            && rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive).is_ok()
            && !is_step(pid, stat.st_uid, &base_path.join(name))
        {
            empty(fd.as_fd(), 0);
            let _ = rustix::fs::unlinkat(base, name, AtFlags::REMOVEDIR);
        }
    }
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
}
