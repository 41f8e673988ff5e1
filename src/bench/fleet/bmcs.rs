//! The emulated fleet: where each system answers, what it was asked and when, and what was written to its disk.
#![expect(clippy::disallowed_methods, reason = "two clocks are compared")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::BenchError;
use super::children::Child;
use super::http;

/// Tries by which the clocks are compared; the quickest answer counts.
const TRIES: usize = 20;
/// Entries of the log in one answer.
const PAGE: usize = 20_000;

/// The control interface of the emulator.
#[derive(Debug)]
pub(super) struct Bmcs {
    base: String,
    /// `host:port` of each system by its name, in the order of their numbers.
    addresses: BTreeMap<String, String>,
    /// When the emulator's clock showed 0.
    zero: Instant,
}

/// One request that a BMC got.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// Which system.
    pub system: String,
    /// When it came.
    pub at: Instant,
    /// When its effect took place, if it was applied.
    pub effect_at: Option<Instant>,
    /// The reset type, where a reset was applied.
    pub reset: Option<String>,
    /// Which worker asked.
    pub worker: String,
}

impl Bmcs {
    /// For a fleet that was started with `--addresses-file`.
    pub(super) async fn new(emulator: &Child, addresses: &Path) -> Result<Self, BenchError> {
        let base = format!("http://{}/emulator", emulator.address());
        let broken = |why: String| BenchError::Process { name: emulator.name().to_owned(), why };
        let text = std::fs::read_to_string(addresses).map_err(|error| broken(error.to_string()))?;
        let told: Value = serde_json::from_str(&text).map_err(|error| broken(error.to_string()))?;
        let own = told["own"].as_array().into_iter().flatten();
        let own = own.filter_map(|one| Some((one["system"].as_str()?, one["http"].as_str()?)));
        let addresses = own.map(|(system, http)| (system.to_owned(), http.to_owned())).collect();
        let zero = clock_zero(&base).await?;
        Ok(Self { base, addresses, zero })
    }

    /// The names of all systems.
    pub(super) fn names(&self) -> Vec<String> {
        self.addresses.keys().cloned().collect()
    }

    /// What `spec.bmc.address` of a system is.
    pub(super) fn address(&self, system: &str) -> String {
        let at = self.addresses.get(system).map(String::as_str).unwrap_or_default();
        format!("redfish+http://{at}/redfish/v1/Systems/{system}")
    }

    /// Has every host boot from there.
    pub(super) async fn boot_from(&self, url: &str) -> Result<(), BenchError> {
        http::post(&format!("{}/boot-url", self.base), &json!({ "url": url })).await.map(|_| ())
    }

    /// Has hosts behave otherwise from now on.
    pub(super) async fn hosts(&self, behaviour: &Value) -> Result<(), BenchError> {
        http::post(&format!("{}/hosts", self.base), &json!({ "behaviour": behaviour })).await.map(|_| ())
    }

    /// Ends all of that.
    pub(super) async fn usual_hosts(&self) -> Result<(), BenchError> {
        http::delete(&format!("{}/hosts", self.base)).await
    }

    /// The BMCs of systems whose names match answer so much later from now on.
    pub(super) async fn slow(&self, systems: &str, by: Duration) -> Result<(), BenchError> {
        let behaviour = json!({ "kind": "Delay", "ms": by.as_millis() as u64 });
        let rule = json!({ "system": systems, "behaviour": behaviour });
        http::post(&format!("{}/faults", self.base), &rule).await.map(|_| ())
    }

    /// Ends all of that.
    pub(super) async fn quick(&self) -> Result<(), BenchError> {
        http::delete(&format!("{}/faults", self.base)).await
    }

    /// How many installations began to write to each system's disk so far.
    pub(super) async fn installs(&self) -> Result<BTreeMap<String, u64>, BenchError> {
        let told = http::get(&format!("{}/systems", self.base)).await?;
        let systems = told["systems"].as_array().into_iter().flatten();
        let counts =
            systems.filter_map(|one| Some((one["name"].as_str()?.to_owned(), one["installs"].as_u64()?)));
        Ok(counts.collect())
    }

    fn instant(&self, ms: &Value) -> Option<Instant> {
        Some(self.zero + Duration::from_millis(ms.as_u64()?))
    }

    fn asked(&self, entry: &Value) -> Option<Asked> {
        let applied = entry["effect"] == "Applied";
        Some(Asked {
            system: entry["system"].as_str()?.to_owned(),
            at: self.instant(&entry["at_ms"])?,
            effect_at: self.instant(&entry["effect_at_ms"]).filter(|_| applied),
            reset: entry["action"]["reset_type"].as_str().filter(|_| applied).map(str::to_owned),
            worker: entry["worker"].as_str().unwrap_or_default().to_owned(),
        })
    }

    /// What one system was asked since then and is still in the log, reads too, in the order in which it came.
    pub(super) async fn asked_since(&self, system: &str, since: Instant) -> Result<Vec<Asked>, BenchError> {
        let told = http::get(&format!("{}/effects?system={system}", self.base)).await?;
        let entries = told["entries"].as_array().into_iter().flatten();
        // The emulator's clock counts whole milliseconds.
        let since = since.checked_sub(Duration::from_millis(1)).unwrap_or(since);
        Ok(entries.filter_map(|entry| self.asked(entry)).filter(|asked| asked.at >= since).collect())
    }

    /// What the whole fleet was asked to change since then.
    pub(super) async fn changes_since(&self, since: Instant) -> Result<Vec<Asked>, BenchError> {
        let (mut all, mut after) = (Vec::new(), 0);
        loop {
            let url = format!("{}/effects/mutating?since={after}&limit={PAGE}", self.base);
            let told = http::get(&url).await?;
            let entries: Vec<&Value> = told["entries"].as_array().into_iter().flatten().collect();
            all.extend(
                entries.iter().filter_map(|entry| self.asked(entry)).filter(|asked| asked.at >= since),
            );
            let Some(last) = entries.last().and_then(|entry| entry["seq"].as_u64()) else { return Ok(all) };
            after = last;
        }
    }
}

/// Compares the emulator's clock with ours.
async fn clock_zero(base: &str) -> Result<Instant, BenchError> {
    let url = format!("{base}/faults");
    let mut best: Option<(Duration, Instant)> = None;
    for _ in 0..TRIES {
        let before = Instant::now();
        let told = http::get(&url).await?;
        let took = before.elapsed();
        let shown = Duration::from_millis(told["now_ms"].as_u64().unwrap_or(0));
        let zero = (before + took / 2).checked_sub(shown).unwrap_or(before);
        if best.is_none_or(|(least, _)| took < least) {
            best = Some((took, zero));
        }
    }
    best.map(|(_, zero)| zero)
        .ok_or_else(|| BenchError::Call { url, why: "the emulator shows no time".to_owned() })
}
