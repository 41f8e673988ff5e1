//! Calls that share a transaction: each gets its own answer, and none suffers from another one.

use autobuild::api::Reason;
use autobuild::job::{
    Action, JobId, Lane, RequestKind, Step, StoredRequest, TokenKind, TokenValue, WaitingFor,
};
use autobuild::queue::{
    CancelOutcome, Effects, Enqueued, Fenced, ParkAs, Parked, PlaceInQueue, QueueError, Report,
};
use futures::FutureExt as _;
use futures::future::join_all;

use crate::Case;
use crate::fixture::{Fixture, done, job, now_ms, succeeded};

pub const CASES: &[Case] = &[
    ("of many enqueues at once the stale and the occupied ones are refused, and only those", |f| {
        mixed_enqueues(f).boxed_local()
    }),
    ("an enqueue that the database refuses fails alone", |f| refused_enqueue(f).boxed_local()),
    ("many enqueues for one server at once are one job", |f| one_server(f).boxed_local()),
    ("of many completions at once those of lost claims are refused, and only those", |f| {
        mixed_completions(f).boxed_local()
    }),
    ("a claim that was given back is refused beside the jobs that were claimed with its successor", |f| {
        earlier_claim(f).boxed_local()
    }),
    ("of many parks at once only the signalled job stays awake", |f| mixed_parks(f).boxed_local()),
    ("jobs of different servers that happen to have one id are both recorded", |f| same_id(f).boxed_local()),
    ("many advances at once give each claim its own step", |f| advances(f).boxed_local()),
    ("of many requests stored at once those of lost and cancelled claims are not, and only those", |f| {
        mixed_stores(f).boxed_local()
    }),
    ("of many requests closed at once those of lost claims are not, and only those", |f| {
        mixed_closes(f).boxed_local()
    }),
    ("a stored request that the database refuses fails alone", |f| refused_store(f).boxed_local()),
    ("calls whose caller goes away are carried out", |f| gone_away(f).boxed_local()),
];

const COUNT: usize = 60;

async fn mixed_enqueues(f: Fixture) {
    let mut servers = Vec::new();
    for number in 0..COUNT {
        let uid = f.server(&format!("{number:03}")).await;
        if number % 3 == 1 {
            f.enqueue(&uid, Action::Reboot, Lane::Low).await;
        }
        let version = f.version(&uid).await;
        servers.push((uid, if number % 3 == 2 { version - 1 } else { version }));
    }
    let answers = join_all(servers.iter().map(async |(uid, version)| {
        let wanted = job(uid, Action::PowerOn, Lane::High, JobId::new(now_ms(), rand::random()));
        f.queue.enqueue(wanted, *version).await.unwrap()
    }))
    .await;
    for (number, answer) in answers.into_iter().enumerate() {
        let expected = [Enqueued::Accepted, Enqueued::Occupied, Enqueued::Stale][number % 3];
        assert_eq!(answer, expected, "{number}");
    }
    let live = 2 * COUNT as i64 / 3;
    assert_eq!((f.count("job").await, f.count("queue").await), (live, live));
}

async fn earlier_claim(f: Fixture) {
    let worker = f.worker().await;
    let mut earlier = Vec::new();
    for name in ["one", "other"] {
        let uid = f.server(name).await;
        f.enqueue(&uid, Action::PowerOn, Lane::Normal).await;
        earlier.push(f.claim_one(&worker, PlaceInQueue::Queued).await);
    }
    for claim in &earlier {
        done(f.queue.hand_back(claim.clone()).await.unwrap());
    }
    let mut again = f.claim(&worker, PlaceInQueue::Ready, Lane::Normal, 2).await;
    again.sort_by(|a, b| a.uid().cmp(b.uid()));
    let old = earlier.remove(0);
    let [one, other] = &again[..] else { panic!("both are claimed again") };
    assert_eq!(old.uid(), one.uid());
    let (refused, ended) =
        tokio::join!(f.queue.complete(old, succeeded()), f.queue.complete(other.clone(), succeeded()),);
    assert_eq!((refused.unwrap(), ended.unwrap()), (Fenced::Lost, Fenced::Done(())));
    assert_eq!(f.count("job_history").await, 1);
    assert_eq!(f.queue.complete(one.clone(), succeeded()).await.unwrap(), Fenced::Done(()));
}

async fn refused_enqueue(f: Fixture) {
    let mut servers = Vec::new();
    for number in 0..COUNT {
        servers.push(f.server(&number.to_string()).await);
    }
    let answers = join_all(servers.iter().enumerate().map(async |(number, uid)| {
        let mut wanted = job(uid, Action::PowerOn, Lane::High, JobId::new(now_ms(), rand::random()));
        if number == 7 {
            wanted.requester = "x".repeat(300);
        }
        f.queue.enqueue(wanted, 1).await
    }))
    .await;
    for (number, answer) in answers.into_iter().enumerate() {
        match (number, answer) {
            (7, Err(QueueError::Refused(_))) => {}
            (7, other) => panic!("too long a text was {other:?}"),
            (_, answer) => assert_eq!(answer.unwrap(), Enqueued::Accepted, "{number}"),
        }
    }
    assert_eq!(f.count("job").await, COUNT as i64 - 1);
}

async fn one_server(f: Fixture) {
    let uid = f.server("a").await;
    let answers = join_all((0..COUNT).map(async |_| {
        let wanted = job(&uid, Action::Reboot, Lane::High, JobId::new(now_ms(), rand::random()));
        f.queue.enqueue(wanted, 1).await.unwrap()
    }))
    .await;
    assert_eq!(answers.into_iter().filter(|answer| *answer == Enqueued::Accepted).count(), 1);
    assert_eq!((f.count("job").await, f.count("queue").await, f.version(&uid).await), (1, 1, 2));
}

async fn claims(f: &Fixture) -> Vec<autobuild::queue::Claim> {
    let mut servers = Vec::new();
    for number in 0..COUNT {
        servers.push(f.server(&format!("{number:03}")).await);
    }
    for uid in &servers {
        f.enqueue(uid, Action::Reboot, Lane::High).await;
    }
    let worker = f.worker().await;
    let mut claims = f.claim(&worker, PlaceInQueue::Queued, Lane::High, COUNT as u32).await;
    claims.sort_by(|a, b| a.uid().cmp(b.uid()));
    assert_eq!(claims.len(), COUNT);
    claims
}

async fn mixed_completions(f: Fixture) {
    let claims = claims(&f).await;
    let other = f.worker().await;
    for claim in claims.iter().step_by(4) {
        done(f.queue.hand_back(claim.clone()).await.unwrap());
    }
    let again = f.claim(&other, PlaceInQueue::Ready, Lane::High, COUNT as u32).await;
    let answers =
        join_all(claims.into_iter().map(async |claim| f.queue.complete(claim, succeeded()).await.unwrap()))
            .await;
    for (number, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer, if number % 4 == 0 { Fenced::Lost } else { Fenced::Done(()) }, "{number}");
    }
    assert_eq!(f.count("job").await, again.len() as i64);
    join_all(again.into_iter().map(async |claim| done(f.queue.complete(claim, succeeded()).await.unwrap())))
        .await;
    assert_eq!((f.count("job").await, f.count("job_history").await), (0, COUNT as i64));
}

fn asleep() -> ParkAs {
    ParkAs {
        after_ms: 3_600_000,
        waiting_for: WaitingFor::PowerState,
        problem: None,
        secret_version: None,
        checkpoint: String::new(),
        report: Report::Nothing,
    }
}

async fn mixed_parks(f: Fixture) {
    let claims = claims(&f).await;
    f.queue.signal(claims[9].uid(), claims[9].job().id).await.unwrap();
    let answers = join_all(claims.into_iter().enumerate().map(async |(number, claim)| {
        let how = ParkAs { checkpoint: format!("of {number}"), ..asleep() };
        done(f.queue.park(claim, how).await.unwrap())
    }))
    .await;
    for (number, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer, if number == 9 { Parked::AwakeAgain } else { Parked::Asleep }, "{number}");
    }
    let worker = f.worker().await;
    let awake = f.claim(&worker, PlaceInQueue::Ready, Lane::High, COUNT as u32).await;
    assert_eq!(awake.iter().map(autobuild::queue::Claim::checkpoint).collect::<Vec<_>>(), ["of 9"]);
    assert_eq!(f.count("queue").await, COUNT as i64 - 1);
}

async fn same_id(f: Fixture) {
    let id = JobId::new(now_ms(), 7);
    for (number, lane) in [Lane::Low, Lane::High].into_iter().enumerate() {
        let uid = f.server(&number.to_string()).await;
        assert_eq!(
            f.queue.enqueue(job(&uid, Action::PowerOn, lane, id), 1).await.unwrap(),
            Enqueued::Accepted
        );
    }
    let worker = f.worker().await;
    for lane in [Lane::Low, Lane::High] {
        let claim = f.claim(&worker, PlaceInQueue::Queued, lane, 1).await.pop().unwrap();
        done(f.queue.complete(claim, succeeded()).await.unwrap());
    }
    assert_eq!((f.count("job").await, f.count("job_history").await), (0, 2));
}

async fn advances(f: Fixture) {
    let claims = claims(&f).await;
    let advanced = join_all(claims.into_iter().enumerate().map(async |(number, claim)| {
        let uid = claim.uid().clone();
        let claim =
            done(f.queue.advance(claim, Step::On, format!("{number}"), Report::Nothing).await.unwrap());
        assert_eq!((claim.uid(), claim.job().step), (&uid, Step::On));
        claim
    }))
    .await;
    for (number, claim) in advanced.into_iter().enumerate() {
        assert_eq!(claim.checkpoint(), number.to_string());
        // What advance returned is the row as it is: the next write of this claim is accepted.
        done(f.queue.complete(claim, succeeded()).await.unwrap());
    }
    assert_eq!(f.count("job_history").await, COUNT as i64);
}

fn off() -> StoredRequest {
    StoredRequest { kind: RequestKind::ForceOff, settle_ms: 10_000 }
}

/// The first claim is another worker's by now, the second one was asked to stop.
async fn lose_and_cancel(f: &Fixture, claims: &[autobuild::queue::Claim]) {
    done(f.queue.hand_back(claims[0].clone()).await.unwrap());
    let other = f.worker().await;
    assert_eq!(f.claim(&other, PlaceInQueue::Ready, Lane::High, 1).await.len(), 1);
    let outcome = f.queue.cancel(claims[1].uid(), claims[1].job().id, Reason::Paused).await.unwrap();
    assert_eq!(outcome, CancelOutcome::Stored);
}

async fn mixed_stores(f: Fixture) {
    let claims = claims(&f).await;
    lose_and_cancel(&f, &claims).await;
    let answers = join_all(claims.iter().enumerate().map(async |(number, claim)| {
        // A request without a token raises the version as one with a token does.
        let token = (number % 5 != 2).then(|| TokenValue::reboot(format!("t{number}")));
        f.queue
            .store_request(claim.clone(), off(), format!("{number}"), Effects::handling(token))
            .await
            .unwrap()
    }))
    .await;
    for (number, (answer, before)) in answers.into_iter().zip(&claims).enumerate() {
        let seen = f.queue.observe(before.uid()).await.unwrap();
        let (known, job) = (seen.known.unwrap(), seen.job.unwrap());
        let handled = known.handled.is_handled(TokenKind::Reboot, Some(&format!("t{number}")));
        assert_eq!((job.request_stored, handled), (number > 1, number > 1 && number % 5 != 2), "{number}");
        let Fenced::Done(claim) = answer else {
            assert_eq!(number, 0);
            continue;
        };
        assert_eq!(claim.uid(), before.uid());
        if number == 1 {
            assert_eq!((claim.cancel(), claim.request()), (Some(Reason::Paused), None));
            continue;
        }
        assert!(seen.in_feed && known.version == 4, "{number}: {}", known.version);
        assert_eq!((claim.request(), claim.checkpoint()), (Some(&off()), &*format!("{number}")));
        assert_eq!((claim.job().request_stored, claim.cancel()), (true, None));
        // What was returned is the row as it is: the next write of this claim is accepted.
        let claim = done(f.queue.close_request(claim, String::new()).await.unwrap());
        done(f.queue.complete(claim, succeeded()).await.unwrap());
    }
}

async fn mixed_closes(f: Fixture) {
    let claims = join_all(claims(&f).await.into_iter().map(async |claim| {
        done(f.queue.store_request(claim, off(), "stored".to_owned(), Effects::default()).await.unwrap())
    }))
    .await;
    lose_and_cancel(&f, &claims).await;
    let answers = join_all(claims.iter().enumerate().map(async |(number, claim)| {
        f.queue.close_request(claim.clone(), format!("{number}")).await.unwrap()
    }))
    .await;
    for (number, answer) in answers.into_iter().enumerate() {
        let Fenced::Done(claim) = answer else {
            assert_eq!(number, 0);
            continue;
        };
        // One that was asked to stop is closed as any other: its answer came.
        assert_eq!(claim.cancel(), (number == 1).then_some(Reason::Paused), "{number}");
        assert_eq!((claim.request(), claim.checkpoint()), (None, &*format!("{number}")));
        assert!(claim.job().request_stored, "that something was sent is not forgotten");
        done(f.queue.complete(claim, succeeded()).await.unwrap());
    }
    let left = f.queue.observe(claims[0].uid()).await.unwrap().job.unwrap();
    assert_eq!((left.id, f.count("job").await), (claims[0].job().id, 1));
}

async fn refused_store(f: Fixture) {
    let claims = claims(&f).await;
    let answers = join_all(claims.into_iter().enumerate().map(async |(number, claim)| {
        let checkpoint = "x".repeat(if number == 7 { 70_000 } else { 7 });
        f.queue.store_request(claim, off(), checkpoint, Effects::handling([TokenValue::reboot("t")])).await
    }))
    .await;
    for (number, answer) in answers.into_iter().enumerate() {
        match (number, answer) {
            (7, Err(QueueError::Refused(_))) => {}
            (7, other) => panic!("too long a checkpoint was {other:?}"),
            (_, answer) => assert_eq!(done(answer.unwrap()).request(), Some(&off()), "{number}"),
        }
    }
}

async fn gone_away(f: Fixture) {
    let claims = claims(&f).await;
    for claim in claims {
        let call = f.queue.complete(claim, succeeded());
        // Polled once: the call is made, and nobody waits for its answer.
        assert!(call.now_or_never().is_none());
    }
    crate::fixture::wait_for("the completions", async || f.count("job_history").await == COUNT as i64).await;
    assert_eq!(f.count("job").await, 0);
}
