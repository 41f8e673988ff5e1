//! A fleet on a database of three behind one address, and what can happen to that.

use std::sync::Arc;

use anyhow::Result;
use e2e::autobuild::Running;
use e2e::database::{Cluster, Engine, NODES};
use e2e::fleet::{Fleet, LIMIT, Layout, Proxy};
use e2e::wait::{Look, wait_for, wait_until};

/// What happens to the cluster, and first of all to the node that is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Dies,
    Hangs,
    /// Nobody cuts who is connected.
    Switched,
    /// The same, and who is connected is cut off.
    SwitchedAndCut,
    /// To a node that has to apply much first.
    SwitchedToOneThatLags,
    /// The others hang.
    LosesMajority,
    /// The others die, and the one that is left is made the cluster.
    LeftAlone,
    /// It dies with another one, and the third is made the cluster.
    Replaced,
    /// Each node is stopped and started again, one after the other.
    RollingRestart,
    /// A node that lost everything gets it from the others, while a schema is migrated.
    JoinsDuringMigration,
}

impl Fault {
    pub const ALL: [Self; 10] = [
        Self::Dies,
        Self::Hangs,
        Self::Switched,
        Self::SwitchedAndCut,
        Self::SwitchedToOneThatLags,
        Self::LosesMajority,
        Self::LeftAlone,
        Self::Replaced,
        Self::RollingRestart,
        Self::JoinsDuringMigration,
    ];
}

pub struct Site {
    pub cluster: Cluster,
    pub proxy: Proxy,
    pub fleet: Arc<Fleet>,
    pub writer: usize,
    migrated: usize,
}

impl Site {
    /// `emulator`: more of its arguments.
    pub async fn start(engine: Engine, systems: usize, emulator: &[&str]) -> Result<Self> {
        let cluster = Cluster::start(engine).await?;
        cluster.run(0, &["CREATE DATABASE fleet", "CREATE DATABASE bulk"]).await?;
        let proxy = Proxy::start(cluster.address(0)).await?;
        let url = cluster.url_at(proxy.address(), "fleet")?;
        let layout = Layout::new(u32::try_from(systems)?).emulator(&["--initial-power", "on"]);
        let fleet = Arc::new(Fleet::with(layout.emulator(emulator).database(&url)).await?);
        Ok(Self { cluster, proxy, fleet, writer: 0, migrated: 0 })
    }

    fn lead_to(&mut self, node: usize) {
        self.writer = node;
        self.proxy.lead_to(self.cluster.address(node));
    }

    /// Leads to whoever takes writes, as a router does it.
    async fn follow(&mut self, except: &[usize]) -> Result<()> {
        let cluster = &self.cluster;
        let node = wait_for("another node to take writes", LIMIT, async || {
            Ok(Look::Holds(cluster.writer(except).await?))
        })
        .await?;
        self.lead_to(node);
        self.proxy.cut_open();
        Ok(())
    }

    /// `worker`: one whose `/readyz` has to say what it waits for.
    pub async fn suffer(&mut self, fault: Fault, worker: &Running) -> Result<()> {
        let before = self.writer;
        let [next, last] = [(before + 1) % NODES, (before + 2) % NODES];
        match fault {
            Fault::Dies => {
                self.cluster.kill(before).await?;
                self.follow(&[before]).await?;
                self.cluster.rejoin(before).await
            }
            Fault::Hangs => {
                self.cluster.freeze(before)?;
                self.cluster.until_missed(next).await?;
                self.follow(&[before]).await?;
                self.cluster.thaw(before)?;
                self.cluster.come_back(before).await
            }
            Fault::Switched => self.switch(next).await,
            Fault::SwitchedAndCut => {
                self.switch(next).await?;
                self.proxy.cut_open();
                Ok(())
            }
            Fault::SwitchedToOneThatLags => {
                self.cluster.outrun(before).await?;
                self.switch(next).await?;
                self.proxy.cut_open();
                Ok(())
            }
            Fault::LosesMajority => self.lose_majority(worker, before, [next, last]).await,
            Fault::LeftAlone => self.force(before, [next, last]).await,
            Fault::Replaced => self.force(next, [before, last]).await,
            Fault::RollingRestart => {
                for node in [next, last, before] {
                    self.cluster.stop(node).await?;
                    if node == self.writer {
                        self.follow(&[node]).await?;
                    }
                    self.cluster.rejoin(node).await?;
                }
                Ok(())
            }
            Fault::JoinsDuringMigration => self.join_during_migration(last).await,
        }
    }

    async fn switch(&mut self, to: usize) -> Result<()> {
        self.cluster.switch(to).await?;
        self.lead_to(to);
        Ok(())
    }

    async fn lose_majority(&mut self, worker: &Running, before: usize, others: [usize; 2]) -> Result<()> {
        for node in others {
            self.cluster.freeze(node)?;
        }
        self.cluster.until_missed(before).await?;
        wait_for("the lost majority to be told", LIMIT, async || {
            let (_, said) = worker.get("/readyz").await?;
            Ok(if said.contains("lost its majority") { Look::Holds(()) } else { Look::NotYet(said) })
        })
        .await?;
        for node in others {
            self.cluster.thaw(node)?;
        }
        for node in others {
            self.cluster.come_back(node).await?;
        }
        let cluster = &self.cluster;
        wait_until("the majority to be back", LIMIT, async || Ok(cluster.writer(&[]).await.is_ok())).await?;
        self.follow(&[]).await
    }

    /// `left` is the cluster from then on, as a person decides it; the others join it.
    async fn force(&mut self, left: usize, others: [usize; 2]) -> Result<()> {
        for node in others {
            self.cluster.kill(node).await?;
        }
        self.cluster.until_missed(left).await?;
        self.cluster.force(left).await?;
        self.follow(&others).await?;
        for node in others {
            self.cluster.rejoin(node).await?;
        }
        Ok(())
    }

    async fn join_during_migration(&mut self, node: usize) -> Result<()> {
        self.migrated += 1;
        let schema = format!("late_{}", self.migrated);
        self.cluster.run(self.writer, &[&format!("CREATE DATABASE {schema}")]).await?;
        self.cluster.stop(node).await?;
        let url = self.cluster.url_at(self.proxy.address(), &schema)?;
        let migrating = self.fleet.autobuild().migrate(&url);
        let (joined, migrated) = futures::join!(self.cluster.join_empty(node), migrating);
        joined?;
        migrated
    }
}
