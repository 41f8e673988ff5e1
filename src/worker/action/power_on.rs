//! `PowerOn`: one step, on.

use super::{power_step, unsupported};
use crate::job::{Action, Step, StepOutcome};
use crate::worker::Halt;
use crate::worker::run::Run;

/// Powers on and reads it back.
pub(super) async fn step(run: &mut Run<'_>) -> Result<StepOutcome, Halt> {
    match run.claim().job().step {
        Step::On => power_step::on(run).await,
        step => Ok(unsupported(Action::PowerOn, step)),
    }
}
