//! `Wipe` and `Decommission`: the machine boots what erases its disks, that calls home when they are empty, and the power is
//! cut. Without that call nothing counts as erased.

use super::install::{self, evidence, last_seen, left, once_more, unusable};
use super::medium;
use crate::api::Reason;
use crate::job::{Action, Problem, Step, StepOutcome, WaitingFor};
use crate::queue::Disks;
use crate::worker::run::Run;
use crate::worker::{Halt, power_step};

/// One step, or one of its undo.
pub(super) async fn step(run: &mut Run<'_>) -> Result<StepOutcome, Halt> {
    match run.claim().job().step {
        Step::AwaitWipe => await_wipe(run).await,
        Step::OffForGood => off_for_good(run).await,
        _ => install::step(run).await,
    }
}

async fn await_wipe(run: &mut Run<'_>) -> Result<StepOutcome, Halt> {
    let evidence = match evidence(run).await? {
        Ok(evidence) => evidence,
        Err(outcome) => return Ok(outcome),
    };
    if evidence.installed_at_ms.is_some() {
        return Ok(StepOutcome::Next);
    }
    if let Some(problem) = unusable(run, &evidence) {
        return Ok(StepOutcome::Failed { problem });
    }
    let failed = |reason, message| Ok(StepOutcome::Failed { problem: Problem::new(reason, message) });
    if let Some(reason) = &evidence.failed {
        let message =
            format!("the disks were not erased: {reason}; look at the machine's console, {}", once_more(run));
        return failed(Reason::InstallFailed, message);
    }
    let deadline = run.around.settings.wipe_deadline;
    if let Some(after_ms) = left(run, deadline) {
        return Ok(StepOutcome::Park { after_ms, waiting_for: WaitingFor::Wipe });
    }
    let message = format!(
        "the disks were not erased within {} s; {}: look at the machine's console, {}",
        deadline.as_secs(),
        last_seen(&evidence, run.now_ms()),
        once_more(run)
    );
    failed(Reason::InstallTimedOut, message)
}

fn never_called(run: &Run<'_>) -> Problem {
    let message = format!(
        "nothing says that the machine called home with empty disks: they do not count as erased; look at it, {}",
        once_more(run)
    );
    Problem::new(Reason::HistoryLost, message)
}

/// The machine called home before: its disks are empty, whatever becomes of its power. The medium goes when nothing runs from
/// it any more.
async fn off_for_good(run: &mut Run<'_>) -> Result<StepOutcome, Halt> {
    if !run.undoing() {
        match evidence(run).await? {
            Ok(evidence) if evidence.installed_at_ms.is_some() => {}
            // A step says what was done before it, and proves nothing.
            Ok(_) => return Ok(StepOutcome::Failed { problem: never_called(run) }),
            Err(outcome) => return Ok(outcome),
        }
    }
    let mut outcome = power_step::off_at_once(run).await?;
    let from_medium = run.checkpoint.install.as_ref().is_some_and(|install| install.media_hash.is_some());
    if outcome == StepOutcome::Next && from_medium {
        outcome = medium::eject(run).await?;
    }
    if outcome == StepOutcome::Next && !run.undoing() {
        run.disks = match run.action() {
            Action::Decommission => Disks::Decommissioned,
            _ => Disks::Wiped,
        };
    }
    Ok(outcome)
}
