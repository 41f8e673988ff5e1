//! The controller process on a real control plane and a real database, under its own service account. The worker is
//! this test: it speaks through the queue.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::time::{Duration, Instant};

use autobuild::api::condition::{ConditionType, find};
use autobuild::api::hardware::{Hardware, HardwareIdentity, PowerState};
use autobuild::api::{Phase, Server, ServerStatus, names};
use autobuild::job::{Action, JobResult, Lane, Reading, RequestKind, ServerUid, StoredRequest};
use autobuild::queue::{Claim, ClaimFrom, End, Fenced, Heart, PlaceInQueue, Queue, Report};
use autobuild::shard::{DEFAULT_SHARDS, Shard};
use e2e::autobuild::{Autobuild, Running};
use e2e::control_plane::ControlPlane;
use e2e::database::{Database, Engine};
use e2e::process::{Lifetime, Signal};
use k8s_openapi::api::events::v1::Event;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

/// A namespace, a schema and what runs on them.
struct Site {
    plane: &'static ControlPlane,
    namespace: String,
    url: String,
    autobuild: Autobuild,
    queue: Queue,
    client: Client,
    heart: Heart,
    kubeconfig: String,
    _dir: tempfile::TempDir,
}

impl Site {
    async fn new() -> Self {
        let plane = ControlPlane::shared().await.unwrap();
        let database = Database::shared(Engine::from_env().unwrap()).await.unwrap();
        plane.apply_crds().await.unwrap();
        let namespace = plane.namespace("controller").await.unwrap();
        plane.apply_access(&[&namespace]).await.unwrap();
        let kubeconfig = plane.kubeconfig_for("autobuild-system", "autobuild-controller").await.unwrap();
        let url = database.unique_schema("controller").await.unwrap();
        autobuild::queue::migrate(&url, false).await.unwrap();
        let queue = Queue::connect(&url, 8).await.unwrap();
        let heart = queue.join("default", "test").await.unwrap();
        let dir =
            tempfile::Builder::new().disable_cleanup(std::env::var_os("KEEP").is_some()).tempdir().unwrap();
        let site = Self {
            plane,
            namespace,
            url,
            autobuild: Autobuild::new(dir.path(), Lifetime::WithParent).unwrap(),
            queue,
            client: plane.admin().await.unwrap(),
            heart,
            kubeconfig: kubeconfig.display().to_string(),
            _dir: dir,
        };
        // The Lease is one for the whole control plane, by its role: tests take turns.
        let leases: Api<k8s_openapi::api::coordination::v1::Lease> =
            Api::namespaced(site.client.clone(), "autobuild-system");
        leases.delete("autobuild-controller", &kube::api::DeleteParams::default()).await.ok();
        site
    }

    async fn controller(&self, name: &str, more: &[&str], failpoints: &str) -> Running {
        let mut args = vec![
            "controller",
            "--watch-namespaces",
            &self.namespace,
            "--lease-namespace",
            "autobuild-system",
            "--lease-duration",
            "2s",
            "--renew-period",
            "500ms",
            // The worker of this test sends no heartbeats.
            "--worker-lease",
            "1h",
        ];
        args.extend(more);
        let env = [
            ("DATABASE_URL", self.url.as_str()),
            ("KUBECONFIG", self.kubeconfig.as_str()),
            ("FAILPOINTS", failpoints),
        ];
        self.autobuild.start(name, &args, &env).await.unwrap()
    }

    fn servers(&self) -> Api<Server> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn secret(&self) {
        let secret = json!({
            "metadata": {"name": "bmc"},
            "type": names::CREDENTIALS_SECRET_TYPE,
            "stringData": {"username": "u", "password": "p"},
        });
        let secrets: Api<k8s_openapi::api::core::v1::Secret> =
            Api::namespaced(self.client.clone(), &self.namespace);
        secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    }

    async fn server(&self, name: &str, spec: Value) -> ServerUid {
        let mut whole = json!({"bmc": {"address": format!("redfish+https://{name}.example"), "credentialsRef": {"name": "bmc"}}});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let server: Server = serde_json::from_value(json!({
            "apiVersion": "autobuild.dev/v1alpha1", "kind": "Server", "metadata": {"name": name}, "spec": whole,
        }))
        .unwrap();
        let made = self.servers().create(&PostParams::default(), &server).await.unwrap();
        ServerUid(made.metadata.uid.unwrap())
    }

    async fn change(&self, name: &str, patch: Value) {
        self.servers().patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }

    async fn get(&self, name: &str) -> Server {
        self.servers().get(name).await.unwrap()
    }

    /// Waits until the status is so, and returns the server.
    async fn until(&self, name: &str, what: &str, holds: impl Fn(&ServerStatus) -> bool) -> Server {
        let begun = Instant::now();
        loop {
            let server = self.get(name).await;
            if server.status.as_ref().is_some_and(&holds) {
                return server;
            }
            assert!(begun.elapsed() < Duration::from_mins(1), "{name}: {what}; is {:#?}", server.status);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Claims the next job of this action.
    async fn claim(&self, action: Action) -> Claim {
        let begun = Instant::now();
        loop {
            for shard in 0..DEFAULT_SHARDS {
                for lane in Lane::ALL {
                    for place in [PlaceInQueue::Ready, PlaceInQueue::Queued] {
                        let from = ClaimFrom { site: "default".to_owned(), shard: Shard(shard), place, lane };
                        let found = self.queue.claim(self.heart.incarnation(), from, 1).await.unwrap().pop();
                        if let Some(claim) = found {
                            assert_eq!(claim.job().action, action);
                            return claim;
                        }
                    }
                }
            }
            assert!(begun.elapsed() < Duration::from_mins(1), "no {action} to claim");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Does a job to its end, with this power state as what was read.
    async fn finish(&self, action: Action, power: PowerState) {
        let claim = self.claim(action).await;
        let end = End { result: JobResult::Succeeded, problem: None, cause: None, report: reading(power) };
        assert_eq!(self.queue.complete(claim, end).await.unwrap(), Fenced::Done(()));
    }

    /// A server that is Ready.
    async fn ready(&self, name: &str, spec: Value) -> ServerUid {
        let uid = self.server(name, spec).await;
        self.finish(Action::Inspect, PowerState::PoweredOn).await;
        self.until(name, "Ready", is_ready).await;
        uid
    }

    async fn count(&self, table: &'static str) -> i64 {
        use sqlx::Connection as _;
        let mut connection = sqlx::MySqlConnection::connect(&self.url).await.unwrap();
        let text = format!("SELECT COUNT(*) FROM {table}");
        sqlx::query_scalar(sqlx::AssertSqlSafe(text)).fetch_one(&mut connection).await.unwrap()
    }

    async fn gone(&self, name: &str) {
        wait("the object to go", async || self.servers().get_opt(name).await.unwrap().is_none()).await;
    }

    async fn events(&self) -> Vec<String> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        let all = events.list(&ListParams::default()).await.unwrap();
        all.into_iter().map(|event| event.reason.unwrap_or_default()).collect()
    }

    async fn end(self) {
        self.plane.delete_namespace(&self.namespace).await.unwrap();
    }
}

async fn wait<F: AsyncFnMut() -> bool>(what: &str, mut holds: F) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < Duration::from_mins(1), "waited for {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn reading(power: PowerState) -> Report {
    Report::Good(Box::new(Reading {
        power,
        identity: HardwareIdentity { serial_number: Some("S1".into()), uuid: None },
        hardware: Hardware { serial_number: Some("S1".into()), ..Hardware::default() },
        last_reset_time: None,
    }))
}

fn is_ready(status: &ServerStatus) -> bool {
    find(&status.conditions, ConditionType::Ready).is_some_and(|ready| ready.status == "True")
}

fn condition(server: &Server, kind: ConditionType) -> Option<(&str, &str)> {
    let found = find(&server.status.as_ref().unwrap().conditions, kind)?;
    Some((found.status.as_str(), found.reason.as_str()))
}

/// All of it under one roof: the Lease is one, so only one story runs at a time.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test(flavor = "multi_thread")]
async fn a_server_becomes_ready_and_then_nothing_is_written() {
    let _turn = TURN.lock().await;
    let site = Site::new().await;
    let controller = site.controller("a", &[], "").await;
    // Without its Secret it says so; the Secret that is made later wakes it.
    let uid = site.server("one", json!({"rebootToken": "came-with-it"})).await;
    let server = site.until("one", "Stalled", |status| status.phase == Some(Phase::Stalled)).await;
    assert_eq!(condition(&server, ConditionType::Stalled), Some(("True", "CredentialsMissing")));
    assert_eq!(server.metadata.finalizers.unwrap(), [names::FINALIZER]);
    site.secret().await;
    let server = site.until("one", "a job", |status| status.job.is_some()).await;
    assert_eq!(server.status.as_ref().unwrap().phase, Some(Phase::Pending));
    assert_eq!(condition(&server, ConditionType::Reconciling).unwrap().0, "True");
    assert_eq!((site.count("job").await, site.count("queue").await), (1, 1));
    site.finish(Action::Inspect, PowerState::PoweredOn).await;
    let server = site.until("one", "Ready", is_ready).await;
    let status = server.status.as_ref().unwrap();
    assert_eq!(status.observed_generation, server.metadata.generation);
    assert_eq!(status.phase, Some(Phase::Ready));
    assert_eq!(condition(&server, ConditionType::Reconciling), None);
    // A token that came with the server asks for nothing.
    assert_eq!(status.reboot_tokens, ["came-with-it"]);
    wait("the feed to be empty", async || {
        site.queue.feed(&Default::default(), 10).await.unwrap().0.is_empty()
    })
    .await;
    // Looks that nobody needs: the label changes no status, and so nothing is written but the label.
    let events = site.events().await.len();
    let history = site.count("job_history").await;
    for look in 0..5 {
        site.change("one", json!({"metadata": {"labels": {"look": look.to_string()}}})).await;
        let labelled = site.get("one").await.metadata.resource_version;
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert_eq!(site.get("one").await.metadata.resource_version, labelled, "something was written");
    }
    assert_eq!((site.events().await.len(), site.count("job_history").await), (events, history));
    // A new token is one reboot; an old or the same one is none.
    let known = site.queue.observe(&uid).await.unwrap().known.unwrap();
    assert_eq!(known.claimed_address.as_deref(), Some("redfish+https://one.example:443"));
    site.change("one", json!({"spec": {"rebootToken": "again"}})).await;
    let claim = site.claim(Action::Reboot).await;
    site.until("one", "Rebooting", |status| status.phase == Some(Phase::Rebooting)).await;
    let request = StoredRequest { kind: RequestKind::ForceOff, settle_ms: 1000 };
    let Fenced::Done(claim) =
        site.queue.store_request(claim, request, String::new(), Some("again".into())).await.unwrap()
    else {
        panic!("the claim was lost")
    };
    let Fenced::Done(claim) = site.queue.close_request(claim, String::new()).await.unwrap() else {
        panic!("the claim was lost")
    };
    let end = End {
        result: JobResult::Succeeded,
        problem: None,
        cause: None,
        report: reading(PowerState::PoweredOn),
    };
    site.queue.complete(claim, end).await.unwrap();
    site.until("one", "Ready again", |status| is_ready(status) && status.job.is_none()).await;
    site.change("one", json!({"spec": {"rebootToken": "came-with-it"}})).await;
    let server = site.get("one").await;
    let generation = server.metadata.generation;
    let server =
        site.until("one", "the new generation", |status| status.observed_generation == generation).await;
    assert_eq!(server.status.unwrap().reboot_tokens, ["came-with-it", "again"]);
    assert_eq!(site.count("job").await, 0);
    assert!(site.events().await.iter().any(|reason| reason == "TokenAlreadyHandled"));
    // Bad input is said plainly.
    site.server("two", json!({"bmc": {"address": "ipmi://192.0.2.9", "credentialsRef": {"name": "bmc"}}}))
        .await;
    let server = site.until("two", "Stalled", |status| status.phase == Some(Phase::Stalled)).await;
    assert_eq!(condition(&server, ConditionType::Stalled), Some(("True", "InvalidAddress")));
    site.server(
        "three",
        json!({"bmc": {"address": "redfish+https://ONE.example:443/", "credentialsRef": {"name": "bmc"}}}),
    )
    .await;
    let server = site.until("three", "Stalled", |status| status.phase == Some(Phase::Stalled)).await;
    assert_eq!(condition(&server, ConditionType::Stalled), Some(("True", "BMCClaimed")));
    // What is deleted with Retain goes at once, and frees its BMC.
    site.servers().delete("one", &Default::default()).await.unwrap();
    site.gone("one").await;
    assert_eq!(site.queue.observe(&uid).await.unwrap().known, None);
    site.until("three", "the claim", |status| status.job.is_some()).await;
    let (_, metrics) = controller.get("/metrics").await.unwrap();
    assert!(metrics.contains("leader_election_master_status{name=\"autobuild-controller\"} 1"), "{metrics}");
    controller.process().stop(Duration::from_secs(20)).await.unwrap();
    site.end().await;
}
