//! A machine that a job switched off has to be on again: recorded with the off, whatever becomes of the job.

use std::collections::BTreeSet;

use autobuild::api::Reason;
use autobuild::api::hardware::{Hardware, HardwareIdentity, PowerState};
use autobuild::job::{
    Action, Debt, JobResult, Lane, Problem, Reading, RequestKind, ServerUid, StoredRequest,
};
use autobuild::queue::{
    CRASH_LIMIT, Claim, Disks, Effects, End, Heartbeat, LeaseWatch, PlaceInQueue, Report,
};
use futures::FutureExt as _;
use std::time::Duration;

use crate::Case;
use crate::fixture::{Fixture, SITE, done, succeeded};

pub const CASES: &[Case] = &[
    ("a machine that a job switched off is owed an on until it was read on", |f| paid(f).boxed_local()),
    ("a job that fails, is stopped or crashes leaves its debt behind", |f| left(f).boxed_local()),
    ("a try to switch on that ends within its first claim is one", |f| at_once(f).boxed_local()),
    ("a look before the off had its time pays nothing", |f| too_early(f).boxed_local()),
    ("disks that were erased end a debt, and so does the controller's word", |f| ended(f).boxed_local()),
];

fn read(power: PowerState) -> Report {
    Report::Good(Box::new(Reading {
        power,
        identity: HardwareIdentity::default(),
        hardware: Hardware::default(),
        last_reset_time: None,
    }))
}

/// A job that has stored its off, and the answer came.
async fn switched_off(f: &Fixture, name: &str, action: Action) -> Claim {
    let uid = f.server(name).await;
    f.enqueue(&uid, action, Lane::High).await;
    let worker = f.worker().await;
    let places = [PlaceInQueue::Queued, PlaceInQueue::QueuedBounded];
    let mut claim = None;
    for place in places {
        if claim.is_none() {
            claim = f.claim(&worker, place, Lane::High, 1).await.pop();
        }
    }
    let request = StoredRequest { kind: RequestKind::ForceOff, settle_ms: 10 };
    let effects = Effects { switches_off_for_ms: Some(60_000), ..Effects::default() };
    let claim = done(f.queue.store_request(claim.unwrap(), request, "{}".into(), effects).await.unwrap());
    done(f.queue.close_request(claim, "{}".into()).await.unwrap())
}

async fn debt(f: &Fixture, uid: &ServerUid) -> Option<Debt> {
    f.queue.observe(uid).await.unwrap().known.unwrap().debt
}

async fn paid(f: Fixture) {
    let claim = switched_off(&f, "a", Action::Reboot).await;
    let uid = claim.uid().clone();
    let owed = debt(&f, &uid).await.unwrap();
    assert_eq!((owed.job, owed.action, owed.seen_off), (claim.job().id, Action::Reboot, false));
    let on = Action::Reboot.steps()[1];
    let claim = done(f.queue.advance(claim, on, "{}".into(), read(PowerState::PoweredOff)).await.unwrap());
    assert!(debt(&f, &uid).await.unwrap().seen_off);
    let end = End { report: read(PowerState::PoweredOn), ..succeeded() };
    done(f.queue.complete(claim, end).await.unwrap());
    assert_eq!(debt(&f, &uid).await, None);
}

async fn at_once(f: Fixture) {
    let claim = switched_off(&f, "a", Action::Reboot).await;
    let uid = claim.uid().clone();
    done(f.queue.complete(claim, End::new(JobResult::Cancelled, None)).await.unwrap());
    let before = debt(&f, &uid).await.unwrap().tried.unwrap().times;
    for (result, times) in [(JobResult::Superseded, 1), (JobResult::Failed, 2), (JobResult::Cancelled, 2)] {
        f.enqueue(&uid, Action::PowerOn, Lane::High).await;
        let claim = f.claim_one(&f.worker().await, PlaceInQueue::Queued).await;
        let problem = Problem::new(Reason::AlreadyDone, "the machine reads PoweredOn already");
        done(f.queue.complete(claim, End::new(result, Some(problem))).await.unwrap());
        assert_eq!(debt(&f, &uid).await.unwrap().tried.unwrap().times, before + times, "{result:?}");
    }
}

async fn left(f: Fixture) {
    for (name, result) in
        [("a", JobResult::Failed), ("b", JobResult::Cancelled), ("c", JobResult::Superseded)]
    {
        let claim = switched_off(&f, name, Action::Reboot).await;
        let uid = claim.uid().clone();
        let problem = Problem::new(Reason::LeftPoweredOff, "why");
        done(f.queue.complete(claim, End::new(result, Some(problem.clone()))).await.unwrap());
        let tried = debt(&f, &uid).await.unwrap().tried.unwrap();
        assert_eq!((tried.times, tried.problem), (1, Some(problem)), "{result:?}");
        assert!(f.queue.observe(&uid).await.unwrap().in_feed, "the controller is told");
    }
    let claim = switched_off(&f, "d", Action::Reboot).await;
    let uid = claim.uid().clone();
    for crash in 1..=2 * CRASH_LIMIT {
        reap_all(&f).await;
        if crash < 2 * CRASH_LIMIT {
            f.claim_one(&f.worker().await, PlaceInQueue::Ready).await;
        }
    }
    assert!(f.queue.observe(&uid).await.unwrap().job.is_none());
    assert!(debt(&f, &uid).await.is_some(), "nobody switched it on");
    // A look that finds it off tells the controller: another try is due.
    let job = f.enqueue(&uid, Action::Inspect, Lane::Background).await;
    let claim = f.claim_one(&f.worker().await, PlaceInQueue::Queued).await;
    assert_eq!(claim.job().id, job);
    let end = End { report: read(PowerState::PoweredOff), ..succeeded() };
    done(f.queue.complete(claim, end).await.unwrap());
    let owed = debt(&f, &uid).await.unwrap();
    assert_eq!((owed.seen_off, owed.tried.unwrap().times), (true, 1), "a look is no try");
    // Given up by the controller without its undo.
    let claim = switched_off(&f, "e", Action::Reboot).await;
    let why = Problem::new(Reason::ReleasedWithoutUndo, "let go");
    f.queue.abandon(claim.uid(), claim.job().id, why, BTreeSet::new()).await.unwrap();
    assert!(debt(&f, claim.uid()).await.is_some());
}

async fn reap_all(f: &Fixture) {
    let mut watch = LeaseWatch::new(Duration::from_secs(10));
    let registry: Vec<Heartbeat> = f.queue.registry(SITE).await.unwrap();
    watch.observe(&registry, Duration::ZERO);
    for expired in watch.observe(&registry, Duration::from_secs(10)) {
        f.queue.reap(expired).await.unwrap();
    }
}

async fn too_early(f: Fixture) {
    let claim = switched_off(&f, "a", Action::Reboot).await;
    let uid = claim.uid().clone();
    let end = End { report: read(PowerState::PoweredOn), ..End::new(JobResult::Failed, None) };
    done(f.queue.complete(claim, end).await.unwrap());
    assert!(debt(&f, &uid).await.is_some(), "it may be about to go down");
    // Who switched it on and read it back knows better.
    f.enqueue(&uid, Action::PowerOn, Lane::High).await;
    let claim = f.claim_one(&f.worker().await, PlaceInQueue::Queued).await;
    let end = End { report: read(PowerState::PoweredOn), is_on: true, ..succeeded() };
    done(f.queue.complete(claim, end).await.unwrap());
    assert_eq!(debt(&f, &uid).await, None);
}

async fn ended(f: Fixture) {
    let claim = switched_off(&f, "a", Action::Reboot).await;
    let uid = claim.uid().clone();
    let end = End { report: read(PowerState::PoweredOff), disks: Disks::Wiped, ..succeeded() };
    done(f.queue.complete(claim, end).await.unwrap());
    assert_eq!(debt(&f, &uid).await, None);
    let claim = switched_off(&f, "b", Action::Reboot).await;
    let uid = claim.uid().clone();
    done(f.queue.complete(claim, End::new(JobResult::Failed, None)).await.unwrap());
    let version = f.version(&uid).await;
    assert!(!f.queue.record_debt(&uid, None, version - 1).await.unwrap());
    assert!(f.queue.record_debt(&uid, None, version).await.unwrap());
    assert_eq!(debt(&f, &uid).await, None);
    assert!(f.queue.record_debt(&uid, None, version).await.unwrap(), "again is the same");
}
