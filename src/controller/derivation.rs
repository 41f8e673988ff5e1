//! Which servers were looked at since another history was seen: while one is missing, no worker claims.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::job::ServerUid;
use crate::queue::Underived;

/// The servers that were derived since the present mark was seen.
#[derive(Debug, Default)]
pub(super) struct Derivation {
    state: Mutex<Option<State>>,
    /// The mark that ended last: a look that began before its end still shows it.
    over: Mutex<Option<Underived>>,
    enough: Notify,
}

#[derive(Debug)]
struct State {
    mark: Underived,
    expected: usize,
    done: Arc<HashSet<ServerUid>>,
}

impl Derivation {
    fn with<T>(&self, look: impl FnOnce(&mut Option<State>) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A mark was seen, with so many servers; whether it is a new one.
    pub(super) fn begin(&self, mark: &Underived, expected: usize) -> bool {
        self.with(|state| {
            let new = state.as_ref().is_none_or(|state| state.mark != *mark);
            if new {
                *state = Some(State { mark: mark.clone(), expected, done: Arc::default() });
            }
            new
        })
    }

    /// No mark is there any more; whether there was one.
    pub(super) fn end(&self) -> bool {
        let ended = self.with(Option::take).map(|state| state.mark);
        let was_there = ended.is_some();
        if was_there {
            *self.over.lock().unwrap_or_else(PoisonError::into_inner) = ended;
        }
        was_there
    }

    /// The database shows no mark: one that it shows from now on is to be derived, whichever it is.
    pub(super) fn is_gone(&self) {
        *self.over.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether this mark ended, and no look since has seen it gone.
    pub(super) fn is_over(&self, mark: &Underived) -> bool {
        self.over.lock().unwrap_or_else(PoisonError::into_inner).as_ref() == Some(mark)
    }

    /// The mark, for who is about to look at a server: only what is read after this counts.
    pub(super) fn present(&self) -> Option<Underived> {
        self.with(|state| state.as_ref().map(|state| state.mark.clone()))
    }

    /// Everything that a server asks for now is decided and stored, by a look that began after `mark` was seen.
    pub(super) fn derived(&self, mark: &Underived, uid: &ServerUid) {
        let enough = self.with(|state| {
            let Some(state) = state.as_mut().filter(|state| state.mark == *mark) else { return false };
            Arc::make_mut(&mut state.done).insert(uid.clone()) && state.done.len() >= state.expected
        });
        if enough {
            self.enough.notify_one();
        }
    }

    /// The servers that were derived.
    pub(super) fn done(&self) -> Arc<HashSet<ServerUid>> {
        self.with(|state| state.as_ref().map(|state| Arc::clone(&state.done))).unwrap_or_default()
    }

    /// Waits until as many are derived as were expected.
    pub(super) async fn enough(&self) {
        self.enough.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Underived;
    use futures::FutureExt as _;

    fn uid(number: u8) -> ServerUid {
        ServerUid(number.to_string())
    }

    #[test]
    fn only_looks_that_began_under_the_present_mark_count() {
        let (old, new) = (Underived::of("1 a"), Underived::of("2 b"));
        let derivation = Derivation::default();
        assert!(derivation.begin(&old, 2) && !derivation.begin(&old, 2));
        derivation.derived(&old, &uid(1));
        assert!(derivation.begin(&new, 2));
        assert_eq!(derivation.present(), Some(new.clone()));
        derivation.derived(&old, &uid(1));
        derivation.derived(&new, &uid(2));
        assert_eq!(*derivation.done(), HashSet::from([uid(2)]));
        assert!(derivation.enough().now_or_never().is_none());
        derivation.derived(&new, &uid(1));
        assert!(derivation.enough().now_or_never().is_some());
        assert!(derivation.end() && !derivation.end());
        assert!(derivation.is_over(&new) && !derivation.is_over(&old));
        derivation.is_gone();
        assert!(!derivation.is_over(&new), "a server that lost its end shows it again");
        derivation.derived(&new, &uid(3));
        assert!(derivation.present().is_none() && derivation.done().is_empty());
    }
}
