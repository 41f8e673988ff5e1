//! `Reboot`: two durable steps, off and on, each read back. Once the off was stored the job ends with on, whatever
//! happens: on is also its undo step.
//!
//! A restart reset in one request is not used: without `LastResetTime` no successor can tell whether it happened.

use super::{power_step, unsupported};
use crate::api::{Power, Reason};
use crate::job::{Action, Problem, Step, StepOutcome};
use crate::worker::Halt;
use crate::worker::run::Run;

/// Off, then on.
pub(super) async fn step(run: &mut Run<'_>) -> Result<StepOutcome, Halt> {
    match run.claim().job().step {
        Step::Off => off(run).await,
        Step::On => power_step::on(run).await,
        step => Ok(unsupported(Action::Reboot, step)),
    }
}

async fn off(run: &mut Run<'_>) -> Result<StepOutcome, Halt> {
    let begun = run.claim().job().request_stored;
    let outcome = power_step::off(run).await?;
    // The machine was off before anything was sent: where no power is wished, a reboot would switch it on.
    Ok(match outcome {
        StepOutcome::Superseded { problem } if problem.reason == Reason::AlreadyDone && !begun => {
            if run.wished_power() == Some(Power::PoweredOn) {
                StepOutcome::Next
            } else {
                let message = "the machine is off already: there is nothing to reboot";
                StepOutcome::Superseded { problem: Problem::new(Reason::NotApplicable, message) }
            }
        }
        other => other,
    })
}
