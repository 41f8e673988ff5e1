//! A new job, conditional on the version that the decision was made on.

use sqlx::MySqlConnection;

use super::transaction::{Ending, Pass, Transaction};
use super::{PlaceInQueue, Queue, QueueError, now_ms};
use crate::job::{Action, Cause, Intent, JobId, Lane, ServerUid, Step, Visibility, order_key};
use crate::shard::Shard;

/// A job to enqueue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewJob {
    /// Made by the caller. Enqueued twice, it is one job.
    pub id: JobId,
    /// The server.
    pub uid: ServerUid,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its site.
    pub site: String,
    /// The shard of its BMC.
    pub shard: Shard,
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
    /// Who asked: a field manager or a part of the controller.
    pub requester: String,
}

/// What became of an enqueue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enqueued {
    /// The job is live.
    Accepted,
    /// What is known changed since the decision: look again.
    Stale,
    /// Another job of this server is live: look again.
    Occupied,
}

struct Enqueue {
    job: NewJob,
    version: i64,
}

impl Transaction for Enqueue {
    type Output = Enqueued;
    const NAME: &'static str = "enqueue";

    async fn run(&self, connection: &mut MySqlConnection, _: Pass) -> Result<Ending<Enqueued>, QueueError> {
        let job = &self.job;
        let order_ms = job.id.unix_ms();
        let ord = order_key(job.lane, order_ms);
        let place = PlaceInQueue::Queued.code();
        let queued = sqlx::query(
            "INSERT INTO queue (site, shard, state, ord, id, server_uid) VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(&job.site)
        .bind(i64::from(job.shard.0))
        .bind(place)
        .bind(ord)
        .bind(job.id.0)
        .bind(job.uid.as_str())
        .execute(&mut *connection)
        .await
        .map_err(QueueError::from);
        let inserted = match queued {
            Ok(_) => self.insert_job(connection, order_ms, ord).await,
            Err(error) => Err(error),
        };
        match inserted {
            // Ours, from a try whose commit was unknown, or another one's: the id tells.
            Err(QueueError::Duplicate(_)) => return self.whose(connection).await,
            other => other?,
        }
        let raised = sqlx::query(concat!(
            "UPDATE server_state SET version = version + 1, changed_at_ms = IF(?, ",
            now_ms!(),
            ", changed_at_ms) WHERE server_uid = ? AND version = ?"
        ))
        .bind(job.visibility == Visibility::Shown)
        .bind(job.uid.as_str())
        .bind(self.version)
        .execute(connection)
        .await?;
        Ok(match raised.rows_affected() {
            0 => Ending::Rollback(Enqueued::Stale),
            _ => Ending::Commit(Enqueued::Accepted),
        })
    }
}

impl Enqueue {
    async fn insert_job(
        &self,
        connection: &mut MySqlConnection,
        order_ms: i64,
        ord: i64,
    ) -> Result<(), QueueError> {
        let job = &self.job;
        sqlx::query(concat!(
            "INSERT INTO job (server_uid, id, namespace, name, site, shard, action, lane, order_ms, q_state, q_ord, \
             intent, cause, quiet, step, checkpoint, requester, enqueued_at_ms) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '', ?, ",
            now_ms!(),
            ")"
        ))
        .bind(job.uid.as_str())
        .bind(job.id.0)
        .bind(&job.namespace)
        .bind(&job.name)
        .bind(&job.site)
        .bind(i64::from(job.shard.0))
        .bind(job.action.as_str())
        .bind(i64::from(job.lane.number()))
        .bind(order_ms)
        .bind(PlaceInQueue::Queued.code())
        .bind(ord)
        .bind(&job.intent.0)
        .bind(&job.cause.0)
        .bind(i64::from(job.visibility == Visibility::Quiet))
        .bind(job.step.as_str())
        .bind(&job.requester)
        .execute(connection)
        .await?;
        Ok(())
    }

    async fn whose(&self, connection: &mut MySqlConnection) -> Result<Ending<Enqueued>, QueueError> {
        let id: Option<i64> = sqlx::query_scalar("SELECT id FROM job WHERE server_uid = ?")
            .bind(self.job.uid.as_str())
            .fetch_optional(connection)
            .await?;
        Ok(Ending::Rollback(match id {
            Some(id) if id == self.job.id.0 => Enqueued::Accepted,
            Some(_) => Enqueued::Occupied,
            None => Enqueued::Stale,
        }))
    }
}

impl Queue {
    /// Enqueues a job if what is known of its server is still at `version`.
    ///
    /// A job that ran and ended between a lost COMMIT answer and its repetition is not enqueued again: its enqueue
    /// raised the version.
    pub async fn enqueue(&self, job: NewJob, version: i64) -> Result<Enqueued, QueueError> {
        self.transact(Enqueue { job, version }).await
    }
}
