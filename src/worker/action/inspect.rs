//! `Inspect`: reads power, identity and inventory. Sends nothing that changes the machine.

use super::unsupported;
use crate::job::{Action, Step, StepOutcome};
use crate::worker::Halt;
use crate::worker::run::Run;

/// One look.
pub(super) async fn step(run: &mut Run<'_>) -> Result<StepOutcome, Halt> {
    match run.claim().job().step {
        Step::Inspect => run.inspect().await,
        step => Ok(unsupported(Action::Inspect, step)),
    }
}
