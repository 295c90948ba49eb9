//! Which program a peer runs, and in which cgroup: read by way of a descriptor of its process, so that what was read is
//! the peer's and not that of somebody who got its number later.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// What the kernel appends to the name of a program whose file is gone.
const DELETED: &[u8] = b" (deleted)";

/// What is known of the process at the other end of a connection; what is not known satisfies no grant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Program {
    /// The file it runs, if that is the file which we, too, find at this path.
    pub exe: Option<PathBuf>,
    /// Its cgroup, from the root of the hierarchy.
    pub cgroup: Option<String>,
}

/// What some grant goes by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    /// The program.
    pub exe: bool,
    /// The cgroup.
    pub cgroup: bool,
}

/// Why nothing is known.
#[derive(Debug, thiserror::Error)]
enum Unknown {
    #[error("this kernel has no SO_PEERPIDFD (Linux 6.5 has)")]
    NoPeerDescriptor,
    #[error("the peer's process had ended before it was looked at")]
    Ended,
    #[error("the peer lives in another pid namespace")]
    OtherNamespace,
    #[error("cannot {what}: {source}")]
    System { what: &'static str, source: std::io::Error },
    #[error("the peer's program has been deleted or replaced since it was started")]
    Deleted,
    #[error("the peer's program is not the file that this agent finds at its path")]
    OtherFile,
    #[error("the peer's cgroup lies outside the hierarchy that this agent sees")]
    OtherHierarchy,
}

impl Unknown {
    fn hint(&self) -> &'static str {
        match self {
            Self::NoPeerDescriptor => "grant by uid or group instead of exe and cgroup",
            Self::Ended => "the process that connects must live until it is served",
            Self::OtherNamespace => "between containers, grant by uid or group instead of exe and cgroup",
            Self::System { .. } => "exe needs CAP_SYS_PTRACE for programs of other users, and /proc must be mounted",
            Self::Deleted => "restart the program that was updated",
            Self::OtherFile | Self::OtherHierarchy => "exe and cgroup are for peers that share the agent's root",
        }
    }

    fn kind(&self) -> u32 {
        1 << match self {
            Self::NoPeerDescriptor => 0,
            Self::Ended => 1,
            Self::OtherNamespace => 2,
            Self::System { .. } => 3,
            Self::Deleted => 4,
            Self::OtherFile => 5,
            Self::OtherHierarchy => 6,
        }
    }
}

impl Program {
    /// Looks at the process that `socket` is connected to, for no more than is `asked`. What cannot be found out is
    /// left open, and each reason for that is logged once.
    pub fn behind(socket: &impl AsFd, asked: Asked) -> Self {
        if asked == Asked::default() {
            return Self::default();
        }
        let mut program = Self::default();
        let process = match Process::behind(socket) {
            Ok(process) => process,
            Err(reason) => {
                say_once(&reason);
                return program;
            }
        };
        if asked.exe {
            program.exe = process.exe().inspect_err(say_once).ok();
        }
        if asked.cgroup {
            program.cgroup = process.cgroup().inspect_err(say_once).ok();
        }
        // Only now: as long as it lives, nobody else has its number, so what was read is its own.
        match process.is_alive() {
            true => program,
            false => {
                say_once(&Unknown::Ended);
                Self::default()
            }
        }
    }
}

/// A process, held by a descriptor.
struct Process {
    descriptor: OwnedFd,
    pid: u32,
}

impl Process {
    fn behind(socket: &impl AsFd) -> Result<Self, Unknown> {
        let descriptor = getsockopt(socket, sockopt::PeerPidfd).map_err(|error| match error {
            Errno::ENOPROTOOPT => Unknown::NoPeerDescriptor,
            // Before Linux 6.16 a process that is gone has no descriptor any more.
            Errno::EINVAL | Errno::ESRCH | Errno::ENODATA => Unknown::Ended,
            error => Unknown::System { what: "get a descriptor of the peer's process", source: error.into() },
        })?;
        let pid = pid_of(&descriptor)?;
        Ok(Self { descriptor, pid })
    }

    fn exe(&self) -> Result<PathBuf, Unknown> {
        let link = format!("/proc/{}/exe", self.pid);
        let failed = |source| Unknown::System { what: "see which program the peer runs", source };
        let path = std::fs::read_link(&link).map_err(failed)?;
        // Through the link: the file that runs, whatever is at its path now.
        let runs = std::fs::metadata(&link).map_err(failed)?;
        same_file(path, (runs.dev(), runs.ino()), runs.nlink())
    }

    fn cgroup(&self) -> Result<String, Unknown> {
        let text = std::fs::read_to_string(format!("/proc/{}/cgroup", self.pid))
            .map_err(|source| Unknown::System { what: "see which cgroup the peer is in", source })?;
        cgroup_in(&text).ok_or(Unknown::OtherHierarchy)
    }

    fn is_alive(&self) -> bool {
        let mut ended = [PollFd::new(&self.descriptor, PollFlags::IN)];
        // A descriptor of a process can be read from once it has ended.
        poll(&mut ended, Some(&Timespec::default())) == Ok(0)
            && pid_of(&self.descriptor).is_ok_and(|pid| pid == self.pid)
    }
}

fn pid_of(descriptor: &OwnedFd) -> Result<u32, Unknown> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", descriptor.as_raw_fd()))
        .map_err(|source| Unknown::System { what: "see the number of the peer's process", source })?;
    match pid_in(&text) {
        Some(pid @ 1..) => u32::try_from(pid).map_err(|_| Unknown::Ended),
        Some(0) => Err(Unknown::OtherNamespace),
        _ => Err(Unknown::Ended),
    }
}

fn pid_in(fdinfo: &str) -> Option<i64> {
    fdinfo.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()
}

fn same_file(path: PathBuf, runs: (u64, u64), links: u64) -> Result<PathBuf, Unknown> {
    use std::os::unix::ffi::OsStrExt as _;
    // A file may be called that, but one that is gone always is.
    if links == 0 || path.as_os_str().as_bytes().ends_with(DELETED) {
        return Err(Unknown::Deleted);
    }
    let found = std::fs::symlink_metadata(&path).ok().map(|found| (found.dev(), found.ino()));
    if found == Some(runs) { Ok(path) } else { Err(Unknown::OtherFile) }
}

/// Reads the one hierarchy of cgroups v2, or systemd's own of v1.
fn cgroup_in(text: &str) -> Option<String> {
    let of = |begin: &str| text.lines().find_map(|line| line.strip_prefix(begin).map(str::to_owned));
    let named = || text.lines().find_map(|line| line.split_once(":name=systemd:").map(|(_, path)| path.to_owned()));
    of("0::").filter(|path| path != "/" || named().is_none()).or_else(named).filter(|path| is_inside(path))
}

/// From inside a cgroup namespace, what lies outside begins with `/..`.
fn is_inside(cgroup: &str) -> bool {
    cgroup.starts_with('/') && !Path::new(cgroup).components().any(|part| part == std::path::Component::ParentDir)
}

static SAID: AtomicU32 = AtomicU32::new(0);

fn say_once(reason: &Unknown) {
    if SAID.fetch_or(reason.kind(), Ordering::Relaxed) & reason.kind() == 0 {
        tracing::warn!(%reason, hint = reason.hint(), "a grant by exe or cgroup is not satisfied");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    const BOTH: Asked = Asked { exe: true, cgroup: true };

    #[test]
    fn the_program_and_the_cgroup_of_a_peer_are_those_of_the_process_that_connected() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.sock");
        let listener = UnixListener::bind(&path).expect("free");
        let _client = UnixStream::connect(&path).expect("listening");
        let (server, _) = listener.accept().expect("a client");
        if matches!(Process::behind(&server), Err(Unknown::NoPeerDescriptor)) {
            // Nothing is known then, rather than something guessed.
            assert_eq!(Program::behind(&server, BOTH), Program::default());
            return;
        }
        let program = Program::behind(&server, BOTH);
        assert_eq!(program.exe, std::env::current_exe().ok());
        let own = std::fs::read_to_string("/proc/self/cgroup").expect("readable");
        assert_eq!(program.cgroup, cgroup_in(&own));
        assert_eq!(Program::behind(&server, Asked::default()), Program::default(), "nothing more than was asked");
        assert_eq!(Program::behind(&server, Asked { exe: true, cgroup: false }).cgroup, None);
    }

    #[test]
    fn a_peer_that_has_ended_is_nobody_whoever_has_its_number_now() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.sock");
        let listener = UnixListener::bind(&path).expect("free");
        let script = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])";
        let status = std::process::Command::new("python3").args(["-c", script]).arg(&path).status();
        let Ok(status) = status else { return };
        assert!(status.success());
        let (server, _) = listener.accept().expect("a client");
        assert_eq!(Program::behind(&server, BOTH), Program::default());
    }

    #[test]
    fn a_program_counts_only_by_the_file_that_is_at_its_path() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("tool");
        std::fs::write(&path, "one").expect("writable");
        let found = std::fs::metadata(&path).expect("there");
        let file = (found.dev(), found.ino());
        assert_eq!(same_file(path.clone(), file, 1).ok(), Some(path.clone()));
        assert!(matches!(same_file(path.clone(), file, 0), Err(Unknown::Deleted)));
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("writable");
        assert!(matches!(same_file(link, file, 1), Err(Unknown::OtherFile)));
        let gone = directory.path().join("tool (deleted)");
        std::fs::rename(&path, &gone).expect("ours");
        assert!(matches!(same_file(gone, file, 1), Err(Unknown::Deleted)), "even a file that is called so");
        std::fs::write(&path, "two").expect("writable");
        assert!(matches!(same_file(path, file, 1), Err(Unknown::OtherFile)));
    }

    #[test]
    fn the_number_and_the_cgroup_are_read_as_the_kernel_writes_them() {
        assert_eq!(pid_in("pos:\t0\nflags:\t02000002\nPid:\t4711\nNSpid:\t4711\n"), Some(4711));
        assert_eq!(pid_in("Pid:\t0\n"), Some(0));
        assert_eq!(pid_in("Pid:\t-1\n"), Some(-1));
        assert_eq!(pid_in("pos:\t0\n"), None);
        for (text, cgroup) in [
            ("0::/system.slice/train.service\n", Some("/system.slice/train.service")),
            ("0::/\n", Some("/")),
            ("12:cpu:/x\n1:name=systemd:/user.slice\n0::/\n", Some("/user.slice")),
            ("1:name=systemd:/user.slice\n", Some("/user.slice")),
            ("0::/../outside\n", None),
            ("4:memory:/x\n", None),
            ("", None),
        ] {
            assert_eq!(cgroup_in(text).as_deref(), cgroup, "{text}");
        }
    }
}
