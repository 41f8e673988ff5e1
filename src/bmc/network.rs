//! Which addresses workers may talk to (`--bmc-cidr`). Pure: the caller resolves once, and connects to the very
//! address that was judged here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// The networks that workers may reach.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BmcNetworks {
    allowed: Vec<IpNet>,
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
    #[error("the BMC address {0} is {kind}, which is refused unless --bmc-cidr allows it", kind = .1.as_str())]
    Special(IpAddr, SpecialRange),
}

impl BmcNetworks {
    /// The networks of `--bmc-cidr`; none means every address that is not special.
    pub fn new(allowed: Vec<IpNet>) -> Self {
        Self { allowed }
    }

    /// Judges one resolved address, by every address that it embeds too: an IPv6 form is no way round a rule.
    pub fn check(&self, ip: IpAddr) -> Result<(), AddressRefused> {
        faces(ip).into_iter().flatten().try_for_each(|face| self.check_face(ip, face))
    }

    fn check_face(&self, ip: IpAddr, face: IpAddr) -> Result<(), AddressRefused> {
        if self.allowed.iter().any(|net| net.contains(&face)) {
            return Ok(());
        }
        match special(face) {
            Some(range) => Err(AddressRefused::Special(ip, range)),
            None if self.allowed.is_empty() => Ok(()),
            None => Err(AddressRefused::Outside(ip)),
        }
    }
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

fn special(ip: IpAddr) -> Option<SpecialRange> {
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let this_network = matches!(ip, IpAddr::V4(v4) if v4.octets()[0] == 0);
    if ip.is_loopback() {
        Some(SpecialRange::Loopback)
    } else if link_local {
        Some(SpecialRange::LinkLocal)
    } else if ip.is_multicast() {
        Some(SpecialRange::Multicast)
    } else if ip.is_unspecified() || this_network {
        Some(SpecialRange::Unspecified)
    } else if ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
        Some(SpecialRange::Broadcast)
    } else {
        None
    }
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
        for ip in ["10.0.0.1", "2001:db8::1", "fd00::1", "64:ff9b::a00:1"] {
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
        ] {
            let refused = networks(&[]).check(ip.parse().unwrap());
            assert!(matches!(refused, Err(AddressRefused::Special(..))), "{ip}: {refused:?}");
        }
    }

    #[test]
    fn an_allow_list_refuses_all_others_and_may_name_loopback() {
        let allowed = networks(&["10.0.0.0/8", "127.0.0.0/8"]);
        assert_eq!(allowed.check("127.0.0.1".parse().unwrap()), Ok(()));
        assert_eq!(allowed.check("::ffff:10.1.2.3".parse().unwrap()), Ok(()));
        for ip in ["192.0.2.1", "2001:db8::1", "64:ff9b::a00:1"] {
            let refused = allowed.check(ip.parse().unwrap());
            assert!(matches!(refused, Err(AddressRefused::Outside(_))), "{ip}: {refused:?}");
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
