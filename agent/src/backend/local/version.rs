//! Tells two contents of a secret apart without telling anything about either.

use std::sync::OnceLock;

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::layout::local::Document;

/// SHA-256 takes its input in blocks of so many bytes.
const BLOCK: usize = 64;

/// The key of all versions of this run of the agent: the same content has the same version however often a file is
/// opened, and nobody outside can test a guess.
fn key() -> &'static [u8; BLOCK] {
    static KEY: OnceLock<Zeroizing<[u8; BLOCK]>> = OnceLock::new();
    KEY.get_or_init(|| {
        let mut key = Zeroizing::new([0; BLOCK]);
        getrandom::fill(&mut *key).expect("the system has random bytes once it has booted");
        key
    })
}

/// Returns the version of what stands under `name`: HMAC-SHA-256 (RFC 2104), cut to 128 bits, in hexadecimal.
pub(super) fn of(document: &Document<'_>, name: &str) -> String {
    let hash = |pad: u8| {
        let padded = Zeroizing::new(key().map(|byte| byte ^ pad));
        Sha256::new().chain_update(padded.as_slice())
    };
    let mut inner = hash(0x36);
    document.feed(name, |bytes| inner.update(bytes));
    let outer = hash(0x5c).chain_update(inner.finalize());
    outer.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
