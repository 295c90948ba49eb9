//! The three things that the operating system offers only unsafely: a descriptor by number, a word to the kernel between
//! fork and exec, and a system call that no safe library has.
#![allow(unsafe_code)]

use std::os::fd::{BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::io::FdFlags;
use rustix::net::SocketType;

/// Why a number is no descriptor for embedded mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InheritError {
    /// Standard output, standard error, or no number of a descriptor at all.
    #[error("is neither standard input nor a descriptor above 2")]
    OutOfRange,
    /// Nothing is open there.
    #[error("is not open")]
    NotOpen,
    /// Something is open there that is no stream socket.
    #[error("is not a stream socket")]
    NotASocket,
}

/// Takes over descriptor `number`, which our parent opened for us: a stream socket on standard input or above the
/// standard streams. It is closed on exec from now on. To be called once, before anything else opens descriptors.
pub(crate) fn inherit_socket(number: RawFd) -> Result<OwnedFd, InheritError> {
    match number {
        0 => inherit_stdin(),
        3.. => inherit_number(number),
        _ => Err(InheritError::OutOfRange),
    }
}

/// Standard input needs no number taken on trust; /dev/null takes its place, so that the one copy is ours.
fn inherit_stdin() -> Result<OwnedFd, InheritError> {
    let stdin = std::io::stdin();
    let socket = rustix::io::fcntl_dupfd_cloexec(&stdin, 3).map_err(|_| InheritError::NotOpen)?;
    check_socket(&socket)?;
    let null = rustix::fs::open(
        "/dev/null",
        rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .map_err(|_| InheritError::NotOpen)?;
    rustix::stdio::dup2_stdin(&null).map_err(|_| InheritError::NotOpen)?;
    Ok(socket)
}

fn inherit_number(number: RawFd) -> Result<OwnedFd, InheritError> {
    // SAFETY: the borrow ends with this call, which asks the kernel by number; a closed one is answered with EBADF.
    let open = rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) });
    if open.is_err() {
        return Err(InheritError::NotOpen);
    }
    // SAFETY: the descriptor is open, as was just asked, and nobody in this process owns it: the program calls this
    // before it opens anything, with the number that its parent passed for this purpose.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    match check_socket(&socket)
        .and_then(|()| rustix::io::fcntl_setfd(&socket, FdFlags::CLOEXEC).map_err(|_| InheritError::NotOpen))
    {
        Ok(()) => Ok(socket),
        Err(error) => {
            // Not what was promised, so not ours to close.
            std::mem::forget(socket);
            Err(error)
        }
    }
}

fn check_socket(socket: &OwnedFd) -> Result<(), InheritError> {
    match rustix::net::sockopt::socket_type(socket) {
        Ok(SocketType::STREAM) => Ok(()),
        _ => Err(InheritError::NotASocket),
    }
}

/// Makes the child of `command` get SIGTERM when the thread that spawns it ends, however that comes about.
pub(crate) fn end_with_parent(command: &mut Command) {
    let parent = rustix::process::getpid();
    let arm = move || {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
        // The parent may have died before the line above.
        if rustix::process::getppid() != Some(parent) {
            return Err(rustix::io::Errno::SRCH.into());
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes two raw system calls through rustix; it neither allocates nor
    // takes a lock.
    unsafe { command.pre_exec(arm) };
}

/// Tells whether the kernel gives this process memory that it does not map itself; the descriptor is closed at once.
pub(crate) fn has_secret_memory() -> bool {
    // SAFETY: a system call with one plain number and no pointer; what it returns is checked before it is taken for a
    // descriptor.
    let fd = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    match i32::try_from(fd) {
        Ok(fd) if fd >= 0 => {
            // SAFETY: the kernel has just made this descriptor for us, and nobody else knows its number.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::IntoRawFd as _;

    use super::*;

    #[test]
    fn only_an_open_stream_socket_is_taken() {
        assert_eq!(inherit_socket(-1).err(), Some(InheritError::OutOfRange));
        assert_eq!(inherit_socket(2).err(), Some(InheritError::OutOfRange));
        assert_eq!(inherit_socket(1_000_000).err(), Some(InheritError::NotOpen));
        let file = tempfile::tempfile().expect("a file").into_raw_fd();
        assert_eq!(inherit_socket(file).err(), Some(InheritError::NotASocket));
        let (socket, _peer) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let taken = inherit_socket(socket.into_raw_fd()).expect("a socket");
        assert!(rustix::io::fcntl_getfd(&taken).expect("flags").contains(FdFlags::CLOEXEC));
    }
}
