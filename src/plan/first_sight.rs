//! A server that was never seen: finalizer first, then its record. A token that it came with is not acted on.

use super::{Command, NewRecord, Observation, image};
use crate::job::{Deleting, TokenKind};

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
    for kind in TokenKind::ALL {
        if let Some(token) = kind.of(seen.spec()) {
            handled.record(kind, token);
        }
    }
    Some(Command::Register { why, handled, contents: image::of_new_record(seen) })
}
