//! Notices changes of the file: inotify on its directories, which outlive it, and a look at it now and then for file
//! systems that tell inotify nothing.
//!
//! An event only leads to a look: what counts is whether the file at the path is another, so traffic of others in the
//! directory costs one `stat` for each pause, and a change of links on the way to the file is noticed like any other.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Config, EventKind, INotifyWatcher, RecursiveMode, Watcher as _};
use rustix::io::Errno;
use tokio::sync::watch;

use super::error::Place;
use crate::file_state::FileState;

/// Between two looks when no event says anything.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// How long the file must stay as it is before a change is told: ZenML empties it first.
const QUIET: Duration = Duration::from_millis(15);

/// How often [`QUIET`] may be broken; then the change is told in the middle of it, and again afterwards.
const MOST_UNQUIET: usize = 20;

/// Looks out for changes until dropped.
pub(super) struct Watch {
    changes: watch::Receiver<u64>,
    stopped: Arc<AtomicBool>,
    wake: SyncSender<()>,
}

/// What is at the path; an error has its number, 0 for none.
type Sight = Result<FileState, i32>;

impl Watch {
    /// Starts the thread. Errors: none can be had.
    pub(super) fn start(place: Place) -> std::io::Result<Self> {
        let (sender, changes) = watch::channel(0);
        // One event waiting says as much as a thousand.
        let (wake, woken) = sync_channel(1);
        let stopped = Arc::new(AtomicBool::new(false));
        let events = wake.clone();
        let first = sight(&place.path);
        let lookout = Lookout {
            place,
            stopped: Arc::clone(&stopped),
            woken,
            events,
            watcher: None,
            watched: BTreeMap::new(),
            said: false,
            sender,
        };
        std::thread::Builder::new().name("local-watch".to_owned()).spawn(move || lookout.run(first))?;
        Ok(Self { changes, stopped, wake })
    }

    /// The number of changes noticed.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        // Full means that it is awake already, and looks for this before it sleeps again.
        let _ = self.wake.try_send(());
    }
}

struct Lookout {
    place: Place,
    stopped: Arc<AtomicBool>,
    woken: Receiver<()>,
    events: SyncSender<()>,
    watcher: Option<INotifyWatcher>,
    /// The directories under watch, each by device and inode.
    watched: BTreeMap<PathBuf, (u64, u64)>,
    /// Whether the log knows already that there is no inotify.
    said: bool,
    sender: watch::Sender<u64>,
}

impl Lookout {
    fn run(mut self, first: Sight) {
        let mut known = first;
        self.watch_directories();
        while !self.stopped.load(Ordering::Acquire) {
            let now = sight(&self.place.path);
            if now != known {
                known = self.settled(now);
                self.sender.send_modify(|count| *count += 1);
                // The way to the file may be another now.
                self.watch_directories();
                continue;
            }
            match self.woken.recv_timeout(LOOK_INTERVAL) {
                // Events come in swarms: one look for all of them.
                Ok(()) => std::thread::sleep(QUIET),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => self.watch_directories(),
            }
        }
    }

    /// Waits until two looks in a row see the same.
    fn settled(&self, mut seen: Sight) -> Sight {
        for _ in 0..MOST_UNQUIET {
            std::thread::sleep(QUIET);
            let now = sight(&self.place.path);
            if now == seen {
                break;
            }
            seen = now;
        }
        seen
    }

    /// Puts the directories on the way to the file under watch, as they are now: its own, and where a symbolic link leads
    /// elsewhere, that one too.
    fn watch_directories(&mut self) {
        let mut wanted: Vec<PathBuf> = self.place.path.parent().map(Path::to_owned).into_iter().collect();
        if let Ok(target) = fs::canonicalize(&self.place.path)
            && let Some(directory) = target.parent()
            && wanted.iter().all(|known| fs::canonicalize(known).is_ok_and(|known| known != directory))
        {
            wanted.push(directory.to_owned());
        }
        let present: BTreeMap<PathBuf, (u64, u64)> = wanted
            .iter()
            .filter_map(|path| fs::metadata(path).ok().map(|found| (path.clone(), (found.dev(), found.ino()))))
            .collect();
        if present.len() < wanted.len() {
            self.say("there is no such directory yet");
        }
        let watched = std::mem::take(&mut self.watched);
        for (path, id) in watched {
            if present.get(&path) == Some(&id) {
                self.watched.insert(path, id);
            } else if let Some(watcher) = &mut self.watcher {
                // A directory that is gone has taken its watch along.
                let _ = watcher.unwatch(&path);
            }
        }
        for (path, id) in present {
            if !self.watched.contains_key(&path) {
                match self.watch_directory(&path) {
                    Ok(()) => {
                        self.watched.insert(path, id);
                    }
                    Err(error) => self.say(reason(&error)),
                }
            }
        }
    }

    fn watch_directory(&mut self, path: &Path) -> notify::Result<()> {
        if self.watcher.is_none() {
            let events = self.events.clone();
            let tell = move |event: notify::Result<notify::Event>| {
                if event.is_ok_and(|event| is_no_change(&event.kind)) {
                    return;
                }
                match events.try_send(()) {
                    // Nobody is there any more, or will look anyway.
                    Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
                }
            };
            self.watcher = Some(INotifyWatcher::new(tell, Config::default())?);
        }
        match &mut self.watcher {
            Some(watcher) => watcher.watch(path, RecursiveMode::NonRecursive),
            None => Ok(()),
        }
    }

    /// Says once that changes are noticed later than they could be.
    fn say(&mut self, reason: &str) {
        if !std::mem::replace(&mut self.said, true) {
            let (backend, path) = (&self.place.backend, self.place.path.display());
            tracing::info!(
                backend,
                %path,
                reason,
                "cannot be told of changes of this file; it is looked at every 2 seconds instead"
            );
        }
    }
}

/// Our own reading is not worth a look.
fn is_no_change(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if *access != AccessKind::Close(AccessMode::Write))
}

fn reason(error: &notify::Error) -> &'static str {
    match &error.kind {
        notify::ErrorKind::MaxFilesWatch => "the limit of inotify is reached (fs.inotify.max_user_watches)",
        notify::ErrorKind::Io(error) if Errno::from_io_error(error) == Some(Errno::MFILE) => {
            "the limit of inotify is reached (fs.inotify.max_user_instances)"
        }
        _ => "its directory cannot be watched",
    }
}

fn sight(path: &Path) -> Sight {
    FileState::at(path).map_err(|error| error.raw_os_error().unwrap_or(0))
}
