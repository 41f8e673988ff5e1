//! Boot sessions: what a machine boots while a job installs it, and what it tells.

use autobuild::api::Reason;
use autobuild::api::hardware::{Hardware, HardwareIdentity, PowerState};
use autobuild::job::{
    Action, BootPurpose, Contents, InstallProgress, InstalledImage, JobId, JobResult, JobState, Lane, Origin,
    PermitClass, Problem, Reading, RequestKind, ServerUid, Step, StoredRequest, TokenKind, TokenValue,
    WaitingFor,
};
use autobuild::queue::{
    AtMac, CallHome, CancelOutcome, Claim, ContentsAfter, Disks, Effects, End, Heard, Heart, Installed,
    NewBootSession, ParkAs, PlaceInQueue, QueueError, Report,
};
use futures::FutureExt as _;
use futures::future::join_all;
use sqlx::Connection as _;

use crate::Case;
use crate::fixture::{Fixture, SITE, done, succeeded};

pub const CASES: &[Case] = &[
    ("a boot session serves from its request on, while its job lives without a cancel mark", |f| {
        serves(f).boxed_local()
    }),
    ("the fetch of a script wakes its job, and nobody knows the disks from then on", |f| {
        fetched(f).boxed_local()
    }),
    ("only the newest token opens a session", |f| newest_token(f).boxed_local()),
    ("a medium is read by a token of its own, and only its first reading is told", |f| {
        medium(f).boxed_local()
    }),
    ("no script and no medium is given in a history that nobody has derived", |f| underived(f).boxed_local()),
    ("a script is given in one history, and what its machine tells is heard in each", |f| {
        in_one_history(f).boxed_local()
    }),
    ("progress is kept and shown, told once in five seconds, and wakes nobody", |f| {
        progress(f).boxed_local()
    }),
    ("an installation is told once, and what comes later changes nothing", |f| once(f).boxed_local()),
    ("a call for an older installation of the same machine changes nothing", |f| older(f).boxed_local()),
    ("a MAC address boots one machine at a time, and the others of the batch are stored", |f| {
        one_mac(f).boxed_local()
    }),
    ("every way out of an installation ends its session", |f| ways_out(f).boxed_local()),
    ("what was installed is known from the end of the job on", |f| installed(f).boxed_local()),
    ("a machine that was seen running is never blank again", |f| foreign(f).boxed_local()),
    ("a start into an installer leaves what is known of the disks until something is given", |f| {
        started(f).boxed_local()
    }),
    ("a machine that counted as blank does so no more once it is started", |f| blank(f).boxed_local()),
    ("a medium that was read before or after the start puts the disks in doubt", |f| {
        read_media(f).boxed_local()
    }),
    ("disks count as erased by the end of a job that erased them, and by no other end", |f| {
        not_erased(f).boxed_local()
    }),
];

fn session(mac: &str) -> NewBootSession {
    let (mac, image, digest) = (mac.to_owned(), "debian".to_owned(), "sha256:1".to_owned());
    NewBootSession { mac, image, digest, purpose: BootPurpose::Install, media_hash: None }
}

const MAC: &str = "52:54:00:00:00:01";

fn publishing(mac: &str) -> Effects {
    Effects { session: Some(session(mac)), ..Effects::handling([TokenValue::reimage("t")]) }
}

fn request(kind: RequestKind) -> StoredRequest {
    StoredRequest { kind, settle_ms: 1000 }
}

impl Fixture {
    /// An installation that a worker has begun to look at.
    async fn begun(&self, name: &str) -> (Heart, Claim) {
        self.queue.set_permits(SITE, PermitClass::Install, 50).await.unwrap();
        let uid = self.server(name).await;
        self.reimage(&uid).await
    }

    async fn reimage(&self, uid: &ServerUid) -> (Heart, Claim) {
        self.enqueue(uid, Action::Reimage, Lane::Normal).await;
        let worker = self.worker().await;
        let claim = self.claim_one(&worker, PlaceInQueue::QueuedBounded).await;
        (worker, claim)
    }

    /// One whose boot session is published.
    async fn published(&self, name: &str, mac: &str) -> (Heart, Claim) {
        let (worker, claim) = self.begun(name).await;
        (worker, self.publish(claim, mac).await)
    }

    async fn publish(&self, claim: Claim, mac: &str) -> Claim {
        let stored = request(RequestKind::BootFromNetworkOnce);
        let claim =
            done(self.queue.store_request(claim, stored, String::new(), publishing(mac)).await.unwrap());
        done(self.queue.close_request(claim, String::new()).await.unwrap())
    }

    async fn park(&self, claim: Claim, waiting_for: WaitingFor) {
        let how = ParkAs {
            after_ms: 600_000,
            waiting_for,
            problem: None,
            secret_version: None,
            checkpoint: String::new(),
            report: Report::Nothing,
        };
        done(self.queue.park(claim, how).await.unwrap());
    }

    async fn tell(&self, uid: &ServerUid, job: JobId, what: CallHome) -> Heard {
        self.queue.call_home(uid, job, None, what).await.unwrap()
    }

    async fn contents(&self, uid: &ServerUid) -> Option<Contents> {
        self.queue.observe(uid).await.unwrap().known.unwrap().contents
    }

    async fn serves_at(&self, mac: &str) -> bool {
        matches!(self.queue.boot_at_mac(mac).await.unwrap(), AtMac::Armed(_))
    }
}

fn fetch(hash: &str) -> CallHome {
    CallHome::ScriptFetched { token_hash: hash.to_owned(), data_version: "d".to_owned() }
}

async fn serves(f: Fixture) {
    assert_eq!(f.queue.boot_at_mac(MAC).await.unwrap(), AtMac::Unknown);
    let (_, claim) = f.published("a", MAC).await;
    let AtMac::Armed(found) = f.queue.boot_at_mac(MAC).await.unwrap() else { panic!("nothing serves") };
    assert_eq!((&found.uid, found.job, &found.what), (claim.uid(), claim.job().id, &session(MAC)));
    assert_eq!((found.namespace.as_str(), found.name.as_str()), ("ns", "a"));
    let known = f.queue.observe(claim.uid()).await.unwrap().known.unwrap();
    assert!(known.handled.is_handled(TokenKind::Reimage, Some("t")));
    assert!(!known.handled.is_handled(TokenKind::Reboot, Some("t")));
    assert_eq!(known.contents, None, "nothing was started yet");
    let stopped = f.queue.cancel(claim.uid(), claim.job().id, Reason::WishChanged).await.unwrap();
    assert_eq!(stopped, CancelOutcome::Stored);
    assert_eq!(f.queue.boot_at_mac(MAC).await.unwrap(), AtMac::Idle);
    assert_eq!(f.tell(claim.uid(), claim.job().id, fetch("h")).await, Heard::Refused);
}

async fn fetched(f: Fixture) {
    let (_, claim) = f.published("a", MAC).await;
    let (uid, id) = (claim.uid().clone(), claim.job().id);
    f.park(claim, WaitingFor::NetworkBoot).await;
    assert_eq!(f.tell(&uid, id, fetch("h1")).await, Heard::Recorded);
    let seen = f.queue.observe(&uid).await.unwrap();
    assert_eq!(seen.job.unwrap().state, JobState::Running, "it is ready to be claimed");
    assert!(matches!(seen.known.unwrap().contents, Some(Contents::Unknown { since_ms }) if since_ms > 0));
    assert!(seen.in_feed);
    let first = f.queue.boot_evidence(&uid, id).await.unwrap().unwrap().fetched_at_ms;
    assert!(first.is_some());
    // A machine that was reset fetches it again.
    assert_eq!(f.tell(&uid, id, fetch("h2")).await, Heard::Recorded);
    assert_eq!(f.queue.boot_evidence(&uid, id).await.unwrap().unwrap().fetched_at_ms, first);
}

async fn newest_token(f: Fixture) {
    let (_, claim) = f.published("a", MAC).await;
    let (uid, id) = (claim.uid().clone(), claim.job().id);
    assert_eq!(f.queue.boot_by_token("h1").await.unwrap(), None);
    f.tell(&uid, id, fetch("h1")).await;
    assert_eq!(f.queue.boot_by_token("h1").await.unwrap().map(|found| found.job), Some(id));
    f.tell(&uid, id, fetch("h2")).await;
    assert_eq!(f.queue.boot_by_token("h1").await.unwrap(), None);
    assert_eq!(f.queue.boot_by_token("h2").await.unwrap().map(|found| found.uid), Some(uid.clone()));
    // Data of another object, or another version, is none of this session.
    let other = CallHome::ScriptFetched { token_hash: "h3".into(), data_version: "e".into() };
    assert_eq!(f.tell(&uid, id, other).await, Heard::Refused);
    let found = f.queue.boot_by_token("h2").await.unwrap().unwrap();
    assert_eq!(found.data_version.as_deref(), Some("d"));
    // One that was looked up just before another was handed out writes nothing either.
    for (token, heard) in [("h1", Heard::Refused), ("h2", Heard::Recorded)] {
        let told = f.queue.call_home(&uid, id, Some(token), CallHome::Installed).await.unwrap();
        assert_eq!(told, heard, "{token}");
    }
}

async fn underived(f: Fixture) {
    let (_, claim) = f.published("a", MAC).await;
    let (uid, id) = (claim.uid().clone(), claim.job().id);
    assert_eq!(f.tell(&uid, id, fetch("h1")).await, Heard::Recorded);
    let mut connection = sqlx::MySqlConnection::connect(&f.url).await.unwrap();
    sqlx::query("UPDATE boot_session SET media_hash = 'm'").execute(&mut connection).await.unwrap();
    for mark in [
        "UPDATE meta SET value = '1 ab' WHERE name = 'histories'",
        "UPDATE meta SET value = 'the-server-before' WHERE name = 'history'",
    ] {
        sqlx::query("CREATE TEMPORARY TABLE kept SELECT * FROM meta").execute(&mut connection).await.unwrap();
        sqlx::query(mark).execute(&mut connection).await.unwrap();
        assert_eq!(f.tell(&uid, id, fetch("h2")).await, Heard::Underived, "{mark}");
        assert_eq!(f.queue.media_read("m").await.unwrap(), Heard::Underived, "{mark}");
        // What an installation that has begun tells is true in any history.
        assert_eq!(f.tell(&uid, id, CallHome::Booted).await, Heard::Recorded, "{mark}");
        for back in
            ["UPDATE meta JOIN kept USING (name) SET meta.value = kept.value", "DROP TEMPORARY TABLE kept"]
        {
            sqlx::query(back).execute(&mut connection).await.unwrap();
        }
    }
    assert_eq!(f.tell(&uid, id, fetch("h2")).await, Heard::Recorded);
    assert_eq!(f.queue.media_read("m").await.unwrap(), Heard::Recorded);
}

async fn in_one_history(f: Fixture) {
    let (_, given) = f.published("given", MAC).await;
    let (_, armed) = f.published("armed", "52:54:00:00:00:02").await;
    let (_, before) = f.published("before", "52:54:00:00:00:03").await;
    let place = |claim: &Claim| (claim.uid().clone(), claim.job().id);
    let ((given, id), (armed, armed_id), (before, before_id)) =
        (place(&given), place(&armed), place(&before));
    let is_given = async |uid| f.queue.observe(uid).await.unwrap().job.unwrap().script_given;
    assert!(!is_given(&given).await);
    for (uid, id, hash) in [(&given, id, "g1"), (&before, before_id, "b1")] {
        assert_eq!(f.tell(uid, id, fetch(hash)).await, Heard::Recorded);
        assert!(is_given(uid).await);
    }
    // A process of the release before gave this one: nobody knows in which history.
    let mut connection = sqlx::MySqlConnection::connect(&f.url).await.unwrap();
    let text = "UPDATE boot_session SET given_in = NULL WHERE name = 'before'";
    sqlx::query(text).execute(&mut connection).await.unwrap();
    assert_eq!(f.tell(&before, before_id, fetch("b2")).await, Heard::Recorded);
    assert!(!is_given(&before).await, "its job does not go on");
    for another in [
        "UPDATE meta SET value = '2' WHERE name = 'histories'",
        "UPDATE meta SET value = 'of-a-restore' WHERE name = 'epoch'",
    ] {
        sqlx::query(another).execute(&mut connection).await.unwrap();
        assert_eq!(f.tell(&given, id, fetch("g2")).await, Heard::GivenBefore, "{another}");
        // What was not given in any history is given in this one.
        let heard = f.tell(&armed, armed_id, fetch("a1")).await;
        let first = another.contains("histories");
        assert_eq!(heard, if first { Heard::Recorded } else { Heard::GivenBefore }, "{another}");
    }
    assert!(is_given(&given).await && is_given(&armed).await);
    assert!(f.queue.boot_by_token("g1").await.unwrap().is_some(), "the first one stays");
    let told = f.queue.call_home(&given, id, Some("g1"), CallHome::Installed).await.unwrap();
    assert_eq!(told, Heard::Recorded);
}

async fn medium(f: Fixture) {
    let (_, claim) = f.begun("a").await;
    let (uid, id) = (claim.uid().clone(), claim.job().id);
    let with = |hash: &str| NewBootSession { media_hash: Some(hash.to_owned()), ..session(MAC) };
    let publish = async |claim, hash| {
        let effects = Effects { session: Some(with(hash)), ..Effects::default() };
        let stored = request(RequestKind::InsertMedia);
        let claim = done(f.queue.store_request(claim, stored, String::new(), effects).await.unwrap());
        done(f.queue.close_request(claim, String::new()).await.unwrap())
    };
    let claim = publish(claim, "m1").await;
    // Inserted again, with another token.
    let claim = publish(claim, "m2").await;
    assert_eq!(f.queue.boot_by_media("m1").await.unwrap(), None);
    let found = f.queue.boot_by_media("m2").await.unwrap().unwrap();
    assert_eq!((&found.uid, found.job, &found.what), (&uid, id, &with("m2")));
    assert_eq!(found.media_read_at_ms, None);
    assert_eq!(f.queue.boot_media(100).await.unwrap(), [found]);
    f.queue.media_read("m2").await.unwrap();
    let first = f.queue.boot_evidence(&uid, id).await.unwrap().unwrap();
    assert!(first.media_read_at_ms.is_some() && first.fetched_at_ms.is_none(), "{first:?}");
    f.queue.media_read("m2").await.unwrap();
    assert_eq!(f.queue.boot_evidence(&uid, id).await.unwrap().unwrap(), first);
    // What runs from it has its own token, and the medium is read on.
    assert_eq!(f.tell(&uid, id, fetch("h1")).await, Heard::Recorded);
    assert_eq!(f.queue.boot_by_token("m2").await.unwrap(), None);
    assert!(f.queue.boot_by_token("h1").await.unwrap().is_some());
    assert!(f.queue.boot_by_media("m2").await.unwrap().is_some());
    done(f.queue.complete(claim, succeeded()).await.unwrap());
    assert_eq!(f.queue.boot_by_media("m2").await.unwrap(), None);
    assert_eq!(f.queue.boot_media(100).await.unwrap(), []);
}

async fn progress(f: Fixture) {
    let (_worker, claim) = f.published("a", MAC).await;
    let (uid, id) = (claim.uid().clone(), claim.job().id);
    f.tell(&uid, id, fetch("h")).await;
    for (percent, line) in [(10, "partitioning"), (40, "writing")] {
        let told = InstallProgress { percent, line: line.to_owned() };
        assert_eq!(f.tell(&uid, id, CallHome::Progress(told.clone())).await, Heard::Recorded);
        assert_eq!(f.queue.observe(&uid).await.unwrap().job.unwrap().progress, Some(told));
    }
    // A controller that has shown all of it hears of the next one after five seconds.
    let telling = async |past_ms: i64| {
        let text = "UPDATE boot_session SET told_at_ms = told_at_ms - ?";
        let mut connection = sqlx::MySqlConnection::connect(&f.url).await.unwrap();
        sqlx::query(text).bind(past_ms).execute(&mut connection).await.unwrap();
        f.queue.acknowledge(&uid, f.version(&uid).await).await.unwrap();
        let told = InstallProgress { percent: 50, line: "writing".to_owned() };
        assert_eq!(f.tell(&uid, id, CallHome::Progress(told)).await, Heard::Recorded);
        f.queue.observe(&uid).await.unwrap().in_feed
    };
    // A minute more, so that no busy machine lets five seconds pass.
    assert!(!telling(-60_000).await, "told again at once");
    assert!(telling(65_000).await, "not told after five seconds");
    assert_eq!(f.tell(&uid, id, CallHome::Booted).await, Heard::Recorded);
    let evidence = f.queue.boot_evidence(&uid, id).await.unwrap().unwrap();
    assert_eq!(evidence.progress.map(|told| told.percent), Some(50));
    assert!(evidence.heard_at_ms.is_some() && evidence.installed_at_ms.is_none());
}

async fn once(f: Fixture) {
    let (_, claim) = f.published("a", MAC).await;
    let (uid, id) = (claim.uid().clone(), claim.job().id);
    f.tell(&uid, id, fetch("h")).await;
    assert_eq!(f.tell(&uid, id, CallHome::Installed).await, Heard::Recorded);
    let before = f.queue.boot_evidence(&uid, id).await.unwrap();
    for what in
        [CallHome::Installed, CallHome::Booted, CallHome::Failed { reason: "late".to_owned() }, fetch("h2")]
    {
        assert_eq!(f.tell(&uid, id, what).await, Heard::Refused);
    }
    assert_eq!(f.queue.boot_evidence(&uid, id).await.unwrap(), before);
    assert_eq!(f.queue.boot_by_token("h").await.unwrap(), None);
    assert_eq!(f.queue.boot_at_mac(MAC).await.unwrap(), AtMac::Idle, "its machine boots from its disk");
    done(f.queue.complete(claim, succeeded()).await.unwrap());
    assert_eq!(f.tell(&uid, id, CallHome::Installed).await, Heard::Refused);
}

async fn older(f: Fixture) {
    let (_, claim) = f.published("a", MAC).await;
    let (uid, first) = (claim.uid().clone(), claim.job().id);
    f.tell(&uid, first, fetch("h1")).await;
    done(f.queue.complete(claim, succeeded()).await.unwrap());
    let (_, claim) = f.reimage(&uid).await;
    let claim = f.publish(claim, MAC).await;
    let second = claim.job().id;
    f.tell(&uid, second, fetch("h2")).await;
    assert_eq!(f.tell(&uid, first, CallHome::Installed).await, Heard::Refused);
    assert_eq!(f.queue.boot_by_token("h1").await.unwrap(), None);
    let evidence = f.queue.boot_evidence(&uid, second).await.unwrap().unwrap();
    assert_eq!(evidence.installed_at_ms, None);
    assert_eq!(f.queue.boot_evidence(&uid, first).await.unwrap(), None);
}

async fn one_mac(f: Fixture) {
    let (_, holder) = f.published("holder", MAC).await;
    let mut claims = Vec::new();
    for name in ["b", "c", "d"] {
        claims.push(f.begun(name).await.1);
    }
    let answers = join_all(claims.into_iter().enumerate().map(async |(number, claim)| {
        let mac = if number == 1 { MAC.to_owned() } else { format!("52:54:00:00:01:{number:02}") };
        let stored = request(RequestKind::BootFromNetworkOnce);
        f.queue.store_request(claim, stored, String::new(), publishing(&mac)).await
    }))
    .await;
    for (number, answer) in answers.into_iter().enumerate() {
        match (number, answer) {
            (1, Err(QueueError::Duplicate(_))) => {}
            (1, other) => panic!("the same MAC address was {other:?}"),
            (_, answer) => assert!(done(answer.unwrap()).request().is_some()),
        }
    }
    let AtMac::Armed(found) = f.queue.boot_at_mac(MAC).await.unwrap() else { panic!("nothing serves") };
    assert_eq!(&found.uid, holder.uid());
}

async fn ways_out(f: Fixture) {
    let (_, claim) = f.published("completed", MAC).await;
    done(f.queue.complete(claim, succeeded()).await.unwrap());
    assert!(!f.serves_at(MAC).await);

    let (worker, claim) = f.published("abandoned", MAC).await;
    let why = autobuild::job::Problem::new(Reason::ServerGone, "gone");
    f.queue.abandon(claim.uid(), claim.job().id, why, [worker.incarnation()].into()).await.unwrap();
    assert!(!f.serves_at(MAC).await);

    let (_, claim) = f.published("undone", MAC).await;
    f.queue.revoke_boot(claim.uid(), claim.job().id).await.unwrap();
    assert!(!f.serves_at(MAC).await);
    assert_eq!(f.tell(claim.uid(), claim.job().id, fetch("h")).await, Heard::Refused);
    assert_eq!(f.count("boot_session").await, 0);
}

async fn installed(f: Fixture) {
    let (_, claim) = f.published("a", MAC).await;
    let uid = claim.uid().clone();
    f.tell(&uid, claim.job().id, fetch("h")).await;
    let what = Installed { name: "debian".to_owned(), digest: "sha256:1".to_owned() };
    done(f.queue.complete(claim, End { disks: Disks::Installed(what), ..succeeded() }).await.unwrap());
    let Some(Contents::Image(InstalledImage { name, digest, at_ms, origin })) = f.contents(&uid).await else {
        panic!("nothing is known to be installed");
    };
    assert_eq!((name.as_str(), digest.as_str(), origin), ("debian", "sha256:1", Origin::Installed));
    assert!(at_ms > 0);
}

async fn foreign(f: Fixture) {
    let reading = |power| {
        Report::Good(Box::new(Reading {
            power,
            identity: HardwareIdentity::default(),
            hardware: Hardware::default(),
            last_reset_time: None,
        }))
    };
    let uid = f.server("a").await;
    let worker = f.worker().await;
    for (power, known) in
        [(PowerState::PoweredOff, false), (PowerState::PoweredOn, true), (PowerState::PoweredOff, true)]
    {
        f.enqueue(&uid, Action::Inspect, Lane::Background).await;
        let claim = f.claim_one(&worker, PlaceInQueue::Queued).await;
        done(f.queue.complete(claim, End { report: reading(power), ..succeeded() }).await.unwrap());
        let contents = f.contents(&uid).await;
        assert_eq!(matches!(contents, Some(Contents::Foreign { .. })), known, "{power}: {contents:?}");
    }
    // What is recorded by hand is conditional on what was seen.
    let version = f.version(&uid).await;
    let image = Contents::Image(InstalledImage {
        name: "debian".to_owned(),
        digest: "sha256:1".to_owned(),
        at_ms: 7,
        origin: Origin::Adopted,
    });
    assert!(!f.queue.record_contents(&uid, &image, version - 1).await.unwrap());
    assert!(f.queue.record_contents(&uid, &image, version).await.unwrap());
    assert!(f.queue.record_contents(&uid, &image, version).await.unwrap(), "again is the same");
    assert_eq!(f.contents(&uid).await, Some(image));
}

fn image(name: &str) -> InstalledImage {
    let (name, digest) = (name.to_owned(), "sha256:1".to_owned());
    InstalledImage { name, digest, at_ms: 7, origin: Origin::Installed }
}

impl Fixture {
    async fn record(&self, uid: &ServerUid, contents: &Contents) {
        assert!(self.queue.record_contents(uid, contents, self.version(uid).await).await.unwrap());
    }

    async fn start(&self, claim: Claim) -> Claim {
        let effects = Effects { contents: ContentsAfter::Started, ..Effects::default() };
        let stored = request(RequestKind::PowerOn);
        let claim = done(self.queue.store_request(claim, stored, String::new(), effects).await.unwrap());
        done(self.queue.close_request(claim, String::new()).await.unwrap())
    }
}

async fn started(f: Fixture) {
    let uid = f.server("a").await;
    let before = Contents::Image(image("debian"));
    f.record(&uid, &before).await;
    f.queue.set_permits(SITE, PermitClass::Install, 50).await.unwrap();
    let (_, claim) = f.reimage(&uid).await;
    let claim = f.publish(claim, MAC).await;
    let claim = f.start(claim).await;
    assert_eq!(f.contents(&uid).await, Some(before.clone()));
    assert!(f.serves_at(MAC).await, "the session stays");
    let problem = Some(Problem::new(Reason::NeverBooted, "nobody came"));
    done(f.queue.complete(claim, End { result: JobResult::Failed, problem, ..succeeded() }).await.unwrap());
    assert_eq!(f.contents(&uid).await, Some(before), "nothing was given to the machine");
}

async fn blank(f: Fixture) {
    let (_, claim) = f.published("a", MAC).await;
    let uid = claim.uid().clone();
    f.start(claim).await;
    assert!(matches!(f.contents(&uid).await, Some(Contents::Unknown { .. })));
}

async fn read_media(f: Fixture) {
    f.queue.set_permits(SITE, PermitClass::Install, 50).await.unwrap();
    for (number, reads_first) in [(1, true), (2, false)] {
        let uid = f.server(&format!("a{number}")).await;
        f.record(&uid, &Contents::Image(image("debian"))).await;
        let (_, claim) = f.reimage(&uid).await;
        let (hash, mac) = (format!("m{number}"), format!("52:54:00:00:01:0{number}"));
        let session = NewBootSession { media_hash: Some(hash.clone()), ..session(&mac) };
        let effects = Effects { session: Some(session), ..Effects::default() };
        let stored = request(RequestKind::InsertMedia);
        let claim = done(f.queue.store_request(claim, stored, String::new(), effects).await.unwrap());
        let claim = done(f.queue.close_request(claim, String::new()).await.unwrap());
        if reads_first {
            // Many BMCs read it when it is inserted: the machine still runs what it ran.
            f.queue.media_read(&hash).await.unwrap();
        }
        assert_eq!(f.contents(&uid).await, Some(Contents::Image(image("debian"))));
        let on = done(f.queue.advance(claim, Step::On, String::new(), Report::Nothing).await.unwrap());
        f.start(on).await;
        let doubtful = |contents: &Option<Contents>| match contents {
            Some(Contents::Doubtful { image: before, .. }) => *before == image("debian"),
            _ => false,
        };
        assert_eq!(doubtful(&f.contents(&uid).await), reads_first);
        f.queue.media_read(&hash).await.unwrap();
        assert!(doubtful(&f.contents(&uid).await));
    }
}

async fn not_erased(f: Fixture) {
    f.queue.set_permits(SITE, PermitClass::Install, 50).await.unwrap();
    let ends = [
        ("failed", JobResult::Failed, Reason::InstallFailed),
        ("stopped", JobResult::Cancelled, Reason::WishChanged),
        ("never heard of", JobResult::Failed, Reason::InstallTimedOut),
    ];
    for (number, (name, result, reason)) in ends.into_iter().enumerate() {
        for is_given in [false, true] {
            let uid = f.server(&format!("{name} {is_given}")).await;
            let before = Contents::Image(image("debian"));
            f.record(&uid, &before).await;
            f.enqueue(&uid, Action::Wipe, Lane::Normal).await;
            let claim = f.claim_one(&f.worker().await, PlaceInQueue::QueuedBounded).await;
            let session = NewBootSession {
                purpose: BootPurpose::Wipe,
                ..session(&format!("52:54:00:00:0{}:{number:02}", u8::from(is_given)))
            };
            let effects = Effects { session: Some(session), ..Effects::default() };
            let stored = request(RequestKind::BootFromNetworkOnce);
            let claim = done(f.queue.store_request(claim, stored, String::new(), effects).await.unwrap());
            let claim = done(f.queue.close_request(claim, String::new()).await.unwrap());
            if is_given {
                assert_eq!(f.tell(&uid, claim.job().id, fetch(&format!("h{number}"))).await, Heard::Recorded);
            }
            let problem = Some(Problem::new(reason, "in vain"));
            done(f.queue.complete(claim, End { result, problem, ..succeeded() }).await.unwrap());
            match f.contents(&uid).await {
                Some(Contents::Unknown { .. }) if is_given => {}
                after => assert_eq!((after, is_given), (Some(before), false), "{name}"),
            }
        }
    }
}
