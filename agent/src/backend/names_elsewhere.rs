//! What ZenML 0.55 and later keeps in a place, met by a back-end that looks for names there.

use std::sync::atomic::{AtomicBool, Ordering};

/// Whether its operator was told.
#[derive(Default)]
pub(super) struct NamesElsewhere(AtomicBool);

impl NamesElsewhere {
    /// Warns, once, where `secrets` of them were met.
    pub(super) fn tell(&self, backend: &str, secrets: usize) {
        if secrets > 0 && !self.0.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                backend,
                secrets,
                "ZenML 0.55 and later keeps the names of these elsewhere: name this back-end as `values` of one of type \"zenml-sql\", or read by way of ZenML's server"
            );
        }
    }
}
