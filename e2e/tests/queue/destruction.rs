//! What bounds and remembers destruction: the budget of an hour, and the records of machines.

use autobuild::api::Reason;
use autobuild::job::{
    Action, Contents, EndedMachine, HandledTokens, InstalledImage, JobId, JobResult, Lane, Origin,
    PermitClass, Problem, RequestKind, ServerUid, StoredRequest,
};
use autobuild::queue::{
    BmcClaimed, BmcKey, CancelOutcome, Claimant, Disks, Effects, End, Enqueued, Installed, MachineKey,
    NewJob, PlaceInQueue,
};
use futures::FutureExt as _;
use futures::future::join_all;

use crate::Case;
use crate::fixture::{Fixture, SITE, done, job, now_ms, succeeded};

pub const CASES: &[Case] = &[
    ("a budget that is spent refuses an enqueue, and other namespaces have their own", |f| {
        spent(f).boxed_local()
    }),
    ("of many enqueues at once as many are accepted as the budget has", |f| many(f).boxed_local()),
    ("a job that destroyed nothing gives its share back, one that began does not", |f| {
        given_back(f).boxed_local()
    }),
    ("a machine is known under the next server, and nothing on it is ours to overwrite", |f| {
        next_server(f).boxed_local()
    }),
    ("what was half installed under one server is somebody's under the next", |f| half_done(f).boxed_local()),
    ("a machine whose life ended is refused to the next server until it is brought back", |f| {
        ended(f).boxed_local()
    }),
    ("a server that lost its row finds its machine's record as its own", |f| lost_row(f).boxed_local()),
    ("a server whose machine is another one by now takes nothing for blank", |f| swapped(f).boxed_local()),
];

fn charged(uid: &ServerUid, cap: i64) -> NewJob {
    let job = job(uid, Action::Reimage, Lane::Normal, JobId::new(now_ms(), rand::random()));
    NewJob { budget: Some(cap), ..job }
}

async fn spent(f: Fixture) {
    let (a, b, c) = (f.server("a").await, f.server("b").await, f.server("c").await);
    assert_eq!(f.queue.enqueue(charged(&a, 1), 1).await.unwrap(), Enqueued::Accepted);
    assert_eq!(f.queue.enqueue(charged(&b, 1), 1).await.unwrap(), Enqueued::OverBudget);
    assert_eq!(f.queue.budget_used("ns").await.unwrap(), 1);
    let seen = f.queue.observe(&b).await.unwrap();
    assert!(seen.job.is_none() && seen.known.unwrap().version == 1, "nothing was changed");
    // A larger cap, another namespace, and what destroys nothing.
    assert_eq!(f.queue.enqueue(charged(&b, 2), 1).await.unwrap(), Enqueued::Accepted);
    let elsewhere = NewJob { namespace: "elsewhere".to_owned(), ..charged(&c, 1) };
    assert_eq!(f.queue.enqueue(elsewhere, 1).await.unwrap(), Enqueued::Accepted);
    let free = f.server("free").await;
    f.enqueue(&free, Action::Reboot, Lane::High).await;
    assert_eq!(f.queue.budget_used("ns").await.unwrap(), 2);
    let hours = 3_600_000;
    assert_eq!(f.queue.trim_budgets(now_ms(), 10).await.unwrap(), 0, "this hour's are kept");
    assert_eq!(f.queue.trim_budgets(now_ms() + 2 * hours, 10).await.unwrap(), 2);
}

async fn many(f: Fixture) {
    const CAP: i64 = 7;
    let uids = join_all((0..40).map(|number| {
        let f = &f;
        async move { f.server(&format!("{number:02}")).await }
    }))
    .await;
    let answers = join_all(uids.iter().map(|uid| f.queue.enqueue(charged(uid, CAP), 1))).await;
    let accepted = answers.iter().filter(|answer| matches!(answer, Ok(Enqueued::Accepted))).count();
    let refused = answers.iter().filter(|answer| matches!(answer, Ok(Enqueued::OverBudget))).count();
    assert_eq!((accepted as i64, refused), (CAP, 33), "{answers:?}");
    assert_eq!((f.count("job").await, f.count("queue").await), (CAP, CAP));
    assert_eq!(f.queue.budget_used("ns").await.unwrap(), CAP);
}

async fn given_back(f: Fixture) {
    f.queue.set_permits(SITE, PermitClass::Install, 10).await.unwrap();
    let worker = f.worker().await;
    let used = async || f.queue.budget_used("ns").await.unwrap();
    // Taken out of the queue.
    let a = f.server("a").await;
    let wanted = charged(&a, 5);
    let id = wanted.id;
    f.queue.enqueue(wanted, 1).await.unwrap();
    assert_eq!(used().await, 1);
    assert_eq!(f.queue.cancel(&a, id, Reason::Replaced).await.unwrap(), CancelOutcome::Deleted);
    assert_eq!(used().await, 0);
    // Claimed, and it gave way before its first request.
    let b = f.server("b").await;
    f.queue.enqueue(charged(&b, 5), 1).await.unwrap();
    let claim = f.claim_one(&worker, PlaceInQueue::QueuedBounded).await;
    let problem = Some(Problem::new(Reason::WishChanged, "changed"));
    let end = End { result: JobResult::Superseded, problem, ..succeeded() };
    done(f.queue.complete(claim, end).await.unwrap());
    assert_eq!(used().await, 0);
    // Begun: whatever came of it, it counts.
    let c = f.server("c").await;
    f.queue.enqueue(charged(&c, 5), 1).await.unwrap();
    let claim = f.claim_one(&worker, PlaceInQueue::QueuedBounded).await;
    let request = StoredRequest { kind: RequestKind::PowerOn, settle_ms: 1 };
    let claim = done(f.queue.store_request(claim, request, String::new(), Effects::default()).await.unwrap());
    let claim = done(f.queue.close_request(claim, String::new()).await.unwrap());
    let problem = Some(Problem::new(Reason::InstallFailed, "gave up"));
    done(f.queue.complete(claim, End { result: JobResult::Failed, problem, ..succeeded() }).await.unwrap());
    assert_eq!(used().await, 1);
}

const SERIAL: &str = "SN-7";

impl Fixture {
    /// The machine answers for this server.
    async fn meet(&self, uid: &ServerUid, machine: &str) -> BmcClaimed {
        let who = Claimant {
            uid: uid.clone(),
            namespace: "ns".to_owned(),
            name: uid.as_str().to_owned(),
            address: "redfish+https://b:443".to_owned(),
            asked: None,
        };
        let keys = vec![BmcKey { host: machine.to_owned(), system: String::new() }];
        let machine = MachineKey { identity: machine.to_owned(), serial_number: SERIAL.to_owned() };
        self.queue.claim_identity(who, keys, Some(machine)).await.unwrap()
    }

    async fn known_contents(&self, uid: &ServerUid) -> Option<Contents> {
        self.queue.observe(uid).await.unwrap().known.unwrap().contents
    }

    /// A server whose machine has this on its disks.
    async fn with_disks(&self, name: &str, machine: &str, disks: Disks) -> ServerUid {
        let uid = self.server(name).await;
        assert_eq!(self.meet(&uid, machine).await, BmcClaimed::Granted);
        let worker = self.worker().await;
        self.enqueue(&uid, Action::Reboot, Lane::High).await;
        let claim = self.claim_one(&worker, PlaceInQueue::Queued).await;
        done(self.queue.complete(claim, End { disks, ..succeeded() }).await.unwrap());
        uid
    }
}

fn debian() -> Installed {
    Installed { name: "debian".to_owned(), digest: "sha256:1".to_owned() }
}

async fn next_server(f: Fixture) {
    let first = f.with_disks("first", "hw:uuid:1", Disks::Installed(debian())).await;
    let before = f.known_contents(&first).await.unwrap();
    f.queue.release(&first).await.unwrap();
    let next = f.server("next").await;
    for _ in 0..2 {
        assert_eq!(f.meet(&next, "hw:uuid:1").await, BmcClaimed::Granted);
        let Some(Contents::Image(image)) = f.known_contents(&next).await else { panic!("it is forgotten") };
        assert_eq!((image.name.as_str(), image.origin), ("debian", Origin::TakenOver));
        assert_eq!(image.at_ms, before.since_ms());
        assert!(Contents::Image(image).needs_a_word());
    }
    // A machine that nobody recorded.
    let other = f.server("other").await;
    f.meet(&other, "hw:uuid:2").await;
    assert_eq!(f.known_contents(&other).await, None);
}

async fn half_done(f: Fixture) {
    let first = f.server("first").await;
    f.meet(&first, "hw:uuid:1").await;
    let version = f.version(&first).await;
    assert!(f.queue.record_contents(&first, &Contents::Unknown { since_ms: 7 }, version).await.unwrap());
    f.queue.release(&first).await.unwrap();
    let next = f.server("next").await;
    f.meet(&next, "hw:uuid:1").await;
    assert_eq!(f.known_contents(&next).await, Some(Contents::Interrupted { since_ms: 7 }));
}

async fn ended(f: Fixture) {
    let first = f.with_disks("first", "hw:uuid:1", Disks::Decommissioned).await;
    f.queue.release(&first).await.unwrap();
    let next = f.server("next").await;
    for _ in 0..2 {
        let BmcClaimed::Refused(refusal) = f.meet(&next, "hw:uuid:1").await else { panic!("it was let in") };
        let machine = EndedMachine { identity: "hw:uuid:1".to_owned(), serial_number: SERIAL.to_owned() };
        assert_eq!((refusal.reason, refusal.machine), (Reason::MachineDecommissioned, Some(machine)));
    }
    assert_eq!(f.queue.forgive_orphans(10).await.unwrap(), 0, "nobody but a person forgives that");
    assert_eq!(f.known_contents(&next).await, None);
    assert!(f.queue.recommission(&next).await.unwrap());
    assert!(!f.queue.recommission(&next).await.unwrap(), "once");
    assert_eq!(f.meet(&next, "hw:uuid:1").await, BmcClaimed::Granted);
    assert!(matches!(f.known_contents(&next).await, Some(Contents::Wiped { .. })));
    // Another server is refused for the ordinary reason: it is somebody's now.
    let third = f.server("third").await;
    let BmcClaimed::Refused(refusal) = f.meet(&third, "hw:uuid:1").await else { panic!("it was let in") };
    assert_eq!(refusal.reason, Reason::IdentityConflict);
}

async fn lost_row(f: Fixture) {
    let uid = f.with_disks("a", "hw:uuid:1", Disks::Decommissioned).await;
    f.queue.release(&uid).await.unwrap();
    // Its status still showed what it had before.
    let image = InstalledImage {
        name: "debian".to_owned(),
        digest: "sha256:1".to_owned(),
        at_ms: 5,
        origin: Origin::TakenOver,
    };
    let contents = Contents::Image(image);
    f.queue.register(&uid, "ns", "a", &HandledTokens::default(), Some(&contents)).await.unwrap();
    assert_eq!(f.meet(&uid, "hw:uuid:1").await, BmcClaimed::Granted);
    assert!(matches!(f.known_contents(&uid).await, Some(Contents::Decommissioned { .. })));
}

async fn swapped(f: Fixture) {
    let uid = f.with_disks("a", "hw:uuid:1", Disks::Installed(debian())).await;
    assert_eq!(f.meet(&uid, "hw:uuid:2").await, BmcClaimed::Granted);
    assert!(matches!(f.known_contents(&uid).await, Some(Contents::Foreign { .. })));
    assert_eq!(f.count("machine").await, 2);
}
