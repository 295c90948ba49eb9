//! The directory of a socket, held open: what was checked is what is used, whatever the path leads to meanwhile.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fchmod, fstat, mkdir, open, openat, stat, statat, unlinkat};
use rustix::io::Errno;

use super::{LONGEST_PATH, ListenError};

/// A file, whatever it is called: its device and inode.
pub(super) type Identity = (u64, u64);

const WRITABLE_BY_GROUP: u32 = 0o020;
const WRITABLE_BY_ALL: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// The place of one socket: a directory that only we or root may write to, and a name in it.
pub(super) struct Place {
    directory: OwnedFd,
    directory_path: PathBuf,
    name: OsString,
    path: PathBuf,
}

impl Place {
    /// Opens the directory of `path`, makes it when only it is missing, and checks that nobody else can replace what is
    /// in it. A socket that others may connect to (`socket_mode`) needs a directory that others may pass through.
    pub(super) fn open(path: &Path, socket_mode: u32) -> Result<Self, ListenError> {
        let relative = || ListenError::Relative(path.to_path_buf());
        let (Some(directory_path), Some(name), true) = (path.parent(), path.file_name(), path.is_absolute()) else {
            return Err(relative());
        };
        let mode = if socket_mode & 0o077 == 0 { 0o700 } else { 0o711 };
        let directory = open_or_make(directory_path, mode)?;
        let place = Self {
            directory,
            directory_path: directory_path.to_path_buf(),
            name: name.to_owned(),
            path: path.to_path_buf(),
        };
        place.check(socket_mode)?;
        Ok(place)
    }

    /// Returns the socket's path, as configured.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the directory for calls that take one and a name.
    pub(super) fn directory(&self) -> &OwnedFd {
        &self.directory
    }

    /// Returns the socket's name in the directory.
    pub(super) fn name(&self) -> &OsStr {
        &self.name
    }

    /// Returns an address that leads into the directory that was checked, even if the path leads elsewhere by now.
    /// `bind` takes no directory to begin from, so it goes by way of the descriptor; `None` where /proc is not mounted,
    /// and where a long name leaves no room for it: an address has 107 bytes.
    pub(super) fn address(&self) -> Option<PathBuf> {
        let descriptor = PathBuf::from(format!("/proc/self/fd/{}", self.directory.as_raw_fd()));
        // Through the link: the directory itself.
        let leads_here = stat(&descriptor).is_ok_and(|found| identity(&found) == self.identity());
        leads_here.then(|| descriptor.join(&self.name)).filter(|address| address.as_os_str().len() <= LONGEST_PATH)
    }

    /// Tells whether the path still leads into this directory.
    pub(super) fn is_where_the_path_leads(&self) -> bool {
        stat(&self.directory_path).is_ok_and(|found| identity(&found) == self.identity())
    }

    /// Looks at what has the socket's name, or that name with `suffix`, without following a link.
    pub(super) fn look(&self, suffix: &str) -> io::Result<Option<Stat>> {
        match statat(&self.directory, self.name_with(suffix), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns which file has the socket's name with `suffix`.
    pub(super) fn identity_of(&self, suffix: &str) -> Option<Identity> {
        self.look(suffix).ok().flatten().map(|found| identity(&found))
    }

    /// Removes what has the socket's name with `suffix`.
    pub(super) fn remove(&self, suffix: &str) -> io::Result<()> {
        Ok(unlinkat(&self.directory, self.name_with(suffix), AtFlags::empty())?)
    }

    /// Opens, and makes if it is missing, the file beside the socket whose name has `suffix`; 0600 under any umask.
    pub(super) fn open_beside(&self, suffix: &str) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = openat(&self.directory, self.name_with(suffix), flags, mode)?;
        // After a crash the next agent must be able to open it.
        fchmod(&file, mode)?;
        Ok(file.into())
    }

    /// Tells whether somebody else may put another directory into the place of this one, or of one above it, as in a
    /// volume that everybody may write to. What is inside stays ours; which directory a client comes to does not.
    pub(super) fn may_be_replaced(&self) -> bool {
        let mut above = PathBuf::from("..");
        let Ok(mut below) = fstat(&self.directory) else { return true };
        loop {
            // By the descriptor, not by the path.
            let Ok(found) = statat(&self.directory, &above, AtFlags::empty()) else { return true };
            if identity(&found) == identity(&below) {
                return false;
            }
            let by_others = found.st_mode & WRITABLE_BY_ALL != 0 || is_writable_by_foreign_group(&found);
            let by_owner = found.st_uid != 0 && found.st_uid != own_uid();
            // In a sticky directory only the owner of an entry, or of the directory, may rename it.
            if by_owner || (by_others && found.st_mode & STICKY == 0) {
                return true;
            }
            above.push("..");
            below = found;
        }
    }

    fn identity(&self) -> Identity {
        // An open descriptor can be looked at.
        fstat(&self.directory).map_or((0, 0), |found| identity(&found))
    }

    fn check(&self, socket_mode: u32) -> Result<(), ListenError> {
        let found = fstat(&self.directory).map_err(|error| ListenError::Io {
            what: "look at the directory",
            path: self.directory_path.clone(),
            source: error.into(),
        })?;
        let unsafe_because =
            |why, hint: String| Err(ListenError::UnsafeDirectory { path: self.directory_path.clone(), why, hint });
        let own_directory = "use a directory that belongs to you or root and that only its owner may write to";
        if found.st_uid != own_uid() && found.st_uid != 0 {
            return unsafe_because("belongs to somebody else", own_directory.to_owned());
        }
        if found.st_mode & WRITABLE_BY_ALL != 0 {
            let own = self.directory_path.join("keyside").join("agent.sock");
            let hint = format!("name `{}`: the agent makes that directory for itself", own.display());
            return unsafe_because("may be written to by everyone", hint);
        }
        if is_writable_by_foreign_group(&found) {
            return unsafe_because("may be written to by a group that is not ours", own_directory.to_owned());
        }
        if socket_mode & 0o007 != 0 && found.st_mode & 0o001 == 0 {
            let (path, mode) = (self.path.display(), found.st_mode & 0o7777);
            let mode = format!("{mode:04o}");
            tracing::warn!(%path, mode, "others may connect to the socket but not pass through its directory");
        }
        Ok(())
    }

    fn name_with(&self, suffix: &str) -> OsString {
        let mut name = self.name.clone();
        name.push(suffix);
        name
    }
}

/// Returns the device and inode of what was found.
pub(super) fn identity(found: &Stat) -> Identity {
    (found.st_dev, found.st_ino)
}

/// Names what kind of file was found, if it is no socket.
pub(super) fn other_than_socket(found: &Stat) -> Option<&'static str> {
    match FileType::from_raw_mode(found.st_mode) {
        FileType::Socket => None,
        FileType::Symlink => Some("a symbolic link"),
        FileType::Directory => Some("a directory"),
        FileType::Fifo => Some("a FIFO"),
        _ => Some("a file"),
    }
}

fn open_or_make(path: &Path, mode: u32) -> Result<OwnedFd, ListenError> {
    let failed = |what| move |error: Errno| ListenError::Io { what, path: path.to_path_buf(), source: error.into() };
    let made = match mkdir(path, Mode::RWXU) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(error) => return Err(failed("make the directory")(error)),
    };
    // What is only passed through need not be readable to us.
    let access = if made { OFlags::RDONLY } else { OFlags::PATH };
    let flags = access | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match open(path, flags, Mode::empty()) {
        Ok(directory) => directory,
        Err(Errno::NOTDIR | Errno::LOOP) => {
            return Err(ListenError::UnsafeDirectory {
                path: path.to_path_buf(),
                why: "is not a directory, or is a symbolic link to one",
                hint: "name the directory itself; a link in its place could lead anywhere tomorrow".to_owned(),
            });
        }
        Err(error) => return Err(failed("open the directory")(error)),
    };
    // Where everybody may write, somebody may have put another one here since: only our own is changed.
    if made && fstat(&directory).is_ok_and(|found| found.st_uid == own_uid()) {
        fchmod(&directory, Mode::from_raw_mode(mode)).map_err(failed("set the mode of the directory"))?;
    }
    Ok(directory)
}

fn is_writable_by_foreign_group(found: &Stat) -> bool {
    let own_group = found.st_gid == 0 || found.st_gid == rustix::process::getegid().as_raw();
    found.st_mode & WRITABLE_BY_GROUP != 0 && !own_group
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}
