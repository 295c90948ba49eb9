//! The step's secrets directory: file names, the directory on memory, and the files in it.
//!
//! A directory is `BASE/<pid>`, made fresh with mode 0700 and locked (flock) by its cleaner for as long as it lives.
//! What a dead pid left on the same base, because its cleaner was killed too, is removed by the next start.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use keyside_protocol::value::SecretValue;
use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Pid, PidfdFlags, Uid};

use crate::report::Complaint;

const TMPFS_MAGIC: i64 = 0x0102_1994;
const RAMFS_MAGIC: i64 = 0x8584_58f6;
/// How deep a step's own directories inside ours are followed when they are removed.
const MAX_DEPTH: usize = 32;

/// A relative path of harmless components.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileName(String);

/// Why a text is no file name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FileNameError {
    #[error("it is empty or has an empty part")]
    Empty,
    #[error("it is absolute")]
    Absolute,
    #[error("`.` and `..` are not allowed in it")]
    Dots,
    #[error("a part of it has more than 255 bytes")]
    TooLong,
    #[error("it has a control character")]
    Control,
    #[error("it is not UTF-8")]
    NotText,
    #[error("it has a `/`")]
    Slash,
}

impl FileName {
    /// Accepts components separated by `/`.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, FileNameError> {
        let text = std::str::from_utf8(bytes).map_err(|_| FileNameError::NotText)?;
        if text.starts_with('/') {
            return Err(FileNameError::Absolute);
        }
        text.split('/').try_for_each(check_component)?;
        if text.len() > 4000 {
            return Err(FileNameError::TooLong);
        }
        Ok(Self(text.to_owned()))
    }

    /// Accepts `SECRET/KEY`, where neither may hold a `/` of its own.
    pub(crate) fn of_key(secret: &str, key: &str) -> Result<Self, FileNameError> {
        for component in [secret, key] {
            if component.contains('/') {
                return Err(FileNameError::Slash);
            }
            check_component(component)?;
        }
        Ok(Self(format!("{secret}/{key}")))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Accepts one part of a file name.
pub(crate) fn check_component(component: &str) -> Result<(), FileNameError> {
    match component {
        "" => Err(FileNameError::Empty),
        "." | ".." => Err(FileNameError::Dots),
        _ if component.len() > 255 => Err(FileNameError::TooLong),
        _ if component.chars().any(char::is_control) => Err(FileNameError::Control),
        _ => Ok(()),
    }
}

/// Complains about names that stand twice, differ only by case, or are a file and a directory at once.
pub(crate) fn check_together<'n>(names: impl IntoIterator<Item = &'n FileName>) -> Vec<Complaint> {
    // Folded path -> the path as first written, and whether it is a file.
    let mut seen: BTreeMap<String, (&str, bool)> = BTreeMap::new();
    let mut complaints = Vec::new();
    for name in names {
        let text = name.as_str();
        let ends = text.match_indices('/').map(|(at, _)| at).chain([text.len()]);
        for end in ends {
            let (path, is_file) = (&text[..end], end == text.len());
            let Some(&(earlier, was_file)) = seen.get(&path.to_lowercase()) else {
                seen.insert(path.to_lowercase(), (path, is_file));
                continue;
            };
            let what = if earlier != path {
                format!("the file names {earlier} and {path} differ only by case")
            } else if is_file && was_file {
                format!("two sources write the file {path}")
            } else if is_file != was_file {
                format!("{path} would be a file and a directory")
            } else {
                continue;
            };
            complaints.push(Complaint::new(what, "give each file a name of its own"));
            break;
        }
    }
    complaints
}

/// Where the directory is to be.
#[derive(Debug, Default)]
pub(crate) struct Place {
    /// `--files-dir`.
    pub(crate) dir: Option<PathBuf>,
    /// `--insecure-files`.
    pub(crate) insecure: bool,
}

/// Whom the files are to belong to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    /// None: they keep our group.
    pub(crate) gid: Option<u32>,
    /// Whether that is somebody else than we.
    pub(crate) is_other: bool,
}

/// Holds the umask at 077 while directories are made: under a umask that takes the owner's own bits, we could not even
/// open what we made. Put back on drop, since the child inherits it.
struct PrivateUmask(Mode);

impl PrivateUmask {
    fn begin() -> Self {
        Self(rustix::process::umask(Mode::RWXG | Mode::RWXO))
    }
}

impl Drop for PrivateUmask {
    fn drop(&mut self) {
        rustix::process::umask(self.0);
    }
}

/// A fresh directory of ours, locked. It is removed by its cleaner, not by drop.
pub(crate) struct Directory {
    path: PathBuf,
    base: OwnedFd,
    fd: OwnedFd,
    name: String,
    owner: Owner,
}

impl Directory {
    /// Makes the directory, on memory unless `insecure`, after removing what dead processes left on the same base.
    /// Warnings are passed to `warn`.
    pub(crate) fn make(place: &Place, owner: Owner, warn: &mut dyn FnMut(String)) -> Result<Self, Complaint> {
        let _umask = PrivateUmask::begin();
        let (base_path, base) = base(place, owner)?;
        if !is_memory(&base) {
            warn(format!("{} is not on tmpfs or ramfs: the step's files are written to a disk", base_path.display()));
        }
        if may_be_changed_by_others(&base) {
            warn(format!(
                "{} may be written by others, who could put files of their own in place of the step's",
                base_path.display()
            ));
        }
        sweep(&base_path, &base, owner);
        let own_pid = std::process::id();
        for attempt in 0..16_u32 {
            // The plain name is taken only where a process of another pid namespace shares the base.
            let name = if attempt == 0 { own_pid.to_string() } else { format!("{own_pid}.{attempt}") };
            match rustix::fs::mkdirat(&base, name.as_str(), Mode::RWXU) {
                Ok(()) => {}
                Err(Errno::EXIST) => continue,
                Err(error) => return Err(cannot_make(&base_path.join(name), error)),
            }
            let path = base_path.join(&name);
            let made = || -> Result<OwnedFd, Errno> {
                let fd = open_component(base.as_fd(), &name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
                rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive)?;
                // A base with the set-group-id bit or a default ACL would have its say in the mode.
                rustix::fs::fchmod(&fd, Mode::RWXU)?;
                give(&fd, owner)?;
                // Between mkdir and the lock, a start in another pid namespace may have taken it for a dead one's.
                if rustix::fs::fstat(&fd)?.st_nlink == 0 { Err(Errno::NOENT) } else { Ok(fd) }
            };
            match made() {
                Ok(fd) => return Ok(Self { path, base, fd, name, owner }),
                Err(Errno::NOENT | Errno::AGAIN) => {}
                Err(error) => return Err(cannot_make(&path, error)),
            }
        }
        Err(Complaint::new(
            format!("cannot make a fresh directory in {}", base_path.display()),
            "name another one with --files-dir",
        ))
    }

    /// Returns the absolute path: what `KEYSIDE_FILES` says.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what the cleaner needs: the base, the directory, and its name in the base.
    pub(crate) fn handles(&self) -> (BorrowedFd<'_>, BorrowedFd<'_>, &str) {
        (self.base.as_fd(), self.fd.as_fd(), &self.name)
    }

    /// Writes one file, mode 0400, in directories of mode 0700.
    pub(crate) fn write(&self, name: &FileName, content: &SecretValue) -> Result<(), Complaint> {
        self.try_write(name, content).map_err(|error| {
            let hint = match error {
                Errno::NOSPC | Errno::DQUOT => "the directory is full; name a larger one with --files-dir",
                _ => "name another directory with --files-dir",
            };
            Complaint::new(format!("cannot write the file {name} in {}: {}", self.path.display(), kind(error)), hint)
        })
    }

    fn try_write(&self, name: &FileName, content: &SecretValue) -> Result<(), Errno> {
        let _umask = PrivateUmask::begin();
        let mut parts = name.as_str().split('/').peekable();
        let mut inner: Option<OwnedFd> = None;
        while let Some(part) = parts.next() {
            let parent = inner.as_ref().map_or(self.fd.as_fd(), AsFd::as_fd);
            if parts.peek().is_some() {
                let fresh = match rustix::fs::mkdirat(parent, part, Mode::RWXU) {
                    Ok(()) => true,
                    Err(Errno::EXIST) => false,
                    Err(error) => return Err(error),
                };
                let fd = open_component(parent, part, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
                if fresh {
                    rustix::fs::fchmod(&fd, Mode::RWXU)?;
                    give(&fd, self.owner)?;
                }
                inner = Some(fd);
                continue;
            }
            let file = open_component(parent, part, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, Mode::RUSR)?;
            // expose: into a file of mode 0400 in the step's directory.
            let mut bytes = content.expose();
            while !bytes.is_empty() {
                match rustix::io::write(&file, bytes) {
                    Ok(written) => bytes = &bytes[written..],
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error),
                }
            }
            rustix::fs::fchmod(&file, Mode::RUSR)?;
            return give(&file, self.owner);
        }
        Ok(())
    }
}

/// Opens one component, which can be no link and lead nowhere else.
fn open_component(parent: BorrowedFd<'_>, name: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match rustix::fs::openat2(parent, name, flags, mode, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS) {
        // An older kernel, or a filter that does not know the call: for a single component without `..` or `/`,
        // O_NOFOLLOW says the same.
        Err(Errno::NOSYS | Errno::PERM) => rustix::fs::openat(parent, name, flags, mode),
        result => result,
    }
}

fn give(fd: &OwnedFd, owner: Owner) -> Result<(), Errno> {
    if !owner.is_other {
        return Ok(());
    }
    rustix::fs::fchown(fd, Some(Uid::from_raw(owner.uid)), owner.gid.map(Gid::from_raw))
}

fn kind(error: Errno) -> std::io::ErrorKind {
    std::io::Error::from(error).kind()
}

fn cannot_make(path: &Path, error: Errno) -> Complaint {
    Complaint::new(
        format!("cannot make the files directory {}: {}", path.display(), kind(error)),
        "name another directory with --files-dir",
    )
}

fn is_memory(fd: &OwnedFd) -> bool {
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast, reason = "the type differs between architectures")]
    rustix::fs::fstatfs(fd).is_ok_and(|stat| matches!(stat.f_type as i64, TMPFS_MAGIC | RAMFS_MAGIC))
}

/// Opens the base directory, made if need be, and checks it by its descriptor.
fn base(place: &Place, owner: Owner) -> Result<(PathBuf, OwnedFd), Complaint> {
    if let Some(dir) = &place.dir {
        let path = std::path::absolute(dir).map_err(|error| {
            Complaint::new(
                format!("cannot use the files directory {}: {}", dir.display(), error.kind()),
                "name an absolute path",
            )
        })?;
        let fd = open_base(&path, owner)?;
        if !is_memory(&fd) && !place.insecure {
            return Err(Complaint::new(
                format!("the files directory {} is not on tmpfs or ramfs", path.display()),
                "name one that is, such as a directory in /dev/shm, or permit a disk with --insecure-files",
            ));
        }
        return Ok((path, fd));
    }
    // The user's runtime directory cannot be entered by anybody else.
    let runtime =
        std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute() && !owner.is_other);
    let shared = format!("keyside-{}", owner.uid);
    let candidates = [
        runtime.map(|dir| (dir, "keyside".to_owned())),
        Some((PathBuf::from("/dev/shm"), shared.clone())),
        place.insecure.then(|| (std::env::temp_dir(), shared)),
    ];
    for (root, name) in candidates.into_iter().flatten() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(fd) = rustix::fs::open(&root, flags, Mode::empty()) else { continue };
        if !is_memory(&fd) && !place.insecure {
            continue;
        }
        let path = root.join(name);
        match open_base(&path, owner) {
            Ok(fd) => return Ok((path, fd)),
            // Somebody else sits on that name, or we may not write there.
            Err(complaint) if root == Path::new("/dev/shm") => return Err(complaint),
            Err(_) => {}
        }
    }
    Err(Complaint::new(
        "there is no directory on tmpfs or ramfs for the step's files",
        "name one with --files-dir, or permit a disk with --insecure-files",
    ))
}

fn open_base(path: &Path, owner: Owner) -> Result<OwnedFd, Complaint> {
    let made = match rustix::fs::mkdir(path, Mode::RWXU) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(error) => return Err(cannot_make(path, error)),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    // A link in the place of a base that we named ourselves is refused; the parents of a named one are the user's.
    let fd =
        rustix::fs::open(path, flags | OFlags::NOFOLLOW, Mode::empty()).map_err(|error| cannot_make(path, error))?;
    if made {
        rustix::fs::fchmod(&fd, Mode::RWXU)
            .and_then(|()| give(&fd, owner))
            .map_err(|error| cannot_make(path, error))?;
    }
    let stat = rustix::fs::fstat(&fd).map_err(|error| cannot_make(path, error))?;
    let own = rustix::process::geteuid().as_raw();
    if ![0, own, owner.uid].contains(&stat.st_uid) {
        let what = format!("the files directory {} belongs to uid {}", path.display(), stat.st_uid);
        return Err(Complaint::new(what, "name another one with --files-dir"));
    }
    Ok(fd)
}

/// Whoever may rename our directory away could put his own in its place. Shared volumes of a pod are like that, so it
/// is said and not refused.
fn may_be_changed_by_others(base: &OwnedFd) -> bool {
    rustix::fs::fstat(base).is_ok_and(|stat| stat.st_mode & 0o022 != 0 && stat.st_mode & 0o1000 == 0)
}

/// Removes what steps that are gone left on `base`: directories of ours, named by a pid, with no cleaner.
///
/// The cleaner's lock tells most: it holds in every pid namespace. Where it is gone, a living process of that pid may
/// still be the step (somebody killed its cleaner alone), or anybody (the pid came from a container that was killed
/// whole): see [`is_step`].
fn sweep(base_path: &Path, base: &OwnedFd, owner: Owner) {
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

/// Removes everything in a directory, by descriptors, following no link.
pub(crate) fn empty(directory: BorrowedFd<'_>, depth: usize) {
    let Ok(entries) = Dir::read_from(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if entry.file_type() != FileType::Directory && rustix::fs::unlinkat(directory, name, AtFlags::empty()).is_ok() {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        if depth < MAX_DEPTH
            && let Ok(inner) = rustix::fs::openat(directory, name, flags, Mode::empty())
        {
            empty(inner.as_fd(), depth + 1);
        }
        let _ = rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_leads_nowhere_else() {
        for name in ["a", "a/b", "db.conf", "Ü x", "...", "-x", &"x".repeat(255)] {
            assert!(FileName::parse(name.as_bytes()).is_ok(), "{name}");
        }
        for (name, error) in [
            ("", FileNameError::Empty),
            ("a//b", FileNameError::Empty),
            ("a/", FileNameError::Empty),
            ("/a", FileNameError::Absolute),
            ("..", FileNameError::Dots),
            ("a/../b", FileNameError::Dots),
            ("./a", FileNameError::Dots),
            ("a\nb", FileNameError::Control),
            ("a\u{7f}", FileNameError::Control),
            (&"x".repeat(256), FileNameError::TooLong),
        ] {
            assert_eq!(FileName::parse(name.as_bytes()), Err(error), "{name:?}");
        }
        assert_eq!(FileName::parse(b"\xff"), Err(FileNameError::NotText));
        assert_eq!(FileName::of_key("db", "a/b"), Err(FileNameError::Slash));
        assert_eq!(FileName::of_key("..", "a"), Err(FileNameError::Dots));
    }

    #[test]
    fn names_that_could_be_one_file_are_refused_together() {
        let check = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| FileName::parse(name.as_bytes()).expect("a name")).collect();
            check_together(&names).len()
        };
        assert_eq!(check(&["a", "b", "c/a", "c/b"]), 0);
        for names in [&["a", "A"][..], &["a", "a"], &["Ä", "ä"], &["d/x", "D/y"], &["a", "a/b"], &["a/b", "a"]] {
            assert_eq!(check(names), 1, "{names:?}");
        }
    }

    #[test]
    fn only_names_of_the_form_pid_are_ever_swept() {
        assert_eq!((pid_of("12"), pid_of("12.3")), (Some(12), Some(12)));
        for name in ["", "x", "12x", "agent.sock", "12.", ".12", "12.3.4", "-1", "99999999999"] {
            assert_eq!(pid_of(name), None, "{name}");
        }
    }

    #[test]
    fn a_directory_is_private_and_what_a_dead_pid_left_is_removed() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let base = root.path().join("base");
        // Above every possible pid (PID_MAX_LIMIT is 2^22).
        // The test's own parent lives, and is no step of ours.
        let other = rustix::process::getppid().expect("a parent").as_raw_nonzero().to_string();
        for name in ["4194999", &other, "notes"] {
            std::fs::create_dir_all(base.join(name).join("sub")).expect("made");
            std::fs::write(base.join(name).join("sub/file"), "x").expect("written");
        }
        let place = Place { dir: Some(base.clone()), insecure: true };
        let owner = Owner { uid: rustix::process::geteuid().as_raw(), gid: None, is_other: false };
        let directory = Directory::make(&place, owner, &mut |_| {}).expect("made");
        assert!(!base.join("4194999").exists() && !base.join(other).exists());
        assert!(base.join("notes/sub/file").exists());
        let name = FileName::parse(b"d/f").expect("a name");
        directory.write(&name, &SecretValue::copy_of(b"value")).expect("written");
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |path: &str| directory.path().join(path).metadata().expect("there").permissions().mode() & 0o7777;
        assert_eq!((mode(""), mode("d"), mode("d/f")), (0o700, 0o700, 0o400));
        assert_eq!(std::fs::read(directory.path().join("d/f")).expect("read"), b"value");
        // A second file of that name is never written over the first.
        assert!(directory.write(&name, &SecretValue::copy_of(b"other")).is_err());
        empty(directory.handles().1, 0);
        assert_eq!(std::fs::read_dir(directory.path()).expect("listed").count(), 0);
    }
}
