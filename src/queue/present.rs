//! The history that a process works in: connections that lead to another one are refused, and older ones not used again.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::MySqlConnection;
use tokio::sync::{Notify, watch};

use super::QueueError;
use super::follow::Lead;
use super::history::History;
use super::nodes::{Leads, Nodes};
use super::writer::{self, Node, Writer};

/// How often it is told that an address leads to several writers.
const TOLD: Duration = Duration::from_mins(1);

/// The history that this process works in. Every connection of its pool is compared with it.
#[derive(Debug)]
pub(super) struct Present {
    state: Mutex<State>,
    nodes: Mutex<Nodes>,
    /// When it was told last that the address leads to several writers.
    told: Mutex<Option<Instant>>,
    another: Notify,
    /// What the last look found.
    pub(super) lead: watch::Sender<Lead>,
    /// Held by who looks: of two looks at once the older one would win.
    pub(super) looking: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    history: History,
    since: Instant,
    /// When it followed to another history, without having entered it as a worker.
    followed: Option<Instant>,
    /// Whether the process has entered the registry of workers: its next entry tells what it left.
    enters: bool,
    /// Why the last connection was refused that was opened.
    refused: Option<QueueError>,
}

impl Present {
    pub(super) fn new(history: History) -> Self {
        let state = State { history, since: Instant::now(), followed: None, enters: false, refused: None };
        Self {
            state: Mutex::new(state),
            nodes: Mutex::default(),
            told: Mutex::default(),
            another: Notify::new(),
            lead: watch::channel(Lead::default()).0,
            looking: tokio::sync::Mutex::default(),
        }
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

    /// A worker has entered `history`: it works there from now on, and nothing but its next entry leads it elsewhere.
    pub(super) fn entered(&self, history: History) {
        self.with(|state| {
            state.enters = true;
            state.adopt(history);
        });
    }

    /// Whether it leaves a history by entering another one.
    pub(super) fn enters(&self) -> bool {
        self.with(|state| state.enters)
    }

    /// Works in `history` from now on, unless the process enters by itself; whether that is another one than before.
    /// Connections that were opened before are not used again.
    pub(super) fn follow(&self, history: History) -> bool {
        self.with(|state| {
            let another = !state.enters && state.adopt(history);
            if another {
                state.followed = Some(state.since);
            }
            another
        })
    }

    /// How long ago it followed to the present history; `None`: it was there from the start, or entered.
    pub(super) fn followed(&self) -> Option<Duration> {
        self.with(|state| state.followed.map(|since| since.elapsed()))
    }

    /// Connections that are open now are not used again.
    pub(super) fn renew(&self) {
        self.with(|state| state.since = Instant::now());
    }

    /// Whether a connection of that age was opened in the present history.
    pub(super) fn covers(&self, age: Duration) -> bool {
        self.with(|state| age <= state.since.elapsed())
    }

    /// Refuses a connection that was just opened to a server of another history.
    pub(super) async fn admit(
        &self,
        connection: &mut MySqlConnection,
        writer: Writer,
    ) -> Result<(), sqlx::Error> {
        let refusal = match History::read(connection, writer).await {
            Ok(told) if self.is(&told.history) => self.met(&told.node).err(),
            Ok(_) => {
                self.another.notify_one();
                Some(QueueError::AnotherHistory(
                    "the database tells another history than before: everything is looked at again"
                        .to_owned(),
                ))
            }
            Err(error) => Some(error),
        };
        self.with(|state| state.refused.clone_from(&refusal));
        refusal.map_or(Ok(()), |why| Err(sqlx::Error::Io(std::io::Error::other(why.to_string()))))
    }

    /// A new connection leads to `node`. Another one than before is gone along with: what is open to the one before is not used
    /// again, whoever forgot to cut it.
    pub(super) fn met(&self, node: &Node) -> Result<(), QueueError> {
        let now = Instant::now();
        match self.nodes.lock().unwrap_or_else(PoisonError::into_inner).met(node, now) {
            Leads::There => Ok(()),
            Leads::Elsewhere => {
                tracing::info!(
                    node,
                    "the database's address leads to another node, which is gone along with"
                );
                self.renew();
                Ok(())
            }
            Leads::ToAndFro(one, other) => {
                let error = writer::one_writer(&one, &other);
                let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
                if let Err(error) = &error
                    && told.is_none_or(|told| now.duration_since(told) >= TOLD)
                {
                    *told = Some(now);
                    tracing::warn!("{error}");
                }
                error
            }
        }
    }

    /// The error of an acquire: where every connection was refused, it says why.
    pub(super) fn explain(&self, error: sqlx::Error) -> QueueError {
        let refused = self.with(|state| state.refused.clone());
        match (error, refused) {
            (sqlx::Error::PoolTimedOut, Some(why)) if why.is_transient() => why,
            (sqlx::Error::PoolTimedOut, Some(why)) => QueueError::Unavailable(why.to_string()),
            (error, _) => QueueError::from(error),
        }
    }

    /// Waits until a connection was refused because its history is another one.
    pub(super) async fn another_seen(&self) {
        self.another.notified().await;
    }
}

impl State {
    /// Whether it is another one than before.
    fn adopt(&mut self, history: History) -> bool {
        self.refused = None;
        let another = self.history != history;
        if another {
            (self.history, self.since, self.followed) = (history, Instant::now(), None);
        }
        another
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_the_history_before_are_not_used_again() {
        let present = Present::new(History::of("e", "1"));
        assert!(!present.follow(History::of("e", "1")) && present.followed().is_none());
        assert!(present.covers(Duration::ZERO));
        assert!(present.follow(History::of("e", "2")) && present.follow(History::of("f", "2")));
        assert!(present.followed().is_some());
        assert!(!present.covers(Duration::from_hours(1)));
        assert!(present.is(&History::of("f", "2")) && !present.is(&History::of("e", "2")));
    }

    #[test]
    fn who_has_entered_as_a_worker_is_led_elsewhere_by_entering_alone() {
        let present = Present::new(History::of("e", "1"));
        present.entered(History::of("e", "1"));
        assert!(!present.follow(History::of("e", "2")) && present.is(&History::of("e", "1")));
        present.entered(History::of("e", "2"));
        assert!(present.is(&History::of("e", "2")) && present.followed().is_none());
    }
}
