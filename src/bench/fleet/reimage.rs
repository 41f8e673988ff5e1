//! Reimages: each Server gets the next token as soon as it is through with the one before, until all are given out.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads clocks")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;

use super::super::figure::{Figure, Target};
use super::super::ledger::Faults;
use super::super::{BenchError, Report};
use super::ask::{Times, other};
use super::cluster::each;
use super::meters::Meters;
use super::pace::{Pace, curve};
use super::seen::View;
use super::stage::Stage;
use crate::api::hardware::PowerState;

/// Between two looks for Servers that are through.
const LOOK: Duration = Duration::from_millis(50);
/// How long the API server's own rate is measured, before and after.
const RAW: Duration = Duration::from_secs(5);
/// Between two changes of the one server that is not reimaged.
const PROBE: Duration = Duration::from_millis(500);

/// Tokens that were given out, and whose installations were counted before.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    given: BTreeMap<String, u64>,
    before: BTreeMap<String, u64>,
}

impl Tokens {
    /// Before any is given.
    pub(super) async fn new(stage: &Stage<'_>) -> Result<Self, BenchError> {
        Ok(Self { given: BTreeMap::new(), before: stage.bmcs.installs().await? })
    }

    /// Gives each of them one more.
    pub(super) async fn give(&mut self, stage: &Stage<'_>, names: Vec<String>) -> Result<(), BenchError> {
        for name in &names {
            *self.given.entry(name.clone()).or_default() += 1;
        }
        let given = &self.given;
        each(names, async |name| {
            let token =
                token(given.get(&name).copied().unwrap_or(0), self.before.get(&name).copied().unwrap_or(0));
            // While it is only adopted, a token installs nothing.
            let spec = json!({ "reimageToken": token, "provisioning": "Install" });
            stage.cluster.change(&name, &spec).await.map(|_| ())
        })
        .await
    }

    /// Whether a server is through with its newest.
    pub(super) fn is_through(&self, name: &str, view: &View) -> bool {
        let newest =
            token(self.given.get(name).copied().unwrap_or(0), self.before.get(name).copied().unwrap_or(0));
        view.settled() && view.job.is_none() && view.reimaged.contains(&newest)
    }

    /// How many were given out.
    pub(super) fn count(&self) -> u64 {
        self.given.values().sum()
    }

    /// Each token was to begin one installation.
    pub(super) async fn faults(&self, stage: &Stage<'_>) -> Result<Faults, BenchError> {
        let now = stage.bmcs.installs().await?;
        let counts = now.iter().map(|(name, now)| {
            let begun = now - self.before.get(name).copied().unwrap_or(0).min(*now);
            (begun, self.given.get(name).copied().unwrap_or(0))
        });
        Ok(super::tally(counts))
    }
}

/// Never the same twice for one server: a token that was acted on is none.
fn token(number: u64, before: u64) -> String {
    format!("bench-{}", number + before)
}

/// Reimages, with one server beside them whose power is switched all the time.
pub(super) async fn measure(stage: &Stage<'_>) -> Result<Report, BenchError> {
    let mut names = stage.bmcs.names();
    let probe = if names.len() > 1 { names.pop() } else { None };
    let raw_before = stage.raw.rate(RAW).await?;
    let mut tokens = Tokens::new(stage).await?;
    let meters = Meters::start(&stage.watched());
    let pace = Pace::start(stage).await?;
    let begun = Instant::now();
    let over = tokio_util::sync::CancellationToken::new();
    let mut times = Times::default();
    let waves = async {
        let ends = waves(stage, &names, &mut tokens).await;
        over.cancel();
        ends
    };
    let probing = async {
        while let Some(name) = probe.as_ref().filter(|_| !over.is_cancelled()) {
            let power = stage.seen.view(name).and_then(|view| view.power);
            times.switch(stage, name, other(power)).await?;
            tokio::time::sleep(PROBE).await;
        }
        // What follows finds it on, like the others.
        let off = |name: &&String| {
            stage.seen.view(name).is_some_and(|view| view.power == Some(PowerState::PoweredOff))
        };
        if let Some(name) = probe.as_ref().filter(off) {
            times.switch(stage, name, PowerState::PoweredOn).await?;
        }
        Ok::<(), BenchError>(())
    };
    let (ends, ()) = tokio::try_join!(waves, probing)?;
    let took = ends.iter().max().copied().unwrap_or(begun).saturating_duration_since(begun);
    let patches = pace.patch_rate(stage, took).await?;
    let paces = pace.figures(stage, "reimaged", took, ends.len()).await?;
    let costs = meters.figures("reimaged");
    let raw_after = stage.raw.rate(RAW).await?;
    let raw = f64::midpoint(raw_before, raw_after);
    let seconds = took.as_secs_f64().max(f64::MIN_POSITIVE);
    let mut report = Report { faults: tokens.faults(stage).await?, ..Report::default() };
    let rate = Figure::new("reimaged", ends.len() as f64 / seconds * 60.0, "servers/min");
    report.figures.push(rate.held_against(Target::AtLeast(2_000.0)));
    report.figures.extend([
        Figure::new("reimaged: number", ends.len() as f64, "reimages"),
        Figure::new("reimaged: whole time", took.as_secs_f64(), "s"),
        Figure::new("raw limit of status patches, before", raw_before, "writes/s"),
        Figure::new("raw limit of status patches, after", raw_after, "writes/s"),
        Figure::new("reimaged: status writes / raw limit", patches / raw, "ratio")
            .held_against(Target::AtLeast(0.5)),
    ]);
    report.figures.extend(paces);
    report.figures.extend(costs);
    report.figures.extend(times.figures("beside reimages", None, Some(Target::AtMost(250.0))));
    report.plots.push(curve("reimage", "Servers that were reimaged", begun, ends.into_iter()));
    Ok(report)
}

/// Gives out tokens until enough are; returns when each was through.
async fn waves(stage: &Stage<'_>, names: &[String], tokens: &mut Tokens) -> Result<Vec<Instant>, BenchError> {
    let wanted = u64::from(stage.order.reimages);
    let limit = Duration::from_mins(2) + Duration::from_millis(200) * stage.order.reimages;
    let begun = Instant::now();
    let mut ends = Vec::new();
    let first: Vec<String> = names.iter().take(stage.order.reimages as usize).cloned().collect();
    tokens.give(stage, first.clone()).await?;
    let mut left = first;
    while !left.is_empty() {
        let mut through = Vec::new();
        left.retain(|name| match stage.seen.view(name).filter(|view| tokens.is_through(name, view)) {
            Some(view) => {
                ends.push(view.at);
                through.push(name.clone());
                false
            }
            None => true,
        });
        let more = (wanted - tokens.count()).min(through.len() as u64) as usize;
        through.truncate(more);
        if more > 0 {
            tokens.give(stage, through.clone()).await?;
            left.extend(through);
        }
        if begun.elapsed() > limit {
            // Says which, and how it looks.
            let holds = |name: &str, view: &View| tokens.is_through(name, view);
            stage.seen.until("be reimaged", &left, Duration::from_secs(1), holds).await?;
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(ends)
}
