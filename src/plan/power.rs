//! `spec.power`: on or off, where something is wished at all.

use super::{Observation, Work, lifecycle};
use crate::api::Power;
use crate::api::hardware::PowerState;
use crate::job::Action;
use crate::job::Visibility;

/// How the power compares with the wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PowerSync {
    /// Nothing is wished.
    NoWish,
    /// It was never read.
    NeverRead,
    /// It is as wished.
    Synced,
    /// It changes, or the BMC does not say: to be read again.
    NotYet,
    /// It is the opposite of the wish.
    Opposite(Power),
}

pub(super) fn sync(seen: &Observation) -> PowerSync {
    let Some(wish) = seen.spec().power.filter(|_| !lifecycle::is_over(seen)) else {
        return PowerSync::NoWish;
    };
    let Some(reading) = seen.known.as_ref().and_then(|known| known.reading.as_ref()) else {
        return PowerSync::NeverRead;
    };
    match (wish, reading.power) {
        (Power::PoweredOn, PowerState::PoweredOn) | (Power::PoweredOff, PowerState::PoweredOff) => {
            PowerSync::Synced
        }
        (_, PowerState::PoweringOn | PowerState::PoweringOff | PowerState::Unknown) => PowerSync::NotYet,
        (Power::PoweredOn, PowerState::PoweredOff) | (Power::PoweredOff, PowerState::PoweredOn) => {
            PowerSync::Opposite(wish)
        }
    }
}

/// The power change that is due.
pub(super) fn wanted(seen: &Observation) -> Option<Work> {
    let action = match sync(seen) {
        PowerSync::Opposite(Power::PoweredOn) => Action::PowerOn,
        PowerSync::Opposite(Power::PoweredOff) => Action::PowerOff,
        PowerSync::NoWish | PowerSync::NeverRead | PowerSync::Synced | PowerSync::NotYet => return None,
    };
    Work::new(seen, action, Visibility::Shown)
}
