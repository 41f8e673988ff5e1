//! The off and on steps: look, move, look again.

use super::Halt;
use super::power::{self, Move};
use super::request::Sent;
use super::run::Run;
use crate::api::{Reason, ShutdownMode};
use crate::job::{Problem, RequestKind, Step, StepOutcome};

/// Powers off and reads it back.
pub(super) async fn off(run: &mut Run<'_>) -> Result<StepOutcome, Halt> {
    towards(run, |run, look| power::off(look, run.shutdown_mode(), run.patience())).await
}

/// Cuts the power and reads it back: nothing is left that would shut down.
pub(super) async fn off_at_once(run: &mut Run<'_>) -> Result<StepOutcome, Halt> {
    towards(run, |run, look| power::off(look, ShutdownMode::Forced, run.patience())).await
}

/// Powers on and reads it back.
pub(super) async fn on(run: &mut Run<'_>) -> Result<StepOutcome, Halt> {
    let outcome = towards(run, |run, look| power::on(look, run.patience())).await?;
    // What was on all the time says nothing about an off that another job has sent.
    run.is_on = outcome == StepOutcome::Next;
    if run.is_on {
        run.forget();
    }
    Ok(outcome)
}

async fn towards(
    run: &mut Run<'_>,
    next: impl Fn(&Run<'_>, power::Look) -> Move,
) -> Result<StepOutcome, Halt> {
    let mut refused: Option<(RequestKind, Problem)> = None;
    loop {
        let probe = match run.probe().await? {
            Ok(probe) => probe,
            Err(outcome) => return Ok(outcome),
        };
        let look = run.look(&probe);
        let kind = match next(run, look) {
            Move::There if run.claim().job().request_stored => return Ok(StepOutcome::Next),
            Move::There => {
                let message = format!("the machine reads {} already", probe.power);
                return Ok(StepOutcome::Superseded { problem: Problem::new(Reason::AlreadyDone, message) });
            }
            Move::Wait { after_ms, waiting_for } => {
                return Ok(match run.never_comes_on(look) {
                    Some(problem) => StepOutcome::Failed { problem },
                    None => StepOutcome::Park { after_ms, waiting_for },
                });
            }
            Move::Failed(problem) => {
                if run.step() == Step::On {
                    // Where that is tried again, it is asked for again.
                    run.checkpoint.accepted = None;
                }
                return Ok(StepOutcome::Failed { problem });
            }
            Move::Send(kind) => kind,
        };
        if let Some((_, problem)) = refused.filter(|(before, _)| *before == kind) {
            // Refused, and the look since then shows that it was not for being there already.
            return Ok(StepOutcome::Failed { problem });
        }
        refused = match run.send(kind).await? {
            Sent::Accepted => None,
            // Not offered, or nobody listens: the power is cut at once, as it would be after the deadline.
            Sent::Refused(problem) if kind == RequestKind::GracefulShutdown => {
                tracing::info!(reason = %problem.reason, "a graceful shutdown was refused; cutting the power: {}", problem.message);
                run.give_up_on_grace();
                None
            }
            Sent::Refused(problem) => Some((kind, problem)),
            Sent::InVain(outcome) => return Ok(outcome),
        };
    }
}
