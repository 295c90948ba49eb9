//! The cleaner: a tiny process that outlives us and empties the step's directory when the step has ended.
//!
//! It is forked before any value is fetched, so there is none in its memory. It waits on a pidfd of our own process,
//! which becomes the step, or ends because the launch failed: either way the directory goes.

use std::ffi::{CStr, CString};
use std::os::fd::AsFd as _;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::AtFlags;
use rustix::process::{PidfdFlags, getpid, pidfd_open};
use rustix::stdio::{stderr, stdin, stdout};

use crate::files::{self, Directory};
use crate::report::Complaint;
use crate::sys;

/// Starts the cleaner of `directory`. Returns once it is detached.
pub(crate) fn start(directory: &Directory) -> Result<(), Complaint> {
    let (base, fd, name) = directory.handles();
    let started = (|| {
        let pidfd = pidfd_open(getpid(), PidfdFlags::empty())?;
        // PID 1 adopts every orphan: its cleaner stays a child that no ordinary wait of the step sees.
        let orphan = getpid().as_raw_nonzero().get() != 1;
        let name = CString::new(name)?;
        sys::fork_detached([pidfd.as_fd(), base, fd], orphan, clean_when_the_step_has_ended, &name)
    })();
    started.map_err(|error: std::io::Error| {
        files::empty(fd, 0);
        let _ = rustix::fs::unlinkat(base, name, AtFlags::REMOVEDIR);
        Complaint::new(
            format!("cannot start the cleaner of the files directory: {}", error.kind()),
            "the kernel must have pidfd_open (5.3), and a process limit must leave room for one more",
        )
    })
}

/// The cleaner's whole life. Its descriptors are 0: the pidfd, 1: the base, 2: the directory, whose lock it holds.
fn clean_when_the_step_has_ended(name: &CStr) -> ! {
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    let _ = rustix::thread::set_name(c"keyside-cleaner");
    // Keeps no file system busy.
    let _ = rustix::process::chdir("/");
    while poll(&mut [PollFd::from_borrowed_fd(stdin(), PollFlags::IN)], None).is_err() {}
    files::empty(stderr(), 0);
    let _ = rustix::fs::unlinkat(stdout(), name, AtFlags::REMOVEDIR);
    sys::exit_now(0)
}
