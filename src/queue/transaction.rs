//! How a transaction runs: short, in a task that nobody cancels midway, and repeated whole when the database gives up.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sqlx::mysql::{MySqlArguments, MySqlRow};
use sqlx::pool::PoolConnection;
use sqlx::{Connection, MySql, MySqlConnection};

use super::error::poisons_connection;
use super::present::Present;
use super::{Queue, QueueError};
use crate::failpoint::crash_point;
use crate::metrics;

/// Tries of one transaction; with the delays below about ten seconds.
const TRIES: u32 = 12;

/// How long a connection lies unused before it goes back to the pool rather than into another transaction.
const KEPT: Duration = Duration::from_millis(500);

/// A connection between two transactions of one task. The pool asks a connection whether it is alive each time that it
/// comes back, which costs as much as a statement: a tenth of a short transaction.
#[derive(Debug, Default)]
pub(super) struct Kept {
    lent: Option<Lent>,
}

#[derive(Debug)]
struct Lent {
    connection: PoolConnection<MySql>,
    acquired: Instant,
    used: Instant,
    place: Option<Place>,
}

/// One of the connections that may be kept.
#[derive(Debug)]
struct Place(Arc<AtomicU32>);

impl Place {
    fn take(kept: &Arc<AtomicU32>, at_most: u32) -> Option<Self> {
        let more = |count| (count < at_most).then_some(count + 1);
        kept.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Self(Arc::clone(kept)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether an earlier try of the same transaction may have been committed without us knowing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// No: nothing of it is in the database.
    Fresh,
    /// Yes: its COMMIT was sent and no answer came. What it wrote is looked for first.
    AfterUnknownCommit,
}

/// What a transaction wants done at its end.
#[derive(Debug)]
pub(super) enum Ending<T> {
    /// Keep it.
    Commit(T),
    /// Nothing was to be kept.
    Rollback(T),
}

/// One transaction of the protocol.
pub(super) trait Transaction: Send + Sync + 'static {
    /// What the caller learns.
    type Output: Send + 'static;
    /// Its name in logs, metrics and crash points.
    const NAME: &'static str;

    /// The statements. Takes no lock after a network call, because there is none.
    fn run(
        &self,
        connection: &mut MySqlConnection,
        pass: Pass,
    ) -> impl Future<Output = Result<Ending<Self::Output>, QueueError>> + Send;
}

impl Queue {
    /// Runs a transaction to its end, even if the caller goes away.
    pub(super) async fn transact<T: Transaction>(&self, transaction: T) -> Result<T::Output, QueueError> {
        self.transact_on(&mut Kept::default(), transaction).await
    }

    /// Like [`Queue::transact`], on a connection that is kept for the next transaction.
    pub(super) async fn transact_on<T: Transaction>(
        &self,
        kept: &mut Kept,
        transaction: T,
    ) -> Result<T::Output, QueueError> {
        let queue = self.clone();
        let mut lent = std::mem::take(kept);
        // A transaction that is dropped between BEGIN and COMMIT would leave its locks to a time-out.
        let task = tokio::spawn(async move {
            let ended = queue.timed(&mut lent, &transaction).await;
            (lent, ended)
        });
        let (lent, ended) = task.await.map_err(|error| QueueError::Panicked(error.to_string()))?;
        *kept = lent;
        ended
    }

    /// Like [`Queue::transact`], for a task that nobody cancels.
    pub(super) async fn timed<T: Transaction>(
        &self,
        kept: &mut Kept,
        transaction: &T,
    ) -> Result<T::Output, QueueError> {
        let begun = Instant::now();
        let ended = self.repeat(kept, transaction).await;
        metrics::TRANSACTION_TIME.observe(&[T::NAME], begun.elapsed().as_secs_f64());
        ended
    }

    async fn repeat<T: Transaction>(
        &self,
        kept: &mut Kept,
        transaction: &T,
    ) -> Result<T::Output, QueueError> {
        let mut pass = Pass::Fresh;
        let mut tried = 0;
        loop {
            let error = match self.once(kept, transaction, pass).await {
                Ok(output) => {
                    metrics::TRANSACTIONS.one(&[T::NAME, "done"]);
                    return Ok(output);
                }
                Err(error) => error,
            };
            metrics::TRANSACTIONS.one(&[T::NAME, error.class()]);
            tried += 1;
            tracing::debug!(transaction = T::NAME, class = error.class(), tried, %error, "transaction did not succeed");
            if matches!(error, QueueError::CommitUnknown(_)) {
                pass = Pass::AfterUnknownCommit;
            }
            if !error.is_transient() || tried >= TRIES {
                return Err(error);
            }
            let ceiling = 20_u64 << tried.min(6);
            tokio::time::sleep(Duration::from_millis(ceiling / 2 + rand::random_range(0..=ceiling))).await;
        }
    }

    async fn once<T: Transaction>(
        &self,
        kept: &mut Kept,
        transaction: &T,
        pass: Pass,
    ) -> Result<T::Output, QueueError> {
        let mut lent = self.lend(kept).await?;
        let Ended { result, fate } =
            begin_to_end(&mut lent.connection, transaction, pass, &self.inner.present).await;
        if fate == Fate::Closed || result.as_ref().is_err_and(poisons_connection) {
            // The pool would hand out a connection to the wrong server again, or one with half a transaction.
            drop(lent.connection.detach());
        } else {
            self.keep(kept, lent);
        }
        result
    }

    async fn lend(&self, kept: &mut Kept) -> Result<Lent, QueueError> {
        let good =
            |lent: &Lent| lent.used.elapsed() < KEPT && self.inner.present.covers(lent.acquired.elapsed());
        if let Some(lent) = kept.lent.take_if(|lent| good(lent)) {
            return Ok(Lent { used: Instant::now(), ..lent });
        }
        kept.lent = None;
        let now = Instant::now();
        match self.pool().acquire().await {
            Ok(connection) => Ok(Lent { connection, acquired: now, used: now, place: None }),
            Err(error) => Err(self.inner.present.explain(error)),
        }
    }

    /// Keeps a connection, as long as half of them are left for others.
    fn keep(&self, kept: &mut Kept, mut lent: Lent) {
        lent.used = Instant::now();
        if lent.place.is_none() {
            lent.place = Place::take(&self.inner.kept, self.pool().options().get_max_connections() / 2);
        }
        kept.lent = lent.place.is_some().then_some(lent);
    }

    /// Rows of a plain read on a connection that is kept for the next one.
    pub(super) async fn read_on(
        &self,
        kept: &mut Kept,
        query: sqlx::query::Query<'_, MySql, MySqlArguments>,
    ) -> Result<Vec<MySqlRow>, QueueError> {
        let mut lent = self.lend(kept).await?;
        match query.fetch_all(&mut *lent.connection).await {
            Ok(rows) => {
                self.keep(kept, lent);
                Ok(rows)
            }
            Err(error) => {
                drop(lent.connection.detach());
                Err(QueueError::from(error))
            }
        }
    }
}

/// Starts the transaction again, with nothing of it kept.
pub(super) async fn begin_again(connection: &mut MySqlConnection) -> Result<(), QueueError> {
    sqlx::raw_sql("ROLLBACK AND CHAIN").execute(connection).await?;
    Ok(())
}

/// What becomes of a connection with the end of a transaction on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Nothing of the transaction is open on it.
    Kept,
    /// Nobody can say that: with the next BEGIN a server commits what is still open.
    Closed,
}

struct Ended<T> {
    result: Result<T, QueueError>,
    fate: Fate,
}

impl<T> Ended<T> {
    const fn kept(result: Result<T, QueueError>) -> Self {
        Self { result, fate: Fate::Kept }
    }

    const fn closed(error: QueueError) -> Self {
        Self { result: Err(error), fate: Fate::Closed }
    }
}

/// Whenever BEGIN or ROLLBACK itself fails, and after each COMMIT that failed otherwise than with a conflict, the connection is
/// closed, whatever the error: a Galera node without quorum was seen to refuse the ROLLBACK too, to keep the transaction open,
/// and to commit the half of it with the next BEGIN, when the quorum was back.
async fn begin_to_end<T: Transaction>(
    connection: &mut MySqlConnection,
    transaction: &T,
    pass: Pass,
    present: &Present,
) -> Ended<T::Output> {
    let mut begun = match connection.begin().await {
        Ok(begun) => begun,
        Err(error) => return Ended::closed(error.into()),
    };
    match transaction.run(&mut begun, pass).await {
        Ok(Ending::Commit(output)) => {
            crash_point(&format!("queue.{}.before", T::NAME));
            if let Err(error) = present.commits(begun.commit()).await {
                return match QueueError::at_commit(error) {
                    conflict @ QueueError::Conflict { .. } => Ended::kept(Err(conflict)),
                    unknown => Ended::closed(unknown),
                };
            }
            crash_point(&format!("queue.{}.after", T::NAME));
            Ended::kept(Ok(output))
        }
        Ok(Ending::Rollback(output)) => match begun.rollback().await {
            Ok(()) => Ended::kept(Ok(output)),
            Err(error) => Ended::closed(error.into()),
        },
        // The first error is the one to tell.
        Err(error) => match begun.rollback().await {
            Ok(()) => Ended::kept(Err(error)),
            Err(_) => Ended::closed(error),
        },
    }
}
