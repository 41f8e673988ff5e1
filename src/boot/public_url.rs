//! Where machines reach the boot service (`--public-url`). Pure.

use std::fmt;
use std::str::FromStr;

use url::Url;

use super::token::BootToken;

/// The base of every URL that a machine is given: scheme, host and port, and a path where a proxy needs one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl(String);

/// Text that cannot be the base.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublicUrlError {
    /// Not a URL of HTTP.
    #[error(
        "{0:?} is no URL: write http://HOST[:PORT] as machines reach this service, such as http://10.0.0.5:8080"
    )]
    NotHttp(String),
    /// It says more than where.
    #[error("it has user information, a query or a fragment: write http://HOST[:PORT] alone")]
    TooMuch,
    /// Kernels take a line of arguments that is no longer than so.
    #[error("it has {0} characters, and {LONGEST} is the most, because kernels are given it twice in one line: use a shorter name", LONGEST = PublicUrl::LONGEST)]
    TooLong(usize),
    /// Characters that mean something in a boot script.
    #[error(
        "it has a character that a boot script or a kernel argument cannot carry: use letters, digits and .-_~/:[]"
    )]
    Characters,
}

impl FromStr for PublicUrl {
    type Err = PublicUrlError;

    fn from_str(text: &str) -> Result<Self, PublicUrlError> {
        let url = Url::parse(text).map_err(|_| PublicUrlError::NotHttp(text.to_owned()))?;
        let extras = url.query().is_some() || url.fragment().is_some();
        if !url.username().is_empty() || url.password().is_some() || extras {
            return Err(PublicUrlError::TooMuch);
        }
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(PublicUrlError::NotHttp(text.to_owned()));
        }
        let base = url.as_str().trim_end_matches('/');
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_~/:[]".contains(&byte);
        if base.len() > Self::LONGEST {
            return Err(PublicUrlError::TooLong(base.len()));
        }
        if base.bytes().all(plain) { Ok(Self(base.to_owned())) } else { Err(PublicUrlError::Characters) }
    }
}

impl PublicUrl {
    /// Most characters.
    pub const LONGEST: usize = 128;

    /// Where a BMC reads the medium of one session. Its token is none for what runs from the medium.
    pub fn medium(&self, token: &BootToken) -> String {
        format!("{}/boot.iso", self.session(token))
    }

    /// Where everything of one session is.
    pub(super) fn session(&self, token: &BootToken) -> String {
        format!("{}/s/{}", self.0, token.reveal())
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn a_base_has_no_slash_at_its_end() {
        for (text, base) in [
            ("http://10.0.0.5:8080", "http://10.0.0.5:8080"),
            ("https://boot.example.com/", "https://boot.example.com"),
            ("http://[2001:db8::1]:8080/boot/", "http://[2001:db8::1]:8080/boot"),
        ] {
            assert_eq!(text.parse::<PublicUrl>().unwrap().to_string(), base);
        }
    }

    #[test]
    fn what_a_script_cannot_carry_is_refused_and_no_password_is_repeated() {
        for text in [
            "",
            "10.0.0.5",
            "file:///etc/passwd",
            "http://u:canary@10.0.0.5",
            "http://10.0.0.5/?a=b",
            "http://10.0.0.5/#a",
            "http://10.0.0.5/${net0/mac}",
            "http://10.0.0.5/a;b",
        ] {
            let error = text.parse::<PublicUrl>().unwrap_err().to_string();
            assert!(!error.contains("canary"), "{error}");
        }
    }
}
