//! Another database behind the same address, after a failover or a restore: what was read before may not hold any more,
//! so every server is looked at again, and everything is derived anew from Kubernetes.
#![expect(clippy::disallowed_methods, reason = "where the address leads is looked at again and again")]

use std::time::Duration;

use super::context::Context;
use crate::metrics;
use crate::queue::Followed;

/// Between two looks at where the address leads.
const EVERY: Duration = Duration::from_secs(2);

/// Follows for ever.
pub(super) async fn run(context: &Context) {
    loop {
        match context.queue.follow().await {
            Ok(Followed::Same) => {}
            Ok(Followed::Another) => {
                metrics::HISTORIES.one(&[]);
                tracing::warn!("the database tells another history: every server is looked at again");
                context.fleet.wake_where(None, |_| true);
            }
            // The feed reports a database that is away.
            Err(error) => tracing::debug!(%error, "where the address of the database leads was not seen"),
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = context.queue.another_history_seen() => {}
        }
    }
}
