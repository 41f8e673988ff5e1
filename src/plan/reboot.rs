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
        (Some(Power::PoweredOff), _) | (None, Some(PowerState::PoweredOff)) => Sense::MakesNone,
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
