//! Where files may be downloaded from (`--http-source`). Pure.

use std::net::IpAddr;
use std::str::FromStr;

use url::{Host, Url};

/// A host that may be asked over plain HTTP, and that others may redirect to: `HOST[:PORT]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    host: Host<String>,
    port: Option<u16>,
}

/// Text that names no host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no host: write HOST or HOST:PORT, such as mirror.example.com:8080 or [2001:db8::1]")]
pub struct NotASource(String);

impl FromStr for Source {
    type Err = NotASource;

    fn from_str(text: &str) -> Result<Self, NotASource> {
        let wrong = || NotASource(text.to_owned());
        let outside = text.rfind(']').map_or(text, |end| text.get(end..).unwrap_or_default());
        let (host, port) = match outside.rsplit_once(':') {
            None => (text, None),
            Some((_, port)) => {
                let host = text.get(..text.len() - port.len() - 1).ok_or_else(wrong)?;
                (host, Some(port.parse::<u16>().map_err(|_| wrong())?))
            }
        };
        Ok(Self { host: Host::parse(host).map_err(|_| wrong())?, port })
    }
}

/// What an address is that only the operator may name, such as loopback; `None`: an ordinary one.
pub type SpecialAddress = fn(IpAddr) -> Option<&'static str>;

/// What the operator allows.
#[derive(Debug, Clone)]
pub struct Sources {
    listed: Vec<Source>,
    special: SpecialAddress,
}

/// A URL that is not asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceRefused {
    /// Not a URL with a host.
    #[error("the URL cannot be read: write https://HOST[:PORT]/PATH")]
    Unreadable,
    /// It has a user name or a password.
    #[error("the URL has user information: serve the file without a password, its sha256 protects it")]
    UserInformation,
    /// Neither https nor http.
    #[error("the scheme {0:?} is not spoken: use https")]
    Scheme(String),
    /// Plain HTTP from a host that is not listed.
    #[error("http from {0:?} is not allowed: use https, or let the operator allow it with --http-source")]
    PlainHttp(String),
    /// A redirect to another host.
    #[error(
        "the server redirects to {0:?}, another host: name that one, or let the operator allow it with --http-source"
    )]
    Redirect(String),
    /// An address of this host, of its neighbours or of a cloud's metadata.
    #[error(
        "{host:?} leads to {address}, which is {range}: name a host that is not, or let the operator allow it with --http-source"
    )]
    Address {
        /// The host.
        host: String,
        /// Its address.
        address: IpAddr,
        /// What the address is.
        range: &'static str,
    },
}

impl Sources {
    /// The hosts of `--http-source`, and what tells addresses that no other host may have.
    pub fn new(listed: Vec<Source>, special: SpecialAddress) -> Self {
        Self { listed, special }
    }

    /// Judges an address that a host leads to.
    pub fn judge_address(&self, host: &str, address: IpAddr) -> Result<(), SourceRefused> {
        match (self.special)(address) {
            Some(range) => Err(SourceRefused::Address { host: host.to_owned(), address, range }),
            None => Ok(()),
        }
    }

    /// Whether a host is listed, on whichever port.
    pub fn names(&self, host: &str) -> bool {
        Host::parse(host).is_ok_and(|host| self.listed.iter().any(|source| source.host == host))
    }

    /// Judges the URL of an `OSImage`.
    pub fn judge(&self, text: &str) -> Result<Url, SourceRefused> {
        let url = Url::parse(text).map_err(|_| SourceRefused::Unreadable)?;
        self.judge_url(&url)?;
        Ok(url)
    }

    /// Judges where a server sends on to.
    pub fn judge_redirect(&self, from: &Url, to: &Url) -> Result<(), SourceRefused> {
        self.judge_url(to)?;
        if from.origin() == to.origin() || self.lists(to) {
            return Ok(());
        }
        Err(SourceRefused::Redirect(place(to)))
    }

    fn judge_url(&self, url: &Url) -> Result<(), SourceRefused> {
        if !url.username().is_empty() || url.password().is_some() {
            return Err(SourceRefused::UserInformation);
        }
        let address = match url.host().ok_or(SourceRefused::Unreadable)? {
            Host::Domain(_) => None,
            Host::Ipv4(address) => Some(IpAddr::V4(address)),
            Host::Ipv6(address) => Some(IpAddr::V6(address)),
        };
        if let Some(address) = address.filter(|_| !self.lists(url)) {
            self.judge_address(&place(url), address)?;
        }
        match url.scheme() {
            "https" => Ok(()),
            "http" if self.lists(url) => Ok(()),
            "http" => Err(SourceRefused::PlainHttp(place(url))),
            other => Err(SourceRefused::Scheme(other.to_owned())),
        }
    }

    /// Whether the operator named the host and the port of a URL.
    pub fn lists(&self, url: &Url) -> bool {
        // A listed host without a port means the port that its scheme has.
        self.listed.iter().any(|source| {
            let port =
                source.port.map_or(url.port().is_none(), |port| url.port_or_known_default() == Some(port));
            port && url.host().is_some_and(|host| host.to_owned() == source.host)
        })
    }
}

fn place(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    fn sources() -> Sources {
        Sources::new(
            ["mirror.example.com:8080", "plain.example.com", "[2001:db8::1]:81", "10.0.0.1"]
                .map(|text| text.parse().unwrap())
                .to_vec(),
            |address| address.is_loopback().then_some("loopback"),
        )
    }

    #[test]
    fn an_address_that_only_the_operator_may_name_is_refused_however_it_is_written() {
        for url in ["https://127.0.0.1/linux", "https://[::1]/linux", "https://2130706433/linux"] {
            let refused = sources().judge(url);
            assert!(matches!(refused, Err(SourceRefused::Address { .. })), "{url}: {refused:?}");
        }
        let named = Sources::new(vec!["127.0.0.1:8000".parse().unwrap()], |_| Some("loopback"));
        named.judge("http://127.0.0.1:8000/linux").unwrap();
        assert!(named.judge("https://127.0.0.1:6443/linux").is_err(), "another port was not named");
        assert!(named.names("127.0.0.1") && !named.names("localhost"));
    }

    #[test]
    fn https_is_allowed_and_http_where_it_is_listed() {
        for url in [
            "https://anywhere.example.com/linux",
            "http://mirror.example.com:8080/linux",
            "http://MIRROR.example.com:8080/linux",
            "http://plain.example.com/linux",
            "http://plain.example.com:80/linux",
            "http://[2001:db8::1]:81/linux",
            "http://10.0.0.1/linux",
        ] {
            sources().judge(url).unwrap();
        }
        for url in [
            "http://mirror.example.com/linux",
            "http://plain.example.com:8080/linux",
            "http://other.example.com/linux",
            "http://10.0.0.2/linux",
        ] {
            assert!(matches!(sources().judge(url), Err(SourceRefused::PlainHttp(_))), "{url}");
        }
    }

    #[test]
    fn other_schemes_and_user_information_are_refused_without_being_repeated() {
        for url in
            ["file:///etc/passwd", "ftp://plain.example.com/a", "nothing", "https://u:canary@a.example.com/"]
        {
            let error = sources().judge(url).unwrap_err().to_string();
            assert!(!error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn a_redirect_stays_where_it_is_or_goes_to_a_listed_host() {
        let from = Url::parse("https://images.example.com/a").unwrap();
        let judged = |to: &str| sources().judge_redirect(&from, &Url::parse(to).unwrap());
        judged("https://images.example.com/b").unwrap();
        judged("https://plain.example.com/b").unwrap();
        judged("http://mirror.example.com:8080/b").unwrap();
        for to in [
            "http://images.example.com/b",
            "https://images.example.com:444/b",
            "https://elsewhere.example.com/b",
            "https://169.254.169.254/latest",
            "https://u:p@images.example.com/b",
        ] {
            judged(to).unwrap_err();
        }
    }

    #[test]
    fn a_host_is_read_with_and_without_port() {
        for text in ["", ":80", "a b", "host:port", "host:99999", "http://host"] {
            assert!(text.parse::<Source>().is_err(), "{text:?}");
        }
    }
}
