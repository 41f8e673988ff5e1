//! One BMC, one server; logins; the sweep.

use autobuild::api::hardware::{Hardware, HardwareIdentity, PowerState};
use autobuild::api::{BmcSpec, Reason};
use autobuild::job::{
    Action, JobResult, JobState, Lane, Problem, ReadThrough, Reading, ServerUid, WaitingFor,
};
use autobuild::queue::{
    BmcClaimed, BmcKey, Claimant, End, LoginEnd, LoginKey, LoginLeave, LoginPeer, ParkAs, PlaceInQueue,
    Released, Report,
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
    ("a login that works again is told to all who were refused at that BMC", |f| {
        works_again(f).boxed_local()
    }),
    ("what never logged in is tried a few times at one address, whatever its names and contents", |f| {
        at_one_address(f).boxed_local()
    }),
    ("an address that somebody wrote down is kept for nobody in another namespace", |f| {
        provisional(f).boxed_local()
    }),
    ("what a server was let in at is its own, by whatever name others come", |f| contact(f).boxed_local()),
    ("an address of which nobody was let in is given up with the next one", |f| given_up(f).boxed_local()),
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
        asked: None,
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
    // A person's word is answered by the same, once.
    let claim = async |asked: &str| {
        let who = Claimant { asked: Some(asked.to_owned()), ..claimant(&second, "ns") };
        refusal(f.queue.claim_address(who, bmc.clone()).await.unwrap());
        let known = f.queue.observe(&second).await.unwrap().known.unwrap();
        (known.version, known.reconcile_request.unwrap().value)
    };
    let no_word = claim("").await;
    let word = claim("again").await;
    assert!(word.0 > no_word.0 && word.1 == "again");
    assert_eq!(claim("again").await, word);
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
        assert_eq!(
            f.queue.begin_login_by(never.clone(), None, word(text)).await.unwrap(),
            LoginLeave::Granted
        );
        // The same word is one try, however often its job is carried out again.
        assert_eq!(
            f.queue.begin_login_by(never.clone(), None, word(text)).await.unwrap(),
            LoginLeave::Stopped
        );
        f.queue.login_refused(&never, "no").await.unwrap();
        assert_eq!(
            f.queue.begin_login_by(never.clone(), None, word(text)).await.unwrap(),
            LoginLeave::Stopped
        );
    }
    f.queue.begin_login_by(never.clone(), None, word("three")).await.unwrap();
    f.queue.end_login(&never, LoginEnd::Accepted).await.unwrap();
    assert_eq!(f.queue.begin_login(never).await.unwrap(), LoginLeave::Granted);
}

async fn works_again(f: Fixture) {
    let worker = f.worker().await;
    let invalid = || Problem::new(Reason::CredentialsInvalid, "refused twice");
    let mut uids = Vec::new();
    for (number, name) in ["first", "parked", "told", "elsewhere"].into_iter().enumerate() {
        let uid = f.server(name).await;
        let host = if name == "elsewhere" { "c" } else { "b" };
        let system = format!("/redfish/v1/Systems/{number}");
        let who = Claimant { address: format!("redfish+https://{host}:443{system}"), ..claimant(&uid, "ns") };
        let host = key(&format!("name:{host}:443"), &system);
        assert_eq!(f.queue.claim_address(who, host).await.unwrap(), BmcClaimed::Granted);
        f.enqueue(&uid, Action::Reboot, Lane::High).await;
        let job = f.claim_one(&worker, PlaceInQueue::Queued).await;
        let report = Report::Unanswered(invalid());
        if name == "told" {
            let end = End { report, ..End::new(JobResult::Failed, Some(invalid())) };
            done(f.queue.complete(job, end).await.unwrap());
        } else {
            let how = ParkAs {
                after_ms: 3_600_000,
                waiting_for: WaitingFor::Credentials,
                problem: Some(invalid()),
                secret_version: None,
                checkpoint: String::new(),
                report,
            };
            done(f.queue.park(job, how).await.unwrap());
        }
        uids.push(uid);
    }
    let login = LoginKey { bmc: "b:443".into(), secret_hash: "0".repeat(64) };
    for _ in 0..2 {
        f.queue.begin_login(login.clone()).await.unwrap();
        f.queue.login_refused(&login, "no").await.unwrap();
    }
    f.queue.begin_login_by(login.clone(), None, Some("again".into())).await.unwrap();
    f.queue.end_login(&login, LoginEnd::Accepted).await.unwrap();
    let state = async |at: usize| {
        let seen = f.queue.observe(&uids[at]).await.unwrap();
        (seen.job.map(|job| job.state), seen.known.unwrap().last_try_ms.is_some())
    };
    assert_eq!(state(1).await, (Some(JobState::Running), true), "it is ready to be claimed");
    assert_eq!(state(2).await, (None, false), "it is looked at, at once");
    assert_eq!(state(3).await, (Some(JobState::Waiting), true), "another BMC");
    // Once, and not with each login that goes well.
    let version = f.version(&uids[2]).await;
    f.queue.end_login(&login, LoginEnd::Accepted).await.unwrap();
    assert_eq!(f.version(&uids[2]).await, version);
}

async fn at_one_address(f: Fixture) {
    let peer = |addresses: &[&str], namespace: &str| {
        let addresses = addresses.iter().map(|one| (*one).to_owned()).collect();
        Some(LoginPeer { addresses, namespace: namespace.to_owned() })
    };
    let try_at = async |number: u32, peer: &Option<LoginPeer>| {
        // Another name of the BMC, and another content, each time.
        let key = LoginKey { bmc: format!("alias-{number}:443"), secret_hash: format!("{number:064}") };
        let leave =
            f.queue.begin_login_by(key.clone(), peer.clone(), Some(format!("word {number}"))).await.unwrap();
        (key, leave)
    };
    let (here, with_decoy) =
        (peer(&["192.0.2.1:443"], "guesses"), peer(&["192.0.2.9:443", "192.0.2.1:443"], "guesses"));
    for number in 0..6 {
        let (key, leave) = try_at(number, if number % 2 == 0 { &here } else { &with_decoy }).await;
        assert_eq!(leave, LoginLeave::Counted, "{number}");
        f.queue.login_refused(&key, "no").await.unwrap();
    }
    for one in [&here, &with_decoy] {
        assert!(
            matches!(try_at(6, one).await.1, LoginLeave::PeerStopped { from_ms, now_ms } if from_ms > now_ms)
        );
    }
    // Others try all the same, here and elsewhere; what is not refused is given back.
    let other = peer(&["192.0.2.1:443"], "honest");
    for number in 100..120 {
        let (key, leave) = try_at(number, &other).await;
        assert_eq!(leave, LoginLeave::Counted, "{number}");
        f.queue.end_login(&key, LoginEnd::Accepted).await.unwrap();
        f.queue.give_back_try(other.as_ref().unwrap()).await.unwrap();
        // What has logged in is never counted.
        assert_eq!(try_at(number, &here).await.1, LoginLeave::Granted);
    }
    assert_eq!(try_at(7, &peer(&["192.0.2.7:443"], "guesses")).await.1, LoginLeave::Counted);
    // All namespaces together have a bound as well.
    let mut left = 0;
    for number in 200..240 {
        let (_, leave) = try_at(number, &peer(&["192.0.2.1:443"], &format!("ns-{number}"))).await;
        left += u32::from(leave == LoginLeave::Counted);
    }
    assert_eq!(left, 6);
    let mut connection = sqlx::MySqlConnection::connect(&f.url).await.unwrap();
    sqlx::query("UPDATE login SET refused_since_ms = refused_since_ms - 900000")
        .execute(&mut connection)
        .await
        .unwrap();
    assert_eq!(try_at(8, &here).await.1, LoginLeave::Counted, "after a quarter of an hour");
}

/// Let in at its address: the machine has told what it is, and was read.
async fn let_in(f: &Fixture, who: &Claimant, keys: Vec<BmcKey>) -> BmcClaimed {
    let claimed = f.queue.claim_identity(who.clone(), keys, None).await.unwrap();
    if claimed == BmcClaimed::Granted {
        let worker = f.worker().await;
        f.enqueue(&who.uid, Action::Inspect, Lane::Background).await;
        let job = f.claim_one(&worker, PlaceInQueue::Queued).await;
        let bmc = BmcSpec { address: who.address.clone(), ..BmcSpec::default() };
        let report = Report::Through(ReadThrough::of(&bmc), Box::new(Report::Good(Box::new(reading()))));
        done(f.queue.complete(job, End { report, ..succeeded() }).await.unwrap());
    }
    claimed
}

async fn provisional(f: Fixture) {
    let (squatter, honest) = (f.server("a").await, f.server("b").await);
    let (squatter, honest) = (claimant(&squatter, "theirs"), claimant(&honest, "ours"));
    let (host, system) = (key("name:b:443", ""), key("name:b:443", "/redfish/v1/Systems/1"));
    assert_eq!(f.queue.claim_address(squatter.clone(), host.clone()).await.unwrap(), BmcClaimed::Granted);
    // Within its namespace it is told at once.
    let third = claimant(&f.server("c").await, "theirs");
    let twice = f.queue.claim_address(third, host.clone()).await.unwrap();
    assert_eq!(refusal(twice), (Reason::BMCClaimed, Some("uid-a".to_owned())));
    let honest = Claimant { address: "redfish+https://b:443/redfish/v1/Systems/1".into(), ..honest };
    assert_eq!(f.queue.claim_address(honest.clone(), system.clone()).await.unwrap(), BmcClaimed::Granted);
    let keys = vec![system.clone(), key("addr:192.0.2.1:443", "/redfish/v1/Systems/1"), key("hw:uuid:1", "")];
    assert_eq!(let_in(&f, &honest, keys.clone()).await, BmcClaimed::Granted);
    // From then on it is no longer free.
    let again = f.queue.claim_address(squatter.clone(), host.clone()).await.unwrap();
    assert_eq!(refusal(again), (Reason::BMCClaimed, None));
    // Whoever is let in has it, although somebody wrote it down later.
    let (first, second) = (claimant(&f.server("d").await, "ours"), claimant(&f.server("e").await, "theirs"));
    let text = key("name:d:443", "");
    let at = |who: &Claimant| Claimant { address: "redfish+https://d:443".into(), ..who.clone() };
    for who in [&first, &second] {
        assert_eq!(f.queue.claim_address(at(who), text.clone()).await.unwrap(), BmcClaimed::Granted);
    }
    let keys = vec![text.clone(), key("addr:192.0.2.4:443", ""), key("hw:uuid:4", "")];
    assert_eq!(let_in(&f, &at(&first), keys.clone()).await, BmcClaimed::Granted);
    assert_eq!(refusal(let_in(&f, &at(&second), keys).await), (Reason::BMCClaimed, None));
}

async fn contact(f: Fixture) {
    let (owner, other) = (claimant(&f.server("a").await, "ours"), claimant(&f.server("b").await, "theirs"));
    let other = Claimant { address: "redfish+https://alias:443".into(), ..other };
    let at = |last: u8, system: &str| key(&format!("addr:192.0.2.{last}:443"), system);
    let (one, two) = ("/redfish/v1/Systems/1", "/redfish/v1/Systems/2");
    let may = async |who: &Claimant, keys: Vec<BmcKey>| f.queue.may_contact(who.clone(), keys).await.unwrap();
    assert_eq!(may(&other, vec![at(1, one)]).await, BmcClaimed::Granted);
    assert_eq!(f.count("bmc_claim").await, 0, "who asks holds nothing");
    assert_eq!(let_in(&f, &owner, vec![at(1, one), key("hw:uuid:1", "")]).await, BmcClaimed::Granted);
    assert_eq!(may(&owner, vec![at(1, one)]).await, BmcClaimed::Granted);
    assert_eq!(may(&other, vec![at(1, two), at(2, two)]).await, BmcClaimed::Granted, "another system");
    for keys in [vec![at(1, one)], vec![at(1, "")], vec![at(9, one), at(1, one)]] {
        assert_eq!(refusal(may(&other, keys).await), (Reason::BMCClaimed, None));
    }
    assert!(f.queue.observe(&other.uid).await.unwrap().known.unwrap().refusal.is_some());
    f.queue.release(&owner.uid).await.unwrap();
    assert!(f.queue.observe(&other.uid).await.unwrap().known.unwrap().refusal.is_none(), "it is woken");
    assert_eq!(may(&other, vec![at(1, one)]).await, BmcClaimed::Granted);
}

async fn given_up(f: Fixture) {
    let owner = claimant(&f.server("a").await, "theirs");
    let at = |host: &str| Claimant { address: format!("redfish+https://{host}:443"), ..owner.clone() };
    let named = |host: &str| key(&format!("name:{host}:443"), "");
    f.queue.claim_address(at("own"), named("own")).await.unwrap();
    let keys = vec![named("own"), key("addr:192.0.2.1:443", ""), key("hw:uuid:1", "")];
    assert_eq!(let_in(&f, &at("own"), keys).await, BmcClaimed::Granted);
    // It keeps the one where it was let in, until it is let in at another one, and none on the way.
    for host in ["b", "c", "d"] {
        assert_eq!(f.queue.claim_address(at(host), named(host)).await.unwrap(), BmcClaimed::Granted);
    }
    let mut connection = sqlx::MySqlConnection::connect(&f.url).await.unwrap();
    let held: Vec<String> =
        sqlx::query_scalar("SELECT host FROM bmc_claim WHERE host LIKE 'name:%' ORDER BY host")
            .fetch_all(&mut connection)
            .await
            .unwrap();
    assert_eq!(held, ["name:d:443", "name:own:443"]);
    let honest = claimant(&f.server("b").await, "ours");
    for (host, is_free) in [("b", true), ("d", true), ("own", false)] {
        let claimed = f.queue.claim_address(honest.clone(), named(host)).await.unwrap();
        assert_eq!(claimed == BmcClaimed::Granted, is_free, "{host}");
    }
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
