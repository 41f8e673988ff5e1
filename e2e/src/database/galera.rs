//! A Galera cluster of MariaDB. Each node has a loopback address of its own, so that its ports are those that everybody knows.

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context as _, Result, ensure};

use super::cluster::{NODES, ask, insist, until};
use super::server::{Contents, Seat};
use super::{Durability, Engine, Server, Special};
use crate::packages::{GALERA, POPT, RSYNC, WSREP_SCRIPTS};
use crate::paths;
use crate::process::Lifetime;

const CLIENTS: u16 = 3306;
const REPLICATION: u16 = 4567;
const INCREMENTS: u16 = 4568;
const COPIES: u16 = 4444;

/// Makes a cluster rather than joining one.
const NEW: &str = "--wsrep-new-cluster";

/// The scripts that copy everything to a node that joins.
const SCRIPTS: [&str; 2] = ["wsrep_sst_rsync", "wsrep_sst_common"];

const STATE: &str = "SELECT VARIABLE_VALUE FROM information_schema.global_status WHERE VARIABLE_NAME = 'wsrep_local_state_comment'";

pub(super) const ALL_ARE_THERE: &str = "SELECT CAST(VARIABLE_VALUE = 3 AS CHAR) FROM information_schema.global_status \
    WHERE VARIABLE_NAME = 'wsrep_cluster_size'";

pub(super) async fn start() -> Result<Vec<Server>> {
    let dir = paths::private("galera")?;
    let addresses = addresses();
    let joiner = Seat { makes_users: false, ..Seat::free()? };
    let environment = environment(&dir)?;
    let library = library()?;
    let all: Vec<String> = addresses.iter().map(|address| format!("{address}:{REPLICATION}")).collect();
    let mut nodes = Vec::with_capacity(NODES);
    for (number, address) in addresses.into_iter().enumerate() {
        let dir = dir.join(format!("node-{number}"));
        if number == 0 {
            // Its users are made while it is alone: the others get them with everything else.
            let alone = Seat { makes_users: true, ..joiner.clone() };
            let server = launch(&dir, Special::default(), alone).await?;
            server.wait_ready().await?;
            server.process().stop(std::time::Duration::from_mins(1)).await?;
        } else {
            std::fs::create_dir_all(dir.join("data"))?;
        }
        let mut args: Vec<String> = [
            "--binlog-format=ROW",
            "--innodb-autoinc-lock-mode=2",
            "--wsrep-on=ON",
            "--wsrep-sst-method=rsync",
            "--wsrep-sst-donor-rejects-queries=OFF",
        ]
        .map(str::to_owned)
        .to_vec();
        args.extend([
            format!("--server-id={}", number + 1),
            format!("--wsrep-provider={}", library.display()),
            format!("--wsrep-cluster-address=gcomm://{}", all.join(",")),
            format!("--wsrep-node-name=n{}", number + 1),
            format!("--wsrep-node-address={address}:{REPLICATION}"),
            format!("--wsrep-sst-receive-address={address}:{COPIES}"),
            format!(
                "--wsrep-provider-options=base_host={address};base_port={REPLICATION};gmcast.listen_addr=tcp://{address}:{REPLICATION};\
                 ist.recv_addr={address}:{INCREMENTS};gcache.size=128M"
            ),
        ]);
        let seat = Seat { address: (address, CLIENTS).into(), ..joiner.clone() };
        let special = |more: &[&str]| Special {
            args: args.iter().cloned().chain(more.iter().map(|one| (*one).to_owned())).collect(),
            env: environment.clone(),
        };
        if number == 0 {
            // Only the very first start of a cluster makes it.
            let mut server = launch(&dir, special(&[NEW]), seat).await?;
            joined(&server).await?;
            server.only_first(NEW);
            nodes.push(server);
        } else {
            let server = launch(&dir, special(&[]), seat).await?;
            joined(&server).await?;
            nodes.push(server);
        }
    }
    Ok(nodes)
}

async fn launch(dir: &Path, special: Special, seat: Seat) -> Result<Server> {
    Server::launch(dir, Engine::MariaDb, Durability::Relaxed, Lifetime::WithParent, special, seat).await
}

/// Makes the cluster with this node alone, as a person does it who takes it for the newest.
pub(super) async fn begin_again(server: &mut Server) -> Result<()> {
    let state = server.data().join("grastate.dat");
    let text = std::fs::read_to_string(&state).with_context(|| format!("read {}", state.display()))?;
    std::fs::write(&state, text.replace("safe_to_bootstrap: 0", "safe_to_bootstrap: 1"))?;
    server.start_again_with(NEW)?;
    joined(server).await
}

/// Has a node that lost everything come back: it gets all from another one.
pub(super) async fn join_empty(server: &mut Server) -> Result<()> {
    server.start_empty(Contents::Nothing).await?;
    joined(server).await
}

/// Makes the cluster of one node that is left, where the majority is gone for good.
pub(super) async fn force(server: &Server) -> Result<()> {
    insist(server, "to be forced", &["SET GLOBAL wsrep_provider_options = 'pc.bootstrap=YES'"]).await?;
    joined(server).await
}

/// Waits until a node has everything.
pub(super) async fn joined(server: &Server) -> Result<()> {
    until(server, "to join its cluster", STATE, "Synced").await
}

pub(super) async fn is_synced(server: &Server) -> Result<bool> {
    Ok(ask(server, STATE).await?.is_some_and(|state| state == "Synced"))
}

/// Loopback addresses that no other cluster of this machine has.
fn addresses() -> Vec<Ipv4Addr> {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    let cluster = NEXT.fetch_add(1, Ordering::Relaxed);
    let [.., third, second] = std::process::id().to_be_bytes();
    (1..=NODES as u8).map(|node| Ipv4Addr::new(127, 64 | (third & 63), second, cluster * 8 + node)).collect()
}

fn library() -> Result<PathBuf> {
    let library = GALERA.find()?.root.join("usr/lib/galera/libgalera_smm.so");
    ensure!(library.is_file(), "{} is missing in the package galera-4", library.display());
    Ok(library)
}

/// Where a node finds the scripts and what they run. As root, the files that are copied stay root's.
fn environment(dir: &Path) -> Result<Vec<(String, String)>> {
    let scripts = dir.join("scripts");
    std::fs::create_dir_all(&scripts)?;
    let from = WSREP_SCRIPTS.find()?.root.join("usr/bin");
    for name in SCRIPTS {
        let text = std::fs::read_to_string(from.join(name)).with_context(|| format!("read {name}"))?;
        let file = scripts.join(name);
        let owner = if rustix::process::geteuid().is_root() { "\nuid = root\ngid = root\n" } else { "\n" };
        std::fs::write(&file, text.replace("\nread only = no\n", &format!("\nread only = no{owner}")))?;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755))?;
    }
    let rsync = RSYNC.find()?.root.join("usr/bin");
    let path = std::env::var("PATH").unwrap_or_default();
    let popt = POPT.find()?.root.join("usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH));
    Ok(vec![
        ("PATH".to_owned(), format!("{}:{}:{path}:/usr/sbin:/sbin", scripts.display(), rsync.display())),
        ("LD_LIBRARY_PATH".to_owned(), popt.display().to_string()),
    ])
}
