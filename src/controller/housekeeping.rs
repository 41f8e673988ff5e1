//! What the leader tidies up now and then, in small portions.
#![expect(clippy::disallowed_methods, reason = "pauses are jittered")]

use std::time::Duration;

use super::context::Context;
use super::ghosts::Ghosts;
use crate::config;
use crate::queue::QueueError;

/// Between two rounds.
const EVERY: Duration = Duration::from_secs(10);
/// Servers whose refusal is taken back in one round.
const FORGIVEN: u32 = 200;
/// Rows that one delete takes from the history; and how many deletes a round makes at most.
const TRIMMED: u32 = 500;
const DELETES: u32 = 20;

/// How long spent budgets stay, for people who ask what happened.
const BUDGETS_KEPT: Duration = Duration::from_hours(48);

/// Tidies for ever.
pub(super) async fn run(context: &Context) {
    let mut ghosts = Ghosts::default();
    let mut patrol = None;
    context.fleet.synced().await;
    loop {
        tokio::time::sleep(EVERY.mul_f64(rand::random_range(0.9..1.1))).await;
        context.fleet.count_phases();
        match ghosts.patrol(context, patrol.as_ref()).await {
            Ok(next) => patrol = next,
            Err(error) => tracing::debug!(%error, "rows were not compared with their Servers"),
        }
        if let Err(error) = tidy(context).await {
            tracing::debug!(%error, "housekeeping did not come to its end");
        }
    }
}

async fn tidy(context: &Context) -> Result<(), QueueError> {
    let forgiven = context.queue.forgive_orphans(FORGIVEN).await?;
    if forgiven > 0 {
        tracing::info!(
            servers = forgiven,
            "BMCs are claimed by nobody any more: their refused Servers try again"
        );
    }
    let budgets_before_ms = context.queue.now_ms().await? - config::ms(BUDGETS_KEPT);
    context.queue.trim_budgets(budgets_before_ms, TRIMMED).await?;
    let before_ms = context.queue.now_ms().await? - config::ms(context.settings.history_retention);
    for _ in 0..DELETES {
        if context.queue.trim_history(before_ms, TRIMMED).await? < u64::from(TRIMMED) {
            break;
        }
    }
    Ok(())
}
