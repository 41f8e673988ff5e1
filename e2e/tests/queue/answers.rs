//! What members of a cluster answer in trouble, from a real server with a proxy before it that gives numbers for answers.

use std::time::Duration;

use autobuild::job::{Action, JobId, Lane, Step};
use autobuild::queue::{Beat, Enqueued, PlaceInQueue, Queue, Report};
use e2e::database::answers::{Answer, Answering, Meanwhile};
use futures::FutureExt as _;
use futures::future::join_all;
use sqlx::{Connection as _, Executor as _};

use crate::Case;
use crate::fixture::{Fixture, done, job, now_ms, succeeded, wait_for};

pub const CASES: &[Case] = &[
    ("a commit that is told as refused and was done is found, and nothing is done twice", |f| {
        told_as_refused(f).boxed_local()
    }),
    ("a commit that is told as refused and was not done is done, and nothing is done twice", |f| {
        refused(f).boxed_local()
    }),
    ("a worker goes on with its job whose commit was told as refused and was done", |f| {
        goes_on(f).boxed_local()
    }),
    ("a conflict at a commit is tried again on the same connection", |f| conflict(f).boxed_local()),
    ("commits that hang are told as long as they do", |f| hang(f).boxed_local()),
    ("a heartbeat that still has its row is told as a commit that hangs", |f| held(f).boxed_local()),
    ("half a transaction whose rollback is refused is committed by nobody", |f| half(f).boxed_local()),
];

/// The queue of a fixture, through a proxy.
async fn through(f: &Fixture) -> (Answering, Queue) {
    let (answering, url) = Answering::before(&f.url).await.unwrap();
    let queue = Queue::connect(&*url, 4).await.unwrap();
    (answering, queue)
}

/// Some jobs at once: they share a transaction where they can.
async fn enqueue_some(f: &Fixture, queue: &Queue, code: u16) -> Vec<Enqueued> {
    let mut jobs = Vec::new();
    for number in 0..3 {
        let uid = f.server(&format!("{code}-{number}")).await;
        jobs.push(job(&uid, Action::Reboot, Lane::High, JobId::new(now_ms(), rand::random())));
    }
    let ended = join_all(jobs.into_iter().map(|job| queue.enqueue(job, 1))).await;
    ended.into_iter().map(Result::unwrap).collect()
}

async fn told_as_refused(f: Fixture) {
    // Group Replication, Galera without its primary component, a lock time-out, and what no table of ours has.
    for (round, code) in [3100, 1180, 1047, 1205, 1105, 3999].into_iter().enumerate() {
        let (answering, queue) = through(&f).await;
        answering.answer(Answer { to: "COMMIT", code, meanwhile: Meanwhile::Done, times: 1 });
        assert_eq!(enqueue_some(&f, &queue, code).await, [Enqueued::Accepted; 3], "{code}");
        assert_eq!(answering.given(), 1, "{code}");
        wait_for("the connection to be closed", async || answering.closed() >= 1).await;
        let jobs = 3 * (round as i64 + 1);
        assert_eq!((f.count("job").await, f.count("queue").await), (jobs, jobs), "{code}");
        queue.close().await;
    }
}

/// What was written is found by its marks: a second try of it would find the row changed, and the claim lost.
async fn goes_on(f: Fixture) {
    let worker = f.worker().await;
    for code in [3100, 1047, 3999] {
        let uid = f.server(&code.to_string()).await;
        f.enqueue(&uid, Action::Reboot, Lane::High).await;
        let claim = f.claim_one(&worker, PlaceInQueue::Queued).await;
        let (answering, queue) = through(&f).await;
        answering.answer(Answer { to: "COMMIT", code, meanwhile: Meanwhile::Done, times: 1 });
        let claim = done(queue.advance(claim, Step::On, "{}".to_owned(), Report::Nothing).await.unwrap());
        assert_eq!((answering.given(), claim.job().step), (1, Step::On), "{code}");
        wait_for("the connection to be closed", async || answering.closed() >= 1).await;
        done(queue.complete(claim, succeeded()).await.unwrap());
        queue.close().await;
    }
}

async fn refused(f: Fixture) {
    let (answering, queue) = through(&f).await;
    answering.answer(Answer { to: "COMMIT", code: 1180, meanwhile: Meanwhile::Nothing, times: 1 });
    assert_eq!(enqueue_some(&f, &queue, 1180).await, [Enqueued::Accepted; 3]);
    assert_eq!(answering.given(), 1);
    // What was open on it ends with it.
    wait_for("the connection to be closed", async || answering.closed() >= 1).await;
    assert_eq!((f.count("job").await, f.count("queue").await), (3, 3));
    queue.close().await;
}

async fn conflict(f: Fixture) {
    let (answering, queue) = through(&f).await;
    let uid = f.server("one").await;
    // The pool's first connection, and those of the checks.
    queue.observe(&uid).await.unwrap();
    let before = answering.opened();
    answering.answer(Answer { to: "COMMIT", code: 3101, meanwhile: Meanwhile::Nothing, times: 1 });
    let wanted = job(&uid, Action::Reboot, Lane::High, JobId::new(now_ms(), rand::random()));
    assert_eq!(queue.enqueue(wanted, 1).await.unwrap(), Enqueued::Accepted);
    assert_eq!((answering.given(), f.count("job").await), (1, 1));
    assert!(answering.opened() <= before + 1, "{} after {before}", answering.opened());
    queue.close().await;
}

async fn half(f: Fixture) {
    let (answering, queue) = through(&f).await;
    let uid = f.server("one").await;
    let other = f.server("other").await;
    let taken = JobId::new(now_ms(), rand::random());
    let of = |uid, id| job(uid, Action::Reboot, Lane::High, id);
    assert_eq!(queue.enqueue(of(&other, taken), 1).await.unwrap(), Enqueued::Accepted);
    // A node without quorum refuses the rollback too, and keeps open what was begun.
    for to in ["ROLLBACK AND CHAIN", "ROLLBACK"] {
        answering.answer(Answer { to, code: 1047, meanwhile: Meanwhile::Nothing, times: 1 });
    }
    // A key that exists already: what it has inserted by then is rolled back.
    let ended = queue.enqueue(of(&uid, taken), 1).await;
    assert_eq!(answering.given(), 2, "{ended:?}");
    // The next BEGIN on that connection would commit it.
    let third = f.server("third").await;
    let id = JobId::new(now_ms(), rand::random());
    assert_eq!(queue.enqueue(of(&third, id), 1).await.unwrap(), Enqueued::Accepted);
    assert_eq!((f.count("job").await, f.count("queue").await), (2, 2));
    wait_for("the connection to be closed", async || answering.closed() >= 1).await;
    queue.close().await;
}

/// Without its majority a cluster goes on to answer reads.
async fn hang(f: Fixture) {
    let (answering, queue) = through(&f).await;
    let uid = f.server("one").await;
    answering.answer(Answer { to: "COMMIT", code: 0, meanwhile: Meanwhile::Hangs, times: 1 });
    let wanted = job(&uid, Action::Reboot, Lane::High, JobId::new(now_ms(), rand::random()));
    let (sent, of) = (queue.clone(), wanted);
    let enqueued = tokio::spawn(async move { sent.enqueue(of, 1).await });
    wait_for("the commit to be told", async || {
        queue.hangs().is_some_and(|says| says.contains("lost its majority"))
    })
    .await;
    assert_eq!(queue.lead().borrow().trouble, None);
    answering.let_go();
    assert_eq!(enqueued.await.unwrap().unwrap(), Enqueued::Accepted);
    assert_eq!(queue.hangs(), None);
    queue.close().await;
}

async fn held(f: Fixture) {
    let queue = Queue::connect(&*f.url, 2).await.unwrap();
    let mut heart = queue.join("default", "here").await.unwrap();
    let me = heart.incarnation().0;
    let mut other = sqlx::MySqlConnection::connect(&f.url).await.unwrap();
    let lock = format!("SELECT incarnation FROM worker WHERE incarnation = {me} FOR UPDATE");
    for text in ["BEGIN".to_owned(), lock] {
        other.execute(sqlx::AssertSqlSafe(text)).await.unwrap();
    }
    assert!(tokio::time::timeout(Duration::from_millis(300), heart.beat()).await.is_err());
    let error = heart.beat().await.unwrap_err();
    assert!(error.to_string().contains("lost its majority"), "{error}");
    other.execute("ROLLBACK").await.unwrap();
    // The one that was given up may have arrived.
    wait_for("a heartbeat to be accepted", async || matches!(heart.beat().await, Ok(Beat::Alive))).await;
    queue.close().await;
}
