//! A server that was never seen: finalizer first, then its record. A token that it came with is not acted on.

use super::{Command, NewRecord, Observation};
use crate::job::Deleting;

pub(super) fn rule(seen: &Observation) -> Option<Command> {
    if !seen.has_finalizer() && seen.deleting() == Deleting::No {
        return Some(Command::AddFinalizer);
    }
    if seen.known.is_some() {
        return None;
    }
    let shown_before = seen.shown().is_some_and(crate::api::ServerStatus::was_written);
    let why = if shown_before { NewRecord::Rebuilt } else { NewRecord::FirstSight };
    let mut handled = seen.handled();
    if let Some(token) = &seen.spec().reboot_token {
        handled.record_reboot(token);
    }
    Some(Command::Register { why, handled })
}
