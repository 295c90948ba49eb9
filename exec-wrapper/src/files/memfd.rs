//! `--files memfd`: each file is a sealed memfd that the step inherits, with `/proc/self/fd/N` as its path.
//!
//! No directory holds them, and they die with their last user. What the step starts inherits them as well, unless it
//! closes descriptors, as Python's subprocess does.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;

use keyside_protocol::value::SecretValue;
use rustix::fs::{MemfdFlags, Mode, SealFlags};
use rustix::io::{Errno, FdFlags};

use super::name::FileName;
use super::place::Owner;
use super::tree::{FILE_SIZE_HINT, give, kind};
use crate::report::Complaint;

/// Shells use the descriptors up to 9 in their scripts; a file there would be overwritten by `exec 3>log`.
const FIRST: i32 = 10;

/// The memfds of one step, close-on-exec until they are written.
pub(crate) struct Memfds {
    files: Vec<(FileName, OwnedFd)>,
    owner: Owner,
}

impl Memfds {
    /// Makes an empty memfd for each name, and makes sure that the step will be able to open it.
    pub(super) fn make<'n>(names: impl IntoIterator<Item = &'n FileName>, owner: Owner) -> Result<Self, Complaint> {
        let mut files = Vec::new();
        for name in names {
            let fd = create().map_err(|error| {
                let hint = match error {
                    Errno::MFILE | Errno::NFILE => "raise the limit of open files (ulimit -n), or use --files dir",
                    _ => "use --files dir",
                };
                Complaint::new(format!("cannot make a memfd for the file {name}: {}", kind(error)), hint)
            })?;
            files.push((name.clone(), fd));
        }
        let memfds = Self { files, owner };
        if let Some((name, fd)) = memfds.files.first() {
            let own = rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
            let by_path = rustix::fs::stat(memfds.path_of(name)).map(|stat| (stat.st_dev, stat.st_ino));
            if own.is_err() || own.ok() != by_path.ok() {
                return Err(Complaint::new(
                    "a memfd cannot be opened at /proc/self/fd, where the step is to find it",
                    "mount /proc, or use --files dir",
                ));
            }
        }
        Ok(memfds)
    }

    /// Returns where the step opens a file.
    pub(super) fn path_of(&self, name: &FileName) -> PathBuf {
        let number = self.of(name).as_raw_fd();
        PathBuf::from(format!("/proc/self/fd/{number}"))
    }

    /// Writes one file, gives it to the step's user, seals it, and lets the step inherit it.
    pub(super) fn write(&self, name: &FileName, content: &SecretValue) -> Result<(), Complaint> {
        // expose: into a sealed memfd of mode 0400.
        self.fill(self.of(name), content.expose()).map_err(|error| {
            let hint = if error == Errno::FBIG { FILE_SIZE_HINT } else { "use --files dir" };
            Complaint::new(format!("cannot write the file {name} into a memfd: {}", kind(error)), hint)
        })
    }

    fn fill(&self, fd: &OwnedFd, bytes: &[u8]) -> Result<(), Errno> {
        let mut at = 0;
        while at < bytes.len() {
            // Not by the descriptor's own offset: a step that reads the descriptor itself starts at the beginning.
            match rustix::io::pwrite(fd, &bytes[at..], at as u64) {
                Ok(written) => at += written,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        rustix::fs::fchmod(fd, Mode::RUSR)?;
        // A path in /proc is opened with the rights of whoever opens it.
        give(fd, self.owner)?;
        rustix::fs::fcntl_add_seals(fd, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
        rustix::io::fcntl_setfd(fd, FdFlags::empty())
    }

    fn of(&self, name: &FileName) -> &OwnedFd {
        let found = self.files.iter().find(|(known, _)| known == name);
        &found.expect("a memfd was made for every file of the plan").1
    }
}

fn create() -> Result<OwnedFd, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = match rustix::fs::memfd_create("keyside-file", flags | MemfdFlags::NOEXEC_SEAL) {
        // Before Linux 6.3. The mode has no execute bit in the end, and a sealed one needs none.
        Err(Errno::INVAL) => rustix::fs::memfd_create("keyside-file", flags)?,
        result => result?,
    };
    match rustix::io::fcntl_dupfd_cloexec(&fd, FIRST) {
        Ok(high) => Ok(high),
        // So few descriptors are allowed that there is none that high: the one we have is none of the inherited ones.
        Err(Errno::INVAL | Errno::MFILE) => Ok(fd),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_memfd_is_inherited_only_when_it_is_written_and_then_it_cannot_be_changed() {
        let owner = Owner { uid: rustix::process::geteuid().as_raw(), gid: None, is_other: false };
        let names = ["A", "B"].map(|name| FileName::parse(name.as_bytes()).expect("a name"));
        let memfds = Memfds::make(&names, owner).expect("made");
        let [a, b] = names.each_ref().map(|name| memfds.of(name));
        assert!(a.as_raw_fd() >= FIRST && a.as_raw_fd() != b.as_raw_fd());
        memfds.write(&names[0], &SecretValue::copy_of(b"value\n\0")).expect("written");
        let flags = |fd: &OwnedFd| rustix::io::fcntl_getfd(fd).expect("flags");
        assert_eq!((flags(a), flags(b)), (FdFlags::empty(), FdFlags::CLOEXEC));
        assert_eq!(std::fs::read(memfds.path_of(&names[0])).expect("read"), b"value\n\0");
        let mut file = std::fs::File::from(a.try_clone().expect("a copy"));
        assert!(file.write_all(b"x").is_err() && file.set_len(1).is_err() && file.set_len(100).is_err());
        let mode = rustix::fs::fstat(a).expect("there").st_mode & 0o7777;
        assert_eq!(mode, 0o400);
        assert!(memfds.write(&names[0], &SecretValue::copy_of(b"other")).is_err());
    }
}
