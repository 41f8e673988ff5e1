//! Heartbeats, reaping, takeovers.

use std::time::Duration;

use autobuild::api::Reason;
use autobuild::job::{Action, JobResult, Lane, RequestKind, StoredRequest};
use autobuild::queue::{Beat, CRASH_LIMIT, Effects, Fenced, Front, LeaseWatch, PlaceInQueue, Reaped, Room};
use futures::FutureExt as _;

use crate::Case;
use crate::fixture::{Fixture, SITE, done, succeeded};

pub const CASES: &[Case] = &[
    ("a silent worker's jobs go to another one, and it can change nothing any more", |f| {
        reaped(f).boxed_local()
    }),
    ("a worker that beats between look and burial stays", |f| still_alive(f).boxed_local()),
    ("a buried worker claims nothing", |f| tombstone(f).boxed_local()),
    ("a job that crashes its workers is stopped, then set aside with its reason", |f| {
        poison(f).boxed_local()
    }),
    ("a poison job whose request may still take effect is set aside, not ended", |f| {
        poison_open(f).boxed_local()
    }),
    ("jobs of another release are taken from a dead worker, too", |f| unreadable(f).boxed_local()),
    ("a worker that leaves with a job in hand stays in the registry", |f| leaves(f).boxed_local()),
    ("a job whose slot panicked is given back alone, and the crash counts", |f| panicked(f).boxed_local()),
    ("a new epoch ends every incarnation", |f| another_history(f).boxed_local()),
];

/// Reaps every worker whose heartbeat did not move between two looks.
async fn reap_all(f: &Fixture) -> Vec<Reaped> {
    let mut watch = LeaseWatch::new(Duration::from_secs(10));
    let registry = f.queue.registry(SITE).await.unwrap();
    assert!(watch.observe(&registry, Duration::ZERO).is_empty());
    let mut reaped = Vec::new();
    for expired in watch.observe(&registry, Duration::from_secs(10)) {
        reaped.push(f.queue.reap(expired).await.unwrap());
    }
    reaped
}

async fn reaped(f: Fixture) {
    let uid = f.server("a").await;
    let id = f.enqueue(&uid, Action::Reboot, Lane::High).await;
    let mut frozen = f.worker().await;
    let claim = f.claim_one(&frozen, PlaceInQueue::Queued).await;
    assert_eq!(reap_all(&f).await, [Reaped::Gone { jobs: 1 }]);
    assert_eq!(frozen.beat().await.unwrap(), Beat::Missing);
    let other = f.worker().await;
    let taken = f.claim_one(&other, PlaceInQueue::Ready).await;
    assert_eq!(taken.job().id, id);
    assert!(matches!(f.queue.complete(claim, succeeded()).await.unwrap(), Fenced::Lost));
    done(f.queue.complete(taken, succeeded()).await.unwrap());
    assert_eq!(f.count("job_history").await, 1);
}

async fn still_alive(f: Fixture) {
    let mut worker = f.worker().await;
    let registry = f.queue.registry(SITE).await.unwrap();
    assert_eq!(worker.beat().await.unwrap(), Beat::Alive);
    assert_eq!(f.queue.reap(registry[0]).await.unwrap(), Reaped::StillAlive);
    assert_eq!(worker.beat().await.unwrap(), Beat::Alive);
}

async fn tombstone(f: Fixture) {
    let uid = f.server("a").await;
    f.enqueue(&uid, Action::Reboot, Lane::High).await;
    let worker = f.worker().await;
    reap_all(&f).await;
    assert_eq!(f.claim(&worker, PlaceInQueue::Queued, Lane::High, 10).await.len(), 0);
    assert_eq!((f.count("queue").await, f.count("worker").await), (1, 0));
}

async fn poison(f: Fixture) {
    let uid = f.server("a").await;
    f.enqueue(&uid, Action::Reboot, Lane::High).await;
    let mut place = PlaceInQueue::Queued;
    for crash in 1..=2 * CRASH_LIMIT {
        let doomed = f.worker().await;
        let claim = f.claim_one(&doomed, place).await;
        assert_eq!(claim.cancel().is_some(), crash > CRASH_LIMIT, "crash {crash}");
        reap_all(&f).await;
        place = PlaceInQueue::Ready;
    }
    assert_eq!((f.count("job").await, f.count("queue").await), (0, 0));
    let known = f.queue.observe(&uid).await.unwrap().known.unwrap();
    assert_eq!(known.failure.unwrap().problem.reason, Reason::CrashLimit);
    assert_eq!(known.last_job.unwrap().result, JobResult::Failed);
}

async fn poison_open(f: Fixture) {
    let uid = f.server("a").await;
    f.enqueue(&uid, Action::Reboot, Lane::High).await;
    let mut place = PlaceInQueue::Queued;
    let request = StoredRequest { kind: RequestKind::ForceOff, settle_ms: 10_000 };
    for crash in 1..=2 * CRASH_LIMIT {
        let doomed = f.worker().await;
        let claim = f.claim_one(&doomed, place).await;
        if crash == 1 {
            done(
                f.queue
                    .store_request(claim, request.clone(), String::new(), Effects::default())
                    .await
                    .unwrap(),
            );
        }
        reap_all(&f).await;
        place = PlaceInQueue::Ready;
    }
    let job = f.queue.observe(&uid).await.unwrap().job.unwrap();
    assert_eq!(job.problem.unwrap().reason, Reason::CrashLimit);
    assert_eq!((f.count("job").await, f.count("queue").await, f.count("job_history").await), (1, 1, 0));
    let room = Room { any: 10, urgent: 0 };
    let claims = f.fetch(&mut Front::new(Fixture::served(), 0), &f.worker().await, room).await;
    assert!(claims.is_empty(), "it is set aside");
}

async fn panicked(f: Fixture) {
    for name in ["a", "b"] {
        f.enqueue(&f.server(name).await, Action::Reboot, Lane::High).await;
    }
    let worker = f.worker().await;
    let mut claims = f.claim(&worker, PlaceInQueue::Queued, Lane::High, 10).await;
    for crash in 1..=CRASH_LIMIT {
        let doomed = claims.remove(0);
        assert!(doomed.cancel().is_none(), "crash {crash}");
        assert!(f.queue.crashed(worker.incarnation(), doomed.owned()).await.unwrap());
        assert!(!f.queue.crashed(worker.incarnation(), doomed.owned()).await.unwrap());
        claims.insert(0, f.claim_one(&worker, PlaceInQueue::Ready).await);
    }
    assert_eq!(claims[0].cancel(), Some(Reason::CrashLimit));
    done(f.queue.complete(claims.remove(1), succeeded()).await.unwrap());
}

async fn unreadable(f: Fixture) {
    use sqlx::Connection as _;
    let doomed = f.worker().await;
    for number in 0..60 {
        let uid = f.server(&number.to_string()).await;
        f.enqueue(&uid, Action::Reboot, Lane::High).await;
    }
    assert_eq!(f.claim(&doomed, PlaceInQueue::Queued, Lane::High, 100).await.len(), 60);
    let mut connection = sqlx::MySqlConnection::connect(&f.url).await.unwrap();
    sqlx::query("UPDATE job SET action = 'Levitate'").execute(&mut connection).await.unwrap();
    assert_eq!(reap_all(&f).await, [Reaped::Gone { jobs: 60 }]);
    assert_eq!((f.count("job").await, f.count("queue").await, f.count("worker").await), (60, 60, 0));
}

async fn leaves(f: Fixture) {
    let uid = f.server("a").await;
    f.enqueue(&uid, Action::Reboot, Lane::High).await;
    let worker = f.worker().await;
    let claim = f.claim_one(&worker, PlaceInQueue::Queued).await;
    worker.leave().await.unwrap();
    assert_eq!(f.count("worker").await, 1);
    done(f.queue.hand_back(claim).await.unwrap());
    let other = f.worker().await;
    done(f.queue.hand_back(f.claim_one(&other, PlaceInQueue::Ready).await).await.unwrap());
    other.leave().await.unwrap();
    assert_eq!(f.count("worker").await, 1);
}

async fn another_history(f: Fixture) {
    let mut worker = f.worker().await;
    assert_eq!(worker.beat().await.unwrap(), Beat::Alive);
    autobuild::queue::migrate(&f.url, false).await.unwrap();
    assert_eq!(worker.beat().await.unwrap(), Beat::Alive);
    autobuild::queue::migrate(&f.url, true).await.unwrap();
    assert_eq!(worker.beat().await.unwrap(), Beat::AnotherHistory);
}
