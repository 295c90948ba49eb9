//! What was asked for: `--files`, `--files-dir`, `--insecure-files`, and whom the files are to belong to.

use std::path::PathBuf;

use crate::args::closest;
use crate::report::Complaint;

/// `--files`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `private` where it can be had, else `dir`.
    #[default]
    Auto,
    /// A tmpfs in a mount namespace of the step's own.
    Private,
    /// A directory on memory.
    Dir,
    /// One sealed memfd a file.
    Memfd,
}

impl Kind {
    /// Reads the word of `--files`.
    pub(crate) fn parse(word: &str) -> Result<Self, Complaint> {
        match word {
            "auto" => Ok(Self::Auto),
            "private" => Ok(Self::Private),
            "dir" => Ok(Self::Dir),
            "memfd" => Ok(Self::Memfd),
            other => {
                let near = closest(other, &["auto", "private", "dir", "memfd"]);
                let hint =
                    near.map_or_else(|| "auto is the default".to_owned(), |near| format!("did you mean {near}?"));
                Err(Complaint::new("--files is not auto, private, dir or memfd", hint))
            }
        }
    }
}

/// Where the files are to be.
#[derive(Debug, Default)]
pub(crate) struct Place {
    /// `--files`.
    pub(crate) kind: Kind,
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
