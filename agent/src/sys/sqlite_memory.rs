//! SQLite's memory: pages, rows and statements hold values, and SQLite asks the C library for memory, which wipes nothing.

use std::alloc::{GlobalAlloc as _, Layout, System};
use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::OnceLock;

use libsqlite3_sys::{
    SQLITE_CONFIG_LOOKASIDE, SQLITE_CONFIG_MALLOC, SQLITE_CONFIG_PAGECACHE, SQLITE_OK, sqlite3_config,
    sqlite3_mem_methods,
};

use super::wiping::wipe;

/// Before each block stands its size; the eight bytes keep the alignment that SQLite asks for.
const HEADER: usize = 8;

/// Has SQLite wipe what it frees, and keep nothing in stores of its own that it never frees. Must come before the first
/// connection of this process; false when SQLite was in use before. Calling it again changes nothing.
pub(crate) fn wipe_freed_sqlite_memory() -> bool {
    static DONE: OnceLock<bool> = OnceLock::new();
    *DONE.get_or_init(|| {
        let methods = sqlite3_mem_methods {
            xMalloc: Some(allocate),
            xFree: Some(free),
            xRealloc: Some(reallocate),
            xSize: Some(size),
            xRoundup: Some(round_up),
            xInit: Some(initialise),
            xShutdown: Some(shut_down),
            pAppData: null_mut(),
        };
        let nothing = c_int::from(0_u8);
        // SAFETY: each option is followed by the arguments that it is documented with; SQLite copies `methods` within
        // the call, and answers MISUSE where a connection was opened before. Nothing opens one at the same time: every
        // connection's options are made after this.
        unsafe {
            sqlite3_config(SQLITE_CONFIG_MALLOC, &raw const methods) == SQLITE_OK
                // Small blocks are else taken from one that a connection holds to its end.
                && sqlite3_config(SQLITE_CONFIG_LOOKASIDE, nothing, nothing) == SQLITE_OK
                // And pages from one that the cache holds.
                && sqlite3_config(SQLITE_CONFIG_PAGECACHE, null_mut::<c_void>(), nothing, nothing) == SQLITE_OK
        }
    })
}

fn layout(bytes: usize) -> Option<Layout> {
    Layout::from_size_align(bytes.checked_add(HEADER)?, HEADER).ok()
}

unsafe extern "C" fn allocate(bytes: c_int) -> *mut c_void {
    let Some((bytes, layout)) = usize::try_from(bytes).ok().and_then(|bytes| Some((bytes, layout(bytes)?))) else {
        return null_mut();
    };
    // SAFETY: the layout has at least the header's size.
    let block = unsafe { System.alloc(layout) };
    if block.is_null() {
        return null_mut();
    }
    // SAFETY: the block is aligned for a usize and has room for it before the `bytes` that are given out.
    unsafe {
        block.cast::<usize>().write(bytes);
        block.add(HEADER).cast()
    }
}

unsafe extern "C" fn free(given: *mut c_void) {
    if given.is_null() {
        return;
    }
    // SAFETY: SQLite gives back what `allocate` gave out, once: a header stands before it, with the size that the block
    // was made with. Nobody uses it any more.
    unsafe {
        let block = given.cast::<u8>().sub(HEADER);
        let bytes = block.cast::<usize>().read();
        wipe(std::slice::from_raw_parts_mut(given.cast::<u8>(), bytes));
        System.dealloc(block, Layout::from_size_align_unchecked(bytes + HEADER, HEADER));
    }
}

unsafe extern "C" fn reallocate(given: *mut c_void, bytes: c_int) -> *mut c_void {
    // SAFETY: SQLite asks with what `allocate` gave out and with a positive size; the new block is another one, and both
    // have at least as many bytes as are copied.
    unsafe {
        let new = allocate(bytes);
        if !new.is_null() {
            let kept = size(given).min(bytes);
            std::ptr::copy_nonoverlapping(given.cast::<u8>(), new.cast::<u8>(), usize::try_from(kept).unwrap_or(0));
            free(given);
        }
        new
    }
}

unsafe extern "C" fn size(given: *mut c_void) -> c_int {
    if given.is_null() {
        return 0;
    }
    // SAFETY: as in `free`.
    let bytes = unsafe { given.cast::<u8>().sub(HEADER).cast::<usize>().read() };
    c_int::try_from(bytes).unwrap_or(c_int::MAX)
}

unsafe extern "C" fn round_up(bytes: c_int) -> c_int {
    bytes.checked_add(7).map_or(bytes, |bytes| bytes & !7)
}

unsafe extern "C" fn initialise(_: *mut c_void) -> c_int {
    SQLITE_OK
}

unsafe extern "C" fn shut_down(_: *mut c_void) {}
