//! The one origin (scheme, host, port) that requests of a BMC go to. A link or a redirect elsewhere is refused.

use url::Url;

use crate::api::bmc_address::{BmcAddress, BmcScheme};

/// Longest path that a BMC may send a reader to, in bytes.
const PATH_MAX: usize = 2048;

/// A link that is not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkRefused {
    /// It leads to another scheme, host or port.
    Elsewhere,
    /// It is no link.
    Odd,
}

/// Scheme, host and port of a BMC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin(Url);

impl Origin {
    /// The origin of an address; `None` for what is no Redfish address.
    pub(super) fn of(address: &BmcAddress) -> Option<Self> {
        let scheme = match address.scheme() {
            BmcScheme::RedfishHttps => "https",
            BmcScheme::RedfishHttp => "http",
            BmcScheme::Ipmi => return None,
        };
        Url::parse(&format!("{scheme}://{}:{}/", address.host(), address.port())).ok().map(Self)
    }

    /// The `Host` header.
    pub(super) fn host_header(&self) -> String {
        match (self.0.host_str().unwrap_or_default(), self.0.port()) {
            (host, None) => host.to_owned(),
            (host, Some(port)) => format!("{host}:{port}"),
        }
    }

    /// The path (and query) that `link`, found in the document at `at`, leads to.
    pub(super) fn follow(&self, at: &str, link: &str) -> Result<String, LinkRefused> {
        if link.is_empty() || link.len() > PATH_MAX || !link.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(LinkRefused::Odd);
        }
        let base = self.0.join(at).map_err(|_| LinkRefused::Odd)?;
        let url = base.join(link).map_err(|_| LinkRefused::Odd)?;
        if url.origin() != self.0.origin() || !url.username().is_empty() || url.password().is_some() {
            return Err(LinkRefused::Elsewhere);
        }
        Ok(match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        })
    }
}

/// The last part of a path, percent escapes undone: the id of a resource by its address.
pub(super) fn last_segment(path: &str) -> String {
    let path = path.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
    let segment = path.rsplit('/').next().unwrap_or_default();
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = (*first == b'%')
            .then(|| after.get(..2).and_then(|pair| std::str::from_utf8(pair).ok()))
            .flatten()
            .and_then(|pair| u8::from_str_radix(pair, 16).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    fn origin(address: &str) -> Origin {
        Origin::of(&address.parse().unwrap()).unwrap()
    }

    #[test]
    fn links_stay_within_the_origin() {
        let origin = origin("redfish+https://bmc.example");
        let at = "/redfish/v1/Systems";
        for (link, expected) in [
            ("/redfish/v1/Systems/1", Ok("/redfish/v1/Systems/1")),
            ("Systems/1", Ok("/redfish/v1/Systems/1")),
            ("?page=2", Ok("/redfish/v1/Systems?page=2")),
            ("https://bmc.example/redfish", Ok("/redfish")),
            ("https://BMC.example:443/redfish#frag", Ok("/redfish")),
            ("http://bmc.example/redfish", Err(LinkRefused::Elsewhere)),
            ("https://bmc.example:8443/redfish", Err(LinkRefused::Elsewhere)),
            ("https://bmc.example@evil.example/", Err(LinkRefused::Elsewhere)),
            ("https://user@bmc.example/", Err(LinkRefused::Elsewhere)),
            ("//evil.example/redfish", Err(LinkRefused::Elsewhere)),
            ("/\\evil.example/redfish", Err(LinkRefused::Elsewhere)),
            ("\\\\evil.example", Err(LinkRefused::Elsewhere)),
            ("file:///etc/passwd", Err(LinkRefused::Elsewhere)),
            ("", Err(LinkRefused::Odd)),
            ("/a b", Err(LinkRefused::Odd)),
            ("/a\r\nHost: evil", Err(LinkRefused::Odd)),
        ] {
            assert_eq!(origin.follow(at, link), expected.map(str::to_owned), "{link}");
        }
        assert_eq!(origin.follow(at, &"x".repeat(5_000)), Err(LinkRefused::Odd));
    }

    #[test]
    fn the_host_header_names_a_port_that_is_not_the_usual_one() {
        assert_eq!(origin("redfish+https://bmc.example").host_header(), "bmc.example");
        assert_eq!(origin("redfish+http://[2001:db8::1]:8000").host_header(), "[2001:db8::1]:8000");
    }

    #[test]
    fn the_last_segment_is_the_id() {
        for (path, id) in [
            ("/redfish/v1/Systems/1", "1"),
            ("/redfish/v1/Systems/1/", "1"),
            ("/a/b%40c?x=/y", "b@c"),
            ("/a/100%", "100%"),
            ("/a/%zz", "%zz"),
        ] {
            assert_eq!(last_segment(path), id, "{path}");
        }
    }
}
