//! The step's files: where they are, what they are called, and how well they are kept.
//!
//! # Layout
//!
//! * `name`: what a file may be called.
//! * `place`: what was asked for, and whom the files are to belong to.
//! * `choose`: which kind it becomes; asking for `auto` means `private` where that can be had, else `dir`.
//! * `private`, `directory`, `memfd`: one file for each kind. `private` and `memfd` die with their last user by
//!   themselves; a `directory` needs the cleaner.
//! * `reach`: whether the step's user can come as far as its files.
//! * `sweep`: what dead steps left in a directory's base.
//! * `tree`: writing files below a directory of ours.
//! * `strength`: what is told about each kind.

mod choose;
mod directory;
mod memfd;
mod name;
mod place;
mod private;
mod reach;
mod strength;
mod sweep;
mod tree;

use std::path::{Path, PathBuf};

use keyside_protocol::value::SecretValue;

pub(crate) use choose::{foresee, make};
pub(crate) use directory::Directory;
pub(crate) use name::{FileName, check_together};
pub(crate) use place::{Kind, Owner, Place};
pub(crate) use strength::Verdict;
pub use sweep::left_behind;
pub(crate) use tree::empty;

use crate::report::Complaint;

/// The place of one step's files, made and still without a value.
pub(crate) enum Files {
    /// A file system of the step's own.
    Private(private::Private),
    /// A directory, with its cleaner.
    Directory(Directory),
    /// One sealed descriptor a file.
    Memfds(memfd::Memfds),
}

impl Files {
    /// Returns the directory's path, what `KEYSIDE_FILES` is to say; none where there is no directory.
    pub(crate) fn directory(&self) -> Option<&Path> {
        match self {
            Self::Private(private) => Some(private.path()),
            Self::Directory(directory) => Some(directory.path()),
            Self::Memfds(_) => None,
        }
    }

    /// Returns the path of a file, as the step is to open it.
    pub(crate) fn path_of(&self, name: &FileName) -> PathBuf {
        match self {
            Self::Private(private) => private.path().join(name.as_str()),
            Self::Directory(directory) => directory.path().join(name.as_str()),
            Self::Memfds(memfds) => memfds.path_of(name),
        }
    }

    /// Writes one file, mode 0400. No file is written twice.
    pub(crate) fn write(&self, name: &FileName, content: &SecretValue) -> Result<(), Complaint> {
        match self {
            Self::Private(private) => private.write(name, content),
            Self::Directory(directory) => directory.write(name, content),
            Self::Memfds(memfds) => memfds.write(name, content),
        }
    }
}
