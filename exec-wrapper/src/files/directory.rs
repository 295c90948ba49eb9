//! `--files dir`: a directory on memory.
//!
//! It is `BASE/<pid>`, made fresh with mode 0700 and locked (flock) by its cleaner for as long as it lives. What a dead
//! pid left on the same base, because its cleaner was killed too, is removed by the next start.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use keyside_protocol::value::SecretValue;
use rustix::fs::{Access, AtFlags, Dir, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::name::FileName;
use super::place::{Owner, Place};
use super::reach;
use super::strength::Medium;
use super::sweep::sweep;
use super::tree::{self, Umask, give, kind, may_be_changed_by_others, open_component};
use crate::report::Complaint;

const TMPFS_MAGIC: i64 = 0x0102_1994;
const RAMFS_MAGIC: i64 = 0x8584_58f6;
/// Where every Linux has memory for everybody.
pub(super) const SHARED_MEMORY: &str = "/dev/shm";

/// A fresh directory of ours, locked. It is removed by its cleaner, not by drop.
pub(crate) struct Directory {
    path: PathBuf,
    base: OwnedFd,
    fd: OwnedFd,
    name: String,
    owner: Owner,
    medium: Medium,
}

impl Directory {
    /// Makes the directory, on memory unless `insecure`, after removing what dead processes left on the same base.
    /// Warnings are passed to `warn`.
    pub(super) fn make(place: &Place, owner: Owner, warn: &mut dyn FnMut(String)) -> Result<Self, Complaint> {
        let _umask = Umask::private();
        let (base_path, base) = base(place, owner)?;
        let medium = medium(&base);
        if !medium.is_memory() {
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
                Ok(fd) => return Ok(Self { path, base, fd, name, owner, medium }),
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

    /// Returns what it is on.
    pub(super) fn medium(&self) -> Medium {
        self.medium
    }

    /// Returns what the cleaner needs: the base, the directory, and its name in the base.
    pub(crate) fn handles(&self) -> (BorrowedFd<'_>, BorrowedFd<'_>, &str) {
        (self.base.as_fd(), self.fd.as_fd(), &self.name)
    }

    /// Writes one file, mode 0400, in directories of mode 0700.
    pub(super) fn write(&self, name: &FileName, content: &SecretValue) -> Result<(), Complaint> {
        tree::write(self.fd.as_fd(), name, content, self.owner).map_err(|error| {
            let hint = match error {
                Errno::FBIG => tree::FILE_SIZE_HINT,
                Errno::NOSPC | Errno::DQUOT => "the directory is full; name a larger one with --files-dir",
                _ => "name another directory with --files-dir",
            };
            Complaint::new(format!("cannot write the file {name} in {}: {}", self.path.display(), kind(error)), hint)
        })
    }
}

/// Tells which base [`Directory::make`] would take, without making anything.
pub(super) fn foresee(place: &Place, owner: Owner) -> Result<(PathBuf, Medium), Complaint> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    if let Some(dir) = &place.dir {
        let path = absolute(dir)?;
        check_reach(&path, owner)?;
        let parent = path.parent().unwrap_or(&path);
        let fd = rustix::fs::open(&path, flags, Mode::empty()).or_else(|error| match error {
            Errno::NOENT => rustix::fs::open(parent, flags, Mode::empty()),
            error => Err(error),
        });
        let medium = medium(&fd.map_err(|error| cannot_make(&path, error))?);
        return permitted(&path, medium, place).map(|()| (path, medium));
    }
    for Root { path, name, .. } in roots(place, owner) {
        if let Ok(fd) = rustix::fs::open(&path, flags, Mode::empty())
            && (place.insecure || medium(&fd).is_memory())
        {
            return Ok((path.join(name), medium(&fd)));
        }
    }
    Err(nowhere())
}

/// Only a named directory is looked at: those that we name ourselves are everybody's to search.
fn check_reach(base: &Path, owner: Owner) -> Result<(), Complaint> {
    let Some(barred) = reach::obstacle(base, owner) else { return Ok(()) };
    Err(Complaint::new(
        format!(
            "uid {}, whom the step runs as, cannot reach the files directory {}: it may not search {}",
            owner.uid,
            base.display(),
            barred.display()
        ),
        "name a directory that the step's user can reach with --files-dir",
    ))
}

fn cannot_make(path: &Path, error: Errno) -> Complaint {
    Complaint::new(
        format!("cannot make the files directory {}: {}", path.display(), kind(error)),
        "name another directory with --files-dir",
    )
}

fn nowhere() -> Complaint {
    Complaint::new(
        "there is no directory on tmpfs or ramfs for the step's files",
        "name one with --files-dir, or permit a disk with --insecure-files",
    )
}

fn medium(fd: &OwnedFd) -> Medium {
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast, reason = "the type differs between architectures")]
    match rustix::fs::fstatfs(fd).map(|stat| stat.f_type as i64) {
        Ok(TMPFS_MAGIC) => Medium::Tmpfs,
        Ok(RAMFS_MAGIC) => Medium::Ramfs,
        _ => Medium::Disk,
    }
}

fn permitted(path: &Path, medium: Medium, place: &Place) -> Result<(), Complaint> {
    if medium.is_memory() || place.insecure {
        return Ok(());
    }
    Err(Complaint::new(
        format!("the files directory {} is not on tmpfs or ramfs", path.display()),
        "name one that is, such as a directory in /dev/shm, or permit a disk with --insecure-files",
    ))
}

/// Makes a named path absolute, leaving links to the user.
pub(super) fn absolute(dir: &Path) -> Result<PathBuf, Complaint> {
    std::path::absolute(dir).map_err(|error| {
        Complaint::new(
            format!("cannot use the files directory {}: {}", dir.display(), error.kind()),
            "name an absolute path",
        )
    })
}

/// A place where a base of ours may be.
struct Root {
    path: PathBuf,
    name: String,
    /// Whether everybody may make directories there, and so take our name.
    is_shared: bool,
}

fn roots(place: &Place, owner: Owner) -> impl Iterator<Item = Root> {
    // The user's runtime directory cannot be entered by anybody else.
    let runtime =
        std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute() && !owner.is_other);
    let shared = |path: PathBuf| Root { path, name: format!("keyside-{}", owner.uid), is_shared: true };
    let roots = [
        runtime.map(|path| Root { path, name: "keyside".to_owned(), is_shared: false }),
        Some(shared(PathBuf::from(SHARED_MEMORY))),
        place.insecure.then(|| shared(std::env::temp_dir())),
    ];
    roots.into_iter().flatten()
}

/// Opens the base directory, made if need be, and checks it by its descriptor.
fn base(place: &Place, owner: Owner) -> Result<(PathBuf, OwnedFd), Complaint> {
    if let Some(dir) = &place.dir {
        let path = absolute(dir)?;
        check_reach(&path, owner)?;
        let fd = open_base(&path, owner, true)?;
        return permitted(&path, medium(&fd), place).map(|()| (path, fd));
    }
    let mut first_complaint = None;
    for Root { path: root, name, is_shared } in roots(place, owner) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(fd) = rustix::fs::open(&root, flags, Mode::empty()) else { continue };
        if !medium(&fd).is_memory() && !place.insecure {
            continue;
        }
        let path = root.join(&name);
        let opened = if is_shared {
            shared_base(&root, &fd, &name, owner)
        } else {
            open_base(&path, owner, true).map(|fd| (path, fd))
        };
        match opened {
            Ok(base) => return Ok(base),
            Err(complaint) if is_shared => drop(first_complaint.get_or_insert(complaint)),
            Err(_) => {}
        }
    }
    Err(first_complaint.unwrap_or_else(nowhere))
}

/// Opens the base in a directory where everybody may make one: under its plain name, or, where somebody else sits on
/// that, under one that nobody can guess, so that no other user can keep a step from starting. One that an earlier start
/// made is taken again, and whatever dead steps left in any of ours is removed.
fn shared_base(root: &Path, root_fd: &OwnedFd, name: &str, owner: Owner) -> Result<(PathBuf, OwnedFd), Complaint> {
    let mut chosen = open_base(&root.join(name), owner, true).map(|fd| (root.join(name), fd));
    let prefix = format!("{name}-");
    let entries = Dir::read_from(root_fd).into_iter().flatten().flatten();
    let others = entries.filter_map(|entry| Some(entry.file_name().to_str().ok()?.to_owned()));
    for other in others.filter(|other| other.strip_prefix(&prefix).is_some_and(is_token)) {
        let path = root.join(other);
        let Ok(fd) = open_base(&path, owner, false) else { continue };
        if chosen.is_ok() {
            sweep(&path, &fd, owner);
        } else {
            chosen = Ok((path, fd));
        }
    }
    for _ in 0..4 {
        if chosen.is_ok() {
            break;
        }
        let Some(token) = token() else { break };
        let path = root.join(format!("{prefix}{token}"));
        if let Ok(fd) = open_base(&path, owner, true) {
            chosen = Ok((path, fd));
        }
    }
    chosen
}

/// Returns 16 hexadecimal digits that nobody can guess.
fn token() -> Option<String> {
    let mut bytes = [0; 8];
    let filled = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty()).ok()?;
    (filled == bytes.len()).then(|| format!("{:016x}", u64::from_ne_bytes(bytes)))
}

pub(super) fn is_token(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Opens one base and checks it: it is a directory, no link, belongs to root, to us or to the step's user, and we may
/// write there.
fn open_base(path: &Path, owner: Owner, make: bool) -> Result<OwnedFd, Complaint> {
    let made = match rustix::fs::mkdir(path, Mode::RWXU) {
        _ if !make => false,
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
    rustix::fs::accessat(&fd, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
        .map_err(|error| cannot_make(path, error))?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::super::place::Kind;
    use super::*;

    fn ourselves() -> Owner {
        Owner { uid: rustix::process::geteuid().as_raw(), gid: None, is_other: false }
    }

    fn open(path: &Path) -> OwnedFd {
        rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).expect("opened")
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
        let place = Place { kind: Kind::Dir, dir: Some(base.clone()), insecure: true };
        let directory = Directory::make(&place, ourselves(), &mut |_| {}).expect("made");
        assert!(!base.join("4194999").exists() && !base.join(other).exists());
        assert!(base.join("notes/sub/file").exists());
        assert_eq!(foresee(&place, ourselves()).ok(), Some((base, directory.medium())));
        let name = FileName::parse(b"d/f").expect("a name");
        directory.write(&name, &SecretValue::copy_of(b"value")).expect("written");
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |path: &str| directory.path().join(path).metadata().expect("there").permissions().mode() & 0o7777;
        assert_eq!((mode(""), mode("d"), mode("d/f")), (0o700, 0o700, 0o400));
        assert_eq!(std::fs::read(directory.path().join("d/f")).expect("read"), b"value");
        // A second file of that name is never written over the first.
        assert!(directory.write(&name, &SecretValue::copy_of(b"other")).is_err());
        tree::empty(directory.handles().1, 0);
        assert_eq!(std::fs::read_dir(directory.path()).expect("listed").count(), 0);
    }

    #[test]
    fn a_base_whose_name_is_taken_gets_one_that_nobody_can_guess_and_keeps_it() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let choose = || shared_base(root.path(), &open(root.path()), "keyside-7", ourselves()).expect("a base").0;
        assert_eq!(choose(), root.path().join("keyside-7"));
        std::fs::remove_dir(choose()).expect("removed");
        // Not a directory; a link to one of ours; a link to nowhere.
        let elsewhere = tempfile::tempdir().expect("a temporary directory");
        for squat in [
            &|path: &Path| std::fs::write(path, "squatted"),
            &|path: &Path| std::os::unix::fs::symlink(elsewhere.path(), path),
            &|path: &Path| std::os::unix::fs::symlink("/nonexistent", path),
        ] as [&dyn Fn(&Path) -> std::io::Result<()>; 3]
        {
            let plain = root.path().join("keyside-7");
            squat(&plain).expect("squatted");
            let chosen = choose();
            let token = chosen.file_name().and_then(|name| name.to_str()?.strip_prefix("keyside-7-")).expect("a token");
            assert!(is_token(token), "{chosen:?}");
            assert_eq!(choose(), chosen);
            std::fs::remove_file(plain).expect("removed");
        }
        assert_eq!(std::fs::read_dir(elsewhere.path()).expect("listed").count(), 0);
        // When the plain name is free again it is taken, and what a dead step left in the other one goes.
        let bases = std::fs::read_dir(root.path()).expect("listed").flatten().map(|entry| entry.path());
        let bases: Vec<_> = bases.collect();
        assert_eq!(bases.len(), 1);
        std::fs::create_dir(bases[0].join("4194999")).expect("made");
        assert_eq!(choose(), root.path().join("keyside-7"));
        assert!(!bases[0].join("4194999").exists());
    }
}
