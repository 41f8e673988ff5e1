//! `spec.power`: on or off, where something is wished at all.

use super::{Observation, Work, debt, image, lifecycle};
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
    let Some(reading) = seen.reading() else {
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

/// The power change that is due. A blank machine that waits for its image has nothing to boot; switched on it would count as
/// one that runs something.
pub(super) fn wanted(seen: &Observation) -> Option<Work> {
    let action = match sync(seen) {
        PowerSync::Opposite(Power::PoweredOn) if image::is_awaited(seen) => return None,
        // That comes with pauses of its own.
        PowerSync::Opposite(Power::PoweredOn) if debt::to_pay(seen).is_some() => return None,
        PowerSync::Opposite(Power::PoweredOn) => Action::PowerOn,
        PowerSync::Opposite(Power::PoweredOff) => Action::PowerOff,
        PowerSync::NoWish | PowerSync::NeverRead | PowerSync::Synced | PowerSync::NotYet => return None,
    };
    Work::new(seen, action, Visibility::Shown)
}

#[cfg(test)]
#[allow(missing_docs)]
mod tests {
    use super::*;
    use crate::api::ImageWish;
    use crate::job::Contents;
    use crate::plan::fixture as f;

    fn off() -> Observation {
        let mut seen = f::ready();
        f::known(&mut seen).reading = Some(f::reading(PowerState::PoweredOff));
        seen.server.spec.power = Some(Power::PoweredOn);
        seen
    }

    #[test]
    fn a_blank_machine_is_not_switched_on_before_it_has_its_image() {
        let mut seen = off();
        assert!(wanted(&seen).is_some(), "no image is wished");
        // A name that is wrong: corrected, the machine still counts as blank.
        seen.server.spec.image = Some(ImageWish { name: "typo".into(), ..ImageWish::default() });
        assert!(wanted(&seen).is_none());
        f::known(&mut seen).contents = Some(Contents::Unknown { since_ms: 1 });
        assert!(wanted(&seen).is_some(), "something may be on it");
    }
}
