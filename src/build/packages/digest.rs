//! A name that follows from content.

use std::hash::{Hash, Hasher};

use sha2::{Digest, Sha256};

/// A hasher that feeds the data of [`Hash`] implementations to SHA-256.
struct Digested(Sha256);

impl Hasher for Digested {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// No caller asks for a hash of 64 bits.
    fn finish(&self) -> u64 {
        0
    }
}

/// Thirty-two hexadecimal digits of the SHA-256 of all that is hashed.
pub(super) fn hash_of(what: &impl Hash) -> String {
    let mut digested = Digested(Sha256::new());
    what.hash(&mut digested);
    format!("{:.32x}", digested.0.finalize())
}
