//! What is on a machine's disk.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The content of a disk, as far as anybody can tell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", try_from = "String")]
pub enum Disk {
    /// Nothing: new, or wiped.
    #[default]
    Empty,
    /// Something that was not installed through the boot service, or that was not written to its end.
    Unknown,
    /// An image, whole.
    Image {
        /// Its digest: `sha256:` and 64 lower-case hexadecimal digits.
        digest: String,
    },
}

/// A text that is no disk content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("disk is '{0}': use Empty, Unknown or a digest such as sha256: and 64 hexadecimal digits")]
pub struct DiskError(String);

impl FromStr for Disk {
    type Err = DiskError;

    fn from_str(text: &str) -> Result<Self, DiskError> {
        match text {
            "Empty" | "empty" => Ok(Self::Empty),
            "Unknown" | "unknown" => Ok(Self::Unknown),
            _ => digest(text).map(|digest| Self::Image { digest }).ok_or_else(|| DiskError(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Disk {
    type Error = DiskError;

    fn try_from(text: String) -> Result<Self, DiskError> {
        text.parse()
    }
}

/// The digest in its one form; `sha256:` may be left out.
pub(super) fn digest(text: &str) -> Option<String> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    let good = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    good.then(|| format!("sha256:{}", digits.to_ascii_lowercase()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_empty_unknown_or_named_by_a_whole_digest() {
        let digits = "AB".repeat(32);
        let image = Disk::Image { digest: format!("sha256:{}", "ab".repeat(32)) };
        assert_eq!("Empty".parse(), Ok(Disk::Empty));
        assert_eq!("unknown".parse(), Ok(Disk::Unknown));
        assert_eq!(digits.parse(), Ok(image.clone()));
        assert_eq!(format!("sha256:{digits}").parse(), Ok(image));
        let error = "sha256:12".parse::<Disk>().unwrap_err().to_string();
        assert!(error.contains("sha256:12") && error.contains("Empty"), "{error}");
    }
}
