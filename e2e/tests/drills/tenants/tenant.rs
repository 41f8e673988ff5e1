//! A tenant: a namespace, and somebody who may edit what is in it and nothing else, as the API server sees to it.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use autobuild::api::condition::ConditionType;
use autobuild::api::{Reason, Server};
use e2e::control_plane::client;
use e2e::fleet::{AUTHORITY, Fleet, LIMIT, SECRET, describe, message};
use e2e::kubectl::Kubectl;
use e2e::wait::{Look, wait_for, wait_until};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Map, Value, json};
use sqlx::Row as _;

/// The service account that the tenant is.
const ACCOUNT: &str = "tenant";

/// Somebody in a namespace of their own, beside the fleet's.
pub struct Tenant<'a> {
    fleet: &'a Fleet,
    namespace: String,
    kubectl: Kubectl,
    client: Client,
}

impl<'a> Tenant<'a> {
    /// Makes the namespace, with the CA of the BMCs in it, and a login of an own BMC under the usual name.
    pub async fn enter(fleet: &'a Fleet) -> Result<Self> {
        let namespace = fleet.cluster().namespace("tenant").await?;
        let all = json!(["*"]);
        let rights = json!({ "apiVersion": "v1", "kind": "List", "items": [
            { "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": ACCOUNT } },
            {
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": { "name": ACCOUNT },
                "rules": [
                    { "apiGroups": ["autobuild.dev"], "resources": ["servers", "osimages"], "verbs": all },
                    { "apiGroups": [""], "resources": ["secrets", "configmaps"], "verbs": all },
                ],
            },
            {
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": { "name": ACCOUNT },
                "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": ACCOUNT },
                "subjects": [{ "kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace }],
            },
        ] });
        let admin = fleet.kubectl().in_namespace(&namespace);
        admin.run_with_input(&["apply", "-f", "-"], &rights.to_string()).await?;
        let kubeconfig = fleet.plane().kubeconfig_for(&namespace, ACCOUNT).await?;
        let kubectl = Kubectl::new(&kubeconfig).in_namespace(&namespace);
        let tenant = Self { fleet, namespace, kubectl, client: client(&kubeconfig).await? };
        let elsewhere: Api<Server> = Api::namespaced(tenant.client.clone(), fleet.namespace());
        let refused = elsewhere.list(&ListParams::default()).await;
        let refused = matches!(&refused, Err(kube::Error::Api(status)) if status.code == 403);
        ensure!(refused, "a tenant may read the Servers of another one");
        let pem = std::fs::read_to_string(fleet.bmcs().emulator().authority())?;
        tenant
            .apply(&json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": AUTHORITY }, "data": { "ca.crt": pem },
            }))
            .await?;
        tenant
            .secret(SECRET, "autobuild.dev/bmc-credentials", &[("username", "a"), ("password", "a")])
            .await?;
        Ok(tenant)
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Applies any object.
    pub async fn apply(&self, object: &Value) -> Result<()> {
        self.kubectl.run_with_input(&["apply", "-f", "-"], &object.to_string()).await?;
        Ok(())
    }

    /// Creates an `OSImage` of a `source`.
    pub async fn image(&self, name: &str, source: &Value) -> Result<()> {
        let spec = json!({ "source": source, "install": { "format": "none" } });
        let metadata = json!({ "name": name });
        self.apply(&json!({
            "apiVersion": "autobuild.dev/v1alpha1", "kind": "OSImage", "metadata": metadata, "spec": spec,
        }))
        .await
    }

    /// Writes a Secret of any type.
    pub async fn secret(&self, name: &str, kind: &str, data: &[(&str, &str)]) -> Result<()> {
        let data: Map<String, Value> =
            data.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        let metadata = json!({ "name": name });
        self.apply(&json!({ "apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": metadata, "stringData": data }))
            .await
    }

    /// The tenant's Servers.
    pub fn servers(&self) -> Api<Server> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Declares a Server for a system, with more fields of `spec`.
    pub async fn declare(&self, name: &str, system: &str, spec: &Value) -> Result<()> {
        let mut manifest = self.fleet.manifest_with(system, spec);
        manifest["metadata"] = json!({ "name": name, "namespace": self.namespace });
        let params = PatchParams::apply("tenant").force();
        self.servers().patch(name, &params, &Patch::Apply(&manifest)).await?;
        Ok(())
    }

    /// Changes fields of `spec`; null takes one away.
    pub async fn change(&self, name: &str, spec: &Value) -> Result<()> {
        let patch = Patch::Merge(json!({ "spec": spec }));
        self.servers().patch(name, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Deletes a Server, and waits until it is gone.
    pub async fn delete(&self, name: &str) -> Result<()> {
        self.servers().delete(name, &DeleteParams::default()).await?;
        let servers = self.servers();
        wait_until(&format!("the tenant's {name} to be gone"), LIMIT, async || {
            Ok(servers.get_opt(name).await?.is_none())
        })
        .await
    }

    /// Waits until a Server looks so.
    pub async fn wait(&self, name: &str, what: &str, holds: impl Fn(&Server) -> bool) -> Result<Server> {
        let servers = self.servers();
        wait_for(&format!("the tenant's {name}: {what}"), LIMIT, async || {
            let server = servers.get(name).await?;
            Ok(if holds(&server) { Look::Holds(server) } else { Look::NotYet(describe(&server)) })
        })
        .await
    }

    /// Waits until a condition has that reason in the present generation; returns the condition's message.
    pub async fn wait_reason(&self, name: &str, kind: ConditionType, reason: Reason) -> Result<String> {
        let holds = |server: &Server| message(server, kind, reason).is_some();
        let server = self.wait(name, reason.as_str(), holds).await?;
        message(&server, kind, reason).context("the condition is gone")
    }

    /// Its Servers whose jobs are in slots now, with the tokens of the claims.
    pub async fn claims(&self) -> Result<BTreeSet<(String, i64)>> {
        let rows = sqlx::query("SELECT name, token FROM job WHERE namespace = ? AND owner IS NOT NULL")
            .bind(&self.namespace)
            .fetch_all(self.fleet.records().pool())
            .await?;
        rows.iter().map(|row| Ok((row.try_get("name")?, row.try_get("token")?))).collect()
    }
}
