//! The allocator that wipes what is given back.

use std::alloc::{GlobalAlloc, Layout, System};

/// The system's allocator, with each block overwritten before it is given back: a program that declares it as its global
/// allocator leaves no value behind in freed memory, whichever library held it.
///
/// What grows is moved, never grown in place: the old block would be freed by the C library, unwiped.
pub struct WipingAllocator;

/// Overwrites bytes that nobody reads again, where the compiler would leave that out.
pub(crate) fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    // SAFETY: no instruction at all. As far as the compiler knows it may read all memory, so the bytes must be written
    // before it; a volatile write of each byte would do the same many times slower.
    unsafe { std::arch::asm!("/* {0} */", in(reg) bytes.as_ptr(), options(nostack, preserves_flags, readonly)) };
}

// SAFETY: every block comes from `System` and goes back to it with the layout it was made with; `wipe` writes only to a
// block that is being given back, within its size.
unsafe impl GlobalAlloc for WipingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are `System`'s.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block was allocated with this size, nobody may use it any more, and bytes that were never written
        // are written here before anything reads them.
        wipe(unsafe { std::slice::from_raw_parts_mut(block, layout.size()) });
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller promises that `new_size`, rounded up to the alignment, does not overflow.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        // SAFETY: the caller promises that `new_size` is not zero.
        let new = unsafe { self.alloc(new_layout) };
        if !new.is_null() {
            // SAFETY: both blocks are live, distinct and at least this long.
            unsafe { std::ptr::copy_nonoverlapping(block, new, layout.size().min(new_size)) };
            // SAFETY: `block` was allocated here with `layout`, and the caller may not use it any more.
            unsafe { self.dealloc(block, layout) };
        }
        new
    }
}
