//! The off and on steps: look, move, look again.

use super::Halt;
use super::power::{self, Move};
use super::request::Sent;
use super::run::Run;
use crate::api::{Reason, ShutdownMode};
use crate::config::ms;
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

impl Run<'_> {
    /// The same outcome, no later than when the power is cut of a machine that refuses to shut down.
    fn within_grace(&self, outcome: StepOutcome) -> StepOutcome {
        match (outcome, self.checkpoint.grace_refused_ms) {
            (StepOutcome::Retry { after_ms, problem }, Some(since_ms)) => {
                let left_ms = since_ms + ms(self.patience().shutdown) - self.now_ms();
                StepOutcome::Retry { after_ms: after_ms.min(left_ms.max(0)), problem }
            }
            (outcome, _) => outcome,
        }
    }
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
                    run.checkpoint.ask_to_switch_on_again();
                }
                return Ok(StepOutcome::Failed { problem });
            }
            Move::Send(kind) => kind,
        };
        if let Some((_, problem)) = refused.filter(|(before, _)| *before == kind) {
            // Refused, and the look since then shows that it was not for being there already.
            return Ok(StepOutcome::Failed { problem });
        }
        if kind == RequestKind::ForceOff
            && run.checkpoint.grace_refused_ms.is_some()
            && run.checkpoint.accepted.is_none()
            && run.checkpoint.remark.is_none()
        {
            let seconds = run.patience().shutdown.as_secs();
            let last = run.claim().job().problem.as_ref().map(|problem| problem.message.clone());
            run.remark_cut(&format!("it was refused for {seconds} s ({})", last.unwrap_or_default()));
        }
        refused = match run.send(kind).await? {
            Sent::Accepted => None,
            // There is no soft way: the power is cut at once, as it would be after the deadline.
            Sent::Unsupported(problem) if kind == RequestKind::GracefulShutdown => {
                tracing::warn!(reason = %problem.reason, "there is no graceful shutdown; cutting the power: {}", problem.message);
                run.give_up_on_grace(&problem);
                None
            }
            // Not now, or nobody knows why not: its time is used up before the power is cut.
            Sent::Refused(problem) if kind == RequestKind::GracefulShutdown => {
                let outcome = run.retry(problem, 0);
                return Ok(run.within_grace(outcome));
            }
            Sent::InVain(outcome) if kind == RequestKind::GracefulShutdown => {
                return Ok(run.within_grace(outcome));
            }
            Sent::Refused(problem) | Sent::Unsupported(problem) => Some((kind, problem)),
            Sent::InVain(outcome) => return Ok(outcome),
        };
    }
}
