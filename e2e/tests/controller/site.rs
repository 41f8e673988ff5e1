//! A namespace and a schema of one's own, the controllers on them, and the worker that the test itself is.

use std::path::Path;
use std::time::{Duration, Instant};

use autobuild::api::condition::{ConditionType, find};
use autobuild::api::hardware::{Hardware, HardwareIdentity, PowerState};
use autobuild::api::{Server, ServerStatus, names};
use autobuild::job::{Action, JobResult, Lane, Reading, RequestKind, ServerUid, StoredRequest, TokenValue};
use autobuild::queue::{
    Claim, ClaimFrom, Effects, End, FeedCursor, Fenced, Heart, PlaceInQueue, Queue, Report,
};
use autobuild::shard::{DEFAULT_SHARDS, Shard};
use e2e::autobuild::{Autobuild, Running};
use e2e::control_plane::ControlPlane;
use e2e::database::{Database, Engine};
use e2e::process::Lifetime;
use k8s_openapi::api::events::v1::Event;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

/// A namespace, a schema and what runs on them.
pub struct Site {
    pub plane: &'static ControlPlane,
    pub namespace: String,
    pub url: String,
    pub autobuild: Autobuild,
    pub queue: Queue,
    pub client: Client,
    pub heart: Heart,
    kubeconfig: String,
    dir: tempfile::TempDir,
}

impl Site {
    pub async fn new() -> Self {
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
            dir,
        };
        // The Lease is one for the whole control plane, by its role: tests take turns.
        site.leases().delete("autobuild-controller", &kube::api::DeleteParams::default()).await.ok();
        site
    }

    pub async fn controller(&self, name: &str, more: &[&str], failpoints: &str) -> Running {
        self.controller_through(&self.kubeconfig, name, more, failpoints).await
    }

    /// The kubeconfig of the controller, and a folder for others like it.
    pub fn kubeconfig(&self) -> (&Path, &Path) {
        (Path::new(&self.kubeconfig), self.dir.path())
    }

    /// Like [`Site::controller`], with another way to the API server.
    pub async fn controller_through(
        &self,
        kubeconfig: &str,
        name: &str,
        more: &[&str],
        failpoints: &str,
    ) -> Running {
        let mut args = vec![
            "controller",
            "--watch-namespaces",
            &self.namespace,
            "--lease-namespace",
            "autobuild-system",
            "--renew-period",
            "500ms",
            // The worker of this test sends no heartbeats.
            "--worker-lease",
            "1h",
        ];
        if !more.contains(&"--lease-duration") {
            args.extend(["--lease-duration", "2s"]);
        }
        args.extend(more);
        let env =
            [("DATABASE_URL", self.url.as_str()), ("KUBECONFIG", kubeconfig), ("FAILPOINTS", failpoints)];
        self.autobuild.start(name, &args, &env).await.unwrap()
    }

    /// The Leases of the controllers.
    pub fn leases(&self) -> Api<k8s_openapi::api::coordination::v1::Lease> {
        Api::namespaced(self.client.clone(), "autobuild-system")
    }

    pub fn servers(&self) -> Api<Server> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub async fn secret(&self) {
        let secret = json!({
            "metadata": {"name": "bmc"},
            "type": names::CREDENTIALS_SECRET_TYPE,
            "stringData": {"username": "u", "password": "p"},
        });
        let secrets: Api<k8s_openapi::api::core::v1::Secret> =
            Api::namespaced(self.client.clone(), &self.namespace);
        secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    }

    pub async fn server(&self, name: &str, spec: Value) -> ServerUid {
        let mut whole = json!({"bmc": {"address": format!("redfish+https://{name}.example"), "credentialsRef": {"name": "bmc"}}});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let server: Server = serde_json::from_value(json!({
            "apiVersion": "autobuild.dev/v1alpha1", "kind": "Server", "metadata": {"name": name}, "spec": whole,
        }))
        .unwrap();
        let made = self.servers().create(&PostParams::default(), &server).await.unwrap();
        ServerUid(made.metadata.uid.unwrap())
    }

    pub async fn change(&self, name: &str, patch: Value) {
        self.servers().patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }

    pub async fn delete(&self, name: &str) {
        self.servers().delete(name, &kube::api::DeleteParams::default()).await.unwrap();
    }

    pub async fn get(&self, name: &str) -> Server {
        self.servers().get(name).await.unwrap()
    }

    /// Waits until the status is so, and returns the server.
    pub async fn until(&self, name: &str, what: &str, holds: impl Fn(&ServerStatus) -> bool) -> Server {
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
    pub async fn claim(&self, action: Action) -> Claim {
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
    pub async fn finish(&self, action: Action, power: PowerState) {
        self.complete(self.claim(action).await, power).await;
    }

    pub async fn complete(&self, claim: Claim, power: PowerState) {
        assert_eq!(self.queue.complete(claim, succeeded(power)).await.unwrap(), Fenced::Done(()));
    }

    /// A server that is Ready.
    pub async fn ready(&self, name: &str, spec: Value) -> ServerUid {
        let uid = self.server(name, spec).await;
        self.finish(Action::Inspect, PowerState::PoweredOn).await;
        self.until(name, "Ready", is_ready).await;
        uid
    }

    /// Stores a request and closes it, as for one that was answered at once.
    pub async fn request(&self, claim: Claim, token: Option<&str>) -> Claim {
        let claim = self.open_request(claim, token).await;
        match self.queue.close_request(claim, String::new()).await.unwrap() {
            Fenced::Done(claim) => claim,
            Fenced::Lost => panic!("the claim was lost"),
        }
    }

    pub async fn open_request(&self, claim: Claim, token: Option<&str>) -> Claim {
        let request = StoredRequest { kind: RequestKind::ForceOff, settle_ms: 1000 };
        let stored = self.queue.store_request(
            claim,
            request,
            String::new(),
            Effects::handling(token.map(TokenValue::reboot)),
        );
        match stored.await.unwrap() {
            Fenced::Done(claim) => claim,
            Fenced::Lost => panic!("the claim was lost"),
        }
    }

    /// The reasons in the history, the oldest first.
    pub async fn history(&self) -> Vec<String> {
        use sqlx::Connection as _;
        let mut connection = sqlx::MySqlConnection::connect(&self.url).await.unwrap();
        let text = "SELECT reason FROM job_history ORDER BY finished_at_ms";
        sqlx::query_scalar(text).fetch_all(&mut connection).await.unwrap()
    }

    pub async fn until_feed_is_empty(&self) {
        wait("the feed to be empty", async || {
            self.queue.feed(&FeedCursor::default(), 10).await.unwrap().0.is_empty()
        })
        .await;
    }

    pub async fn count(&self, table: &'static str) -> i64 {
        use sqlx::Connection as _;
        let mut connection = sqlx::MySqlConnection::connect(&self.url).await.unwrap();
        let text = format!("SELECT COUNT(*) FROM {table}");
        sqlx::query_scalar(sqlx::AssertSqlSafe(text)).fetch_one(&mut connection).await.unwrap()
    }

    /// Writes into the database past everybody.
    pub async fn query(&self, text: &'static str) {
        use sqlx::Connection as _;
        let mut connection = sqlx::MySqlConnection::connect(&self.url).await.unwrap();
        sqlx::raw_sql(text).execute(&mut connection).await.unwrap();
    }

    /// Has the API server write `wipedAt` into every status of this namespace, whoever writes it, as a webhook may.
    pub async fn with_a_webhook(&self) {
        let name = format!("always-wiped-{}", self.namespace);
        let rule = json!({
            "apiGroups": ["autobuild.dev"], "apiVersions": ["*"], "operations": ["UPDATE"], "resources": ["servers/status"],
        });
        let patch = r#"[JSONPatch{op: "add", path: "/status/wipedAt", value: "2026-01-01T00:00:00Z"}]"#;
        let policy = json!({
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.namespace}},
                "resourceRules": [rule],
            },
            "failurePolicy": "Fail",
            "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}],
        });
        let binding = json!({"policyName": name});
        for (kind, spec) in [("MutatingAdmissionPolicy", policy), ("MutatingAdmissionPolicyBinding", binding)]
        {
            let kind = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
            let resource = ApiResource::from_gvk(&kind);
            let object = DynamicObject::new(&name, &resource).data(json!({"spec": spec}));
            let all: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
            all.create(&PostParams::default(), &object).await.unwrap();
        }
    }

    pub async fn gone(&self, name: &str) {
        wait("the object to go", async || self.servers().get_opt(name).await.unwrap().is_none()).await;
    }

    pub async fn events(&self) -> Vec<String> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        let all = events.list(&ListParams::default()).await.unwrap();
        all.into_iter().map(|event| event.reason.unwrap_or_default()).collect()
    }

    pub async fn end(self) {
        self.plane.delete_namespace(&self.namespace).await.unwrap();
    }
}

pub async fn wait<F: AsyncFnMut() -> bool>(what: &str, mut holds: F) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < Duration::from_mins(1), "waited for {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub fn succeeded(power: PowerState) -> End {
    End { report: reading(power), ..End::new(JobResult::Succeeded, None) }
}

pub fn reading(power: PowerState) -> Report {
    Report::Good(Box::new(Reading {
        power,
        identity: HardwareIdentity { serial_number: Some("S1".into()), uuid: None, system: None },
        hardware: Hardware { serial_number: Some("S1".into()), ..Hardware::default() },
        last_reset_time: None,
    }))
}

pub fn is_ready(status: &ServerStatus) -> bool {
    find(&status.conditions, ConditionType::Ready).is_some_and(|ready| ready.status == "True")
}

pub fn condition(server: &Server, kind: ConditionType) -> Option<(&str, &str)> {
    let found = find(&server.status.as_ref().unwrap().conditions, kind)?;
    Some((found.status.as_str(), found.reason.as_str()))
}
