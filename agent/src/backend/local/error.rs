//! What is wrong with the file, from the kernel's error numbers and the parser's kinds; never from a message.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

use super::super::BackendError;
use super::file::MAX_FILE_BYTES;
use crate::layout::local::ReadError;

/// Where the file is, for messages.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) backend: String,
    pub(super) path: PathBuf,
    /// The directory that must be there for a missing file to be an absence.
    pub(super) base: PathBuf,
}

/// What failed with the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    Reading,
    Writing,
}

impl Place {
    fn text(&self, what: &str) -> String {
        format!("back-end `{}`: `{}` {what}", self.backend, self.path.display())
    }

    pub(super) fn transient(&self, what: &str, hint: &str) -> BackendError {
        BackendError::Transient { what: self.text(what), hint: Some(hint.into()) }
    }

    pub(super) fn identity(&self, what: &str, hint: impl Into<String>) -> BackendError {
        BackendError::Identity { what: self.text(what), hint: Some(hint.into()) }
    }

    fn setting(&self) -> String {
        format!("check `path` of back-end `{}`: it must name the secrets manager's YAML file", self.backend)
    }

    pub(super) fn being_written(&self) -> BackendError {
        self.transient("is being written all the time", "try again")
    }

    pub(super) fn not_regular(&self, is_directory: bool) -> BackendError {
        self.identity(if is_directory { "is a directory, not a file" } else { "is not a regular file" }, self.setting())
    }

    pub(super) fn too_large(&self) -> BackendError {
        let what = format!("is larger than {} MiB", MAX_FILE_BYTES >> 20);
        self.transient(&what, "remove from it what is no secret; keep files in an artifact store")
    }

    pub(super) fn not_text(&self) -> BackendError {
        self.transient("is not UTF-8 text", "let ZenML finish writing it, or restore it from a copy")
    }

    pub(super) fn dangling(&self) -> BackendError {
        self.transient("is a symbolic link to nothing", "make the file that it leads to, or remove the link")
    }

    pub(super) fn no_directory(&self) -> BackendError {
        let what = format!("cannot be looked for: there is no directory `{}`", self.base.display());
        self.transient(&what, "mount or make the directory; a missing file in it would mean that there are no secrets")
    }

    pub(super) fn other_file_system(&self) -> BackendError {
        let what = "has vanished together with the file system that it was on";
        self.transient(what, "mount it again; if the secrets are meant to be gone, restart the agent")
    }

    /// The file's text is not what the layout promises.
    pub(super) fn unreadable(&self, error: ReadError) -> BackendError {
        let hint = match error {
            ReadError::Empty => "let ZenML finish writing it; a file without secrets holds `{}`",
            ReadError::CutOff => "let ZenML finish writing it; a whole file ends with a line break",
            ReadError::TooMany => "remove from it what is no secret",
            ReadError::NotYaml(_) | ReadError::NotAMap | ReadError::SeveralDocuments => {
                "let ZenML finish writing it, or restore it from a copy"
            }
        };
        self.transient(&error.to_string(), hint)
    }

    /// Classifies an error of the kernel.
    pub(super) fn failure(&self, doing: Doing, error: &io::Error) -> BackendError {
        let verb = match doing {
            Doing::Reading => "read",
            Doing::Writing => "written",
        };
        let errno = Errno::from_io_error(error);
        match errno {
            Some(Errno::ACCESS | Errno::PERM) if doing == Doing::Reading => self.identity(
                "may not be read by this user",
                "give the agent's user read permission on the file and search permission on its directories",
            ),
            Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => self.identity(
                "may not be written by this user",
                "give the agent's user write permission on the file's directory, which gets a new file in its place",
            ),
            Some(Errno::LOOP) => self.identity("leads in a circle of symbolic links", self.setting()),
            Some(Errno::NOTDIR | Errno::NAMETOOLONG) => self.identity("is no path to a file", self.setting()),
            Some(Errno::ISDIR) => self.not_regular(true),
            Some(Errno::BUSY) => self.identity(
                "cannot be replaced: it is a mount point of its own",
                "mount its directory instead of the file",
            ),
            Some(Errno::NOSPC | Errno::DQUOT) => {
                self.transient("cannot be written: the disk is full", "make room on its disk")
            }
            Some(Errno::NOENT) => self.no_directory(),
            Some(errno) => {
                let what = format!("cannot be {verb} (errno {})", errno.raw_os_error());
                self.transient(&what, "check the file system it lies on")
            }
            None => self.transient(&format!("cannot be {verb}"), "check the file system it lies on"),
        }
    }
}
