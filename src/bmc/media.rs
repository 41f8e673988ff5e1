//! Virtual media: images that a BMC fetches by their address and shows its machine as a CD.

use std::fmt;

use url::Url;

/// The longest address that is sent to a BMC, in bytes; many take no longer one.
const LENGTH_MAX: usize = 1024;

/// So many bytes of a part of the path may be those of a token.
const TOKEN_PART: usize = 16;

/// The address of an image for a BMC to fetch.
#[derive(Clone, PartialEq, Eq)]
pub struct ImageUrl(Url);

/// What is wrong with the address of an image. It may hold a token, so that no message repeats it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ImageUrlError {
    /// Not an address, or a long one.
    #[error(
        "the image has no usable address: write https://HOST/PATH in at most {LENGTH_MAX} bytes of ASCII"
    )]
    Odd,
    /// Another scheme.
    #[error("the address of the image has a scheme that BMCs do not fetch: write https:// or http://")]
    Scheme,
    /// A login in the address.
    #[error(
        "the address of the image has user information before an '@', which is not sent to BMCs: leave it out"
    )]
    UserInfo,
}

impl ImageUrl {
    /// Reads an address.
    pub fn parse(text: &str) -> Result<Self, ImageUrlError> {
        if text.len() > LENGTH_MAX || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(ImageUrlError::Odd);
        }
        let url = Url::parse(text).map_err(|_| ImageUrlError::Odd)?;
        if !matches!(url.scheme(), "https" | "http") {
            return Err(ImageUrlError::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(ImageUrlError::UserInfo);
        }
        Ok(Self(url))
    }

    /// The address.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether a text repeats so much of it that a token in its path would be told.
    pub(super) fn is_repeated_in(&self, text: &str) -> bool {
        let parts = self.0.path_segments().into_iter().flatten().filter_map(|part| part.get(..TOKEN_PART));
        parts.into_iter().any(|part| text.contains(part))
    }

    /// The name of its protocol in Redfish.
    pub(super) fn protocol(&self) -> &'static str {
        if self.0.scheme() == "https" { "HTTPS" } else { "HTTP" }
    }
}

impl fmt::Debug for ImageUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Its path may be a capability.
        write!(f, "ImageUrl({}://{}/…)", self.0.scheme(), self.0.host_str().unwrap_or_default())
    }
}

/// What a request needs beside its kind. It is not stored with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside<'a> {
    /// Nothing.
    Nothing,
    /// The image to insert.
    Image(&'a ImageUrl),
    /// The boot program of UEFI HTTP boot. Where a BMC has no such setting it is left out, and DHCP tells.
    BootUri(&'a ImageUrl),
    /// The boot program of UEFI HTTP boot is taken back.
    NoBootUri,
}

/// Tells whether a medium is one of the caller's, by its address where the BMC tells it.
pub type Ours<'a> = &'a (dyn Fn(Option<&str>) -> bool + Send + Sync);

/// What is in the virtual CD drive, as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Media {
    /// There is no such drive, or this backend knows none.
    NoDrive,
    /// The drive is empty.
    Empty,
    /// An image is inserted; its address, where the BMC tells it.
    Inserted(Option<String>),
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn an_image_comes_over_http_and_its_address_has_no_login() {
        for (text, expected) in [
            ("https://images.example/a.iso", Ok(())),
            ("http://192.0.2.1:8080/s/0123/a.iso", Ok(())),
            ("nfs://images.example/a.iso", Err(ImageUrlError::Scheme)),
            ("file:///etc/passwd", Err(ImageUrlError::Scheme)),
            ("https://root:calvin@images.example/a.iso", Err(ImageUrlError::UserInfo)),
            ("https://images.example/a b.iso", Err(ImageUrlError::Odd)),
            ("images.example/a.iso", Err(ImageUrlError::Odd)),
            ("", Err(ImageUrlError::Odd)),
        ] {
            assert_eq!(ImageUrl::parse(text).map(|_| ()), expected, "{text}");
        }
        assert_eq!(ImageUrl::parse(&format!("https://a/{}", "x".repeat(2000))), Err(ImageUrlError::Odd));
        let token = ImageUrl::parse("https://images.example/s/canary/a.iso").unwrap();
        assert!(!format!("{token:?}").contains("canary"));
        let token = ImageUrl::parse("https://images.example/s/0123456789abcdef0123/a.iso").unwrap();
        assert!(token.is_repeated_in("cannot fetch https://images.example/s/0123456789abcdef012…"));
        assert!(!token.is_repeated_in("cannot fetch https://images.example/"));
    }
}
