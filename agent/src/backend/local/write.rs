//! Changes the file at one stroke: a new file beside it takes its place, whole and on the disk, under a lock that all
//! writers of Keyside take. ZenML takes none; whether it wrote meanwhile is looked at last thing before the stroke.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use keyside_protocol::json::SecretBuffer;
use keyside_protocol::name::{check_key, check_name};
use keyside_protocol::value::{SecretValue, SecretValues};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::super::{BackendError, Description, Scope, Update, WriteError};
use super::error::Doing;
use super::file::{FileText, MAX_FILE_BYTES, Stamp, stamp_at};
use super::{Store, describe};
use crate::layout::local::{ARBITRARY_SCHEMA, Document, EditError, encode_entry, is_reserved};

/// How often ZenML may have written between our reading and our stroke.
const ATTEMPTS: usize = 5;

/// Between two tries for a lock that another holds.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// What to do with the document.
struct Change {
    text: SecretBuffer,
    /// The name of the secret that the answer describes.
    name: String,
    /// How it was before, where it is gone afterwards.
    deleted: Option<Description>,
}

impl Store {
    pub(super) fn create(&self, name: &str, scope: Scope, values: SecretValues) -> Result<Description, WriteError> {
        self.valid_name(name)?;
        if scope == Scope::Private {
            return Err(self.no_scopes());
        }
        values.keys().try_for_each(|key| self.valid_key(key))?;
        self.change(|document| {
            if document.get(name).is_some() {
                return Err(exists(name));
            }
            let lines = self.encode(name, &values, Some(ARBITRARY_SCHEMA))?;
            let text = document.with(None, Some((name, &lines))).map_err(|error| self.unchangeable(error))?;
            Ok(Change { text, name: name.to_owned(), deleted: None })
        })
    }

    pub(super) fn update(&self, name: &str, scope: Option<Scope>, update: Update) -> Result<Description, WriteError> {
        let new_name = update.rename.as_deref().unwrap_or(name);
        if new_name != name {
            self.valid_name(new_name)?;
        }
        if update.scope == Some(Scope::Private) {
            return Err(self.no_scopes());
        }
        for (key, value) in &update.values {
            if value.is_some() {
                self.valid_key(key)?;
            }
        }
        self.change(|document| {
            self.find(document, name, scope, update.if_version.as_deref())?;
            if new_name != name && document.get(new_name).is_some() {
                return Err(exists(new_name));
            }
            let entry = document.get(name).ok_or(BackendError::NotFound)?;
            // Whole, whatever the limit is now: what is not changed must not be lost.
            let pairs = entry.and_then(|entry| entry.decode(u64::MAX)).map_err(|error| self.unusable(name, &error))?;
            let mut values = pairs.values;
            for (key, value) in &update.values {
                match value {
                    // expose: copied, since another try may need it again; both are wiped.
                    Some(value) => values.insert(key.clone(), SecretValue::copy_of(value.expose())),
                    None if values.remove(key).is_none() => return Err(WriteError::KeyNotFound(key.clone())),
                    None => {}
                }
            }
            let lines = self.encode(new_name, &values, pairs.schema.as_deref())?;
            let text = document.with(Some(name), Some((new_name, &lines))).map_err(|error| self.unchangeable(error))?;
            Ok(Change { text, name: new_name.to_owned(), deleted: None })
        })
    }

    pub(super) fn delete(
        &self,
        name: &str,
        scope: Option<Scope>,
        if_version: Option<&str>,
    ) -> Result<Description, WriteError> {
        self.change(|document| {
            let deleted = Some(self.find(document, name, scope, if_version)?);
            let text = document.with(Some(name), None).map_err(|error| self.unchangeable(error))?;
            Ok(Change { text, name: name.to_owned(), deleted })
        })
    }

    fn find(
        &self,
        document: &Document<'_>,
        name: &str,
        scope: Option<Scope>,
        if_version: Option<&str>,
    ) -> Result<Description, WriteError> {
        if scope == Some(Scope::Private) || document.get(name).is_none() {
            return Err(BackendError::NotFound.into());
        }
        let description = describe(document, name);
        match if_version {
            Some(wanted) if wanted != description.version => Err(WriteError::VersionMismatch),
            _ => Ok(description),
        }
    }

    fn encode(&self, name: &str, values: &SecretValues, schema: Option<&str>) -> Result<SecretBuffer, WriteError> {
        if let Some((key, _)) = values.iter().find(|(_, value)| value.len() as u64 > self.max_value) {
            let what = format!("the value of key `{key}` is larger than {} bytes", self.max_value);
            return Err(invalid(what, "raise `[limits] value`"));
        }
        encode_entry(name, values, schema)
            .map_err(|error| invalid(error.to_string(), "encode it, as base64 for example"))
    }

    /// Reads, changes and replaces the file under the lock.
    fn change(
        &self,
        mut edit: impl FnMut(&Document<'_>) -> Result<Change, WriteError>,
    ) -> Result<Description, WriteError> {
        let target = self.target()?;
        let lock = self.lock(&target)?;
        for _ in 0..ATTEMPTS {
            let old = self.read_text()?;
            let change = match &old {
                Some(text) => edit(&self.parse(text)?)?,
                None => edit(&Document::empty())?,
            };
            if change.text.len() as u64 > MAX_FILE_BYTES {
                let what = format!("the file would be larger than {} MiB", MAX_FILE_BYTES >> 20);
                return Err(invalid(what, "remove other secrets first"));
            }
            if self.replace(&target, &lock, old.as_ref(), &change.text)? {
                // expose: described without decoding a value.
                let text = std::str::from_utf8(change.text.expose()).map_err(|_| self.place.not_text())?;
                let document = Document::parse(text).map_err(|error| self.place.unreadable(error))?;
                return Ok(change.deleted.unwrap_or_else(|| describe(&document, &change.name)));
            }
        }
        Err(self.place.being_written().into())
    }

    /// The file to replace: what the path leads to, so that a symbolic link stays one.
    fn target(&self) -> Result<PathBuf, WriteError> {
        let path = &self.place.path;
        match fs::canonicalize(path) {
            Ok(target) => Ok(target),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if fs::symlink_metadata(path).is_ok() {
                    return Err(self.place.dangling().into());
                }
                Ok(path.clone())
            }
            Err(error) => Err(self.place.failure(Doing::Writing, &error).into()),
        }
    }

    /// Takes the lock on the file's directory, which leaves nothing behind there.
    fn lock(&self, target: &Path) -> Result<File, WriteError> {
        let directory = target.parent().unwrap_or(Path::new("/"));
        let directory = File::open(directory).map_err(|error| self.place.failure(Doing::Writing, &error))?;
        let until = Instant::now() + self.patience;
        loop {
            match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(directory),
                Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < until => sleep(LOCK_PAUSE),
                Err(Errno::WOULDBLOCK | Errno::INTR) => {
                    let what = "is being written by another program, which holds a lock on its directory";
                    return Err(self.place.transient(what, "try again").into());
                }
                Err(error) => {
                    let what = format!("lies in a directory that cannot be locked (errno {})", error.raw_os_error());
                    let hint = "write with ZenML; network file systems may have no such locks";
                    return Err(self.place.identity(&what, hint).into());
                }
            }
        }
    }

    /// Puts the new text in the place of the old file; `false` when that is no longer the one that was read.
    fn replace(
        &self,
        target: &Path,
        directory: &File,
        old: Option<&FileText>,
        text: &SecretBuffer,
    ) -> Result<bool, WriteError> {
        let failure = |error: io::Error| WriteError::from(self.place.failure(Doing::Writing, &error));
        let new = New::create(target).map_err(failure)?;
        if let Some(old) = old {
            self.inherit(&new.file, old)?;
        }
        // expose: to the file that is to hold them.
        (&new.file).write_all(text.expose()).and_then(|()| new.file.sync_all()).map_err(failure)?;
        let is_same = match (stamp_at(target), old) {
            (Ok(stamp), Some(old)) => stamp == old.stamp(),
            (Err(error), None) => error.kind() == ErrorKind::NotFound,
            _ => false,
        };
        if !is_same {
            return Ok(false);
        }
        let stamp = new.file.metadata().map(|metadata| Stamp::of(&metadata)).map_err(failure)?;
        new.rename(target).map_err(failure)?;
        self.memory.wrote(stamp);
        // The new name is on the disk once the directory is.
        directory.sync_all().map_err(failure)?;
        Ok(true)
    }

    /// Gives the new file owner and mode of the old one.
    fn inherit(&self, new: &File, old: &FileText) -> Result<(), WriteError> {
        let failure = |error: io::Error| WriteError::from(self.place.failure(Doing::Writing, &error));
        let (have, want) = (new.metadata().map_err(failure)?, &old.metadata);
        let uid = Some(want.uid()).filter(|uid| *uid != have.uid());
        let gid = Some(want.gid()).filter(|gid| *gid != have.gid());
        if (uid.is_some() || gid.is_some()) && fchown(new, uid, gid).is_err() {
            let what =
                format!("belongs to uid {} and gid {}, and a new file of ours would not", want.uid(), want.gid());
            let hint = "run the agent as the user that ZenML runs as, or write with ZenML";
            return Err(self.place.identity(&what, hint).into());
        }
        new.set_permissions(Permissions::from_mode(want.mode() & 0o7777)).map_err(failure)
    }

    fn valid_name(&self, name: &str) -> Result<(), WriteError> {
        check_name(name).map_err(|error| WriteError::Invalid { what: error.to_string(), hint: None })
    }

    fn valid_key(&self, key: &str) -> Result<(), WriteError> {
        check_key(key).map_err(|error| WriteError::Invalid { what: format!("a key that is {error}"), hint: None })?;
        if is_reserved(key) {
            let what = format!("ZenML's local secrets manager uses the key `{key}` itself");
            return Err(invalid(what, "choose another key"));
        }
        Ok(())
    }

    fn no_scopes(&self) -> WriteError {
        let what =
            format!("back-end `{}` has no private secrets: a local secrets manager has no scopes", self.place.backend);
        invalid(what, "leave `private` out, or name another back-end")
    }

    fn unchangeable(&self, error: EditError) -> WriteError {
        let what = format!("back-end `{}`: `{}` {error}", self.place.backend, self.place.path.display());
        invalid(what, "let ZenML write any secret there once, which gives the file its usual form")
    }
}

fn invalid(what: String, hint: &str) -> WriteError {
    WriteError::Invalid { what, hint: Some(hint.into()) }
}

fn exists(name: &str) -> WriteError {
    WriteError::Exists(format!("a secret `{name}` is there already"))
}

/// The new file, under a name of its own until it takes the old one's place; removed when that does not come about.
struct New {
    file: File,
    path: Option<PathBuf>,
}

impl New {
    /// The name is always the same: under the lock there is one writer, and what a killed one left is removed here.
    fn create(target: &Path) -> io::Result<Self> {
        let mut name = OsString::from(".");
        name.push(target.file_name().unwrap_or_default());
        name.push(".keyside-new");
        let path = target.with_file_name(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self { file, path: Some(path) })
    }

    fn rename(mut self, target: &Path) -> io::Result<()> {
        if let Some(path) = &self.path {
            fs::rename(path, target)?;
        }
        self.path = None;
        Ok(())
    }
}

impl Drop for New {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // What remains is removed by the next writer.
            let _ = fs::remove_file(path);
        }
    }
}
