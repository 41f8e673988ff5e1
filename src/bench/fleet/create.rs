//! Servers that are created until they are Ready.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads clocks")]

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;

use super::super::figure::{Figure, Target, quantile};
use super::super::{BenchError, Report};
use super::cluster::{Cluster, each};
use super::meters::Meters;
use super::pace::{Pace, curve};
use super::stage::{IMAGE, Stage};

/// Creates all Servers with an image that is on them already, and waits for them.
pub(super) async fn measure(stage: &Stage<'_>) -> Result<Report, BenchError> {
    let names = stage.bmcs.names();
    let spec = json!({ "image": { "name": IMAGE }, "provisioning": "Adopt" });
    let (servers, begun) = (stage.cluster.servers(), Instant::now());
    let created: Mutex<HashMap<String, Instant>> = Mutex::default();
    let meters = Meters::start(&stage.watched());
    let pace = Pace::start(stage).await?;
    let creating = each(names.clone(), async |name| {
        let at = Instant::now();
        stage.cluster.create(&servers, Cluster::manifest(&name, &stage.bmcs.address(&name), &spec)).await?;
        created.lock().unwrap_or_else(PoisonError::into_inner).insert(name, at);
        Ok(())
    });
    creating.await?;
    let created_in = begun.elapsed();
    let limit = Duration::from_mins(2) + Duration::from_millis(200) * stage.order.servers;
    let ready = stage.seen.until("be Ready", &names, limit, |_, view| view.settled()).await?;
    let took = ready.values().max().copied().unwrap_or(begun).saturating_duration_since(begun);
    let created = created.into_inner().unwrap_or_else(PoisonError::into_inner);
    let each_ms: Vec<f64> = ready
        .iter()
        .filter_map(|(name, at)| {
            Some(at.saturating_duration_since(*created.get(name)?).as_secs_f64() * 1_000.0)
        })
        .collect();
    let count = names.len() as f64;
    let mut report = Report::default();
    let per_minute = Figure::new("created to Ready", count / took.as_secs_f64() * 60.0, "servers/min");
    report.figures.push(per_minute.held_against(Target::AtLeast(2_000.0)));
    report.figures.extend([
        Figure::new("created to Ready: whole time", took.as_secs_f64(), "s"),
        Figure::new("created to Ready: the creations alone", created_in.as_secs_f64(), "s"),
        Figure::new("created to Ready: each, p50", quantile(&each_ms, 0.5), "ms"),
        Figure::new("created to Ready: each, p99", quantile(&each_ms, 0.99), "ms"),
    ]);
    report.figures.extend(pace.figures(stage, "created to Ready", took, count as usize).await?);
    report.figures.extend(meters.figures("created to Ready"));
    report.plots.push(curve(
        "create",
        "Servers that are Ready after their creation",
        begun,
        ready.into_values(),
    ));
    Ok(report)
}
