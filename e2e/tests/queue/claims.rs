//! Claiming, advancing, parking, completing.

use autobuild::api::Reason;
use autobuild::api::hardware::{Hardware, HardwareIdentity, PowerState};
use autobuild::job::{
    Action, JobId, JobResult, JobState, Lane, Problem, Reading, RequestKind, Step, StoredRequest, TokenKind,
    TokenValue, WaitingFor,
};
use autobuild::queue::{
    CancelOutcome, ClaimFrom, Effects, End, Enqueued, Fenced, Front, ParkAs, Parked, PlaceInQueue,
    QueueError, Report, Room,
};
use autobuild::shard::Shard;
use futures::FutureExt as _;

use crate::Case;
use crate::fixture::{Fixture, SITE, done, now_ms, succeeded, wait_for};

pub const CASES: &[Case] = &[
    ("an urgent job is claimed before a hundred low ones that are older", |f| urgent_first(f).boxed_local()),
    ("a hundred jobs and eight claimers: each job goes to one of them", |f| each_once(f).boxed_local()),
    ("a completed job leaves one history row and no live one", |f| completed(f).boxed_local()),
    ("a parked job wakes by its time and keeps its order", |f| wakes(f).boxed_local()),
    ("due jobs of several shards are woken together, no more than asked for and none that is not due", |f| {
        wakes_together(f).boxed_local()
    }),
    ("a signal between evidence and park keeps the job awake", |f| signal_race(f).boxed_local()),
    ("a job with an open request can neither be parked nor ended", |f| open_request(f).boxed_local()),
    ("storing the first request makes its token handled in the same transaction", |f| {
        token_handled(f).boxed_local()
    }),
    ("a cancel that came before the request was stored wins", |f| cancel_wins(f).boxed_local()),
    ("a second use of an old claim is refused", |f| old_claim(f).boxed_local()),
    (
        "a quiet inspection that finds nothing new, or fails as before, leaves no history and no feed entry",
        |f| quiet(f).boxed_local(),
    ),
    ("a job row of another release is set aside and hides nobody", |f| unknown_row(f).boxed_local()),
    ("what another release recorded of a server is told and left as it is", |f| {
        unknown_record(f).boxed_local()
    }),
    ("a job is left to another release with everything that is in it", |f| left(f).boxed_local()),
    ("a request for a look counts as acted on with the report that came of it, and is told", |f| {
        heeded(f).boxed_local()
    }),
    ("a failed installation is not forgotten for what fails or succeeds after it", |f| {
        failure_behind(f).boxed_local()
    }),
];

fn asleep(after_ms: i64) -> ParkAs {
    ParkAs {
        after_ms,
        waiting_for: WaitingFor::PowerState,
        problem: None,
        secret_version: None,
        checkpoint: "{}".to_owned(),
        report: Report::Nothing,
    }
}

async fn urgent_first(f: Fixture) {
    for number in 0..100 {
        let uid = f.server(&format!("low-{number}")).await;
        f.enqueue(&uid, Action::PowerOn, Lane::Low).await;
    }
    let uid = f.server("urgent").await;
    let urgent = f.enqueue(&uid, Action::Reboot, Lane::Urgent).await;
    let worker = f.worker().await;
    let claims = f.fetch(&mut Front::new(Fixture::served(), 0), &worker, Room { any: 1, urgent: 0 }).await;
    assert_eq!(claims.iter().map(|claim| claim.job().id).collect::<Vec<_>>(), [urgent]);
}

async fn each_once(f: Fixture) {
    for number in 0..100 {
        let uid = f.server(&number.to_string()).await;
        f.enqueue(&uid, Action::PowerOn, Lane::High).await;
    }
    let f = std::sync::Arc::new(f);
    let claimers = (0..8).map(|_| {
        let f = f.clone();
        tokio::spawn(async move {
            let worker = f.worker().await;
            let mut mine = Vec::new();
            while f.count("queue").await > 0 {
                for claim in f.claim(&worker, PlaceInQueue::Queued, Lane::High, 3).await {
                    mine.push(claim.job().id);
                    done(f.queue.complete(claim, succeeded()).await.unwrap());
                }
            }
            mine
        })
    });
    let mut all = Vec::new();
    for mine in futures::future::join_all(claimers).await {
        all.extend(mine.unwrap());
    }
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 100);
    assert_eq!(f.count("job_history").await, 100);
    assert_eq!(f.count("job").await, 0);
}

async fn completed(f: Fixture) {
    let uid = f.server("a").await;
    let id = f.enqueue(&uid, Action::PowerOn, Lane::High).await;
    let worker = f.worker().await;
    let claim = f.claim_one(&worker, PlaceInQueue::Queued).await;
    assert_eq!(f.queue.observe(&uid).await.unwrap().job.unwrap().state, JobState::Running);
    done(f.queue.complete(claim, succeeded()).await.unwrap());
    let seen = f.queue.observe(&uid).await.unwrap();
    assert_eq!(seen.job, None);
    let last = seen.known.unwrap().last_job.unwrap();
    assert_eq!((last.id, last.result), (id, JobResult::Succeeded));
    assert_eq!((f.count("job").await, f.count("queue").await, f.count("job_history").await), (0, 0, 1));
}

async fn wakes(f: Fixture) {
    let uid = f.server("a").await;
    let id = f.enqueue(&uid, Action::PowerOn, Lane::High).await;
    let worker = f.worker().await;
    let claim = f.claim_one(&worker, PlaceInQueue::Queued).await;
    assert_eq!(done(f.queue.park(claim, asleep(50)).await.unwrap()), Parked::Asleep);
    assert_eq!(f.queue.observe(&uid).await.unwrap().job.unwrap().state, JobState::Waiting);
    wait_for("the job's wake time", async || f.queue.wake(SITE, &[Shard(0)], 10).await.unwrap() == 1).await;
    let again = f.claim_one(&worker, PlaceInQueue::Ready).await;
    assert_eq!((again.job().id, again.job().attempt), (id, 1));
    assert_eq!(again.checkpoint(), "{}");
}

async fn wakes_together(f: Fixture) {
    let worker = f.worker().await;
    for number in 0..12 {
        let uid = f.server(&format!("{number:02}")).await;
        let id = JobId::new(now_ms(), rand::random());
        let mut wanted = crate::fixture::job(&uid, Action::PowerOn, Lane::High, id);
        wanted.shard = Shard(number % 4);
        assert_eq!(f.queue.enqueue(wanted, 1).await.unwrap(), Enqueued::Accepted);
    }
    let claims_of = async |shard: u16, place: PlaceInQueue| {
        let from = ClaimFrom { site: SITE.to_owned(), shard: Shard(shard), place, lane: Lane::High };
        f.queue.claim(worker.incarnation(), from, 12).await.unwrap()
    };
    for shard in 0..4 {
        for (number, claim) in claims_of(shard, PlaceInQueue::Queued).await.into_iter().enumerate() {
            // The last one of each shard sleeps on.
            let after_ms = if number == 2 { 3_600_000 } else { 0 };
            assert_eq!(done(f.queue.park(claim, asleep(after_ms)).await.unwrap()), Parked::Asleep);
        }
    }
    // Shard 3 is not asked for: six are due.
    let shards = [Shard(0), Shard(1), Shard(2)];
    for woken in [4, 2, 0] {
        assert_eq!(f.queue.wake(SITE, &shards, 4).await.unwrap(), woken);
    }
    let mut awake = Vec::new();
    for shard in 0..4 {
        awake.push(claims_of(shard, PlaceInQueue::Ready).await.len());
    }
    assert_eq!((awake, f.count("queue").await), (vec![2, 2, 2, 0], 6));
}

async fn signal_race(f: Fixture) {
    let uid = f.server("a").await;
    let id = f.enqueue(&uid, Action::PowerOn, Lane::High).await;
    let worker = f.worker().await;
    let claim = f.claim_one(&worker, PlaceInQueue::Queued).await;
    assert_eq!(f.queue.signal(&uid, id).await.unwrap(), CancelOutcome::Stored);
    assert_eq!(done(f.queue.park(claim, asleep(3_600_000)).await.unwrap()), Parked::AwakeAgain);
    let again = f.claim_one(&worker, PlaceInQueue::Ready).await;
    assert_eq!(done(f.queue.park(again, asleep(3_600_000)).await.unwrap()), Parked::Asleep);
    f.queue.signal(&uid, id).await.unwrap();
    f.claim_one(&worker, PlaceInQueue::Ready).await;
}

fn on() -> StoredRequest {
    StoredRequest { kind: RequestKind::PowerOn, settle_ms: 10_000 }
}

async fn open_request(f: Fixture) {
    let uid = f.server("a").await;
    f.enqueue(&uid, Action::PowerOn, Lane::High).await;
    let worker = f.worker().await;
    let claim = f.claim_one(&worker, PlaceInQueue::Queued).await;
    let claim =
        done(f.queue.store_request(claim, on(), "begun".to_owned(), Effects::default()).await.unwrap());
    assert!(matches!(f.queue.park(claim.clone(), asleep(1)).await, Err(QueueError::Refused(_))));
    assert!(matches!(f.queue.complete(claim.clone(), succeeded()).await, Err(QueueError::Refused(_))));
    // A successor finds the request, too.
    f.queue.hand_back(claim).await.unwrap();
    let claim = f.claim_one(&worker, PlaceInQueue::Ready).await;
    assert_eq!(claim.request(), Some(&on()));
    assert_eq!(claim.checkpoint(), "begun");
    let claim = done(f.queue.close_request(claim, "answered".to_owned()).await.unwrap());
    assert_eq!(claim.checkpoint(), "answered");
    done(f.queue.complete(claim, succeeded()).await.unwrap());
}

async fn token_handled(f: Fixture) {
    let uid = f.server("a").await;
    f.enqueue(&uid, Action::Reboot, Lane::High).await;
    let worker = f.worker().await;
    let claim = f.claim_one(&worker, PlaceInQueue::Queued).await;
    let before = f.queue.observe(&uid).await.unwrap().known.unwrap();
    assert!(!before.handled.is_handled(TokenKind::Reboot, Some("t1")));
    let claim = done(
        f.queue
            .store_request(claim, on(), String::new(), Effects::handling([TokenValue::reboot("t1")]))
            .await
            .unwrap(),
    );
    let after = f.queue.observe(&uid).await.unwrap();
    assert!(after.known.as_ref().unwrap().handled.is_handled(TokenKind::Reboot, Some("t1")));
    assert!(after.known.unwrap().version > before.version);
    assert!(after.job.unwrap().request_stored);
    let claim = done(f.queue.advance(claim, Step::On, String::new(), Report::Nothing).await.unwrap());
    assert_eq!((claim.job().step, claim.request()), (Step::On, None));
}

async fn cancel_wins(f: Fixture) {
    let uid = f.server("a").await;
    let id = f.enqueue(&uid, Action::Reboot, Lane::High).await;
    let worker = f.worker().await;
    let claim = f.claim_one(&worker, PlaceInQueue::Queued).await;
    assert_eq!(f.queue.cancel(&uid, id, Reason::Paused).await.unwrap(), CancelOutcome::Stored);
    let claim = done(
        f.queue
            .store_request(claim, on(), String::new(), Effects::handling([TokenValue::reboot("t1")]))
            .await
            .unwrap(),
    );
    assert_eq!((claim.cancel(), claim.request()), (Some(Reason::Paused), None));
    assert!(
        !f.queue
            .observe(&uid)
            .await
            .unwrap()
            .known
            .unwrap()
            .handled
            .is_handled(TokenKind::Reboot, Some("t1"))
    );
}

async fn old_claim(f: Fixture) {
    let uid = f.server("a").await;
    f.enqueue(&uid, Action::Reboot, Lane::High).await;
    let worker = f.worker().await;
    let old = f.claim_one(&worker, PlaceInQueue::Queued).await;
    done(f.queue.hand_back(old.clone()).await.unwrap());
    let new = f.claim_one(&worker, PlaceInQueue::Ready).await;
    assert!(matches!(
        f.queue.store_request(old.clone(), on(), String::new(), Effects::default()).await.unwrap(),
        Fenced::Lost
    ));
    assert!(matches!(f.queue.park(old.clone(), asleep(1)).await.unwrap(), Fenced::Lost));
    assert!(matches!(f.queue.complete(old, succeeded()).await.unwrap(), Fenced::Lost));
    let older = new.clone();
    done(f.queue.advance(new, Step::On, String::new(), Report::Nothing).await.unwrap());
    assert!(matches!(f.queue.complete(older, succeeded()).await.unwrap(), Fenced::Lost));
    assert_eq!(f.count("job").await, 1);
}

pub fn reading() -> Report {
    Report::Good(Box::new(Reading {
        power: PowerState::PoweredOn,
        identity: HardwareIdentity::default(),
        hardware: Hardware::default(),
        last_reset_time: None,
    }))
}

async fn quiet(f: Fixture) {
    let uid = f.server("a").await;
    let worker = f.worker().await;
    for round in 0..2 {
        let version = f.version(&uid).await;
        let id = autobuild::job::JobId::new(crate::fixture::now_ms(), rand::random());
        let mut job = crate::fixture::job(&uid, Action::Inspect, Lane::Background, id);
        job.visibility = autobuild::job::Visibility::Quiet;
        f.queue.enqueue(job, version).await.unwrap();
        let claim = f.claim_one(&worker, PlaceInQueue::Queued).await;
        done(f.queue.complete(claim, End { report: reading(), ..succeeded() }).await.unwrap());
        let (feed, _) = f.queue.feed(&Default::default(), 10).await.unwrap();
        // The first round brought the first reading: that is a change.
        assert_eq!(feed.len(), 1 - round);
        for changed in feed {
            assert!(f.queue.acknowledge(&changed.uid, changed.version).await.unwrap());
        }
    }
    assert_eq!(f.count("job_history").await, 1);
    // One that fails is told, once.
    for round in 0..2 {
        let version = f.version(&uid).await;
        let id = autobuild::job::JobId::new(crate::fixture::now_ms(), rand::random());
        let mut job = crate::fixture::job(&uid, Action::Inspect, Lane::Background, id);
        job.visibility = autobuild::job::Visibility::Quiet;
        f.queue.enqueue(job, version).await.unwrap();
        let claim = f.claim_one(&worker, PlaceInQueue::Queued).await;
        let problem = Problem::new(Reason::SystemNotFound, "no such system");
        let end = End { result: JobResult::Failed, problem: Some(problem), ..succeeded() };
        done(f.queue.complete(claim, end).await.unwrap());
        let known = f.queue.observe(&uid).await.unwrap().known.unwrap();
        assert_eq!(known.failure.unwrap().problem.reason, Reason::SystemNotFound);
        let (feed, _) = f.queue.feed(&Default::default(), 10).await.unwrap();
        assert_eq!(feed.len(), 1 - round);
        for changed in feed {
            assert!(f.queue.acknowledge(&changed.uid, changed.version).await.unwrap());
        }
    }
    assert_eq!(f.count("job_history").await, 2);
}

async fn unknown_record(f: Fixture) {
    use sqlx::Connection as _;
    let uid = f.server("strange").await;
    let mut connection = sqlx::MySqlConnection::connect(&f.url).await.unwrap();
    let contents = r#"{"Levitating":{"since_ms":1}}"#;
    let write = "UPDATE server_state SET contents = ?";
    sqlx::query(write).bind(contents).execute(&mut connection).await.unwrap();
    let seen = f.queue.observe(&uid).await.unwrap();
    let unreadable = seen.unreadable.unwrap();
    assert_eq!((seen.known, unreadable.id), (None, None));
    assert_eq!(unreadable.problem.reason, Reason::UnsupportedJob);
    let message = unreadable.problem.message;
    assert!(message.contains("contents") && message.contains("Levitating"), "{message}");
    let kept: String =
        sqlx::query_scalar("SELECT contents FROM server_state").fetch_one(&mut connection).await.unwrap();
    assert_eq!(kept, contents);
}

async fn left(f: Fixture) {
    use sqlx::Connection as _;
    let uid = f.server("a").await;
    f.enqueue(&uid, Action::Reboot, Lane::High).await;
    let worker = f.worker().await;
    let claim = f.claim_one(&worker, PlaceInQueue::Queued).await;
    let request = StoredRequest { kind: RequestKind::ForceOff, settle_ms: 1_000 };
    let newer = r#"{"debt":"On"}"#.to_owned();
    let stored = f.queue.store_request(claim, request.clone(), newer.clone(), Effects::default()).await;
    let claim = done(stored.unwrap());
    let problem = Problem::new(Reason::UnsupportedJob, "it is of another release");
    done(f.queue.leave(claim.clone(), problem.clone()).await.unwrap());
    assert!(matches!(f.queue.leave(claim, problem.clone()).await.unwrap(), Fenced::Lost));
    let job = f.queue.observe(&uid).await.unwrap().job.unwrap();
    assert_eq!((job.problem, job.state), (Some(problem), JobState::Waiting));
    assert!(f.queue.feed(&Default::default(), 10).await.unwrap().0.iter().any(|changed| changed.uid == uid));
    // After its pause it is found as it was.
    let mut connection = sqlx::MySqlConnection::connect(&f.url).await.unwrap();
    for text in ["UPDATE job SET q_ord = 1 WHERE q_state = 3", "UPDATE queue SET ord = 1 WHERE state = 3"] {
        sqlx::query(text).execute(&mut connection).await.unwrap();
    }
    assert_eq!(f.queue.wake(SITE, &[Shard(0)], 10).await.unwrap(), 1);
    let claim = f.claim_one(&worker, PlaceInQueue::Ready).await;
    assert_eq!((claim.request(), claim.checkpoint()), (Some(&request), newer.as_str()));
}

async fn heeded(f: Fixture) {
    let uid = f.server("a").await;
    let worker = f.worker().await;
    let asked = async || {
        let request = f.queue.observe(&uid).await.unwrap().known.unwrap().reconcile_request;
        request.map(|request| (request.value, request.at_ms > 0))
    };
    let value = |value: &str, counted| Some((value.to_owned(), counted));
    for (word, expected, told) in [
        ("of before", value("of before", false), true),
        ("banana", value("banana", true), true),
        ("banana", value("banana", true), false),
        ("", value("banana", true), false),
    ] {
        let version = f.version(&uid).await;
        let id = JobId::new(now_ms(), rand::random());
        let mut job = crate::fixture::job(&uid, Action::Inspect, Lane::Background, id);
        job.visibility = autobuild::job::Visibility::Quiet;
        f.queue.enqueue(job, version).await.unwrap();
        let mut claim = f.claim_one(&worker, PlaceInQueue::Queued).await;
        claim.has_read(word.to_owned());
        done(f.queue.complete(claim, End { report: reading(), ..succeeded() }).await.unwrap());
        assert_eq!(asked().await, expected, "{word:?}");
        let (feed, _) = f.queue.feed(&Default::default(), 10).await.unwrap();
        assert_eq!(feed.len(), usize::from(told), "{word:?}");
        for changed in feed {
            assert!(f.queue.acknowledge(&changed.uid, changed.version).await.unwrap());
        }
    }
    // A job that is parked with a report has tried.
    f.enqueue(&uid, Action::PowerOn, Lane::High).await;
    let mut claim = f.claim_one(&worker, PlaceInQueue::Queued).await;
    claim.has_read("again".to_owned());
    let silent = Problem::new(Reason::Unreachable, "no route");
    let how = ParkAs { report: Report::Unanswered(silent), ..asleep(60_000) };
    done(f.queue.park(claim, how).await.unwrap());
    assert_eq!(asked().await, value("again", true));
}

async fn failure_behind(f: Fixture) {
    let uid = f.server("a").await;
    let worker = f.worker().await;
    let ends = async |action: Action, reason: Option<Reason>| {
        f.enqueue(&uid, action, Lane::High).await;
        let place =
            if action.permit_class().is_some() { PlaceInQueue::QueuedBounded } else { PlaceInQueue::Queued };
        let claim = f.claim_one(&worker, place).await;
        let problem = reason.map(|reason| Problem::new(reason, "met"));
        let result = if problem.is_some() { JobResult::Failed } else { JobResult::Succeeded };
        done(f.queue.complete(claim, End { result, problem, ..succeeded() }).await.unwrap());
        let failure = f.queue.observe(&uid).await.unwrap().known.unwrap().failure;
        failure.map(|failure| (failure.action, failure.behind.map(|behind| behind.action)))
    };
    let installation = Some((Action::Inspect, Some(Action::Wipe)));
    f.queue.set_permits(SITE, Action::Wipe.permit_class().unwrap(), 1).await.unwrap();
    assert_eq!(ends(Action::Wipe, Some(Reason::InstallFailed)).await, Some((Action::Wipe, None)));
    assert_eq!(ends(Action::Inspect, Some(Reason::IdentityMismatch)).await, installation);
    assert_eq!(ends(Action::Inspect, None).await, Some((Action::Wipe, None)));
    let power = Some((Action::PowerOn, Some(Action::Wipe)));
    assert_eq!(ends(Action::PowerOn, Some(Reason::RequestRefused)).await, power);
    assert_eq!(ends(Action::PowerOn, None).await, Some((Action::Wipe, None)));
    assert_eq!(ends(Action::Wipe, None).await, None);
}

async fn unknown_row(f: Fixture) {
    use sqlx::Connection as _;
    let strange = f.server("strange").await;
    f.enqueue(&strange, Action::Reboot, Lane::High).await;
    let plain = f.server("plain").await;
    let id = f.enqueue(&plain, Action::Reboot, Lane::High).await;
    let mut connection = sqlx::MySqlConnection::connect(&f.url).await.unwrap();
    sqlx::query("UPDATE job SET action = 'Levitate' WHERE server_uid = 'uid-strange'")
        .execute(&mut connection)
        .await
        .unwrap();
    let worker = f.worker().await;
    let claims = f.claim(&worker, PlaceInQueue::Queued, Lane::High, 10).await;
    assert_eq!(claims.iter().map(|claim| claim.job().id).collect::<Vec<_>>(), [id]);
    assert_eq!(f.claim(&worker, PlaceInQueue::Queued, Lane::High, 10).await.len(), 0);
    assert_eq!(f.count("job").await, 2);
    let seen = f.queue.observe(&strange).await.unwrap();
    let what = seen.unreadable.unwrap().problem.message;
    assert!(seen.job.is_none() && what.contains("action") && what.contains("Levitate"), "{what}");
}
