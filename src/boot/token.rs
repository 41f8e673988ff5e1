//! The token of a boot session: 256 bits of chance in the path of everything that a machine asks for. Only its SHA-256
//! is stored.

use std::fmt;

use rand::TryRngCore as _;
use rand::rngs::OsRng;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// A token. Shown to one machine, and to nobody else: it has no `Debug` that tells it.
#[derive(Clone, PartialEq, Eq)]
pub struct BootToken(String);

impl fmt::Debug for BootToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BootToken(…)")
    }
}

/// The system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random bytes: {0}")]
pub struct NoChance(String);

impl BootToken {
    /// A new one, from the system's randomness.
    pub fn generate() -> Result<Self, NoChance> {
        let mut bytes = [0; 32];
        OsRng.try_fill_bytes(&mut bytes).map_err(|error| NoChance(error.to_string()))?;
        Ok(Self(hexadecimal(&bytes)))
    }

    /// Reads the token of a path: 64 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        (text.len() == 64 && text.bytes().all(digit)).then(|| Self(text.to_owned()))
    }

    /// The token as it stands in a URL.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }

    /// What is stored of it.
    pub fn hash(&self) -> TokenHash {
        TokenHash(Sha256::digest(self.0.as_bytes()).into())
    }
}

/// SHA-256 of a token's text. Compared in constant time.
#[derive(Debug, Clone, Copy, Eq)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// A stored one.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The stored form: 64 lower-case hexadecimal digits.
    pub fn to_hex(&self) -> String {
        hexadecimal(&self.0)
    }

    /// What is stored.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for TokenHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn each_token_is_another_one_of_64_digits_and_never_shown() {
        let (a, b) = (BootToken::generate().unwrap(), BootToken::generate().unwrap());
        assert_ne!(a.reveal(), b.reveal());
        assert_eq!(BootToken::parse(a.reveal()), Some(a.clone()));
        assert!(!format!("{a:?}").contains(a.reveal()));
    }

    #[test]
    fn the_hash_is_that_of_the_text() {
        let token = BootToken::parse(&"0".repeat(64)).unwrap();
        let known = "60e05bd1b195af2f94112fa7197a5c88289058840ce7c6df9693756bc6250f55";
        assert_eq!(hexadecimal(token.hash().as_bytes()), known);
        assert_eq!(token.hash(), TokenHash::new(*token.hash().as_bytes()));
        assert_ne!(token.hash(), BootToken::parse(&"1".repeat(64)).unwrap().hash());
    }

    #[test]
    fn other_text_is_no_token() {
        for text in ["", &"0".repeat(63), &"0".repeat(65), &"G".repeat(64), &"A".repeat(64)] {
            assert!(BootToken::parse(text).is_none(), "{text}");
        }
    }
}
