//! A group of MySQL's Group Replication with one primary.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context as _, Result};

use super::cluster::{JOINED, NODES, ask, insist, run, until};
use super::server::{Contents, Seat};
use super::{Durability, Engine, Server, Special};
use crate::paths;
use crate::process::Lifetime;
use crate::wait::{Look, wait_for};

/// Ports of members among themselves: below those that connections are given, of which one may be taken at any time.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

const STATE: &str = "SELECT CONCAT(MEMBER_STATE, ' ', MEMBER_ROLE) FROM performance_schema.replication_group_members \
    WHERE MEMBER_ID = @@server_uuid";

pub(super) const ALL_ARE_THERE: &str = "SELECT CAST(SUM(MEMBER_STATE = 'ONLINE') = 3 AS CHAR) \
    FROM performance_schema.replication_group_members";

pub(super) async fn start() -> Result<Vec<Server>> {
    let dir = paths::private("group")?;
    let name = uuid::Uuid::new_v4().to_string();
    let users = Seat::free()?.password;
    let members: Vec<String> = free_ports().into_iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let mut nodes = Vec::with_capacity(NODES);
    for (number, member) in members.iter().enumerate() {
        let seat = Seat { password: users.clone(), ..Seat::free()? };
        let args = [
            "--gtid-mode=ON".to_owned(),
            "--enforce-gtid-consistency=ON".to_owned(),
            "--log-bin=binlog".to_owned(),
            "--sync-binlog=0".to_owned(),
            "--innodb-buffer-pool-size=64M".to_owned(),
            format!("--server-id={}", number + 1),
            "--report-host=127.0.0.1".to_owned(),
            format!("--report-port={}", seat.address.port()),
            "--plugin-load-add=group_replication.so".to_owned(),
            format!("--group-replication-group-name={name}"),
            "--group-replication-start-on-boot=OFF".to_owned(),
            format!("--group-replication-local-address={member}"),
            format!("--group-replication-group-seeds={}", members.join(",")),
            "--group-replication-recovery-get-public-key=ON".to_owned(),
        ];
        let special = Special { args: args.to_vec(), env: Vec::new() };
        let dir = dir.join(format!("node-{number}"));
        nodes.push(
            Server::launch(&dir, Engine::MySql, Durability::Relaxed, Lifetime::WithParent, special, seat)
                .await?,
        );
    }
    for (number, node) in nodes.iter().enumerate() {
        node.wait_ready().await?;
        introduce(node, &users).await?;
        if number == 0 {
            begin(node).await?;
        } else {
            join(node).await?;
        }
    }
    Ok(nodes)
}

/// Makes the user by which members copy from each other. Each makes it itself, and sends it to nobody.
async fn introduce(node: &Server, password: &str) -> Result<()> {
    run(
        node,
        &[
            "SET SESSION sql_log_bin = 0",
            &format!("CREATE USER 'member'@'%' IDENTIFIED BY '{password}'"),
            "GRANT REPLICATION SLAVE, BACKUP_ADMIN, GROUP_REPLICATION_STREAM, CONNECTION_ADMIN ON *.* TO 'member'@'%'",
            "SET SESSION sql_log_bin = 1",
            &format!(
                "CHANGE REPLICATION SOURCE TO SOURCE_USER = 'member', SOURCE_PASSWORD = '{password}' \
                 FOR CHANNEL 'group_replication_recovery'"
            ),
        ],
    )
    .await
}

/// Has a member that lost everything enter the group again: it gets all from another one.
pub(super) async fn join_empty(node: &mut Server) -> Result<()> {
    node.start_empty(Contents::Template).await?;
    node.wait_ready().await?;
    introduce(node, &node.password()).await?;
    join(node).await
}

/// Makes the group of one member that is left, where the majority is gone for good.
pub(super) async fn force(node: &Server) -> Result<()> {
    let own =
        ask(node, "SELECT @@group_replication_local_address").await?.context("a member without address")?;
    let force = format!("SET GLOBAL group_replication_force_members = '{own}'");
    insist(node, "to be forced", &[&force, "SET GLOBAL group_replication_force_members = ''"]).await?;
    until(node, "to be the primary", STATE, "ONLINE PRIMARY").await
}

/// Makes the group with this member alone.
pub(super) async fn begin(node: &Server) -> Result<()> {
    node.wait_ready().await?;
    run(
        node,
        &[
            "SET GLOBAL group_replication_bootstrap_group = ON",
            "START GROUP_REPLICATION",
            "SET GLOBAL group_replication_bootstrap_group = OFF",
        ],
    )
    .await?;
    until(node, "to be the primary", STATE, "ONLINE PRIMARY").await
}

/// Has a member that runs enter the group, and waits until it has everything.
pub(super) async fn join(node: &Server) -> Result<()> {
    node.wait_ready().await?;
    insist(node, "to start in its group", &["START GROUP_REPLICATION"]).await?;
    until(node, "to join its group", STATE, "ONLINE SECONDARY").await
}

/// Waits until a member that runs is one again; one that was expelled is started anew.
pub(super) async fn come_back(node: &Server) -> Result<()> {
    wait_for(&format!("{} to come back to its group", node.address()), JOINED, async || {
        let state = ask(node, STATE).await?.unwrap_or_default();
        if state.starts_with("ONLINE") {
            run(node, &["SET GLOBAL offline_mode = OFF"]).await?;
            return Ok(Look::Holds(()));
        }
        if state.trim_end() == "ERROR" || state.trim_end() == "OFFLINE" {
            run(node, &["STOP GROUP_REPLICATION", "START GROUP_REPLICATION"]).await?;
        }
        Ok(Look::NotYet(state))
    })
    .await
}

pub(super) async fn is_primary(node: &Server) -> Result<bool> {
    Ok(ask(node, STATE).await?.is_some_and(|state| state == "ONLINE PRIMARY"))
}

/// Has the group make this member its primary.
pub(super) async fn set_primary(node: &Server) -> Result<()> {
    let own = ask(node, "SELECT @@server_uuid").await?.context("a member has no server_uuid")?;
    let set = format!("SELECT group_replication_set_as_primary('{own}')");
    insist(node, "to be made primary", &[&set]).await?;
    until(node, "to be the primary", STATE, "ONLINE PRIMARY").await
}

fn free_ports() -> Vec<u16> {
    let mut found = Vec::with_capacity(NODES);
    while found.len() < NODES {
        let port = rand::random_range(PORTS);
        let is_free = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if is_free && !found.contains(&port) {
            found.push(port);
        }
    }
    found
}
