//! What protects this process while it may hold values. Nothing of it reaches the child: execve makes the new program
//! dumpable again by itself, and the core limit is put back before it.

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// The limit to put back.
pub(crate) struct Hardened {
    core: Option<Rlimit>,
}

impl Hardened {
    /// Keeps other processes of our uid out of our memory, and our memory out of core files. Only the soft limit is
    /// lowered: the hard one could not be raised again.
    pub(crate) fn begin() -> Self {
        let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
        let core = getrlimit(Resource::Core);
        if core.current == Some(0) {
            return Self { core: None };
        }
        let lowered = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: core.maximum });
        Self { core: lowered.is_ok().then_some(core) }
    }

    /// Puts the core limit back.
    pub(crate) fn end(&mut self) {
        if let Some(core) = self.core.take() {
            let _ = setrlimit(Resource::Core, core);
        }
    }
}
