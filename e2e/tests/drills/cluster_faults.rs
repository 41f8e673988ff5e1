//! Everything together on a database of three: its writer dies, hangs, is switched, and loses its majority, while reboots are
//! asked for. The books are those of the BMCs: nothing that was asked for is done twice, and no machine is left off.

use std::time::Instant;

use e2e::autobuild::Running;
use e2e::database::{Cluster, Engine};
use e2e::fleet::{Fleet, LIMIT, Layout, Proxy};
use e2e::wait::{Look, say, wait_for, wait_until};
use rstest::rstest;
use serde_json::json;

const SYSTEMS: usize = 6;

/// What happens to the node that is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Dies,
    Hangs,
    /// Nobody cuts who is connected.
    Switched,
    /// The same, and who is connected is cut off.
    SwitchedAndCut,
    /// The others hang.
    LosesMajority,
}

const FAULTS: [Fault; 5] =
    [Fault::Dies, Fault::Switched, Fault::LosesMajority, Fault::SwitchedAndCut, Fault::Hangs];

struct Site {
    cluster: Cluster,
    proxy: Proxy,
    fleet: Fleet,
    writer: usize,
}

impl Site {
    async fn start(engine: Engine) -> Self {
        let cluster = Cluster::start(engine).await.unwrap();
        cluster.run(0, &["CREATE DATABASE fleet"]).await.unwrap();
        let proxy = Proxy::start(cluster.address(0)).await.unwrap();
        let url = cluster.url_at(proxy.address(), "fleet").unwrap();
        let systems = u32::try_from(SYSTEMS).unwrap();
        let layout = Layout::new(systems).emulator(&["--initial-power", "on"]).database(&url);
        Self { cluster, proxy, fleet: Fleet::with(layout).await.unwrap(), writer: 0 }
    }

    fn lead_to(&mut self, node: usize) {
        self.writer = node;
        self.proxy.lead_to(self.cluster.address(node));
    }

    /// Leads to whoever takes writes, as a router does it.
    async fn follow(&mut self, except: usize) {
        let cluster = &self.cluster;
        let node = wait_for("another node to take writes", LIMIT, async || {
            Ok(Look::Holds(cluster.writer(&[except]).await?))
        })
        .await
        .unwrap();
        self.lead_to(node);
        self.proxy.cut_open();
    }

    async fn suffer(&mut self, fault: Fault, worker: &Running) {
        let before = self.writer;
        let next = (before + 1) % 3;
        match fault {
            Fault::Dies => {
                self.cluster.kill(before).await.unwrap();
                self.follow(before).await;
                self.cluster.rejoin(before).await.unwrap();
            }
            Fault::Hangs => {
                self.cluster.freeze(before).unwrap();
                self.cluster.until_missed(next).await.unwrap();
                self.follow(before).await;
                self.cluster.thaw(before).unwrap();
                self.cluster.come_back(before).await.unwrap();
            }
            Fault::Switched | Fault::SwitchedAndCut => {
                self.cluster.switch(next).await.unwrap();
                self.lead_to(next);
                if fault == Fault::SwitchedAndCut {
                    self.proxy.cut_open();
                }
            }
            Fault::LosesMajority => {
                let others = [next, (before + 2) % 3];
                for node in others {
                    self.cluster.freeze(node).unwrap();
                }
                self.cluster.until_missed(before).await.unwrap();
                wait_for("the lost majority to be told", LIMIT, async || {
                    let (_, said) = worker.get("/readyz").await?;
                    Ok(if said.contains("lost its majority") { Look::Holds(()) } else { Look::NotYet(said) })
                })
                .await
                .unwrap();
                for node in others {
                    self.cluster.thaw(node).unwrap();
                }
                for node in others {
                    self.cluster.come_back(node).await.unwrap();
                }
                let cluster = &self.cluster;
                wait_until("the majority to be back", LIMIT, async || Ok(cluster.writer(&[]).await.is_ok()))
                    .await
                    .unwrap();
                self.follow(3).await;
            }
        }
    }

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
    let mut site = Site::start(engine).await;
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
        site.suffer(fault, &workers[0]).await;
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
