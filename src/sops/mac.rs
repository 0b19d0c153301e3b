//! The MAC of a file: SHA-512 over the plaintext of its values in order, sealed with the data key.
//!
//! It binds values, not keys, types or metadata; [`super::cipher`] binds each encrypted value to its path.

use sha2::{Digest, Sha512};

/// What sops feeds first when only encrypted values are covered, so that the two kinds of MAC never agree.
const ONLY_ENCRYPTED: [u8; 32] = [
    0x8a, 0x3f, 0xd2, 0xad, 0x54, 0xce, 0x66, 0x52, 0x7b, 0x10, 0x34, 0xf3, 0xd1, 0x47, 0xbe, 0x0b, 0x0b,
    0x97, 0x5b, 0x3b, 0xf4, 0x4f, 0x72, 0xc6, 0xfd, 0xad, 0xec, 0x81, 0x76, 0xf2, 0x7d, 0x69,
];

/// The MAC of the values seen so far.
pub(super) struct Mac {
    hash: Sha512,
    only_encrypted: bool,
}

impl Mac {
    /// A MAC over all values, or over the encrypted ones only.
    pub(super) fn new(only_encrypted: bool) -> Self {
        let mut hash = Sha512::new();
        if only_encrypted {
            hash.update(ONLY_ENCRYPTED);
        }
        Self { hash, only_encrypted }
    }

    /// Takes in the plaintext of the next value, where it counts.
    pub(super) fn take(&mut self, value: &[u8], encrypted: bool) {
        if encrypted || !self.only_encrypted {
            self.hash.update(value);
        }
    }

    /// Whether it is the one that the file states, in hex.
    pub(super) fn is(self, stated: &[u8]) -> bool {
        self.hex().as_bytes().eq_ignore_ascii_case(stated)
    }

    /// As a file states it.
    pub(super) fn hex(self) -> String {
        self.hash.finalize().iter().map(|byte| format!("{byte:02X}")).collect()
    }
}
