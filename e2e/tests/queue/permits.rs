//! Permits: how many installations are in flight, through claims, parks, ends and crashes.

use std::time::Duration;

use autobuild::api::Reason;
use autobuild::job::Step;
use autobuild::job::{
    Action, JobId, JobState, Lane, PermitClass, Problem, RequestKind, ServerUid, StoredRequest, WaitingFor,
};
use autobuild::queue::{
    CancelOutcome, Claim, Effects, Enqueued, Front, Heart, LeaseWatch, ParkAs, Parked, Report, Room, Served,
};
use autobuild::shard::Shard;
use futures::FutureExt as _;

use crate::Case;
use crate::fixture::{Fixture, SITE, done, job, now_ms, succeeded, wait_for};

pub const CASES: &[Case] = &[
    ("as many installations are claimed as there are permits, and a full class blocks nobody", |f| {
        bounded(f).boxed_local()
    }),
    ("status says whether an installation waits for a permit or for a worker", |f| {
        waiting_for(f).boxed_local()
    }),
    ("a job that parks before its first request gives its permit back, and queues for it again", |f| {
        parks_early(f).boxed_local()
    }),
    ("a job that waits for its witness keeps its permit for a moment, and not for longer", |f| {
        witness(f).boxed_local()
    }),
    ("a job that stored a request keeps its permit while it is parked, handed back and taken over", |f| {
        keeps(f).boxed_local()
    }),
    ("every way out gives the permit back", |f| ways_out(f).boxed_local()),
    ("a job that has to stop needs no permit for that", |f| stops(f).boxed_local()),
    ("ten claimers at once never go beyond the number of permits", |f| contended(f).boxed_local()),
    ("a count that went wrong is repaired", |f| repaired(f).boxed_local()),
    ("fewer permits than jobs in flight let nobody in until some have ended", |f| lowered(f).boxed_local()),
];

fn front() -> Front {
    Front::new(Served { site: SITE.to_owned(), shards: [Shard(0), Shard(1)].into() }, 0)
}

const ROOM: Room = Room { any: 20, urgent: 0 };

impl Fixture {
    async fn permits_are(&self, cap: u32) {
        self.queue.set_permits(SITE, PermitClass::Install, cap).await.unwrap();
    }

    async fn used(&self) -> u32 {
        let permits = self.queue.permits(SITE).await.unwrap();
        let used = permits[0].used;
        assert_eq!(
            self.queue.repair_permits(SITE, PermitClass::Install).await.unwrap(),
            0,
            "the count is the number of jobs that hold one"
        );
        used
    }

    async fn install(&self, name: &str) -> (ServerUid, JobId) {
        let uid = self.server(name).await;
        let id = JobId::new(now_ms(), rand::random());
        let mut wanted = job(&uid, Action::PowerOn, Lane::Normal, id);
        (wanted.action, wanted.step) = (Action::Reimage, Step::Off);
        let version = self.version(&uid).await;
        assert_eq!(self.queue.enqueue(wanted, version).await.unwrap(), Enqueued::Accepted);
        (uid, id)
    }

    /// Everything that can be claimed now.
    async fn all(&self, worker: &Heart) -> Vec<Claim> {
        let mut front = front();
        let mut all = Vec::new();
        loop {
            let claims = self.queue.fetch(&mut front, worker.incarnation(), ROOM).await.unwrap();
            if claims.is_empty() {
                return all;
            }
            all.extend(claims);
        }
    }
}

fn asleep(after_ms: i64) -> ParkAs {
    ParkAs {
        after_ms,
        waiting_for: WaitingFor::Bmc,
        problem: Some(Problem::new(Reason::Unreachable, "no answer")),
        secret_version: None,
        checkpoint: String::new(),
        report: Report::Nothing,
    }
}

async fn with_request(f: &Fixture, claim: Claim) -> Claim {
    let off = StoredRequest { kind: RequestKind::ForceOff, settle_ms: 1 };
    let claim = done(f.queue.store_request(claim, off, String::new(), Effects::default()).await.unwrap());
    done(f.queue.close_request(claim, String::new()).await.unwrap())
}

async fn bounded(f: Fixture) {
    f.permits_are(2).await;
    for number in 0..5 {
        f.install(&format!("i-{number}")).await;
    }
    let low = f.server("low").await;
    f.enqueue(&low, Action::PowerOn, Lane::Low).await;
    let worker = f.worker().await;
    let claims = f.all(&worker).await;
    let installs = claims.iter().filter(|claim| claim.job().action == Action::Reimage).count();
    assert_eq!((claims.len(), installs, f.used().await), (3, 2, 2));
    for claim in claims {
        done(f.queue.complete(claim, succeeded()).await.unwrap());
    }
    assert_eq!((f.used().await, f.all(&worker).await.len(), f.used().await), (0, 2, 2));
}

async fn waiting_for(f: Fixture) {
    let (first, _) = f.install("first").await;
    let seen = async |uid: &ServerUid| {
        let job = f.queue.observe(uid).await.unwrap().job.unwrap();
        (job.state, job.waiting_for)
    };
    assert_eq!(
        seen(&first).await,
        (JobState::Queued, Some(WaitingFor::Permit)),
        "no worker set up the class"
    );
    f.permits_are(1).await;
    assert_eq!(seen(&first).await, (JobState::Queued, Some(WaitingFor::Worker)));
    let worker = f.worker().await;
    assert_eq!(f.all(&worker).await.len(), 1);
    let (second, _) = f.install("second").await;
    assert_eq!(seen(&second).await, (JobState::Queued, Some(WaitingFor::Permit)));
    assert_eq!(seen(&first).await, (JobState::Running, None));
}

async fn parks_early(f: Fixture) {
    f.permits_are(1).await;
    let (first, id) = f.install("first").await;
    let worker = f.worker().await;
    let claim = f.all(&worker).await.pop().unwrap();
    assert_eq!(done(f.queue.park(claim, asleep(0)).await.unwrap()), Parked::Asleep);
    assert_eq!(f.used().await, 0);
    let (_, second) = f.install("second").await;
    // Both can be claimed, one of them at a time; the older one first once it is awake.
    let mut woken = 0;
    wait_for("the first job's wake time", async || {
        woken += f.queue.wake(SITE, &[Shard(0)], 10).await.unwrap();
        woken == 1
    })
    .await;
    let observed = f.queue.observe(&first).await.unwrap().job.unwrap();
    assert_eq!((observed.state, observed.waiting_for), (JobState::Waiting, Some(WaitingFor::Worker)));
    let claims = f.all(&worker).await;
    assert_eq!(claims.iter().map(|claim| claim.job().id).collect::<Vec<_>>(), [id]);
    assert_eq!(f.used().await, 1);
    done(f.queue.complete(claims.into_iter().next().unwrap(), succeeded()).await.unwrap());
    assert_eq!(f.all(&worker).await[0].job().id, second);
}

async fn witness(f: Fixture) {
    f.permits_are(1).await;
    let (uid, id) = f.install("first").await;
    let worker = f.worker().await;
    let waits = || ParkAs { waiting_for: WaitingFor::Status, ..asleep(3_600_000) };
    for look in 0..11 {
        let claim = f.all(&worker).await.pop().unwrap();
        done(f.queue.park(claim, waits()).await.unwrap());
        assert_eq!(f.used().await, u32::from(look < 10), "after look {look}");
        f.queue.signal(&uid, id).await.unwrap();
    }
}

async fn keeps(f: Fixture) {
    f.permits_are(1).await;
    let (uid, id) = f.install("a").await;
    let worker = f.worker().await;
    let claim = f.all(&worker).await.pop().unwrap();
    let claim = with_request(&f, claim).await;
    done(f.queue.park(claim, asleep(3_600_000)).await.unwrap());
    assert_eq!(f.used().await, 1);
    f.queue.signal(&uid, id).await.unwrap();
    let claim = f.all(&worker).await.pop().unwrap();
    done(f.queue.hand_back(claim).await.unwrap());
    assert_eq!(f.used().await, 1);
    f.all(&worker).await.pop().unwrap();
    let mut watch = LeaseWatch::new(Duration::from_secs(10));
    let registry = f.queue.registry(SITE).await.unwrap();
    watch.observe(&registry, Duration::ZERO);
    for expired in watch.observe(&registry, Duration::from_secs(10)) {
        f.queue.reap(expired).await.unwrap();
    }
    assert_eq!(f.used().await, 1);
    let other = f.worker().await;
    let claim = f.all(&other).await.pop().unwrap();
    assert_eq!((claim.job().id, f.used().await), (id, 1));
    done(f.queue.complete(claim, succeeded()).await.unwrap());
    assert_eq!(f.used().await, 0);
}

async fn ways_out(f: Fixture) {
    f.permits_are(3).await;
    let worker = f.worker().await;
    let mut names = Vec::new();
    for number in 0..3 {
        names.push(f.install(&format!("{number}")).await);
    }
    let mut claims = f.all(&worker).await;
    assert_eq!(f.used().await, 3);
    done(f.queue.complete(claims.pop().unwrap(), succeeded()).await.unwrap());
    assert_eq!(f.used().await, 2);
    let given_up = claims.pop().unwrap();
    let why = Problem::new(Reason::ServerGone, "let go");
    f.queue.abandon(given_up.uid(), given_up.job().id, why, [worker.incarnation()].into()).await.unwrap();
    assert_eq!(f.used().await, 1);
    // A job that never started holds none, and takes none along.
    let (uid, id) = f.install("queued").await;
    assert_eq!(f.queue.cancel(&uid, id, Reason::Replaced).await.unwrap(), CancelOutcome::Deleted);
    assert_eq!(f.used().await, 1);
}

async fn stops(f: Fixture) {
    f.permits_are(1).await;
    let (uid, id) = f.install("first").await;
    let worker = f.worker().await;
    let claim = f.all(&worker).await.pop().unwrap();
    done(f.queue.park(claim, asleep(3_600_000)).await.unwrap());
    f.install("second").await;
    assert_eq!(f.all(&worker).await.len(), 1, "the second one has the only permit");
    f.queue.signal(&uid, id).await.unwrap();
    assert_eq!(f.all(&worker).await.len(), 0, "the first one waits for it");
    f.queue.cancel(&uid, id, Reason::Paused).await.unwrap();
    let claim = f.all(&worker).await.pop().unwrap();
    assert_eq!((claim.job().id, claim.cancel(), f.used().await), (id, Some(Reason::Paused), 1));
    done(f.queue.complete(claim, succeeded()).await.unwrap());
    assert_eq!(f.used().await, 1);
}

async fn contended(f: Fixture) {
    f.permits_are(3).await;
    for number in 0..40 {
        f.install(&format!("{number}")).await;
    }
    let f = std::sync::Arc::new(f);
    let claimers = (0..10).map(|_| {
        let f = f.clone();
        tokio::spawn(async move {
            let worker = f.worker().await;
            let mut mine = 0;
            while f.count("job").await > 0 {
                for claim in f.all(&worker).await {
                    let permits = f.queue.permits(SITE).await.unwrap()[0];
                    assert!(permits.used <= permits.cap, "{permits:?}");
                    done(f.queue.complete(claim, succeeded()).await.unwrap());
                    mine += 1;
                }
            }
            mine
        })
    });
    let done: usize = futures::future::join_all(claimers)
        .await
        .into_iter()
        .map(|mine: Result<usize, _>| mine.unwrap())
        .sum();
    assert_eq!((done, f.used().await), (40, 0));
}

async fn repaired(f: Fixture) {
    use sqlx::Connection as _;
    f.permits_are(2).await;
    f.install("a").await;
    let worker = f.worker().await;
    let _held = f.all(&worker).await;
    let mut connection = sqlx::MySqlConnection::connect(&f.url).await.unwrap();
    for (wrong, by) in [(2, -1), (0, 1)] {
        sqlx::query("UPDATE permit SET used = ?").bind(wrong).execute(&mut connection).await.unwrap();
        assert_eq!(f.queue.repair_permits(SITE, PermitClass::Install).await.unwrap(), by);
        assert_eq!(f.used().await, 1);
    }
}

async fn lowered(f: Fixture) {
    f.permits_are(3).await;
    for number in 0..5 {
        f.install(&format!("{number}")).await;
    }
    let worker = f.worker().await;
    let mut claims = f.all(&worker).await;
    f.permits_are(2).await;
    for left in [2, 1] {
        assert_eq!(f.all(&worker).await.len(), 0);
        done(f.queue.complete(claims.pop().unwrap(), succeeded()).await.unwrap());
        assert_eq!(f.used().await, left);
    }
    assert_eq!(f.all(&worker).await.len(), 1);
}
