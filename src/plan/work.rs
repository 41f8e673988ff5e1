//! What a machine needs: the most important thing that is not in the way of a failure.

use serde::Serialize;

use super::{Observation, budget, debt, failure, image, inspect, lifecycle, power, reboot};
use crate::api::Priority;
use crate::job::{Action, Cause, Contents, Intent, Lane, Step, Visibility};

/// What a job takes of its namespace's destruction budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Share {
    /// Nothing: no data is destroyed.
    Nothing,
    /// One machine's.
    One,
}

impl Share {
    /// What an action takes on a machine with these contents: a machine that counts as blank has nothing to lose.
    fn of(action: Action, contents: Option<&Contents>) -> Self {
        match (action, contents) {
            (Action::Build, None | Some(Contents::Wiped { .. })) => Self::Nothing,
            (Action::Build | Action::Reimage | Action::Wipe | Action::Decommission, _) => Self::One,
            (Action::Inspect | Action::PowerOn | Action::PowerOff | Action::Reboot, _) => Self::Nothing,
        }
    }
}

/// A job that should be live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Work {
    /// What to do.
    pub action: Action,
    /// The first step.
    pub step: Step,
    /// The lane to wait in.
    pub lane: Lane,
    /// What it is for.
    pub intent: Intent,
    /// The circumstances in which it was decided.
    pub cause: Cause,
    /// Who sees it.
    pub visibility: Visibility,
    /// What it takes of the destruction budget.
    pub share: Share,
}

impl Work {
    /// Work of this action for the present wish; `None` for an action that has no steps yet.
    pub(super) fn new(seen: &Observation, action: Action, visibility: Visibility) -> Option<Self> {
        Some(Self {
            action,
            step: *action.steps().first()?,
            lane: lane(seen, action),
            intent: seen.intent(action),
            cause: seen.cause(action),
            visibility,
            share: Share::of(action, image::contents(seen).as_ref()),
        })
    }
}

/// The lane of an action: what spec asks for, but inspections always wait behind everything else, and `Urgent` is no word where
/// as many others of the namespace said it as may.
pub(super) fn lane(seen: &Observation, action: Action) -> Lane {
    match (action, seen.spec().priority) {
        (Action::Inspect, _) | (_, None) => action.default_lane(),
        (_, Some(Priority::Urgent)) if seen.urgent_is_full => action.default_lane(),
        (_, Some(priority)) => priority.into(),
    }
}

/// What changes the machine and is due, whatever failed before; the most important first.
fn due(seen: &Observation) -> impl Iterator<Item = Work> {
    let concerns = [debt::wanted, lifecycle::wanted, image::wanted, reboot::wanted, power::wanted];
    concerns.into_iter().filter_map(move |concern| concern(seen))
}

/// What is due on the disks, whatever failed before; a deletion has its own.
pub(super) fn about_disks(seen: &Observation) -> Option<Work> {
    lifecycle::wanted(seen).or_else(|| image::wanted(seen))
}

/// The most important thing that changes the machine and is due, whatever failed before.
pub(super) fn pending(seen: &Observation) -> Option<Work> {
    due(seen).next()
}

/// What should be live now. What failed for good stays away until intent or cause differs; a look still happens, and so
/// does switching on what a job left off.
pub(super) fn wanted(seen: &Observation) -> Option<Work> {
    seen.secret.as_ref()?;
    if let Some(owed) = debt::wanted(seen) {
        return Some(owed);
    }
    let mut all = due(seen).chain(inspect::wanted(seen));
    all.find(|work| failure::in_the_way(seen, work).is_none() && budget::in_the_way(seen, work).is_none())
}
