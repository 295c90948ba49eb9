//! The system calls that no safe library offers, memory apart from the heap, and the allocator. The only unsafe code of
//! the agent.
#![allow(unsafe_code)]

pub(crate) mod pages;
#[cfg(feature = "zenml-sql")]
pub(crate) mod sqlite_memory;
pub(crate) mod wiping;

use std::os::fd::{AsRawFd, BorrowedFd};

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
