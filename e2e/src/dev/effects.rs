//! What the machines were really asked, by the emulator's own log.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::autobuild::{self, Emulator};

/// The newest entry of the log.
pub(super) async fn last_seq(emulator: &Emulator) -> Result<u64> {
    read(emulator, "effects/mutating?limit=1").await?["last_seq"].as_u64().context("no last_seq")
}

/// The resets that a system was asked for after `since`, the oldest first.
pub(super) async fn resets(emulator: &Emulator, system: u32, since: u64) -> Result<Vec<String>> {
    let log = read(emulator, &format!("effects/mutating?system={}&since={since}", name(system))).await?;
    let entries = log["entries"].as_array().context("no entries")?;
    Ok(entries
        .iter()
        .map(|entry| entry["action"]["reset_type"].as_str().unwrap_or("another change").to_owned())
        .collect())
}

/// A system's power by its own word: `On`, `Off`, `PoweringOn`, `PoweringOff`.
pub(super) async fn power(emulator: &Emulator, system: u32) -> Result<String> {
    let answer = read(emulator, &format!("systems/{}", name(system))).await?;
    Ok(answer["power"].as_str().context("no power")?.to_owned())
}

/// How many logins were refused in the whole fleet.
pub(super) async fn bad_logins(emulator: &Emulator) -> Result<u64> {
    read(emulator, "counters").await?["bad_logins"].as_u64().context("no bad_logins")
}

/// Has a host misbehave from now on.
pub(super) async fn host_rule(emulator: &Emulator, system: u32, behaviour: &Value) -> Result<()> {
    let url = format!("http://{}/emulator/hosts", emulator.http());
    let rule = json!({ "system": name(system), "behaviour": behaviour });
    let client = reqwest::Client::builder().no_proxy().build()?;
    let answer = client.post(&url).json(&rule).send().await?;
    ensure!(answer.status().is_success(), "{url} answered {}", answer.status());
    Ok(())
}

/// How often an installer has begun to write to a system's disk.
pub(super) async fn installs(emulator: &Emulator, system: u32) -> Result<u64> {
    read(emulator, &format!("systems/{}", name(system))).await?["installs"].as_u64().context("no installs")
}

/// The emulator's name of a system.
pub(super) fn name(system: u32) -> String {
    format!("system-{system:04}")
}

async fn read(emulator: &Emulator, path: &str) -> Result<Value> {
    let url = format!("http://{}/emulator/{path}", emulator.http());
    let (status, text) = autobuild::get(&url).await?;
    ensure!(status == 200, "{url} answered {status}: {text}");
    serde_json::from_str(&text).with_context(|| format!("{url} answered no JSON: {text}"))
}
