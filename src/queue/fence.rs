//! The fence: a worker's write happens only while the job is still its own.

use std::collections::HashMap;

use sqlx::{AssertSqlSafe, MySqlConnection, Row};

use super::many::{filled, in_lock_order, marks};
use super::row::{JobRow, lock_jobs};
use super::transaction::{Ending, Pass};
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
    match check_all(connection, std::iter::once(claim), pass).await?.pop() {
        Some(standing) => standing,
        None => Ok(Standing::Lost),
    }
}

/// Locks the jobs of several claims and compares them, in the order of the claims. A row that cannot be read is an
/// error of its own claim.
pub(super) async fn check_all<'a>(
    connection: &mut MySqlConnection,
    claims: impl Iterator<Item = &'a Claim> + Clone,
    pass: Pass,
) -> Result<Vec<Result<Standing, QueueError>>, QueueError> {
    let uids = in_lock_order(claims.clone().map(Claim::uid));
    let rows = lock_jobs(connection, &uids).await?;
    Ok(claims
        .map(|claim| {
            let Some(row) = rows.get(claim.uid().as_str()) else { return Ok(Standing::Lost) };
            let (id, token): (i64, Option<i64>) = (row.try_get("id")?, row.try_get("token")?);
            if id != claim.job.live.id.0 || token != Some(claim.token.0) {
                return Ok(Standing::Lost);
            }
            Ok(standing(Box::new(JobRow::read(row)?), claim, pass))
        })
        .collect())
}

/// Like [`check_all`], for writes that need nothing of the rows: whether each claim stands. What it holds changes by the
/// holder's own writes alone, so the claim has it.
pub(super) async fn stands_all<'a>(
    connection: &mut MySqlConnection,
    claims: impl Iterator<Item = &'a Claim> + Clone,
) -> Result<Vec<bool>, QueueError> {
    let uids = in_lock_order(claims.clone().map(Claim::uid));
    let mut found: HashMap<String, (i64, Option<i64>, i64)> = HashMap::with_capacity(uids.len());
    for group in filled(&uids) {
        let text = format!(
            "SELECT server_uid, id, token, revision FROM job FORCE INDEX (PRIMARY) WHERE server_uid IN ({}) FOR UPDATE",
            marks(group.len())
        );
        let mut query = sqlx::query(AssertSqlSafe(text));
        for uid in group {
            query = query.bind(uid);
        }
        for row in query.fetch_all(&mut *connection).await? {
            let key = (row.try_get("id")?, row.try_get("token")?, row.try_get("revision")?);
            found.insert(row.try_get("server_uid")?, key);
        }
    }
    Ok(claims
        .map(|claim| {
            let key = (claim.job.live.id.0, Some(claim.token.0), claim.job.revision);
            found.get(claim.uid().as_str()) == Some(&key)
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

/// The job to write to, or what to answer instead because the write is done already or no longer allowed.
pub(super) async fn enter(
    connection: &mut MySqlConnection,
    claim: &Claim,
    pass: Pass,
) -> Result<Result<Box<JobRow>, Ending<Fenced<Claim>>>, QueueError> {
    Ok(match check(connection, claim, pass).await? {
        Standing::Held(job) => Ok(job),
        Standing::Written(job) => {
            Err(Ending::Rollback(Fenced::Done(Claim { job: *job, token: claim.token })))
        }
        Standing::Lost => Err(Ending::Rollback(Fenced::Lost)),
    })
}

/// Reads a job again inside the transaction that changed it.
pub(super) async fn reread(connection: &mut MySqlConnection, claim: &Claim) -> Result<Claim, QueueError> {
    let row = sqlx::query("SELECT * FROM job WHERE server_uid = ?")
        .bind(claim.uid().as_str())
        .fetch_one(connection)
        .await?;
    Ok(Claim { job: JobRow::read(&row)?, token: claim.token })
}
