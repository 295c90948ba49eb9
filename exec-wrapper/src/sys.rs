//! The system calls that neither std nor rustix offers as safe functions. All unsafe code of this crate is here.
#![allow(unsafe_code, reason = "each function is one thin safe door to the kernel, with its argument beside it")]

use std::ffi::{CStr, c_char, c_int};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// Bit N is set when descriptor N (0 to 2) was closed when this program was started.
static CLOSED_STDIO: AtomicU8 = AtomicU8::new(0);
/// Whether SIGPIPE was ignored when this program was started.
static SIGPIPE_IGNORED: AtomicBool = AtomicBool::new(false);

/// Runs before Rust's runtime, which opens /dev/null over closed stdio and ignores SIGPIPE: the child must see neither.
#[used]
#[unsafe(link_section = ".init_array")]
static RECORD_INHERITED_STATE: extern "C" fn() = record_inherited_state;

extern "C" fn record_inherited_state() {
    let mut stdio = [0, 1, 2].map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
    // SAFETY: `stdio` is an array of three initialised pollfd, and the count says three; time-out 0 does not block.
    if unsafe { libc::poll(stdio.as_mut_ptr(), 3, 0) } > 0 {
        let closed = stdio.iter().enumerate().filter(|(_, entry)| entry.revents & libc::POLLNVAL != 0);
        CLOSED_STDIO.store(closed.fold(0, |bits, (fd, _)| bits | 1 << fd), Ordering::Relaxed);
    }
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: a null new action only asks; `action` is a writable sigaction, and all-zero is a valid one.
    let ignored = unsafe {
        libc::sigaction(libc::SIGPIPE, ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    };
    SIGPIPE_IGNORED.store(ignored, Ordering::Relaxed);
}

/// Returns which of the descriptors 0 to 2 were closed when this program was started.
pub(crate) fn closed_stdio() -> impl Iterator<Item = i32> {
    let bits = CLOSED_STDIO.load(Ordering::Relaxed);
    (0..3).filter(move |fd| bits & (1 << fd) != 0)
}

/// Makes sure that descriptors that were closed at the start hold /dev/null while we run, so that nothing of ours is
/// ever mistaken for stdio, and that they are closed again in the child.
pub(crate) fn hold_closed_stdio() {
    for fd in closed_stdio() {
        // SAFETY: fcntl on a number only; a closed descriptor is reported, not touched.
        let open = unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0;
        if open {
            // SAFETY: as above; the descriptor is the runtime's own /dev/null, which nobody else closes.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        } else {
            // The lowest free number is taken: with 0 closed it is 0, and the loop goes upwards.
            // SAFETY: a constant NUL-terminated path; the descriptor is meant to stay open until execve.
            unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
        }
    }
}

/// `handler` is SIG_DFL, SIG_IGN or a function that is async-signal-safe.
fn set_action(signal: c_int, handler: libc::sighandler_t) {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: an all-zero sigaction is valid (empty mask, no flags); only the handler is set, to one of the above.
    unsafe {
        (*action.as_mut_ptr()).sa_sigaction = handler;
        libc::sigaction(signal, action.as_ptr(), ptr::null_mut());
    }
}

fn set_sigpipe(handler: libc::sighandler_t) {
    set_action(libc::SIGPIPE, handler);
}

/// Ignores SIGPIPE: a reader of stderr that went away must not end us before the exit code is said.
pub(crate) fn ignore_sigpipe() {
    set_sigpipe(libc::SIG_IGN);
}

/// Gives SIGPIPE the disposition it had when this program was started.
pub(crate) fn restore_sigpipe() {
    set_sigpipe(if SIGPIPE_IGNORED.load(Ordering::Relaxed) { libc::SIG_IGN } else { libc::SIG_DFL });
}

/// While it lives, a write beyond the limit of file sizes fails instead of ending this process by SIGXFSZ. Dropped, it
/// leaves the disposition as it was.
pub(crate) struct FileSizeFails(Option<libc::sigaction>);

impl FileSizeFails {
    /// Begins.
    pub(crate) fn begin() -> Self {
        let mut ignored = MaybeUninit::<libc::sigaction>::zeroed();
        let mut before = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: an all-zero sigaction is valid (empty mask, no flags), and only its handler is set, to a constant;
        // `before` is a writable one, written by the call.
        Self(unsafe {
            (*ignored.as_mut_ptr()).sa_sigaction = libc::SIG_IGN;
            let set = libc::sigaction(libc::SIGXFSZ, ignored.as_ptr(), before.as_mut_ptr()) == 0;
            set.then(|| before.assume_init())
        })
    }
}

impl Drop for FileSizeFails {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // SAFETY: what the kernel told us itself.
            unsafe { libc::sigaction(libc::SIGXFSZ, before, ptr::null_mut()) };
        }
    }
}

/// Tells whether this process is PID 1 of its namespace.
pub(crate) fn is_pid_one() -> bool {
    // SAFETY: no arguments, no failure.
    unsafe { libc::getpid() == 1 }
}

/// Returns the environment block as the kernel gave it, entry by entry, those without `=` and repeated ones too.
pub(crate) fn inherited_environment() -> Vec<&'static CStr> {
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    let mut entries = Vec::new();
    // SAFETY: `environ` is null or a null-terminated array of NUL-terminated strings. Nothing in this single-threaded
    // program calls setenv or putenv (clippy.toml forbids it), so array and strings stay as they are until execve.
    unsafe {
        let mut at = environ;
        while !at.is_null() && !(*at).is_null() {
            entries.push(CStr::from_ptr(*at));
            at = at.add(1);
        }
    }
    entries
}

/// Returns the uid of the process at the other end of a Unix socket. (rustix has no room for a peer with pid 0,
/// which is what a process of another pid namespace has.)
pub(crate) fn peer_uid(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut credentials = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: `credentials` is a writable ucred and `length` says its size.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(credentials.uid) } else { Err(io::Error::last_os_error()) }
}

/// Replaces this process; returns only on failure.
pub(crate) fn execve(path: &CStr, argv: &[&CStr], environment: &[&CStr]) -> io::Error {
    let pointers = |strings: &[&CStr]| -> Vec<*const c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
    };
    let (argv, environment) = (pointers(argv), pointers(environment));
    // SAFETY: a NUL-terminated path and two null-terminated arrays of NUL-terminated strings, all alive across the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

/// Gives this process a mount namespace of its own, a copy of the one it had.
pub(crate) fn unshare_mounts() -> Result<(), rustix::io::Errno> {
    // SAFETY: what is dangerous about unshare is a descriptor table that another thread still believes in; this flag
    // leaves the table alone, and this program has one thread.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }
}

/// The signals that ask a program to end.
const ENDING: [c_int; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT];

/// While it lives, the signals that ask a program to end do end this one, although it is PID 1: there the kernel drops
/// those that have no handler. Dropped, it leaves every disposition as it was.
pub(crate) struct EndingAsPidOne(Vec<c_int>);

impl EndingAsPidOne {
    /// Begins; does nothing for any other process, which these signals end anyway. A signal that is ignored or blocked
    /// stays so.
    pub(crate) fn begin() -> Self {
        if !is_pid_one() {
            return Self(Vec::new());
        }
        let is_default = |signal: &c_int| {
            let mut action = MaybeUninit::<libc::sigaction>::zeroed();
            // SAFETY: a null new action only asks; `action` is a writable sigaction, and all-zero is a valid one.
            unsafe {
                libc::sigaction(*signal, ptr::null(), action.as_mut_ptr()) == 0
                    && action.assume_init().sa_sigaction == libc::SIG_DFL
            }
        };
        let taken: Vec<c_int> = ENDING.into_iter().filter(is_default).collect();
        for &signal in &taken {
            set_action(signal, end_by_signal as extern "C" fn(c_int) as libc::sighandler_t);
        }
        Self(taken)
    }
}

impl Drop for EndingAsPidOne {
    fn drop(&mut self) {
        for &signal in &self.0 {
            set_action(signal, libc::SIG_DFL);
        }
    }
}

/// The handler: says why, and ends as a shell would tell of a process that was ended so.
extern "C" fn end_by_signal(signal: c_int) {
    const SAID: &[u8] = b"keyside: ended by a signal while waiting for the agent; the command was not started\n";
    // SAFETY: write and _exit are async-signal-safe; the buffer is a constant and its length is its own.
    unsafe {
        libc::write(2, SAID.as_ptr().cast(), SAID.len());
        libc::_exit(128 + signal)
    }
}

/// Becomes `uid` and `gid` for good, without supplementary groups.
pub(crate) fn become_user(uid: u32, gid: u32) -> io::Result<()> {
    let checked = |result: c_int| if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    // SAFETY: plain numbers; a null list with length 0 clears the groups. Groups first: afterwards we may not.
    checked(unsafe { libc::setgroups(0, ptr::null()) })?;
    // SAFETY: plain numbers.
    checked(unsafe { libc::setresgid(gid, gid, gid) })?;
    // SAFETY: plain numbers.
    checked(unsafe { libc::setresuid(uid, uid, uid) })
}

/// Forks a process that no `wait` of ours or of the child-to-be will see: it sends no SIGCHLD when it ends, so none is
/// left pending for a step that was started with SIGCHLD blocked.
///
/// Returns the new pid, or 0 in the new process.
fn fork_silently() -> io::Result<libc::pid_t> {
    // SAFETY: clone with no flags is fork with exit signal 0. This program has one thread, so the copy may allocate
    // and lock as before; glibc's cached thread id is stale in the copy, and nothing there uses it.
    let pid = unsafe { libc::syscall(libc::SYS_clone, 0, 0, 0, 0, 0) };
    if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(pid as libc::pid_t) }
}

/// Makes `kept` the descriptors 0 to 2 of this process and closes everything else.
fn keep_only(kept: [BorrowedFd<'_>; 3]) {
    for (target, fd) in kept.iter().enumerate() {
        // SAFETY: numbers only. `kept` are above 2, since 0 to 2 are always taken in this program, so no dup2
        // overwrites a later source.
        unsafe { libc::dup2(fd.as_raw_fd(), target as c_int) };
    }
    // SAFETY: closes descriptors that this copy of the process never uses again.
    if unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) } != 0 {
        // Kernels before 5.9.
        for fd in 3..4096 {
            // SAFETY: as above.
            unsafe { libc::close(fd) };
        }
    }
}

/// Leaves the session, resets every signal to its default, unblocks all, and ignores those that a service manager or
/// a terminal sends to everybody: the cleaner ends when the step ends, not before.
fn detach_from_session_and_signals() {
    // SAFETY: no pointers but to local, initialised values; SIG_DFL and SIG_IGN need no handler. setsid cannot fail
    // in a fresh fork, which leads no process group.
    unsafe {
        libc::setsid();
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        for signal in 1..=64 {
            let ignored = matches!(signal, libc::SIGTERM | libc::SIGINT | libc::SIGHUP | libc::SIGQUIT);
            (*action.as_mut_ptr()).sa_sigaction = if ignored { libc::SIG_IGN } else { libc::SIG_DFL };
            libc::sigaction(signal, action.as_ptr(), ptr::null_mut());
        }
        let mut none = MaybeUninit::<libc::sigset_t>::zeroed();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
    }
}

/// Forks a process that shares nothing with us but `kept`, which become its descriptors 0 to 2, and that lives `life`,
/// which never returns into code that believes to own what was closed. Returns once it is detached. With `orphan` it is
/// forked twice, so that it is nobody's child here; without (as PID 1, to whom every orphan comes back) it stays a
/// child that an ordinary `wait` does not see.
pub(crate) fn fork_detached(
    kept: [BorrowedFd<'_>; 3],
    orphan: bool,
    life: fn(&CStr) -> !,
    name: &CStr,
) -> io::Result<()> {
    let pid = fork_silently()?;
    if pid == 0 {
        keep_only(kept);
        detach_from_session_and_signals();
        match if orphan { fork_silently() } else { Ok(0) } {
            Ok(0) => life(name),
            Ok(_) => exit_now(0),
            Err(_) => exit_now(1),
        }
    }
    if !orphan {
        return Ok(());
    }
    let mut status = 0;
    loop {
        // SAFETY: `status` is writable; __WALL is needed for a child without exit signal.
        if unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) } == pid {
            break;
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINTR) {
            return Err(error);
        }
    }
    if status == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EAGAIN)) }
}

/// Ends this process at once: no destructor, no atexit handler.
pub(crate) fn exit_now(code: u8) -> ! {
    // SAFETY: _exit never returns and touches no memory of ours.
    unsafe { libc::_exit(c_int::from(code)) }
}

/// Takes back a SIGCHLD that our own, already reaped child left pending because the caller blocks that signal.
pub(crate) fn drop_pending_sigchld() {
    // SAFETY: local, initialised values; a zero time-out makes sigtimedwait a poll. A signal that is not blocked is
    // never pending here, and then nothing is taken.
    unsafe {
        let mut blocked = MaybeUninit::<libc::sigset_t>::zeroed();
        libc::sigprocmask(libc::SIG_BLOCK, ptr::null(), blocked.as_mut_ptr());
        if libc::sigismember(blocked.as_ptr(), libc::SIGCHLD) == 1 {
            let mut child = MaybeUninit::<libc::sigset_t>::zeroed();
            libc::sigemptyset(child.as_mut_ptr());
            libc::sigaddset(child.as_mut_ptr(), libc::SIGCHLD);
            let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            libc::sigtimedwait(child.as_ptr(), ptr::null_mut(), &raw const now);
        }
    }
}
