//! What tells two states of a file apart without reading it.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// How a file is: which one, how long, and when it was last changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileState {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds of the content's last change, then of the inode's.
    changed: [i64; 4],
}

impl FileState {
    /// Looks at what is at `path`, through links: what counts is the file that would be read.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        let found = std::fs::metadata(path)?;
        Ok(Self {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            changed: [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()],
        })
    }
}
