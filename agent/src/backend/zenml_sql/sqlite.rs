//! Connections to the file: opened for reading only, never holding a lock between two statements.

use std::sync::Mutex;
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection as _, Row as _, SqliteConnection};

use super::super::BackendError;
use super::error::{Doing, FileFault, FileId, Place, inspect};

/// Rows that one page of a whole table has. Few enough that its SHARED lock is a matter of milliseconds even where each
/// row drags 64 KiB of values behind it (5 ms here, before 0.80, where the values stand first in a row).
pub(super) const PAGE_ROWS: i64 = 100;

/// Names asked for in one statement, where they have an index.
pub(super) const NAMES_PER_STATEMENT: usize = 500;

/// Readers kept open; more calls at the same time open more and close them again.
const MOST_IDLE: usize = 4;

/// Longest wait for another program's lock.
const MOST_BUSY: Duration = Duration::from_secs(5);

/// Gives out connections to one file.
pub(super) struct Connections {
    place: Place,
    busy: Duration,
    most_idle: usize,
    /// `None` once closed.
    idle: Mutex<Option<Vec<Reader>>>,
}

/// A connection that reads. Dropping it ends it, also in the middle of a statement.
pub(super) struct Reader {
    pub(super) connection: SqliteConnection,
    pub(super) file: FileId,
}

impl Connections {
    /// `timeout` is the deadline of one call, `parallelism` how many may run at once.
    pub(super) fn new(place: Place, timeout: Duration, parallelism: usize) -> Self {
        Self {
            place,
            // Half of the deadline, so that "locked" is said before the deadline says only "slow".
            busy: (timeout / 2).min(MOST_BUSY),
            most_idle: parallelism.clamp(1, MOST_IDLE),
            idle: Mutex::new(Some(Vec::new())),
        }
    }

    /// Returns a connection that reads the file that is at the path now.
    pub(super) async fn reader(&self) -> Result<Reader, BackendError> {
        let file = self.inspect().await?.map_err(|fault| self.place.file_fault(fault))?;
        let kept = {
            let mut idle = self.idle();
            let idle = idle.as_mut().ok_or_else(closed)?;
            // A replaced file has another inode; readers of the old one are dropped here.
            idle.retain(|reader| reader.file == file);
            idle.pop()
        };
        if let Some(reader) = kept {
            return Ok(reader);
        }
        // Never `immutable`: it would read past locks, journals and changes. No page outlives its statement: it may hold
        // values that the cache has long forgotten, and the kernel has the file in memory anyway.
        let options = self.options().read_only(true).pragma("cache_size", "0");
        let connection = options.connect().await.map_err(|error| self.place.failure(Doing::Reading, &error))?;
        Ok(Reader { connection, file })
    }

    /// Takes a reader back after its last statement has ended well.
    pub(super) async fn keep(&self, mut reader: Reader) {
        // In WAL mode a connection keeps a SHARED lock for as long as it is open, which a change of the journal mode
        // and the last writer's clean-up would run into. The mode is in memory by now: this reads no file.
        let mode = sqlx::query("PRAGMA journal_mode").fetch_all(&mut reader.connection).await;
        let holds_no_lock = mode.is_ok_and(|rows| {
            rows.iter().all(|row| row.try_get_unchecked::<&str, _>(0).is_ok_and(|mode| mode != "wal"))
        });
        if holds_no_lock
            && let Some(idle) = self.idle().as_mut()
            && idle.len() < self.most_idle
        {
            idle.push(reader);
            return;
        }
        // An error in closing changes nothing for what was read.
        let _ = reader.connection.close().await;
    }

    /// Returns a connection that writes, for one transaction.
    pub(super) async fn writer(&self) -> Result<SqliteConnection, BackendError> {
        self.inspect().await?.map_err(|fault| self.place.file_fault(fault))?;
        if self.idle().is_none() {
            return Err(closed());
        }
        // Deleted values are overwritten in the file; foreign keys cascade as ZenML has them.
        let options = self.options().foreign_keys(true).pragma("secure_delete", "ON");
        options.connect().await.map_err(|error| self.place.failure(Doing::Writing, &error))
    }

    /// Ends all kept readers; no further connection is given out.
    pub(super) async fn close(&self) {
        let idle = self.idle().take();
        for reader in idle.into_iter().flatten() {
            let _ = reader.connection.close().await;
        }
    }

    fn options(&self) -> SqliteConnectOptions {
        SqliteConnectOptions::new()
            // What SQLite sorts or keeps aside would else go to a file in /tmp.
            .pragma("temp_store", "MEMORY")
            .filename(self.place.path())
            .create_if_missing(false)
            .busy_timeout(self.busy)
            // All rows of a statement fit (two for a name), so that a busy runtime keeps no statement, and no lock,
            // waiting.
            .row_buffer_size(2 * NAMES_PER_STATEMENT + 8)
            // The file is data: no function with effects may run from its views and triggers.
            .pragma("trusted_schema", "OFF")
            .disable_statement_logging()
    }

    /// Looks at the file on another thread: a hanging network file system must not stop ours.
    async fn inspect(&self) -> Result<Result<FileId, FileFault>, BackendError> {
        let path = self.place.path().to_owned();
        tokio::task::spawn_blocking(move || inspect(&path)).await.map_err(|_| closed())
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Option<Vec<Reader>>> {
        self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn closed() -> BackendError {
    BackendError::Transient { what: "the back-end is closed: the agent is stopping".into(), hint: None }
}
