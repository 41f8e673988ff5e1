//! One connection at a time for each BMC: many BMCs fall over when two clients talk to them at once.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

/// Below this size the map is never swept.
const SWEEP_FROM: usize = 64;

/// The turns of all BMCs that this process talks to. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Gates(Arc<Mutex<Turns>>);

#[derive(Debug, Default)]
struct Turns {
    by_line: HashMap<String, Weak<Turn<()>>>,
    sweep_at: usize,
}

/// Whoever holds it may connect to that BMC.
#[derive(Debug)]
#[must_use = "the BMC is free for the next one as soon as this is dropped"]
pub(super) struct Pass {
    _turns: Vec<OwnedMutexGuard<()>>,
}

/// By what one BMC is known, whichever host leads to it: its host and each of its addresses.
pub(super) fn lines(host: &str, addresses: &[SocketAddr]) -> BTreeSet<String> {
    let mut lines: BTreeSet<String> = addresses.iter().map(SocketAddr::to_string).collect();
    lines.insert(host.to_owned());
    lines
}

impl Gates {
    /// Waits for the BMC's turn, first come, first served. It is one BMC behind a host and all of its addresses, also where
    /// another host leads to one of them.
    pub(super) async fn pass(&self, host: &str, addresses: &[SocketAddr]) -> Pass {
        let lines = lines(host, addresses);
        let mut turns = Vec::with_capacity(lines.len());
        // All wait in the same order, so that no two wait for each other.
        for line in lines {
            turns.push(self.turn(&line).lock_owned().await);
        }
        Pass { _turns: turns }
    }

    fn turn(&self, line: &str) -> Arc<Turn<()>> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = turns.by_line.get(line).and_then(Weak::upgrade) {
            return turn;
        }
        // A sweep each time that the map has doubled keeps it within twice of what is in use.
        if turns.by_line.len() >= turns.sweep_at.max(SWEEP_FROM) {
            turns.by_line.retain(|_, turn| turn.strong_count() > 0);
            turns.sweep_at = turns.by_line.len() * 2;
        }
        let turn = Arc::new(Turn::new(()));
        turns.by_line.insert(line.to_owned(), Arc::downgrade(&turn));
        turn
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    impl Gates {
        async fn of(&self, port: u16) -> Pass {
            self.pass(&format!("host:{port}"), &[address(port)]).await
        }
    }

    #[tokio::test]
    async fn a_bmc_lets_one_in_and_the_next_when_it_has_left() {
        let gates = Gates::default();
        let first = gates.of(1).await;
        assert!(gates.of(2).now_or_never().is_some(), "another BMC is free");
        assert!(gates.of(1).now_or_never().is_none());
        drop(first);
        assert!(gates.of(1).now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_bmc_is_the_same_by_its_name_and_by_each_of_its_addresses() {
        let gates = Gates::default();
        let both = [address(1), address(2)];
        let by_name = gates.pass("bmc.example:443", &both).await;
        for (host, addresses) in [
            ("bmc.example:443", &both[..1]),
            ("bmc.example:443", &[address(3)]),
            ("192.0.2.1:2", &[address(2)]),
            ("other.example:443", &[address(3), address(1)]),
        ] {
            assert!(gates.pass(host, addresses).now_or_never().is_none(), "{host} {addresses:?}");
        }
        assert!(gates.pass("other.example:443", &[address(3)]).now_or_never().is_some());
        drop(by_name);
        assert!(gates.pass("192.0.2.1:2", &[address(2)]).now_or_never().is_some());
    }

    #[tokio::test]
    async fn bmcs_that_nobody_talks_to_are_forgotten() {
        let gates = Gates::default();
        let held = gates.of(0).await;
        for port in 1..5_000 {
            drop(gates.of(port).await);
        }
        assert!(gates.0.lock().unwrap().by_line.len() <= SWEEP_FROM + 2);
        assert!(gates.of(0).now_or_never().is_none(), "one in use is not forgotten");
        drop(held);
    }
}
