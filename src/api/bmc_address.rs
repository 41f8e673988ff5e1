//! `spec.bmc.address`: text to a typed address, and the one spelling under which a BMC is claimed. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// Longest accepted address, in bytes.
pub const MAX_ADDRESS_LENGTH: usize = 512;
/// Longest accepted host name, in bytes (RFC 1035).
const MAX_HOST_LENGTH: usize = 253;
const MAX_LABEL_LENGTH: usize = 63;
const MAX_SYSTEM_LENGTH: usize = 128;
const SYSTEMS: &str = "/redfish/v1/Systems/";

/// How a BMC is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BmcScheme {
    /// Redfish over TLS, port 443 unless said.
    RedfishHttps,
    /// Redfish in the clear, port 80 unless said; only where the operator allows it.
    RedfishHttp,
    /// IPMI over LAN, port 623 unless said; only where the operator allows it.
    Ipmi,
}

impl BmcScheme {
    /// The scheme as it stands in an address.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RedfishHttps => "redfish+https",
            Self::RedfishHttp => "redfish+http",
            Self::Ipmi => "ipmi",
        }
    }

    /// The port where the address names none.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::RedfishHttps => 443,
            Self::RedfishHttp => 80,
            Self::Ipmi => 623,
        }
    }
}

/// A host: a lower-case ASCII name without trailing dot, or an IP address (IPv4-mapped IPv6 becomes IPv4).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BmcHost {
    /// A DNS name; resolved by whoever connects.
    Name(String),
    /// An address.
    Ip(IpAddr),
}

impl fmt::Display for BmcHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(IpAddr::V4(ip)) => write!(f, "{ip}"),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

/// The machine that an address stands for. Two addresses with equal keys are the same BMC, however spelled.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BmcClaimKey {
    /// `name:port`, `ipv4:port` or `[ipv6]:port`, normalised. Schemes are no part of it.
    pub host: String,
    /// The id of the system behind the host; empty means the whole host.
    pub system: String,
}

/// A parsed `spec.bmc.address`. Its display is the normalised text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BmcAddress {
    scheme: BmcScheme,
    host: BmcHost,
    port: u16,
    system: Option<String>,
}

/// What is wrong with a `spec.bmc.address`. Each message names the field, the value and the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BmcAddressError {
    /// Longer than [`MAX_ADDRESS_LENGTH`].
    #[error("spec.bmc.address has {0} bytes: at most {MAX_ADDRESS_LENGTH} are allowed; shorten it")]
    TooLong(usize),
    /// No known scheme. The value is left out where it could hold a password.
    #[error(
        "spec.bmc.address has the scheme {0:?}: write redfish+https://HOST[:PORT][/redfish/v1/Systems/ID], \
         redfish+http://… or ipmi://…"
    )]
    Scheme(String),
    /// A user name or password in the address; never repeated in the message.
    #[error(
        "spec.bmc.address has user information before an '@': put it into the Secret of bmc.credentialsRef"
    )]
    UserInfo,
    /// A query or a fragment; the message repeats only what stands before it.
    #[error("spec.bmc.address has a query or fragment: keep only {0:?}")]
    QueryOrFragment(String),
    /// Not a host name or IP address.
    #[error(
        "spec.bmc.address has the host {0:?}: write a DNS name of ASCII letters, digits, '-' and '.' \
         (an international name as xn--…), an IPv4 address, or an IPv6 address in brackets without zone"
    )]
    Host(String),
    /// Not a port.
    #[error("spec.bmc.address has the port {0:?}: write a number from 1 to 65535, or leave it out")]
    Port(String),
    /// Not the path of a system.
    #[error(
        "spec.bmc.address has the path {0:?}: write /redfish/v1/Systems/ID with an ID of ASCII letters, digits \
         and -._~:+=,@ (no %), or no path for the only system of the BMC"
    )]
    Path(String),
}

impl BmcAddress {
    /// Reads `spec.bmc.address`.
    pub fn parse(text: &str) -> Result<Self, BmcAddressError> {
        if text.len() > MAX_ADDRESS_LENGTH {
            return Err(BmcAddressError::TooLong(text.len()));
        }
        let holds_user =
            |(scheme, rest): (&str, &str)| scheme.contains('@') || authority(rest).0.contains('@');
        if text.contains('@') && text.split_once("://").is_none_or(holds_user) {
            return Err(BmcAddressError::UserInfo);
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(|| BmcAddressError::Scheme(String::new()))?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "redfish+https" => BmcScheme::RedfishHttps,
            "redfish+http" => BmcScheme::RedfishHttp,
            "ipmi" => BmcScheme::Ipmi,
            _ => return Err(BmcAddressError::Scheme(scheme.to_owned())),
        };
        if rest.contains(['?', '#']) {
            let before = text.split(['?', '#']).next().unwrap_or_default();
            return Err(BmcAddressError::QueryOrFragment(before.to_owned()));
        }
        let (authority, path) = authority(rest);
        let (host, port) = host_and_port(authority)?;
        let port = match port {
            None => scheme.default_port(),
            Some(digits) => port_number(digits)?,
        };
        let system = system(scheme, path)?;
        Ok(Self { scheme, host, port, system })
    }

    /// How the BMC is spoken to.
    pub const fn scheme(&self) -> BmcScheme {
        self.scheme
    }

    /// The host, normalised.
    pub const fn host(&self) -> &BmcHost {
        &self.host
    }

    /// The TCP (IPMI: UDP) port, the default one filled in.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// `host:port`, the port always said: the name of a BMC in messages, and by which it is remembered.
    pub fn host_and_port(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The id of the system, case kept; `None` means the only one of the BMC.
    pub fn system(&self) -> Option<&str> {
        self.system.as_deref()
    }

    /// The one spelling of this address: lower-case host, explicit port, no trailing slash.
    pub fn normalised(&self) -> String {
        self.to_string()
    }

    /// The machine that this address stands for.
    pub fn claim_key(&self) -> BmcClaimKey {
        BmcClaimKey {
            host: format!("{}:{}", self.host, self.port),
            system: self.system.clone().unwrap_or_default(),
        }
    }
}

impl fmt::Display for BmcAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme.as_str(), self.host, self.port)?;
        match &self.system {
            Some(id) => write!(f, "{SYSTEMS}{id}"),
            None => Ok(()),
        }
    }
}

impl FromStr for BmcAddress {
    type Err = BmcAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

fn authority(rest: &str) -> (&str, &str) {
    rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()))
}

fn host_and_port(authority: &str) -> Result<(BmcHost, Option<&str>), BmcAddressError> {
    let wrong = || BmcAddressError::Host(authority.to_owned());
    if let Some(rest) = authority.strip_prefix('[') {
        let (ip, after) = rest.split_once(']').ok_or_else(wrong)?;
        let ip: Ipv6Addr = ip.parse().map_err(|_| wrong())?;
        let port = match after {
            "" => None,
            _ => Some(after.strip_prefix(':').ok_or_else(wrong)?),
        };
        return Ok((BmcHost::Ip(IpAddr::V6(ip).to_canonical()), port));
    }
    let (host, port) = match authority.split_once(':') {
        Some((_, port)) if port.contains(':') => return Err(wrong()),
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok((BmcHost::Ip(ip), port));
    }
    Ok((BmcHost::Name(name(host).ok_or_else(wrong)?), port))
}

/// A name that ends in a number (`127.1`, `0x7f.1`) is refused: some resolvers read it as another address.
fn name(host: &str) -> Option<String> {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let label_holds = |label: &str| {
        (1..=MAX_LABEL_LENGTH).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = host.rsplit('.').next()?;
    let numeric = last.bytes().all(|b| b.is_ascii_digit())
        || last.strip_prefix("0x").is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
    (host.len() <= MAX_HOST_LENGTH && host.split('.').all(label_holds) && !numeric).then_some(host)
}

fn port_number(digits: &str) -> Result<u16, BmcAddressError> {
    let wrong = || BmcAddressError::Port(digits.to_owned());
    // `parse` alone would accept a sign.
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    digits.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)
}

fn system(scheme: BmcScheme, path: &str) -> Result<Option<String>, BmcAddressError> {
    if path.is_empty() || path == "/" {
        return Ok(None);
    }
    let id = match scheme {
        BmcScheme::RedfishHttps | BmcScheme::RedfishHttp => path.strip_prefix(SYSTEMS),
        BmcScheme::Ipmi => None,
    };
    id.map(|id| id.strip_suffix('/').unwrap_or(id))
        .filter(|id| {
            (1..=MAX_SYSTEM_LENGTH).contains(&id.len())
                && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~:+=,@".contains(&b))
                && !matches!(*id, "." | "..")
        })
        .map(|id| Some(id.to_owned()))
        .ok_or_else(|| BmcAddressError::Path(path.to_owned()))
}

#[cfg(test)]
#[path = "bmc_address_test.rs"]
mod tests;
