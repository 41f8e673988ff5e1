//! `spec.rebootToken`: a new value is one reboot.

use super::{Command, Observation, Work, debt, lifecycle, live_job};
use crate::api::hardware::PowerState;
use crate::api::{Power, Reason};
use crate::job::{Action, TokenKind, TokenValue, Visibility};

/// The token that asks for a reboot.
pub(super) fn token(seen: &Observation) -> Option<&str> {
    let token = seen.spec().reboot_token.as_deref()?;
    (!seen.handled().is_handled(TokenKind::Reboot, Some(token))).then_some(token)
}

/// For how long a reading tells whether a machine that is off makes a reboot needless, in milliseconds: a look, and the decision
/// after it with a slow API server.
const LATELY_MS: i64 = 30_000;

fn was_read_lately(seen: &Observation) -> bool {
    let read_at_ms = seen.known.as_ref().and_then(|known| known.last_good_read_ms);
    read_at_ms.is_some_and(|at| seen.now_ms - at <= LATELY_MS)
}

/// Whether a token waits for a look at a machine that was off when it was read last.
pub(super) fn waits_for_a_look(seen: &Observation) -> bool {
    let is_off = seen.reading().is_some_and(|reading| reading.power == PowerState::PoweredOff);
    is_off
        && token(seen).is_some()
        && matches!(sense(seen), Sense::NotKnownYet)
        && debt::to_pay(seen).is_none()
}

/// What a reboot means for this machine.
enum Sense {
    Makes,
    MakesNone,
    NotKnownYet,
}

fn sense(seen: &Observation) -> Sense {
    let read = seen.reading().map(|reading| reading.power);
    match (seen.spec().power, read) {
        _ if lifecycle::is_over(seen) => Sense::MakesNone,
        // It is off because a job left it so, and is switched on first.
        (None, Some(PowerState::PoweredOff)) if debt::to_pay(seen).is_some() => Sense::NotKnownYet,
        (Some(Power::PoweredOff), _) => Sense::MakesNone,
        // Somebody may have switched it on since: a wish is not thrown away on what was.
        (None, Some(PowerState::PoweredOff)) if !was_read_lately(seen) => Sense::NotKnownYet,
        (None, Some(PowerState::PoweredOff)) => Sense::MakesNone,
        (Some(Power::PoweredOn), Some(_)) | (None, Some(PowerState::PoweredOn)) => Sense::Makes,
        (_, None) | (None, Some(_)) => Sense::NotKnownYet,
    }
}

/// A token for a machine that is, or shall be, off, or whose life is over, counts as handled. A live reboot for it goes first.
pub(super) fn not_applicable(seen: &Observation) -> Option<Command> {
    let token = token(seen)?;
    match sense(seen) {
        Sense::MakesNone => Some(match &seen.job {
            Some(job) if job.action == Action::Reboot => live_job::displace(job, Reason::NotApplicable),
            _ => Command::RecordHandled {
                token: TokenValue { kind: TokenKind::Reboot, value: token.to_owned() },
                reason: Reason::NotApplicable,
            },
        }),
        Sense::Makes | Sense::NotKnownYet => None,
    }
}

/// The reboot that is due.
pub(super) fn wanted(seen: &Observation) -> Option<Work> {
    token(seen)?;
    match sense(seen) {
        Sense::Makes => Work::new(seen, Action::Reboot, Visibility::Shown),
        Sense::MakesNone | Sense::NotKnownYet => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;
    use crate::plan::{decide, fixture as f};

    #[test]
    fn a_token_is_not_thrown_away_on_an_old_reading_of_a_machine_that_was_off() {
        let mut seen = f::ready();
        seen.server.spec.reboot_token = Some("new".into());
        let known = f::known(&mut seen);
        known.reading = Some(f::reading(PowerState::PoweredOff));
        let read_at_ms = known.last_good_read_ms.unwrap();
        known.last_try_ms = Some(read_at_ms);
        seen.now_ms = read_at_ms + LATELY_MS + 1;
        let looks = |seen: &Observation| {
            let command = decide(seen).command;
            matches!(command, Command::Enqueue(work) if work.action == Action::Inspect)
        };
        assert!(looks(&seen), "{:?}", decide(&seen).command);
        // Still off: now that is known.
        f::known(&mut seen).last_good_read_ms = Some(seen.now_ms);
        assert!(matches!(
            decide(&seen).command,
            Command::RecordHandled { reason: Reason::NotApplicable, .. }
        ));
        // Somebody switched it on.
        f::known(&mut seen).reading = Some(f::reading(PowerState::PoweredOn));
        assert!(matches!(decide(&seen).command, Command::Enqueue(work) if work.action == Action::Reboot));
    }
}
