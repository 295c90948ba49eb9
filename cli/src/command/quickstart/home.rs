//! The directory `./.keyside`: store, configuration, example step. Private, and invisible to git.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use keyside_protocol::json::{SecretBuffer, push_string};

use crate::exit::{Exit, Failure};
use crate::output::{io_text, printable};

/// The first line of the configuration: by it a directory is known as ours.
const MARK: &str = "# Made by `keyside quickstart`; remove this directory to start over.\n";

/// The directory, checked or made.
pub(super) struct Home {
    /// Absolute.
    dir: PathBuf,
    /// Whether the store was made just now.
    pub(super) is_new: bool,
}

impl Home {
    /// Opens `./.keyside`, or makes it.
    ///
    /// Errors: something else has that name (1); the directory cannot be made.
    pub(super) fn open() -> Result<Self, Failure> {
        let here = std::env::current_dir().map_err(|error| {
            Failure::new(Exit::Config, format!("cannot find the current directory: {}", io_text(&error)))
        })?;
        let mut home = Self::in_directory(&here)?;
        home.is_new = home.store().symlink_metadata().is_err();
        make_store(&home.store())?;
        Ok(home)
    }

    /// Everything but the store.
    fn in_directory(parent: &Path) -> Result<Self, Failure> {
        let dir = parent.join(".keyside");
        let home = Self { dir, is_new: false };
        match DirBuilder::new().mode(0o700).create(&home.dir) {
            Ok(()) => home.failing(fs::set_permissions(&home.dir, Permissions::from_mode(0o700)), "make it private")?,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => home.check_ours()?,
            Err(error) => {
                return Err(Failure::new(Exit::Config, format!("cannot make {}: {}", home.shown(), io_text(&error)))
                    .hint("run it in a directory that you may write to"));
            }
        }
        home.put(".gitignore", "*\n")?;
        home.put("keyside.toml", &home.config_text()?)?;
        Ok(home)
    }

    /// The directory as people see it.
    pub(super) fn shown(&self) -> String {
        printable(&self.dir.to_string_lossy()).into_owned()
    }

    /// The configuration file.
    pub(super) fn config(&self) -> PathBuf {
        self.dir.join("keyside.toml")
    }

    fn store(&self) -> PathBuf {
        self.dir.join("zenml.db")
    }

    /// Writes an example step and returns its path, relative so that it reads well.
    pub(super) fn example(&self, name: &str, text: &str) -> Result<PathBuf, Failure> {
        self.put(name, text)?;
        Ok(Path::new(".keyside").join(name))
    }

    /// A directory that somebody else made, or may write to, could hold anything.
    fn check_ours(&self) -> Result<(), Failure> {
        let refuse = |why: &str| {
            Err(Failure::new(Exit::Config, format!("{} {why}", self.shown()))
                .hint("move it away, or run quickstart in another directory"))
        };
        let found = self.failing(self.dir.symlink_metadata(), "look at it")?;
        if !found.is_dir() {
            return refuse("is no directory");
        }
        if found.uid() != rustix::process::geteuid().as_raw() {
            return refuse("belongs to somebody else");
        }
        if found.mode() & 0o022 != 0 {
            return refuse("can be written by others");
        }
        let config = self.config();
        match config.symlink_metadata() {
            Ok(found) if found.is_file() => {
                let text = self.failing(fs::read_to_string(&config), "read its keyside.toml")?;
                if !text.starts_with(MARK) {
                    return refuse("was not made by quickstart");
                }
            }
            Ok(_) => return refuse("holds a keyside.toml that is no file"),
            // An earlier run may have been cut off before it wrote anything more.
            Err(_) => {
                let entries = self.failing(fs::read_dir(&self.dir), "list it")?;
                if entries.flatten().any(|entry| entry.file_name() != ".gitignore") {
                    return refuse("was not made by quickstart");
                }
            }
        }
        Ok(())
    }

    fn config_text(&self) -> Result<String, Failure> {
        let store = self.store();
        let path = store.to_str().filter(|path| !path.contains('?')).ok_or_else(|| {
            Failure::new(Exit::Config, format!("{} cannot stand in a URL", self.shown()))
                .hint("run quickstart in a directory whose path is UTF-8 and without `?`")
        })?;
        // A JSON string is a TOML basic string too.
        let mut url = SecretBuffer::with_capacity(path.len() + 32);
        push_string(&mut url, &format!("sqlite:///{path}"));
        // expose: no secret, only a path in a buffer of that type.
        let url = String::from_utf8_lossy(url.expose()).into_owned();
        Ok(format!("{MARK}\n[backend.store]\ntype = \"zenml-sql\"\nurl = {url}\nuser = \"default\"\nwritable = true\n"))
    }

    /// Makes a file say `text`; a file that says so already is left alone.
    fn put(&self, name: &str, text: &str) -> Result<(), Failure> {
        let path = self.dir.join(name);
        if fs::read_to_string(&path).is_ok_and(|found| found == text) {
            return Ok(());
        }
        // A draft beside it: nobody reads half a file, and no link is followed.
        let draft = self.dir.join(format!(".{name}.{}", std::process::id()));
        let _ = fs::remove_file(&draft);
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft)
            .and_then(|mut file| {
                // A strange umask may have taken our own rights.
                file.set_permissions(Permissions::from_mode(0o600))?;
                file.write_all(text.as_bytes())
            })
            .and_then(|()| fs::rename(&draft, &path));
        if written.is_err() {
            let _ = fs::remove_file(&draft);
        }
        self.failing(written, &format!("write {name}"))
    }

    fn failing<T>(&self, result: std::io::Result<T>, doing: &str) -> Result<T, Failure> {
        result.map_err(|error| {
            Failure::new(Exit::Config, format!("{}: cannot {doing}: {}", self.shown(), io_text(&error)))
        })
    }
}

#[cfg(feature = "zenml-sql")]
fn make_store(path: &Path) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Unavailable, format!("cannot start the runtime: {}", io_text(&error))))?;
    runtime.block_on(keyside_agent::backend::zenml_sql::create_store(path)).map_err(|error| {
        let mut failure = Failure::new(Exit::Config, printable(&error.to_string()));
        failure.hint = error.hint().map(str::to_owned);
        failure
    })
}

#[cfg(not(feature = "zenml-sql"))]
fn make_store(_path: &Path) -> Result<(), Failure> {
    Err(Failure::new(Exit::Config, "this program was built without `zenml-sql`, which quickstart needs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(parent: &Path) -> Result<Home, Failure> {
        Home::in_directory(parent)
    }

    #[test]
    fn the_directory_is_private_and_hidden_from_git_and_found_again() {
        let parent = tempfile::tempdir().expect("a directory");
        let home = open(parent.path()).expect("made");
        assert_eq!(home.dir.metadata().expect("a directory").mode() & 0o7777, 0o700);
        assert_eq!(fs::read_to_string(home.dir.join(".gitignore")).expect("text"), "*\n");
        assert!(fs::read_to_string(home.config()).expect("text").contains("writable = true"));
        open(parent.path()).expect("found again");
    }

    #[test]
    fn a_directory_that_was_moved_gets_its_new_path() {
        let parent = tempfile::tempdir().expect("a directory");
        let (old, new) = (parent.path().join("old"), parent.path().join("new"));
        fs::create_dir(&old).expect("made");
        open(&old).expect("made");
        fs::rename(&old, &new).expect("moved");
        let home = open(&new).expect("found again");
        assert!(fs::read_to_string(home.config()).expect("text").contains("/new/.keyside/zenml.db"));
    }

    #[test]
    fn what_somebody_else_made_is_left_alone() {
        for make in [
            |path: &Path| fs::write(path, "x"),
            |path: &Path| std::os::unix::fs::symlink("/tmp", path),
            |path: &Path| fs::create_dir(path).and_then(|()| fs::write(path.join("notes"), "x")),
            |path: &Path| fs::create_dir(path).and_then(|()| fs::write(path.join("keyside.toml"), "[agent]\n")),
            |path: &Path| fs::create_dir(path).and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o777))),
        ] {
            let parent = tempfile::tempdir().expect("a directory");
            make(&parent.path().join(".keyside")).expect("made");
            let failure = open(parent.path()).err().expect("refused");
            assert_eq!(failure.exit, Exit::Config, "{}", failure.what);
        }
    }
}
