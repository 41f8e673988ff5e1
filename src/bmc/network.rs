//! Which addresses workers may talk to (`--bmc-cidr`). Pure: the caller resolves once, and connects to the very
//! address that was judged here.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

use crate::config::is_dns_label;

/// A network of `--bmc-cidr`: `NET`, or `NAMESPACE=NET`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BmcNetwork {
    /// The namespace whose Servers' BMCs are there; `None`: all that have no networks of their own.
    pub namespace: Option<String>,
    /// The addresses.
    pub net: IpNet,
}

impl FromStr for BmcNetwork {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (namespace, net) = match text.split_once('=') {
            Some((namespace, net)) => (Some(namespace), net),
            None => (None, text),
        };
        let net = net.parse().map_err(|_| {
            format!(
                "{net:?} is no network: write one such as 10.20.0.0/16 or 2001:db8:20::/48, or NAMESPACE=NET"
            )
        })?;
        if let Some(namespace) = namespace.filter(|namespace| !is_dns_label(namespace)) {
            return Err(format!(
                "{namespace:?} is no name of a namespace: write NAMESPACE=NET, or NET alone"
            ));
        }
        Ok(Self { namespace: namespace.map(str::to_owned), net })
    }
}

/// The networks that workers may reach.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BmcNetworks {
    allowed: Vec<IpNet>,
    of_namespaces: BTreeMap<String, Vec<IpNet>>,
}

/// Why an address is never a BMC unless the operator says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecialRange {
    /// 127.0.0.0/8, `::1`: the worker itself.
    Loopback,
    /// 169.254.0.0/16, fe80::/10: cloud metadata services live here.
    LinkLocal,
    /// 224.0.0.0/4, ff00::/8.
    Multicast,
    /// 0.0.0.0/8, `::`: many systems connect to themselves.
    Unspecified,
    /// 255.255.255.255.
    Broadcast,
    /// 100.64.0.0/10: between a provider and its customers, with services of clouds in it.
    Shared,
    /// fec0::/10: what link-local was for sites; not in use any more.
    SiteLocal,
    /// 198.18.0.0/15, 2001:2::/48: for measuring devices of the network.
    Benchmarking,
    /// 192.0.2.0/24, 198.51.100.0/24, 203.0.113.0/24, 2001:db8::/32, 3fff::/20: stands in documents.
    Documentation,
    /// 192.0.0.0/24, 2001::/23 and the small networks of protocols such as AS112, AMT and relays of 6to4.
    Protocol,
    /// 100::/64, 100:0:0:1::/64: what is sent there is thrown away.
    Discard,
    /// 240.0.0.0/4, 5f00::/16 (segments of SRv6): nothing that is a host.
    Reserved,
}

impl SpecialRange {
    /// The name in messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::LinkLocal => "link-local",
            Self::Multicast => "multicast",
            Self::Unspecified => "unspecified",
            Self::Broadcast => "broadcast",
            Self::Shared => "shared between providers",
            Self::SiteLocal => "site-local",
            Self::Benchmarking => "for benchmarks",
            Self::Documentation => "for documentation",
            Self::Protocol => "for a protocol",
            Self::Discard => "for what is thrown away",
            Self::Reserved => "reserved",
        }
    }
}

/// An address that workers may not talk to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressRefused {
    /// Outside the allow-list.
    #[error(
        "the BMC address {0} is outside --bmc-cidr: correct spec.bmc.address, or let the operator allow it"
    )]
    Outside(IpAddr),
    /// Special, and no allow-list names it.
    #[error("the BMC address {0} is {kind}, which is refused unless --bmc-cidr names a network within that range", kind = .1.as_str())]
    Special(IpAddr, SpecialRange),
}

impl BmcNetworks {
    /// The networks of `--bmc-cidr`; none means every address that is not special.
    pub fn new(allowed: Vec<IpNet>) -> Self {
        Self { allowed, of_namespaces: BTreeMap::new() }
    }

    /// The networks of `--bmc-cidr` of a worker.
    pub fn of(named: &[BmcNetwork]) -> Self {
        let mut networks = Self::default();
        for BmcNetwork { namespace, net } in named {
            match namespace {
                Some(namespace) => networks.of_namespaces.entry(namespace.clone()).or_default().push(*net),
                None => networks.allowed.push(*net),
            }
        }
        networks
    }

    /// Those of one namespace: its own, where it has any. Where only other namespaces have some it reaches none.
    #[must_use]
    pub fn for_namespace(&self, namespace: &str) -> Self {
        let own = self.of_namespaces.get(namespace);
        Self { allowed: own.unwrap_or(&self.allowed).clone(), of_namespaces: self.of_namespaces.clone() }
    }

    /// Judges one resolved address, by every address that it embeds too: an IPv6 form is no way round a rule.
    pub fn check(&self, ip: IpAddr) -> Result<(), AddressRefused> {
        faces(ip).into_iter().flatten().try_for_each(|face| self.check_face(ip, face))
    }

    /// Whether nobody named any network.
    fn is_open(&self) -> bool {
        self.allowed.is_empty() && self.of_namespaces.is_empty()
    }

    fn check_face(&self, ip: IpAddr, face: IpAddr) -> Result<(), AddressRefused> {
        let mut named = self.allowed.iter().filter(|net| net.contains(&face));
        match special(face) {
            // By a network of its own: who allows all addresses does not mean these.
            Some(range) if named.any(|net| is_within(net, range)) => Ok(()),
            Some(range) => Err(AddressRefused::Special(ip, range)),
            None if named.next().is_some() || self.is_open() => Ok(()),
            None => Err(AddressRefused::Outside(ip)),
        }
    }
}

/// Whether a network lies within a special range.
fn is_within(net: &IpNet, range: SpecialRange) -> bool {
    [net.network(), net.broadcast()].into_iter().all(|end| special(end) == Some(range))
}

/// The address itself and the IPv4 address inside it. A mapped address *is* the IPv4 one; a translated one (NAT64,
/// 6to4, compatible) must be allowed as both.
fn faces(ip: IpAddr) -> [Option<IpAddr>; 2] {
    let IpAddr::V6(v6) = ip.to_canonical() else {
        return [Some(ip.to_canonical()), None];
    };
    [Some(IpAddr::V6(v6)), embedded(v6).map(IpAddr::V4)]
}

fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = ip.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match s {
        // 6to4
        [0x2002, high, low, ..] => Some(v4(high, low)),
        // NAT64, the well-known prefix and the lower /96 of the local one
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 1, _, _, _, high, low] => Some(v4(high, low)),
        // IPv4-compatible; `::` and `::1` are themselves
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => Some(v4(high, low)),
        _ => None,
    }
}

/// What IANA's registries of special-purpose addresses say of it (RFC 6890), but for private networks, where BMCs are.
fn special(ip: IpAddr) -> Option<SpecialRange> {
    match ip {
        IpAddr::V4(ip) => special_v4(ip),
        IpAddr::V6(ip) => special_v6(ip),
    }
}

fn special_v4(ip: Ipv4Addr) -> Option<SpecialRange> {
    Some(match ip.octets() {
        [0, ..] => SpecialRange::Unspecified,
        [100, 64..=127, ..] => SpecialRange::Shared,
        [127, ..] => SpecialRange::Loopback,
        [169, 254, ..] => SpecialRange::LinkLocal,
        [192, 0, 0, _] | [192, 31, 196, _] | [192, 52, 193, _] | [192, 88, 99, _] | [192, 175, 48, _] => {
            SpecialRange::Protocol
        }
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => SpecialRange::Documentation,
        [198, 18..=19, ..] => SpecialRange::Benchmarking,
        [224..=239, ..] => SpecialRange::Multicast,
        [255, 255, 255, 255] => SpecialRange::Broadcast,
        [240..=255, ..] => SpecialRange::Reserved,
        _ => return None,
    })
}

fn special_v6(ip: Ipv6Addr) -> Option<SpecialRange> {
    Some(match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => SpecialRange::Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => SpecialRange::Loopback,
        [0x100, 0, 0, 0..=1, ..] => SpecialRange::Discard,
        [0x2001, 2, 0, ..] => SpecialRange::Benchmarking,
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => SpecialRange::Documentation,
        [0x2001, 0..=0x1ff, ..] | [0x2620, 0x4f, 0x8000, ..] => SpecialRange::Protocol,
        [0x5f00, ..] => SpecialRange::Reserved,
        [0xfe80..=0xfebf, ..] => SpecialRange::LinkLocal,
        [0xfec0..=0xfeff, ..] => SpecialRange::SiteLocal,
        [0xff00..=0xffff, ..] => SpecialRange::Multicast,
        _ => return None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn networks(list: &[&str]) -> BmcNetworks {
        BmcNetworks::new(list.iter().map(|net| net.parse().unwrap()).collect())
    }

    #[test]
    fn without_an_allow_list_only_special_addresses_are_refused() {
        for ip in ["10.0.0.1", "172.16.0.1", "192.168.0.1", "9.9.9.9", "2a00::1", "fd00::1", "64:ff9b::a00:1"]
        {
            assert_eq!(networks(&[]).check(ip.parse().unwrap()), Ok(()), "{ip}");
        }
        for ip in [
            "127.0.0.1",
            "169.254.169.254",
            "224.0.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::a9fe:a9fe",
            "2002:7f00:1::1",
            "::127.0.0.1",
            "100.64.0.1",
            "100.127.255.254",
            "192.0.0.170",
            "192.0.2.1",
            "192.31.196.1",
            "192.52.193.1",
            "192.88.99.1",
            "192.175.48.1",
            "198.18.0.1",
            "198.19.255.254",
            "198.51.100.1",
            "203.0.113.1",
            "240.0.0.1",
            "255.255.255.254",
            "::ffff:100.64.0.1",
            "64:ff9b::6440:1",
            "100::1",
            "100:0:0:1::1",
            "2001::1",
            "2001:2::1",
            "2001:20::1",
            "2001:db8::1",
            "2620:4f:8000::1",
            "3fff::1",
            "5f00::1",
            "febf::1",
            "fec0::1",
            "feff::1",
        ] {
            let refused = networks(&[]).check(ip.parse().unwrap());
            assert!(matches!(refused, Err(AddressRefused::Special(..))), "{ip}: {refused:?}");
        }
    }

    #[test]
    fn an_allow_list_refuses_all_others_and_may_name_loopback() {
        let allowed = networks(&["10.0.0.0/8", "127.0.0.0/8", "100.64.0.0/10", "fec0::/10"]);
        for named in ["127.0.0.1", "100.64.0.1", "fec0::1"] {
            assert_eq!(allowed.check(named.parse().unwrap()), Ok(()));
        }
        assert_eq!(allowed.check("::ffff:10.1.2.3".parse().unwrap()), Ok(()));
        for ip in ["192.168.0.1", "fd00::1", "64:ff9b::a00:1"] {
            let refused = allowed.check(ip.parse().unwrap());
            assert!(matches!(refused, Err(AddressRefused::Outside(_))), "{ip}: {refused:?}");
        }
    }

    #[test]
    fn all_addresses_are_not_the_special_ones() {
        for all in
            [&["0.0.0.0/0", "::/0"][..], &["0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"], &["126.0.0.0/7"]]
        {
            let allowed = networks(all);
            for ip in
                ["127.0.0.1", "::1", "169.254.169.254", "fe80::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"]
            {
                let refused = allowed.check(ip.parse().unwrap());
                assert!(
                    matches!(refused, Err(AddressRefused::Special(..) | AddressRefused::Outside(_))),
                    "{ip}"
                );
            }
        }
        let allowed = networks(&["0.0.0.0/0", "::/0", "169.254.7.0/24", "::1/128"]);
        for ip in ["10.0.0.1", "fd00::1", "169.254.7.1", "::1"] {
            assert_eq!(allowed.check(ip.parse().unwrap()), Ok(()), "{ip}");
        }
        assert!(allowed.check("169.254.169.254".parse().unwrap()).is_err());
    }

    #[test]
    fn a_namespace_with_networks_of_its_own_reaches_those_and_the_others_reach_the_rest() {
        let named = ["10.0.0.0/8", "lab=192.168.1.0/24", "lab=fd00::/64"];
        let parsed: Vec<BmcNetwork> = named.iter().map(|text| text.parse().unwrap()).collect();
        let reaches = |networks: &BmcNetworks, namespace: &str, ip: &str| {
            networks.for_namespace(namespace).check(ip.parse().unwrap()).is_ok()
        };
        let networks = BmcNetworks::of(&parsed);
        assert!(reaches(&networks, "lab", "192.168.1.9") && reaches(&networks, "lab", "fd00::1"));
        assert!(!reaches(&networks, "lab", "10.0.0.1") && !reaches(&networks, "other", "192.168.1.9"));
        assert!(reaches(&networks, "other", "10.0.0.1"));
        // Named for others alone, nothing is left for the rest.
        let only = BmcNetworks::of(&parsed[1..]);
        assert!(!reaches(&only, "other", "10.0.0.1") && !reaches(&only, "other", "192.168.1.9"));
        for bad in ["", "lab=", "=10.0.0.0/8", "lab=10.0.0.0/99", "La b=10.0.0.0/8", "lab=10.0.0.0/8=1"] {
            let error = bad.parse::<BmcNetwork>().unwrap_err();
            assert!(error.contains("NAMESPACE=NET"), "{bad}: {error}");
        }
    }

    proptest! {
        #[test]
        fn a_mapped_address_is_judged_like_the_address_itself(octets in any::<[u8; 4]>()) {
            let v4 = Ipv4Addr::from(octets);
            for networks in [networks(&[]), networks(&["10.0.0.0/8", "128.0.0.0/1"])] {
                let plain = networks.check(IpAddr::V4(v4)).is_ok();
                prop_assert_eq!(networks.check(IpAddr::V6(v4.to_ipv6_mapped())).is_ok(), plain);
            }
        }

        #[test]
        fn no_embedding_reaches_an_address_that_is_refused_plainly(octets in any::<[u8; 4]>()) {
            let v4 = u128::from(u32::from_be_bytes(octets));
            let networks = networks(&[]);
            for base in [0x64_ff9b_u128 << 96, 0x64_ff9b_0001_u128 << 80] {
                let nat64 = IpAddr::V6(Ipv6Addr::from(base | v4));
                prop_assert_eq!(networks.check(nat64).is_ok(), networks.check(IpAddr::V4(octets.into())).is_ok());
            }
            let six_to_four = IpAddr::V6(Ipv6Addr::from((0x2002_u128 << 112) | (v4 << 80)));
            prop_assert_eq!(networks.check(six_to_four).is_ok(), networks.check(IpAddr::V4(octets.into())).is_ok());
        }
    }
}
