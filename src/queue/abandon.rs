//! Giving a job up without its undo, when a `Server` is let go: what was left undone stands in the history.

use std::collections::BTreeSet;

use sqlx::MySqlConnection;

use super::cancel::lock;
use super::complete::{End, end_job};
use super::row::delete_place;
use super::transaction::{Ending, Pass, Transaction};
use super::{Queue, QueueError, Report, now_ms};
use crate::job::{Action, Incarnation, JobId, JobResult, Problem, ServerUid};

/// What became of a job that was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abandoned {
    /// It is gone, or was before.
    Gone,
    /// A live worker waits for the answer to its stored request: nothing was changed; try again soon.
    InFlight,
}

struct Abandon {
    uid: ServerUid,
    id: JobId,
    why: Problem,
    dead: BTreeSet<Incarnation>,
}

impl Transaction for Abandon {
    type Output = Abandoned;
    const NAME: &'static str = "abandon";

    async fn run(&self, connection: &mut MySqlConnection, _: Pass) -> Result<Ending<Abandoned>, QueueError> {
        let Some(job) = lock(connection, &self.uid, self.id).await? else {
            return Ok(Ending::Rollback(Abandoned::Gone));
        };
        // The claim of the BMC goes next: a request that may still take effect must not outlive it where somebody is
        // there to close it.
        if let (Some(_), Some(owner)) = (&job.request, job.owner)
            && !self.dead.contains(&Incarnation(owner))
            && in_registry(connection, owner).await?
        {
            return Ok(Ending::Rollback(Abandoned::InFlight));
        }
        if let Some((place, ord)) = job.place {
            delete_place(connection, &job, place, ord).await?;
        }
        let end = End {
            result: JobResult::Cancelled,
            problem: Some(self.why.clone()),
            cause: None,
            report: Report::Nothing,
        };
        end_job(connection, &job, &end).await?;
        Ok(Ending::Commit(Abandoned::Gone))
    }
}

async fn in_registry(connection: &mut MySqlConnection, worker: i64) -> Result<bool, QueueError> {
    let found: Option<i64> =
        sqlx::query_scalar("SELECT heartbeat FROM worker WHERE incarnation = ? AND tombstone = 0")
            .bind(worker)
            .fetch_optional(connection)
            .await?;
    Ok(found.is_some())
}

/// A server that was let go although something was left to do, and no job says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Farewell {
    /// Made by the caller. Told twice, it is one row.
    pub id: JobId,
    /// The server.
    pub uid: ServerUid,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its site.
    pub site: String,
    /// What was left to do.
    pub action: Action,
    /// Why it was left.
    pub why: Problem,
    /// Who let it go.
    pub requester: String,
}

impl Queue {
    /// Ends the job of this id without its undo: its worker, if it has one, is fenced off. `dead`: workers whose lease
    /// the caller saw expire. [`QueueError::Busy`]: try again.
    pub async fn abandon(
        &self,
        uid: &ServerUid,
        id: JobId,
        why: Problem,
        dead: BTreeSet<Incarnation>,
    ) -> Result<Abandoned, QueueError> {
        self.transact(Abandon { uid: uid.clone(), id, why, dead }).await
    }

    /// Writes into the history what was left undone when a server without a job was let go.
    pub async fn record_farewell(&self, farewell: &Farewell) -> Result<(), QueueError> {
        let step = farewell.action.steps().first().map_or("", |step| step.as_str());
        sqlx::query(concat!(
            "INSERT INTO job_history (job_id, server_uid, namespace, name, site, action, result, reason, message, step, \
             intent, requester, enqueued_at_ms, started_at_ms, finished_at_ms) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '', ?, ",
            now_ms!(),
            ", NULL, ",
            now_ms!(),
            ") ON DUPLICATE KEY UPDATE job_id = job_id"
        ))
        .bind(farewell.id.0)
        .bind(farewell.uid.as_str())
        .bind(&farewell.namespace)
        .bind(&farewell.name)
        .bind(&farewell.site)
        .bind(farewell.action.as_str())
        .bind(JobResult::Cancelled.as_str())
        .bind(farewell.why.reason.as_str())
        .bind(&farewell.why.message)
        .bind(step)
        .bind(&farewell.requester)
        .execute(self.pool())
        .await?;
        Ok(())
    }
}
