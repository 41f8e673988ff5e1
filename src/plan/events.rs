//! What is told once: changes only, so a converged fleet is silent.

use serde::Serialize;

use super::{Command, Decision, Farewell, NewRecord, Observation, history_lost, lifecycle, situation};
use crate::api::condition::{ConditionType, find};
use crate::api::{LastJobStatus, Phase, Reason, ServerStatus};
use crate::job::{Contents, JobResult, TokenKind};

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

impl EventNote {
    fn says_as_much_as(&self, other: &Self) -> bool {
        self.kind == other.kind && self.reason == other.reason && self.note.contains(&other.note)
    }

    /// Takes over what the new phase says, where one event can say both.
    fn absorbs(&mut self, phase: &Self) -> bool {
        if self.says_as_much_as(phase) {
            return true;
        }
        let ends_well = self.reason == Reason::Succeeded && phase.reason == Reason::AsDeclared;
        if ends_well {
            self.note = format!("{}: {}", self.note, phase.note);
        }
        ends_well
    }
}

/// The events of one pass: `after` is the status that was just written.
pub fn events(seen: &Observation, decision: &Decision, after: &ServerStatus) -> Vec<EventNote> {
    let before = seen.shown();
    let mut notes = Vec::new();
    notes.extend(of_command(seen, decision));
    notes.extend(TokenKind::ALL.into_iter().filter_map(|kind| of_token(seen, kind)));
    notes.extend(history_lost::event(seen, after));
    let last = before.and_then(|before| before.last_job.as_ref());
    notes
        .extend(after.last_job.as_ref().filter(|job| last.map(|last| &last.id) != Some(&job.id)).map(of_job));
    // The end of a job that leaves a server stalled, or as declared, tells that too.
    let phase = of_phase(before, after).filter(|phase| !notes.iter_mut().any(|told| told.absorbs(phase)));
    notes.extend(phase);
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
            let mut tokens =
                TokenKind::ALL.into_iter().filter_map(|kind| Some((kind, kind.of(seen.spec())?)));
            let (kind, token) = tokens.next()?;
            let others: Vec<String> =
                tokens.map(|(kind, token)| format!(", {} {token:?}", kind.field())).collect();
            let others = others.concat();
            let text = format!(
                "{} {token:?}{others} came with a new Server: it counts as handled and asks for nothing",
                kind.field()
            );
            Some(note(EventKind::Normal, Reason::TokenAlreadyHandled, "Register", text))
        }
        Command::RecordHandled { token, reason } => {
            let why = match token.kind {
                _ if lifecycle::is_over(seen) => "spec.lifecycle is Decommissioned",
                TokenKind::Reboot => "the machine is, or shall be, off",
                TokenKind::Reimage => "spec names no image to install",
            };
            let text = format!("{} {:?} counts as handled: {why}", token.kind.field(), token.value);
            Some(note(EventKind::Normal, *reason, token.kind.action().as_str(), text))
        }
        Command::RecordContents { contents: Contents::Image(image) } => {
            let text = format!(
                "the image {:?} is recorded as what is on the machine; nothing was touched",
                image.name
            );
            Some(note(EventKind::Normal, Reason::ImageInSync, "Adopt", text))
        }
        Command::Release(Farewell::WithoutUndo) => Some(note(
            EventKind::Warning,
            Reason::ReleasedWithoutUndo,
            "Release",
            "let go without undoing what a job had begun: look at the machine",
        )),
        Command::Release(Farewell::LeftPoweredOff) => Some(note(
            EventKind::Warning,
            Reason::LeftPoweredOff,
            "Release",
            "let go while its machine was off, or about to be, which a job had switched off: switch it on by hand",
        )),
        Command::Release(Farewell::WithoutPowerOff) => Some(note(
            EventKind::Warning,
            Reason::ReleasedWithoutPowerOff,
            "Release",
            "let go although the machine could not be powered off",
        )),
        Command::Release(Farewell::WithoutWipe) => Some(note(
            EventKind::Warning,
            Reason::ReleasedWithoutWipe,
            "Release",
            "let go although nothing says that its disks were erased, as autobuild.dev/abandon asked",
        )),
        Command::Recommission => Some(note(
            EventKind::Normal,
            Reason::MachineDecommissioned,
            "Recommission",
            "the machine, which was decommissioned before, is back in service, as autobuild.dev/recommission asked",
        )),
        _ => None,
    }
}

/// A spec that returned to an earlier token, as a `git revert` does.
fn of_token(seen: &Observation, kind: TokenKind) -> Option<EventNote> {
    let shown = seen.shown().filter(|status| status.was_written())?;
    let token = kind.of(seen.spec())?;
    let is_new_spec = shown.observed_generation != seen.generation();
    let handled = seen.handled();
    let is_earlier = handled.of(kind).iter().rev().skip(1).any(|earlier| earlier == token);
    (is_new_spec && is_earlier).then(|| {
        let (field, action) = (kind.field(), kind.action().as_str());
        let text = format!(
            "{field} {token:?} was handled before: it asks for nothing; set a new value for a {}",
            action.to_ascii_lowercase()
        );
        note(EventKind::Normal, Reason::TokenAlreadyHandled, action, text)
    })
}

fn of_job(job: &LastJobStatus) -> EventNote {
    let reason = job.why().unwrap_or(Reason::Succeeded);
    let is_bad = job.result == JobResult::Failed || reason == Reason::ShutdownForced;
    let kind = if is_bad { EventKind::Warning } else { EventKind::Normal };
    let message = job.message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
    let text = format!("{} {}{message}", job.action, job.result.as_str().to_ascii_lowercase());
    note(kind, reason, job.action.as_str(), text)
}

fn of_phase(before: Option<&ServerStatus>, after: &ServerStatus) -> Option<EventNote> {
    let phase = after.phase.filter(|phase| before.and_then(|before| before.phase) != Some(*phase))?;
    // Its turn comes, or status says why not.
    if phase == Phase::Queued {
        return None;
    }
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
