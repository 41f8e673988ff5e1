//! Who may ask: the allowed subnets (`--boot-cidr`), and a limit on failures of each address, so that nobody tries out
//! addresses of network cards at leisure.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use ipnet::IpNet;

/// Failures at once, and in a minute in the long run.
const BURST: NonZeroU32 = NonZeroU32::MIN.saturating_add(59);
const PER_MINUTE: NonZeroU32 = NonZeroU32::MIN.saturating_add(29);
/// So many addresses are remembered before those that have been quiet are forgotten.
const REMEMBERED: usize = 10_000;

/// Whether an address is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It is.
    Admitted,
    /// It is in no allowed subnet.
    Outside,
    /// It failed too often; it may come again after this time.
    TooOften(Duration),
}

/// What a failure of an address comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// It may go on.
    Within,
    /// It was one too many.
    Over,
}

/// The addresses that ask.
pub struct Peers<C: Clock = DefaultClock> {
    allowed: Vec<IpNet>,
    clock: C,
    failures: RateLimiter<IpAddr, HashMapStateStore<IpAddr>, C, NoOpMiddleware<C::Instant>>,
    held_until: Mutex<HashMap<IpAddr, C::Instant>>,
}

impl Peers {
    /// Answers these subnets; none means every address.
    pub fn new(allowed: Vec<IpNet>) -> Self {
        Self::with_clock(allowed, DefaultClock::default())
    }
}

impl<C: Clock + Clone> Peers<C> {
    fn with_clock(allowed: Vec<IpNet>, clock: C) -> Self {
        let quota = Quota::per_minute(PER_MINUTE).allow_burst(BURST);
        let failures = RateLimiter::hashmap_with_clock(quota, clock.clone());
        Self { allowed, clock, failures, held_until: Mutex::default() }
    }

    /// Whether this address is answered now.
    pub fn admit(&self, peer: IpAddr) -> Admission {
        let peer = peer.to_canonical();
        if !self.allowed.is_empty() && !self.allowed.iter().any(|net| net.contains(&peer)) {
            return Admission::Outside;
        }
        let mut held = self.held_until.lock().unwrap_or_else(PoisonError::into_inner);
        let key = counted(peer);
        let now = self.clock.now();
        match held.get(&key) {
            Some(until) if *until > now => Admission::TooOften(until.duration_since(now).into()),
            Some(_) => {
                held.remove(&key);
                Admission::Admitted
            }
            None => Admission::Admitted,
        }
    }

    /// This address asked for something that is not its own.
    pub fn failed(&self, peer: IpAddr) -> Counted {
        let key = counted(peer.to_canonical());
        let mut count = Counted::Within;
        if let Err(not_until) = self.failures.check_key(&key) {
            count = Counted::Over;
            let mut held = self.held_until.lock().unwrap_or_else(PoisonError::into_inner);
            if held.len() > REMEMBERED {
                let now = self.clock.now();
                held.retain(|_, until| *until > now);
            }
            held.insert(key, not_until.earliest_possible());
        }
        if self.failures.len() > REMEMBERED {
            self.failures.retain_recent();
        }
        count
    }
}

/// Whoever has one address of IPv6 has 2⁶⁴ of them.
fn counted(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_allowed_subnets_are_answered_however_the_address_is_written() {
        let peers = Peers::new(vec!["10.0.0.0/8".parse().unwrap()]);
        assert_eq!(peers.admit(ip("10.1.2.3")), Admission::Admitted);
        assert_eq!(peers.admit(ip("::ffff:10.1.2.3")), Admission::Admitted);
        assert_eq!(peers.admit(ip("192.0.2.1")), Admission::Outside);
        assert_eq!(peers.admit(ip("2001:db8::1")), Admission::Outside);
        assert_eq!(Peers::new(Vec::new()).admit(ip("192.0.2.1")), Admission::Admitted);
    }

    #[test]
    fn an_address_that_fails_too_often_waits_and_others_do_not() {
        let clock = FakeRelativeClock::default();
        let peers = Peers::with_clock(Vec::new(), clock.clone());
        for _ in 0..BURST.get() {
            peers.failed(ip("192.0.2.1"));
            assert_eq!(peers.admit(ip("192.0.2.1")), Admission::Admitted);
        }
        peers.failed(ip("192.0.2.1"));
        assert!(matches!(peers.admit(ip("192.0.2.1")), Admission::TooOften(_)));
        assert_eq!(peers.admit(ip("192.0.2.2")), Admission::Admitted);
        clock.advance(Duration::from_secs(3));
        assert_eq!(peers.admit(ip("192.0.2.1")), Admission::Admitted);
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_are_one() {
        assert_eq!(counted(ip("2001:db8::1")), counted(ip("2001:db8::ffff:1")));
        assert_ne!(counted(ip("2001:db8::1")), counted(ip("2001:db8:0:1::1")));
    }
}
