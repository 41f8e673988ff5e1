//! What the controller decides on: one plain read.

use sqlx::mysql::MySqlRow;
use sqlx::{AssertSqlSafe, Row};

use super::head::lane_of;
use super::hold_back::is_held_back;
use super::row::JobRow;
use super::{PlaceInQueue, Queue, QueueError, boot_session, now_ms, state};
use crate::api::Reason;
use crate::job::{
    JobId, JobResult, Known, LiveJob, Problem, ServerUid, TokenValue, UnreadableJob, Visibility, WaitingFor,
};

/// What the database says about one server, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// `None`: the server was never registered, or its row was lost.
    pub known: Option<Known>,
    /// The live job.
    pub job: Option<LiveJob>,
    /// The live job, or what is known, where this release cannot read it.
    pub unreadable: Option<UnreadableJob>,
    /// Where the live job comes in its lane.
    pub order_ms: Option<i64>,
    /// Whether the live job is held back until it was derived again.
    pub held_back: bool,
    /// Whether status shows that job.
    pub visibility: Visibility,
    /// Whether the newest version was not acknowledged yet.
    pub in_feed: bool,
    /// The generation of the object that the last decision was made on; 0: none is known.
    pub generation: i64,
    /// The database's clock at that moment, milliseconds since the Unix epoch.
    pub now_ms: i64,
}

/// A server that has a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// The server.
    pub uid: ServerUid,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Queue {
    /// Reads what is known and the live job in one non-locking statement, which both engines answer from one
    /// snapshot.
    pub async fn observe(&self, uid: &ServerUid) -> Result<Seen, QueueError> {
        self.observe_asked(uid, &[]).await
    }

    /// The same, and in the same snapshot whether the tokens that are asked about were handled long ago: a token that counts
    /// as handled beside a job that did not take it yet looks like a job that nothing explains.
    pub async fn observe_asked(&self, uid: &ServerUid, asked: &[TokenValue]) -> Result<Seen, QueueError> {
        let Some(row) = self.row(uid, asked).await? else {
            return Ok(Seen { now_ms: self.now_ms().await?, ..Seen::default() });
        };
        let mut seen = Self::seen(&row)?;
        if let Some(known) = &mut seen.known {
            for (number, token) in asked.iter().enumerate() {
                if row.try_get::<i64, _>(format!("asked_{number}").as_str())? != 0 {
                    known.handled.recall(token);
                }
            }
        }
        Ok(seen)
    }

    async fn row(&self, uid: &ServerUid, asked: &[TokenValue]) -> Result<Option<MySqlRow>, QueueError> {
        let handled: Vec<String> = (0..asked.len()).map(was_handled).collect();
        let handled = handled.concat();
        // Both tables have a server_uid; `read` takes the first one, and the join makes them equal.
        let text = format!(
            "SELECT {handled}job.*, server_state.*, job.id IS NOT NULL AS has_job, server_state.server_uid AS server_uid, \
             inventory.content AS inventory, permit.used >= permit.cap AS class_full, boot_session.percent, boot_session.line, \
             boot_session.given_in IS NOT NULL AS script_given, \
             {} AS now_ms FROM server_state LEFT JOIN job ON job.server_uid = server_state.server_uid \
             LEFT JOIN inventory ON inventory.server_uid = server_state.server_uid \
             LEFT JOIN boot_session ON boot_session.server_uid = job.server_uid AND boot_session.job_id = job.id \
             LEFT JOIN permit ON permit.site = job.site AND permit.class = job.permit_class \
             WHERE server_state.server_uid = ?",
            now_ms!()
        );
        let mut query = sqlx::query(AssertSqlSafe(text));
        for token in asked {
            query = query.bind(token.kind.field()).bind(token.hash());
        }
        Ok(query.bind(uid.as_str()).fetch_optional(self.pool()).await?)
    }

    fn seen(row: &MySqlRow) -> Result<Seen, QueueError> {
        let in_feed = row.try_get::<Option<i64>, _>("changed_at_ms")?.is_some();
        let (generation, now_ms) = (row.try_get("generation")?, row.try_get("now_ms")?);
        let has_job = row.try_get::<i64, _>("has_job")? != 0;
        let of_another_release = |error: QueueError, until: &str| {
            let message = format!(
                "{error}; nothing is done here until {until}: run workers of the release that wrote it, or finish the upgrade"
            );
            Ok::<_, QueueError>(UnreadableJob {
                id: if has_job { Some(JobId(row.try_get("id")?)) } else { None },
                problem: Problem::new(Reason::UnsupportedJob, message),
            })
        };
        let known = match state::read(row) {
            Ok(known) => Some(known),
            // Not to know it is not to have nothing: that would be derived again from status.
            Err(error @ QueueError::UnknownContent { .. }) => {
                let unreadable = Some(of_another_release(error, "this release knows it")?);
                return Ok(Seen { unreadable, in_feed, generation, now_ms, ..Seen::default() });
            }
            Err(error) => return Err(error),
        };
        if !has_job {
            return Ok(Seen { known, in_feed, generation, now_ms, ..Seen::default() });
        }
        let mut job = match JobRow::read(row) {
            Ok(job) => job,
            // Of another release: it is left to that one, and shown.
            Err(error @ QueueError::UnknownContent { .. }) => {
                let unreadable = Some(of_another_release(error, "that job is gone")?);
                return Ok(Seen { known, unreadable, in_feed, generation, now_ms, ..Seen::default() });
            }
            Err(error) => return Err(error),
        };
        job.live.waiting_for = match job.place {
            // A class that no worker has set up yet has no permits.
            Some((PlaceInQueue::QueuedBounded, _)) => {
                let full = row.try_get::<Option<i64>, _>("class_full")?.unwrap_or(1) == 1;
                Some(if full { WaitingFor::Permit } else { WaitingFor::Worker })
            }
            Some((PlaceInQueue::Queued, _)) => Some(WaitingFor::Worker),
            _ => job.live.waiting_for,
        };
        job.live.progress = boot_session::progress(row)?;
        job.live.script_given = row.try_get::<i64, _>("script_given")? != 0;
        let held_back = is_held_back(job.place);
        let visibility = if job.quiet { Visibility::Quiet } else { Visibility::Shown };
        let order_ms = Some(job.order_ms);
        let job = Some(job.live);
        Ok(Seen {
            known,
            visibility,
            job,
            order_ms,
            held_back,
            unreadable: None,
            in_feed,
            generation,
            now_ms,
        })
    }

    /// Whether the history has the end of a job that status shows. One that was stopped because the database was behind
    /// is not at its end: something has to be done about it.
    pub async fn has_ended(&self, uid: &ServerUid, id: JobId) -> Result<bool, QueueError> {
        let row = sqlx::query("SELECT reason, result FROM job_history WHERE job_id = ? AND server_uid = ?")
            .bind(id.0)
            .bind(uid.as_str())
            .fetch_optional(self.pool())
            .await?;
        let Some(row) = row else { return Ok(false) };
        let (reason, result): (String, String) = (row.try_get("reason")?, row.try_get("result")?);
        Ok(reason != Reason::HistoryLost.as_str() || result == JobResult::Failed.as_str())
    }

    /// How many jobs of its site are before the one of this server: as many as could be claimed before it, over all
    /// shards, counted up to `at_most`. `None`: it does not wait for a worker.
    pub async fn ahead(&self, uid: &ServerUid, at_most: u32) -> Result<Option<u32>, QueueError> {
        let row = sqlx::query("SELECT site, q_state, q_ord FROM job WHERE server_uid = ?")
            .bind(uid.as_str())
            .fetch_optional(self.pool())
            .await?;
        let Some(row) = row else { return Ok(None) };
        let place = row.try_get::<Option<i64>, _>("q_state")?.and_then(PlaceInQueue::from_code);
        let (Some(place), Some(ord)) = (place, row.try_get::<Option<i64>, _>("q_ord")?) else {
            return Ok(None);
        };
        if place == PlaceInQueue::Parked {
            return Ok(None);
        }
        let site: String = row.try_get("site")?;
        // Lane by lane, and within a lane started jobs first: what is before it lies in higher lanes, or in its own
        // lane in an earlier place or with an earlier key.
        let (lane_first, lane_last) = lane_of(ord).order_range();
        let branches: Vec<String> = (0..self.shards())
            .flat_map(|_| [PlaceInQueue::Ready, PlaceInQueue::Queued, PlaceInQueue::QueuedBounded])
            .map(|_| {
                "(SELECT 1 AS one FROM queue FORCE INDEX (PRIMARY) WHERE site = ? AND shard = ? AND state = ? AND ord < ? \
                 LIMIT ?)"
                    .to_owned()
            })
            .collect();
        let text = format!("SELECT COUNT(*) FROM ({}) AS ahead", branches.join(" UNION ALL "));
        let mut query = sqlx::query_scalar::<_, i64>(AssertSqlSafe(text));
        for shard in 0..self.shards() {
            for before in [PlaceInQueue::Ready, PlaceInQueue::Queued, PlaceInQueue::QueuedBounded] {
                let end = match before.cmp(&place) {
                    std::cmp::Ordering::Less => lane_last + 1,
                    std::cmp::Ordering::Equal => ord,
                    std::cmp::Ordering::Greater => lane_first,
                };
                query = query
                    .bind(site.clone())
                    .bind(i64::from(shard))
                    .bind(before.code())
                    .bind(end)
                    .bind(i64::from(at_most));
            }
        }
        let ahead = query.fetch_one(self.pool()).await?;
        Ok(Some((ahead.max(0) as u32).min(at_most)))
    }

    /// The next servers that have a row, by uid after `after`: for comparing them with the objects that exist.
    pub async fn registered(
        &self,
        after: Option<&ServerUid>,
        page: u16,
    ) -> Result<Vec<Registered>, QueueError> {
        let rows = sqlx::query(
            "SELECT server_uid, namespace, name FROM server_state WHERE server_uid > ? ORDER BY server_uid LIMIT ?",
        )
        .bind(after.map_or("", ServerUid::as_str))
        .bind(u64::from(page))
        .fetch_all(self.pool())
        .await?;
        rows.iter()
            .map(|row| {
                Ok(Registered {
                    uid: ServerUid(row.try_get("server_uid")?),
                    namespace: row.try_get("namespace")?,
                    name: row.try_get("name")?,
                })
            })
            .collect()
    }

    /// The database's clock: milliseconds since the Unix epoch. Deadlines of steps are judged by it, so that they do
    /// not depend on which host runs the step.
    pub async fn now_ms(&self) -> Result<i64, QueueError> {
        Ok(sqlx::query_scalar(concat!("SELECT ", now_ms!())).fetch_one(self.pool()).await?)
    }
}

/// Whether one of the tokens that are asked about was ever handled.
fn was_handled(number: usize) -> String {
    format!(
        "EXISTS (SELECT 1 FROM handled_token WHERE handled_token.server_uid = server_state.server_uid AND kind = ? AND hash = ?) \
         AS asked_{number}, "
    )
}
