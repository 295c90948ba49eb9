//! The system calls that no safe library offers, memory apart from the heap, and the allocator. The only unsafe code of
//! the agent.
#![allow(unsafe_code)]

#[cfg(feature = "plugin")]
pub(crate) mod child;
pub(crate) mod pages;
#[cfg(feature = "zenml-sql")]
pub(crate) mod sqlite_memory;
pub(crate) mod wiping;

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use rustix::io::FdFlags;

/// Gives memory that was freed back to the system: glibc keeps what lies between blocks in use. Takes some milliseconds
/// for each hundred megabytes, in which nothing can be allocated.
pub(crate) fn give_back_freed_memory() {
    // SAFETY: it may be called at any time; it takes the allocator's own locks.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Returns the supplementary groups of the process at the other end, as they were when it connected (`SO_PEERGROUPS`,
/// Linux 4.13). Empty when it has none, and where the kernel cannot tell.
pub(crate) fn peer_groups(socket: BorrowedFd<'_>) -> Vec<u32> {
    let mut groups = vec![0_u32; 64];
    loop {
        let mut bytes = libc::socklen_t::try_from(groups.len() * size_of::<u32>()).unwrap_or(libc::socklen_t::MAX);
        // SAFETY: `groups` is a live, writable buffer of at least `bytes` bytes for the whole call, `bytes` is a live
        // socklen_t, and the kernel writes at most `bytes` bytes into the buffer.
        let outcome = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        let wanted = bytes as usize / size_of::<u32>();
        if outcome == 0 {
            groups.truncate(wanted);
            return groups;
        }
        // ERANGE says how many there are; NGROUPS_MAX is 65536.
        if std::io::Error::last_os_error().raw_os_error() != Some(libc::ERANGE) || wanted <= groups.len() {
            return Vec::new();
        }
        groups.resize(wanted.min(65_536), 0);
    }
}

/// Takes over descriptor `number`, which our parent left open for us; closed on exec from now on. To be called before
/// anything else opens descriptors.
pub(crate) fn take_descriptor(number: RawFd) -> std::io::Result<OwnedFd> {
    // SAFETY: the borrow ends with this call, which asks the kernel by number; a closed one is answered with EBADF.
    rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) })?;
    // SAFETY: the descriptor is open, as was just asked, and nobody in this process owns it: it is above the standard
    // streams, and the program calls this before it opens anything, with a number that its parent passed for it.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&descriptor, FdFlags::CLOEXEC)?;
    Ok(descriptor)
}

/// Removes variables from our environment. To be called before there is a second thread.
pub(crate) fn remove_variables(names: impl Iterator<Item = &'static str>) {
    for name in names {
        // SAFETY: the program calls this at the beginning of its only thread, so nobody reads the environment meanwhile.
        #[allow(
            clippy::disallowed_methods,
            reason = "what was meant for this process alone, and no value of a secret"
        )]
        unsafe {
            std::env::remove_var(name);
        };
    }
}
