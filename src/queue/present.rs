//! The history that a process works in: connections that lead to another one are refused, and older ones not used again.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::MySqlConnection;
use tokio::sync::{Notify, watch};

use super::QueueError;
use super::follow::Lead;
use super::history::{Asked, History, Told};
use super::nodes::{Leads, Nodes};
use super::writer::{self, Node, Writer};

/// How often it is told that an address leads to several writers.
const TOLD: Duration = Duration::from_mins(1);
/// After that time without an answer a COMMIT hangs.
const LATE: Duration = Duration::from_secs(3);
/// A cluster without its majority goes on to answer reads.
pub(super) const COMMITS_HANG: &str = "COMMITs do not come back: has the cluster lost its majority?";

/// The history that this process works in. Every connection of its pool is compared with it.
#[derive(Debug)]
pub(super) struct Present {
    state: Mutex<State>,
    nodes: Mutex<Nodes>,
    /// When it was told last that the address leads to several writers.
    told: Mutex<Option<Instant>>,
    another: Notify,
    /// COMMITs that were sent a while ago.
    hanging: AtomicUsize,
    /// What the last look found.
    pub(super) lead: watch::Sender<Lead>,
    /// Held by who looks: of two looks at once the older one would win.
    pub(super) looking: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    history: History,
    since: Instant,
    /// The most that a Galera cluster was seen to have committed.
    committed: u64,
    /// When it followed to another history, without having entered it as a worker.
    followed: Option<Instant>,
    /// Whether the process has entered the registry of workers: its next entry tells what it left.
    enters: bool,
    /// Why the last connection was refused that was opened.
    refused: Option<QueueError>,
}

impl Present {
    pub(super) fn new(told: Told) -> Self {
        let state = State {
            history: told.history,
            since: Instant::now(),
            committed: told.committed.unwrap_or(0),
            followed: None,
            enters: false,
            refused: None,
        };
        Self {
            state: Mutex::new(state),
            nodes: Mutex::default(),
            told: Mutex::default(),
            another: Notify::new(),
            hanging: AtomicUsize::new(0),
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

    /// A worker has entered the history that was told: it works there from now on, and nothing but its next entry leads it elsewhere.
    pub(super) fn entered(&self, told: &Told) {
        self.with(|state| {
            state.enters = true;
            state.adopt(told);
        });
    }

    /// Asks a connection what it leads to, and whether a cluster there has lost commits that this process saw.
    pub(super) async fn read(
        &self,
        connection: &mut MySqlConnection,
        writer: Writer,
        asked: Asked,
    ) -> Result<Told, QueueError> {
        // What is known before the question: others ask meanwhile.
        let before = self.with(|state| state.committed);
        let told = History::read(connection, writer, asked).await?;
        Ok(self.compared(told, before))
    }

    fn compared(&self, mut told: Told, before: u64) -> Told {
        told.went_back = told.committed.is_some_and(|committed| committed < before);
        if let Some(committed) = told.committed.filter(|_| !told.went_back) {
            self.with(|state| state.committed = state.committed.max(committed));
        }
        told
    }

    /// Whether it leaves a history by entering another one.
    pub(super) fn enters(&self) -> bool {
        self.with(|state| state.enters)
    }

    /// Works in `history` from now on, unless the process enters by itself; whether that is another one than before.
    /// Connections that were opened before are not used again.
    pub(super) fn follow(&self, told: &Told) -> bool {
        self.with(|state| {
            let another = !state.enters && state.adopt(told);
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

    /// Waits for the answer to a COMMIT, however long that takes: what became of it nobody else can say.
    pub(super) async fn commits<T>(&self, commit: impl Future<Output = T>) -> T {
        let mut commit = pin!(commit);
        if let Ok(answer) = tokio::time::timeout(LATE, &mut commit).await {
            return answer;
        }
        let _hangs = Hanging::count(&self.hanging);
        commit.await
    }

    /// What is said while COMMITs hang.
    pub(super) fn hangs(&self) -> Option<&'static str> {
        (self.hanging.load(Ordering::Relaxed) > 0).then_some(COMMITS_HANG)
    }

    /// Refuses a connection that was just opened to a server of another history.
    pub(super) async fn admit(
        &self,
        connection: &mut MySqlConnection,
        writer: Writer,
    ) -> Result<(), sqlx::Error> {
        let refusal = match self.read(connection, writer, Asked::First).await {
            Ok(told) if self.is(&told.history) && !told.went_back => self.met(&told.node).err(),
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

/// One COMMIT more that hangs, until it is dropped.
struct Hanging<'a>(&'a AtomicUsize);

impl<'a> Hanging<'a> {
    fn count(all: &'a AtomicUsize) -> Self {
        all.fetch_add(1, Ordering::Relaxed);
        Self(all)
    }
}

impl Drop for Hanging<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl State {
    /// Whether it is another one than before.
    fn adopt(&mut self, told: &Told) -> bool {
        self.refused = None;
        let another = self.history != told.history || told.went_back;
        if another {
            tracing::warn!(
                "another history: it was {}, and is {} at {} now{}",
                self.history,
                told.history,
                told.node,
                if told.went_back { ", without what it had committed last" } else { "" }
            );
            (self.history, self.since, self.followed) = (told.history.clone(), Instant::now(), None);
            self.committed = told.committed.unwrap_or(0);
        }
        another
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: &str, server: &str) -> Told {
        Told::of(History::of(epoch, server), None)
    }

    #[test]
    fn connections_of_the_history_before_are_not_used_again() {
        let present = Present::new(at("e", "1"));
        assert!(!present.follow(&at("e", "1")) && present.followed().is_none());
        assert!(present.covers(Duration::ZERO));
        assert!(present.follow(&at("e", "2")) && present.follow(&at("f", "2")));
        assert!(present.followed().is_some());
        assert!(!present.covers(Duration::from_hours(1)));
        assert!(present.is(&History::of("f", "2")) && !present.is(&History::of("e", "2")));
    }

    #[test]
    fn who_has_entered_as_a_worker_is_led_elsewhere_by_entering_alone() {
        let present = Present::new(at("e", "1"));
        present.entered(&at("e", "1"));
        assert!(!present.follow(&at("e", "2")) && present.is(&History::of("e", "1")));
        present.entered(&at("e", "2"));
        assert!(present.is(&History::of("e", "2")) && present.followed().is_none());
    }

    #[test]
    fn a_cluster_that_has_committed_less_than_before_has_lost_commits() {
        let of = |committed| Told::of(History::of("e", "1"), committed);
        let present = Present::new(of(Some(10)));
        let after = |committed, before| present.compared(of(committed), before);
        assert!(!after(Some(12), 10).went_back && !after(None, 12).went_back);
        // Asked before the other one had its answer.
        assert!(!after(Some(11), 10).went_back);
        let lost = after(Some(11), 12);
        assert!(lost.went_back && present.follow(&lost) && present.followed().is_some());
        // It goes on from there.
        assert!(!after(Some(11), present.with(|state| state.committed)).went_back);
    }
}
