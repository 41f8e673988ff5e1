//! One BMC, one server; logins; the sweep.

use autobuild::api::hardware::{Hardware, HardwareIdentity, PowerState};
use autobuild::api::{BmcSpec, Reason};
use autobuild::job::{Action, Lane, Problem, ReadThrough, Reading, ServerUid};
use autobuild::queue::{
    BmcClaimed, BmcKey, Claimant, End, LoginEnd, LoginKey, LoginLeave, PlaceInQueue, Released, Report,
};
use futures::FutureExt as _;
use sqlx::Connection as _;

use crate::Case;
use crate::fixture::{Fixture, done, succeeded};

pub const CASES: &[Case] = &[
    ("the second server with one BMC is refused, and woken when the first one goes", |f| {
        refused(f).boxed_local()
    }),
    ("a refusal whose cause is gone is forgiven even if the wake-up was lost", |f| orphan(f).boxed_local()),
    ("a holder in another namespace is not named", |f| unnamed(f).boxed_local()),
    ("a whole host and one of its systems exclude each other", |f| whole_host(f).boxed_local()),
    ("what was read belongs to no address once another one was claimed, and this one again", |f| {
        claimed_again(f).boxed_local()
    }),
    ("twenty servers that claim one machine at once: one gets it", |f| race(f).boxed_local()),
    ("what is claimed already is found by a look, which forgets no refusal", |f| {
        found_again(f).boxed_local()
    }),
    ("a server with a live job is not released", |f| still_live(f).boxed_local()),
    ("wrong credentials stop after two tries, whoever makes them", |f| two_tries(f).boxed_local()),
    ("a content that logged in before is stopped only by refusals", |f| known_content(f).boxed_local()),
    ("a content that logged in before is tried again at growing intervals, once for all", |f| {
        tried_again(f).boxed_local()
    }),
    ("a content that never logged in is tried again by a person's word alone, once for each", |f| {
        by_word(f).boxed_local()
    }),
    ("a job in no queue row is found and made ready", |f| swept(f).boxed_local()),
    ("the owner of a job that is in no registry is found", |f| vanished(f).boxed_local()),
    ("history is trimmed oldest first and in small pieces", |f| trimmed(f).boxed_local()),
];

fn claimant(uid: &ServerUid, namespace: &str) -> Claimant {
    Claimant {
        uid: uid.clone(),
        namespace: namespace.into(),
        name: uid.0.clone(),
        address: "redfish+https://b:443".into(),
    }
}

fn key(host: &str, system: &str) -> BmcKey {
    BmcKey { host: host.to_owned(), system: system.to_owned() }
}

fn refusal(claimed: BmcClaimed) -> (Reason, Option<String>) {
    match claimed {
        BmcClaimed::Refused(refusal) => (refusal.reason, refusal.holder),
        other => panic!("{other:?}"),
    }
}

async fn refused(f: Fixture) {
    let (first, second) = (f.server("a").await, f.server("b").await);
    let bmc = key("name:b:443", "/redfish/v1/Systems/1");
    assert_eq!(
        f.queue.claim_address(claimant(&first, "ns"), bmc.clone()).await.unwrap(),
        BmcClaimed::Granted
    );
    let again = f.queue.claim_address(claimant(&second, "ns"), bmc.clone()).await.unwrap();
    assert_eq!(refusal(again), (Reason::BMCClaimed, Some("uid-a".to_owned())));
    let before = f.queue.observe(&second).await.unwrap().known.unwrap();
    assert!(before.refusal.is_some());
    assert_eq!(f.queue.release(&first).await.unwrap(), Released::Released);
    assert_eq!(f.queue.observe(&first).await.unwrap().known, None);
    let after = f.queue.observe(&second).await.unwrap().known.unwrap();
    assert!(after.refusal.is_none() && after.version > before.version);
    assert_eq!(f.queue.claim_address(claimant(&second, "ns"), bmc).await.unwrap(), BmcClaimed::Granted);
    let known = f.queue.observe(&second).await.unwrap().known.unwrap();
    assert_eq!(known.claimed_address.as_deref(), Some("redfish+https://b:443"));
}

async fn orphan(f: Fixture) {
    let (first, second) = (f.server("a").await, f.server("b").await);
    f.queue.claim_address(claimant(&first, "ns"), key("name:b:443", "")).await.unwrap();
    refusal(f.queue.claim_address(claimant(&second, "ns"), key("name:b:443", "")).await.unwrap());
    assert_eq!(f.queue.forgive_orphans(10).await.unwrap(), 0);
    let mut connection = sqlx::MySqlConnection::connect(&f.url).await.unwrap();
    sqlx::query("DELETE FROM bmc_claim").execute(&mut connection).await.unwrap();
    assert_eq!(f.queue.forgive_orphans(10).await.unwrap(), 1);
    assert!(f.queue.observe(&second).await.unwrap().known.unwrap().refusal.is_none());
    assert_eq!(f.queue.forgive_orphans(10).await.unwrap(), 0);
}

async fn unnamed(f: Fixture) {
    let (first, second) = (f.server("a").await, f.server("b").await);
    f.queue.claim_identity(claimant(&first, "theirs"), vec![key("hw:SN1", "")], None).await.unwrap();
    let second =
        f.queue.claim_identity(claimant(&second, "ours"), vec![key("hw:SN1", "")], None).await.unwrap();
    assert_eq!(refusal(second), (Reason::IdentityConflict, None));
}

async fn whole_host(f: Fixture) {
    let (first, second, third) = (f.server("a").await, f.server("b").await, f.server("c").await);
    let system = |number: u8| key("name:b:443", &format!("/redfish/v1/Systems/{number}"));
    assert_eq!(f.queue.claim_address(claimant(&first, "ns"), system(1)).await.unwrap(), BmcClaimed::Granted);
    assert_eq!(f.queue.claim_address(claimant(&second, "ns"), system(2)).await.unwrap(), BmcClaimed::Granted);
    refusal(f.queue.claim_address(claimant(&third, "ns"), key("name:b:443", "")).await.unwrap());
}

fn reading() -> Reading {
    Reading {
        power: PowerState::PoweredOn,
        identity: HardwareIdentity::default(),
        hardware: Hardware::default(),
        last_reset_time: None,
    }
}

async fn claimed_again(f: Fixture) {
    let uid = f.server("a").await;
    let bmc = BmcSpec { address: "redfish+https://b:443".into(), ..BmcSpec::default() };
    let through = ReadThrough::of(&bmc);
    let worker = f.worker().await;
    let claim = async |address: &str| {
        let who = Claimant { address: address.into(), ..claimant(&uid, "ns") };
        let host = address.trim_start_matches("redfish+https://");
        assert_eq!(
            f.queue.claim_address(who, key(&format!("name:{host}"), "")).await.unwrap(),
            BmcClaimed::Granted
        );
    };
    let looked = async |report: Report| {
        f.enqueue(&uid, Action::Inspect, Lane::Background).await;
        let job = f.claim_one(&worker, PlaceInQueue::Queued).await;
        let report = Report::Through(through.clone(), Box::new(report));
        done(f.queue.complete(job, End { report, ..succeeded() }).await.unwrap());
    };
    let known = async || f.queue.observe(&uid).await.unwrap().known.unwrap();
    claim("redfish+https://b:443").await;
    looked(Report::Good(Box::new(reading()))).await;
    looked(Report::Unanswered(Problem::new(Reason::Unreachable, "no route"))).await;
    // The same address again is no other one.
    claim("redfish+https://b:443").await;
    assert_eq!(known().await.read_through.as_ref(), Some(&through));
    claim("redfish+https://c:443").await;
    claim("redfish+https://b:443").await;
    let after = known().await;
    assert_eq!(after.read_through, Some(ReadThrough::nothing()));
    assert_eq!(after.unanswered.unwrap().through, Some(ReadThrough::nothing()));
    assert!(after.reading.is_some(), "and it is not forgotten");
}

async fn race(f: Fixture) {
    let mut claims = Vec::new();
    for number in 0..20 {
        let uid = f.server(&number.to_string()).await;
        let queue = f.queue.clone();
        claims.push(tokio::spawn(async move {
            let keys = vec![key("addr:192.0.2.1:443", "/redfish/v1/Systems/1"), key("hw:SN1", "")];
            queue.claim_identity(claimant(&uid, "ns"), keys, None).await.unwrap()
        }));
    }
    let outcomes = futures::future::join_all(claims).await;
    let granted = outcomes.iter().filter(|it| matches!(it, Ok(BmcClaimed::Granted))).count();
    assert_eq!((granted, f.count("bmc_claim").await), (1, 2));
}

async fn found_again(f: Fixture) {
    let (first, second) = (f.server("a").await, f.server("b").await);
    let claim = async |uid: &ServerUid, hosts: &[&str]| {
        let keys = hosts.iter().map(|host| key(host, "")).collect();
        f.queue.claim_identity(claimant(uid, "ns"), keys, None).await.unwrap()
    };
    for _ in 0..2 {
        assert_eq!(claim(&first, &["addr:1:443", "hw:uuid:1"]).await, BmcClaimed::Granted);
        assert_eq!(claim(&second, &["addr:2:443", "hw:uuid:2"]).await, BmcClaimed::Granted);
        // One of two is not enough.
        let taken = refusal(claim(&second, &["addr:2:443", "hw:uuid:1"]).await);
        assert_eq!(taken, (Reason::IdentityConflict, Some("uid-a".to_owned())));
        assert!(f.queue.observe(&second).await.unwrap().known.unwrap().refusal.is_some());
        assert_eq!(claim(&second, &["addr:2:443", "hw:uuid:2"]).await, BmcClaimed::Granted);
        assert!(f.queue.observe(&second).await.unwrap().known.unwrap().refusal.is_none());
    }
    let nobody = ServerUid("uid-c".to_owned());
    assert_eq!(claim(&nobody, &["addr:1:443"]).await, BmcClaimed::Unknown);
}

async fn still_live(f: Fixture) {
    let uid = f.server("a").await;
    f.enqueue(&uid, Action::Reboot, Lane::High).await;
    assert_eq!(f.queue.release(&uid).await.unwrap(), Released::StillLive);
    let worker = f.worker().await;
    let claim = f.claim_one(&worker, PlaceInQueue::Queued).await;
    assert_eq!(f.queue.release(&uid).await.unwrap(), Released::StillLive);
    done(f.queue.complete(claim, succeeded()).await.unwrap());
    assert_eq!(f.queue.release(&uid).await.unwrap(), Released::Released);
    assert_eq!(f.count("server_state").await, 0);
}

async fn two_tries(f: Fixture) {
    let wrong = LoginKey { bmc: "b:443".to_owned(), secret_hash: "0".repeat(64) };
    for _ in 0..2 {
        assert_eq!(f.queue.begin_login(wrong.clone()).await.unwrap(), LoginLeave::Granted);
    }
    // Two are under way and nobody knows yet: a third one waits.
    assert_eq!(f.queue.begin_login(wrong.clone()).await.unwrap(), LoginLeave::Later);
    for _ in 0..2 {
        f.queue.end_login(&wrong, LoginEnd::Refused).await.unwrap();
    }
    assert_eq!(f.queue.begin_login(wrong.clone()).await.unwrap(), LoginLeave::Stopped);
    let mended = LoginKey { secret_hash: "1".repeat(64), ..wrong };
    assert_eq!(f.queue.begin_login(mended.clone()).await.unwrap(), LoginLeave::Granted);
    // A BMC that does not answer says nothing about the password.
    for _ in 0..5 {
        f.queue.end_login(&mended, LoginEnd::Unanswered).await.unwrap();
        assert_eq!(f.queue.begin_login(mended.clone()).await.unwrap(), LoginLeave::Granted);
    }
}

async fn known_content(f: Fixture) {
    let key = LoginKey { bmc: "b:443".to_owned(), secret_hash: "0".repeat(64) };
    f.queue.begin_login(key.clone()).await.unwrap();
    f.queue.end_login(&key, LoginEnd::Accepted).await.unwrap();
    for _ in 0..10 {
        assert_eq!(f.queue.begin_login(key.clone()).await.unwrap(), LoginLeave::Granted);
    }
    f.queue.end_login(&key, LoginEnd::Refused).await.unwrap();
    f.queue.end_login(&key, LoginEnd::Accepted).await.unwrap();
    for _ in 0..2 {
        assert_eq!(f.queue.begin_login(key.clone()).await.unwrap(), LoginLeave::Granted);
        f.queue.end_login(&key, LoginEnd::Refused).await.unwrap();
    }
    assert_eq!(f.queue.begin_login(key).await.unwrap(), LoginLeave::Stopped);
}

/// As if so much time had passed since the last refusal.
async fn minutes_pass(f: &Fixture, minutes: i64) {
    let mut connection = sqlx::MySqlConnection::connect(&f.url).await.unwrap();
    let text = "UPDATE login SET next_try_ms = next_try_ms - ?";
    sqlx::query(text).bind(minutes * 60_000).execute(&mut connection).await.unwrap();
}

async fn tried_again(f: Fixture) {
    let key = LoginKey { bmc: "b:443".to_owned(), secret_hash: "0".repeat(64) };
    f.queue.begin_login(key.clone()).await.unwrap();
    f.queue.end_login(&key, LoginEnd::Accepted).await.unwrap();
    for said in ["the default password must be changed", "unauthorized"] {
        f.queue.begin_login(key.clone()).await.unwrap();
        f.queue.login_refused(&key, said).await.unwrap();
    }
    let refused = f.queue.refused_login(&key).await.unwrap().unwrap();
    assert_eq!((refused.failures, refused.said.as_str()), (2, "the default password must be changed"));
    let since = refused.since_ms.unwrap();
    // The time until the next try grows, and each time there is one try for all who share the content.
    for minutes in [15, 30, 60, 60] {
        minutes_pass(&f, minutes - 1).await;
        assert_eq!(f.queue.begin_login(key.clone()).await.unwrap(), LoginLeave::Stopped, "{minutes}");
        minutes_pass(&f, 2).await;
        assert_eq!(f.queue.begin_login(key.clone()).await.unwrap(), LoginLeave::Granted, "{minutes}");
        assert_eq!(f.queue.begin_login(key.clone()).await.unwrap(), LoginLeave::Stopped, "{minutes}");
        f.queue.login_refused(&key, "unauthorized").await.unwrap();
    }
    let refused = f.queue.refused_login(&key).await.unwrap().unwrap();
    assert_eq!((refused.failures, refused.since_ms), (6, Some(since)));
    // A try that the BMC did not answer counts for none.
    minutes_pass(&f, 61).await;
    assert_eq!(f.queue.begin_login(key.clone()).await.unwrap(), LoginLeave::Granted);
    f.queue.end_login(&key, LoginEnd::Unanswered).await.unwrap();
    minutes_pass(&f, 2).await;
    assert_eq!(f.queue.begin_login(key.clone()).await.unwrap(), LoginLeave::Granted);
    f.queue.end_login(&key, LoginEnd::Accepted).await.unwrap();
    assert_eq!(f.queue.refused_login(&key).await.unwrap(), None);
    assert_eq!(f.queue.begin_login(key.clone()).await.unwrap(), LoginLeave::Granted);
}

async fn by_word(f: Fixture) {
    let never = LoginKey { bmc: "b:443".to_owned(), secret_hash: "0".repeat(64) };
    let word = |text: &str| Some(text.to_owned());
    for _ in 0..2 {
        f.queue.begin_login(never.clone()).await.unwrap();
        f.queue.login_refused(&never, "no").await.unwrap();
    }
    assert_eq!(f.queue.refused_login(&never).await.unwrap().unwrap().next_try_ms, None);
    minutes_pass(&f, 600).await;
    assert_eq!(f.queue.begin_login(never.clone()).await.unwrap(), LoginLeave::Stopped);
    for text in ["one", "two"] {
        assert_eq!(f.queue.begin_login_by(never.clone(), word(text)).await.unwrap(), LoginLeave::Granted);
        // The same word is one try, however often its job is carried out again.
        assert_eq!(f.queue.begin_login_by(never.clone(), word(text)).await.unwrap(), LoginLeave::Stopped);
        f.queue.login_refused(&never, "no").await.unwrap();
        assert_eq!(f.queue.begin_login_by(never.clone(), word(text)).await.unwrap(), LoginLeave::Stopped);
    }
    f.queue.begin_login_by(never.clone(), word("three")).await.unwrap();
    f.queue.end_login(&never, LoginEnd::Accepted).await.unwrap();
    assert_eq!(f.queue.begin_login(never).await.unwrap(), LoginLeave::Granted);
}

async fn swept(f: Fixture) {
    let uid = f.server("a").await;
    let id = f.enqueue(&uid, Action::Reboot, Lane::High).await;
    assert_eq!(f.queue.sweep(None).await.unwrap().requeued, 0);
    let mut connection = sqlx::MySqlConnection::connect(&f.url).await.unwrap();
    sqlx::query("DELETE FROM queue").execute(&mut connection).await.unwrap();
    assert_eq!(f.queue.sweep(None).await.unwrap().requeued, 1);
    assert_eq!(f.queue.sweep(None).await.unwrap().requeued, 0);
    let worker = f.worker().await;
    assert_eq!(f.claim_one(&worker, PlaceInQueue::Ready).await.job().id, id);
}

async fn vanished(f: Fixture) {
    let uid = f.server("a").await;
    f.enqueue(&uid, Action::Reboot, Lane::High).await;
    let worker = f.worker().await;
    f.claim_one(&worker, PlaceInQueue::Queued).await;
    assert_eq!(f.queue.sweep(None).await.unwrap().vanished_owners, []);
    let mut connection = sqlx::MySqlConnection::connect(&f.url).await.unwrap();
    sqlx::query("DELETE FROM worker").execute(&mut connection).await.unwrap();
    let found = f.queue.sweep(None).await.unwrap().vanished_owners;
    assert_eq!(found, [worker.incarnation()]);
    assert_eq!(f.queue.take_over(found[0]).await.unwrap(), 1);
    let other = f.worker().await;
    f.claim_one(&other, PlaceInQueue::Ready).await;
}

async fn trimmed(f: Fixture) {
    let worker = f.worker().await;
    for number in 0..5 {
        let uid = f.server(&number.to_string()).await;
        f.enqueue(&uid, Action::Reboot, Lane::High).await;
        let claim = f.claim_one(&worker, PlaceInQueue::Queued).await;
        done(f.queue.complete(claim, succeeded()).await.unwrap());
    }
    assert_eq!(f.queue.trim_history(0, 100).await.unwrap(), 0);
    assert_eq!(f.queue.trim_history(i64::MAX, 3).await.unwrap(), 3);
    assert_eq!(f.queue.trim_history(i64::MAX, 3).await.unwrap(), 2);
}
