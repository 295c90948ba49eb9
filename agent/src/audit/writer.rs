//! The log's file and the thread that writes it. A line that cannot be written is kept and tried again, so a log that
//! can be written again is noticed without another request; what does not fit in the queue is counted, and the log says
//! where lines are missing.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::timestamp;

/// Lines that may wait for the disk.
const MOST_LINES: usize = 4096;

/// Bytes that may wait; one line is taken however long it is, since the bounds on requests hold for it.
const MOST_BYTES: usize = 8 << 20;

/// Between two tries to write a line that could not be written.
const RETRY: Duration = Duration::from_millis(250);

/// The file of the log, open for appending.
pub struct Log {
    path: PathBuf,
    file: File,
    /// How many bytes of the line under way are in the file already.
    written: usize,
    /// The file ends in the middle of somebody's line.
    ends_torn: bool,
}

impl Log {
    /// Opens `path`, made with mode 0600 where it is missing. A link in its place is refused.
    ///
    /// Errors: the kernel's own.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        // Not blocking: a FIFO without a reader would stop the writer, and with it the agent's end.
        let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NOCTTY | libc::O_NONBLOCK;
        options.append(true).create(true).mode(0o600).custom_flags(flags);
        // Reading is for mending the end of a line; a log that may only be written to is a log all the same.
        let mut file = match options.clone().read(true).open(path) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => options.open(path)?,
            opened => opened?,
        };
        let ends_torn = file.metadata()?.is_file() && ends_within_a_line(&mut file);
        Ok(Self { path: path.to_owned(), file, written: 0, ends_torn })
    }

    /// Appends `line`, which ends in a line break. After an error the same line is to be tried again, here or on another
    /// log: each log holds whole lines only.
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if self.file.metadata()?.nlink() == 0 {
            // Removed: what is written to it nobody will ever read.
            *self = Self::open(&self.path)?;
        }
        if self.ends_torn {
            self.file.write_all(b"\n")?;
            self.ends_torn = false;
        }
        while self.written < line.len() {
            match self.file.write(&line[self.written..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.take_back(line);
                    return Err(error);
                }
            }
        }
        self.written = 0;
        Ok(())
    }

    /// Cuts off the begun line, unless the file no longer ends with it; then the next try goes on where this one ended.
    fn take_back(&mut self, line: &[u8]) {
        if self.written > 0 && self.cut(&line[..self.written]).unwrap_or(false) {
            self.written = 0;
        }
    }

    fn cut(&self, begun: &[u8]) -> io::Result<bool> {
        let found = self.file.metadata()?;
        let Some(start) = found.len().checked_sub(begun.len() as u64).filter(|_| found.is_file()) else {
            return Ok(false);
        };
        let mut tail = vec![0; begun.len()];
        self.file.read_exact_at(&mut tail, start)?;
        if tail != begun {
            return Ok(false);
        }
        self.file.set_len(start)?;
        Ok(true)
    }
}

/// Tells whether the last line lacks its end: whoever wrote it was cut off.
fn ends_within_a_line(file: &mut File) -> bool {
    let mut last = [b'\n'];
    // An empty file has no last byte, and one that cannot be read is taken for whole.
    let _ = file.seek(SeekFrom::End(-1)).and_then(|_| file.read_exact(&mut last));
    last != [b'\n']
}

/// The lines that wait, and how the writing goes.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    failing: AtomicBool,
    written: AtomicU64,
    lost: AtomicU64,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// What has no line of its own since the last that has.
    missing: Missing,
    /// What to write to from now on.
    replacement: Option<Log>,
    closed: bool,
}

/// Decisions that share one line.
#[derive(Default)]
struct Missing {
    /// Those that found no room.
    lost: u64,
    /// Requests that were refused because the log cannot be written: a line for each, from a client that tries again
    /// and again, would fill the disk as soon as it has room.
    refused: u64,
}

impl State {
    fn push(&mut self, line: Vec<u8>) {
        self.bytes += line.len();
        self.lines.push_back(line);
    }

    /// Returns the next line in order; where lines are missing, one that says so.
    fn next(&mut self) -> Option<Vec<u8>> {
        if let Some(line) = self.lines.pop_front() {
            self.bytes -= line.len();
            return Some(line);
        }
        self.gap()
    }

    /// Returns the line in the place of those that are missing, if any are.
    fn gap(&mut self) -> Option<Vec<u8>> {
        let Missing { lost, refused } = std::mem::take(&mut self.missing);
        let time = timestamp(SystemTime::now());
        let line = || {
            format!(
                "{{\"time\":\"{time}\",\"operation\":\"audit\",\"verdict\":\"error\",\"code\":\"audit_unavailable\",\
                 \"lost\":{lost},\"refused\":{refused}}}\n"
            )
        };
        (lost + refused > 0).then(|| line().into_bytes())
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a line in; false when there is no room for it.
    pub(super) fn push(&self, line: Vec<u8>) -> bool {
        let mut state = self.lock();
        let room = state.lines.len() < MOST_LINES && (state.lines.is_empty() || state.bytes + line.len() <= MOST_BYTES);
        if !room || state.closed {
            state.missing.lost += 1;
            drop(state);
            self.failing.store(true, Ordering::Relaxed);
            let lost = self.lost.fetch_add(1, Ordering::Relaxed) + 1;
            if lost.is_power_of_two() {
                tracing::error!(lost, "audit lines lost: the log cannot be written fast enough");
            }
            return false;
        }
        if let Some(gap) = state.gap() {
            state.push(gap);
        }
        state.push(line);
        drop(state);
        self.changed.notify_one();
        true
    }

    /// Counts a request that was refused because the log cannot be written.
    pub(super) fn refused(&self) {
        self.lock().missing.refused += 1;
    }

    /// Has the writer go on with `log`, beginning with the line that it has in hand.
    pub(super) fn replace(&self, log: Log) {
        self.lock().replacement = Some(log);
        self.changed.notify_one();
    }

    /// Has the writer write what waits, and end.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// Tells whether the last try to write failed, or a line found no room since.
    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Returns the lines written.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Returns the lines lost.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Writes lines until [`close`](Self::close), to the log that [`replace`](Self::replace) gives. The writer's own
    /// thread runs this.
    pub(super) fn write(&self) {
        let mut log: Option<Log> = None;
        let mut in_hand: Option<Vec<u8>> = None;
        let mut retry_at: Option<Instant> = None;
        loop {
            let mut state = self.lock();
            let closed = loop {
                if let Some(replacement) = state.replacement.take() {
                    log = Some(replacement);
                    retry_at = None;
                }
                if log.is_some() && in_hand.is_none() {
                    in_hand = state.next();
                }
                let wait = match (&in_hand, retry_at) {
                    (None, _) if state.closed => return,
                    (None, _) => None,
                    (Some(_), Some(at)) if !state.closed => Some(at.saturating_duration_since(Instant::now())),
                    (Some(_), _) => break state.closed,
                };
                state = match wait {
                    None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                    Some(Duration::ZERO) => break false,
                    Some(wait) => self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0,
                };
            };
            drop(state);
            let (Some(line), Some(log)) = (&in_hand, &mut log) else { continue };
            match log.append(line) {
                Ok(()) => {
                    in_hand = None;
                    retry_at = None;
                    self.written.fetch_add(1, Ordering::Relaxed);
                    if self.failing.swap(false, Ordering::Relaxed) {
                        tracing::warn!(path = %log.path.display(), "the audit log can be written again");
                    }
                }
                Err(error) => {
                    if !self.failing.swap(true, Ordering::Relaxed) {
                        tracing::error!(path = %log.path.display(), %error, "the audit log cannot be written");
                    }
                    if closed {
                        let state = self.lock();
                        let lost = state.lines.len() as u64 + state.missing.lost + 1;
                        tracing::error!(path = %log.path.display(), lost, %error, "audit lines lost at the end");
                        return;
                    }
                    retry_at = Some(Instant::now() + RETRY);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &Path) -> String {
        std::fs::read_to_string(path).expect("readable")
    }

    #[test]
    fn a_line_that_was_begun_is_taken_back_or_gone_on_with() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        let mut log = Log::open(&path).expect("writable");
        log.append(b"first\n").expect("room");
        log.file.write_all(b"sec").expect("room");
        log.written = 3;
        log.take_back(b"second\n");
        assert_eq!((log.written, text(&path).as_str()), (0, "first\n"));
        // Somebody else wrote behind us: what is there is left alone.
        log.file.write_all(b"secother\n").expect("room");
        log.written = 3;
        log.take_back(b"second\n");
        assert_eq!((log.written, text(&path).as_str()), (3, "first\nsecother\n"));
    }

    #[test]
    fn a_line_that_somebody_left_torn_is_ended_before_ours() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        std::fs::write(&path, "{\"torn\":").expect("writable");
        Log::open(&path).expect("writable").append(b"ours\n").expect("room");
        assert_eq!(text(&path), "{\"torn\":\nours\n");
    }

    #[test]
    fn a_log_that_was_removed_is_made_again_once_its_directory_is_there() {
        let directory = tempfile::tempdir().expect("a directory");
        let folder = directory.path().join("logs");
        std::fs::create_dir(&folder).expect("writable");
        let path = folder.join("log");
        let mut log = Log::open(&path).expect("writable");
        log.append(b"first\n").expect("room");
        std::fs::remove_dir_all(&folder).expect("ours");
        assert_eq!(log.append(b"second\n").expect_err("no directory").kind(), ErrorKind::NotFound);
        std::fs::create_dir(&folder).expect("writable");
        log.append(b"second\n").expect("there again");
        assert_eq!(text(&path), "second\n");
    }

    #[test]
    fn what_finds_no_room_is_counted_and_the_log_says_where_it_is_missing() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        let queue = Queue::default();
        for number in 0..MOST_LINES {
            assert!(queue.push(format!("{number}\n").into_bytes()));
        }
        assert!(!queue.push(b"lost\n".to_vec()) && !queue.push(b"lost too\n".to_vec()));
        queue.refused();
        assert!(queue.is_failing());
        queue.close();
        queue.replace(Log::open(&path).expect("writable"));
        queue.write();
        assert!(!queue.is_failing());
        let text = text(&path);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!((lines.len(), lines[0], lines[MOST_LINES - 1]), (MOST_LINES + 1, "0", "4095"));
        let gap: serde_json::Value = serde_json::from_str(lines[MOST_LINES]).expect("JSON");
        assert_eq!((&gap["lost"], &gap["refused"], &gap["verdict"]), (&2.into(), &1.into(), &"error".into()));
        assert_eq!((queue.written(), queue.lost()), (MOST_LINES as u64 + 1, 2));
    }

    #[test]
    fn the_queue_is_bounded_in_bytes_too() {
        let queue = Queue::default();
        assert!(queue.push(vec![b'x'; MOST_BYTES + 1]), "one line is taken whatever its length");
        assert!(!queue.push(b"x\n".to_vec()));
    }
}
