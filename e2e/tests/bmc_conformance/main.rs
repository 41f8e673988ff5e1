//! One suite for every backend and every BMC: what holds against our emulator must hold against one that we did not
//! write.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod image;
mod suite;

use std::time::Duration;

use autobuild::bmc::Trust;
use autobuild::emulator::{Fleet, Listeners, serve};
use e2e::ipmi_sim::IpmiSim;
use e2e::paths;
use e2e::process::Lifetime;
use e2e::sushy::{SLOWEST_CHANGE, Sushy, Transport};
use tokio_util::sync::CancellationToken;

use self::suite::{Machines, Subject};

#[tokio::test(flavor = "multi_thread")]
async fn our_emulator_is_a_bmc_as_we_understand_it() {
    let any = Some("127.0.0.1:0".parse().unwrap());
    let fleet = Fleet::builder()
        .systems(3)
        .credentials("admin", "pass:word")
        .delays(Duration::from_millis(300), Duration::from_millis(200))
        .build()
        .unwrap();
    let listeners = Listeners { http: any, https: any, ..Listeners::default() };
    let bound = serve(fleet, listeners, CancellationToken::new()).await.unwrap();
    let https = format!("redfish+https://{}", bound.https.unwrap());
    for (host, trust) in [
        (https, Trust::Ca(bound.ca_pem.clone().into_bytes())),
        (format!("redfish+http://{}", bound.http.unwrap()), Trust::System),
    ] {
        let machines = Machines::Systems(["system-0001", "system-0002"].map(str::to_owned));
        let login = ("admin".to_owned(), "pass:word".to_owned());
        suite::run(&Subject { host, machines, login, trust, change: Duration::from_secs(5) }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sushy_emulator_is_a_bmc_as_we_understand_it() {
    let dir = paths::private("sushy").unwrap();
    let sushy =
        Sushy::start(&dir, 3, ("admin", "pass:word"), Transport::Https, Lifetime::WithParent).await.unwrap();
    let ca = std::fs::read(sushy.authority().unwrap()).unwrap();
    let systems = [sushy.systems()[0].clone(), sushy.systems()[1].clone()];
    suite::run(&Subject {
        host: format!("redfish+https://{}", sushy.address()),
        machines: Machines::Systems(systems),
        login: ("admin".to_owned(), "pass:word".to_owned()),
        trust: Trust::Ca(ca),
        change: SLOWEST_CHANGE,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ipmi_sim_is_a_bmc_as_we_understand_it() {
    let dir = paths::private("ipmi").unwrap();
    let sim = IpmiSim::start(&dir, ("admin", "pass:word"), Lifetime::WithParent).await.unwrap();
    suite::run(&Subject {
        host: sim.bmc_address(),
        machines: Machines::One,
        login: ("admin".to_owned(), "pass:word".to_owned()),
        trust: Trust::System,
        change: Duration::from_secs(5),
    })
    .await;
}
