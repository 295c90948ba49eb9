//! What a child must have done between fork and exec, and how its end is noticed.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::{
    Resource, Rlimit, Signal, getpid, getppid, getrlimit, set_parent_process_death_signal, setrlimit,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// As many descriptors as programs expect to have: `select` knows no others, and some close all that there may be.
const USUAL_DESCRIPTORS: u64 = 1024;

/// Has the child of `command` killed when the thread that starts it ends, gives it none of our descriptors beside its
/// standard streams, and takes our raised limit of descriptors back.
///
/// The kernel ties the first to the thread, not to the process: it must be one that lives as long as the child is
/// wanted.
pub(crate) fn tie_to_us(command: &mut Command) {
    let parent = getpid();
    let before_exec = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // It ended before the line above: nobody would tell us any more.
        if getppid() != Some(parent) {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        let limit = getrlimit(Resource::Nofile);
        if limit.current.is_none_or(|current| current > USUAL_DESCRIPTORS) {
            let usual = limit.maximum.map_or(USUAL_DESCRIPTORS, |most| most.min(USUAL_DESCRIPTORS));
            setrlimit(Resource::Nofile, Rlimit { current: Some(usual), maximum: limit.maximum })?;
        }
        close_all_at_exec();
        Ok(())
    };
    // SAFETY: between fork and exec only what is async-signal-safe may be called. The closure makes plain system calls,
    // takes no lock and allocates nothing: an error made of a number holds no memory.
    unsafe { command.pre_exec(before_exec) };
}

/// Ours are closed on exec one by one already; this is for what a library may have forgotten.
fn close_all_at_exec() {
    const FIRST: libc::c_uint = 3;
    // SAFETY: no memory is passed. With CLOSE_RANGE_CLOEXEC nothing is closed before exec, the pipe by which the standard
    // library tells of a failed exec included. Before Linux 5.11 it is refused, and the flags of each one stand alone.
    unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

/// Has the runtime tell when `descriptor` is readable.
pub(crate) fn watched(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` has the one number for all its life and is closed by nobody else; what is returned owns it
    // until it is dropped, and forgets it with the runtime before that.
    unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }.map_err(|error| error.into_parts().1)
}
