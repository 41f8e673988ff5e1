//! `spec.lifecycle`: the end of a machine's life. Its disks are erased, it is powered off, and then nothing is done to it
//! ever again.

use super::{Observation, Work, image, word};
use crate::api::{Lifecycle, Reason};
use crate::job::{Action, Contents, Problem, Visibility};

/// Where a machine stands in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Life {
    /// It is in use.
    InService,
    /// It has ended.
    Ended,
    /// It is to be ended.
    ToEnd,
    /// A person has to say that it is meant, or what erases disks is missing.
    Blocked(Problem),
}

pub(super) fn life(seen: &Observation) -> Life {
    if seen.spec().lifecycle == Lifecycle::InService {
        return Life::InService;
    }
    if matches!(image::contents(seen), Some(Contents::Decommissioned { .. })) {
        return Life::Ended;
    }
    if !word::is_confirmed(seen) {
        return Life::Blocked(confirm(seen));
    }
    wipe_image_missing(seen).map_or(Life::ToEnd, Life::Blocked)
}

/// Whether nothing but its end is wished of the machine: image, power and tokens no longer count.
pub(super) fn is_over(seen: &Observation) -> bool {
    seen.spec().lifecycle == Lifecycle::Decommissioned
}

/// The end that is due.
pub(super) fn wanted(seen: &Observation) -> Option<Work> {
    match life(seen) {
        Life::ToEnd => Work::new(seen, Action::Decommission, Visibility::Shown),
        Life::InService | Life::Ended | Life::Blocked(_) => None,
    }
}

/// What is said where nothing is there that erases disks.
pub(super) fn wipe_image_missing(seen: &Observation) -> Option<Problem> {
    seen.wipe.digest.is_none().then(|| {
        Problem::new(
            Reason::WipeImageNotFound,
            format!(
                "there is no OSImage {:?} with a kernel to boot in this namespace, which would erase the disks: create it, or \
                 give --wipe-image another name",
                seen.wipe.name
            ),
        )
    })
}

fn confirm(seen: &Observation) -> Problem {
    Problem::new(
        Reason::ConfirmDecommission,
        format!(
            "spec.lifecycle is Decommissioned: the disks are erased and the machine never serves again. If that is meant: {}",
            word::to_confirm(seen)
        ),
    )
}
