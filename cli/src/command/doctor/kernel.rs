//! The kernel, the namespaces and the user we run as.

use std::os::unix::net::UnixStream;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use super::finding::{Findings, Verdict};
use crate::sys;

/// The inode numbers of the first namespaces are part of the kernel's interface (`include/uapi/linux/nsfs.h` since 6.18,
/// the same numbers since 3.8).
const FIRST_USER_NAMESPACE: u64 = 0xEFFF_FFFD;
const FIRST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

pub(super) fn look(findings: &mut Findings) {
    release(findings);
    if peers_have_pidfds() {
        findings.add("peer identity", Verdict::Secure, "the kernel names a peer beyond doubt (SO_PEERPIDFD)");
    } else {
        findings.advise(
            "peer identity",
            Verdict::Weak,
            "the kernel has no SO_PEERPIDFD: peers are known by uid and gid alone",
            "grants by exe or cgroup need Linux 6.5",
        );
    }
    if opens_beneath() {
        findings.add("links in paths", Verdict::Secure, "files are made beneath their directory alone (openat2)");
    } else {
        findings.advise(
            "links in paths",
            Verdict::Weak,
            "openat2 is missing or forbidden: single components are opened without following links instead",
            "use Linux 5.6 or later, and let the sandbox's filter pass openat2",
        );
    }
    if sys::has_secret_memory() {
        findings.add(
            "secret memory",
            Verdict::Secure,
            "the kernel offers memory that it does not map itself (memfd_secret)",
        );
    } else {
        findings.advise(
            "secret memory",
            Verdict::Weak,
            "memfd_secret is not to be had: values lie in ordinary memory, closed to other processes",
            "Linux 5.14 has it, before 6.5 only with secretmem.enable=1 on the kernel's command line; RLIMIT_MEMLOCK must not be 0",
        );
    }
    namespaces(findings);
    user(findings);
    clock(findings);
}

fn release(findings: &mut Findings) {
    let name = rustix::system::uname();
    let (release, machine) = (name.release().to_string_lossy(), name.machine().to_string_lossy());
    let what = format!("Linux {release} on {machine}");
    match version_of(&release) {
        Some(version) if version < (5, 6) => {
            findings.advise("kernel", Verdict::Weak, what, "Keyside is meant for Linux 5.6 and later");
        }
        _ => findings.add("kernel", Verdict::Ok, what),
    }
}

fn version_of(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|char: char| !char.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn peers_have_pidfds() -> bool {
    UnixStream::pair()
        .is_ok_and(|(ours, _theirs)| nix::sys::socket::getsockopt(&ours, nix::sys::socket::sockopt::PeerPidfd).is_ok())
}

fn opens_beneath() -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(CWD, ".", flags, Mode::empty(), resolve).is_ok()
}

fn namespaces(findings: &mut Findings) {
    use std::os::unix::fs::MetadataExt as _;
    let inode = |name: &str| std::fs::metadata(format!("/proc/self/ns/{name}")).map(|found| found.ino());
    let (Ok(user), Ok(pid)) = (inode("user"), inode("pid")) else {
        findings.advise("namespaces", Verdict::Unknown, "/proc does not show them", "mount /proc");
        return;
    };
    let what = match (user == FIRST_USER_NAMESPACE, pid == FIRST_PID_NAMESPACE) {
        (true, true) => "the host's own",
        (true, false) => {
            "a pid namespace of our own: peers in others show no pid, which uid and gid grants do not need"
        }
        (false, true) => "a user namespace of our own: uids that it does not map show as 65534, which no grant takes",
        (false, false) => {
            "user and pid namespaces of our own: uids that are not mapped show as 65534, which no grant takes; \
             peers in other pid namespaces show no pid"
        }
    };
    findings.add("namespaces", Verdict::Ok, what);
}

fn user(findings: &mut Findings) {
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        findings.advise(
            "user",
            Verdict::Weak,
            "this is root: an agent started so belongs to root, though it drops its capabilities",
            "run the agent and the steps as users of their own",
        );
    } else {
        findings.add("user", Verdict::Ok, format!("uid {}", uid.as_raw()));
    }
}

fn clock(findings: &mut Findings) {
    /// 2025-01-01: no build of Keyside is older.
    const PLAUSIBLE: u64 = 1_735_689_600;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    if now.as_secs() < PLAUSIBLE {
        findings.advise(
            "clock",
            Verdict::Wrong,
            "the wall clock lies in the past: certificates and signed requests will be refused",
            "set it, by NTP or by hand",
        );
    } else {
        findings.add("clock", Verdict::Ok, "plausible; ages of values are counted on another one (CLOCK_BOOTTIME)");
    }
}

#[cfg(test)]
mod tests {
    use super::version_of;

    #[test]
    fn a_release_is_read_up_to_its_second_number() {
        for (release, version) in [
            ("6.18.44-fc-v669", Some((6, 18))),
            ("5.4.0", Some((5, 4))),
            ("5.10-rc1", Some((5, 10))),
            ("6", None),
            ("x", None),
        ] {
            assert_eq!(version_of(release), version, "{release}");
        }
    }
}
