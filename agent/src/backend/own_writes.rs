//! What we wrote ourselves a moment ago: ZenML commits a change before its values, we do not.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// The versions of our last writes: their values are there, and need no second look.
#[derive(Default)]
pub(super) struct OwnWrites(Mutex<VecDeque<String>>);

impl OwnWrites {
    const MOST: usize = 64;

    /// Tells whether `version` is one of them.
    pub(super) fn contains(&self, version: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|own| own == version)
    }

    /// Adds one, in the place of the oldest.
    pub(super) fn remember(&self, version: String) {
        let mut versions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        versions.truncate(Self::MOST - 1);
        versions.push_front(version);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_writes_are_remembered_and_bounded() {
        let own = OwnWrites::default();
        for version in 0..=OwnWrites::MOST {
            own.remember(version.to_string());
        }
        assert!(own.contains("1") && own.contains(&OwnWrites::MOST.to_string()));
        assert!(!own.contains("0"), "the oldest is forgotten");
    }
}
