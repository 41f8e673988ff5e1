//! Enqueue, cancel, priorities and the feed.

use autobuild::api::Reason;
use autobuild::job::{Action, HandledTokens, JobId, Lane, TokenKind, TokenValue};
use autobuild::queue::{CancelOutcome, Enqueued, PlaceInQueue};
use futures::FutureExt as _;

use crate::Case;
use crate::fixture::{Fixture, done, job, now_ms, succeeded};

pub const CASES: &[Case] = &[
    ("a decision on an old version enqueues nothing", |f| stale(f).boxed_local()),
    ("two leaders that decide on the same version enqueue one job", |f| two_leaders(f).boxed_local()),
    ("the same job enqueued twice is one job", |f| repeated(f).boxed_local()),
    ("an enqueue repeated after its job ended is stale", |f| repeated_late(f).boxed_local()),
    ("a job that never started is deleted by a cancel, and told in history", |f| deleted(f).boxed_local()),
    ("a cancel names one job: another one of the same server is left alone", |f| other_id(f).boxed_local()),
    ("a job changes lanes and keeps its age", |f| moves(f).boxed_local()),
    ("the feed holds a change until its very version is acknowledged", |f| feed(f).boxed_local()),
    ("a feed page that cannot be shown does not hide the next one", |f| pages(f).boxed_local()),
    ("a second registration changes nothing", |f| registered_twice(f).boxed_local()),
    ("a token is recorded as handled only on the version that was decided on", |f| recorded(f).boxed_local()),
    ("a schema that was not migrated is refused with the way out", |f| not_migrated(f).boxed_local()),
];

async fn stale(f: Fixture) {
    let uid = f.server("a").await;
    let old = f.version(&uid).await;
    let id = f.enqueue(&uid, Action::PowerOn, Lane::High).await;
    f.queue.cancel(&uid, id, Reason::Replaced).await.unwrap();
    let late = job(&uid, Action::PowerOff, Lane::High, JobId::new(now_ms(), 1));
    assert_eq!(f.queue.enqueue(late, old).await.unwrap(), Enqueued::Stale);
    assert_eq!((f.count("job").await, f.count("queue").await), (0, 0));
}

async fn two_leaders(f: Fixture) {
    for round in 0..20 {
        let uid = f.server(&round.to_string()).await;
        let version = f.version(&uid).await;
        let attempts = (0..2).map(|leader| {
            let (queue, job) =
                (f.queue.clone(), job(&uid, Action::Reboot, Lane::High, JobId::new(now_ms(), leader)));
            tokio::spawn(async move { queue.enqueue(job, version).await.unwrap() })
        });
        let outcomes = futures::future::join_all(attempts).await;
        let accepted = outcomes.into_iter().filter(|it| *it.as_ref().unwrap() == Enqueued::Accepted).count();
        assert_eq!(accepted, 1);
    }
    assert_eq!((f.count("job").await, f.count("queue").await), (20, 20));
}

async fn repeated(f: Fixture) {
    let uid = f.server("a").await;
    let version = f.version(&uid).await;
    let job = job(&uid, Action::Reboot, Lane::High, JobId::new(now_ms(), 7));
    assert_eq!(f.queue.enqueue(job.clone(), version).await.unwrap(), Enqueued::Accepted);
    assert_eq!(f.queue.enqueue(job.clone(), version).await.unwrap(), Enqueued::Accepted);
    let other = crate::fixture::job(&uid, Action::Reboot, Lane::Low, JobId::new(now_ms(), 8));
    assert_eq!(f.queue.enqueue(other, version + 1).await.unwrap(), Enqueued::Occupied);
    assert_eq!((f.count("job").await, f.count("queue").await), (1, 1));
}

async fn repeated_late(f: Fixture) {
    let uid = f.server("a").await;
    let version = f.version(&uid).await;
    let job = job(&uid, Action::Reboot, Lane::High, JobId::new(now_ms(), 7));
    f.queue.enqueue(job.clone(), version).await.unwrap();
    let worker = f.worker().await;
    let claim = f.claim_one(&worker, PlaceInQueue::Queued).await;
    done(f.queue.complete(claim, succeeded()).await.unwrap());
    assert_eq!(f.queue.enqueue(job, version).await.unwrap(), Enqueued::Stale);
    assert_eq!((f.count("job").await, f.count("queue").await), (0, 0));
}

async fn deleted(f: Fixture) {
    let uid = f.server("a").await;
    let id = f.enqueue(&uid, Action::Reboot, Lane::High).await;
    assert_eq!(f.queue.cancel(&uid, id, Reason::Paused).await.unwrap(), CancelOutcome::Deleted);
    assert_eq!(f.queue.cancel(&uid, id, Reason::Paused).await.unwrap(), CancelOutcome::Gone);
    assert_eq!((f.count("job").await, f.count("queue").await, f.count("job_history").await), (0, 0, 1));
    let last = f.queue.observe(&uid).await.unwrap().known.unwrap().last_job.unwrap();
    assert_eq!(last.problem.unwrap().reason, Reason::Paused);
}

async fn other_id(f: Fixture) {
    let uid = f.server("a").await;
    let first = f.enqueue(&uid, Action::Reboot, Lane::High).await;
    f.queue.cancel(&uid, first, Reason::Replaced).await.unwrap();
    f.enqueue(&uid, Action::PowerOn, Lane::High).await;
    assert_eq!(f.queue.cancel(&uid, first, Reason::Replaced).await.unwrap(), CancelOutcome::Gone);
    assert_eq!(f.count("job").await, 1);
}

async fn moves(f: Fixture) {
    let early = f.server("early").await;
    let late = f.server("late").await;
    let version = f.version(&early).await;
    let first = job(&early, Action::Reboot, Lane::Low, JobId::new(1_000, 1));
    f.queue.enqueue(first.clone(), version).await.unwrap();
    f.enqueue(&late, Action::Reboot, Lane::Urgent).await;
    assert_eq!(f.queue.reprioritize(&early, first.id, Lane::Urgent).await.unwrap(), CancelOutcome::Stored);
    let worker = f.worker().await;
    let claims = f.claim(&worker, PlaceInQueue::Queued, Lane::Urgent, 10).await;
    assert_eq!(claims[0].job().id, first.id);
    assert_eq!(claims.len(), 2);
    assert_eq!(f.count("queue").await, 0);
}

async fn feed(f: Fixture) {
    let uid = f.server("a").await;
    let (first, next) = f.queue.feed(&Default::default(), 10).await.unwrap();
    assert_eq!((first.len(), next), (1, None));
    f.enqueue(&uid, Action::Reboot, Lane::High).await;
    assert!(!f.queue.acknowledge(&uid, first[0].version).await.unwrap());
    let (second, _) = f.queue.feed(&Default::default(), 10).await.unwrap();
    assert!(second[0].version > first[0].version);
    assert!(f.queue.acknowledge(&uid, second[0].version).await.unwrap());
    assert_eq!(f.queue.feed(&Default::default(), 10).await.unwrap().0.len(), 0);
}

async fn pages(f: Fixture) {
    for number in 0..25 {
        f.server(&format!("{number:02}")).await;
    }
    let mut cursor = Some(Default::default());
    let mut seen = std::collections::BTreeSet::new();
    while let Some(at) = cursor {
        let (page, next) = f.queue.feed(&at, 10).await.unwrap();
        seen.extend(page.into_iter().map(|changed| changed.uid));
        cursor = next;
    }
    assert_eq!(seen.len(), 25);
}

async fn registered_twice(f: Fixture) {
    let uid = f.server("a").await;
    let handled = HandledTokens { reboot: vec!["x".to_owned()], ..HandledTokens::default() };
    f.queue.register(&uid, "ns", "a", &handled, None).await.unwrap();
    let known = f.queue.observe(&uid).await.unwrap().known.unwrap();
    assert_eq!((known.version, known.handled), (1, HandledTokens::default()));
}

async fn not_migrated(f: Fixture) {
    use sqlx::Connection as _;
    let mut connection = sqlx::MySqlConnection::connect(&f.url).await.unwrap();
    for statement in [
        "DELETE FROM schema_expansion ORDER BY version DESC LIMIT 1",
        // As the release had it that knew of no expansions.
        "DROP TABLE schema_expansion",
        "DELETE FROM _sqlx_migrations ORDER BY version DESC LIMIT 1",
        "DROP TABLE _sqlx_migrations",
    ] {
        sqlx::query(statement).execute(&mut connection).await.unwrap();
        let error = autobuild::queue::Queue::connect(&f.url, 2).await.unwrap_err().to_string();
        assert!(error.contains("autobuild migrate"), "{statement}: {error}");
    }
}

async fn recorded(f: Fixture) {
    let uid = f.server("a").await;
    let version = f.version(&uid).await;
    assert!(!f.queue.record_handled(&uid, &TokenValue::reboot("t1"), version - 1).await.unwrap());
    assert!(f.queue.record_handled(&uid, &TokenValue::reboot("t1"), version).await.unwrap());
    assert!(f.queue.record_handled(&uid, &TokenValue::reboot("t1"), version).await.unwrap());
    let known = f.queue.observe(&uid).await.unwrap().known.unwrap();
    assert!(known.handled.is_handled(TokenKind::Reboot, Some("t1")));
    assert_eq!(known.version, version + 1);
}
