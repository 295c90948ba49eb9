//! What went wrong, from SQLite's result codes and the state of the file alone; never from a message's text. What a server
//! of MySQL says is in `mysql_error`.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::super::{BackendError, WriteError};

/// Where the data base is, for messages.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) backend: String,
    pub(super) at: At,
}

/// A file or a server.
#[derive(Clone)]
pub(super) enum At {
    File(PathBuf),
    /// `mysql://host:port/database`.
    Server(String),
}

/// Which file a path names: device and inode.
pub(super) type FileId = (u64, u64);

/// What is wrong with the file itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileFault {
    Missing,
    Directory,
    NotRegular,
    Unreadable,
    Empty,
    Other(i32),
}

/// Looks at the file without opening it: closing a descriptor of our own would drop every lock that SQLite holds on it
/// in this process (POSIX locks belong to process and inode), and opening a FIFO would hang.
pub(super) fn inspect(path: &Path) -> Result<FileId, FileFault> {
    let metadata = fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => FileFault::Missing,
        io::ErrorKind::PermissionDenied => FileFault::Unreadable,
        _ => FileFault::Other(error.raw_os_error().unwrap_or(0)),
    })?;
    let kind = metadata.file_type();
    if kind.is_dir() {
        Err(FileFault::Directory)
    } else if kind.is_fifo() || kind.is_socket() || kind.is_char_device() || kind.is_block_device() {
        Err(FileFault::NotRegular)
    } else if accessat(CWD, path, Access::READ_OK, AtFlags::EACCESS).is_err() {
        Err(FileFault::Unreadable)
    } else if metadata.len() == 0 {
        Err(FileFault::Empty)
    } else {
        Ok((metadata.dev(), metadata.ino()))
    }
}

/// What a failed statement was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    Reading,
    Writing,
}

/// SQLite's extended result codes that mean more than their low byte (sqlite.org/rescode.html).
mod code {
    pub(super) const ERROR: i32 = 1;
    pub(super) const PERM: i32 = 3;
    pub(super) const BUSY: i32 = 5;
    pub(super) const LOCKED: i32 = 6;
    pub(super) const NOMEM: i32 = 7;
    pub(super) const READONLY: i32 = 8;
    pub(super) const READONLY_RECOVERY: i32 = 264;
    pub(super) const READONLY_CANTLOCK: i32 = 520;
    pub(super) const READONLY_ROLLBACK: i32 = 776;
    pub(super) const READONLY_DBMOVED: i32 = 1032;
    pub(super) const READONLY_CANTINIT: i32 = 1288;
    pub(super) const READONLY_DIRECTORY: i32 = 1544;
    pub(super) const IOERR: i32 = 10;
    pub(super) const CORRUPT: i32 = 11;
    pub(super) const FULL: i32 = 13;
    pub(super) const CANTOPEN: i32 = 14;
    pub(super) const CANTOPEN_ISDIR: i32 = 526;
    pub(super) const TOOBIG: i32 = 18;
    pub(super) const CONSTRAINT: i32 = 19;
    pub(super) const CONSTRAINT_FOREIGNKEY: i32 = 787;
    pub(super) const CONSTRAINT_TRIGGER: i32 = 1811;
    pub(super) const CONSTRAINT_UNIQUE: i32 = 2067;
    pub(super) const AUTH: i32 = 23;
    pub(super) const NOTADB: i32 = 26;
}

/// Returns SQLite's extended result code; `None` when the error is not SQLite's.
pub(super) fn code_of(error: &sqlx::Error) -> Option<i32> {
    error.as_database_error()?.code()?.parse().ok()
}

impl Place {
    /// The place of a file.
    pub(super) fn of_file(backend: &str, path: &Path) -> Self {
        Self { backend: backend.to_owned(), at: At::File(path.to_owned()) }
    }

    /// The file; an empty path for a server, which nobody asks.
    pub(super) fn path(&self) -> &Path {
        match &self.at {
            At::File(path) => path,
            At::Server(_) => Path::new(""),
        }
    }

    pub(super) fn transient(&self, what: &str, hint: &str) -> BackendError {
        BackendError::Transient { what: self.text(what), hint: Some(hint.into()) }
    }

    pub(super) fn text(&self, what: &str) -> String {
        match &self.at {
            At::File(path) => format!("back-end `{}`: `{}` {what}", self.backend, path.display()),
            At::Server(url) => format!("back-end `{}`: `{url}` {what}", self.backend),
        }
    }

    pub(super) fn url(&self) -> String {
        format!("check `url` of back-end `{}` (in ZenML's own configuration, the store's URL)", self.backend)
    }

    /// An error of a setting, with what to look at.
    pub(super) fn identity(&self, what: &str, hint: String) -> BackendError {
        BackendError::Identity { what: self.text(what), hint: Some(hint) }
    }

    /// The error for a file that need not even be opened.
    pub(super) fn file_fault(&self, fault: FileFault) -> BackendError {
        match fault {
            // Both may be about to appear: a volume not mounted yet, a ZenML that is just starting.
            FileFault::Missing => self.transient("does not exist", &self.url()),
            FileFault::Empty => self.transient("is empty: it holds no ZenML tables yet", &self.url()),
            FileFault::Directory => self.identity("is a directory, not a data base file", self.url()),
            FileFault::NotRegular => self.identity("is not a regular file", self.url()),
            FileFault::Unreadable => self.identity(
                "may not be read by this user",
                "give the agent's user read permission on the file and search permission on its directories".into(),
            ),
            FileFault::Other(errno) => {
                self.transient(&format!("cannot be looked at (errno {errno})"), "check the file system it lies on")
            }
        }
    }

    /// The error for a `secret` table that is absent, or not ZenML's.
    pub(super) fn no_table(&self, absent: bool) -> BackendError {
        let what = if absent { "holds no table `secret`" } else { "holds a table `secret` that is not ZenML's" };
        let rights = match &self.at {
            At::File(_) => "",
            // Tables without any right on them are not even listed.
            At::Server(_) => ", and that the user may select from its tables",
        };
        self.identity(what, format!("{}{rights}; tables of ZenML 0.35 and later are read", self.url()))
    }

    /// Classifies an error of sqlx.
    pub(super) fn failure(&self, doing: Doing, error: &sqlx::Error) -> BackendError {
        if let At::Server(_) = &self.at {
            return self.server_failure(error);
        }
        match code_of(error) {
            Some(code) => self.code(doing, code),
            None => match error {
                sqlx::Error::Io(_) | sqlx::Error::Configuration(_) => {
                    self.identity("is no path that SQLite can open", self.url())
                }
                _ => self.transient("could not be asked: the connection ended", "try again"),
            },
        }
    }

    /// Classifies one of SQLite's extended result codes.
    pub(super) fn code(&self, doing: Doing, code: i32) -> BackendError {
        const RECOVER: &str = "open it once with ZenML (`zenml secret list`), which recovers it";
        const WAL: &str = "give the agent write permission on its directory, or open it once with ZenML";
        match (code, code & 0xff) {
            (_, code::BUSY | code::LOCKED) => self.transient(
                "is locked by another program",
                "try again; if it stays locked, a ZenML migration or a stopped program holds it",
            ),
            (code::READONLY_ROLLBACK, _) => {
                self.transient("was left in the middle of a write (hot journal) and must be recovered first", RECOVER)
            }
            (
                code::READONLY_RECOVERY | code::READONLY_CANTLOCK | code::READONLY_CANTINIT | code::READONLY_DIRECTORY,
                _,
            ) if doing != Doing::Writing || code != code::READONLY_DIRECTORY => {
                self.transient("has a write-ahead log that cannot be opened", WAL)
            }
            (code::READONLY_DBMOVED, _) => self.transient("was moved or replaced", "try again"),
            (_, code::READONLY) if doing == Doing::Writing => self.identity(
                "may not be written by this user",
                "give the agent's user write permission on the file and its directory".into(),
            ),
            (code::CANTOPEN_ISDIR, _) => self.file_fault(FileFault::Directory),
            (_, code::CANTOPEN) => match inspect(self.path()) {
                Err(fault) => self.file_fault(fault),
                Ok(_) if self.beside("-journal").exists() => {
                    self.transient("was left in the middle of a write, and its journal cannot be read", RECOVER)
                }
                Ok(_) if doing == Doing::Writing => self.identity(
                    "cannot be opened for writing",
                    "give the agent's user write permission on the file and its directory".into(),
                ),
                Ok(_) => self.transient("has a write-ahead log that cannot be opened", WAL),
            },
            (_, code::NOTADB) => self.transient("is not an SQLite data base", &self.url()),
            (_, code::CORRUPT) => {
                self.transient("is damaged", "let ZenML finish writing it, or restore it from a copy")
            }
            (_, code::IOERR) => {
                self.transient(&format!("cannot be read or written (SQLite code {code})"), "check the disk it lies on")
            }
            (_, code::FULL) => self.transient("cannot grow: the disk is full", "make room on its disk"),
            (_, code::NOMEM) => self.transient("could not be read: out of memory", "give the agent more memory"),
            (_, code::PERM | code::AUTH) => {
                self.identity("may not be used", "check the rights of the agent's user".into())
            }
            (_, code::ERROR) => self.transient(
                "has tables that changed while they were read, or of a kind this version does not know",
                "try again when ZenML has migrated it; else look for a newer version of Keyside",
            ),
            (_, code::TOOBIG) => {
                BackendError::Unusable { what: self.text("holds a row that is too large"), hint: None }
            }
            _ => self.transient(&format!("could not be asked (SQLite code {code})"), "try again"),
        }
    }

    /// Classifies an error while changing the secret `name`.
    pub(super) fn write_failure(&self, name: &str, error: &sqlx::Error) -> WriteError {
        if let At::Server(_) = &self.at {
            return self.server_write_failure(name, error);
        }
        match code_of(error) {
            Some(code::CONSTRAINT_UNIQUE) => WriteError::Exists(format!("a secret `{name}` is there already")),
            // Webhooks refer to their secret by ON DELETE RESTRICT.
            Some(code::CONSTRAINT_FOREIGNKEY | code::CONSTRAINT_TRIGGER) => WriteError::Invalid {
                what: format!("secret `{name}` is in use by something else in ZenML"),
                hint: Some("remove what uses it first, with ZenML".into()),
            },
            Some(code) if code & 0xff == code::CONSTRAINT => WriteError::Invalid {
                what: format!("secret `{name}` was refused by the table's own rules (SQLite code {code})"),
                hint: Some("write it with ZenML".into()),
            },
            _ => WriteError::Backend(self.failure(Doing::Writing, error)),
        }
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut path = self.path().to_owned().into_os_string();
        path.push(suffix);
        path.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_result_code_has_its_class() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.db");
        fs::write(&path, "x").expect("a file");
        let place = Place::of_file("store", &path);
        let class = |error: &BackendError| match error {
            BackendError::Transient { .. } => "transient",
            BackendError::Identity { .. } | BackendError::Unlisted { .. } => "identity",
            BackendError::Unusable { .. } => "unusable",
            BackendError::NotFound | BackendError::Denied { .. } => "authoritative",
        };
        let check = |doing, code, expected: &str, words: &str| {
            let error = place.code(doing, code);
            assert_eq!(class(&error), expected, "{code}");
            assert!(error.to_string().contains(words), "{code}: {error}");
            assert!(error.to_string().contains("x.db") && error.to_string().contains("`store`"), "{error}");
        };
        use Doing::{Reading, Writing};
        check(Reading, 5, "transient", "locked");
        check(Reading, 6, "transient", "locked");
        check(Reading, 261, "transient", "locked");
        check(Reading, 517, "transient", "locked");
        check(Reading, 776, "transient", "hot journal");
        check(Reading, 264, "transient", "write-ahead log");
        check(Reading, 520, "transient", "write-ahead log");
        check(Reading, 1288, "transient", "write-ahead log");
        check(Reading, 14, "transient", "write-ahead log");
        check(Reading, 526, "identity", "directory");
        check(Reading, 1032, "transient", "moved");
        check(Reading, 26, "transient", "not an SQLite");
        check(Reading, 11, "transient", "damaged");
        check(Reading, 267, "transient", "damaged");
        check(Reading, 10, "transient", "cannot be read");
        check(Reading, 522, "transient", "SQLite code 522");
        check(Reading, 7, "transient", "out of memory");
        check(Reading, 13, "transient", "disk is full");
        check(Reading, 1, "transient", "does not know");
        check(Reading, 3, "identity", "may not be used");
        check(Reading, 23, "identity", "may not be used");
        check(Reading, 18, "unusable", "too large");
        check(Reading, 9, "transient", "SQLite code 9");
        check(Reading, 8, "transient", "SQLite code 8");
        check(Writing, 8, "identity", "may not be written");
        check(Writing, 1544, "identity", "may not be written");
        check(Writing, 14, "identity", "for writing");
        check(Writing, 5, "transient", "locked");
        fs::write(folder.path().join("x.db-journal"), "").expect("a file");
        check(Reading, 14, "transient", "journal");
    }
}
