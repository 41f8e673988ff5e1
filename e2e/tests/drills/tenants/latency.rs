//! How long the honest tenant's wishes take to begin beside 300 Servers of a hostile one, and without them.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use autobuild::api::hardware::PowerState;
use e2e::fleet::{Fleet, LIMIT, Layout, is_ready};
use e2e::wait::{Look, say, wait_for};
use futures::future::try_join_all;
use kube::api::ListParams;
use serde_json::{Value, json};

use super::tenant::Tenant;
use super::{by_name, power, system, with_login};
use crate::steps::{controller_flags, systems};

/// Machines of the honest tenant, and how often each is switched in each part.
const HONEST: usize = 6;
const SWITCHES: usize = 25;
/// How much longer the wishes may take to begin, by the 99th of a hundred.
const TIMES: f64 = 3.0;

/// What the hostile tenant has. Those that have a BMC of their own come first.
const HANGING: std::ops::Range<usize> = 10..130;
const SLOW: std::ops::Range<usize> = 130..170;
const CHASSIS: std::ops::Range<usize> = 170..210;
const SQUATTERS: usize = 50;
const ALIASES: usize = 50;
/// One that nobody has: it is asked what time it is.
const CLOCK: usize = 210;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a long drill: make soak"]
async fn an_honest_tenant_waits_at_most_three_times_as_long_beside_three_hundred_hostile_servers() {
    let ports = (SLOW.end - 1).to_string();
    let layout = Layout::new(CLOCK as u32).emulator(&["--initial-power", "on", "--own-ports", &ports]);
    let fleet = Fleet::with(layout).await.unwrap();
    let hostile = Tenant::enter(&fleet).await.unwrap();
    let both = format!("{},{}", fleet.namespace(), hostile.namespace());
    let flags = controller_flags(&fleet).set("--watch-namespaces", both);
    let _controller = fleet.controller_with("controller", &flags, &[]).await.unwrap();
    let flags = fleet.worker_flags().set("--request-timeout", "20s");
    let _worker = fleet.worker_with("worker", &flags, &[]).await.unwrap();
    let honest = systems(HONEST);
    for name in &honest {
        fleet.declare(name, json!({})).await.unwrap();
    }
    for name in &honest {
        fleet.wait_ready(name).await.unwrap();
    }
    // The first ones fill caches.
    all_begin(&fleet, &honest, 2).await.unwrap();
    let without = Times::of(all_begin(&fleet, &honest, SWITCHES).await.unwrap());
    let all = settle(&fleet, &hostile).await.unwrap();
    let measured = async {
        // As above. The controller is busy with what was created.
        let first = Times::of(all_begin(&fleet, &honest, 2).await.unwrap());
        (first, Times::of(all_begin(&fleet, &honest, SWITCHES).await.unwrap()))
    };
    let (first, beside) = tokio::select! {
        measured = measured => measured,
        stirred = stir(&hostile, &all) => panic!("{stirred:?}"),
    };
    say(format!("tenants: right after the hostile Servers were created {first}"));
    let held = hostile.claims().await.unwrap().len();
    let ratio = beside.p99.as_secs_f64() / without.p99.as_secs_f64();
    say(format!("tenants: without the hostile Servers {without}"));
    say(format!("tenants: beside {} of them {beside}; {held} of 16 slots are theirs at the end", all.len()));
    say(format!("tenants: the 99th percentile is {ratio:.2} times as long"));
    assert!(ratio <= TIMES, "it is {ratio:.2} times as long");
    fleet.end().await.unwrap();
}

/// Times in their order.
struct Times {
    count: usize,
    p50: Duration,
    p99: Duration,
    most: Duration,
}

impl Times {
    fn of(mut all: Vec<Duration>) -> Self {
        all.sort_unstable();
        let at = |hundredths: usize| all[(all.len() * hundredths).div_ceil(100).max(1) - 1];
        Self { count: all.len(), p50: at(50), p99: at(99), most: at(100) }
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |time: Duration| time.as_millis();
        let (p50, p99, most) = (ms(self.p50), ms(self.p99), ms(self.most));
        write!(
            f,
            "{} wishes began after {p50} ms in the middle, {p99} ms at the 99th percentile, {most} ms at most",
            self.count
        )
    }
}

/// Switches all of them so often, each as soon as it is as declared; returns how long each wish took until its BMC was asked.
async fn all_begin(fleet: &Fleet, honest: &[String], switches: usize) -> Result<Vec<Duration>> {
    let clock = clock(fleet).await?;
    let each = honest.iter().map(async |name| {
        let mut times = Vec::new();
        for _ in 0..switches {
            times.push(begins(fleet, name, clock).await?);
        }
        anyhow::Ok(times)
    });
    Ok(try_join_all(each).await?.concat())
}

/// When the emulator began to count, by the clock of this process.
async fn clock(fleet: &Fleet) -> Result<Instant> {
    let name = system(CLOCK);
    let url = format!("http://{}/redfish/v1/Systems/{name}", fleet.bmcs().emulator().http());
    let client = reqwest::Client::builder().no_proxy().build()?;
    let now = Instant::now();
    client.get(url).basic_auth(fleet.username(), Some(fleet.password())).send().await?;
    let asked = fleet.bmcs().requests(&name).await?;
    let asked = asked.last().context("the request is not in the emulator's log")?;
    now.checked_sub(Duration::from_millis(asked.at_ms)).context("the emulator is older than this machine")
}

/// Switches one, and waits until it is as declared; returns how long it took until its BMC was asked.
async fn begins(fleet: &Fleet, name: &str, clock: Instant) -> Result<Duration> {
    let before = fleet.bmcs().requests(name).await?.last().map_or(0, |asked| asked.seq);
    let is_on = power(&fleet.get(name).await?) == Some(PowerState::PoweredOn);
    let (wish, power_after) =
        if is_on { ("PoweredOff", PowerState::PoweredOff) } else { ("PoweredOn", PowerState::PoweredOn) };
    let asked = Instant::now();
    fleet.change(name, json!({ "power": wish })).await?;
    fleet.wait(name, wish, |it| is_ready(it) && power(it) == Some(power_after)).await?;
    let log = fleet.bmcs().requests(name).await?;
    let first = log.iter().find(|one| one.seq > before && one.worker.is_some());
    let first = first.with_context(|| format!("{name} was not asked"))?;
    Ok((clock + Duration::from_millis(first.at_ms)).saturating_duration_since(asked))
}

/// Declares everything that the hostile tenant has, and waits until it holds what it can.
async fn settle(fleet: &Fleet, hostile: &Tenant<'_>) -> Result<Vec<String>> {
    let own = [("username", fleet.username()), ("password", fleet.password())];
    hostile.secret("own", "autobuild.dev/bmc-credentials", &own).await?;
    hostile.secret("guess", "autobuild.dev/bmc-credentials", &[("username", "a"), ("password", "b")]).await?;
    for number in HANGING.chain(CHASSIS) {
        fleet.bmcs().misbehave(&system(number), json!({ "kind": "Hang" })).await?;
    }
    for number in SLOW {
        fleet.bmcs().misbehave(&system(number), json!({ "kind": "Delay", "ms": 3000 })).await?;
    }
    let mut all = Vec::new();
    let urgent = |spec: Value| {
        let mut spec = with_login(spec);
        (spec["priority"], spec["power"]) = (json!("Urgent"), json!("PoweredOff"));
        spec
    };
    for number in HANGING.chain(SLOW).chain(CHASSIS) {
        let name = system(number);
        hostile.declare(&name, &name, &urgent(json!({}))).await?;
        all.push(name);
    }
    for number in 0..SQUATTERS {
        let (name, of) = (format!("squatter-{number}"), system(1 + number % HONEST));
        let mut spec = urgent(json!({}));
        spec["bmc"]["credentialsRef"] = json!({ "name": "nothing" });
        hostile.declare(&name, &of, &spec).await?;
        all.push(name);
    }
    for number in 0..ALIASES {
        let (name, of) = (format!("alias-{number}"), system(1 + number % HONEST));
        let mut spec = urgent(json!({}));
        spec["bmc"] = json!({
            "address": by_name(fleet, &of)?, "credentialsRef": { "name": "guess" }, "tls": null,
        });
        hostile.declare(&name, &of, &spec).await?;
        all.push(name);
    }
    ensure!(all.len() == 300, "{} hostile Servers", all.len());
    wait_for("the hostile tenant to hold slots", LIMIT, async || {
        let held = hostile.claims().await?.len();
        Ok(if held >= 8 { Look::Holds(()) } else { Look::NotYet(format!("{held} held")) })
    })
    .await?;
    wait_for("the controller to have seen all of them", LIMIT, async || {
        let servers = hostile.servers().list(&ListParams::default()).await?;
        let unseen = servers.iter().filter(|server| server.status.is_none()).count();
        Ok(if unseen == 0 { Look::Holds(()) } else { Look::NotYet(format!("{unseen} without a status")) })
    })
    .await?;
    Ok(all)
}

/// Changes one of its wishes after the other, for ever.
async fn stir(hostile: &Tenant<'_>, all: &[String]) -> Result<()> {
    for round in 0.. {
        let wish = if round % 2 == 0 { "PoweredOn" } else { "PoweredOff" };
        for name in all {
            let token = format!("round-{round}");
            hostile.change(name, &json!({ "power": wish, "rebootToken": token })).await?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}
