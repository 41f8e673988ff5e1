//! Giving a job up without its undo, when a `Server` is let go: what was left undone stands in the history.

use std::collections::BTreeSet;

use sqlx::{MySqlConnection, Row};

use super::cancel::lock;
use super::complete::{End, end_job};
use super::row::delete_place;
use super::transaction::{Ending, Pass, Transaction};
use super::{Queue, QueueError, boot_session, now_ms, permit};
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
        let job = match lock(connection, &self.uid, self.id).await {
            Ok(Some(job)) => job,
            Ok(None) => return Ok(Ending::Rollback(Abandoned::Gone)),
            // Locked by then, and of another release.
            Err(QueueError::UnknownContent { .. }) => return self.unread(connection).await,
            Err(error) => return Err(error),
        };
        // The claim of the BMC goes next: a request that may still take effect must not outlive it where somebody is
        // there to close it.
        if job.request.is_some() && self.has_live_owner(connection, job.owner).await? {
            return Ok(Ending::Rollback(Abandoned::InFlight));
        }
        if let Some((place, ord)) = job.place {
            delete_place(connection, &job, place, ord).await?;
        }
        let end = End::new(JobResult::Cancelled, Some(self.why.clone()));
        end_job(connection, &job, &end).await?;
        Ok(Ending::Commit(Abandoned::Gone))
    }
}

impl Abandon {
    async fn has_live_owner(
        &self,
        connection: &mut MySqlConnection,
        owner: Option<i64>,
    ) -> Result<bool, QueueError> {
        match owner.filter(|owner| !self.dead.contains(&Incarnation(*owner))) {
            Some(owner) => in_registry(connection, owner).await,
            None => Ok(false),
        }
    }

    /// A locked row that this release cannot read goes by its keys; history gets its columns as they stand.
    async fn unread(&self, connection: &mut MySqlConnection) -> Result<Ending<Abandoned>, QueueError> {
        let row = sqlx::query("SELECT * FROM job WHERE server_uid = ? AND id = ?")
            .bind(self.uid.as_str())
            .bind(self.id.0)
            .fetch_one(&mut *connection)
            .await?;
        let request: Option<String> = row.try_get("request")?;
        if request.is_some() && self.has_live_owner(connection, row.try_get("owner")?).await? {
            return Ok(Ending::Rollback(Abandoned::InFlight));
        }
        sqlx::query("DELETE FROM queue WHERE site = ? AND shard = ? AND state = ? AND ord = ? AND id = ?")
            .bind(row.try_get::<String, _>("site")?)
            .bind(row.try_get::<i64, _>("shard")?)
            .bind(row.try_get::<Option<i64>, _>("q_state")?)
            .bind(row.try_get::<Option<i64>, _>("q_ord")?)
            .bind(self.id.0)
            .execute(&mut *connection)
            .await?;
        sqlx::query("DELETE FROM job WHERE server_uid = ? AND id = ?")
            .bind(self.uid.as_str())
            .bind(self.id.0)
            .execute(&mut *connection)
            .await?;
        boot_session::revoke_all(connection, &[self.uid.as_str()]).await?;
        let text = |column: &str| row.try_get::<String, _>(column);
        sqlx::query(concat!(
            "INSERT INTO job_history (job_id, server_uid, namespace, name, site, action, result, reason, message, step, \
             intent, requester, enqueued_at_ms, started_at_ms, finished_at_ms) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ",
            now_ms!(),
            ") ON DUPLICATE KEY UPDATE job_id = job_id"
        ))
        .bind(self.id.0)
        .bind(self.uid.as_str())
        .bind(text("namespace")?)
        .bind(text("name")?)
        .bind(text("site")?)
        .bind(text("action")?)
        .bind(JobResult::Cancelled.as_str())
        .bind(self.why.reason.as_str())
        .bind(&self.why.message)
        .bind(text("step")?)
        .bind(text("intent")?)
        .bind(text("requester")?)
        .bind(row.try_get::<i64, _>("enqueued_at_ms")?)
        .bind(row.try_get::<Option<i64>, _>("started_at_ms")?)
        .execute(&mut *connection)
        .await?;
        if let (Some(class), 1) =
            (row.try_get::<Option<String>, _>("permit_class")?, row.try_get::<i64, _>("permit_held")?)
        {
            permit::give_back_some(connection, &text("site")?, &class, 1).await?;
        }
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
