//! Random walks over `spec` on a fleet that misbehaves: when the trouble is over, the end is that of the last spec alone; no
//! data is given up more often than was asked for; and what was decommissioned stays so. `SOAK_SEED` repeats one, `SOAK_STEPS` makes
//! it longer.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use autobuild::api::condition::ConditionType;
use autobuild::api::{Phase, Server};
use e2e::fleet::{BootFiles, Fleet, Layout, describe, is_current, is_ready, truth};
use e2e::wait::{Look, say, wait_for};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::crash::{number, seed};

const SYSTEMS: usize = 8;
const IMAGES: [&str; 2] = ["debian-12", "debian-13"];
const POWERS: [&str; 2] = ["PoweredOn", "PoweredOff"];

/// How long the last spec may take, once the trouble is over.
const LIMIT: Duration = Duration::from_mins(3);

/// What hosts do wrong, and how often in a hundred.
fn misbehaviours() -> Vec<Value> {
    [
        (30, json!({ "kind": "PostDelay", "ms": 700 })),
        (8, json!({ "kind": "StayInPost" })),
        (10, json!({ "kind": "ForgetOverride" })),
        (8, json!({ "kind": "IgnoreReset" })),
        (10, json!({ "kind": "Fail", "reason": "no disk was found" })),
        (6, json!({ "kind": "Hang" })),
        (10, json!({ "kind": "LosePower" })),
        (6, json!({ "kind": "NeverCallHome" })),
        (20, json!({ "kind": "CallHomeLate", "ms": 600 })),
        (30, json!({ "kind": "CallHomeTwice" })),
    ]
    .map(|(percent, behaviour)| json!({ "percent": percent, "behaviour": behaviour }))
    .into()
}

/// What BMCs do wrong.
fn faults() -> Vec<Value> {
    [
        (4, json!({ "kind": "Status", "status": 503, "retry_after_s": 1 })),
        (2, json!({ "kind": "TruncatedJson" })),
        (3, json!({ "kind": "Delay", "ms": 400 })),
    ]
    .map(|(percent, behaviour)| json!({ "percent": percent, "behaviour": behaviour }))
    .into()
}

/// One server's walk so far.
struct Walk {
    name: String,
    random: StdRng,
    image: Option<&'static str>,
    paused: bool,
    tokens: u32,
    /// How often an installation was asked for: another image, a new token, or a pause that ended.
    asked: u64,
}

impl Walk {
    /// One change of the spec.
    fn step(&mut self) -> Value {
        match self.random.random_range(0..10) {
            0..=1 => {
                let power = POWERS[self.random.random_range(0..2)];
                json!({ "power": power })
            }
            2 => json!({ "power": null }),
            3..=5 => {
                let image = IMAGES[self.random.random_range(0..IMAGES.len())];
                self.asked += u64::from(self.image != Some(image));
                self.image = Some(image);
                json!({ "image": { "name": image } })
            }
            6 => {
                self.image = None;
                json!({ "image": null })
            }
            7 => {
                self.tokens += 1;
                self.asked += u64::from(self.image.is_some());
                json!({ "reimageToken": format!("t{}", self.tokens) })
            }
            8 => {
                self.tokens += 1;
                json!({ "rebootToken": format!("t{}", self.tokens) })
            }
            _ => {
                self.asked += u64::from(self.paused);
                self.paused = !self.paused;
                json!({ "paused": self.paused })
            }
        }
    }

    /// Waits until what follows from a change has come so far, or there is nothing to do.
    async fn until(&mut self, fleet: &Fleet) -> Result<()> {
        let stage = self.random.random_range(0..4);
        let begun = Instant::now();
        wait_for(&format!("{}: stage {stage}", self.name), LIMIT, async || {
            let (server, job) = (fleet.get(&self.name).await?, fleet.records().job(&self.name).await?);
            let reached = match (stage, &job) {
                (0, _) => true,
                (1, Some(_)) => true,
                (2, Some(job)) => job.begun,
                _ => false,
            };
            // Some of it never comes to an end by itself: that is what the walk is for.
            let long_enough = begun.elapsed() > Duration::from_secs(4);
            let settled = job.is_none() && is_current(&server);
            Ok(if reached || settled || long_enough {
                Look::Holds(())
            } else {
                Look::NotYet(format!("{job:?}"))
            })
        })
        .await
    }

    async fn walk(&mut self, fleet: &Fleet) -> Result<()> {
        for _ in 0..number("SOAK_STEPS", 5) {
            let change = self.step();
            fleet.change(&self.name, change).await?;
            self.until(fleet).await?;
        }
        Ok(())
    }

    /// The last spec, whole.
    async fn end(&mut self, fleet: &Fleet) -> Result<Last> {
        let last = if self.random.random_bool(0.25) {
            Last::Decommissioned
        } else {
            let power = POWERS[self.random.random_range(0..2)];
            Last::Serving { image: IMAGES[self.random.random_range(0..2)], power }
        };
        self.asked += u64::from(self.paused);
        let spec = match &last {
            Last::Decommissioned => json!({ "lifecycle": "Decommissioned", "paused": null }),
            Last::Serving { image, power } => {
                self.asked += 1;
                let token = "the-last";
                json!({
                    "image": { "name": image }, "power": power, "reimageToken": token, "rebootToken": token, "paused": null
                })
            }
        };
        fleet.change(&self.name, spec).await?;
        Ok(last)
    }
}

/// What the last spec asks for.
#[derive(Debug)]
enum Last {
    Decommissioned,
    Serving { image: &'static str, power: &'static str },
}

impl Last {
    /// Whether a status says that it has come true.
    fn holds(&self, server: &Server) -> bool {
        let Some(status) = &server.status else { return false };
        let at_rest = is_ready(server) && status.job.is_none();
        match self {
            Self::Decommissioned => {
                at_rest && status.phase == Some(Phase::Decommissioned) && status.image.is_none()
            }
            Self::Serving { image, power } => {
                let there = status.image.as_ref().is_some_and(|there| there.name == *image);
                let handled = |tokens: &[String]| tokens.iter().any(|token| token == "the-last");
                at_rest
                    && there
                    && truth(server, ConditionType::ImageSynced) == Some("True")
                    && status.power.is_some_and(|read| read.as_str() == *power)
                    && handled(&status.reimage_tokens)
                    && handled(&status.reboot_tokens)
            }
        }
    }

    /// Whether the machine itself is so.
    async fn is_true(&self, fleet: &Fleet, name: &str, server: &Server) -> Result<()> {
        let (disk, power) = (fleet.disk(name).await?, fleet.bmcs().power(name).await?);
        match self {
            Self::Decommissioned => {
                ensure!(disk == "Empty" && power == "Off", "its disk is {disk}, it is {power}");
            }
            Self::Serving { power: wished, .. } => {
                let shown = server.status.as_ref().and_then(|status| status.image.as_ref());
                let digest = shown.map(|image| image.digest.as_str());
                ensure!(digest == Some(disk.as_str()), "its disk is {disk}, status says {digest:?}");
                ensure!(*wished == format!("Powered{power}"), "it is {power}");
            }
        }
        let told = fleet.bmcs().system(name).await?;
        ensure!(told["boot"]["enabled"] == "Disabled", "a boot override is left: {told}");
        Ok(())
    }
}

async fn destroyed(fleet: &Fleet, name: &str) -> Result<(u64, u64)> {
    let told = fleet.bmcs().system(name).await?;
    let number = |field: &str| told[field].as_u64().with_context(|| format!("no {field} in {told}"));
    Ok((number("installs")?, number("wipes")?))
}

/// The machine and its history, when the last spec has come true.
async fn judge(fleet: &Fleet, walk: &Walk, last: &Last) -> Result<()> {
    let name = &walk.name;
    let result = wait_for(&format!("{name}: {last:?}"), LIMIT, async || {
        let server = fleet.get(name).await?;
        Ok(if last.holds(&server) { Look::Holds(server) } else { Look::NotYet(describe(&server)) })
    })
    .await;
    let server = match result {
        Ok(server) => server,
        Err(error) => return Err(error.context(fleet.story(name).await)),
    };
    last.is_true(fleet, name, &server).await?;
    let history = fleet.records().history(name).await?;
    // What failed is tried again only when somebody changed something.
    let failed = history
        .iter()
        .filter(|past| ["Build", "Reimage"].contains(&past.action.as_str()) && past.result == "Failed")
        .count() as u64;
    let (installs, wipes) = destroyed(fleet, name).await?;
    ensure!(
        installs <= walk.asked + failed,
        "installed {installs} times for {} requests and {failed} failures: {history:#?}",
        walk.asked
    );
    let decommissioned = history.iter().filter(|past| past.action == "Decommission").count() as u64;
    ensure!(wipes <= decommissioned, "wiped {wipes} times in {decommissioned} decommissions");
    if matches!(last, Last::Decommissioned) {
        // It absorbs: whatever is wished now, nothing happens.
        let before = fleet.bmcs().changes(name).await?.len();
        fleet
            .change(
                name,
                json!({ "power": "PoweredOn", "reimageToken": "late", "image": { "name": IMAGES[0] } }),
            )
            .await?;
        fleet
            .wait(name, "the late token is noticed", |server| {
                let status = server.status.as_ref();
                status.is_some_and(|status| status.reimage_tokens.iter().any(|token| token == "late"))
            })
            .await?;
        ensure!(fleet.bmcs().changes(name).await?.len() == before, "touched after its end");
        ensure!(destroyed(fleet, name).await? == (installs, wipes));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_was_wished_on_the_way_the_end_is_that_of_the_last_spec() {
    let seed = seed();
    say(format!("walks over spec: SOAK_SEED={seed}"));
    let text = seed.to_string();
    let installer =
        ["--install-duration", "600", "--post-delay", "50", "--progress-interval", "150", "--seed", &text];
    let fleet = Fleet::with(Layout::new(SYSTEMS as u32).emulator(&installer)).await.unwrap();
    let files = BootFiles::serve().await.unwrap();
    for name in IMAGES.into_iter().chain(["wipe"]) {
        fleet.image(name, &files, &[&format!("release={name}")]).await.unwrap();
    }
    let _boot = fleet.boot("boot", &files).await.unwrap();
    let flags = fleet.controller_flags().set("--destruction-budget", "unlimited");
    let _controller = fleet.controller_with("controller", &flags, &[]).await.unwrap();
    let flags = fleet.worker_flags().with(&[("--boot-deadline", "3s"), ("--install-deadline", "4s")]);
    let worker = fleet.worker_with("worker", &flags, &[]).await.unwrap();
    let mut walks = Vec::new();
    for number in 0..SYSTEMS {
        let name = format!("system-{:04}", number + 1);
        let server = fleet.declare(&name, json!({})).await.unwrap();
        // A person's word from the start: the walk is about what is asked for.
        let uid = server.metadata.uid.unwrap_or_default();
        let kubectl = fleet.kubectl().in_namespace(fleet.namespace());
        kubectl.run(&["annotate", "server", &name, &format!("autobuild.dev/confirm={uid}")]).await.unwrap();
        let random = StdRng::seed_from_u64(seed.wrapping_add(number as u64));
        walks.push(Walk { name, random, image: None, paused: false, tokens: 0, asked: 0 });
    }
    let (mut hosts, mut bmcs) = (Vec::new(), Vec::new());
    for rule in misbehaviours() {
        hosts.push(fleet.bmcs().host_rule(rule).await.unwrap());
    }
    for fault in faults() {
        bmcs.push(fleet.bmcs().fault(fault).await.unwrap());
    }
    futures::future::try_join_all(walks.iter_mut().map(|walk| walk.walk(&fleet))).await.unwrap();
    for rule in hosts {
        fleet.bmcs().end_host_rule(rule).await.unwrap();
    }
    for fault in bmcs {
        fleet.bmcs().mend(fault).await.unwrap();
    }
    // Patience comes back with the calm: a busy machine is slow, not broken.
    worker.process().kill().await.unwrap();
    let flags = fleet.worker_flags().with(&[("--boot-deadline", "2m"), ("--install-deadline", "2m")]);
    let _patient = fleet.worker_with("patient", &flags, &[]).await.unwrap();
    let mut lasts = Vec::new();
    for walk in &mut walks {
        lasts.push(walk.end(&fleet).await.unwrap());
    }
    let judged = walks.iter().zip(&lasts).map(async |(walk, last)| {
        judge(&fleet, walk, last).await.with_context(|| format!("{}: {last:?}; SOAK_SEED={seed}", walk.name))
    });
    let wrong: Vec<String> = futures::future::join_all(judged)
        .await
        .into_iter()
        .filter_map(|result| Some(format!("{:#}", result.err()?)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    fleet.end().await.unwrap();
}
