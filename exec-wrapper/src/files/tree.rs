//! Files below a directory of ours, written and removed by descriptors, one component at a time.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use keyside_protocol::value::SecretValue;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::name::FileName;
use super::place::Owner;

/// How deep a step's own directories inside ours are followed when they are removed.
const MAX_DEPTH: usize = 32;

/// What to do about a file that may not grow so far.
pub(super) const FILE_SIZE_HINT: &str = "raise the limit of file sizes for the step (ulimit -f)";

/// Holds the umask while directories are made: under one that takes the owner's own bits, we could not even open what we
/// made. Put back on drop, since the child inherits it.
pub(super) struct Umask(Mode);

impl Umask {
    /// 077: what is made is the owner's alone.
    pub(super) fn private() -> Self {
        Self(rustix::process::umask(Mode::RWXG | Mode::RWXO))
    }

    /// 022: everybody may look at what is made.
    pub(super) fn public() -> Self {
        Self(rustix::process::umask(Mode::WGRP | Mode::WOTH))
    }
}

impl Drop for Umask {
    fn drop(&mut self) {
        rustix::process::umask(self.0);
    }
}

/// Writes a fresh file, mode 0400, in directories of mode 0700.
pub(super) fn write(root: BorrowedFd<'_>, name: &FileName, content: &SecretValue, owner: Owner) -> Result<(), Errno> {
    let _umask = Umask::private();
    let mut parts = name.as_str().split('/').peekable();
    let mut inner: Option<OwnedFd> = None;
    while let Some(part) = parts.next() {
        let parent = inner.as_ref().map_or(root, AsFd::as_fd);
        if parts.peek().is_some() {
            let fresh = match rustix::fs::mkdirat(parent, part, Mode::RWXU) {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                Err(error) => return Err(error),
            };
            let fd = open_component(parent, part, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
            if fresh {
                rustix::fs::fchmod(&fd, Mode::RWXU)?;
                give(&fd, owner)?;
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
        return give(&file, owner);
    }
    Ok(())
}

/// Opens one component, which can be no link and lead nowhere else.
pub(super) fn open_component(parent: BorrowedFd<'_>, name: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match rustix::fs::openat2(parent, name, flags, mode, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS) {
        // An older kernel, or a filter that does not know the call: for a single component without `..` or `/`,
        // O_NOFOLLOW says the same.
        Err(Errno::NOSYS | Errno::PERM) => rustix::fs::openat(parent, name, flags, mode),
        result => result,
    }
}

/// Gives what we made to the step's user.
pub(super) fn give(fd: &OwnedFd, owner: Owner) -> Result<(), Errno> {
    if !owner.is_other {
        return Ok(());
    }
    rustix::fs::fchown(fd, Some(Uid::from_raw(owner.uid)), owner.gid.map(Gid::from_raw))
}

/// What an error is called in a complaint.
pub(super) fn kind(error: Errno) -> std::io::ErrorKind {
    std::io::Error::from(error).kind()
}

/// Tells whether whoever is not the owner may rename what is in a directory, and put his own in its place. Shared
/// volumes of a pod are like that, so it is said and not refused.
pub(super) fn may_be_changed_by_others(directory: &OwnedFd) -> bool {
    rustix::fs::fstat(directory).is_ok_and(|stat| stat.st_mode & 0o022 != 0 && stat.st_mode & 0o1000 == 0)
}

/// Removes everything in a directory, following no link.
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
