//! `PowerOff`: one step, off; the operating system is asked first unless `spec.shutdownMode` is `Forced`.

use super::{power_step, unsupported};
use crate::job::{Action, Step, StepOutcome};
use crate::worker::Halt;
use crate::worker::run::Run;

/// Powers off and reads it back.
pub(super) async fn step(run: &mut Run<'_>) -> Result<StepOutcome, Halt> {
    match run.claim().job().step {
        Step::Off => power_step::off(run).await,
        step => Ok(unsupported(Action::PowerOff, step)),
    }
}
