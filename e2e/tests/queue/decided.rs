//! Decisions on objects that are older than the one that was decided on last.

use autobuild::api::Reason;
use autobuild::job::{Action, JobId, Lane};
use autobuild::queue::{CancelOutcome, DecidedOn, Enqueued};
use futures::FutureExt as _;

use crate::Case;
use crate::fixture::{Fixture, job, now_ms};

pub const CASES: &[Case] = &[
    ("a change of a job that was decided on an older object is refused", |f| older(f).boxed_local()),
    ("an object that was read live after the newer decision was known is the truth", |f| {
        restored(f).boxed_local()
    }),
    ("enqueues that share a transaction keep each its own generation", |f| shared(f).boxed_local()),
];

async fn older(f: Fixture) {
    let uid = f.server("a").await;
    let job = job(&uid, Action::Reboot, Lane::Low, JobId::new(now_ms(), 1));
    let id = job.id;
    let enqueued = f.queue.enqueue_on(job, f.version(&uid).await, DecidedOn::object(5)).await.unwrap();
    assert_eq!(enqueued, Enqueued::Accepted);
    let before = f.queue.observe(&uid).await.unwrap();
    assert_eq!(before.generation, 5);
    let old = DecidedOn::object(4);
    let refused = f.queue.cancel_on(&uid, id, Reason::WishChanged, old).await.unwrap();
    assert_eq!(refused, CancelOutcome::Outdated);
    let refused = f.queue.reprioritize_on(&uid, id, Lane::High, old).await.unwrap();
    assert_eq!(refused, CancelOutcome::Outdated);
    let after = f.queue.observe(&uid).await.unwrap();
    assert_eq!((after.job, after.known), (before.job, before.known), "nothing was changed");
    assert_eq!((f.count("job").await, f.count("queue").await), (1, 1));
    let moved = f.queue.reprioritize_on(&uid, id, Lane::High, DecidedOn::object(5)).await.unwrap();
    assert_eq!(moved, CancelOutcome::Stored);
    let deleted = f.queue.cancel_on(&uid, id, Reason::WishChanged, DecidedOn::object(6)).await.unwrap();
    assert_eq!(deleted, CancelOutcome::Deleted);
    assert_eq!(f.queue.observe(&uid).await.unwrap().generation, 6);
}

async fn restored(f: Fixture) {
    let uid = f.server("a").await;
    let job = job(&uid, Action::Reboot, Lane::Low, JobId::new(now_ms(), 1));
    let id = job.id;
    f.queue.enqueue_on(job, f.version(&uid).await, DecidedOn::object(9)).await.unwrap();
    let before = DecidedOn::read_live(3, 8);
    let refused = f.queue.cancel_on(&uid, id, Reason::WishChanged, before).await.unwrap();
    assert_eq!(refused, CancelOutcome::Outdated, "decided since it was read");
    let version = f.version(&uid).await;
    assert!(!f.queue.go_back_to(&uid, 3, version - 1).await.unwrap());
    assert!(f.queue.go_back_to(&uid, 3, version).await.unwrap());
    let deleted = f.queue.cancel_on(&uid, id, Reason::WishChanged, DecidedOn::object(3)).await.unwrap();
    assert_eq!(deleted, CancelOutcome::Deleted);
}

async fn shared(f: Fixture) {
    let mut all = Vec::new();
    for number in 0..20_u32 {
        let uid = f.server(&number.to_string()).await;
        let job = job(&uid, Action::Reboot, Lane::High, JobId::new(now_ms(), number.into()));
        let (queue, version) = (f.queue.clone(), f.version(&uid).await);
        let enqueue = async move {
            match number {
                0 => queue.enqueue(job, version).await,
                _ => queue.enqueue_on(job, version, DecidedOn::object(number.into())).await,
            }
        };
        all.push((uid, number, tokio::spawn(enqueue)));
    }
    for (uid, number, enqueue) in all {
        assert_eq!(enqueue.await.unwrap().unwrap(), Enqueued::Accepted);
        assert_eq!(f.queue.observe(&uid).await.unwrap().generation, i64::from(number));
    }
}
