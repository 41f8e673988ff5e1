//! The steps that journeys have in common.

use anyhow::{Context as _, Result, ensure};
use autobuild::api::{Phase, Server};
use autobuild::job::{Action, JobResult};
use e2e::fleet::{Fleet, LIMIT, is_current, is_ready};
use e2e::wait::{Look, wait_for};
use serde_json::{Value, json};

/// `kubectl apply` as a person runs it.
pub(crate) async fn kubectl_apply(fleet: &Fleet, manifest: &Value) -> Result<String> {
    fleet.kubectl().run_with_input(&["apply", "-f", "-"], &manifest.to_string()).await
}

/// `kubectl wait --for=condition=Ready`.
pub(crate) async fn kubectl_wait_ready(fleet: &Fleet, name: &str) -> Result<()> {
    let kubectl = fleet.kubectl().in_namespace(fleet.namespace());
    let server = format!("server/{name}");
    kubectl.run(&["wait", "--for=condition=Ready", &server, "--timeout=120s"]).await?;
    Ok(())
}

/// Waits until this value is handled and nothing is left to do.
pub(crate) async fn handled(fleet: &Fleet, name: &str, token: &str) -> Result<Server> {
    fleet
        .wait(name, &format!("token {token:?} handled, Ready"), |server| {
            let tokens = server.status.as_ref().map(|status| status.reboot_tokens.as_slice());
            tokens.is_some_and(|tokens| tokens.iter().any(|one| one == token)) && at_rest(server)
        })
        .await
}

/// Waits until the last job is that one, with that end, and nothing is left to do.
pub(crate) async fn ended(fleet: &Fleet, name: &str, action: Action, result: JobResult) -> Result<Server> {
    fleet
        .wait(name, &format!("{action} {} and at rest", result.as_str()), |server| {
            let last = server.status.as_ref().and_then(|status| status.last_job.as_ref());
            last.is_some_and(|last| last.action == action && last.result == result) && at_rest(server)
        })
        .await
}

/// Ready in this generation, without a job.
pub(crate) fn at_rest(server: &Server) -> bool {
    is_ready(server) && server.status.as_ref().is_some_and(|status| status.job.is_none())
}

/// Waits until the controller has seen the present generation.
pub(crate) async fn noticed(fleet: &Fleet, name: &str) -> Result<Server> {
    fleet.wait(name, "noticed", is_current).await
}

/// Asks for a fresh look by the annotation and waits until it was taken. Everything that was wished before is
/// decided on before that.
pub(crate) async fn fresh_look(fleet: &Fleet, name: &str) -> Result<()> {
    let before = last_try(fleet, name).await?;
    // Times that lie in the future are no request.
    let now = k8s_openapi::jiff::Timestamp::now().to_string();
    let annotation = format!("autobuild.dev/reconcile-requested-at={now}");
    let kubectl = fleet.kubectl().in_namespace(fleet.namespace());
    kubectl.run(&["annotate", "--overwrite", "server", name, &annotation]).await?;
    looked_at_after(fleet, name, before).await
}

/// Waits for an inspection later than that.
pub(crate) async fn looked_at_after(fleet: &Fleet, name: &str, before: i64) -> Result<()> {
    wait_for(&format!("{name}: a fresh look"), LIMIT, async || {
        let now = last_try(fleet, name).await?;
        let job = fleet.records().job(name).await?;
        Ok(if now > before && job.is_none() {
            Look::Holds(())
        } else {
            Look::NotYet(format!("last try {now}, before {before}, live job {job:?}"))
        })
    })
    .await
}

/// When its BMC was last asked, in milliseconds; 0: never.
pub(crate) async fn last_try(fleet: &Fleet, name: &str) -> Result<i64> {
    let found: Option<Option<i64>> =
        sqlx::query_scalar("SELECT last_try_ms FROM server_state WHERE name = ?")
            .bind(name)
            .fetch_optional(fleet.records().pool())
            .await?;
    Ok(found.flatten().unwrap_or(0))
}

/// Its BMC was asked for exactly these resets.
pub(crate) async fn asked_for(fleet: &Fleet, name: &str, resets: &[&str]) -> Result<()> {
    let asked = fleet.bmcs().resets(name).await?;
    ensure!(asked == resets, "{name}: its BMC was asked for {asked:?}, not {resets:?}");
    Ok(())
}

/// `system-0001` and so on.
pub(crate) fn system(number: usize) -> String {
    format!("system-{number:04}")
}

/// A spec with a token, and with power wished on.
pub(crate) fn on_with_token(token: &str) -> Value {
    json!({ "power": "PoweredOn", "rebootToken": token })
}

/// The command that a message tells to run, run as it stands.
pub(crate) async fn as_told(fleet: &Fleet, message: &str) -> Result<()> {
    let command = message.split("kubectl ").nth(1).context("no command is told")?;
    let words: Vec<&str> = command.split_whitespace().take_while(|word| *word != ";").collect();
    fleet.kubectl().run(&words).await?;
    Ok(())
}

/// Waits until it is in this phase.
pub(crate) async fn phase(fleet: &Fleet, name: &str, wanted: Phase) -> Result<Server> {
    fleet
        .wait(name, wanted.as_str(), |server| {
            server.status.as_ref().is_some_and(|status| status.phase == Some(wanted))
        })
        .await
}

/// Asks the boot service as a machine would: the status and the text.
pub(crate) async fn get(url: &str) -> Result<(u16, String)> {
    let answer = reqwest::Client::builder().no_proxy().build()?.get(url).send().await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}

/// The network cards of a machine, as its BMC tells of them.
pub(crate) async fn cards(fleet: &Fleet, name: &str) -> Result<Vec<String>> {
    let status = fleet.get(name).await?.status.context("no status")?;
    let nics = status.hardware.context("no hardware")?.nics;
    Ok(nics.into_iter().filter_map(|nic| nic.mac_address).collect())
}
