//! How many connections there is room for, by the descriptors that this process may have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Most connections beyond their limit that are let in for a probe.
const LARGEST_RESERVE: usize = 16;

/// Shares of the descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Connections of one uid at most: half, so that one user alone takes nothing from another.
    pub per_uid: usize,
    /// Connections of all together: five eighths. The rest is for listeners, back-ends, files and the reserve.
    pub total: usize,
    /// Connections beyond those, for probes of life only.
    pub reserve: usize,
}

impl Capacity {
    /// The shares of so many descriptors.
    pub fn of(descriptors: usize) -> Self {
        Self {
            per_uid: (descriptors / 2).max(1),
            total: (descriptors / 8 * 5).max(1),
            reserve: (descriptors / 16).clamp(1, LARGEST_RESERVE),
        }
    }

    /// Raises this process's limit of descriptors as far as it may, and shares them out. A limit that cannot be raised is
    /// shared out as it is.
    pub fn raise() -> Self {
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        let descriptors = match setrlimit(Resource::Nofile, raised) {
            Ok(()) => limit.maximum,
            Err(error) => {
                tracing::warn!(%error, "the limit of descriptors cannot be raised");
                limit.current
            }
        };
        // None is without limit.
        Self::of(descriptors.and_then(|descriptors| usize::try_from(descriptors).ok()).unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_uid_never_has_all_and_something_is_always_left_for_others_and_for_back_ends() {
        for descriptors in [24, 48, 64, 256, 1024, 524_288, usize::MAX] {
            let Capacity { per_uid, total, reserve } = Capacity::of(descriptors);
            assert!(per_uid < total && total + reserve < descriptors, "{descriptors}");
            assert!((1..=16).contains(&reserve));
        }
        assert_eq!(Capacity::of(64), Capacity { per_uid: 32, total: 40, reserve: 4 });
        assert_eq!(Capacity::of(1024), Capacity { per_uid: 512, total: 640, reserve: 16 });
        assert_eq!(Capacity::of(0), Capacity { per_uid: 1, total: 1, reserve: 1 }, "absurd, but no agent without any");
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        Capacity::raise();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
