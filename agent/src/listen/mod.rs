//! Sockets to listen on: their mode, owner and group are exact before anyone can connect, a live one is never stolen, a
//! stale one is replaced, and only our own is removed. One that somebody else bound for us ([`activation`]) is only
//! listened on.

pub mod activation;
mod place;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use keyside_config::settings::ListenerSettings;
use rustix::fs::{AtFlags, FlockOperation, Gid, Mode, chmodat, chownat, flock, fstat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with};

use place::{Identity, Place, identity, other_than_socket};

/// What the lock of a socket is called after the socket's name.
const LOCK: &str = ".lock";

/// `sun_path` holds 108 bytes, the closing NUL included.
const LONGEST_PATH: usize = 107;

/// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Why a socket cannot be listened on. Nothing has changed then, except that a stale socket of ours may be gone.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The kernel's limit.
    #[error("the socket path `{}` is {} bytes long; a Unix socket path has at most 107", .0.display(), .0.as_os_str().len())]
    TooLong(PathBuf),
    /// Relative paths change their meaning with the working directory.
    #[error("the socket path `{}` is not absolute", .0.display())]
    Relative(PathBuf),
    /// Something else is there; it was not touched.
    #[error("`{}` is {what}, not a socket", path.display())]
    NotASocket {
        /// Where.
        path: PathBuf,
        /// What is there.
        what: &'static str,
    },
    /// Another agent serves this path.
    #[error("another agent is listening on `{}`", .0.display())]
    InUse(PathBuf),
    /// Others could replace the socket.
    #[error("the directory `{}` of the socket {why}", path.display())]
    UnsafeDirectory {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
        /// What to use instead.
        hint: String,
    },
    /// Somebody was quicker.
    #[error("the directory of the socket `{}` was replaced while the socket was made", .0.display())]
    Moved(PathBuf),
    /// The group does not exist.
    #[error("the group `{group}` of the socket `{}` does not exist", path.display())]
    NoSuchGroup {
        /// The socket.
        path: PathBuf,
        /// As configured.
        group: String,
    },
    /// A system call failed.
    #[error("cannot {what} `{}`: {source}", path.display())]
    Io {
        /// What was attempted.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
    /// None of the default places can be used.
    #[error("no default socket path can be used: XDG_RUNTIME_DIR is not set, and /run/keyside cannot be made")]
    NoDefault,
}

impl ListenError {
    /// Returns what to try.
    pub fn hint(&self) -> &str {
        match self {
            Self::TooLong(_) | Self::Relative(_) => "give a short absolute path with --socket or [agent] socket",
            Self::NotASocket { .. } => "remove it, or give another path with --socket",
            Self::InUse(_) => "stop that agent, or give another path with --socket",
            Self::UnsafeDirectory { hint, .. } => hint,
            Self::Moved(_) => "see who else may write to the directories above it",
            Self::NoSuchGroup { .. } => "name an existing group in socket_group, or leave it out",
            Self::Io { .. } => "check that the directory exists and may be written to",
            Self::NoDefault => "name a path with --socket, KEYSIDE_SOCKET or [agent] socket",
        }
    }

    /// Tells whether the path is taken by a live agent, rather than wrong.
    pub fn is_in_use(&self) -> bool {
        matches!(self, Self::InUse(_))
    }
}

/// A socket that is listened on.
pub struct Listener {
    /// As configured.
    pub settings: ListenerSettings,
    listener: UnixListener,
    /// What we made at the path; none for a socket that was handed to us.
    made: Option<Made>,
}

/// A socket of our making: ours to watch, to make again and to remove.
struct Made {
    place: Place,
    identity: Identity,
    lock: File,
}

impl Listener {
    /// Binds and listens.
    pub fn open(settings: ListenerSettings) -> Result<Self, ListenError> {
        let place = place_of(&settings)?;
        refuse_foreign_file(&place)?;
        let lock = lock(&place)?;
        // Only now, with the lock held, is it certain that no agent is between bind and listen on this path.
        let (listener, identity) = replace_stale(&place).and_then(|()| open_at(&place, &settings))?;
        if place.may_be_replaced() {
            tracing::warn!(
                socket = %place.path().display(),
                "weak: others may replace a directory above the socket, so a client must check whom it talks to; \
                 ours does, by the server's uid (KEYSIDE_AGENT_UID)"
            );
        }
        Ok(Self { settings, listener, made: Some(Made { place, identity, lock }) })
    }

    /// Listens on a socket that was bound, and is owned, by whoever started this process.
    pub fn inherited(settings: ListenerSettings, listener: UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { settings, listener, made: None })
    }

    /// Tells whether the path no longer leads here, because nothing or something else is there: nobody new can connect
    /// then. A socket that was handed to us is for its owner to look after.
    pub fn is_gone(&self) -> bool {
        self.made.as_ref().is_some_and(|made| identity_at(&self.settings.path) != Some(made.identity))
    }

    /// Listens on the path again after the socket has vanished from it or was replaced; connections that are open stay
    /// open. A socket that nobody listens on gives way; anything else that is there by now is left alone, and this
    /// listener goes on as it is.
    pub fn restore(&mut self) -> Result<(), ListenError> {
        let Some(made) = &mut self.made else { return Ok(()) };
        let place = place_of(&self.settings)?;
        refuse_foreign_file(&place)?;
        // The lock file may have gone the same way; with it there, the lock is still held.
        if place.identity_of(LOCK) != fstat(&made.lock).ok().map(|found| identity(&found)) {
            made.lock = lock(&place)?;
        }
        replace_stale(&place)?;
        (self.listener, made.identity) = open_at(&place, &self.settings)?;
        made.place = place;
        Ok(())
    }

    /// Takes the name, mode and group of `settings`, which are for the same path.
    ///
    /// Errors: no such group, or the kernel refuses; mode and group are then as they were.
    pub fn adjust(&mut self, settings: &ListenerSettings) -> Result<(), ListenError> {
        if let Some(made) = self.made.as_ref().filter(|made| made.place.identity_of("") == Some(made.identity)) {
            let (new, old) = (group_of(settings)?, group_of(&self.settings)?);
            set_access(&made.place, settings.mode, new).inspect_err(|_| {
                // As good as can be done: the first failure is the one that is told.
                let _ = set_access(&made.place, self.settings.mode, old);
            })?;
        }
        self.settings = settings.clone();
        Ok(())
    }

    /// Returns another handle on the listening socket for the runtime.
    pub fn socket(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let Some(Made { place, identity: own, lock }) = &self.made else { return };
        if place.identity_of("") == Some(*own)
            && let Err(error) = place.remove("")
        {
            tracing::warn!(path = %place.path().display(), %error, "the socket could not be removed");
        }
        // Under the lock, and only if the name still means the file that is locked.
        let locked = fstat(lock).ok().map(|found| identity(&found));
        if locked.is_some() && locked == place.identity_of(LOCK) {
            let _ = place.remove(LOCK);
        }
    }
}

/// Returns the first default path that may be used: in `runtime_directory` (`XDG_RUNTIME_DIR`) if that is set, else in
/// `/run/keyside`.
pub fn default_path(runtime_directory: Option<&Path>) -> Result<PathBuf, ListenError> {
    let in_runtime = runtime_directory.filter(|path| path.is_absolute()).map(|path| path.join("keyside/agent.sock"));
    let candidates = in_runtime.into_iter().chain([PathBuf::from("/run/keyside/agent.sock")]);
    for path in candidates {
        let is_writable = |place: &Place| {
            rustix::fs::accessat(place.directory(), ".", rustix::fs::Access::WRITE_OK, AtFlags::EACCESS).is_ok()
        };
        if Place::open(&path, 0o600).as_ref().is_ok_and(is_writable) {
            return Ok(path);
        }
    }
    Err(ListenError::NoDefault)
}

fn place_of(settings: &ListenerSettings) -> Result<Place, ListenError> {
    if settings.path.as_os_str().as_bytes().len() > LONGEST_PATH {
        return Err(ListenError::TooLong(settings.path.clone()));
    }
    Place::open(&settings.path, settings.mode)
}

fn failed(what: &'static str, place: &Place) -> impl Fn(io::Error) -> ListenError {
    let path = place.path().to_path_buf();
    move |source| ListenError::Io { what, path: path.clone(), source }
}

fn refuse_foreign_file(place: &Place) -> Result<(), ListenError> {
    let found = place.look("").map_err(failed("look at", place))?;
    match found.as_ref().and_then(other_than_socket) {
        Some(what) => Err(ListenError::NotASocket { path: place.path().to_path_buf(), what }),
        None => Ok(()),
    }
}

/// Takes the lock beside the socket. The kernel gives it back however the holder dies.
fn lock(place: &Place) -> Result<File, ListenError> {
    loop {
        let file = place.open_beside(LOCK).map_err(failed("open the lock of", place))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(ListenError::InUse(place.path().to_path_buf())),
            Err(error) => return Err(failed("lock", place)(error.into())),
        }
        // The last holder may have removed the file between our open and our lock.
        let locked = fstat(&file).map_err(|error| failed("lock", place)(error.into()))?;
        if place.identity_of(LOCK) == Some(identity(&locked)) {
            return Ok(file);
        }
    }
}

/// Removes a socket that nobody listens on.
fn replace_stale(place: &Place) -> Result<(), ListenError> {
    refuse_foreign_file(place)?;
    let in_use = || Err(ListenError::InUse(place.path().to_path_buf()));
    match probe(place) {
        Err(Errno::NOENT) => Ok(()),
        Err(Errno::CONNREFUSED) => {
            tracing::info!(path = %place.path().display(), "replacing a socket that nobody listens on");
            place.remove("").map_err(failed("remove the stale socket", place))
        }
        // A full backlog is a live agent too.
        Ok(()) | Err(Errno::AGAIN) => in_use(),
        Err(error) => Err(failed("probe", place)(error.into())),
    }
}

/// Connects without waiting: where somebody listens and does not accept, a connect would block.
fn probe(place: &Place) -> Result<(), Errno> {
    let address = SocketAddrUnix::new(place.address().as_deref().unwrap_or(place.path()))?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &address)
}

/// Binds at a free place and listens.
fn open_at(place: &Place, settings: &ListenerSettings) -> Result<(UnixListener, Identity), ListenError> {
    let gid = group_of(settings)?;
    let socket = bind_at(place)?;
    let identity = set_up(place, &socket, settings.mode, gid).inspect_err(|_| {
        // Ours: the bind succeeded, so nobody else's can be here.
        let _ = place.remove("");
    })?;
    let listener = UnixListener::from(socket);
    listener.set_nonblocking(true).map_err(failed("listen on", place))?;
    Ok((listener, identity))
}

fn bind_at(place: &Place) -> Result<OwnedFd, ListenError> {
    let failed = |error: Errno| failed("bind", place)(error.into());
    let address = place.address();
    let address = SocketAddrUnix::new(address.as_deref().unwrap_or(place.path())).map_err(failed)?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).map_err(failed)?;
    bind(&socket, &address).map_err(failed)?;
    Ok(socket)
}

/// A bound socket that does not listen refuses everybody, so mode and owner are set before `listen`. By name: `fchmod`
/// before `bind` would still be cut by the umask.
fn set_up(place: &Place, socket: &OwnedFd, mode: u32, gid: Gid) -> Result<Identity, ListenError> {
    // Without /proc the bind went by the path, which may have led elsewhere by then; nothing is at our name in that case.
    let moved = || ListenError::Moved(place.path().to_path_buf());
    let found = place.look("").map_err(failed("look at", place))?.ok_or_else(moved)?;
    set_access(place, mode, gid)?;
    listen(socket.as_fd(), BACKLOG).map_err(|error| failed("listen on", place)(error.into()))?;
    if !place.is_where_the_path_leads() {
        return Err(moved());
    }
    Ok(identity(&found))
}

fn set_access(place: &Place, mode: u32, gid: Gid) -> Result<(), ListenError> {
    let failed = |what| move |error: Errno| failed(what, place)(error.into());
    let set_mode = |mode| chmodat(place.directory(), place.name(), Mode::from_raw_mode(mode), AtFlags::empty());
    // Closed to all until the group is right.
    set_mode(0o600).map_err(failed("set the mode of"))?;
    if place.look("").ok().flatten().is_none_or(|found| found.st_gid != gid.as_raw()) {
        chownat(place.directory(), place.name(), None, Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed("set the group of"))?;
    }
    set_mode(mode).map_err(failed("set the mode of"))
}

/// The socket's group: ours where none is configured, also in a directory that gives its own to what is made in it.
fn group_of(settings: &ListenerSettings) -> Result<Gid, ListenError> {
    match &settings.group {
        Some(group) => group_id(group, &settings.path),
        None => Ok(rustix::process::getegid()),
    }
}

fn identity_at(path: &Path) -> Option<Identity> {
    std::fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

fn group_id(group: &str, path: &Path) -> Result<Gid, ListenError> {
    if let Ok(gid) = group.parse() {
        return Ok(Gid::from_raw(gid));
    }
    match nix::unistd::Group::from_name(group) {
        Ok(Some(found)) => Ok(Gid::from_raw(found.gid.as_raw())),
        _ => Err(ListenError::NoSuchGroup { path: path.to_path_buf(), group: group.to_owned() }),
    }
}

#[cfg(test)]
mod tests;
