//! A hash over named fields, one after the other: what is not named is no part of it, so that a field which a later release
//! adds changes nothing.

use sha2::{Digest, Sha256};

/// A hash over fields that cannot run into each other: each is preceded by its length.
pub(super) struct NamedHash(Sha256);

impl NamedHash {
    /// A hash that differs from those of another domain.
    pub(super) fn new(domain: &str) -> Self {
        let mut hash = Self(Sha256::new());
        hash.text(domain);
        hash
    }

    /// The next field.
    pub(super) fn text(&mut self, text: &str) {
        self.0.update((text.len() as u64).to_be_bytes());
        self.0.update(text.as_bytes());
    }

    /// The next field, which may be absent: that differs from an empty one.
    pub(super) fn optional(&mut self, text: Option<&str>) {
        self.0.update([u8::from(text.is_some())]);
        self.text(text.unwrap_or_default());
    }

    /// The hash, in lower-case hexadecimal.
    pub(super) fn finish(self) -> String {
        use std::fmt::Write as _;
        self.0.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}
