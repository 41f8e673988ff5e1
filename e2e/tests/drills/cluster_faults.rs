//! Everything together on a database of three: its writer dies, hangs, is switched, and loses its majority, while reboots are
//! asked for. The books are those of the BMCs: nothing that was asked for is done twice, and no machine is left off.

use std::time::Instant;

use e2e::database::Engine;
use e2e::fleet::LIMIT;
use e2e::wait::{say, wait_until};
use rstest::rstest;
use serde_json::json;

use crate::cluster_site::{Fault, Site};

const SYSTEMS: usize = 6;

const FAULTS: [Fault; 5] =
    [Fault::Dies, Fault::Switched, Fault::LosesMajority, Fault::SwitchedAndCut, Fault::Hangs];

impl Site {
    async fn ask(&self, token: &str) {
        for number in 1..=SYSTEMS {
            self.fleet.change(&system(number), json!({ "rebootToken": token })).await.unwrap();
        }
    }

    /// Waits until each Server has the token as handled, and nothing is left to do.
    async fn handled(&self, token: &str) {
        for number in 1..=SYSTEMS {
            self.fleet
                .wait(&system(number), &format!("handled {token}"), |server| {
                    let status = server.status.as_ref();
                    let handled =
                        status.is_some_and(|status| status.reboot_tokens.iter().any(|one| one == token));
                    handled && status.is_some_and(|status| status.job.is_none())
                })
                .await
                .unwrap();
        }
    }
}

fn system(number: usize) -> String {
    format!("system-{number:04}")
}

#[rstest]
#[case::group(Engine::MySql)]
#[case::galera(Engine::MariaDb)]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a cluster of three servers: make soak"]
async fn whatever_happens_to_the_writer_of_a_cluster_each_reboot_is_done_once(#[case] engine: Engine) {
    let mut site = Site::start(engine, SYSTEMS, &[]).await.unwrap();
    let _controller = site.fleet.controller("controller").await.unwrap();
    let workers = [site.fleet.worker("one").await.unwrap(), site.fleet.worker("two").await.unwrap()];
    for number in 1..=SYSTEMS {
        site.fleet.declare(&system(number), json!({})).await.unwrap();
    }
    for number in 1..=SYSTEMS {
        site.fleet.wait_ready(&system(number)).await.unwrap();
    }
    let histories = "SELECT value FROM fleet.meta WHERE name = 'histories'";
    let before = site.cluster.ask(0, histories).await.unwrap();
    for (round, fault) in FAULTS.into_iter().enumerate() {
        let token = format!("t{round}");
        site.ask(&token).await;
        let begun = Instant::now();
        site.suffer(fault, &workers[0]).await.unwrap();
        let over = begun.elapsed();
        site.handled(&token).await;
        say(format!(
            "{fault:?}: over after {} s, {SYSTEMS} reboots handled after {} s",
            over.as_secs(),
            begun.elapsed().as_secs()
        ));
    }
    let (mut asked, mut done) = (0, 0);
    for number in 1..=SYSTEMS {
        let name = system(number);
        let resets = site.fleet.bmcs().resets(&name).await.unwrap();
        let offs = resets.iter().filter(|one| *one == "off").count();
        assert!(offs <= FAULTS.len(), "{name}: {resets:?}");
        wait_until("the machine to be on", LIMIT, async || {
            Ok(site.fleet.bmcs().power(&name).await?.eq_ignore_ascii_case("on"))
        })
        .await
        .unwrap();
        (asked, done) = (asked + FAULTS.len(), done + offs);
    }
    say(format!("{asked} reboots asked for, {done} done"));
    if engine == Engine::MariaDb {
        // No node has lost anything, and a switch is no other history.
        assert_eq!(done, asked);
        assert_eq!(site.cluster.ask(site.writer, histories).await.unwrap(), before);
    }
    site.fleet.end().await.unwrap();
}
