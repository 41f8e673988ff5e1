//! Waking: parked jobs whose time has come become ready.

use sqlx::{MySqlConnection, Row};

use super::claim::set_aside;
use super::row::{JobRow, delete_place, insert_place};
use super::transaction::{Ending, Pass, Transaction};
use super::{PlaceInQueue, Queue, QueueError, now_ms};
use crate::shard::Shard;

struct Wake {
    site: String,
    shard: Shard,
    at_most: u32,
}

impl Transaction for Wake {
    type Output = u32;
    const NAME: &'static str = "wake";

    async fn run(&self, connection: &mut MySqlConnection, _: Pass) -> Result<Ending<u32>, QueueError> {
        let due = sqlx::query(concat!(
            "SELECT ord, id, server_uid FROM queue WHERE site = ? AND shard = ? AND state = 3 AND ord <= ",
            now_ms!(),
            " ORDER BY ord, id LIMIT ? FOR UPDATE SKIP LOCKED"
        ))
        .bind(&self.site)
        .bind(i64::from(self.shard.0))
        .bind(self.at_most)
        .fetch_all(&mut *connection)
        .await?;
        let mut keys = Vec::with_capacity(due.len());
        for row in &due {
            keys.push((
                row.try_get::<String, _>("server_uid")?,
                row.try_get::<i64, _>("ord")?,
                row.try_get("id")?,
            ));
        }
        keys.sort();
        let mut woken = Vec::with_capacity(keys.len());
        for (uid, ord, id) in keys {
            let id: i64 = id;
            let row = sqlx::query(
                "SELECT * FROM job WHERE server_uid = ? AND id = ? AND q_state = 3 AND q_ord = ? FOR UPDATE",
            )
            .bind(&uid)
            .bind(id)
            .bind(ord)
            .fetch_optional(&mut *connection)
            .await?;
            let Some(row) = row else { continue };
            let job = match JobRow::read(&row) {
                Ok(job) => job,
                Err(error) => {
                    tracing::error!(server = uid, %error, "a job row cannot be read; it stays parked for ten minutes");
                    set_aside(connection, &uid, (&self.site, self.shard), PlaceInQueue::Parked, ord, id)
                        .await?;
                    continue;
                }
            };
            move_to_ready(connection, &job).await?;
            delete_place(connection, &job, PlaceInQueue::Parked, ord).await?;
            woken.push(job);
        }
        for job in &woken {
            insert_place(connection, job, PlaceInQueue::Ready, job.order_key()).await?;
        }
        Ok(Ending::Commit(woken.len() as u32))
    }
}

/// Marks a locked job as ready; the caller inserts its queue row last.
pub(super) async fn move_to_ready(connection: &mut MySqlConnection, job: &JobRow) -> Result<(), QueueError> {
    sqlx::query("UPDATE job SET owner = NULL, token = NULL, q_state = 0, q_ord = ? WHERE server_uid = ?")
        .bind(job.order_key())
        .bind(job.uid.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

impl Queue {
    /// Moves up to `at_most` due jobs of a shard to ready; returns how many.
    pub async fn wake(&self, site: &str, shard: Shard, at_most: u32) -> Result<u32, QueueError> {
        self.transact(Wake { site: site.to_owned(), shard, at_most }).await
    }
}
