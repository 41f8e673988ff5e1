//! Certificates: what was seen is told so that it can be pinned, and nothing goes unverified unless both sides say so.

use anyhow::{Result, ensure};
use autobuild::api::Reason;
use autobuild::api::condition::ConditionType;
use e2e::fleet::{AUTHORITY, Fleet, truth};
use serde_json::{Value, json};

use crate::{Case, all, says};

/// The manifest of a system behind the self-signed certificate.
fn self_signed(fleet: &Fleet, system: &str, tls: &Value) -> Result<Value> {
    let mut manifest = fleet.manifest(system);
    let address = format!("redfish+https://{}/redfish/v1/Systems/{system}", fleet.bmcs().self_signed()?);
    manifest["spec"]["bmc"]["address"] = json!(address);
    manifest["spec"]["bmc"]["tls"] = tls.clone();
    Ok(manifest)
}

async fn pinned(fleet: &Fleet, system: &str) -> Result<()> {
    let ca = json!({ "caRef": { "kind": "ConfigMap", "name": AUTHORITY, "key": "ca.crt" } });
    fleet.apply(&self_signed(fleet, system, &ca)?).await?;
    let message = fleet.wait_reason(system, ConditionType::Ready, Reason::TLSFailed).await?;
    let seen = fleet.bmcs().self_signed_fingerprint()?;
    says(
        &message,
        &["certificate that is refused", seen, "spec.bmc.tls.certificateSHA256", "spec.bmc.tls.caRef"],
    )?;
    let asked = fleet.bmcs().requests(system).await?;
    ensure!(asked.is_empty(), "it was asked {asked:?}");
    let words = message.split(|c: char| !c.is_ascii_alphanumeric());
    let digits = words.into_iter().find(|word| word.len() == 64).unwrap_or_default();
    fleet.apply(&self_signed(fleet, system, &json!({ "certificateSHA256": digits }))?).await?;
    fleet.wait_ready(system).await?;
    Ok(())
}

async fn wrong_pin(fleet: &Fleet, system: &str) -> Result<()> {
    let wrong = "ab".repeat(32);
    fleet.apply(&self_signed(fleet, system, &json!({ "certificateSHA256": wrong }))?).await?;
    let message = fleet.wait_reason(system, ConditionType::Ready, Reason::TLSFailed).await?;
    says(
        &message,
        &[
            fleet.bmcs().self_signed_fingerprint()?,
            "is not spec.bmc.tls.certificateSHA256",
            "write the new one",
        ],
    )?;
    Ok(())
}

async fn unverified(fleet: &Fleet, system: &str) -> Result<()> {
    let manifest = self_signed(fleet, system, &json!({ "verify": "Disabled" }))?;
    fleet.apply(&manifest).await?;
    let message = fleet.wait_reason(system, ConditionType::Stalled, Reason::TLSConfigInvalid).await?;
    says(&message, &["spec.bmc.tls.verify is Disabled", "certificateSHA256", "--allow-unverified-tls"])?;
    let asked = fleet.bmcs().requests(system).await?;
    ensure!(asked.is_empty(), "it was asked {asked:?}");
    Ok(())
}

async fn unverified_where_allowed(fleet: &Fleet, system: &str) -> Result<()> {
    let mut manifest = self_signed(fleet, system, &json!({ "verify": "Disabled" }))?;
    manifest["spec"]["site"] = json!("open");
    fleet.apply(&manifest).await?;
    let server = fleet.wait_ready(system).await?;
    ensure!(truth(&server, ConditionType::InsecureTLS) == Some("True"));
    let message = fleet.wait_reason(system, ConditionType::InsecureTLS, Reason::VerificationDisabled).await?;
    says(&message, &["spec.bmc.tls.verify is Disabled", "pin certificateSHA256"])
}

async fn in_the_clear(fleet: &Fleet, system: &str) -> Result<()> {
    let http = fleet.bmcs().emulator().http();
    let address = format!("redfish+http://{http}/redfish/v1/Systems/{system}");
    fleet.declare(system, json!({ "bmc": { "address": address, "tls": null } })).await?;
    let message = fleet.wait_reason(system, ConditionType::Stalled, Reason::TLSConfigInvalid).await?;
    says(&message, &["redfish+http", "in the clear", "redfish+https", "--allow-plain-http"])
}

/// The object, or its key, that `caRef` names; it is looked for again at the next inspection.
async fn missing_authority(fleet: &Fleet, system: &str) -> Result<()> {
    let reference = |name: &str, key: &str| json!({ "bmc": { "tls": { "caRef": { "kind": "ConfigMap", "name": name, "key": key } } } });
    fleet.declare(system, reference("later", "ca.crt")).await?;
    let message = fleet.wait_reason(system, ConditionType::Stalled, Reason::TLSConfigInvalid).await?;
    says(&message, &["spec.bmc.tls.caRef", "ConfigMap", "later"])?;
    fleet.declare(system, reference(AUTHORITY, "other.crt")).await?;
    let message = fleet.wait_reason(system, ConditionType::Stalled, Reason::TLSConfigInvalid).await?;
    says(&message, &["spec.bmc.tls.caRef", "other.crt"])?;
    fleet.declare(system, reference("later", "ca.crt")).await?;
    let file = format!("--from-file=ca.crt={}", fleet.bmcs().emulator().authority().display());
    fleet.kubectl().in_namespace(fleet.namespace()).run(&["create", "configmap", "later", &file]).await?;
    fleet.wait_ready(system).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_refused_is_told_with_its_fingerprint_and_none_goes_unverified_unasked() {
    let fleet = Fleet::start(6).await.unwrap();
    let flags = fleet.controller_flags().set("--inspect-period", "3s");
    let _controller = fleet.controller_with("controller", &flags, &[]).await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    let open = fleet.worker_flags().set("--site", "open").switch("--allow-unverified-tls");
    let _open = fleet.worker_with("open", &open, &[]).await.unwrap();
    let fleet = &fleet;
    let cases: Vec<Case<'_>> = vec![
        ("pinned", Box::pin(pinned(fleet, "system-0001"))),
        ("a wrong pin", Box::pin(wrong_pin(fleet, "system-0002"))),
        ("unverified", Box::pin(unverified(fleet, "system-0003"))),
        ("unverified where that is allowed", Box::pin(unverified_where_allowed(fleet, "system-0004"))),
        ("plain HTTP", Box::pin(in_the_clear(fleet, "system-0005"))),
        ("no CA", Box::pin(missing_authority(fleet, "system-0006"))),
    ];
    all(cases).await;
    fleet.end().await.unwrap();
}
