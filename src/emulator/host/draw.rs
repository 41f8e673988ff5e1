//! Chance that is the same in every run.

use sha2::{Digest, Sha256};

/// A number below `below` that follows from the seed, the system and what it is for.
pub(in crate::emulator) fn draw(seed: u64, system: &str, purpose: &[u64], below: u64) -> u64 {
    let mut hash = Sha256::new();
    hash.update(seed.to_be_bytes());
    for number in purpose {
        hash.update(number.to_be_bytes());
    }
    hash.update(system.as_bytes());
    let bytes: [u8; 32] = hash.finalize().into();
    let (first, _) = bytes.split_at(8);
    first.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte)) % below.max(1)
}
