//! What keeps other processes of the same user out of the agent's memory.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Makes this process undumpable and without core files, and gives up gaining privileges: the first statement of the
/// agent's main, before a secret can be in memory.
///
/// After it `/proc/PID/environ` and `/proc/PID/mem` are closed to the same uid, and so are `ptrace` and `pidfd_getfd`.
///
/// Errors: the kernel's own, where a sandbox forbids these calls; trying again does not help.
pub fn harden() -> std::io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}
