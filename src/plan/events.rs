//! What is told once: changes only, so a converged fleet is silent.

use serde::Serialize;

use super::{Command, Decision, Farewell, NewRecord, Observation, history_lost, situation};
use crate::api::condition::{ConditionType, find};
use crate::api::{LastJobStatus, Phase, Reason, ServerStatus};
use crate::job::JobResult;

/// How loud an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum EventKind {
    /// All is well.
    Normal,
    /// Somebody should look.
    Warning,
}

/// One event about a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EventNote {
    /// How loud.
    pub kind: EventKind,
    /// Why.
    pub reason: Reason,
    /// What was being done, in one word.
    pub action: String,
    /// One sentence.
    pub note: String,
}

/// The events of one pass: `after` is the status that was just written.
pub fn events(seen: &Observation, decision: &Decision, after: &ServerStatus) -> Vec<EventNote> {
    let before = seen.shown();
    let mut notes = Vec::new();
    notes.extend(of_command(seen, decision));
    notes.extend(of_token(seen));
    notes.extend(history_lost::event(seen, after));
    let last = before.and_then(|before| before.last_job.as_ref());
    notes
        .extend(after.last_job.as_ref().filter(|job| last.map(|last| &last.id) != Some(&job.id)).map(of_job));
    notes.extend(of_phase(before, after));
    notes
}

fn note(kind: EventKind, reason: Reason, action: &str, text: impl Into<String>) -> EventNote {
    EventNote { kind, reason, action: action.to_owned(), note: text.into() }
}

fn of_command(seen: &Observation, decision: &Decision) -> Option<EventNote> {
    match &decision.command {
        Command::Register { why: NewRecord::Rebuilt, .. } => {
            let problem = situation::record(NewRecord::Rebuilt);
            Some(note(EventKind::Warning, problem.reason, "Register", problem.message))
        }
        Command::Register { why: NewRecord::FirstSight, .. } => {
            let token = seen.spec().reboot_token.as_ref()?;
            let text = format!(
                "rebootToken {token:?} came with a new Server: it counts as handled and reboots nothing"
            );
            Some(note(EventKind::Normal, Reason::TokenAlreadyHandled, "Register", text))
        }
        Command::RecordHandled { reboot_token, reason } => {
            let text =
                format!("rebootToken {reboot_token:?} counts as handled: the machine is, or shall be, off");
            Some(note(EventKind::Normal, *reason, "Reboot", text))
        }
        Command::Release(Farewell::WithoutUndo) => Some(note(
            EventKind::Warning,
            Reason::ReleasedWithoutUndo,
            "Release",
            "let go without undoing what a job had begun: look at the machine",
        )),
        Command::Release(Farewell::WithoutPowerOff) => Some(note(
            EventKind::Warning,
            Reason::ReleasedWithoutPowerOff,
            "Release",
            "let go although the machine could not be powered off",
        )),
        _ => None,
    }
}

/// A spec that returned to an earlier token, as a `git revert` does.
fn of_token(seen: &Observation) -> Option<EventNote> {
    let shown = seen.shown().filter(|status| status.was_written())?;
    let token = seen.spec().reboot_token.as_deref()?;
    let is_new_spec = shown.observed_generation != seen.generation();
    let handled = seen.handled().reboot;
    let is_earlier = handled.iter().rev().skip(1).any(|earlier| earlier == token);
    (is_new_spec && is_earlier).then(|| {
        let text = format!(
            "rebootToken {token:?} was handled before: it reboots nothing; set a new value to reboot"
        );
        note(EventKind::Normal, Reason::TokenAlreadyHandled, "Reboot", text)
    })
}

fn of_job(job: &LastJobStatus) -> EventNote {
    let kind = if job.result == JobResult::Failed { EventKind::Warning } else { EventKind::Normal };
    let reason = job.reason.unwrap_or(Reason::Succeeded);
    let message = job.message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
    let text = format!("{} {}{message}", job.action, job.result.as_str().to_ascii_lowercase());
    note(kind, reason, job.action.as_str(), text)
}

fn of_phase(before: Option<&ServerStatus>, after: &ServerStatus) -> Option<EventNote> {
    let phase = after.phase.filter(|phase| before.and_then(|before| before.phase) != Some(*phase))?;
    let ready = find(&after.conditions, ConditionType::Ready)?;
    let reachable = find(&after.conditions, ConditionType::Reachable);
    // Ready may stay True while the BMC is silent: then the silence is what is new.
    let told = if phase == Phase::Unreachable { reachable.unwrap_or(ready) } else { ready };
    let kind = match phase {
        Phase::Stalled | Phase::Unreachable => EventKind::Warning,
        _ => EventKind::Normal,
    };
    Some(note(kind, Reason::parse(&told.reason)?, phase.as_str(), told.message.clone()))
}
