//! One change of one Server, and how long it took: to the BMC's first request, and from the BMC back to `status`.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads clocks, and asks at random moments")]

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::BenchError;
use super::super::figure::{Figure, Target, quantile};
use super::stage::Stage;
use crate::api::hardware::PowerState;

/// How long one change may take.
const LIMIT: Duration = Duration::from_mins(2);
/// Between two looks into the log of the BMCs.
const LOOK: Duration = Duration::from_millis(100);

/// The times of some changes, in milliseconds.
#[derive(Debug, Default)]
pub(super) struct Times {
    /// From the user's request to the first request that the BMC got.
    pub to_request: Vec<f64>,
    /// From the effect on the machine to the status that shows it.
    pub to_status: Vec<f64>,
    /// From the user's request to that status.
    pub whole: Vec<f64>,
}

fn ms(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() * 1_000.0
}

impl Times {
    /// p50 and p99 of each; `targets` for p50 of the whole and p99 of the first request, where there are some.
    pub(super) fn figures(
        &self,
        what: &str,
        first_p99: Option<Target>,
        whole_p50: Option<Target>,
    ) -> Vec<Figure> {
        let mut figures = Vec::new();
        for (part, values, p50, p99) in [
            ("spec change to first BMC request", &self.to_request, None, first_p99),
            ("BMC change to status", &self.to_status, None, None),
            ("spec change to status", &self.whole, whole_p50, None),
        ] {
            if values.is_empty() {
                continue;
            }
            for (name, share, target) in [("p50", 0.5, p50), ("p99", 0.99, p99)] {
                let figure = Figure::new(format!("{what}: {part}, {name}"), quantile(values, share), "ms");
                figures.push(match target {
                    Some(target) => figure.held_against(target),
                    None => figure,
                });
            }
        }
        figures
    }

    /// Switches a machine to another power state and waits until its status shows it.
    pub(super) async fn switch(
        &mut self,
        stage: &Stage<'_>,
        name: &str,
        to: PowerState,
    ) -> Result<(), BenchError> {
        let asked = Instant::now();
        let changed = stage.cluster.change(name, &json!({ "power": to })).await?;
        let generation = changed.metadata.generation.unwrap_or(0);
        let holds = |_: &str, view: &super::seen::View| {
            view.generation >= generation && view.settled() && view.power == Some(to)
        };
        let shown = stage.seen.until("be switched", &[name.to_owned()], LIMIT, holds).await?;
        let requests = stage.bmcs.asked_since(name, asked).await?;
        if let Some(first) = requests.first() {
            self.to_request.push(ms(asked, first.at));
        }
        if let Some(shown) = shown.get(name).copied() {
            self.whole.push(ms(asked, shown));
            if let Some(effect) = requests.iter().rev().find_map(|one| one.effect_at) {
                self.to_status.push(ms(effect, shown));
            }
        }
        Ok(())
    }

    /// Changes a Server and waits for the first request that its BMC gets.
    pub(super) async fn ask(
        &mut self,
        stage: &Stage<'_>,
        name: &str,
        spec: &Value,
    ) -> Result<(), BenchError> {
        let asked = Instant::now();
        stage.cluster.change(name, spec).await?;
        while asked.elapsed() < LIMIT {
            if let Some(first) = stage.bmcs.asked_since(name, asked).await?.first() {
                self.to_request.push(ms(asked, first.at));
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
        Err(BenchError::Late {
            what: "be asked anything".into(),
            seconds: LIMIT.as_secs(),
            left: 1,
            first: name.to_owned(),
            shown: "no request at its BMC".into(),
        })
    }
}

/// The power state that a machine does not have.
pub(super) fn other(power: Option<PowerState>) -> PowerState {
    if power == Some(PowerState::PoweredOff) { PowerState::PoweredOn } else { PowerState::PoweredOff }
}

/// Switches machines off and on again, one after the other, at random moments, on a fleet that does nothing else.
pub(super) async fn idle(stage: &Stage<'_>, samples: u32) -> Result<Vec<Figure>, BenchError> {
    let names = stage.bmcs.names();
    let mut times = Times::default();
    // What follows finds all of them on: a reboot of one that is off would be none.
    for number in 0..samples.next_multiple_of(2) as usize {
        tokio::time::sleep(Duration::from_millis(rand::random_range(20..200))).await;
        // Far apart, and in no order that a cache could like.
        let Some(name) = names.get(number / 2 * 7_919 % names.len().max(1)) else { break };
        let power = stage.seen.view(name).and_then(|view| view.power);
        times.switch(stage, name, other(power)).await?;
    }
    Ok(times.figures("idle", Some(Target::AtMost(250.0)), None))
}
