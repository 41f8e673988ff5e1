//! Whose reconcile runs next: who came first, with places that only new wishes may take.
//!
//! kube-runtime picks any of those that wait, so that under load some wait for minutes (measured: 25 s to 110 s beside a hundred
//! installations). So it starts all of them, and they wait here.

use tokio::sync::{Semaphore, SemaphorePermit};

/// The reconciles that may run at once, over all namespaces.
#[derive(Debug)]
pub(super) struct Turns {
    any: Semaphore,
    wishes: Semaphore,
}

impl Turns {
    /// So many at once; a quarter of them is kept for Servers whose spec is new, so that a wish is acted on while much waits to
    /// be shown.
    pub(super) fn new(at_once: u16) -> Self {
        let at_once = usize::from(at_once);
        let wishes = if at_once > 1 { (at_once / 4).max(1) } else { 0 };
        Self { any: Semaphore::new(at_once - wishes), wishes: Semaphore::new(wishes) }
    }

    /// Waits for a turn, which is over when it is dropped. `None`: the term is over.
    pub(super) async fn take(&self, is_new_wish: bool) -> Option<SemaphorePermit<'_>> {
        if !is_new_wish {
            return self.any.acquire().await.ok();
        }
        tokio::select! {
            biased;
            turn = self.any.acquire() => turn.ok(),
            turn = self.wishes.acquire() => turn.ok(),
        }
    }

    /// Sends everybody away who waits.
    pub(super) fn close(&self) {
        self.any.close();
        self.wishes.close();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_new_wish_has_a_turn_while_all_others_wait_for_theirs_in_order() {
        let turns = Turns::new(4);
        let mut running = Vec::new();
        for _ in 0..3 {
            running.push(turns.take(false).await.unwrap());
        }
        let mut first = Box::pin(turns.take(false));
        let mut second = Box::pin(turns.take(false));
        assert!(first.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        let wish = turns.take(true).now_or_never().flatten().unwrap();
        assert!(turns.take(true).now_or_never().is_none(), "four run");
        drop(wish);
        assert!(first.as_mut().now_or_never().is_none(), "that place is kept");
        running.pop();
        assert!(second.as_mut().now_or_never().is_none(), "the first comes first");
        assert!(first.as_mut().now_or_never().flatten().is_some());
    }

    #[tokio::test]
    async fn one_at_once_is_for_everybody_and_a_closed_term_sends_all_away() {
        let turns = Turns::new(1);
        let only = turns.take(true).now_or_never().flatten().unwrap();
        assert!(turns.take(true).now_or_never().is_none());
        turns.close();
        assert!(turns.take(true).await.is_none() && turns.take(false).await.is_none());
        drop(only);
    }
}
