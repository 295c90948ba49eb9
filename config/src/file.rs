//! Reads a file within bounds; refuses a configuration file that others may write.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use zeroize::Zeroizing;

use crate::accounts;
use crate::environment::Environment;
use crate::mistake::Mistake;

/// Largest configuration file, ours and ZenML's, in bytes.
pub(crate) const MAX_CONFIG_BYTES: usize = 1 << 20;

/// Why a file could not be read.
pub(crate) enum ReadError {
    /// There is none.
    Absent,
    /// The permissions forbid it.
    NotPermitted,
    /// Anything else, said in a few words.
    Other(String),
}

impl ReadError {
    /// The mistake to report where the file is needed.
    pub(crate) fn into_mistake(self, path: &Path) -> Mistake {
        let (what, hint) = match self {
            Self::Absent => ("there is no such file".to_owned(), "name a file that exists"),
            Self::NotPermitted => (
                "the permissions do not allow reading this file".to_owned(),
                "let the user that runs this read the file and search its directories",
            ),
            Self::Other(what) => (what, "put a regular file of text there, or name another one"),
        };
        Mistake::of_file(path, what).with_hint(hint)
    }
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::Absent,
            io::ErrorKind::PermissionDenied => Self::NotPermitted,
            // What opening a socket gives.
            _ if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => {
                Self::Other("this is a socket, not a regular file".to_owned())
            }
            kind => Self::Other(format!("this file cannot be read: {kind}")),
        }
    }
}

/// Whether the file's owner and mode matter.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Owned by root or this uid, and not writable by others: it decides whom we serve.
    OwnedBy(u32),
    /// ZenML's files and key files: whoever mounted them answers for them.
    Any,
}

/// Reads a regular file of at most `limit` bytes into a wiped buffer.
pub(crate) fn read(path: &Path, limit: usize, trust: Trust) -> Result<Zeroizing<Vec<u8>>, ReadError> {
    // NONBLOCK: opening a FIFO would wait for a writer for ever. It means nothing for a regular file.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened: OwnedFd = rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from)?;
    // The opened file, not the path: nobody can exchange it between the look and the reading.
    let status = rustix::fs::fstat(&opened).map_err(io::Error::from)?;
    match FileType::from_raw_mode(status.st_mode) {
        FileType::RegularFile => {}
        FileType::Directory => return Err(ReadError::Other("this is a directory, not a file".to_owned())),
        FileType::Fifo => return Err(ReadError::Other("this is a FIFO, not a regular file".to_owned())),
        FileType::CharacterDevice | FileType::BlockDevice => {
            return Err(ReadError::Other("this is a device, not a regular file".to_owned()));
        }
        _ => return Err(ReadError::Other("this is not a regular file".to_owned())),
    }
    if let Trust::OwnedBy(uid) = trust {
        if status.st_uid != 0 && status.st_uid != uid {
            return Err(ReadError::Other(format!(
                "this file belongs to uid {}; it must belong to root or to uid {uid}",
                status.st_uid
            )));
        }
        if Mode::from_raw_mode(status.st_mode).contains(Mode::WOTH) {
            return Err(ReadError::Other("others may write to this file; take that away with chmod o-w".to_owned()));
        }
    }
    // Room for all of it at once, for a growing buffer would leave copies of its content behind; and for no more, since all
    // of it is wiped, byte by byte. Some file systems (/proc, FUSE) give no size.
    let size = usize::try_from(status.st_size).ok().filter(|size| (1..=limit).contains(size)).unwrap_or(limit);
    let mut bytes = Zeroizing::new(Vec::with_capacity(size + 1));
    File::from(opened).take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(ReadError::Other(format!("this file is larger than {limit} bytes")));
    }
    Ok(bytes)
}

/// `$XDG_CONFIG_HOME`, else `~/.config`; `None` when neither can be told.
pub(crate) fn user_config_dir(environment: &Environment, uid: u32) -> Option<PathBuf> {
    let absolute = |name: &str| environment.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_CONFIG_HOME")
        .or_else(|| absolute("HOME").or_else(|| accounts::home_of(uid)).map(|home| home.join(".config")))
}

/// Where `keyside.toml` is looked for when no flag and no variable names it.
pub(crate) fn default_paths(environment: &Environment, uid: u32) -> Vec<PathBuf> {
    let user = user_config_dir(environment, uid).map(|dir| dir.join("keyside/keyside.toml"));
    user.into_iter().chain([PathBuf::from("/etc/keyside/keyside.toml")]).collect()
}
