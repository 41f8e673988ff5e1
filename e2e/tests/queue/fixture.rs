//! A schema of one's own, and jobs to put into it.

use std::time::{Duration, Instant};

use autobuild::job::{Action, Cause, HandledTokens, Intent, JobId, JobResult, Lane, ServerUid, Visibility};
use autobuild::queue::{
    Claim, ClaimFrom, End, Enqueued, Fenced, Front, Heart, NewJob, PlaceInQueue, Queue, Room, Served,
};
use autobuild::shard::Shard;
use e2e::database::Database;

pub struct Fixture {
    pub queue: Queue,
    pub url: String,
}

pub const SITE: &str = "north";

impl Fixture {
    pub async fn new(database: &Database) -> Self {
        let url = database.unique_schema("queue").await.unwrap();
        autobuild::queue::migrate(&url, false).await.unwrap();
        Self { queue: Queue::connect(&url, 16).await.unwrap(), url }
    }

    /// Registers a server; its version is then 1.
    pub async fn server(&self, name: &str) -> ServerUid {
        let uid = ServerUid(format!("uid-{name}"));
        self.queue.register(&uid, "ns", name, &HandledTokens::default(), None).await.unwrap();
        uid
    }

    pub async fn enqueue(&self, uid: &ServerUid, action: Action, lane: Lane) -> JobId {
        let version = self.version(uid).await;
        let job = job(uid, action, lane, JobId::new(now_ms(), rand::random()));
        let id = job.id;
        assert_eq!(self.queue.enqueue(job, version).await.unwrap(), Enqueued::Accepted);
        id
    }

    pub async fn version(&self, uid: &ServerUid) -> i64 {
        self.queue.observe(uid).await.unwrap().known.unwrap().version
    }

    pub async fn worker(&self) -> Heart {
        self.queue.join(SITE, "test").await.unwrap()
    }

    pub async fn claim(&self, worker: &Heart, place: PlaceInQueue, lane: Lane, at_most: u32) -> Vec<Claim> {
        let from = ClaimFrom { site: SITE.to_owned(), shard: Shard(0), place, lane };
        self.queue.claim(worker.incarnation(), from, at_most).await.unwrap()
    }

    pub async fn claim_one(&self, worker: &Heart, place: PlaceInQueue) -> Claim {
        for lane in Lane::ALL {
            if let Some(claim) = self.claim(worker, place, lane, 1).await.pop() {
                return claim;
            }
        }
        panic!("nothing to claim in {place:?}");
    }

    pub async fn fetch(&self, front: &mut Front, worker: &Heart, room: Room) -> Vec<Claim> {
        self.queue.fetch(front, worker.incarnation(), room).await.unwrap()
    }

    pub fn served() -> Served {
        Served { site: SITE.to_owned(), shards: [Shard(0)].into() }
    }

    pub async fn count(&self, table: &'static str) -> i64 {
        use sqlx::Connection as _;
        let mut connection = sqlx::MySqlConnection::connect(&self.url).await.unwrap();
        let text = format!("SELECT COUNT(*) FROM {table}");
        // Not prepared: the server may be full of prepared statements.
        let row = sqlx::raw_sql(sqlx::AssertSqlSafe(text)).fetch_one(&mut connection).await.unwrap();
        sqlx::Row::get(&row, 0)
    }
}

pub fn job(uid: &ServerUid, action: Action, lane: Lane, id: JobId) -> NewJob {
    NewJob {
        id,
        order_ms: id.unix_ms(),
        uid: uid.clone(),
        namespace: "ns".to_owned(),
        name: uid.as_str().trim_start_matches("uid-").to_owned(),
        site: SITE.to_owned(),
        shard: Shard(0),
        action,
        step: action.steps()[0],
        lane,
        intent: Intent("i".repeat(64)),
        cause: Cause { named: "c".repeat(64), whole: "d".repeat(64) },
        visibility: Visibility::Shown,
        requester: "test".to_owned(),
        budget: None,
    }
}

pub fn succeeded() -> End {
    End::new(JobResult::Succeeded, None)
}

pub fn done<T: std::fmt::Debug>(fenced: Fenced<T>) -> T {
    match fenced {
        Fenced::Done(value) => value,
        Fenced::Lost => panic!("the claim was lost"),
    }
}

pub fn now_ms() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64
}

/// Waits for a condition; fails with its name after a generous bound.
pub async fn wait_for<F: AsyncFnMut() -> bool>(what: &str, mut condition: F) {
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < Duration::from_mins(1), "{what} did not come true");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
