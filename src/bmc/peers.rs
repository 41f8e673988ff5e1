//! The addresses of one BMC, and which of them is spoken to. Turns, logins and what is known of a BMC belong to its host,
//! whichever address leads there.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::time::Instant;

use super::gate;

/// More addresses than this are not tried: no BMC has as many, and each gets its share of the time.
const ADDRESSES_MAX: usize = 8;
/// Hosts that are remembered; those beyond it are tried in the resolver's order each time.
const REMEMBERED_MAX: usize = 4096;

/// Where each host answered, and where it was silent. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Experience(Arc<Mutex<HashMap<String, Heard>>>);

#[derive(Debug, Clone, Default)]
struct Heard {
    answered: Option<SocketAddr>,
    silent: Vec<SocketAddr>,
}

impl Experience {
    fn with<T>(&self, host: &str, look: impl FnOnce(&mut Heard) -> T) -> Option<T> {
        let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.len() >= REMEMBERED_MAX && !hosts.contains_key(host) {
            return None;
        }
        Some(look(hosts.entry(host.to_owned()).or_default()))
    }

    /// Where it answered comes first, and where it was silent comes last.
    fn sort(&self, host: &str, addresses: &mut [SocketAddr]) {
        if let Some(heard) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(host) {
            addresses.sort_by_key(|peer| {
                if heard.answered == Some(*peer) { 0 } else { 1 + u8::from(heard.silent.contains(peer)) }
            });
        }
    }
}

/// The addresses that one client may connect to. Once one of them has answered it is the only one: another address may
/// lead to another machine, and what was read belongs to where it was read.
#[derive(Debug)]
pub(super) struct Peers {
    /// `host:port`, as `spec.bmc.address` names it.
    host: String,
    in_order: Vec<SocketAddr>,
    answered: OnceLock<SocketAddr>,
    experience: Experience,
}

impl Peers {
    /// These addresses, one at least, in the order in which they are tried.
    pub(super) fn new(
        host: String,
        first: SocketAddr,
        others: &[SocketAddr],
        experience: Experience,
    ) -> Self {
        let mut in_order = vec![first];
        in_order.extend(others);
        experience.sort(&host, &mut in_order);
        Self { host, in_order, answered: OnceLock::new(), experience }
    }

    /// The host, by which everything that is known of this BMC is kept.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// The address that answered; before that the one that is tried first.
    pub(super) fn one(&self) -> SocketAddr {
        // There is one at least.
        let first = || self.in_order.first().copied().unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
        self.answered.get().copied().unwrap_or_else(first)
    }

    /// All of them.
    pub(super) fn all(&self) -> &[SocketAddr] {
        &self.in_order
    }

    /// What tells this BMC from others.
    pub(super) fn lines(&self) -> BTreeSet<String> {
        gate::lines(&self.host, &self.in_order)
    }

    /// The addresses to try, one after the other.
    pub(super) fn to_try(&self) -> &[SocketAddr] {
        self.answered.get().map_or(&self.in_order, std::slice::from_ref)
    }

    /// It answered there.
    pub(super) fn answered(&self, peer: SocketAddr) {
        if self.answered.set(peer).is_ok() && self.in_order.len() > 1 {
            self.experience.with(&self.host, |heard| {
                heard.answered = Some(peer);
                heard.silent.retain(|silent| *silent != peer);
            });
        }
    }

    /// Nothing that makes sense came from there: the others come first the next time.
    pub(super) fn silent(&self, peer: SocketAddr) {
        if self.in_order.len() < 2 {
            return;
        }
        self.experience.with(&self.host, |heard| {
            heard.answered = heard.answered.filter(|answered| *answered != peer);
            // Whoever was silent first is tried first again.
            heard.silent.retain(|silent| *silent != peer && self.in_order.contains(silent));
            heard.silent.push(peer);
        });
    }
}

/// What the resolver says as it is tried: each address once, both families by turns, so that a family that leads nowhere
/// does not take all of the time (RFC 8305, section 4).
pub(super) fn interleaved(found: impl IntoIterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut families: [Vec<IpAddr>; 2] = Default::default();
    let mut first = None;
    for ip in found {
        let first = *first.get_or_insert(ip.is_ipv4());
        let [same, other] = &mut families;
        let family = if ip.is_ipv4() == first { same } else { other };
        if !family.contains(&ip) {
            family.push(ip);
        }
    }
    let [same, other] = families;
    let longer = same.len().max(other.len());
    (0..longer).flat_map(|at| [same.get(at), other.get(at)]).flatten().take(ADDRESSES_MAX).copied().collect()
}

/// Until when the next one of so many may take, so that each has its share of the time.
pub(super) fn share(now: Instant, until: Instant, left: usize) -> Instant {
    let left = u32::try_from(left.max(1)).unwrap_or(u32::MAX);
    now + until.saturating_duration_since(now) / left
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    fn peer(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 443))
    }

    fn peers(experience: &Experience) -> Peers {
        Peers::new("bmc.example:443".to_owned(), peer(1), &[peer(2), peer(3)], experience.clone())
    }

    #[test]
    fn what_answered_is_the_only_one_for_this_client_and_the_first_for_the_next() {
        let experience = Experience::default();
        let one = peers(&experience);
        assert_eq!(one.to_try(), [peer(1), peer(2), peer(3)]);
        one.silent(peer(1));
        one.answered(peer(2));
        one.answered(peer(3));
        assert_eq!((one.one(), one.to_try()), (peer(2), &[peer(2)][..]));
        assert_eq!(peers(&experience).to_try(), [peer(2), peer(3), peer(1)]);
        peers(&experience).silent(peer(2));
        assert_eq!(peers(&experience).to_try(), [peer(3), peer(1), peer(2)]);
        let other = Peers::new("other:443".to_owned(), peer(1), &[peer(2)], experience);
        assert_eq!(other.to_try(), [peer(1), peer(2)]);
    }

    #[test]
    fn families_take_turns_and_no_address_is_tried_twice() {
        let ips = |list: &[&str]| list.iter().map(|ip| ip.parse().unwrap()).collect::<Vec<IpAddr>>();
        let found = ips(&["2001:db8::1", "2001:db8::1", "2001:db8::2", "2001:db8::3", "192.0.2.1"]);
        assert_eq!(interleaved(found), ips(&["2001:db8::1", "192.0.2.1", "2001:db8::2", "2001:db8::3"]));
        let many = (0..40).map(|last| IpAddr::from([192, 0, 2, last]));
        assert_eq!(interleaved(many).len(), ADDRESSES_MAX);
    }
}
