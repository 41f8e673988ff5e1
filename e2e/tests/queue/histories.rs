//! Another history behind the same address: who notices, who is quiet, and what is recorded of jobs that are lost.

use std::time::{Duration, Instant};

use autobuild::api::Reason;
use autobuild::job::{Action, FinishedJob, JobId, JobResult, Lane, Problem, ServerUid};
use autobuild::queue::{Beat, Heart, LostJob, Newcomer, Past, PlaceInQueue, Queue};
use futures::FutureExt as _;
use sqlx::Connection as _;

use crate::Case;
use crate::fixture::{Fixture, SITE, done, now_ms, succeeded, wait_for};

pub const CASES: &[Case] = &[
    ("a worker whose row went backwards has met another history, and may have where it is missing", |f| {
        backwards(f).boxed_local()
    }),
    ("a worker that others buried has not", |f| buried(f).boxed_local()),
    ("a worker that another server answers has met another history", |f| other_server(f).boxed_local()),
    ("who enters while somebody is quiet is quiet too, for the longest time that anybody needs", |f| {
        quiet_for_all(f).boxed_local()
    }),
    ("the quiet time is over for everybody once one worker has waited for it", |f| over(f).boxed_local()),
    ("a worker that starts after a failover finds it by the server that was seen last", |f| {
        fresh_start(f).boxed_local()
    }),
    ("a new epoch makes everybody quiet who starts, and a first one nobody", |f| epochs(f).boxed_local()),
    (
        "whoever is connected goes along to another history, and no connection of the one before is used again",
        |f| connections(f).boxed_local(),
    ),
    ("a worker is led to another history by its next entry alone", |f| entered(f).boxed_local()),
    ("a job that was lost is recorded as failed, once, and only on the version that was decided on", |f| {
        lost(f).boxed_local()
    }),
    (
        "the history tells whether a job has ended, and one that was stopped for being behind has not before it is told",
        |f| ended(f).boxed_local(),
    ),
];

async fn execute(f: &Fixture, statement: &'static str) {
    let mut connection = sqlx::MySqlConnection::connect(&f.url).await.unwrap();
    sqlx::query(statement).execute(&mut connection).await.unwrap();
}

async fn enter(queue: &Queue, quiet: Duration, lost: bool) -> Heart {
    let past = if lost { Past::Lost } else { Past::Continued };
    queue.enter(Newcomer { site: SITE, host: "test", quiet, past }).await.unwrap()
}

const HOUR: Duration = Duration::from_hours(1);

/// How long a worker that was just let in is quiet, in whole hours.
fn hours(heart: &Heart) -> u64 {
    let left = heart.quiet_until().saturating_duration_since(Instant::now());
    (left + Duration::from_mins(30)).as_secs() / 3600
}

async fn backwards(f: Fixture) {
    let mut worker = f.worker().await;
    for _ in 0..3 {
        assert_eq!(worker.beat().await.unwrap(), Beat::Alive);
    }
    execute(&f, "UPDATE worker SET heartbeat = 2").await;
    assert_eq!(worker.beat().await.unwrap(), Beat::AnotherHistory);
    let mut worker = f.worker().await;
    execute(&f, "DELETE FROM worker").await;
    assert_eq!(worker.beat().await.unwrap(), Beat::Missing, "its lease tells whether it was buried");
}

async fn buried(f: Fixture) {
    let mut worker = f.worker().await;
    execute(&f, "UPDATE worker SET tombstone = 1").await;
    assert_eq!(worker.beat().await.unwrap(), Beat::Over);
}

async fn other_server(f: Fixture) {
    // The server cannot be exchanged under a schema: what it was is exchanged instead.
    let mut worker = f.worker().await;
    assert_eq!(worker.beat().await.unwrap(), Beat::Alive);
    execute(&f, "UPDATE meta SET value = 'another' WHERE name = 'history'").await;
    assert_eq!(worker.beat().await.unwrap(), Beat::Alive, "who is in knows which server answers");
    assert_eq!(hours(&enter(&f.queue, HOUR, false).await), 1, "who enters does not");
}

async fn quiet_for_all(f: Fixture) {
    assert_eq!(hours(&enter(&f.queue, 3 * HOUR, false).await), 0, "a first start waits for nothing");
    assert_eq!(hours(&enter(&f.queue, HOUR, false).await), 0);
    assert_eq!(hours(&enter(&f.queue, HOUR, true).await), 3);
    assert_eq!(hours(&enter(&f.queue, HOUR, false).await), 3);
    let other = Queue::connect(&f.url, 2).await.unwrap();
    assert_eq!(hours(&enter(&other, 4 * HOUR, false).await), 4);
    assert_eq!(hours(&enter(&other, HOUR, false).await), 4);
}

async fn over(f: Fixture) {
    let mut first = enter(&f.queue, Duration::from_millis(300), true).await;
    assert!(first.quiet_until() > Instant::now());
    assert_eq!(first.beat().await.unwrap(), Beat::Alive);
    wait_for("the quiet time to be over", async || {
        assert_eq!(first.beat().await.unwrap(), Beat::Alive);
        Instant::now() > first.quiet_until()
    })
    .await;
    assert_eq!(first.beat().await.unwrap(), Beat::Alive);
    assert!(enter(&f.queue, HOUR, false).await.quiet_until() <= Instant::now());
    // Another quiet time that begins meanwhile is not ended by the one before.
    let mut second = enter(&f.queue, Duration::ZERO, true).await;
    let third = enter(&f.queue, HOUR, true).await;
    assert_eq!((hours(&second), hours(&third)), (1, 1));
    execute(&f, "UPDATE meta SET value = '1' WHERE name = 'quiet_ms'").await;
    let mut short = enter(&f.queue, Duration::ZERO, false).await;
    execute(&f, "UPDATE meta SET value = CONCAT(value, 'x') WHERE name = 'history'").await;
    wait_for("a quiet time of a millisecond", async || Instant::now() > short.quiet_until()).await;
    assert_eq!(short.beat().await.unwrap(), Beat::Alive);
    assert_eq!(second.beat().await.unwrap(), Beat::AnotherHistory, "another one was found since");
    assert_eq!(hours(&enter(&f.queue, HOUR, false).await), 1);
}

async fn fresh_start(f: Fixture) {
    f.worker().await.leave().await.unwrap();
    let restarted = Queue::connect(&f.url, 2).await.unwrap();
    assert_eq!(hours(&enter(&restarted, HOUR, false).await), 0, "the same server is no failover");
    execute(&f, "UPDATE meta SET value = 'the-server-before' WHERE name = 'history'").await;
    let restarted = Queue::connect(&f.url, 2).await.unwrap();
    assert_eq!(hours(&enter(&restarted, HOUR, false).await), 1);
    let another = Queue::connect(&f.url, 2).await.unwrap();
    assert_eq!(hours(&enter(&another, HOUR, false).await), 1, "nobody has waited for it yet");
}

async fn epochs(f: Fixture) {
    let first = Queue::connect(&f.url, 2).await.unwrap();
    assert_eq!(hours(&enter(&first, HOUR, false).await), 0);
    autobuild::queue::migrate(&f.url, true).await.unwrap();
    let fresh = Queue::connect(&f.url, 2).await.unwrap();
    assert_eq!(hours(&enter(&fresh, HOUR, false).await), 1);
    // One that was there knows by itself.
    execute(&f, "DELETE FROM meta WHERE name = 'history'").await;
    assert_eq!(hours(&enter(&first, HOUR, false).await), 1);
}

async fn connections(f: Fixture) {
    let uid = f.server("a").await;
    let lead = f.queue.lead();
    assert_eq!(f.queue.follow().await.unwrap().changes, 0);
    autobuild::queue::migrate(&f.url, true).await.unwrap();
    // Open ones know nothing of it; new ones are refused, and nobody has to say that the queue shall go along.
    let many = (0..16).map(|_| f.queue.registry(SITE));
    let results = futures::future::join_all(many).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    wait_for("the other history", async || lead.borrow().changes == 1).await;
    assert_eq!(f.queue.follow().await.unwrap().changes, 1);
    assert_eq!(f.version(&uid).await, 1);
}

async fn entered(f: Fixture) {
    let mut worker = enter(&f.queue, HOUR, false).await;
    autobuild::queue::migrate(&f.url, true).await.unwrap();
    assert_eq!(f.queue.follow().await.unwrap().changes, 0);
    assert_eq!(worker.beat().await.unwrap(), Beat::AnotherHistory);
    assert_eq!(hours(&enter(&f.queue, HOUR, true).await), 1);
    f.queue.registry(SITE).await.unwrap();
}

fn finished(id: JobId) -> FinishedJob {
    FinishedJob {
        id,
        action: Action::Wipe,
        intent: autobuild::job::Intent("i".repeat(64)),
        result: JobResult::Failed,
        problem: Some(Problem::new(Reason::HistoryLost, "look at the machine")),
        step: autobuild::job::Step::Off,
        enqueued_at_ms: 1,
        started_at_ms: Some(2),
        finished_at_ms: now_ms(),
    }
}

fn lost_job(uid: &ServerUid, id: JobId) -> LostJob {
    LostJob {
        uid: uid.clone(),
        namespace: "ns".to_owned(),
        name: "a".to_owned(),
        site: SITE.to_owned(),
        job: finished(id),
        cause: autobuild::job::Cause { named: "c".repeat(64), whole: "d".repeat(64) },
        debt: None,
        requester: "test".to_owned(),
    }
}

async fn lost(f: Fixture) {
    let uid = f.server("a").await;
    let version = f.version(&uid).await;
    let lost = lost_job(&uid, JobId::new(now_ms(), 1));
    assert!(!f.queue.record_lost(lost.clone(), version - 1).await.unwrap());
    assert!(f.queue.record_lost(lost.clone(), version).await.unwrap());
    assert!(!f.queue.record_lost(lost.clone(), version).await.unwrap());
    let known = f.queue.observe(&uid).await.unwrap().known.unwrap();
    assert_eq!(known.last_job, Some(lost.job.clone()));
    let failure = known.failure.unwrap();
    assert_eq!((failure.action, failure.problem.reason), (Action::Wipe, Reason::HistoryLost));
    assert_eq!(f.count("job_history").await, 1);
    assert!(f.queue.has_ended(&uid, lost.job.id).await.unwrap());
    // Power that is as wished does not make up for it.
    f.enqueue(&uid, Action::PowerOn, Lane::High).await;
    let worker = f.worker().await;
    let claim = f.claim_one(&worker, PlaceInQueue::Queued).await;
    done(f.queue.complete(claim, succeeded()).await.unwrap());
    assert!(f.queue.observe(&uid).await.unwrap().known.unwrap().failure.is_some());
}

async fn ended(f: Fixture) {
    let uid = f.server("a").await;
    let id = f.enqueue(&uid, Action::Reboot, Lane::High).await;
    assert!(!f.queue.has_ended(&uid, id).await.unwrap());
    let worker = f.worker().await;
    let claim = f.claim_one(&worker, PlaceInQueue::Queued).await;
    done(f.queue.complete(claim, succeeded()).await.unwrap());
    assert!(f.queue.has_ended(&uid, id).await.unwrap());
    let id = f.enqueue(&uid, Action::Reboot, Lane::High).await;
    f.queue.cancel(&uid, id, Reason::HistoryLost).await.unwrap();
    assert!(!f.queue.has_ended(&uid, id).await.unwrap());
    // What had to be done about it is done, whatever ends after it.
    let version = f.version(&uid).await;
    assert!(f.queue.record_lost(lost_job(&uid, id), version).await.unwrap());
    let next = f.enqueue(&uid, Action::PowerOn, Lane::High).await;
    f.queue.cancel(&uid, next, Reason::Replaced).await.unwrap();
    assert!(f.queue.has_ended(&uid, id).await.unwrap());
}
