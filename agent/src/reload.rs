//! The configuration, live: read again when a file of it changes and at SIGHUP. One that is broken, or that cannot be
//! put in force, leaves everything as it was, and the log says so.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use keyside_config::{ConfigError, Settings};
use tokio::sync::mpsc::UnboundedSender;

use crate::file_state::FileState;

/// How often the files are looked at. By their state, not by inotify: a Kubernetes ConfigMap changes by a link two
/// directories up, and a network's file system tells nobody.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// For how long a file must have stayed the same before it is read: an editor may be half-way through it.
const SETTLING: Duration = Duration::from_millis(100);

/// Reads the whole configuration anew, from the same flags and environment.
pub type Loader = Box<dyn Fn() -> Result<Settings, ConfigError> + Send>;

/// A configuration that was read again.
pub(crate) struct Reading {
    pub(crate) result: Result<Settings, ConfigError>,
    /// SIGHUP asked for it.
    pub(crate) asked: bool,
}

/// Files and how they were when they were last looked at.
pub(crate) struct Files {
    paths: Vec<PathBuf>,
    /// `None` for one that is not there.
    known: Vec<Option<FileState>>,
}

impl Files {
    /// Looks at `paths`.
    pub(crate) fn look_at(paths: Vec<PathBuf>) -> Self {
        let known = states(&paths);
        Self { paths, known }
    }
}

fn states(files: &[PathBuf]) -> Vec<Option<FileState>> {
    files.iter().map(|file| FileState::at(file).ok()).collect()
}

/// Looks at `files`, and waits for `hang_ups`, on the thread that calls it, until the other end of either channel is
/// gone. Blocking here is fine: a file on a network that hangs stops nobody else.
pub(crate) fn watch(load: &Loader, mut files: Files, hang_ups: &Receiver<()>, readings: &UnboundedSender<Reading>) {
    loop {
        let asked = match hang_ups.recv_timeout(LOOK_INTERVAL) {
            Ok(()) => true,
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let mut now = states(&files.paths);
        if now == files.known && !asked {
            continue;
        }
        loop {
            std::thread::sleep(SETTLING);
            let later = states(&files.paths);
            if later == now {
                break;
            }
            now = later;
        }
        // From before the reading: what is written meanwhile is seen at the next look.
        files.known = now;
        let result = load();
        if let Ok(settings) = &result
            && settings.files != files.paths
        {
            files = Files::look_at(settings.files.clone());
        }
        if readings.send(Reading { result, asked }).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    fn broken() -> Result<Settings, ConfigError> {
        Err(ConfigError { mistakes: Vec::new() })
    }

    #[test]
    fn a_change_of_a_file_its_appearance_and_a_hang_up_are_each_read_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("keyside.toml");
        let (hang_up, hang_ups) = channel();
        let (send, mut readings) = unbounded_channel();
        let files = Files::look_at(vec![file.clone()]);
        let thread = std::thread::spawn(move || watch(&(Box::new(broken) as Loader), files, &hang_ups, &send));
        std::fs::write(&file, "a").expect("writable");
        let first = readings.blocking_recv().expect("a reading");
        assert!(!first.asked);
        hang_up.send(()).expect("it listens");
        assert!(readings.blocking_recv().expect("a reading").asked);
        std::fs::rename(&file, directory.path().join("elsewhere")).expect("ours");
        assert!(!readings.blocking_recv().expect("a reading").asked);
        drop(hang_up);
        thread.join().expect("no panic");
        assert!(readings.try_recv().is_err(), "nothing else was read");
    }
}
