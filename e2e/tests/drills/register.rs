//! Each job is a register that is claimed, let go and completed. Workers use it over connections that are cut at random,
//! so that answers are lost; what they saw must fit one order of things in which each call took effect once, between
//! when it was made and when it was answered.

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use autobuild::job::{Action, Cause, HandledTokens, Intent, JobId, JobResult, Lane, ServerUid, Visibility};
use autobuild::queue::{ClaimFrom, End, Fenced, NewJob, PlaceInQueue, Queue};
use autobuild::shard::Shard;
use e2e::database::{Database, Engine};
use e2e::fleet::{LIMIT, Link, Proxy};
use e2e::wait::{Look, say, wait_for};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

const JOBS: usize = 40;
const WORKERS: u64 = 3;

/// What a worker did with a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Did {
    /// Took it, with this token.
    Claim,
    /// Put it back.
    LetGo,
    /// Ended it.
    Complete,
}

/// What it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Done,
    /// The job is not, or no longer, that claim's.
    Lost,
    /// No answer came: it took effect or it did not, and if it did, at any time since.
    Nothing,
}

/// One call and its answer, in ticks of a clock that all share.
#[derive(Debug, Clone, Copy)]
struct Call {
    did: Did,
    token: i64,
    told: Told,
    made: u64,
    answered: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Register {
    Free,
    Held(i64),
    CompletedBy(i64),
}

impl Register {
    /// What the call makes of it, if it can have been answered so; an unanswered one that took effect counts as done.
    fn after(self, call: &Call) -> Option<Self> {
        let took_effect = match (call.did, self) {
            (Did::Claim, Self::Free) => Some(Self::Held(call.token)),
            (Did::LetGo, Self::Held(token)) if token == call.token => Some(Self::Free),
            (Did::Complete, Self::Held(token)) if token == call.token => Some(Self::CompletedBy(token)),
            // Repeated after its answer was lost.
            (Did::Complete, Self::CompletedBy(token)) if token == call.token => Some(self),
            _ => None,
        };
        match call.told {
            Told::Done | Told::Nothing => took_effect,
            // Also when its COMMIT was unknown and took effect: the repetition finds the claim over.
            Told::Lost => Some(took_effect.unwrap_or(self)),
        }
    }
}

/// Whether some order explains all calls; `Err` with nothing to add if none does.
fn explained(calls: &[Call]) -> bool {
    fn search(calls: &[Call], placed: u64, register: Register, seen: &mut HashSet<(u64, Register)>) -> bool {
        let open = |number: usize| placed & (1 << number) == 0;
        let left: Vec<usize> = (0..calls.len()).filter(|number| open(*number)).collect();
        // What nobody was told of may have had no effect.
        let all_told = left.iter().all(|number| calls[*number].told == Told::Nothing);
        if all_told && matches!(register, Register::CompletedBy(_)) {
            return true;
        }
        if !seen.insert((placed, register)) {
            return false;
        }
        let first_answer = left
            .iter()
            .filter(|number| calls[**number].told != Told::Nothing)
            .map(|number| calls[*number].answered)
            .min();
        left.iter().any(|number| {
            let call = &calls[*number];
            first_answer.is_none_or(|answered| call.made <= answered)
                && register.after(call).is_some_and(|next| search(calls, placed | 1 << number, next, seen))
        })
    }
    assert!(calls.len() < 64, "{} calls of one job", calls.len());
    search(calls, 0, Register::Free, &mut HashSet::new())
}

/// What all workers share.
struct Scene {
    url: String,
    clock: AtomicU64,
    calls: Mutex<BTreeMap<String, Vec<Call>>>,
    over: AtomicBool,
}

impl Scene {
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn record(&self, uid: &ServerUid, call: Call) {
        self.calls.lock().unwrap().entry(uid.as_str().to_owned()).or_default().push(call);
    }

    /// Works until everything is over.
    async fn work(&self, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let queue = loop {
            if let Ok(queue) = Queue::connect(&self.url, 4).await {
                break queue;
            }
        };
        let me = loop {
            if let Ok(heart) = queue.join("north", "test").await {
                break heart.incarnation();
            }
        };
        while !self.over.load(Ordering::SeqCst) {
            let place = if random.random_bool(0.5) { PlaceInQueue::Ready } else { PlaceInQueue::Queued };
            let from = ClaimFrom { site: "north".to_owned(), shard: Shard(0), place, lane: Lane::High };
            let made = self.tick();
            for claim in queue.claim(me, from, 3).await.unwrap_or_default() {
                let (uid, token) = (claim.uid().clone(), claim.owned().token.0);
                self.record(
                    &uid,
                    Call { did: Did::Claim, token, told: Told::Done, made, answered: self.tick() },
                );
                let made = self.tick();
                let (did, told) = match random.random_range(0..10) {
                    0..=3 => (Did::Complete, fenced(queue.complete(claim, succeeded()).await)),
                    4..=7 => (Did::LetGo, fenced(queue.hand_back(claim).await)),
                    // Forgotten: given back below, as one whose claim was never answered.
                    _ => continue,
                };
                self.record(&uid, Call { did, token, told, made, answered: self.tick() });
            }
            // What this worker holds and does not know of. Its claim was made, and nobody was told.
            for stray in queue.owned(me).await.unwrap_or_default() {
                let token = stray.token.0;
                let known = self.calls.lock().unwrap().get(stray.uid.as_str()).is_some_and(|calls| {
                    calls.iter().any(|call| call.did == Did::Claim && call.token == token)
                });
                if !known {
                    let call = Call { did: Did::Claim, token, told: Told::Nothing, made: 0, answered: 0 };
                    self.record(&stray.uid, call);
                }
                let (uid, made) = (stray.uid.clone(), self.tick());
                let told = match queue.disown(me, stray).await {
                    Ok(true) => Told::Done,
                    Ok(false) => Told::Lost,
                    Err(_) => Told::Nothing,
                };
                self.record(&uid, Call { did: Did::LetGo, token, told, made, answered: self.tick() });
            }
        }
    }
}

fn fenced<T>(answer: Result<Fenced<T>, autobuild::queue::QueueError>) -> Told {
    match answer {
        Ok(Fenced::Done(_)) => Told::Done,
        Ok(Fenced::Lost) => Told::Lost,
        Err(error) => {
            assert!(error.is_transient(), "{error}");
            Told::Nothing
        }
    }
}

fn succeeded() -> End {
    End::new(JobResult::Succeeded, None)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_workers_saw_of_a_job_over_broken_connections_fits_one_order_of_things() {
    let seed = crate::crash::seed();
    say(format!("register drill: SOAK_SEED={seed}"));
    let database = Database::shared(Engine::from_env().unwrap()).await.unwrap();
    let url = database.unique_schema("register").await.unwrap();
    autobuild::queue::migrate(&url, false).await.unwrap();
    let queue = Queue::connect(&url, 4).await.unwrap();
    for number in 0..JOBS {
        let uid = ServerUid(format!("uid-{number}"));
        queue.register(&uid, "ns", &number.to_string(), &HandledTokens::default(), None).await.unwrap();
        queue.enqueue(job(&uid, JobId(number as i64 + 1)), 1).await.unwrap();
    }
    let (proxy, through) = Proxy::before_database(&url).await.unwrap();
    let scene = Scene {
        url: through,
        clock: AtomicU64::new(1),
        calls: Mutex::default(),
        over: AtomicBool::new(false),
    };
    let chaos = async {
        let mut random = StdRng::seed_from_u64(seed);
        while !scene.over.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(random.random_range(5..150))).await;
            proxy.set(Link::Cut);
            tokio::time::sleep(Duration::from_millis(random.random_range(1..20))).await;
            proxy.set(Link::Up);
        }
    };
    let end = async {
        let ended = wait_for("all jobs to be completed", LIMIT, async || {
            let left: i64 = {
                use sqlx::Connection as _;
                let mut connection = sqlx::MySqlConnection::connect(&url).await?;
                sqlx::query_scalar("SELECT COUNT(*) FROM job").fetch_one(&mut connection).await?
            };
            Ok(if left == 0 { Look::Holds(()) } else { Look::NotYet(format!("{left} are left")) })
        })
        .await;
        scene.over.store(true, Ordering::SeqCst);
        proxy.set(Link::Up);
        ended
    };
    let workers =
        futures::future::join_all((1..=WORKERS).map(|number| scene.work(seed.wrapping_add(number))));
    let (ended, (), _) = futures::join!(end, chaos, workers);
    ended.unwrap();
    let calls = scene.calls.into_inner().unwrap();
    assert_eq!(calls.len(), JOBS);
    let unanswered = calls.values().flatten().filter(|call| call.told == Told::Nothing).count();
    say(format!("{} calls, {unanswered} without an answer", calls.values().map(Vec::len).sum::<usize>()));
    for (uid, calls) in &calls {
        assert!(explained(calls), "{uid}: nothing explains {calls:#?}");
    }
}

/// A reboot, as a controller enqueues it.
pub fn job(uid: &ServerUid, id: JobId) -> NewJob {
    NewJob {
        id,
        order_ms: id.unix_ms(),
        uid: uid.clone(),
        namespace: "ns".to_owned(),
        name: uid.as_str().to_owned(),
        site: "north".to_owned(),
        shard: Shard(0),
        action: Action::Reboot,
        step: Action::Reboot.steps()[0],
        lane: Lane::High,
        intent: Intent("i".repeat(64)),
        cause: Cause { named: "c".repeat(64), whole: "d".repeat(64) },
        visibility: Visibility::Shown,
        requester: "test".to_owned(),
        budget: None,
    }
}

#[test]
fn what_no_order_explains_is_found() {
    use Did::{Claim, Complete, LetGo};
    use Told::{Done, Lost, Nothing};
    let call = |did, token, told, made, answered| Call { did, token, told, made, answered };
    let claimed = call(Claim, 1, Done, 1, 2);
    let then_another =
        |first: Call| vec![claimed, first, call(Claim, 2, Done, 5, 6), call(Complete, 2, Done, 7, 8)];
    for (calls, fits) in [
        (vec![claimed, call(Complete, 1, Done, 3, 4)], true),
        (vec![claimed, call(Complete, 1, Nothing, 3, 4), call(Complete, 1, Done, 5, 6)], true),
        (vec![claimed, call(Complete, 1, Nothing, 3, 4)], true),
        (then_another(call(LetGo, 1, Done, 3, 4)), true),
        // Two hold it at once.
        (vec![claimed, call(Claim, 2, Done, 3, 4), call(Complete, 2, Done, 5, 6)], false),
        // Completed twice.
        (then_another(call(Complete, 1, Done, 3, 4)), false),
        // Refused, because the try before had been committed.
        (then_another(call(LetGo, 1, Lost, 3, 4)), true),
        // Refused to the one that holds it.
        (vec![claimed, call(Complete, 1, Lost, 3, 4), call(LetGo, 1, Done, 5, 6)], false),
        // Never completed.
        (vec![claimed, call(LetGo, 1, Done, 3, 4)], false),
    ] {
        assert_eq!(explained(&calls), fits, "{calls:?}");
    }
}
