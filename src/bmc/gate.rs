//! One connection at a time for each BMC: many BMCs fall over when two clients talk to them at once.

use std::collections::HashMap;
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
    by_host: HashMap<SocketAddr, Weak<Turn<()>>>,
    sweep_at: usize,
}

/// Whoever holds it may connect to that BMC.
#[derive(Debug)]
#[must_use = "the BMC is free for the next one as soon as this is dropped"]
pub(super) struct Pass {
    _turn: OwnedMutexGuard<()>,
}

impl Gates {
    /// Waits for the BMC's turn, first come, first served.
    pub(super) async fn pass(&self, host: SocketAddr) -> Pass {
        let turn = self.turn(host);
        Pass { _turn: turn.lock_owned().await }
    }

    fn turn(&self, host: SocketAddr) -> Arc<Turn<()>> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = turns.by_host.get(&host).and_then(Weak::upgrade) {
            return turn;
        }
        // A sweep each time that the map has doubled keeps it within twice of what is in use.
        if turns.by_host.len() >= turns.sweep_at.max(SWEEP_FROM) {
            turns.by_host.retain(|_, turn| turn.strong_count() > 0);
            turns.sweep_at = turns.by_host.len() * 2;
        }
        let turn = Arc::new(Turn::new(()));
        turns.by_host.insert(host, Arc::downgrade(&turn));
        turn
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn host(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[tokio::test]
    async fn a_bmc_lets_one_in_and_the_next_when_it_has_left() {
        let gates = Gates::default();
        let first = gates.pass(host(1)).await;
        assert!(gates.pass(host(2)).now_or_never().is_some(), "another BMC is free");
        assert!(gates.pass(host(1)).now_or_never().is_none());
        drop(first);
        assert!(gates.pass(host(1)).now_or_never().is_some());
    }

    #[tokio::test]
    async fn bmcs_that_nobody_talks_to_are_forgotten() {
        let gates = Gates::default();
        let held = gates.pass(host(0)).await;
        for port in 1..5_000 {
            drop(gates.pass(host(port)).await);
        }
        assert!(gates.0.lock().unwrap().by_host.len() <= SWEEP_FROM);
        assert!(gates.pass(host(0)).now_or_never().is_none(), "one in use is not forgotten");
        drop(held);
    }
}
