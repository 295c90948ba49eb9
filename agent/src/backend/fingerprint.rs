//! Tells two contents apart without telling anything about either: a version for places that have none of their own.

use std::sync::OnceLock;

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// SHA-256 takes its input in blocks of so many bytes.
const BLOCK: usize = 64;

/// The key of all versions of this run of the agent: the same content has the same version however often a back-end is
/// opened, and nobody outside can test a guess.
fn key() -> &'static [u8; BLOCK] {
    static KEY: OnceLock<Zeroizing<[u8; BLOCK]>> = OnceLock::new();
    KEY.get_or_init(|| {
        let mut key = Zeroizing::new([0; BLOCK]);
        getrandom::fill(&mut *key).expect("the system has random bytes once it has booted");
        key
    })
}

/// Returns the version of what `feed` passes on: HMAC-SHA-256 (RFC 2104), cut to 128 bits, in hexadecimal.
pub(super) fn of(feed: impl FnOnce(&mut dyn FnMut(&[u8]))) -> String {
    let hash = |pad: u8| {
        let padded = Zeroizing::new(key().map(|byte| byte ^ pad));
        Sha256::new().chain_update(padded.as_slice())
    };
    let mut inner = hash(0x36);
    feed(&mut |bytes| inner.update(bytes));
    let outer = hash(0x5c).chain_update(inner.finalize());
    outer.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
