//! The database gives transactions up, or takes no more connections: they are repeated whole, not for ever, and counted.

use std::time::Duration;

use autobuild::job::{HandledTokens, JobId, ServerUid};
use autobuild::metrics;
use autobuild::queue::{Enqueued, Queue, QueueError};
use e2e::database::{Database, Engine, Special};
use e2e::fleet::{Fleet, LIMIT, Layout, metric};
use e2e::wait::{Look, wait_for};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, MySqlConnection};

use crate::register::job;
use crate::steps::controller_flags;

const JOB: JobId = JobId(4711);

struct Scene {
    queue: Queue,
    rival: MySqlConnection,
    onlooker: MySqlConnection,
    uid: ServerUid,
}

impl Scene {
    /// A server that is known, on an engine's own schema.
    async fn new(name: &str) -> Self {
        let database = Database::shared(Engine::from_env().unwrap()).await.unwrap();
        let url = database.unique_schema("conflicts").await.unwrap();
        autobuild::queue::migrate(&url, false).await.unwrap();
        let queue = Queue::connect(&url, 4).await.unwrap();
        let uid = ServerUid(format!("uid-{name}"));
        queue.register(&uid, "ns", name, &HandledTokens::default(), None).await.unwrap();
        let rival = MySqlConnection::connect(&url).await.unwrap();
        Self { queue, rival, onlooker: MySqlConnection::connect(&url).await.unwrap(), uid }
    }

    /// The rival holds what is known of the server, which every enqueue needs.
    async fn hold(&mut self) {
        self.rival.execute("BEGIN").await.unwrap();
        sqlx::query("SELECT version FROM server_state WHERE server_uid = ? FOR UPDATE")
            .bind(self.uid.as_str())
            .fetch_one(&mut self.rival)
            .await
            .unwrap();
    }

    async fn somebody_waits_for_it(&mut self) {
        let schema: String =
            sqlx::query_scalar("SELECT DATABASE()").fetch_one(&mut self.onlooker).await.unwrap();
        let onlooker = tokio::sync::Mutex::new(&mut self.onlooker);
        // The server answers from a copy that it takes anew only if nobody has read it for a tenth of a second.
        let copied = Duration::from_millis(150);
        wait_for("the enqueue to wait for the rival", LIMIT, async || {
            tokio::time::sleep(copied).await;
            let waiting: i64 = sqlx::query_scalar(
                "SELECT COUNT(*) FROM information_schema.innodb_trx t JOIN information_schema.processlist p \
                 ON p.id = t.trx_mysql_thread_id WHERE t.trx_state = 'LOCK WAIT' AND p.db = ?",
            )
            .bind(&schema)
            .fetch_one(&mut **onlooker.lock().await)
            .await?;
            Ok(if waiting > 0 { Look::Holds(()) } else { Look::NotYet("nobody waits".to_owned()) })
        })
        .await
        .unwrap();
    }

    fn enqueue(&self) -> tokio::task::JoinHandle<Result<Enqueued, QueueError>> {
        let (queue, job) = (self.queue.clone(), job(&self.uid, JOB));
        tokio::spawn(async move { queue.enqueue(job, 1).await })
    }

    /// The job is there, once, and the version went up once.
    async fn enqueued_once(&self) {
        let seen = self.queue.observe(&self.uid).await.unwrap();
        assert_eq!(seen.job.map(|job| job.id), Some(job(&self.uid, JOB).id));
        assert_eq!(seen.known.unwrap().version, 2);
    }
}

fn given_up() -> f64 {
    let page = metrics::page();
    metric(&page, "autobuild_database_transactions_total", &[("outcome", "conflict")])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_waited_too_long_is_repeated_whole_and_counted() {
    let mut scene = Scene::new("a").await;
    let before = given_up();
    scene.hold().await;
    let enqueue = scene.enqueue();
    wait_for("the first try to be given up", LIMIT, async || {
        let now = given_up();
        Ok(if now > before { Look::Holds(()) } else { Look::NotYet(format!("{now} were given up")) })
    })
    .await
    .unwrap();
    scene.rival.execute("ROLLBACK").await.unwrap();
    assert_eq!(enqueue.await.unwrap().unwrap(), Enqueued::Accepted);
    scene.enqueued_once().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadlock_is_repeated_whole_and_counted() {
    let mut scene = Scene::new("a").await;
    let before = given_up();
    // The one that wrote less is given up: the rival has written a lot.
    scene.rival.execute("CREATE TABLE ballast (n INT PRIMARY KEY)").await.unwrap();
    scene.hold().await;
    let rows: Vec<String> = (0..500).map(|n| format!("({n})")).collect();
    let ballast = format!("INSERT INTO ballast VALUES {}", rows.join(","));
    scene.rival.execute(AssertSqlSafe(ballast)).await.unwrap();
    let enqueue = scene.enqueue();
    scene.somebody_waits_for_it().await;
    // It has written the job and waits for the state; the rival has the state and asks for the job.
    sqlx::query("UPDATE job SET attempt = attempt WHERE server_uid = ?")
        .bind(scene.uid.as_str())
        .execute(&mut scene.rival)
        .await
        .unwrap();
    scene.rival.execute("ROLLBACK").await.unwrap();
    assert_eq!(enqueue.await.unwrap().unwrap(), Enqueued::Accepted);
    assert!(given_up() > before, "nothing was given up");
    scene.enqueued_once().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_never_gets_through_ends_with_an_error_and_can_be_tried_again() {
    let mut scene = Scene::new("a").await;
    scene.hold().await;
    let error = scene.enqueue().await.unwrap().unwrap_err();
    assert!(error.is_transient() && error.class() == "conflict", "{error}");
    scene.rival.execute("ROLLBACK").await.unwrap();
    assert_eq!(scene.enqueue().await.unwrap().unwrap(), Enqueued::Accepted);
    scene.enqueued_once().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_free_connections_is_waited_for() {
    const CONNECTIONS: usize = 30;
    let args = vec![format!("--max-connections={CONNECTIONS}")];
    let special = Special { args, env: Vec::new() };
    let database = Database::special("few-connections", Engine::from_env().unwrap(), special).await.unwrap();
    let url = database.unique_schema("fleet").await.unwrap();
    let layout = Layout::new(1).database(&url).emulator(&["--initial-power", "on"]);
    let fleet = Fleet::with(layout).await.unwrap();
    // Without the one connection more that an administrator gets.
    let create = "CREATE USER plain@'127.0.0.1' IDENTIFIED BY 'geheim'";
    fleet.records().pool().execute(create).await.unwrap();
    fleet
        .records()
        .pool()
        .execute("GRANT SELECT, INSERT, UPDATE, DELETE ON *.* TO plain@'127.0.0.1'")
        .await
        .unwrap();
    let mut plain = url::Url::parse(&url).unwrap();
    plain.set_username("plain").unwrap();
    plain.set_password(Some("geheim")).unwrap();
    let env = [("DATABASE_URL", plain.as_str())];
    let flags = controller_flags(&fleet).set("--database-connections", "4");
    let _controller = fleet.controller_with("controller", &flags, &env).await.unwrap();

    // Others take what is left.
    let mut others = Vec::new();
    let full = loop {
        match MySqlConnection::connect(plain.as_str()).await {
            Ok(connection) => others.push(connection),
            Err(error) => break error,
        }
        assert!(others.len() <= CONNECTIONS);
    };
    assert!(full.to_string().contains("oo many connections"), "{full}");
    let flags = fleet.worker_flags().set("--database-connections", "4");
    let worker = fleet.launch("worker", &flags, fleet.cluster().worker(), &env).await.unwrap();
    wait_for("the worker to say that there are too many connections", LIMIT, async || {
        let (status, text) = worker.get("/readyz").await?;
        let told = status == 503 && text.contains("oo many connections");
        Ok(if told { Look::Holds(()) } else { Look::NotYet(format!("{status}: {text}")) })
    })
    .await
    .unwrap();
    assert!(worker.process().ended().unwrap().is_none());
    drop(others);
    worker.wait_ready().await.unwrap();
    fleet.declare("system-0001", json!({})).await.unwrap();
    fleet.wait_ready("system-0001").await.unwrap();
    worker.process().stop(Duration::from_secs(20)).await.unwrap();
    fleet.end().await.unwrap();
}
