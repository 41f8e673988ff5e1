//! Jobs that are given up when their server is let go.

use std::collections::BTreeSet;

use autobuild::api::Reason;
use autobuild::job::{Action, JobId, Lane, Problem, RequestKind, StoredRequest};
use autobuild::queue::{Abandoned, Claim, Effects, Farewell, Fenced, PlaceInQueue, Released};
use futures::FutureExt as _;

use crate::Case;
use crate::fixture::{Fixture, done, now_ms, succeeded};

pub const CASES: &[Case] = &[
    ("a job that is given up is gone, told, and fenced off", |f| given_up(f).boxed_local()),
    ("a job that waits is given up with its place in the queue", |f| waiting(f).boxed_local()),
    ("a request that a live worker waits for keeps its job", |f| in_flight(f).boxed_local()),
    ("a request of a worker that is dead or gone does not keep its job", |f| orphaned(f).boxed_local()),
    ("giving up names one job: another one of the same server is left alone", |f| other_id(f).boxed_local()),
    ("a job of another release is given up by its keys", |f| of_another_release(f).boxed_local()),
    ("a farewell without a job is told once, however often it is repeated", |f| told_once(f).boxed_local()),
    ("the servers that have a row are listed page by page", |f| listed(f).boxed_local()),
];

fn why() -> Problem {
    Problem::new(Reason::ReleasedWithoutUndo, "look at the machine")
}

async fn begun(f: &Fixture, worker: &autobuild::queue::Heart) -> Claim {
    let uid = f.server("a").await;
    f.enqueue(&uid, Action::Reboot, Lane::High).await;
    let claim = f.claim_one(worker, PlaceInQueue::Queued).await;
    let request = StoredRequest { kind: RequestKind::ForceOff, settle_ms: 30_000 };
    done(f.queue.store_request(claim, request, String::new(), Effects::default()).await.unwrap())
}

async fn given_up(f: Fixture) {
    let worker = f.worker().await;
    let claim = begun(&f, &worker).await;
    let claim = done(f.queue.close_request(claim, String::new()).await.unwrap());
    let (uid, id) = (claim.uid().clone(), claim.job().id);
    assert_eq!(f.queue.release(&uid).await.unwrap(), Released::StillLive);
    assert_eq!(f.queue.abandon(&uid, id, why(), BTreeSet::new()).await.unwrap(), Abandoned::Gone);
    assert_eq!((f.count("job").await, f.count("queue").await, f.count("job_history").await), (0, 0, 1));
    let last = f.queue.observe(&uid).await.unwrap().known.unwrap().last_job.unwrap();
    assert_eq!(last.problem.unwrap().reason, Reason::ReleasedWithoutUndo);
    // A successor, or the same worker, can write nothing any more.
    assert_eq!(f.queue.complete(claim.clone(), succeeded()).await.unwrap(), Fenced::Lost);
    let request = StoredRequest { kind: RequestKind::PowerOn, settle_ms: 1 };
    assert!(matches!(
        f.queue.store_request(claim, request, String::new(), Effects::default()).await.unwrap(),
        Fenced::Lost
    ));
    assert_eq!(f.queue.abandon(&uid, id, why(), BTreeSet::new()).await.unwrap(), Abandoned::Gone);
    assert_eq!(f.queue.release(&uid).await.unwrap(), Released::Released);
    assert_eq!((f.count("server_state").await, f.count("job_history").await), (0, 1));
}

async fn of_another_release(f: Fixture) {
    use sqlx::Connection as _;
    let worker = f.worker().await;
    let claim = begun(&f, &worker).await;
    let waiting = f.server("b").await;
    let waiting_id = f.enqueue(&waiting, Action::PowerOn, Lane::High).await;
    let mut connection = sqlx::MySqlConnection::connect(&f.url).await.unwrap();
    sqlx::query("UPDATE job SET action = 'Levitate'").execute(&mut connection).await.unwrap();
    let unreadable = f.queue.observe(&waiting).await.unwrap().unreadable.unwrap();
    assert_eq!((unreadable.id, unreadable.problem.reason), (Some(waiting_id), Reason::UnsupportedJob));
    assert_eq!(f.queue.abandon(&waiting, waiting_id, why(), BTreeSet::new()).await.unwrap(), Abandoned::Gone);
    assert_eq!(f.queue.release(&waiting).await.unwrap(), Released::Released);
    // A live worker waits for an answer: whatever the rest of its row means, that holds.
    let (uid, id) = (claim.uid().clone(), claim.job().id);
    assert_eq!(f.queue.abandon(&uid, id, why(), BTreeSet::new()).await.unwrap(), Abandoned::InFlight);
    let dead = BTreeSet::from([worker.incarnation()]);
    assert_eq!(f.queue.abandon(&uid, id, why(), dead).await.unwrap(), Abandoned::Gone);
    assert_eq!((f.count("job").await, f.count("queue").await, f.count("job_history").await), (0, 0, 2));
}

async fn waiting(f: Fixture) {
    let uid = f.server("a").await;
    let id = f.enqueue(&uid, Action::PowerOn, Lane::High).await;
    assert_eq!(f.queue.abandon(&uid, id, why(), BTreeSet::new()).await.unwrap(), Abandoned::Gone);
    assert_eq!((f.count("job").await, f.count("queue").await), (0, 0));
}

async fn in_flight(f: Fixture) {
    let worker = f.worker().await;
    let claim = begun(&f, &worker).await;
    let (uid, id) = (claim.uid().clone(), claim.job().id);
    assert_eq!(f.queue.abandon(&uid, id, why(), BTreeSet::new()).await.unwrap(), Abandoned::InFlight);
    assert_eq!((f.count("job").await, f.count("job_history").await), (1, 0));
    done(f.queue.close_request(claim, String::new()).await.unwrap());
    assert_eq!(f.queue.abandon(&uid, id, why(), BTreeSet::new()).await.unwrap(), Abandoned::Gone);
}

async fn orphaned(f: Fixture) {
    let worker = f.worker().await;
    let claim = begun(&f, &worker).await;
    let (uid, id) = (claim.uid().clone(), claim.job().id);
    let dead = BTreeSet::from([worker.incarnation()]);
    assert_eq!(f.queue.abandon(&uid, id, why(), dead).await.unwrap(), Abandoned::Gone);
    assert!(matches!(f.queue.close_request(claim, String::new()).await.unwrap(), Fenced::Lost));
}

async fn other_id(f: Fixture) {
    let uid = f.server("a").await;
    let id = f.enqueue(&uid, Action::PowerOn, Lane::High).await;
    let other = JobId(id.0 + 1);
    assert_eq!(f.queue.abandon(&uid, other, why(), BTreeSet::new()).await.unwrap(), Abandoned::Gone);
    assert_eq!((f.count("job").await, f.count("queue").await), (1, 1));
}

async fn told_once(f: Fixture) {
    let farewell = Farewell {
        id: JobId::new(now_ms(), 1),
        uid: f.server("a").await,
        namespace: "ns".to_owned(),
        name: "a".to_owned(),
        site: crate::fixture::SITE.to_owned(),
        action: Action::PowerOff,
        why: Problem::new(Reason::ReleasedWithoutPowerOff, "no Secret"),
        requester: "test".to_owned(),
    };
    for _ in 0..2 {
        f.queue.record_farewell(&farewell).await.unwrap();
    }
    assert_eq!(f.count("job_history").await, 1);
}

async fn listed(f: Fixture) {
    for number in 0..5 {
        f.server(&number.to_string()).await;
    }
    let mut names = Vec::new();
    let mut after = None;
    loop {
        let page = f.queue.registered(after.as_ref(), 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.uid.clone());
        names.extend(page.into_iter().map(|row| row.name));
    }
    assert_eq!(names, ["0", "1", "2", "3", "4"]);
}
