//! Which proxy leads to an address, by HTTPS_PROXY, HTTP_PROXY and NO_PROXY as kubectl reads them. Pure.

use std::net::IpAddr;

use http::Uri;
use ipnet::IpNet;

/// What the environment says of proxies; each with the name of the variable that said it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Variables {
    /// For addresses that begin with `https://`.
    pub https: Option<(&'static str, String)>,
    /// For those that begin with `http://`.
    pub http: Option<(&'static str, String)>,
    /// What is reached without any.
    pub none: String,
}

/// The proxy for an address, and the variable that names it; `None`: without one.
pub(super) fn proxy_for<'a>(target: &Uri, variables: &'a Variables) -> Option<&'a (&'static str, String)> {
    let is_plain = target.scheme_str() == Some("http");
    let named = if is_plain { &variables.http } else { &variables.https };
    let port = target.port_u16().unwrap_or(if is_plain { 80 } else { 443 });
    named.as_ref().filter(|_| uses_one(target.host().unwrap_or_default(), port, &variables.none))
}

/// Loopback is never asked for through a proxy. An entry of NO_PROXY that means nothing is passed over.
fn uses_one(host: &str, port: u16, none: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    let ip = host.parse::<IpAddr>().ok();
    if host == "localhost" || ip.is_some_and(|ip| ip.is_loopback()) {
        return false;
    }
    !none
        .split(',')
        .map(|entry| entry.trim().to_ascii_lowercase())
        .any(|entry| covers(&entry, &host, ip, port))
}

fn covers(entry: &str, host: &str, ip: Option<IpAddr>, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    if let Ok(net) = entry.parse::<IpNet>() {
        return ip.is_some_and(|ip| net.contains(&ip));
    }
    let (name, only_port) = name_and_port(entry);
    if name.is_empty() || only_port.is_some_and(|only| only != port.to_string()) {
        return false;
    }
    if let Ok(named) = name.parse::<IpAddr>() {
        return ip == Some(named);
    }
    // Also with a star before its dot, a name that begins with one is that of a domain, and not of a host.
    let name = name.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(name);
    match name.strip_prefix('.') {
        Some(_) => host.ends_with(name),
        None => host == name || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.')),
    }
}

/// An IPv6 address stands in brackets where a port follows, or alone.
fn name_and_port(entry: &str) -> (&str, Option<&str>) {
    if let Some((name, rest)) = entry.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (name, rest.strip_prefix(':'));
    }
    match entry.split_once(':') {
        Some((name, port)) if !port.contains(':') => (name, Some(port)),
        _ => (entry, None),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    fn goes_through(target: &str, none: &str) -> bool {
        let variables = Variables {
            https: Some(("HTTPS_PROXY", "http://secure:3128".to_owned())),
            http: Some(("HTTP_PROXY", "http://plain:3128".to_owned())),
            none: none.to_owned(),
        };
        let target: Uri = target.parse().unwrap();
        let found = proxy_for(&target, &variables);
        if let Some((name, _)) = found {
            assert_eq!(*name == "HTTP_PROXY", target.scheme_str() == Some("http"));
        }
        found.is_some()
    }

    #[test]
    fn an_address_goes_through_the_proxy_of_its_scheme() {
        assert!(goes_through("https://api.example.com:6443", ""));
        assert!(goes_through("http://api.example.com", ""));
        let none = Variables { http: Some(("http_proxy", "p".to_owned())), ..Variables::default() };
        assert_eq!(proxy_for(&"https://api.example.com".parse().unwrap(), &none), None);
    }

    #[test]
    fn loopback_never_does() {
        for target in
            ["https://localhost:6443", "https://127.0.0.1:6443", "https://127.8.0.1", "https://[::1]:6443"]
        {
            assert!(!goes_through(target, "other.example.com"), "{target}");
        }
    }

    #[test]
    fn no_proxy_names_hosts_domains_networks_and_ports() {
        for (target, none, through) in [
            ("https://api.example.com:6443", "*", false),
            ("https://api.example.com:6443", "example.com", false),
            ("https://api.example.com:6443", ".example.com", false),
            ("https://api.example.com:6443", "*.example.com", false),
            ("https://API.example.com:6443", "api.EXAMPLE.com", false),
            ("https://example.com:6443", ".example.com", true),
            ("https://example.com:6443", "*.example.com", true),
            ("https://badexample.com:6443", "example.com", true),
            ("https://api.example.com:6443", "api.example.com:6443", false),
            ("https://api.example.com:6443", "api.example.com:443", true),
            ("https://api.example.com", "api.example.com:443", false),
            ("https://10.1.2.3:6443", "10.1.2.3", false),
            ("https://10.1.2.3:6443", "10.0.0.0/8", false),
            ("https://10.1.2.3:6443", "192.168.0.0/16", true),
            ("https://10.1.2.3:6443", "10.1.2.3:6443", false),
            ("https://10.1.2.3:6443", "10.1.2.3:1", true),
            ("https://[2001:db8::1]:6443", "2001:db8::1", false),
            ("https://[2001:db8::1]:6443", "[2001:db8::1]:6443", false),
            ("https://[2001:db8::1]:6443", "2001:db8::/32", false),
            ("https://api.example.com", " other , api.example.com ", false),
            // What is not understood is passed over: an empty entry, a URL, a net without a number.
            ("https://api.example.com", "a,,https://x/y,10.0.0.0/,:80,[", true),
            ("https://api.example.com", ",api.example.com,", false),
        ] {
            assert_eq!(goes_through(target, none), through, "{target} with NO_PROXY={none}");
        }
    }
}
