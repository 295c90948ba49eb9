//! A directory of its own for one scenario: everything that is written lies in it, and at the end all of it is searched
//! for the planted value.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::canary::Canary;
use crate::eventually::eventually;
use crate::run::Run;

/// The home of a scenario, mode 0700. Programs started in it see no other environment than this one.
pub struct Home {
    directory: TempDir,
    /// `XDG_RUNTIME_DIR`, on memory where the machine has any.
    runtime: TempDir,
    canary: Canary,
    /// Other values that must show nowhere.
    watched: RefCell<Vec<Canary>>,
    /// What was printed: by whom, and the bytes.
    printed: RefCell<Vec<(String, Vec<u8>)>>,
    /// Files and directories whose job it is to hold values.
    value_holders: RefCell<Vec<PathBuf>>,
    count: RefCell<usize>,
}

impl Home {
    /// Makes one.
    pub fn new() -> Self {
        // Short: a socket's path has at most 107 bytes.
        let directory = tempfile::Builder::new().prefix("ks").tempdir().expect("a temporary directory");
        let runtime = tempfile::Builder::new()
            .prefix("ks")
            .tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .expect("a temporary directory");
        // The umask of whoever runs the tests may be anything.
        for path in [directory.path(), runtime.path()] {
            fs::set_permissions(path, PermissionsExt::from_mode(0o700)).expect("ours");
        }
        let home = Self {
            directory,
            runtime,
            canary: Canary::new(),
            watched: RefCell::default(),
            printed: RefCell::default(),
            value_holders: RefCell::default(),
            count: RefCell::default(),
        };
        // Copies of the programs; large, and not ours to search.
        home.value_holders.borrow_mut().push(home.join("bin"));
        home
    }

    /// Gives everything in it to `uid`.
    pub fn give_to(&self, uid: u32) {
        for root in [self.path(), self.runtime()] {
            give(root, uid);
        }
    }

    /// Lets everybody pass through and look, as the directory of a shared socket must.
    pub fn let_others_in(&self) {
        fs::set_permissions(self.path(), PermissionsExt::from_mode(0o755)).expect("ours");
    }

    /// Returns its directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Returns `XDG_RUNTIME_DIR`.
    pub fn runtime(&self) -> &Path {
        self.runtime.path()
    }

    /// Returns a path in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }

    /// Returns a file name that was not returned before.
    pub fn fresh(&self, name: &str) -> PathBuf {
        let mut count = self.count.borrow_mut();
        *count += 1;
        self.join(format!("{count}-{name}"))
    }

    /// Writes a file, mode 0600, and returns its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        fs::create_dir_all(path.parent().expect("in the home")).expect("a directory");
        fs::write(&path, content).expect("a file");
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("ours");
        path
    }

    /// Returns the planted value.
    pub fn canary(&self) -> &str {
        self.canary.text()
    }

    /// Returns the planted value with the forms that it is searched for in.
    pub fn planted_value(&self) -> &Canary {
        &self.canary
    }

    /// Searches for this value, too.
    pub fn watch_for(&self, value: &str) {
        self.watched.borrow_mut().push(Canary::of(value));
    }

    /// Says that `path` may hold values: it is not searched.
    pub fn holds_values(&self, path: impl Into<PathBuf>) {
        self.value_holders.borrow_mut().push(path.into());
    }

    /// Notes what was printed, to be searched in the end.
    pub fn record(&self, who: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.printed.borrow_mut().push((who.into(), bytes.into()));
    }

    /// Prepares a run of `keyside`.
    pub fn keyside<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run<'_> {
        Run::new(self, crate::programs::built("keyside")).args(args)
    }

    /// Prepares a run of `keyside-exec`.
    pub fn wrapper<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run<'_> {
        Run::new(self, crate::programs::built("keyside-exec")).args(args)
    }

    /// Prepares a run of Python with `arguments`.
    pub fn python<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run<'_> {
        Run::new(self, crate::programs::python()).args(args)
    }

    /// Returns the directories of steps whose files have not been removed.
    pub fn step_directories(&self) -> Vec<PathBuf> {
        let base = fs::read_dir(self.runtime().join("keyside"));
        base.into_iter().flatten().flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
    }

    /// Waits until the files of every step that has ended are removed, and says how long that took. Part of the end of
    /// each scenario, so one whose files stay fails.
    pub fn wait_for_cleaners(&self) -> std::time::Duration {
        eventually("the files of the steps are removed", || self.step_directories().is_empty().then_some(())).1
    }

    fn search(&self) {
        let holders = self.value_holders.borrow();
        let mut files = Vec::new();
        for root in [self.path(), self.runtime()] {
            walk(root, &holders, &mut files);
        }
        for path in files {
            let shown = path.display().to_string();
            let name = path.file_name().map(|name| name.as_encoded_bytes().to_vec()).unwrap_or_default();
            self.check(&format!("the name of {shown}"), &name);
            if path.is_file() {
                // A file that is gone by now leaks nothing.
                self.check(&format!("the file {shown}"), &fs::read(&path).unwrap_or_default());
            }
        }
        for (who, bytes) in self.printed.borrow().iter() {
            self.check(who, bytes);
        }
    }

    fn check(&self, place: &str, bytes: &[u8]) {
        let watched = self.watched.borrow();
        for canary in std::iter::once(&self.canary).chain(watched.iter()) {
            if let Some(form) = canary.found_in(bytes) {
                panic!("{} stands, {form}, in {place}:\n{}", canary.text(), String::from_utf8_lossy(bytes));
            }
        }
        // A copy of a program has the words in it, too.
        if bytes.starts_with(b"\x7fELF") {
            return;
        }
        let text = String::from_utf8_lossy(bytes);
        assert!(!text.contains("keyside: internal error"), "a panic shows in {place}:\n{text}");
    }

    fn show(&self) {
        let mut files = Vec::new();
        walk(self.path(), &self.value_holders.borrow(), &mut files);
        for log in files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "log")) {
            eprintln!("--- {}:\n{}", log.display(), fs::read_to_string(log).unwrap_or_default());
        }
    }
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return self.show();
        }
        self.wait_for_cleaners();
        self.search();
    }
}

fn walk(directory: &Path, holders: &[PathBuf], files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if holders.contains(&path) {
            continue;
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&path, holders, files);
        }
        files.push(path);
    }
}

fn give(path: &Path, uid: u32) {
    chown(path, Some(uid), Some(uid)).expect("only root gives files away");
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).expect("readable").flatten() {
            give(&entry.path(), uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    /// Ends a scenario that did `leak` and tells whether that was noticed.
    fn is_noticed(leak: impl FnOnce(&Home) + std::panic::UnwindSafe) -> bool {
        catch_unwind(|| {
            let home = Home::new();
            leak(&home);
        })
        .is_err()
    }

    #[test]
    fn a_value_in_any_file_or_output_ends_the_scenario_and_no_value_does_not() {
        assert!(!is_noticed(|home| home.record("somebody", "nothing")));
        assert!(is_noticed(|home| home.record("somebody", format!("<{}>", home.canary()))));
        assert!(is_noticed(|home| drop(home.write("deep/file", home.canary()))));
        assert!(is_noticed(|home| fs::write(home.runtime().join("file"), home.canary()).expect("room")));
        assert!(is_noticed(|home| drop(home.write(&home.canary()[..16], "its name"))));
        assert!(is_noticed(|home| {
            home.watch_for("another value");
            home.record("somebody", "another value");
        }));
        assert!(!is_noticed(|home| home.holds_values(home.write("store", home.canary()))));
    }

    #[test]
    fn stdout_is_searched_unless_values_are_its_job_and_stderr_always() {
        let echo = |home: &Home, redirect: &str, prints: bool| {
            let run = Run::new(home, "/bin/sh".into()).arg("-c").arg(format!("printenv V {redirect}"));
            let run = run.env("V", home.canary());
            drop(if prints { run.prints_values() } else { run }.end().expect_code(0));
        };
        assert!(is_noticed(|home| echo(home, "", false)));
        assert!(!is_noticed(|home| echo(home, "", true)));
        assert!(is_noticed(|home| echo(home, ">&2", true)));
    }
}
