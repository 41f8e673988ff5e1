//! `spec.paused`: nothing is begun; a live job is asked to stop at its next safe step.

use super::{Command, Observation};
use crate::api::Reason;

pub(super) fn rule(seen: &Observation) -> Option<Command> {
    if !seen.paused() {
        return None;
    }
    Some(match &seen.job {
        Some(job) if job.cancel.is_none() => Command::Cancel { id: job.id, reason: Reason::Paused },
        _ => Command::Nothing(Reason::Paused),
    })
}
