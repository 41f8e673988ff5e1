//! After another history: who waits until every job was derived again, and who ends that.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use autobuild::api::Reason;
use autobuild::job::{Action, Lane, ServerUid};
use autobuild::queue::{Beat, Derived, Fenced, Heart, Newcomer, Past, PlaceInQueue, Queue, Underived};
use futures::FutureExt as _;
use sqlx::Connection as _;

use crate::Case;
use crate::fixture::{Fixture, SITE, done};

pub const CASES: &[Case] = &[
    ("nobody waits for the controller at a first start and after a restart", |f| ordinary(f).boxed_local()),
    ("after another history everybody waits until the controller has derived every live job", |f| {
        until_derived(f).boxed_local()
    }),
    ("controllers that watch different namespaces each vouch for their own", |f| vouch(f).boxed_local()),
    ("what nobody can derive is held back, and is waited for by nobody, until it was derived", |f| {
        held_back(f).boxed_local()
    }),
    ("a mark that is gone, or another one, is ended by nobody who saw it before", |f| old(f).boxed_local()),
    ("who finds another server at its start, or a restored database, has it derived", |f| {
        found_at_start(f).boxed_local()
    }),
    (
        "what one worker finds ends all incarnations, and who learns of it later has nothing derived again",
        |f| found_by_one(f).boxed_local(),
    ),
    ("a worker that may have been buried is quiet, and has nothing derived again", |f| {
        doubtful(f).boxed_local()
    }),
    ("a job that was stopped for another reason is told that its history is lost", |f| told(f).boxed_local()),
];

async fn enter(queue: &Queue, past: Past) -> Heart {
    let quiet = Duration::from_hours(1);
    queue.enter(Newcomer { site: SITE, host: "test", quiet, past }).await.unwrap()
}

async fn mark(queue: &Queue) -> Option<Underived> {
    queue.follow().await.unwrap().underived
}

async fn derive(queue: &Queue, mark: &Underived, namespace: &str, servers: &[&ServerUid]) -> Derived {
    let servers: HashSet<ServerUid> = servers.iter().map(|uid| (*uid).clone()).collect();
    queue.derived(mark, &[namespace.to_owned()], Arc::new(servers)).await.unwrap()
}

fn not_yet(namespace: &str, name: &str) -> Derived {
    Derived::NotYet { namespace: namespace.to_owned(), name: name.to_owned() }
}

async fn ordinary(f: Fixture) {
    let first = enter(&f.queue, Past::Continued).await;
    assert!(first.derived() && mark(&f.queue).await.is_none());
    first.leave().await.unwrap();
    let restarted = Queue::connect(&f.url, 2).await.unwrap();
    assert!(enter(&restarted, Past::Continued).await.derived());
}

async fn until_derived(f: Fixture) {
    let (one, two) = (f.server("one").await, f.server("two").await);
    let ghost = f.server("ghost").await;
    for uid in [&one, &two] {
        f.enqueue(uid, Action::Reboot, Lane::High).await;
    }
    let id = f.enqueue(&ghost, Action::Reboot, Lane::Low).await;
    let worker = f.worker().await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(f.claim_one(&worker, PlaceInQueue::Queued).await);
    }
    // A job that was asked to stop does nothing but undo, wherever its Server is.
    f.queue.cancel(&ghost, id, Reason::ServerGone).await.unwrap();
    let mut first = enter(&f.queue, Past::Lost).await;
    assert!(!first.derived());
    let fresh = Queue::connect(&f.url, 2).await.unwrap();
    let mut second = enter(&fresh, Past::Continued).await;
    assert!(!second.derived(), "one that starts waits as well");
    let mark = mark(&f.queue).await.unwrap();
    assert_eq!(derive(&f.queue, &mark, "ns", &[&one]).await, not_yet("ns", "two"));
    assert_eq!(first.beat().await.unwrap(), Beat::Alive);
    assert!(!first.derived());
    assert_eq!(derive(&f.queue, &mark, "ns", &[&one, &two]).await, Derived::Over);
    for worker in [&mut first, &mut second] {
        assert_eq!(worker.beat().await.unwrap(), Beat::Alive, "the history is the same");
        assert!(worker.derived());
    }
    let late = Queue::connect(&f.url, 2).await.unwrap();
    let late = enter(&late, Past::Continued).await;
    assert!(late.derived() && late.quiet_until() > Instant::now(), "the quiet time is another matter");
    drop(held);
}

async fn vouch(f: Fixture) {
    let uid = f.server("one").await;
    f.enqueue(&uid, Action::Reboot, Lane::High).await;
    enter(&f.queue, Past::Lost).await;
    let mark = mark(&f.queue).await.unwrap();
    // Servers of another namespace, with no job here.
    assert_eq!(derive(&f.queue, &mark, "other", &[]).await, not_yet("ns", "one"));
    assert_eq!(derive(&f.queue, &mark, "ns", &[]).await, not_yet("ns", "one"));
    assert_eq!(derive(&f.queue, &mark, "other", &[]).await, not_yet("ns", "one"), "it did not vouch");
    assert_eq!(derive(&f.queue, &mark, "ns", &[&uid]).await, Derived::Over);
    // The other way round, in the next history.
    enter(&f.queue, Past::Lost).await;
    let next = self::mark(&f.queue).await.unwrap();
    assert_eq!(derive(&f.queue, &next, "other", &[]).await, not_yet("ns", "one"), "that was another history");
    sqlx::query("UPDATE job SET namespace = 'third'").execute(&mut connection(&f).await).await.unwrap();
    assert_eq!(derive(&f.queue, &next, "third", &[&uid]).await, Derived::Over);
    assert_eq!(names(&f).await, 0, "what was vouched for is not kept");
}

async fn connection(f: &Fixture) -> sqlx::MySqlConnection {
    sqlx::MySqlConnection::connect(&f.url).await.unwrap()
}

async fn names(f: &Fixture) -> i64 {
    let text = "SELECT COUNT(*) FROM meta WHERE name LIKE '@%'";
    sqlx::query_scalar(text).fetch_one(&mut connection(f).await).await.unwrap()
}

async fn held_back(f: Fixture) {
    let (queued, held, stopped) =
        (f.server("queued").await, f.server("held").await, f.server("stopped").await);
    f.enqueue(&held, Action::Reboot, Lane::High).await;
    let worker = f.worker().await;
    let claim = f.claim_one(&worker, PlaceInQueue::Queued).await;
    let id = f.enqueue(&queued, Action::Reboot, Lane::High).await;
    let other = f.enqueue(&stopped, Action::Reboot, Lane::Low).await;
    enter(&f.queue, Past::Lost).await;
    let mark = mark(&f.queue).await.unwrap();
    let ns = ["ns".to_owned()];
    let derived = Arc::new(HashSet::from([stopped.clone()]));
    assert_eq!(f.queue.hold_back(&mark, &["elsewhere".to_owned()], Arc::clone(&derived)).await.unwrap(), 0);
    assert_eq!(derive(&f.queue, &mark, "ns", &[&stopped, &queued]).await, not_yet("ns", "held"));
    assert_eq!(f.queue.hold_back(&mark, &ns, Arc::clone(&derived)).await.unwrap(), 2);
    assert_eq!(f.queue.hold_back(&mark, &ns, Arc::clone(&derived)).await.unwrap(), 0, "they are already");
    assert_eq!(derive(&f.queue, &mark, "ns", &[&stopped]).await, Derived::Over);
    assert_eq!(f.queue.hold_back(&mark, &ns, Arc::default()).await.unwrap(), 0, "the mark is gone");
    for (uid, is_held) in [(&queued, true), (&held, true), (&stopped, false)] {
        let seen = f.queue.observe(uid).await.unwrap();
        assert_eq!(seen.held_back, is_held);
        assert!(seen.in_feed, "its Server is looked at as soon as it can be");
    }
    assert!(matches!(f.queue.hand_back(claim).await.unwrap(), Fenced::Lost), "its worker has it no more");
    let worker = f.worker().await;
    let claim = f.claim_one(&worker, PlaceInQueue::Queued).await;
    assert_eq!(claim.job().id, other, "nobody finds the others");
    f.queue.signal(&queued, id).await.unwrap();
    assert!(!f.queue.observe(&queued).await.unwrap().held_back);
    assert_eq!(f.claim_one(&worker, PlaceInQueue::Ready).await.job().id, id);
}

async fn old(f: Fixture) {
    enter(&f.queue, Past::Lost).await;
    let before = mark(&f.queue).await.unwrap();
    enter(&f.queue, Past::Lost).await;
    let now = mark(&f.queue).await.unwrap();
    assert_ne!(before, now);
    assert_eq!(derive(&f.queue, &before, "ns", &[]).await, Derived::Over);
    assert_eq!(mark(&f.queue).await, Some(now.clone()), "nothing was ended");
    assert_eq!(derive(&f.queue, &now, "ns", &[]).await, Derived::Over);
    assert_eq!(derive(&f.queue, &now, "ns", &[]).await, Derived::Over);
    assert_eq!(mark(&f.queue).await, None);
}

async fn found_at_start(f: Fixture) {
    enter(&f.queue, Past::Continued).await;
    let text = "UPDATE meta SET value = 'the-server-before' WHERE name = 'history'";
    sqlx::query(text).execute(&mut connection(&f).await).await.unwrap();
    let restarted = Queue::connect(&f.url, 2).await.unwrap();
    assert!(!enter(&restarted, Past::Continued).await.derived());
    let mark = mark(&restarted).await.unwrap();
    assert_eq!(derive(&restarted, &mark, "ns", &[]).await, Derived::Over);
    autobuild::queue::migrate(&f.url, true).await.unwrap();
    let restored = Queue::connect(&f.url, 2).await.unwrap();
    assert!(!enter(&restored, Past::Continued).await.derived());
}

async fn found_by_one(f: Fixture) {
    let [finds, learns, late] = [
        Queue::connect(&f.url, 2).await.unwrap(),
        Queue::connect(&f.url, 2).await.unwrap(),
        Queue::connect(&f.url, 2).await.unwrap(),
    ];
    let mut learning = enter(&learns, Past::Continued).await;
    assert_eq!(learning.beat().await.unwrap(), Beat::Alive);
    enter(&finds, Past::Lost).await;
    assert_eq!(learning.beat().await.unwrap(), Beat::AnotherHistory, "it may have seen no sign itself");
    let mark = mark(&finds).await.unwrap();
    assert!(!enter(&learns, Past::Lost).await.derived());
    assert_eq!(self::mark(&finds).await, Some(mark.clone()), "it is the same change");
    assert_eq!(derive(&finds, &mark, "ns", &[]).await, Derived::Over);
    // One that was cut off since before the change: what runs by now goes on.
    let thawed = enter(&late, Past::Lost).await;
    assert!(thawed.derived() && thawed.quiet_until() > Instant::now());
    // But the next change is one.
    assert!(!enter(&late, Past::Lost).await.derived());
}

async fn doubtful(f: Fixture) {
    enter(&f.queue, Past::Continued).await;
    let buried = enter(&f.queue, Past::Doubtful).await;
    assert!(buried.derived() && buried.quiet_until() > Instant::now());
}

async fn told(f: Fixture) {
    let uid = f.server("one").await;
    let id = f.enqueue(&uid, Action::Reboot, Lane::High).await;
    let worker = f.worker().await;
    let claim = f.claim_one(&worker, PlaceInQueue::Queued).await;
    for (reason, stands) in [
        (Reason::WishChanged, Reason::WishChanged),
        (Reason::Paused, Reason::WishChanged),
        (Reason::HistoryLost, Reason::HistoryLost),
        (Reason::Paused, Reason::HistoryLost),
    ] {
        f.queue.cancel(&uid, id, reason).await.unwrap();
        assert_eq!(f.queue.observe(&uid).await.unwrap().job.unwrap().cancel, Some(stands));
    }
    done(f.queue.hand_back(claim).await.unwrap());
}
