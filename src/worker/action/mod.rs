//! What each action does in each of its steps: one file per action. Everything around a step (claims, leases, stored
//! requests, undo, the end) is the same for all of them and stands in `run`.

pub(in crate::worker) mod card;
mod inspect;
mod install;
mod medium;
mod power_off;
mod power_on;
mod reboot;
mod wipe;

use super::run::Run;
use super::{Halt, power_step};
use crate::api::Reason;
use crate::job::{Action, Problem, Step, StepOutcome};

/// Runs the present step once.
pub(super) async fn step(run: &mut Run<'_>) -> Result<StepOutcome, Halt> {
    match run.claim().job().action {
        Action::Inspect => inspect::step(run).await,
        Action::PowerOn => power_on::step(run).await,
        Action::PowerOff => power_off::step(run).await,
        Action::Reboot => reboot::step(run).await,
        Action::Build | Action::Reimage => install::step(run).await,
        Action::Wipe | Action::Decommission => wipe::step(run).await,
    }
}

/// How long a job waits for a worker of another release, in milliseconds.
const LEFT_FOR_MS: i64 = 30_000;

/// A job whose row names what this release cannot run is left to the release that can: nothing was sent.
fn unsupported(action: Action, step: Step) -> StepOutcome {
    let message = format!(
        "this release of AutoBuild does not know step {step} of action {action}: run a worker of the release that does, or \
         finish the upgrade"
    );
    StepOutcome::Retry { after_ms: LEFT_FOR_MS, problem: Problem::new(Reason::UnsupportedJob, message) }
}
