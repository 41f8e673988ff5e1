//! A call of a BMC: its turn, its metrics.
#![expect(clippy::disallowed_methods, reason = "turns have deadlines, and calls are measured")]

use tokio::time::{Instant, timeout_at};

use super::error::{BmcError, BmcErrorKind, Delivery};
use super::gate::{Gates, Pass};
use super::peers::Peers;
use crate::metrics;

/// Waits for the BMC's turn until `turn_by`, then runs `work`.
pub(super) async fn in_turn<T, W>(
    (gates, peers): (&Gates, &Peers),
    operation: &'static str,
    turn_by: Instant,
    work: W,
) -> Result<T, BmcError>
where
    W: AsyncFnOnce(Pass) -> Result<T, BmcError>,
{
    let result = if let Ok(pass) = timeout_at(turn_by, gates.pass(peers.host(), peers.all())).await {
        let start = Instant::now();
        let result = work(pass).await;
        metrics::BMC_TIME.observe(&[operation], start.elapsed().as_secs_f64());
        result
    } else {
        let why = "is taken by other work of this process, one connection at a time";
        Err(BmcError::new(
            BmcErrorKind::Busy(None),
            Delivery::NotSent,
            format!("the BMC {} {why}", peers.host()),
        ))
    };
    let outcome = result.as_ref().map_or_else(|error| error.kind.class(), |_| "done");
    metrics::BMC_REQUESTS.one(&[operation, outcome]);
    result
}
