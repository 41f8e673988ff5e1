//! The fence: a worker's write happens only while the job is still its own.

use std::collections::HashMap;

use sqlx::{AssertSqlSafe, MySqlConnection, Row};

use super::many::{filled, in_lock_order, marks};
use super::row::{JobRow, lock_jobs};
use super::transaction::Pass;
use super::{Claim, QueueError};

/// What became of a worker's write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fenced<T> {
    /// It is in the database.
    Done(T),
    /// The job is no longer this worker's: nothing was written, and nothing may be sent any more.
    Lost,
}

/// What the row says about a claim.
pub(super) enum Standing {
    /// It stands; the row as it is now.
    Held(Box<JobRow>),
    /// It stands, and the write was committed by an earlier try.
    Written(Box<JobRow>),
    /// It is over.
    Lost,
}

/// Locks the job and compares token and revision. The revision is raised only by the holder's own writes, so one that
/// is ahead by one after an unknown COMMIT is the write that is being repeated.
pub(super) async fn check(
    connection: &mut MySqlConnection,
    claim: &Claim,
    pass: Pass,
) -> Result<Standing, QueueError> {
    match check_all(connection, std::iter::once(claim), pass).await?.standings.pop() {
        Some(standing) => standing,
        None => Ok(Standing::Lost),
    }
}

/// What the rows say about several claims.
pub(super) struct Checked {
    /// In the order of the claims. A row that cannot be read is an error of its own claim.
    pub standings: Vec<Result<Standing, QueueError>>,
    /// The database's clock; 0 where there was no row at all.
    pub now_ms: i64,
}

/// Locks the jobs of several claims and compares them.
pub(super) async fn check_all<'a>(
    connection: &mut MySqlConnection,
    claims: impl Iterator<Item = &'a Claim> + Clone,
    pass: Pass,
) -> Result<Checked, QueueError> {
    let uids = in_lock_order(claims.clone().map(Claim::uid));
    let rows = lock_jobs(connection, &uids).await?;
    let now_ms = rows.values().next().map_or(Ok(0), |row| row.try_get("now_ms"))?;
    let standings = claims
        .map(|claim| {
            let Some(row) = rows.get(claim.uid().as_str()) else { return Ok(Standing::Lost) };
            let (id, token): (i64, Option<i64>) = (row.try_get("id")?, row.try_get("token")?);
            if id != claim.job.live.id.0 || token != Some(claim.token.0) {
                return Ok(Standing::Lost);
            }
            let job = JobRow { asked: claim.job.asked.clone(), ..JobRow::read(row)? };
            Ok(standing(Box::new(job), claim, pass))
        })
        .collect();
    Ok(Checked { standings, now_ms })
}

/// Whether a claim stands, and what others may have written into its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stands {
    /// Nobody asked the job to stop.
    Unmarked,
    /// Somebody asked the job to stop, and waits for its end.
    Marked,
    /// It is over.
    No,
}

/// Like [`check_all`], for writes that need little of the rows: whether each claim stands. What it holds changes by the
/// holder's own writes alone, so the claim has it, all but the mark that asks it to stop.
pub(super) async fn stands_all<'a>(
    connection: &mut MySqlConnection,
    claims: impl Iterator<Item = &'a Claim> + Clone,
) -> Result<Vec<Stands>, QueueError> {
    let uids = in_lock_order(claims.clone().map(Claim::uid));
    let mut found = HashMap::with_capacity(uids.len());
    for group in filled(&uids) {
        let text = format!(
            "SELECT server_uid, id, token, revision, cancel FROM job FORCE INDEX (PRIMARY) WHERE server_uid IN ({}) FOR UPDATE",
            marks(group.len())
        );
        let mut query = sqlx::query(AssertSqlSafe(text));
        for uid in group {
            query = query.bind(uid);
        }
        for row in query.fetch_all(&mut *connection).await? {
            let key = (row.try_get("id")?, row.try_get("token")?, row.try_get("revision")?);
            let mark: Option<String> = row.try_get("cancel")?;
            let stands = if mark.is_some() { Stands::Marked } else { Stands::Unmarked };
            found.insert(row.try_get::<String, _>("server_uid")?, (key, stands));
        }
    }
    Ok(claims
        .map(|claim| {
            let key = (claim.job.live.id.0, Some(claim.token.0), claim.job.revision);
            match found.get(claim.uid().as_str()) {
                Some((found, stands)) if *found == key => *stands,
                _ => Stands::No,
            }
        })
        .collect())
}

fn standing(job: Box<JobRow>, claim: &Claim, pass: Pass) -> Standing {
    match job.revision - claim.job.revision {
        0 => Standing::Held(job),
        1 if pass == Pass::AfterUnknownCommit => Standing::Written(job),
        _ => Standing::Lost,
    }
}

/// What the caller of a write learns. `write` is called where the claim stands and the write is still to be made; it
/// changes the job as the statements that follow change the row, so that nothing has to be read again.
pub(super) fn answer(
    standing: Result<Standing, QueueError>,
    claim: &Claim,
    write: impl FnOnce(&mut JobRow),
) -> Result<Fenced<Claim>, QueueError> {
    let job = match standing? {
        Standing::Held(mut job) => {
            write(&mut job);
            job
        }
        Standing::Written(job) => job,
        Standing::Lost => return Ok(Fenced::Lost),
    };
    Ok(Fenced::Done(Claim { job: *job, token: claim.token }))
}
