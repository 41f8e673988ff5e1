//! What has to hold after a drill, by the BMCs' own log and by the rows in the database.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use autobuild::job::JobId;
use e2e::fleet::{Asked, Fleet, LIMIT};
use e2e::wait::{Look, wait_for};
use sqlx::Row as _;

use crate::wishes::Wish;

/// The wishes of each server, by its name.
pub type Wishes = BTreeMap<String, Vec<Wish>>;

/// Everything; the findings of all servers together.
pub async fn all(fleet: &Fleet, wishes: &Wishes, workers: usize) -> Result<()> {
    at_rest(fleet, workers).await?;
    let mut wrong = recorded_once(fleet, wishes).await?;
    let log = fleet.bmcs().whole_log().await?;
    let mut by_server: BTreeMap<&str, Vec<&Asked>> = BTreeMap::new();
    for asked in &log {
        by_server.entry(&asked.system).or_default().push(asked);
    }
    for (name, wished) in wishes {
        let asked = by_server.remove(name.as_str()).unwrap_or_default();
        wrong.extend(carried_out_once(&asked, wished).into_iter().map(|what| format!("{name}: {what}")));
        wrong.extend(overlaps(&asked).into_iter().map(|what| format!("{name}: {what}")));
    }
    ensure!(wrong.is_empty(), "{} findings:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

/// Waits until nothing is left in flight: no job, no row of the queue, nothing to show, no dead worker in the registry.
pub async fn at_rest(fleet: &Fleet, workers: usize) -> Result<()> {
    let sql = "SELECT (SELECT COUNT(*) FROM job) AS jobs, (SELECT COUNT(*) FROM queue) AS queued, \
               (SELECT COUNT(*) FROM server_state WHERE changed_at_ms IS NOT NULL) AS unshown, \
               (SELECT COUNT(*) FROM worker) AS workers";
    wait_for("the fleet to be at rest", LIMIT, async || {
        let row = sqlx::query(sql).fetch_one(fleet.records().pool()).await?;
        let count = |column: &str| row.try_get::<i64, _>(column);
        let left = (count("jobs")?, count("queued")?, count("unshown")?, count("workers")?);
        Ok(if left == (0, 0, 0, workers as i64) {
            Look::Holds(())
        } else {
            Look::NotYet(format!("jobs, queued, unshown, workers: {left:?}"))
        })
    })
    .await
}

/// Every wish has one success in the history, and every job that was ever shown has one end.
async fn recorded_once(fleet: &Fleet, wishes: &Wishes) -> Result<Vec<String>> {
    let rows = sqlx::query("SELECT job_id, name, action, result FROM job_history")
        .fetch_all(fleet.records().pool())
        .await?;
    let mut ends: BTreeMap<i64, usize> = BTreeMap::new();
    let mut successes: BTreeMap<(String, String), usize> = BTreeMap::new();
    for row in &rows {
        *ends.entry(row.try_get("job_id")?).or_default() += 1;
        if row.try_get::<String, _>("result")? == "Succeeded" {
            *successes.entry((row.try_get("name")?, row.try_get("action")?)).or_default() += 1;
        }
    }
    let mut wrong: Vec<String> = ends
        .iter()
        .filter(|(_, count)| **count > 1)
        .map(|(id, count)| format!("job {id} has {count} ends"))
        .collect();
    for (name, wished) in wishes {
        for wish in [Wish::Reboot, Wish::Off, Wish::On] {
            let wanted = wished.iter().filter(|one| **one == wish).count();
            let key = (name.clone(), wish.action().to_string());
            let found = successes.get(&key).copied().unwrap_or(0);
            if found != wanted {
                wrong.push(format!("{name}: {wanted} wishes for {wish:?} and {found} jobs that succeeded"));
            }
        }
        for (id, action) in fleet.shown().jobs(name) {
            let id = JobId::parse(&id).map(|id| id.0);
            // An inspection that found nothing new leaves no history.
            if action != "Inspect" && !id.is_some_and(|id| ends.contains_key(&id)) {
                wrong.push(format!("{name}: a job was shown ({action}, {id:?}) and has no end"));
            }
        }
    }
    Ok(wrong)
}

fn carried_out_once(asked: &[&Asked], wished: &[Wish]) -> Vec<String> {
    let wanted: Vec<&str> = wished.iter().flat_map(|wish| wish.resets()).copied().collect();
    let found: Vec<&str> = asked
        .iter()
        .filter_map(|one| one.reset.as_deref())
        .map(|reset| match reset {
            "GracefulShutdown" | "ForceOff" => "off",
            "On" | "ForceOn" => "on",
            other => other,
        })
        .collect();
    if found == wanted {
        Vec::new()
    } else {
        vec![format!("wished for {wanted:?}, its BMC was asked {found:?}")]
    }
}

/// Requests of one claim follow each other without one of another claim between them, a claim is one worker's, and
/// nobody asks while another one still waits for its answer.
pub fn overlaps(asked: &[&Asked]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut over: BTreeSet<&str> = BTreeSet::new();
    for pair in asked.windows(2) {
        let (before, now) = (pair[0], pair[1]);
        let (Some(was), Some(is)) = (before.claim.as_deref(), now.claim.as_deref()) else {
            wrong.push(format!("a request without a claim: {now:?}"));
            continue;
        };
        if was == is {
            if before.worker != now.worker {
                wrong.push(format!("claim {is} is of {:?} and of {:?}", before.worker, now.worker));
            }
            continue;
        }
        over.insert(was);
        if over.contains(is) {
            wrong.push(format!("claim {is} asks again after {was}: {now:?}"));
        }
        if before.answered_ms.is_some_and(|answered| answered > now.at_ms) {
            wrong.push(format!("claim {is} asks while {was} waits for an answer: {now:?}"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(claim: &str, worker: &str, at_ms: u64, answered_ms: u64) -> Asked {
        Asked {
            seq: 0,
            system: "system-0001".to_owned(),
            at_ms,
            answered_ms: Some(answered_ms),
            method: "POST".to_owned(),
            path: "/".to_owned(),
            reset: Some("On".to_owned()),
            status: Some(204),
            effect: "Applied".to_owned(),
            worker: Some(worker.to_owned()),
            claim: Some(claim.to_owned()),
        }
    }

    #[test]
    fn claims_that_follow_each_other_are_fine_and_those_that_interleave_are_found() {
        let (first, second) = (asked("1", "a", 0, 5), asked("2", "b", 6, 9));
        let (back, early) = (asked("1", "a", 10, 11), asked("2", "b", 4, 9));
        let other = asked("1", "b", 6, 7);
        assert!(overlaps(&[&first, &second]).is_empty());
        assert_eq!(overlaps(&[&first, &second, &back]).len(), 1);
        assert_eq!(overlaps(&[&first, &early]).len(), 1);
        assert_eq!(overlaps(&[&first, &other]).len(), 1);
    }

    #[test]
    fn a_wish_that_was_carried_out_twice_is_found() {
        let on = asked("1", "a", 0, 5);
        assert!(carried_out_once(&[&on], &[Wish::On]).is_empty());
        assert_eq!(carried_out_once(&[&on, &on], &[Wish::On]).len(), 1);
    }
}
