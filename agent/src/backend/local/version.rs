//! Tells two contents of a secret apart.

use super::super::fingerprint;
use crate::layout::local::Document;

/// Returns the version of what stands under `name`.
pub(super) fn of(document: &Document<'_>, name: &str) -> String {
    fingerprint::of(|update| document.feed(name, |bytes| update(bytes)))
}
