//! The sweep: repairs what no protocol step leaves behind, but a person or a restored backup may.

use sqlx::{MySqlConnection, Row};

use super::row::{JobRow, insert_place};
use super::transaction::{Ending, Pass, Transaction};
use super::wake::awaken;
use super::{Queue, QueueError};
use crate::job::{Incarnation, JobId, ServerUid};

/// Jobs looked at in one call.
const PAGE: u32 = 200;

struct Requeue {
    uid: ServerUid,
}

impl Transaction for Requeue {
    type Output = bool;
    const NAME: &'static str = "requeue";

    async fn run(&self, connection: &mut MySqlConnection, _: Pass) -> Result<Ending<bool>, QueueError> {
        let row = sqlx::query("SELECT * FROM job WHERE server_uid = ? FOR UPDATE")
            .bind(self.uid.as_str())
            .fetch_optional(&mut *connection)
            .await?;
        let Some(row) = row else { return Ok(Ending::Rollback(false)) };
        let job = JobRow::read(&row)?;
        if job.owner.is_some() {
            return Ok(Ending::Rollback(false));
        }
        // Looked for again under the job's lock: nobody can move the row now.
        if let Some((place, ord)) = job.place {
            let found: Option<i64> = sqlx::query_scalar(
                "SELECT id FROM queue WHERE site = ? AND shard = ? AND state = ? AND ord = ? AND id = ?",
            )
            .bind(&job.site)
            .bind(job.shard)
            .bind(place.code())
            .bind(ord)
            .bind(job.live.id.0)
            .fetch_optional(&mut *connection)
            .await?;
            if found.is_some() {
                return Ok(Ending::Rollback(false));
            }
        }
        awaken(connection, &job).await?;
        insert_place(connection, &job, job.waits_in(), job.order_key()).await?;
        Ok(Ending::Commit(true))
    }
}

/// What a sweep found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Jobs that were in nobody's hands and in no queue row, and are ready again.
    pub requeued: u32,
    /// Owners of jobs that are not in the registry of workers: to be reaped.
    pub vanished_owners: Vec<Incarnation>,
    /// Where the next call goes on; `None`: the end was reached.
    pub next: Option<ServerUid>,
}

impl Queue {
    /// Looks at the next page of live jobs after `after`. Called now and then by every worker; two at once do no harm.
    pub async fn sweep(&self, after: Option<&ServerUid>) -> Result<Swept, QueueError> {
        let rows = sqlx::query(
            "SELECT job.server_uid, job.owner, worker.incarnation, queue.id FROM job \
             LEFT JOIN worker ON worker.incarnation = job.owner \
             LEFT JOIN queue ON queue.site = job.site AND queue.shard = job.shard AND queue.state = job.q_state \
             AND queue.ord = job.q_ord AND queue.id = job.id \
             WHERE job.server_uid > ? ORDER BY job.server_uid LIMIT ?",
        )
        .bind(after.map_or("", ServerUid::as_str))
        .bind(PAGE)
        .fetch_all(self.pool())
        .await?;
        let mut swept = Swept::default();
        for row in &rows {
            let uid = ServerUid(row.try_get("server_uid")?);
            let owner: Option<i64> = row.try_get("owner")?;
            let worker: Option<i64> = row.try_get("incarnation")?;
            let queued: Option<i64> = row.try_get("id")?;
            match (owner, worker, queued) {
                (Some(owner), None, _) => swept.vanished_owners.push(Incarnation(owner)),
                (None, _, None) => match self.transact(Requeue { uid: uid.clone() }).await {
                    Ok(true) => {
                        tracing::warn!(server = uid.as_str(), "a job was in no queue row; it is ready again");
                        swept.requeued += 1;
                    }
                    Ok(false) => {}
                    // It must not hide the rows behind it.
                    Err(error @ QueueError::UnknownContent { .. }) => {
                        tracing::error!(server = uid.as_str(), %error, "a job in no queue row cannot be read");
                    }
                    Err(error) => return Err(error),
                },
                _ => {}
            }
            swept.next = Some(uid);
        }
        if rows.len() < PAGE as usize {
            swept.next = None;
        }
        swept.vanished_owners.sort();
        swept.vanished_owners.dedup();
        Ok(swept)
    }

    /// Deletes up to `at_most` history rows of jobs that ended before `before_ms`, the oldest first; returns how many.
    /// Small deletes by the primary key, which begins with the time of the enqueue, never hold up a claim.
    pub async fn trim_history(&self, before_ms: i64, at_most: u32) -> Result<u64, QueueError> {
        let done = sqlx::query(
            "DELETE FROM job_history WHERE job_id < ? AND finished_at_ms < ? ORDER BY job_id LIMIT ?",
        )
        .bind(JobId::new(before_ms, 0).0)
        .bind(before_ms)
        .bind(at_most)
        .execute(self.pool())
        .await?;
        Ok(done.rows_affected())
    }
}
