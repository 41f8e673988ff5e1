//! What the controller does to a live job: cancel, signal, move to another lane. All of it answers "busy" at once.

use sqlx::{MySqlConnection, Row};

use super::complete::{End, end_job};
use super::row::{JobRow, delete_place, insert_place};
use super::state::{Tell, touch};
use super::transaction::{Ending, Pass, Transaction};
use super::wake::awaken;
use super::{DecidedOn, PlaceInQueue, Queue, QueueError, decided_on};
use crate::api::Reason;
use crate::job::{JobId, JobResult, Lane, Problem, ServerUid, order_key};

/// What became of a change to a live job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelOutcome {
    /// The job had never started and is gone.
    Deleted,
    /// The change is stored; a worker sees it before its next step.
    Stored,
    /// There is no live job of this id any more.
    Gone,
    /// A newer object was decided on since: nothing was changed; read it live.
    Outdated,
}

/// Locks the queue row, then the job, neither waiting, and checks that the job still is where it was seen: the order
/// in which a claim takes them.
pub(super) async fn lock(
    connection: &mut MySqlConnection,
    uid: &ServerUid,
    id: JobId,
) -> Result<Option<JobRow>, QueueError> {
    let seen = sqlx::query("SELECT site, shard, q_state, q_ord FROM job WHERE server_uid = ? AND id = ?")
        .bind(uid.as_str())
        .bind(id.0)
        .fetch_optional(&mut *connection)
        .await?;
    let Some(seen) = seen else { return Ok(None) };
    let place: Option<i64> = seen.try_get("q_state")?;
    let ord: Option<i64> = seen.try_get("q_ord")?;
    if let (Some(place), Some(ord)) = (place, ord) {
        let row = sqlx::query(
            "SELECT id FROM queue WHERE site = ? AND shard = ? AND state = ? AND ord = ? AND id = ? FOR UPDATE NOWAIT",
        )
        .bind(seen.try_get::<String, _>("site")?)
        .bind(seen.try_get::<i64, _>("shard")?)
        .bind(place)
        .bind(ord)
        .bind(id.0)
        .fetch_optional(&mut *connection)
        .await
        .map_err(QueueError::nowait)?;
        // Moved since: locking the job without its queue row would be the wrong way round for a claim.
        if row.is_none() {
            return Err(QueueError::Busy);
        }
    }
    let row = sqlx::query("SELECT * FROM job WHERE server_uid = ? AND id = ? FOR UPDATE NOWAIT")
        .bind(uid.as_str())
        .bind(id.0)
        .fetch_optional(connection)
        .await
        .map_err(QueueError::nowait)?;
    let Some(row) = row else { return Ok(None) };
    let job = JobRow::read(&row)?;
    let now = job.place.map(|(place, ord)| (place.code(), ord));
    // Moved between the two reads: it is being worked on.
    if now == place.zip(ord) { Ok(Some(job)) } else { Err(QueueError::Busy) }
}

/// Counts a signal, and wakes the job where it is parked, or waits for a permit that it no longer needs.
pub(super) async fn signal(connection: &mut MySqlConnection, job: &JobRow) -> Result<(), QueueError> {
    sqlx::query("UPDATE job SET signals = signals + 1 WHERE server_uid = ?")
        .bind(job.uid.as_str())
        .execute(&mut *connection)
        .await?;
    if let Some((place, ord)) = job.place.filter(|(place, _)| moves(job, *place)) {
        awaken(connection, job).await?;
        delete_place(connection, job, place, ord).await?;
    }
    Ok(())
}

fn moves(job: &JobRow, from: PlaceInQueue) -> bool {
    match from {
        PlaceInQueue::Parked => true,
        PlaceInQueue::QueuedBounded => job.waits_in() != from,
        PlaceInQueue::Ready | PlaceInQueue::Queued => false,
    }
}

/// Inserts the queue row of a job that [`signal`] woke: last of all.
pub(super) async fn insert_woken(connection: &mut MySqlConnection, job: &JobRow) -> Result<(), QueueError> {
    match job.place {
        Some((place, _)) if moves(job, place) => {
            insert_place(connection, job, job.waits_in(), job.order_key()).await
        }
        _ => Ok(()),
    }
}

struct Cancel {
    uid: ServerUid,
    id: JobId,
    reason: Reason,
    on: Option<DecidedOn>,
}

impl Transaction for Cancel {
    type Output = CancelOutcome;
    const NAME: &'static str = "cancel";

    async fn run(
        &self,
        connection: &mut MySqlConnection,
        _: Pass,
    ) -> Result<Ending<CancelOutcome>, QueueError> {
        let Some(mut job) = lock(connection, &self.uid, self.id).await? else {
            return Ok(Ending::Rollback(CancelOutcome::Gone));
        };
        if let (false, Some((place, ord))) = (job.live.started(), job.place) {
            delete_place(connection, &job, place, ord).await?;
            let problem = Problem::new(self.reason, "the job was taken out of the queue before it started");
            let end = End::new(JobResult::Cancelled, Some(problem));
            end_job(connection, &job, &end).await?;
            return note(connection, (&self.uid, self.on), Tell::Nobody, CancelOutcome::Deleted).await;
        }
        // A job whose history is lost has to end for that reason, whatever else it was stopped for.
        let says_enough = |before| before == self.reason || self.reason != Reason::HistoryLost;
        if job.live.cancel.is_some_and(says_enough) {
            return Ok(Ending::Rollback(CancelOutcome::Stored));
        }
        sqlx::query("UPDATE job SET cancel = ? WHERE server_uid = ?")
            .bind(self.reason.as_str())
            .bind(self.uid.as_str())
            .execute(&mut *connection)
            .await?;
        // Whoever asks a quiet look to stop looks again by itself; its end is told.
        let tell = job.tell();
        job.live.cancel = Some(self.reason);
        signal(connection, &job).await?;
        let noted = note(connection, (&self.uid, self.on), tell, CancelOutcome::Stored).await?;
        insert_woken(connection, &job).await?;
        Ok(noted)
    }
}

struct Signal {
    uid: ServerUid,
    id: JobId,
}

impl Transaction for Signal {
    type Output = CancelOutcome;
    const NAME: &'static str = "signal";

    async fn run(
        &self,
        connection: &mut MySqlConnection,
        _: Pass,
    ) -> Result<Ending<CancelOutcome>, QueueError> {
        let Some(job) = lock(connection, &self.uid, self.id).await? else {
            return Ok(Ending::Rollback(CancelOutcome::Gone));
        };
        signal(connection, &job).await?;
        insert_woken(connection, &job).await?;
        Ok(Ending::Commit(CancelOutcome::Stored))
    }
}

/// Notes on which object a change of a job was decided, and raises the version; the change is taken back where a newer
/// object was decided on since. In lock order: after the job, before a new queue row.
async fn note(
    connection: &mut MySqlConnection,
    (uid, on): (&ServerUid, Option<DecidedOn>),
    tell: Tell,
    done: CancelOutcome,
) -> Result<Ending<CancelOutcome>, QueueError> {
    let Some(on) = on else {
        touch(connection, uid, tell).await?;
        return Ok(Ending::Commit(done));
    };
    Ok(if decided_on::touch(connection, uid, on, tell).await? {
        Ending::Commit(done)
    } else {
        Ending::Rollback(CancelOutcome::Outdated)
    })
}

struct Reprioritize {
    uid: ServerUid,
    id: JobId,
    lane: Lane,
    on: Option<DecidedOn>,
}

impl Transaction for Reprioritize {
    type Output = CancelOutcome;
    const NAME: &'static str = "reprioritize";

    async fn run(
        &self,
        connection: &mut MySqlConnection,
        _: Pass,
    ) -> Result<Ending<CancelOutcome>, QueueError> {
        let Some(job) = lock(connection, &self.uid, self.id).await? else {
            return Ok(Ending::Rollback(CancelOutcome::Gone));
        };
        let moved = job.place.filter(|(place, _)| *place != PlaceInQueue::Parked);
        let ord = order_key(self.lane, job.order_ms);
        sqlx::query("UPDATE job SET lane = ?, q_ord = IF(?, ?, q_ord) WHERE server_uid = ?")
            .bind(i64::from(self.lane.number()))
            .bind(moved.is_some())
            .bind(ord)
            .bind(self.uid.as_str())
            .execute(&mut *connection)
            .await?;
        if let Some((place, before)) = moved {
            delete_place(connection, &job, place, before).await?;
        }
        let noted = note(connection, (&self.uid, self.on), job.tell(), CancelOutcome::Stored).await?;
        if let Some((place, _)) = moved {
            insert_place(connection, &job, place, ord).await?;
        }
        Ok(noted)
    }
}

impl Queue {
    /// Takes a job that never started out of the queue, or marks one that did: a worker then runs its undo steps
    /// before the row goes. Only the job of this id. [`QueueError::Busy`]: try again.
    pub async fn cancel(
        &self,
        uid: &ServerUid,
        id: JobId,
        reason: Reason,
    ) -> Result<CancelOutcome, QueueError> {
        self.transact(Cancel { uid: uid.clone(), id, reason, on: None }).await
    }

    /// Like [`Queue::cancel`], decided on this object.
    pub async fn cancel_on(
        &self,
        uid: &ServerUid,
        id: JobId,
        reason: Reason,
        on: DecidedOn,
    ) -> Result<CancelOutcome, QueueError> {
        self.transact(Cancel { uid: uid.clone(), id, reason, on: Some(on) }).await
    }

    /// Wakes a parked job, or makes one that is about to park look again. [`QueueError::Busy`]: try again.
    pub async fn signal(&self, uid: &ServerUid, id: JobId) -> Result<CancelOutcome, QueueError> {
        self.transact(Signal { uid: uid.clone(), id }).await
    }

    /// Moves a job to another lane; it keeps its age. [`QueueError::Busy`]: try again.
    pub async fn reprioritize(
        &self,
        uid: &ServerUid,
        id: JobId,
        lane: Lane,
    ) -> Result<CancelOutcome, QueueError> {
        self.transact(Reprioritize { uid: uid.clone(), id, lane, on: None }).await
    }

    /// Like [`Queue::reprioritize`], decided on this object.
    pub async fn reprioritize_on(
        &self,
        uid: &ServerUid,
        id: JobId,
        lane: Lane,
        on: DecidedOn,
    ) -> Result<CancelOutcome, QueueError> {
        self.transact(Reprioritize { uid: uid.clone(), id, lane, on: Some(on) }).await
    }
}
