//! The emulated BMCs of a fleet: what they were asked, in what state they are, and how they misbehave.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::autobuild::Emulator;
use crate::control_plane::install_crypto_provider;

/// The control interface of an emulator.
#[derive(Debug)]
pub struct Bmcs {
    emulator: Emulator,
    addresses: Value,
    client: reqwest::Client,
}

/// One request that a BMC got.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Grows with every request.
    pub seq: u64,
    /// Which system.
    pub system: String,
    /// When it came, in milliseconds on the emulator's monotonic clock.
    pub at_ms: u64,
    /// When it was answered; `None`: it was not.
    pub answered_ms: Option<u64>,
    /// `GET`, `POST` and so on.
    pub method: String,
    /// The path.
    pub path: String,
    /// The reset type, where a reset was asked for.
    pub reset: Option<String>,
    /// The status that was answered; `None`: no answer.
    pub status: Option<u64>,
    /// `Applied`, `Refused` and so on.
    pub effect: String,
    /// Which worker asked.
    pub worker: Option<String>,
    /// For which claim: its job and its token.
    pub claim: Option<String>,
}

impl Bmcs {
    /// For an emulator that was started with `--addresses-file FILE`.
    pub(super) fn new(emulator: Emulator, addresses: &Path) -> Result<Self> {
        install_crypto_provider();
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build()?;
        let addresses = serde_json::from_str(&std::fs::read_to_string(addresses)?)?;
        Ok(Self { emulator, addresses, client })
    }

    /// The process.
    pub fn emulator(&self) -> &Emulator {
        &self.emulator
    }

    /// `host:port` of the port on which that system is alone, with HTTPS; the fleet's where it has none.
    pub fn https_of(&self, system: &str) -> String {
        let own = self.addresses["own"].as_array().into_iter().flatten();
        let own = own.filter(|one| one["system"] == system).find_map(|one| one["https"].as_str());
        own.unwrap_or(self.emulator.https()).to_owned()
    }

    /// `host:port` of HTTPS with the self-signed certificate.
    pub fn self_signed(&self) -> Result<&str> {
        self.addresses["https_self_signed"].as_str().context("there is no self-signed listener")
    }

    /// SHA-256 of the self-signed certificate, lower-case hexadecimal.
    pub fn self_signed_fingerprint(&self) -> Result<&str> {
        self.addresses["self_signed_fingerprint_sha256"].as_str().context("no fingerprint")
    }

    async fn call(&self, method: reqwest::Method, path: &str, body: Option<Value>) -> Result<Value> {
        let url = format!("http://{}/emulator/{path}", self.emulator.http());
        let request = self.client.request(method, &url);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        let answer = request.send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        if !status.is_success() {
            bail!("{url} answered {status}: {text}");
        }
        if text.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_str(&text)?) }
    }

    /// What the emulator says of a system.
    pub async fn system(&self, system: &str) -> Result<Value> {
        self.call(reqwest::Method::GET, &format!("systems/{system}"), None).await
    }

    /// Its power state, in the BMC's own words: `On`, `Off`, `PoweringOn`, `PoweringOff`.
    pub async fn power(&self, system: &str) -> Result<String> {
        Ok(self.system(system).await?["power"].as_str().context("no power")?.to_owned())
    }

    /// Switches it by the button: `On` or `Off`.
    pub async fn press(&self, system: &str, state: &str) -> Result<()> {
        let body = json!({ "state": state });
        self.call(reqwest::Method::POST, &format!("systems/{system}/power"), Some(body)).await?;
        Ok(())
    }

    /// Puts an image into its virtual CD drive, as a person with a remote console does.
    pub async fn insert(&self, system: &str, image: &str, login: (&str, &str)) -> Result<()> {
        let path = format!("redfish/v1/Managers/{system}/VirtualMedia/CD1/Actions/VirtualMedia.InsertMedia");
        let url = format!("http://{}/{path}", self.emulator.http());
        let request = self.client.post(&url).basic_auth(login.0, Some(login.1));
        let answer = request.json(&json!({ "Image": image })).send().await?;
        anyhow::ensure!(answer.status().is_success(), "{url} answered {}", answer.status());
        Ok(())
    }

    /// Gives a BMC another user name and password.
    pub async fn set_credentials(&self, system: &str, username: &str, password: &str) -> Result<()> {
        let body = json!({ "username": username, "password": password });
        self.call(reqwest::Method::POST, &format!("systems/{system}/credentials"), Some(body)).await?;
        Ok(())
    }

    /// Makes another machine answer as that system.
    pub async fn set_identity(&self, system: &str, serial: &str, uuid: &str) -> Result<()> {
        let body = json!({ "serial_number": serial, "uuid": uuid });
        self.call(reqwest::Method::POST, &format!("systems/{system}/identity"), Some(body)).await?;
        Ok(())
    }

    /// How many logins it refused, all told (the emulator's own count begins again after a good one).
    pub async fn bad_logins(&self, system: &str) -> Result<u64> {
        let refused = |one: &&Asked| one.status == Some(401);
        Ok(self.requests(system).await?.iter().filter(refused).count() as u64)
    }

    /// Has every host boot from there when it boots from the network, as DHCP would tell it.
    pub async fn boot_from(&self, url: &str) -> Result<()> {
        self.call(reqwest::Method::POST, "boot-url", Some(json!({ "url": url }))).await?;
        Ok(())
    }

    /// Adds a rule for what a host does; returns its id.
    pub async fn host_rule(&self, rule: Value) -> Result<u64> {
        let answer = self.call(reqwest::Method::POST, "hosts", Some(rule)).await?;
        answer["id"].as_u64().with_context(|| format!("no id in {answer}"))
    }

    /// Takes a rule for hosts away.
    pub async fn end_host_rule(&self, id: u64) -> Result<()> {
        self.call(reqwest::Method::DELETE, &format!("hosts/{id}"), None).await?;
        Ok(())
    }

    /// Adds a rule of misbehaviour; returns its id.
    pub async fn fault(&self, rule: Value) -> Result<u64> {
        let answer = self.call(reqwest::Method::POST, "faults", Some(rule)).await?;
        answer["id"].as_u64().with_context(|| format!("no id in {answer}"))
    }

    /// A rule for every request of one system.
    pub async fn misbehave(&self, system: &str, behaviour: Value) -> Result<u64> {
        self.fault(json!({ "system": system, "behaviour": behaviour })).await
    }

    /// Takes a rule away.
    pub async fn mend(&self, id: u64) -> Result<()> {
        self.call(reqwest::Method::DELETE, &format!("faults/{id}"), None).await?;
        Ok(())
    }

    /// Everything that the whole fleet was asked, reads too, in the order in which it came; fails where something fell
    /// out of the log.
    pub async fn whole_log(&self) -> Result<Vec<Asked>> {
        self.log_since(0).await
    }

    /// The same from a request on, without that one.
    pub async fn log_since(&self, seq: u64) -> Result<Vec<Asked>> {
        const PAGE: usize = 20_000;
        let mut all: Vec<Asked> = Vec::new();
        loop {
            let since = all.last().map_or(seq, |one| one.seq);
            let path = format!("effects?since={since}&limit={PAGE}");
            let answer = self.call(reqwest::Method::GET, &path, None).await?;
            if answer["dropped"].as_u64() != Some(0) {
                bail!("the emulator's log is too small for this test: {} were dropped", answer["dropped"]);
            }
            let entries = answer["entries"].as_array().with_context(|| format!("no entries in {answer}"))?;
            all.extend(entries.iter().map(asked));
            if entries.len() < PAGE {
                return Ok(all);
            }
        }
    }

    async fn log(&self, path: &str, system: &str) -> Result<Vec<Asked>> {
        let answer = self.call(reqwest::Method::GET, &format!("{path}?system={system}"), None).await?;
        let entries = answer["entries"].as_array().with_context(|| format!("no entries in {answer}"))?;
        Ok(entries.iter().map(asked).collect())
    }

    /// Every request of a system, reads too.
    pub async fn requests(&self, system: &str) -> Result<Vec<Asked>> {
        self.log("effects", system).await
    }

    /// The requests that ask a system for a change, whatever came of them.
    pub async fn changes(&self, system: &str) -> Result<Vec<Asked>> {
        self.log("effects/mutating", system).await
    }

    /// The resets that a system was asked for, whatever came of them, in their order: `off` for either way of
    /// switching off, `on`, or the reset type as it was sent.
    pub async fn resets(&self, system: &str) -> Result<Vec<String>> {
        let changes = self.changes(system).await?;
        Ok(changes.iter().filter_map(|one| one.reset.as_deref()).map(plain).collect())
    }
}

fn plain(reset: &str) -> String {
    match reset {
        "GracefulShutdown" | "ForceOff" => "off",
        "On" | "ForceOn" => "on",
        other => other,
    }
    .to_owned()
}

fn asked(entry: &Value) -> Asked {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Asked {
        seq: entry["seq"].as_u64().unwrap_or(0),
        system: text(&entry["system"]),
        at_ms: entry["at_ms"].as_u64().unwrap_or(0),
        answered_ms: entry["answered_ms"].as_u64(),
        method: text(&entry["method"]),
        path: text(&entry["path"]),
        reset: entry["action"]["reset_type"].as_str().map(str::to_owned),
        status: entry["status"].as_u64(),
        effect: text(&entry["effect"]),
        worker: entry["worker"].as_str().map(str::to_owned),
        claim: entry["request_id"].as_str().map(str::to_owned),
    }
}
