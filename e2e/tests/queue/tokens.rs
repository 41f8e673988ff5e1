//! Tokens: what takes them, what gives them back, and that a value which was handled once is never forgotten.

use autobuild::api::Reason;
use autobuild::job::{
    Action, Contents, HandledTokens, InstalledImage, JobResult, Lane, Origin, Problem, RequestKind,
    ServerUid, StoredRequest, TokenValue,
};
use autobuild::queue::{Claim, Effects, End, PlaceInQueue};
use futures::FutureExt as _;

use crate::Case;
use crate::fixture::{Fixture, done, succeeded};

pub const CASES: &[Case] = &[
    ("a job that ends with nothing but refused requests gives its tokens back", |f| refused(f).boxed_local()),
    ("a request that may have been carried out keeps its tokens, whatever comes after it", |f| {
        may_be_done(f).boxed_local()
    }),
    ("a value that was handled is known for ever, and what an older release kept is taken over", |f| {
        for_ever(f).boxed_local()
    }),
    ("what is known of a token and of the job that takes it is of one moment", |f| {
        one_moment(f).boxed_local()
    }),
    ("a server that goes takes its tokens with it", |f| goes(f).boxed_local()),
    ("an image that is recorded ends the installation that failed", |f| adopted(f).boxed_local()),
];

fn tokens(value: &str) -> [TokenValue; 2] {
    [TokenValue::reimage(value), TokenValue::reboot(value)]
}

impl Fixture {
    async fn begin(&self, uid: &ServerUid, value: &str) -> Claim {
        let worker = self.worker().await;
        self.enqueue(uid, Action::Reboot, Lane::High).await;
        let claim = self.claim_one(&worker, PlaceInQueue::Queued).await;
        self.store(claim, Effects::handling(tokens(value))).await
    }

    async fn store(&self, claim: Claim, effects: Effects) -> Claim {
        let request = StoredRequest { kind: RequestKind::ForceOff, settle_ms: 1 };
        done(self.queue.store_request(claim, request, String::new(), effects).await.unwrap())
    }

    async fn refuse(&self, claim: Claim) -> Claim {
        done(self.queue.close_refused(claim, String::new()).await.unwrap())
    }

    async fn accept(&self, claim: Claim) -> Claim {
        done(self.queue.close_request(claim, String::new()).await.unwrap())
    }

    async fn fail(&self, claim: Claim) {
        let problem = Some(Problem::new(Reason::RequestRefused, "no"));
        let end = End { result: JobResult::Failed, problem, ..succeeded() };
        done(self.queue.complete(claim, end).await.unwrap());
    }

    /// Whether both tokens count as handled with this value, by the row or by what is remembered for ever.
    async fn is_handled(&self, uid: &ServerUid, value: &str) -> bool {
        let asked = tokens(value);
        let known = self.queue.observe_asked(uid, &asked).await.unwrap().known.unwrap();
        let handled = asked.map(|token| known.handled.is_handled(token.kind, Some(&token.value)));
        assert_eq!(handled[0], handled[1], "{value}");
        handled[0]
    }
}

async fn refused(f: Fixture) {
    let uid = f.server("a").await;
    let claim = f.begin(&uid, "r1").await;
    assert!(f.is_handled(&uid, "r1").await, "a request may be on its way");
    let taking = f.queue.observe(&uid).await.unwrap().job.unwrap().taking;
    assert_eq!(taking, tokens("r1"));
    let claim = f.refuse(claim).await;
    // Tried again, and refused again.
    let claim = f.store(claim, Effects::default()).await;
    let claim = f.refuse(claim).await;
    f.fail(claim).await;
    assert!(!f.is_handled(&uid, "r1").await);
    assert_eq!(f.count("handled_token").await, 0);
    // The next job takes them again.
    let claim = f.begin(&uid, "r1").await;
    let claim = f.accept(claim).await;
    f.fail(claim).await;
    assert!(f.is_handled(&uid, "r1").await);
}

async fn may_be_done(f: Fixture) {
    let uid = f.server("a").await;
    let claim = f.begin(&uid, "r1").await;
    // Nobody knows what became of the first; the second is refused.
    let claim = f.accept(claim).await;
    let claim = f.store(claim, Effects::default()).await;
    let claim = f.refuse(claim).await;
    assert_eq!(f.queue.observe(&uid).await.unwrap().job.unwrap().taking, []);
    f.fail(claim).await;
    assert!(f.is_handled(&uid, "r1").await);
}

async fn one_moment(f: Fixture) {
    let uid = f.server("a").await;
    for number in 0..40 {
        let value = format!("r{number}");
        let worker = f.worker().await;
        f.enqueue(&uid, Action::Reboot, Lane::High).await;
        let claim = f.claim_one(&worker, PlaceInQueue::Queued).await;
        let asked = tokens(&value);
        let watched = async {
            loop {
                let seen = f.queue.observe_asked(&uid, &asked).await.unwrap();
                let handled = &seen.known.unwrap().handled;
                let taken = seen.job.unwrap().request_stored;
                let counts = asked.clone().map(|token| handled.is_handled(token.kind, Some(&token.value)));
                assert_eq!(counts, [taken, taken], "{value}: handled, and by a job that has not begun");
                if taken {
                    break;
                }
            }
        };
        let stored = async { f.store(claim, Effects::handling(tokens(&value))).await };
        let (claim, ()) = futures::future::join(stored, watched).await;
        let claim = f.accept(claim).await;
        done(f.queue.complete(claim, succeeded()).await.unwrap());
    }
}

async fn for_ever(f: Fixture) {
    let uid = ServerUid("uid-a".to_owned());
    let mut handled = HandledTokens::default();
    for token in tokens("at-first-sight") {
        handled.record(token.kind, &token.value);
    }
    f.queue.register(&uid, "ns", "a", &handled, None).await.unwrap();
    // As the release before left it: the last values in words, and nothing else.
    let mut connection = <sqlx::MySqlConnection as sqlx::Connection>::connect(&f.url).await.unwrap();
    sqlx::query("DELETE FROM handled_token").execute(&mut connection).await.unwrap();
    for number in 0..40 {
        let claim = f.begin(&uid, &format!("r{number}")).await;
        let claim = f.accept(claim).await;
        done(f.queue.complete(claim, succeeded()).await.unwrap());
    }
    let known = f.queue.observe(&uid).await.unwrap().known.unwrap();
    assert_eq!((known.handled.reimage.len(), known.handled.reboot.len()), (8, 8));
    for value in (0..40).map(|number| format!("r{number}")).chain(["at-first-sight".to_owned()]) {
        assert!(f.is_handled(&uid, &value).await, "{value}");
    }
    assert!(!f.is_handled(&uid, "r40").await);
    // The row's own list may be lost: it is not what decides.
    sqlx::query("UPDATE server_state SET handled = '{}'").execute(&mut connection).await.unwrap();
    assert!(f.is_handled(&uid, "r39").await && f.is_handled(&uid, "r0").await);
}

async fn goes(f: Fixture) {
    let uid = f.server("a").await;
    let claim = f.begin(&uid, "r1").await;
    let claim = f.accept(claim).await;
    done(f.queue.complete(claim, succeeded()).await.unwrap());
    assert_eq!(f.count("handled_token").await, 2);
    f.queue.release(&uid).await.unwrap();
    assert_eq!(f.count("handled_token").await, 0);
}

async fn adopted(f: Fixture) {
    let uid = f.server("a").await;
    let worker = f.worker().await;
    f.queue.set_permits(crate::fixture::SITE, autobuild::job::PermitClass::Install, 50).await.unwrap();
    f.enqueue(&uid, Action::Reimage, Lane::Normal).await;
    let claim = f.claim_one(&worker, PlaceInQueue::QueuedBounded).await;
    f.fail(claim).await;
    let failure = async || f.queue.observe(&uid).await.unwrap().known.unwrap().failure;
    assert!(failure().await.is_some());
    let image = InstalledImage {
        name: "debian".to_owned(),
        digest: "sha256:1".to_owned(),
        at_ms: 7,
        origin: Origin::Adopted,
    };
    let image = Contents::Image(image);
    assert!(f.queue.record_contents(&uid, &image, f.version(&uid).await).await.unwrap());
    assert_eq!(failure().await, None);
}
