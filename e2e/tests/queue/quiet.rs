//! Looks that nobody hears of, until somebody waits for their end.

use autobuild::api::Reason;
use autobuild::job::{Action, JobId, JobResult, Lane, Problem, ServerUid, Visibility, WaitingFor};
use autobuild::queue::{
    CancelOutcome, Claim, End, Enqueued, Fenced, Heartbeat, NewJob, ParkAs, PlaceInQueue, Reaped, Report,
};
use autobuild::shard::Shard;
use futures::FutureExt as _;

use crate::Case;
use crate::fixture::{Fixture, SITE, done, job, now_ms, succeeded, wait_for};

pub const CASES: &[Case] = &[
    ("a look that finds nothing new ends without a word", |f| unheard(f).boxed_local()),
    ("the end of a look that was asked to stop is told, whatever it found", |f| told(f).boxed_local()),
    ("the end of a look that stopped because it was asked to is told", |f| stopped(f).boxed_local()),
    ("a look that was asked to stop is told of when its worker died", |f| reaped(f).boxed_local()),
    ("a look that was asked to stop while it was parked is told of at its end", |f| parked(f).boxed_local()),
    ("a job that meets the same in other words tells them, and the same words once", |f| {
        other_words(f).boxed_local()
    }),
];

/// A server of which nothing is to be shown, and a quiet look at it that a worker holds.
async fn look(f: &Fixture, worker: &autobuild::queue::Heart) -> (ServerUid, JobId, Claim) {
    let uid = f.server("a").await;
    let version = f.version(&uid).await;
    let look = NewJob {
        visibility: Visibility::Quiet,
        ..job(&uid, Action::Inspect, Lane::Background, JobId::new(now_ms(), 1))
    };
    let id = look.id;
    assert_eq!(f.queue.enqueue(look, version).await.unwrap(), Enqueued::Accepted);
    let claim = f.claim_one(worker, PlaceInQueue::Queued).await;
    shown(f, &uid).await;
    (uid, id, claim)
}

/// Everything so far is in status.
async fn shown(f: &Fixture, uid: &ServerUid) {
    f.queue.acknowledge(uid, f.version(uid).await).await.unwrap();
    assert!(!in_feed(f).await);
}

async fn in_feed(f: &Fixture) -> bool {
    !f.queue.feed(&Default::default(), 10).await.unwrap().0.is_empty()
}

/// Somebody wants something else, looks again by himself, and waits for the end of the look.
async fn asked_to_stop(f: &Fixture, uid: &ServerUid, id: JobId) {
    assert_eq!(f.queue.cancel(uid, id, Reason::Replaced).await.unwrap(), CancelOutcome::Stored);
    f.queue.acknowledge(uid, f.version(uid).await).await.unwrap();
    assert!(!in_feed(f).await);
}

async fn unheard(f: Fixture) {
    let worker = f.worker().await;
    let (_, _, claim) = look(&f, &worker).await;
    done(f.queue.complete(claim, succeeded()).await.unwrap());
    assert!(!in_feed(&f).await);
    assert_eq!((f.count("job").await, f.count("job_history").await), (0, 0));
}

async fn told(f: Fixture) {
    let worker = f.worker().await;
    // Its worker does not know of the mark: it came after its last read.
    let (uid, id, claim) = look(&f, &worker).await;
    asked_to_stop(&f, &uid, id).await;
    done(f.queue.complete(claim, succeeded()).await.unwrap());
    assert!(in_feed(&f).await, "whoever asked it to stop waits for ever");
    let known = f.queue.observe(&uid).await.unwrap();
    assert_eq!((known.job, known.known.unwrap().last_job), (None, None), "there is nothing to show of it");
    assert_eq!(f.count("job_history").await, 0);
}

async fn stopped(f: Fixture) {
    let worker = f.worker().await;
    let (uid, id, claim) = look(&f, &worker).await;
    asked_to_stop(&f, &uid, id).await;
    assert_eq!(f.queue.hand_back(claim).await.unwrap(), Fenced::Done(()));
    let claim = f.claim_one(&worker, PlaceInQueue::Ready).await;
    assert_eq!(claim.cancel(), Some(Reason::Replaced));
    f.queue.acknowledge(&uid, f.version(&uid).await).await.unwrap();
    let stopped = End::new(JobResult::Cancelled, Some(Problem::new(Reason::Replaced, "asked to stop")));
    done(f.queue.complete(claim, stopped).await.unwrap());
    assert!(in_feed(&f).await);
}

async fn reaped(f: Fixture) {
    let worker = f.worker().await;
    let (uid, id, _) = look(&f, &worker).await;
    asked_to_stop(&f, &uid, id).await;
    let heartbeats = f.queue.registry(crate::fixture::SITE).await.unwrap();
    let dead: Vec<Heartbeat> =
        heartbeats.into_iter().filter(|beat| beat.worker == worker.incarnation()).collect();
    assert_eq!(f.queue.reap(dead[0]).await.unwrap(), Reaped::Gone { jobs: 1 });
    assert!(in_feed(&f).await, "its worker is dead, and somebody waits for its end");
    let other = f.worker().await;
    let claim = f.claim_one(&other, PlaceInQueue::Ready).await;
    f.queue.acknowledge(&uid, f.version(&uid).await).await.unwrap();
    done(f.queue.complete(claim, succeeded()).await.unwrap());
    assert!(in_feed(&f).await);
}

async fn parked(f: Fixture) {
    let worker = f.worker().await;
    let (uid, id, claim) = look(&f, &worker).await;
    let how = ParkAs {
        after_ms: 3_600_000,
        waiting_for: WaitingFor::Bmc,
        problem: Some(Problem::new(Reason::BMCBusy, "not now")),
        secret_version: None,
        checkpoint: String::new(),
        report: Report::Nothing,
    };
    done(f.queue.park(claim, how).await.unwrap());
    asked_to_stop(&f, &uid, id).await;
    let claim = f.claim_one(&worker, PlaceInQueue::Ready).await;
    done(f.queue.complete(claim, succeeded()).await.unwrap());
    assert!(in_feed(&f).await);
}

async fn other_words(f: Fixture) {
    let worker = f.worker().await;
    let uid = f.server("a").await;
    f.enqueue(&uid, Action::Reboot, Lane::High).await;
    let mut place = PlaceInQueue::Queued;
    for (message, is_news) in [("not now", true), ("not now", false), ("its licence is over", true)] {
        let claim = f.claim_one(&worker, place).await;
        shown(&f, &uid).await;
        let how = ParkAs {
            after_ms: 0,
            waiting_for: WaitingFor::Bmc,
            problem: Some(Problem::new(Reason::BMCBusy, message)),
            secret_version: None,
            checkpoint: String::new(),
            report: Report::Nothing,
        };
        done(f.queue.park(claim, how).await.unwrap());
        assert_eq!(in_feed(&f).await, is_news, "{message}");
        wait_for("the job's wake time", async || f.queue.wake(SITE, &[Shard(0)], 10).await.unwrap() == 1)
            .await;
        place = PlaceInQueue::Ready;
    }
}
