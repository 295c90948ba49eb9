//! Pages of memory apart from the heap, for secret values: in no core file, in no child, locked where that is allowed.

use std::ffi::c_void;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::fs::ftruncate;
use rustix::mm::{Advice, MapFlags, MlockFlags, ProtFlags, madvise, mlock_with, mmap, mmap_anonymous, munmap};

/// No machine has larger ones.
const LARGEST_PAGE: usize = 64 * 1024;

/// How well pages are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeping {
    /// `memfd_secret`: never swapped, and not even the kernel maps them (Linux 5.14).
    Secret,
    /// Never swapped.
    Locked,
    /// May be swapped: the limit on locked memory is reached.
    Unlocked,
}

/// One mapping, unmapped when the last [`Span`] of it is dropped.
struct Pages<H> {
    start: NonNull<u8>,
    bytes: usize,
    home: H,
}

// SAFETY: the mapping is plain memory that belongs to no thread; who may touch which bytes is decided by `Span`.
unsafe impl<H: Send> Send for Pages<H> {}
// SAFETY: as above; `Pages` itself gives no access to its bytes.
unsafe impl<H: Sync> Sync for Pages<H> {}

impl<H> Drop for Pages<H> {
    fn drop(&mut self) {
        // SAFETY: the range is exactly the mapping that `map` made, and with the last span nobody can reach it.
        // An error leaves it mapped, which harms nobody.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// The exclusive right to a range of bytes in one mapping. The spans of a mapping never overlap: each is split off
/// another, and only neighbours are joined. All spans of a mapping have one home `H`: whom to give them back to.
pub(crate) struct Span<H> {
    pages: Arc<Pages<H>>,
    start: u32,
    bytes: u32,
}

impl<H> Span<H> {
    /// Maps at least `bytes` bytes of zeroes, rounded up to what is whole pages on every machine.
    ///
    /// Errors: the kernel's own, when there is no memory, and for 2 GiB or more.
    pub(crate) fn map(bytes: usize, home: H) -> io::Result<(Self, Keeping)> {
        let bytes = bytes.max(1).next_multiple_of(LARGEST_PAGE);
        let length = u32::try_from(bytes).ok().filter(|length| *length <= 1 << 31);
        let length = length.ok_or(io::ErrorKind::OutOfMemory)?;
        let (start, keeping) = match map_secret(bytes) {
            Ok(start) => (start, Keeping::Secret),
            Err(_) => map_anonymous(bytes)?,
        };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let pages = Pages { start, bytes, home };
        // SAFETY: the range is a mapping of ours; the advice changes nothing that this process sees. Kernels since 2.5.
        let _ = unsafe { madvise(start.as_ptr().cast(), bytes, Advice::LinuxDontFork) };
        Ok((Self { pages: Arc::new(pages), start: 0, bytes: length }, keeping))
    }

    /// Returns what its mapping was made for.
    pub(crate) fn home(&self) -> &H {
        &self.pages.home
    }

    /// Returns the number of bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes as usize
    }

    /// Returns where it begins: orders the spans of one mapping, and those of different mappings somehow.
    pub(crate) fn address(&self) -> usize {
        self.pages.start.as_ptr() as usize + self.start as usize
    }

    /// Tells whether it is all of its mapping.
    pub(crate) fn is_whole(&self) -> bool {
        self.len() == self.pages.bytes
    }

    /// Keeps the first `bytes` bytes and returns the rest.
    ///
    /// # Panics
    /// When it has fewer.
    pub(crate) fn split_off(&mut self, bytes: usize) -> Self {
        let kept = u32::try_from(bytes).ok().filter(|kept| *kept <= self.bytes).expect("it has as many bytes");
        let rest = Self { pages: Arc::clone(&self.pages), start: self.start + kept, bytes: self.bytes - kept };
        self.bytes = kept;
        rest
    }

    /// Takes in `next` where that begins at its own end in the same mapping, else gives it back.
    pub(crate) fn join(&mut self, next: Self) -> Result<(), Self> {
        if !Arc::ptr_eq(&self.pages, &next.pages) || self.start + self.bytes != next.start {
            return Err(next);
        }
        self.bytes += next.bytes;
        Ok(())
    }

    /// Returns its bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the range lies in a live mapping of readable, initialised bytes (the kernel's zeroes at first) that
        // this span keeps alive; no other span overlaps it, so nobody writes there while it is borrowed.
        unsafe { std::slice::from_raw_parts(self.pages.start.as_ptr().add(self.start as usize), self.len()) }
    }

    /// Returns its bytes to be written.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; the span is borrowed exclusively, so the range is too.
        unsafe { std::slice::from_raw_parts_mut(self.pages.start.as_ptr().add(self.start as usize), self.len()) }
    }
}

/// Maps a `memfd_secret`: locked and left out of core files by its nature.
fn map_secret(bytes: usize) -> io::Result<*mut c_void> {
    const CLOSE_ON_EXEC: libc::c_uint = libc::O_CLOEXEC as libc::c_uint;
    // SAFETY: the call takes one number and returns a new descriptor or an error.
    let descriptor = unsafe { libc::syscall(libc::SYS_memfd_secret, CLOSE_ON_EXEC) };
    let descriptor = i32::try_from(descriptor).ok().filter(|descriptor| *descriptor >= 0);
    let descriptor = descriptor.ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just made it for us.
    let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
    ftruncate(&descriptor, bytes as u64)?;
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice; nobody else has the descriptor, so nobody else
    // changes the bytes or the size. It stays mapped when the descriptor is closed.
    Ok(unsafe { mmap(std::ptr::null_mut(), bytes, protection, MapFlags::SHARED, &descriptor, 0) }?)
}

fn map_anonymous(bytes: usize) -> io::Result<(*mut c_void, Keeping)> {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new private mapping at an address of the kernel's choice.
    let start = unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, protection, MapFlags::PRIVATE) }?;
    // SAFETY: the range is the mapping just made; the advice changes nothing that this process sees.
    let _ = unsafe { madvise(start, bytes, Advice::LinuxDontDump) };
    // On fault: only pages that are used take memory.
    // SAFETY: the range is the mapping just made; locking changes nothing in it.
    let locked = unsafe { mlock_with(start, bytes, MlockFlags::ONFAULT) };
    Ok((start, if locked.is_ok() { Keeping::Locked } else { Keeping::Unlocked }))
}
