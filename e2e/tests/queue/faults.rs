//! The database dies in the middle of things.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use autobuild::job::{Action, JobId, Lane, RequestKind, StoredRequest};
use autobuild::queue::{Claim, ClaimFrom, Effects, Enqueued, Fenced, PlaceInQueue, QueueError};
use autobuild::shard::Shard;
use e2e::database::{Database, Engine, Special};
use futures::future::join_all;

use crate::fixture::{Fixture, SITE, done, job, now_ms, succeeded, wait_for};

const JOBS: usize = 150;

/// Jobs are enqueued and completed while the server is killed twice; afterwards each is in history exactly once.
pub async fn a_killed_database_loses_and_doubles_nothing(engine: Engine) {
    let mut database = Database::start(engine).await.unwrap();
    let f = Arc::new(Fixture::new(&database).await);
    let mut servers = Vec::new();
    for number in 0..JOBS {
        servers.push(f.server(&number.to_string()).await);
    }
    let accepted = Arc::new(AtomicUsize::new(0));
    let producer = tokio::spawn({
        let (f, accepted) = (f.clone(), accepted.clone());
        async move {
            for uid in servers {
                let wanted = job(&uid, Action::Reboot, Lane::High, JobId::new(now_ms(), rand::random()));
                loop {
                    match f.queue.enqueue(wanted.clone(), 1).await {
                        // Stale: an earlier try was committed, and its job has ended since.
                        Ok(Enqueued::Accepted | Enqueued::Stale) => break,
                        Ok(Enqueued::OverBudget | Enqueued::Occupied) => panic!("another job of {uid}"),
                        Err(error) => assert!(error.is_transient(), "{error}"),
                    }
                }
                accepted.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let consumers: Vec<_> = (0..4).map(|_| tokio::spawn(consume(f.clone()))).collect();
    for round in 1..=2 {
        let so_far = accepted.clone();
        wait_for("some jobs", async || so_far.load(Ordering::SeqCst) >= round * JOBS / 4).await;
        database.kill().await.unwrap();
        database.restart().await.unwrap();
    }
    producer.await.unwrap();
    for consumer in consumers {
        consumer.await.unwrap();
    }
    assert_eq!((f.count("job").await, f.count("queue").await), (0, 0));
    assert_eq!(f.count("job_history").await, JOBS as i64);
}

/// A server that has places for few prepared statements: a connection that finds none gives its own back, and what it
/// was to do is done all the same.
pub async fn too_many_prepared_statements(engine: Engine) {
    let special = Special { args: vec!["--max-prepared-stmt-count=40".to_owned()], ..Special::default() };
    let name = format!("few-statements-{}", engine.as_str());
    let database = Database::special(&name, engine, special).await.unwrap();
    let f = Fixture::new(&database).await;
    let worker = f.worker().await;
    let mut jobs = 0;
    // Each number of rows has statements of its own.
    for count in [1, 3, 12, 25, 50, 90] {
        let uids: Vec<String> = (0..count).map(|number| format!("{count}-{number}")).collect();
        join_all(uids.iter().map(async |name| {
            let uid = f.server(name).await;
            let wanted = job(&uid, Action::PowerOn, Lane::Normal, JobId::new(now_ms(), rand::random()));
            assert_eq!(f.queue.enqueue(wanted, 1).await.unwrap(), Enqueued::Accepted);
        }))
        .await;
        let claims = f.claim(&worker, PlaceInQueue::Queued, Lane::Normal, 100).await;
        assert_eq!(claims.len(), count);
        join_all(
            claims.into_iter().map(async |claim| done(f.queue.complete(claim, succeeded()).await.unwrap())),
        )
        .await;
        jobs += count;
    }
    assert_eq!(f.count("job_history").await, jobs as i64);
}

async fn consume(f: Arc<Fixture>) {
    let me = loop {
        match f.queue.join(SITE, "test").await {
            Ok(heart) => break heart.incarnation(),
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
    };
    loop {
        for place in [PlaceInQueue::Ready, PlaceInQueue::Queued] {
            let from = ClaimFrom { site: SITE.to_owned(), shard: Shard(0), place, lane: Lane::High };
            for claim in transient(f.queue.claim(me, from, 2).await).unwrap_or_default() {
                work(&f, claim).await;
            }
        }
        // A claim whose COMMIT was unknown left jobs that name this worker and that it does not run.
        let forgotten = transient(f.queue.owned(me).await).unwrap_or_default();
        for job in forgotten {
            transient(f.queue.disown(me, job).await);
        }
        if finished(&f).await {
            return;
        }
    }
}

/// One request, stored and closed, and the end. What is lost on the way is found among the jobs that name this worker.
async fn work(f: &Fixture, mut claim: Claim) {
    let off = StoredRequest { kind: RequestKind::ForceOff, settle_ms: 1 };
    while claim.request().is_none() {
        let stored =
            f.queue.store_request(claim.clone(), off.clone(), String::new(), Effects::default()).await;
        match transient(stored) {
            Some(Fenced::Done(stored)) => claim = stored,
            Some(Fenced::Lost) => return,
            None => {}
        }
    }
    while claim.request().is_some() {
        match transient(f.queue.close_request(claim.clone(), String::new()).await) {
            Some(Fenced::Done(closed)) => claim = closed,
            Some(Fenced::Lost) => return,
            None => {}
        }
    }
    while transient(f.queue.complete(claim.clone(), succeeded()).await).is_none() {}
}

fn transient<T>(result: Result<T, QueueError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) if error.is_transient() => None,
        Err(error) => panic!("{error}"),
    }
}

async fn finished(f: &Fixture) -> bool {
    use sqlx::Connection as _;
    let Ok(mut connection) = sqlx::MySqlConnection::connect(&f.url).await else { return false };
    let count =
        sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM job_history").fetch_one(&mut connection).await;
    count.is_ok_and(|count| count == JOBS as i64)
}
