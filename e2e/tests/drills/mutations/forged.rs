//! What somebody who knows the product writes into its database: every value well-formed, every intent right.

use std::collections::BTreeMap;

use autobuild::api::Server;
use autobuild::api::bmc_address::BmcAddress;
use autobuild::job::{Action, Deleting, Intent, ServerUid, Step, Wish};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use serde_json::{Value, json};

/// What the objects ask for: whoever can read them can compute every intent.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    /// Digest of the image that the fleet has.
    pub image: String,
    /// Digest of the image that erases disks.
    pub wipe: String,
    servers: BTreeMap<String, Server>,
}

impl Wishes {
    pub(super) fn of(image: String, wipe: String) -> Self {
        Self { image, wipe, servers: BTreeMap::new() }
    }

    pub(super) fn keep(&mut self, uid: &str, server: Server) {
        self.servers.insert(uid.to_owned(), server);
    }

    /// Where a server says that its BMC is.
    pub(super) fn bmc(&self, uid: &str) -> Value {
        json!(self.servers.get(uid).map(|server| &server.spec.bmc))
    }

    pub(super) fn intent(&self, uid: &str, action: Action) -> Option<String> {
        let server = self.servers.get(uid)?;
        let address = BmcAddress::parse(&server.spec.bmc.address).ok()?.normalised();
        let installs = server.spec.image.as_ref().filter(|_| action.installs()).map(|_| self.image.as_str());
        let image_digest = installs.or_else(|| action.wipes().then_some(self.wipe.as_str()));
        let (uid, deleting) = (&ServerUid(uid.to_owned()), Deleting::of(server));
        let wish = Wish { uid, spec: &server.spec, bmc_address: &address, image_digest, deleting };
        Some(Intent::of(action, wish).0)
    }
}

/// What a row says of a job that nobody enqueued.
#[derive(Debug, Clone)]
pub(super) struct ForgedJob {
    pub(super) action: &'static str,
    pub(super) step: &'static str,
    /// Where it has begun: its checkpoint, and why it was asked to stop.
    pub(super) begun: Option<(Value, Option<&'static str>)>,
    /// The name of its server, where that is not the right one.
    pub(super) name: Option<&'static str>,
}

impl ForgedJob {
    /// One that waits for a worker.
    pub(super) const fn new(action: &'static str, step: &'static str) -> Self {
        Self { action, step, begun: None, name: None }
    }
}

/// Jobs that are said to have begun, each at a step that changes a machine or says what is on its disks.
pub(super) fn begun_jobs() -> Vec<(Action, ForgedJob)> {
    let install = json!({ "install": { "image": "debian-13", "digest": format!("sha256:{}", "0".repeat(64)),
        "mac": "52:54:00:00:00:01", "method": "PXE", "power_before": "PoweredOn" } });
    let ending = json!({ "result": "Failed", "problem": { "reason": "DeadlineExceeded", "message": "" }, "step": "PowerOff" });
    let undoing = |mut checkpoint: Value| {
        checkpoint["ending"] = ending.clone();
        checkpoint
    };
    let none = json!({});
    let of = |action: Action, step: Step, checkpoint: Value, cancel, name| {
        let begun = Some((checkpoint, cancel));
        (action, ForgedJob { action: action.as_str(), step: step.as_str(), begun, name })
    };
    let job = |action, step, checkpoint: &Value| of(action, step, checkpoint.clone(), None, None);
    let nobodys = |action, step, checkpoint| of(action, step, checkpoint, None, Some("nobody"));
    vec![
        job(Action::PowerOff, Step::Off, &none),
        job(Action::PowerOn, Step::On, &none),
        job(Action::Reboot, Step::Off, &none),
        job(Action::Reboot, Step::On, &none),
        job(Action::Reimage, Step::Off, &install),
        job(Action::Reimage, Step::On, &install),
        job(Action::Wipe, Step::OffForGood, &install),
        job(Action::Decommission, Step::OffForGood, &install),
        of(Action::PowerOff, Step::On, undoing(none.clone()), None, None),
        of(Action::Build, Step::On, undoing(install.clone()), None, None),
        of(Action::Build, Step::AwaitInstall, install.clone(), Some("WishChanged"), None),
        nobodys(Action::Reimage, Step::Off, install.clone()),
        nobodys(Action::Decommission, Step::OffForGood, install.clone()),
        nobodys(Action::Reboot, Step::On, undoing(none)),
    ]
}

/// After whatever was really done, milliseconds since the Unix epoch.
const LATER_MS: i64 = 4_000_000_000_000;
/// Long before.
const EARLIER_MS: i64 = 1_000_000_000_000;

/// What may be said to be on a machine's disks.
pub(super) fn contents() -> Vec<String> {
    let image = |name: &str, origin: &str| {
        let digest = format!("sha256:{}", "0".repeat(64));
        json!({ "name": name, "digest": digest, "at_ms": LATER_MS, "origin": origin })
    };
    let since = json!({ "since_ms": LATER_MS });
    let all: Vec<Value> = vec![
        json!({ "Unknown": since }),
        json!({ "Wiped": since }),
        json!({ "Foreign": since }),
        json!({ "Image": image("other", "Installed") }),
        json!({ "Image": image("other", "Adopted") }),
        json!({ "Image": image("other", "TakenOver") }),
        json!({ "Image": image("debian-12", "Installed") }),
        json!({ "Foreign": { "since_ms": LATER_MS, "doubt": { "Doubtful": image("other", "Installed") } } }),
        json!({ "Foreign": { "since_ms": LATER_MS, "doubt": "Interrupted" } }),
    ];
    all.iter().map(Value::to_string).collect()
}

/// That a job left the machine off, and it has to be on.
pub(super) fn debts() -> Vec<Value> {
    [("Reboot", true), ("Reboot", false), ("Reimage", true)]
        .map(|(action, seen_off)| {
            let (job, at_ms) = (123_456_789, EARLIER_MS);
            json!({ "job": job, "action": action, "since_ms": at_ms, "settles_ms": at_ms, "seen_off": seen_off })
        })
        .to_vec()
}

/// The same of the job that ended last.
pub(super) fn debts_of(last: &Value) -> Vec<String> {
    let (id, action) = (&last["id"], &last["action"]);
    let own = json!({ "job": id, "action": action, "since_ms": 1, "settles_ms": 1, "seen_off": true });
    debts().into_iter().chain([own]).map(|debt| debt.to_string()).collect()
}

/// Jobs that are said to have ended last.
fn ended() -> Vec<Value> {
    let of = |id: i64, action: &str, result: &str| {
        json!({ "id": id, "action": action, "intent": "0".repeat(64), "result": result, "step": "PowerOn",
            "enqueued_at_ms": EARLIER_MS, "started_at_ms": EARLIER_MS, "finished_at_ms": LATER_MS })
    };
    vec![of(i64::MAX, "Reboot", "Succeeded"), of(i64::MAX, "Reimage", "Failed"), of(1, "Reboot", "Failed")]
}

/// What takes the question away whether somebody's data may be given up, if it is believed; `None`: that nothing was ever there.
pub(super) fn takes_the_word_away() -> Vec<Option<String>> {
    let asks = |value: &String| {
        ["Foreign", "TakenOver", "Adopted", "debian"].iter().any(|word| value.contains(word))
    };
    contents().into_iter().filter(|value| !asks(value)).map(Some).chain([None]).collect()
}

/// Columns of a server's row, each with a value that says that something has to be done, or that nothing must be.
pub(super) fn all() -> Vec<(&'static str, String)> {
    let problem = |reason: &str| json!({ "reason": reason, "message": "forged" });
    let failure = |action: &str, reason: &str| {
        let (intent, cause) = ("0".repeat(64), "0".repeat(64));
        json!({ "action": action, "intent": intent, "cause": cause, "problem": problem(reason), "at_ms": EARLIER_MS })
    };
    let refusal = |reason: &str| json!({ "reason": reason, "holder": "nobody", "address": "redfish+https://192.0.2.1:443" });
    let rows: Vec<(&str, Value)> = vec![
        ("failure", failure("Reboot", "PowerStateMismatch")),
        ("failure", failure("Reimage", "HistoryLost")),
        ("refusal", refusal("BMCClaimed")),
        ("refusal", refusal("IdentityConflict")),
        ("unanswered", json!({ "problem": problem("Unreachable"), "since_ms": EARLIER_MS })),
        ("reconcile_request", json!({ "value": "forged", "at_ms": LATER_MS })),
    ];
    let rows = rows.into_iter().map(|(column, value)| (column, value.to_string()));
    let rows = rows.chain(contents().into_iter().map(|value| ("contents", value)));
    let rows = rows.chain(ended().into_iter().map(|value| ("last_job", value.to_string())));
    rows.chain(debts().into_iter().map(|value| ("debt", value.to_string()))).collect()
}

/// One of them.
pub(super) fn random(random: &mut StdRng) -> Option<(&'static str, String)> {
    all().choose(random).cloned()
}
