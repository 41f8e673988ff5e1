//! Secrets that are missing, unfit or wrong: mending them is noticed at once, and no account is locked meanwhile.

use anyhow::{Result, ensure};
use autobuild::api::Reason;
use autobuild::api::condition::ConditionType;
use e2e::fleet::{Fleet, LIMIT};
use e2e::wait::{Look, wait_for};
use serde_json::json;

use crate::{Case, all, says};

const KIND: &str = "autobuild.dev/bmc-credentials";

async fn username(fleet: &Fleet) -> Result<String> {
    use k8s_openapi::api::core::v1::Secret;
    let secrets: kube::Api<Secret> = kube::Api::namespaced(fleet.client(), fleet.namespace());
    let data = secrets.get(e2e::fleet::SECRET).await?.data.unwrap_or_default();
    Ok(String::from_utf8(data["username"].0.clone())?)
}

/// A Server with that Secret is refused with these words; the right Secret mends it.
async fn missing(fleet: &Fleet, system: &str, secret: &str, parts: &[&str]) -> Result<()> {
    fleet
        .declare(system, json!({ "power": "PoweredOn", "bmc": { "credentialsRef": { "name": secret } } }))
        .await?;
    for kind in [ConditionType::Ready, ConditionType::Reachable] {
        says(&fleet.wait_reason(system, kind, Reason::CredentialsMissing).await?, parts)?;
    }
    let asked = fleet.bmcs().requests(system).await?;
    ensure!(asked.is_empty(), "its BMC was asked {asked:?}");
    if secret == "opaque" {
        // The type of a Secret cannot be changed.
        fleet.delete_secret(secret).await?;
    }
    let user = username(fleet).await?;
    fleet.secret(secret, &[("username", &user), ("password", fleet.password())]).await?;
    fleet.wait_ready(system).await?;
    Ok(())
}

/// Two workers, several periods, a touch of the Secret: two logins in all, and the right password is tried at once.
async fn wrong_password(fleet: &Fleet, system: &str, other: &str) -> Result<()> {
    let user = username(fleet).await?;
    fleet.secret("wrong", &[("username", &user), ("password", "not this one")]).await?;
    fleet.declare(other, json!({})).await?;
    fleet.wait_ready(other).await?;
    fleet
        .declare(system, json!({ "power": "PoweredOn", "bmc": { "credentialsRef": { "name": "wrong" } } }))
        .await?;
    fleet.wait_reason(system, ConditionType::Ready, Reason::CredentialsInvalid).await?;
    wait_for("the message that says that it stopped", LIMIT, async || {
        let server = fleet.get(system).await?;
        let text = e2e::fleet::describe(&server);
        Ok(if text.contains("not tried again") { Look::Holds(text) } else { Look::NotYet(text) })
    })
    .await
    .and_then(|text| says(&text, &["twice", "spec.bmc.credentialsRef", "correct the Secret"]))?;
    several_inspections(fleet, other).await?;
    // Another version with the same content is no news.
    fleet
        .kubectl()
        .in_namespace(fleet.namespace())
        .run(&["annotate", "secret", "wrong", "touched=yes"])
        .await?;
    several_inspections(fleet, other).await?;
    let refused = fleet.bmcs().bad_logins(system).await?;
    ensure!(refused == 2, "{refused} logins were refused");
    fleet.secret("wrong", &[("username", &user), ("password", fleet.password())]).await?;
    fleet.wait_ready(system).await?;
    let refused = fleet.bmcs().bad_logins(system).await?;
    ensure!(refused == 2, "{refused} logins were refused");
    Ok(())
}

/// Waits until that system was inspected three times more.
async fn several_inspections(fleet: &Fleet, system: &str) -> Result<()> {
    let roots = async || -> Result<usize> {
        let asked = fleet.bmcs().requests(system).await?;
        Ok(asked.iter().filter(|one| one.path.ends_with("/Storage")).count())
    };
    let before = roots().await?;
    wait_for("three inspections of another server", LIMIT, async || {
        let now = roots().await?;
        Ok(if now >= before + 3 { Look::Holds(()) } else { Look::NotYet(format!("{before}, now {now}")) })
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_cannot_be_used_is_told_and_noticed_as_soon_as_it_is_mended() {
    let fleet = Fleet::start(7).await.unwrap();
    let flags = fleet.controller_flags().set("--inspect-period", "2s");
    let _controller = fleet.controller_with("controller", &flags, &[]).await.unwrap();
    let _one = fleet.worker("worker-1").await.unwrap();
    let _two = fleet.worker("worker-2").await.unwrap();
    fleet.secret("no-key", &[("username", "somebody")]).await.unwrap();
    fleet.secret("empty", &[("username", "somebody"), ("password", "")]).await.unwrap();
    fleet.secret_of_type("opaque", "Opaque", &[("username", "a"), ("password", "b")]).await.unwrap();
    let elsewhere = fleet.cluster().namespace("elsewhere").await.unwrap();
    let create = [
        "create",
        "secret",
        "generic",
        "foreign",
        "--type=autobuild.dev/bmc-credentials",
        "--from-literal=username=a",
        "--from-literal=password=b",
    ];
    fleet.kubectl().in_namespace(&elsewhere).run(&create).await.unwrap();
    let fleet = &fleet;
    let cases: Vec<Case<'_>> = vec![
        ("no Secret", Box::pin(missing(fleet, "system-0001", "later", &["\"later\"", KIND, "create it"]))),
        (
            "no key",
            Box::pin(missing(
                fleet,
                "system-0002",
                "no-key",
                &["credentialsRef", "no key \"password\"", "add it"],
            )),
        ),
        (
            "an empty key",
            Box::pin(missing(fleet, "system-0003", "empty", &["empty \"password\"", "fill it"])),
        ),
        (
            "another type",
            Box::pin(missing(fleet, "system-0004", "opaque", &["\"opaque\"", KIND, "create it"])),
        ),
        (
            "another namespace",
            Box::pin(missing(fleet, "system-0005", "foreign", &["\"foreign\"", "in this namespace"])),
        ),
        ("a wrong password", Box::pin(wrong_password(fleet, "system-0006", "system-0007"))),
    ];
    all(cases).await;
    fleet.end().await.unwrap();
}
