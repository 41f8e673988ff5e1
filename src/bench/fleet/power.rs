//! Every machine is switched at once, as one change of all Servers that a selector finds.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads clocks")]

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::json;

use super::super::figure::{Figure, Target};
use super::super::ledger::Faults;
use super::super::{BenchError, Report};
use super::meters::Meters;
use super::pace::{Pace, curve};
use super::stage::Stage;
use crate::api::hardware::PowerState;

/// Off, then on.
pub(super) async fn measure(stage: &Stage<'_>) -> Result<Report, BenchError> {
    // All of them have something to do.
    switch(stage, PowerState::PoweredOn).await?;
    let begun = Instant::now();
    let meters = Meters::start(&stage.watched());
    let pace = Pace::start(stage).await?;
    let off = switch(stage, PowerState::PoweredOff).await?;
    let mut report = Report::default();
    let rate = Figure::new("all powered off", off.per_minute(), "servers/min");
    report.figures.push(rate.held_against(Target::AtLeast(6_000.0)));
    report.figures.push(Figure::new("all powered off: whole time", off.took.as_secs_f64(), "s"));
    report.figures.push(Figure::new("all powered off: the changes alone", off.asking.as_secs_f64(), "s"));
    report.figures.extend(pace.figures(stage, "all powered off", off.took, off.ends.len()).await?);
    report.figures.extend(meters.figures("all powered off"));
    report.faults = faults(stage, begun).await?;
    report.plots.push(curve(
        "power-off",
        "Servers that are off after one change of all",
        begun,
        off.ends.into_iter(),
    ));
    let begun = Instant::now();
    let on = switch(stage, PowerState::PoweredOn).await?;
    report.figures.push(Figure::new("all powered on", on.per_minute(), "servers/min"));
    report.faults = report.faults.plus(faults(stage, begun).await?);
    Ok(report)
}

struct Switched {
    asking: Duration,
    took: Duration,
    ends: Vec<Instant>,
}

impl Switched {
    fn per_minute(&self) -> f64 {
        self.ends.len() as f64 / self.took.as_secs_f64().max(f64::MIN_POSITIVE) * 60.0
    }
}

async fn switch(stage: &Stage<'_>, to: PowerState) -> Result<Switched, BenchError> {
    let begun = Instant::now();
    let names = stage.cluster.change_labelled(&json!({ "power": to })).await?;
    let asking = begun.elapsed();
    let limit = Duration::from_mins(2) + Duration::from_millis(200) * stage.order.servers;
    let shown = stage
        .seen
        .until("be switched", &names, limit, |_, view| view.settled() && view.power == Some(to))
        .await?;
    let ends: Vec<Instant> = shown.into_values().collect();
    let took = ends.iter().max().copied().unwrap_or(begun).saturating_duration_since(begun);
    Ok(Switched { asking, took, ends })
}

/// Each machine was to get one reset.
async fn faults(stage: &Stage<'_>, since: Instant) -> Result<Faults, BenchError> {
    let mut resets: HashMap<String, u64> = HashMap::new();
    for asked in stage.bmcs.changes_since(since).await? {
        if asked.reset.is_some() {
            *resets.entry(asked.system).or_default() += 1;
        }
    }
    let names = stage.bmcs.names();
    let counts = names.iter().map(|name| resets.get(name).copied().unwrap_or(0));
    Ok(super::tally(counts.map(|count| (count, 1))))
}
