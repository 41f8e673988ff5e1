//! The history that a process works in: connections that lead to another one are refused, and older ones not used again.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::MySqlConnection;
use tokio::sync::Notify;

use super::history::History;
use super::{Engine, QueueError};

/// The history that this process works in. Every connection of its pool is compared with it.
#[derive(Debug)]
pub(super) struct Present {
    state: Mutex<State>,
    another: Notify,
}

#[derive(Debug)]
struct State {
    history: History,
    since: Instant,
    /// Why the last connection was refused that was opened.
    refused: Option<String>,
}

impl Present {
    pub(super) fn new(history: History) -> Self {
        let state = State { history, since: Instant::now(), refused: None };
        Self { state: Mutex::new(state), another: Notify::new() }
    }

    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn is(&self, history: &History) -> bool {
        self.with(|state| state.history == *history)
    }

    pub(super) fn history(&self) -> History {
        self.with(|state| state.history.clone())
    }

    /// Works in `history` from now on; whether that is another one than before. Connections that were opened before
    /// are not used again.
    pub(super) fn adopt(&self, history: History) -> bool {
        self.with(|state| {
            state.refused = None;
            let another = state.history != history;
            if another {
                (state.history, state.since) = (history, Instant::now());
            }
            another
        })
    }

    /// Whether a connection of that age was opened in the present history.
    pub(super) fn covers(&self, age: Duration) -> bool {
        self.with(|state| age <= state.since.elapsed())
    }

    /// Refuses a connection that was just opened to a server of another history.
    pub(super) async fn admit(
        &self,
        connection: &mut MySqlConnection,
        engine: Engine,
    ) -> Result<(), sqlx::Error> {
        let refusal = match History::read(connection, engine).await {
            Ok(told) if self.is(&told.history) => None,
            Ok(_) => {
                self.another.notify_waiters();
                Some("the database behind the address is another one than before".to_owned())
            }
            Err(error) => Some(error.to_string()),
        };
        self.with(|state| state.refused.clone_from(&refusal));
        refusal.map_or(Ok(()), |why| Err(sqlx::Error::Io(std::io::Error::other(why))))
    }

    /// The error of an acquire: where every connection was refused, it says why.
    pub(super) fn explain(&self, error: sqlx::Error) -> QueueError {
        let refused = self.with(|state| state.refused.clone());
        match (error, refused) {
            (sqlx::Error::PoolTimedOut, Some(why)) => QueueError::Unavailable(why),
            (error, _) => QueueError::from(error),
        }
    }

    /// Waits until a connection was refused because its history is another one.
    pub(super) async fn another_seen(&self) {
        self.another.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_the_history_before_are_not_used_again() {
        let present = Present::new(History::of("e", "1"));
        assert!(!present.adopt(History::of("e", "1")));
        assert!(present.covers(Duration::ZERO));
        assert!(present.adopt(History::of("e", "2")) && present.adopt(History::of("f", "2")));
        assert!(!present.covers(Duration::from_hours(1)));
        assert!(present.is(&History::of("f", "2")) && !present.is(&History::of("e", "2")));
    }
}
