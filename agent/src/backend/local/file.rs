//! Reads the file whole, and says "no secrets" only when that is certain.
//!
//! ZenML empties the file and then writes it. So a file that was touched a moment ago is left to settle, one that changes
//! while it is read is read again, and no file at all counts as an absence only in a directory that is there, is the one
//! that held it, and has settled as well.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::super::BackendError;
use super::Store;
use super::error::Doing;

/// Largest file that is read: 16,000 times what ZenML's own store allows for a secret would still not be a use for it.
pub(super) const MAX_FILE_BYTES: u64 = 16 << 20;

/// How long a file must have been left alone to count as written to its end. ZenML writes in one go, within a
/// millisecond.
const SETTLE: Duration = Duration::from_millis(50);

/// How often somebody may be writing when we look.
const ATTEMPTS: usize = 40;

/// How often a directory that is never quiet is looked at before a file that is not in it counts as absent.
const ABSENCE_ATTEMPTS: usize = 4;

/// What tells two states of a file apart without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// What is remembered from call to call: nothing of what is in the file.
#[derive(Default)]
pub(super) struct Memory(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    /// The file system of the base directory when the file was last there.
    device: Option<u64>,
    /// What we wrote ourselves needs no time to settle: it appeared whole.
    own: Option<Stamp>,
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wrote(&self, stamp: Stamp) {
        self.lock().own = Some(stamp);
    }
}

/// The text of the file, wiped when dropped.
pub(super) struct FileText {
    bytes: Zeroizing<Vec<u8>>,
    /// The file that it was read from.
    pub(super) metadata: Metadata,
}

impl FileText {
    /// Returns the bytes. Each call states where they go.
    pub(super) fn expose(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn stamp(&self) -> Stamp {
        Stamp::of(&self.metadata)
    }
}

/// What one look gave.
enum Look {
    Whole(FileText),
    Absent,
    /// Look again after this.
    Again(Duration),
}

impl Store {
    /// Reads the file; `None` when there definitely is none.
    pub(super) fn read_text(&self) -> Result<Option<FileText>, BackendError> {
        for attempt in 0..ATTEMPTS {
            match self.look(attempt)? {
                Look::Whole(text) => return Ok(Some(text)),
                Look::Absent => return Ok(None),
                Look::Again(pause) => sleep(pause),
            }
        }
        Err(self.place.being_written())
    }

    fn look(&self, attempt: usize) -> Result<Look, BackendError> {
        // Not to wait for the other end of a FIFO, nor to take a terminal.
        let flags = (OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC).bits();
        let opened = OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(&self.place.path);
        let mut file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return self.look_for_absence(attempt),
            Err(error) => return Err(self.place.failure(Doing::Reading, &error)),
        };
        let failure = |error: io::Error| self.place.failure(Doing::Reading, &error);
        let metadata = file.metadata().map_err(failure)?;
        if !metadata.is_file() {
            return Err(self.place.not_regular(metadata.is_dir()));
        }
        if metadata.size() > MAX_FILE_BYTES {
            return Err(self.place.too_large());
        }
        let stamp = Stamp::of(&metadata);
        if self.memory.lock().own != Some(stamp)
            && let Some(pause) = unsettled(&metadata)
        {
            return Ok(Look::Again(pause));
        }
        let bytes = read_bytes(&mut file, metadata.size()).map_err(failure)?;
        let after = file.metadata().map_err(failure)?;
        if Stamp::of(&after) != stamp || bytes.len() as u64 != metadata.size() {
            return Ok(Look::Again(SETTLE));
        }
        // A base that cannot be looked at is not what this call is about.
        self.memory.lock().device = fs::metadata(&self.place.base).ok().map(|base| base.dev());
        Ok(Look::Whole(FileText { bytes, metadata }))
    }

    /// The file is not there: is that the whole truth?
    fn look_for_absence(&self, attempt: usize) -> Result<Look, BackendError> {
        if fs::symlink_metadata(&self.place.path).is_ok() {
            // It may have come this moment; a link to nothing stays.
            return if attempt == 0 { Ok(Look::Again(SETTLE)) } else { Err(self.place.dangling()) };
        }
        let base = fs::metadata(&self.place.base).map_err(|error| self.place.failure(Doing::Reading, &error))?;
        if !base.is_dir() {
            return Err(self.place.no_directory());
        }
        if self.memory.lock().device.is_some_and(|device| device != base.dev()) {
            return Err(self.place.other_file_system());
        }
        // Editors move a file away before they write the new one.
        let directory = self.place.path.parent().and_then(|directory| fs::metadata(directory).ok());
        match directory.as_ref().and_then(unsettled) {
            Some(pause) if attempt < ABSENCE_ATTEMPTS => Ok(Look::Again(pause)),
            _ => Ok(Look::Absent),
        }
    }
}

/// Returns how long to wait until something has been left alone for long enough. A clock that disagrees with ours, as of
/// a file server, says nothing.
fn unsettled(metadata: &Metadata) -> Option<Duration> {
    let modified = metadata.modified().ok()?;
    let age = match SystemTime::now().duration_since(modified) {
        Ok(age) => age,
        Err(error) if error.duration() < SETTLE => Duration::ZERO,
        Err(_) => return None,
    };
    SETTLE.checked_sub(age).filter(|pause| !pause.is_zero())
}

/// Reads at most one byte more than `size` into a buffer that never grows, and so leaves no copy behind.
fn read_bytes(file: &mut File, size: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    let size = usize::try_from(size).unwrap_or(usize::MAX).saturating_add(1);
    let mut bytes = Zeroizing::new(vec![0; size]);
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// Returns the state of the file at `path`, whatever is there.
pub(super) fn stamp_at(path: &Path) -> io::Result<Stamp> {
    fs::metadata(path).map(|metadata| Stamp::of(&metadata))
}
