//! `PowerOff`: one step, off; the operating system is asked first unless `spec.shutdownMode` is `Forced`. Taken back after a
//! request was accepted, it waits until that has had its time, and switches the machine on again where it went off.

use super::{power_step, unsupported};
use crate::job::{Action, Step, StepOutcome};
use crate::worker::Halt;
use crate::worker::run::Run;

/// Powers off and reads it back.
pub(super) async fn step(run: &mut Run<'_>) -> Result<StepOutcome, Halt> {
    match run.claim().job().step {
        Step::Off => power_step::off(run).await,
        Step::On if run.undoing() => on_again(run).await,
        step => Ok(unsupported(Action::PowerOff, step)),
    }
}

/// The undo step. What shall be off by now is left as it is, whatever its BMC says.
async fn on_again(run: &mut Run<'_>) -> Result<StepOutcome, Halt> {
    let probe = run.probe().await?;
    if run.shall_be_off() && (probe.is_ok() || run.server().is_some()) {
        return Ok(StepOutcome::Next);
    }
    match probe {
        Ok(probe) => run.fresh = Some(probe),
        Err(outcome) => return Ok(outcome),
    }
    power_step::on(run).await
}
