//! Waiting in place of an installer that asks once: Debian's stops for good at one answer to its data that is not 200, however
//! soon the database or the API server would be back.

use std::future::Future;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::denied::Denied;

/// How long, how often, and for how many machines at once.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Until what is away is told to be away. A failover of the database is over by then.
    pub whole: Duration,
    /// Between two tries.
    pub pause: Duration,
    /// So many machines at once; the others are told at once. Each has a place among the connections.
    pub machines: usize,
}

impl Default for Patience {
    fn default() -> Self {
        Self { whole: Duration::from_secs(30), pause: Duration::from_secs(1), machines: 512 }
    }
}

/// Those who are waited for.
#[derive(Debug)]
pub(super) struct Waits {
    patience: Patience,
    places: Semaphore,
    over: CancellationToken,
}

impl Waits {
    pub(super) fn new(patience: Patience) -> Self {
        Self { patience, places: Semaphore::new(patience.machines), over: CancellationToken::new() }
    }

    /// Nobody is waited for any more: this process ends.
    pub(super) fn end(&self) {
        self.over.cancel();
    }

    /// Tries until the answer is another one than that something is away. What is refused for good is refused at once.
    pub(super) async fn until_there<T, F>(&self, mut answer: impl FnMut() -> F) -> Result<T, Denied>
    where
        F: Future<Output = Result<T, Denied>>,
    {
        let first = answer().await;
        if !matches!(first, Err(Denied::Later(_))) {
            return first;
        }
        let Ok(_place) = self.places.try_acquire() else { return first };
        let mut last = first;
        let mut over = std::pin::pin!(tokio::time::sleep(self.patience.whole));
        loop {
            tokio::select! {
                biased;
                () = self.over.cancelled() => return last,
                () = &mut over => return last,
                () = tokio::time::sleep(self.patience.pause) => {}
            }
            tokio::select! {
                biased;
                () = self.over.cancelled() => return last,
                again = answer() => last = again,
            }
            if !matches!(last, Err(Denied::Later(_))) {
                return last;
            }
        }
    }
}
