//! The end of a job whose row was lost in a failover or a restore: told as a failure, so that it is not done again.

use sqlx::MySqlConnection;

use super::state::{self, Tell};
use super::transaction::{Ending, Pass, Transaction};
use super::{Queue, QueueError};
use crate::job::{Cause, Debt, Event, FinishedJob, Problem, ServerUid, StoredFailure};

/// A job that status shows as begun and that the database does not know any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostJob {
    /// The server.
    pub uid: ServerUid,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its site.
    pub site: String,
    /// How it ended.
    pub job: FinishedJob,
    /// The circumstances: its intent is not tried again before they differ.
    pub cause: Cause,
    /// What it owes its machine, where it may have switched it off.
    pub debt: Option<Debt>,
    /// Who says so.
    pub requester: String,
}

struct RecordLost {
    lost: LostJob,
    version: i64,
}

impl Transaction for RecordLost {
    type Output = bool;
    const NAME: &'static str = "record_lost";

    async fn run(&self, connection: &mut MySqlConnection, pass: Pass) -> Result<Ending<bool>, QueueError> {
        let LostJob { uid, job, cause, .. } = &self.lost;
        let Some(mut locked) = state::lock(connection, uid).await? else {
            return Ok(Ending::Rollback(false));
        };
        if pass == Pass::AfterUnknownCommit && locked.last_job.get(uid)?.as_ref() == Some(job) {
            return Ok(Ending::Rollback(true));
        }
        // An enqueue raises the version: at this one no job is live.
        if locked.version != self.version {
            return Ok(Ending::Rollback(false));
        }
        let problem = job.problem.clone();
        let failure = problem.clone().map(|problem| StoredFailure {
            action: job.action,
            intent: job.intent.clone(),
            cause: cause.clone(),
            problem,
            at_ms: locked.now_ms,
            behind: None,
        });
        locked.happened(uid, &Event::Lost(job.action))?;
        locked.failure.set(failure.as_ref());
        locked.last_job.set(Some(job));
        if self.lost.debt.is_some() {
            locked.debt.set(self.lost.debt.as_ref());
        }
        state::write(connection, uid, locked, Tell::Controller).await?;
        self.tell(connection, problem.as_ref()).await?;
        Ok(Ending::Commit(true))
    }
}

impl RecordLost {
    /// One that was stopped first has its row already, which says from now on that it is at its end.
    async fn tell(
        &self,
        connection: &mut MySqlConnection,
        problem: Option<&Problem>,
    ) -> Result<(), QueueError> {
        let LostJob { uid, namespace, name, site, job, requester, .. } = &self.lost;
        sqlx::query(
            "INSERT INTO job_history (job_id, server_uid, namespace, name, site, action, result, reason, message, step, \
             intent, requester, enqueued_at_ms, started_at_ms, finished_at_ms) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON DUPLICATE KEY UPDATE \
             result = VALUES(result), reason = VALUES(reason), message = VALUES(message)",
        )
        .bind(job.id.0)
        .bind(uid.as_str())
        .bind(namespace)
        .bind(name)
        .bind(site)
        .bind(job.action.as_str())
        .bind(job.result.as_str())
        .bind(problem.map_or(job.result.as_str(), |problem| problem.reason.as_str()))
        .bind(problem.map_or("", |problem| problem.message.as_str()))
        .bind(job.step.as_str())
        .bind(&job.intent.0)
        .bind(requester)
        .bind(job.enqueued_at_ms)
        .bind(job.started_at_ms)
        .bind(job.finished_at_ms)
        .execute(connection)
        .await?;
        Ok(())
    }
}

impl Queue {
    /// Records that a job failed whose row was lost. `false`: what is known changed since `version`; look again.
    pub async fn record_lost(&self, lost: LostJob, version: i64) -> Result<bool, QueueError> {
        self.transact(RecordLost { lost, version }).await
    }
}
