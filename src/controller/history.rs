//! Another database behind the same address, after a failover or a restore: what was read before may not hold any more,
//! so every server is looked at again, and everything is derived anew from Kubernetes.

use std::time::Duration;

use super::context::Context;
use crate::http::Readiness;
use crate::metrics;
use crate::queue::Followed;

/// What waits, in `/readyz`.
const PART: &str = "primary";
/// Between two looks at where the address leads.
const EVERY: Duration = Duration::from_secs(2);

/// Follows for ever.
pub(super) async fn run(context: &Context, readiness: &Readiness) {
    loop {
        match context.queue.follow().await {
            Ok(Followed::Same) => readiness.ready(PART),
            Ok(Followed::Another) => {
                readiness.ready(PART);
                metrics::HISTORIES.one(&[]);
                tracing::warn!("the database tells another history: every server is looked at again");
                context.fleet.wake_where(None, |_| true);
            }
            // The feed reports a database that is away; what it says may be no more than that no connection was had.
            Err(error) => readiness.waits(PART, error.to_string()),
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = context.queue.another_history_seen() => {}
        }
    }
}
