//! Sockets to listen on: their mode, owner and group are exact before anyone can connect, a live one is never stolen, a
//! stale one is replaced, and only our own is removed.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use keyside_config::settings::ListenerSettings;
use rustix::fs::{FlockOperation, flock};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};

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
    },
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
    pub fn hint(&self) -> &'static str {
        match self {
            Self::TooLong(_) | Self::Relative(_) => "give a short absolute path with --socket or [agent] socket",
            Self::NotASocket { .. } => "remove it, or give another path with --socket",
            Self::InUse(_) => "stop that agent, or give another path with --socket",
            Self::UnsafeDirectory { .. } => {
                "use a directory that belongs to you or root and that only its owner may write to"
            }
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

/// A socket that is listened on, and removed when dropped if it is still ours.
pub struct Listener {
    /// As configured.
    pub settings: ListenerSettings,
    listener: UnixListener,
    identity: (u64, u64),
    lock_path: PathBuf,
    lock: File,
}

impl Listener {
    /// Binds and listens.
    pub fn open(settings: ListenerSettings) -> Result<Self, ListenError> {
        let path = settings.path.clone();
        if path.as_os_str().as_bytes().len() > LONGEST_PATH {
            return Err(ListenError::TooLong(path));
        }
        let directory = path
            .is_absolute()
            .then(|| path.parent())
            .flatten()
            .ok_or_else(|| ListenError::Relative(path.clone()))?
            .to_path_buf();
        let gid = settings.group.as_deref().map(|group| group_id(group, &path)).transpose()?;
        prepare_directory(&directory, settings.mode)?;
        refuse_foreign_file(&path)?;
        let (lock, lock_path) = lock(&path)?;
        // Only now, with the lock held, is it certain that no agent is between bind and listen on this path.
        replace_stale(&path)?;
        let (listener, identity) = open_at(&path, settings.mode, gid)?;
        Ok(Self { settings, listener, identity, lock_path, lock })
    }

    /// Tells whether the path no longer leads here: nobody new can connect then.
    pub fn is_gone(&self) -> bool {
        identity_of(&self.settings.path).is_none()
    }

    /// Listens on the path again after the socket has vanished from it; connections that are open stay open. Something
    /// else that is there by now is left alone.
    pub fn restore(&mut self) -> Result<(), ListenError> {
        let path = self.settings.path.clone();
        let gid = self.settings.group.as_deref().map(|group| group_id(group, &path)).transpose()?;
        if let Some(directory) = path.parent() {
            prepare_directory(directory, self.settings.mode)?;
        }
        refuse_foreign_file(&path)?;
        // The lock file may have gone the same way; with it there, the lock is still held.
        if identity_of(&self.lock_path) != identity(&self.lock.metadata().ok()) {
            (self.lock, self.lock_path) = lock(&path)?;
        }
        replace_stale(&path)?;
        (self.listener, self.identity) = open_at(&path, self.settings.mode, gid)?;
        Ok(())
    }

    /// Takes the mode and group of `settings`, which are for the same path.
    ///
    /// Errors: no such group, or the kernel refuses; mode and group are then as they were.
    pub fn adjust(&mut self, settings: &ListenerSettings) -> Result<(), ListenError> {
        let path = &self.settings.path;
        let gid_of = |group: &Option<String>| group.as_deref().map(|group| group_id(group, path)).transpose();
        let (new, old) = (gid_of(&settings.group)?, gid_of(&self.settings.group)?);
        if identity_of(path) == Some(self.identity) {
            let own = rustix::process::getegid().as_raw();
            let back = || {
                // As good as can be done: the first failure is the one that is told.
                let _ = set_access(path, self.settings.mode, old.or(Some(own)));
            };
            set_access(path, settings.mode, new.or(old.map(|_| own))).inspect_err(|_| back())?;
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
        let path = &self.settings.path;
        if identity_of(path) == Some(self.identity)
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::warn!(path = %path.display(), %error, "the socket could not be removed");
        }
        // Under the lock, and only if the path still names the file that is locked.
        let locked = identity(&self.lock.metadata().ok());
        if locked.is_some() && locked == identity_of(&self.lock_path) {
            let _ = std::fs::remove_file(&self.lock_path);
        }
    }
}

/// Returns the first default path that may be used: in `runtime_directory` (`XDG_RUNTIME_DIR`) if that is set, else in
/// `/run/keyside`.
pub fn default_path(runtime_directory: Option<&Path>) -> Result<PathBuf, ListenError> {
    let in_runtime = runtime_directory.filter(|path| path.is_absolute()).map(|path| path.join("keyside/agent.sock"));
    let candidates = in_runtime.into_iter().chain([PathBuf::from("/run/keyside/agent.sock")]);
    for path in candidates {
        let usable = path.parent().is_some_and(|directory| prepare_directory(directory, 0o600).is_ok());
        let writable =
            path.parent().is_some_and(|directory| rustix::fs::access(directory, rustix::fs::Access::WRITE_OK).is_ok());
        if usable && writable {
            return Ok(path);
        }
    }
    Err(ListenError::NoDefault)
}

/// Makes the socket's directory when only it is missing, and checks that nobody else can replace what is in it.
fn prepare_directory(directory: &Path, socket_mode: u32) -> Result<(), ListenError> {
    let failed = |what| move |source| ListenError::Io { what, path: directory.to_path_buf(), source };
    match std::fs::create_dir(directory) {
        // A socket that others may connect to needs a directory that others may pass through.
        Ok(()) => {
            let mode = if socket_mode & 0o077 == 0 { 0o700 } else { 0o711 };
            std::fs::set_permissions(directory, PermissionsExt::from_mode(mode))
                .map_err(failed("set the mode of the directory"))?;
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed("make the directory")(error)),
    }
    let found = std::fs::metadata(directory).map_err(failed("look at the directory"))?;
    let unsafe_because = |why| Err(ListenError::UnsafeDirectory { path: directory.to_path_buf(), why });
    if !found.is_dir() {
        return unsafe_because("is not a directory");
    }
    let own = rustix::process::geteuid().as_raw();
    if found.uid() != own && found.uid() != 0 {
        return unsafe_because("belongs to somebody else");
    }
    if found.mode() & 0o002 != 0 {
        return unsafe_because("may be written to by everyone");
    }
    let own_group = found.gid() == 0 || found.gid() == rustix::process::getegid().as_raw();
    if found.mode() & 0o020 != 0 && !own_group {
        return unsafe_because("may be written to by a group that is not ours");
    }
    Ok(())
}

fn refuse_foreign_file(path: &Path) -> Result<(), ListenError> {
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(ListenError::Io { what: "look at", path: path.to_path_buf(), source }),
    };
    let kind = found.file_type();
    let what = match () {
        () if kind.is_socket() => return Ok(()),
        () if kind.is_symlink() => "a symbolic link",
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a FIFO",
        () => "a file",
    };
    Err(ListenError::NotASocket { path: path.to_path_buf(), what })
}

/// Takes the lock beside the socket. The kernel gives it back however the holder dies.
fn lock(path: &Path) -> Result<(File, PathBuf), ListenError> {
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let lock_path = PathBuf::from(lock_path);
    let failed = |source| ListenError::Io { what: "lock", path: lock_path.clone(), source };
    loop {
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(&lock_path)
            .map_err(failed)?;
        // Exact under any umask: after a crash the next agent must be able to open it.
        file.set_permissions(PermissionsExt::from_mode(0o600)).map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(error) if error == rustix::io::Errno::WOULDBLOCK => return Err(ListenError::InUse(path.to_path_buf())),
            Err(error) => return Err(failed(error.into())),
        }
        // The last holder may have removed the file between our open and our lock.
        let locked = file.metadata().map_err(failed)?;
        if identity(&Some(locked)) == identity_of(&lock_path) {
            return Ok((file, lock_path));
        }
    }
}

/// Removes a socket that nobody listens on.
fn replace_stale(path: &Path) -> Result<(), ListenError> {
    let io = |what| move |source| ListenError::Io { what, path: path.to_path_buf(), source };
    refuse_foreign_file(path)?;
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(path = %path.display(), "replacing a socket that nobody listens on");
            std::fs::remove_file(path).map_err(io("remove the stale socket"))
        }
        // A full backlog is a live agent too.
        Ok(_) => Err(ListenError::InUse(path.to_path_buf())),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(ListenError::InUse(path.to_path_buf())),
        Err(error) => Err(io("probe")(error)),
    }
}

/// Binds at a free path and listens.
fn open_at(path: &Path, mode: u32, gid: Option<u32>) -> Result<(UnixListener, (u64, u64)), ListenError> {
    let socket = bind_at(path)?;
    let identity = set_up(path, &socket, mode, gid).inspect_err(|_| {
        // Ours: the bind succeeded, so nobody else's can be here.
        let _ = std::fs::remove_file(path);
    })?;
    let listener = UnixListener::from(socket);
    listener.set_nonblocking(true).map_err(|source| ListenError::Io {
        what: "listen on",
        path: path.to_path_buf(),
        source,
    })?;
    Ok((listener, identity))
}

fn identity(found: &Option<std::fs::Metadata>) -> Option<(u64, u64)> {
    found.as_ref().map(|found| (found.dev(), found.ino()))
}

fn identity_of(path: &Path) -> Option<(u64, u64)> {
    identity(&std::fs::symlink_metadata(path).ok())
}

fn bind_at(path: &Path) -> Result<OwnedFd, ListenError> {
    let failed =
        |error: rustix::io::Errno| ListenError::Io { what: "bind", path: path.to_path_buf(), source: error.into() };
    let address = SocketAddrUnix::new(path).map_err(failed)?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).map_err(failed)?;
    bind(&socket, &address).map_err(failed)?;
    Ok(socket)
}

/// A bound socket that does not listen refuses everybody, so mode and owner are set before `listen`. By path: `fchmod`
/// before `bind` would still be cut by the umask.
fn set_up(path: &Path, socket: &OwnedFd, mode: u32, gid: Option<u32>) -> Result<(u64, u64), ListenError> {
    let failed = |what| move |source: io::Error| ListenError::Io { what, path: path.to_path_buf(), source };
    set_access(path, mode, gid)?;
    let found = std::fs::symlink_metadata(path).map_err(failed("look at"))?;
    listen(socket.as_fd(), BACKLOG).map_err(|error| failed("listen on")(error.into()))?;
    Ok((found.dev(), found.ino()))
}

fn set_access(path: &Path, mode: u32, gid: Option<u32>) -> Result<(), ListenError> {
    let failed = |what| move |source: io::Error| ListenError::Io { what, path: path.to_path_buf(), source };
    // Closed to all until the group is right.
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).map_err(failed("set the mode of"))?;
    if let Some(gid) = gid {
        std::os::unix::fs::lchown(path, None, Some(gid)).map_err(failed("set the group of"))?;
    }
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).map_err(failed("set the mode of"))
}

fn group_id(group: &str, path: &Path) -> Result<u32, ListenError> {
    if let Ok(gid) = group.parse() {
        return Ok(gid);
    }
    match nix::unistd::Group::from_name(group) {
        Ok(Some(found)) => Ok(found.gid.as_raw()),
        _ => Err(ListenError::NoSuchGroup { path: path.to_path_buf(), group: group.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(path: PathBuf, mode: u32) -> ListenerSettings {
        ListenerSettings { name: "agent".to_owned(), path, mode, group: None, grants: None }
    }

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().expect("a directory")
    }

    #[test]
    fn the_mode_is_exact_under_any_umask_and_the_socket_goes_with_the_listener() {
        let directory = directory();
        for mode in [0o600, 0o660, 0o666] {
            let path = directory.path().join("a.sock");
            let listener = Listener::open(settings(path.clone(), mode)).expect("free");
            let found = std::fs::symlink_metadata(&path).expect("there");
            assert_eq!(found.mode() & 0o777, mode);
            UnixStream::connect(&path).expect("listening");
            drop(listener);
            assert_eq!(std::fs::read_dir(directory.path()).expect("readable").count(), 0, "nothing is left");
        }
    }

    #[test]
    fn a_second_agent_does_not_steal_a_live_socket() {
        let directory = directory();
        let path = directory.path().join("a.sock");
        let first = Listener::open(settings(path.clone(), 0o600)).expect("free");
        let error = Listener::open(settings(path.clone(), 0o600)).err().expect("taken");
        assert!(error.is_in_use(), "{error}");
        UnixStream::connect(&path).expect("the first still listens");
        drop(first);
        Listener::open(settings(path, 0o600)).expect("free again");
    }

    #[test]
    fn a_live_socket_of_another_program_is_not_stolen_either() {
        let directory = directory();
        let path = directory.path().join("a.sock");
        let _other = UnixListener::bind(&path).expect("free");
        assert!(Listener::open(settings(path, 0o600)).err().expect("taken").is_in_use());
    }

    #[test]
    fn a_stale_socket_is_replaced() {
        let directory = directory();
        let path = directory.path().join("a.sock");
        drop(UnixListener::bind(&path).expect("free"));
        Listener::open(settings(path.clone(), 0o600)).expect("the stale one is replaced");
    }

    #[test]
    fn what_is_no_socket_stays_untouched() {
        let directory = directory();
        let file = directory.path().join("file");
        std::fs::write(&file, "precious").expect("writable");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&file, &link).expect("writable");
        let folder = directory.path().join("folder");
        std::fs::create_dir(&folder).expect("writable");
        let fifo = directory.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
            .expect("writable");
        for path in [&file, &link, &folder, &fifo] {
            let error = Listener::open(settings(path.clone(), 0o600)).err().expect("refused");
            assert!(matches!(error, ListenError::NotASocket { .. }), "{error}");
        }
        assert_eq!(std::fs::read_to_string(&file).expect("there"), "precious");
        assert!(std::fs::symlink_metadata(&link).expect("there").is_symlink());
    }

    #[test]
    fn a_directory_that_everyone_may_write_to_is_refused() {
        let directory = directory();
        let shared = directory.path().join("shared");
        std::fs::create_dir(&shared).expect("writable");
        std::fs::set_permissions(&shared, PermissionsExt::from_mode(0o777)).expect("ours");
        let error = Listener::open(settings(shared.join("a.sock"), 0o600)).err().expect("refused");
        assert!(matches!(error, ListenError::UnsafeDirectory { .. }), "{error}");
    }

    #[test]
    fn a_path_longer_than_the_kernels_limit_is_refused_by_its_length() {
        let directory = directory();
        let path = directory.path().join("x".repeat(120));
        let error = Listener::open(settings(path, 0o600)).err().expect("refused").to_string();
        assert!(error.contains("at most 107"), "{error}");
    }

    #[test]
    fn a_socket_that_vanished_is_made_again_with_the_same_mode() {
        let directory = directory();
        let path = directory.path().join("own").join("a.sock");
        let mut listener = Listener::open(settings(path.clone(), 0o660)).expect("free");
        assert!(!listener.is_gone());
        std::fs::remove_dir_all(path.parent().expect("a directory")).expect("ours");
        assert!(listener.is_gone());
        listener.restore().expect("free again");
        assert_eq!(std::fs::symlink_metadata(&path).expect("there").mode() & 0o777, 0o660);
        UnixStream::connect(&path).expect("listening");
        assert!(Listener::open(settings(path, 0o600)).err().expect("taken").is_in_use());
    }

    #[test]
    fn a_socket_that_was_replaced_meanwhile_is_left_to_its_owner() {
        let directory = directory();
        let path = directory.path().join("a.sock");
        let listener = Listener::open(settings(path.clone(), 0o600)).expect("free");
        std::fs::remove_file(&path).expect("ours");
        let _other = UnixListener::bind(&path).expect("free");
        drop(listener);
        assert!(path.exists());
    }
}
