//! What keeps other processes of the same user out of the agent's memory, and the agent itself small in rights.

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
};

/// Makes this process undumpable and without core files, and gives up gaining privileges: the first statement of the
/// agent's main, before a secret can be in memory.
///
/// As much memory may be locked as the hard limit allows: cached values are, one region after the other.
///
/// After it `/proc/PID/environ` and `/proc/PID/mem` are closed to the same uid, and so are `ptrace` and `pidfd_getfd`.
///
/// Errors: the kernel's own, where a sandbox forbids these calls; trying again does not help.
pub fn harden() -> std::io::Result<()> {
    // A second line: a core that is written all the same holds no memory. Without /proc the first line stands alone.
    let _ = std::fs::write("/proc/self/coredump_filter", "0");
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    rustix::thread::set_no_new_privs(true)?;
    let locked = getrlimit(Resource::Memlock);
    // Nothing depends on it: what cannot be locked is said when it happens.
    let _ = setrlimit(Resource::Memlock, Rlimit { current: locked.maximum, maximum: locked.maximum });
    Ok(())
}

/// Gives up every capability but `kept`, for good. Called once the sockets are bound and while this process has one
/// thread: capabilities belong to threads.
///
/// A root agent loses the right to read everybody's files by it: a back-end's file must be readable by root's own uid.
///
/// Errors: the kernel's own; dropping needs no right, so there are none in practice.
pub fn drop_capabilities(kept: CapabilitySet) -> std::io::Result<()> {
    // Without CAP_SETPCAP the bounding set stays; no_new_privs makes it useless.
    for capability in CapabilitySet::all().difference(kept) {
        if remove_capability_from_bounding_set(capability).is_err() {
            break;
        }
    }
    // Kernels before 4.3 have no ambient set to clear.
    let _ = clear_ambient_capability_set();
    let current = rustix::thread::capabilities(None)?;
    let left = current.permitted.intersection(kept);
    set_capabilities(None, CapabilitySets { effective: left, permitted: left, inheritable: CapabilitySet::empty() })?;
    Ok(())
}
