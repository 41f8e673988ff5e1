//! `spec.bmc` set to something else: what was read belongs to where it was read from.

use autobuild::api::condition::ConditionType;
use autobuild::api::{Reason, Server};
use e2e::fleet::{Fleet, LIMIT, Layout, is_ready, message};
use e2e::wait::{Look, wait_for, wait_until};
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::steps::{kubectl_apply, system};

fn address(fleet: &Fleet, system: &str) -> String {
    format!("redfish+https://{}/redfish/v1/Systems/{system}", fleet.bmcs().https_of(system))
}

fn at(fleet: &Fleet, system: &str) -> Value {
    json!({ "bmc": { "address": address(fleet, system) } })
}

/// Whether any version of a Server in that generation or a later one was Ready.
fn was_ready_since(fleet: &Fleet, name: &str, generation: i64) -> bool {
    let shown = fleet.shown().so_far();
    let mut since = shown.iter().filter(|server| {
        server.name_any() == name && server.metadata.generation.is_some_and(|now| now >= generation)
    });
    since.any(is_ready)
}

async fn ready(fleet: &Fleet, names: &[&String]) {
    for name in names {
        fleet.declare(name, json!({})).await.unwrap();
    }
    for name in names {
        fleet.wait_ready(name).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_address_is_another_machines_is_never_ready_by_what_was_read_before() {
    let fleet = Fleet::with(Layout::new(2).emulator(&["--initial-power", "on"])).await.unwrap();
    let _controller = fleet
        .controller_with("controller", &fleet.controller_flags().set("--inspect-period", "1h"), &[])
        .await
        .unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    let (name, other) = (system(1), system(2));
    ready(&fleet, &[&name]).await;
    // Nobody answers there.
    let changed =
        fleet.change(&name, json!({ "bmc": { "address": "redfish+https://127.0.0.1:1" } })).await.unwrap();
    let generation = changed.metadata.generation.unwrap();
    let unknown = |server: &Server| {
        message(server, ConditionType::Reachable, Reason::Unreachable).is_some() && !is_ready(server)
    };
    fleet.wait(&name, "not reached", unknown).await.unwrap();
    // Another machine answers there.
    fleet.change(&name, at(&fleet, &other)).await.unwrap();
    let why = fleet.wait_reason(&name, ConditionType::Stalled, Reason::IdentityMismatch).await.unwrap();
    assert!(why.contains("a Server stays with its machine"), "{why}");
    assert!(!was_ready_since(&fleet, &name, generation), "it read Ready by the machine before");
    assert!(fleet.bmcs().changes(&other).await.unwrap().is_empty());
    // Back, by its machine's own word at once, although the next look of its period is an hour away.
    fleet.change(&name, at(&fleet, &name)).await.unwrap();
    fleet.wait_ready(&name).await.unwrap();
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_login_is_tried_at_once_and_nothing_is_ready_before() {
    let fleet = Fleet::start(1).await.unwrap();
    let flags = fleet.controller_flags().set("--inspect-period", "1h");
    let _controller = fleet.controller_with("controller", &flags, &[]).await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    let name = system(1);
    ready(&fleet, &[&name]).await;
    fleet.secret("wrong", &[("username", fleet.username()), ("password", "no")]).await.unwrap();
    fleet.secret("right", &[("username", fleet.username()), ("password", fleet.password())]).await.unwrap();
    let named = |secret: &str| json!({ "bmc": { "credentialsRef": { "name": secret } } });
    let generation = fleet.change(&name, named("wrong")).await.unwrap().metadata.generation.unwrap();
    fleet.wait_reason(&name, ConditionType::Reachable, Reason::CredentialsInvalid).await.unwrap();
    assert!(!was_ready_since(&fleet, &name, generation), "it read Ready by the login before");
    fleet.change(&name, named("right")).await.unwrap();
    fleet.wait_ready(&name).await.unwrap();
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_older_release_read_is_one_of_the_claimed_address_and_nothing_is_looked_at_for_it() {
    let fleet = Fleet::start(1).await.unwrap();
    let flags = fleet.controller_flags().set("--inspect-period", "1h");
    let controller = fleet.controller_with("controller", &flags, &[]).await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    let name = system(1);
    ready(&fleet, &[&name]).await;
    drop(controller);
    sqlx::query("UPDATE server_state SET read_through = NULL").execute(fleet.records().pool()).await.unwrap();
    let before = fleet.get(&name).await.unwrap().metadata.resource_version;
    let _controller = fleet.controller_with("controller-2", &flags, &[]).await.unwrap();
    // Decided on after the restart, and Ready all the time.
    fleet.change(&name, json!({ "priority": "High" })).await.unwrap();
    fleet.wait_ready(&name).await.unwrap();
    assert_ne!(fleet.get(&name).await.unwrap().metadata.resource_version, before);
    let unread = "SELECT COUNT(*) FROM server_state WHERE read_through IS NULL";
    assert_eq!(fleet.records().number(unread).await.unwrap(), 1, "nobody looked");
    // From then on another address is another one.
    let moved = json!({ "bmc": { "address": "redfish+https://127.0.0.1:1" } });
    let generation = fleet.change(&name, moved).await.unwrap().metadata.generation.unwrap();
    fleet.wait_reason(&name, ConditionType::Reachable, Reason::Unreachable).await.unwrap();
    assert!(!was_ready_since(&fleet, &name, generation));
    fleet.end().await.unwrap();
}

/// The manifests of a ring: each Server has the address of the one after it.
fn ring(fleet: &Fleet, names: &[String]) -> Value {
    let next = names.iter().cycle().skip(1);
    let items: Vec<Value> =
        names.iter().zip(next).map(|(name, next)| fleet.manifest_with(name, &at(fleet, next))).collect();
    json!({ "apiVersion": "v1", "kind": "List", "items": items })
}

async fn all_mismatched(fleet: &Fleet, names: &[String]) {
    for name in names {
        let why = fleet.wait_reason(name, ConditionType::Stalled, Reason::IdentityMismatch).await.unwrap();
        assert!(why.contains("a Server stays with its machine"), "{why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_take_each_others_addresses_are_told_that_a_server_stays_with_its_machine() {
    let fleet = Fleet::with(Layout::new(3).emulator(&["--initial-power", "on"])).await.unwrap();
    // The look of its period comes to nobody's help.
    let flags = fleet.controller_flags().set("--inspect-period", "1h");
    let _controller = fleet.controller_with("controller", &flags, &[]).await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    let names: Vec<String> = (1..=3).map(system).collect();
    ready(&fleet, &names.iter().collect::<Vec<_>>()).await;
    // Two of them, then all three.
    for count in [2, 3] {
        kubectl_apply(&fleet, &ring(&fleet, &names[..count])).await.unwrap();
        all_mismatched(&fleet, &names[..count]).await;
        for name in &names[..count] {
            fleet.declare(name, at(&fleet, name)).await.unwrap();
        }
        for name in &names {
            fleet.wait_ready(name).await.unwrap();
        }
    }
    // Taken back before anybody could look: what was read before is no proof.
    let last_read = async |name: &String| -> i64 {
        let query = "SELECT last_good_read_ms FROM server_state WHERE name = ?";
        sqlx::query_scalar(query).bind(name).fetch_one(fleet.records().pool()).await.unwrap()
    };
    let claim = async |name: &String| -> Option<String> {
        let query = "SELECT claimed_address FROM server_state WHERE name = ?";
        sqlx::query_scalar(query).bind(name).fetch_one(fleet.records().pool()).await.unwrap()
    };
    let (mut before, mut claimed) = (Vec::new(), Vec::new());
    for name in &names {
        before.push(last_read(name).await);
        claimed.push(claim(name).await);
    }
    kubectl_apply(&fleet, &ring(&fleet, &names)).await.unwrap();
    // Where spec is taken back before the claims moved, what was read before holds.
    for (name, claimed) in names.iter().zip(claimed) {
        wait_until("its claim to move", LIMIT, async || Ok(claim(name).await != claimed)).await.unwrap();
    }
    for name in &names {
        fleet.declare(name, at(&fleet, name)).await.unwrap();
    }
    for (name, before) in names.iter().zip(before) {
        fleet.wait_ready(name).await.unwrap();
        assert_ne!(last_read(name).await, before, "{name} is Ready by what was read before");
    }
    for name in &names {
        assert!(fleet.bmcs().changes(name).await.unwrap().is_empty(), "{name}");
    }
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_that_got_each_others_addresses_are_found_there_when_their_servers_say_so() {
    let fleet = Fleet::with(Layout::new(2).emulator(&["--initial-power", "on"])).await.unwrap();
    let _controller = fleet.controller("controller").await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    let names: Vec<String> = (1..=2).map(system).collect();
    ready(&fleet, &names.iter().collect::<Vec<_>>()).await;
    let mut identities = Vec::new();
    for name in &names {
        identities.push(fleet.get(name).await.unwrap().status.unwrap().bmc_identity.unwrap());
    }
    // The addresses were given anew: at each of them answers the other machine.
    for (name, identity) in names.iter().zip(identities.iter().rev()) {
        let (serial, uuid) = (identity.serial_number.as_deref().unwrap(), identity.uuid.as_deref().unwrap());
        fleet.bmcs().set_identity(name, serial, uuid).await.unwrap();
    }
    all_mismatched(&fleet, &names).await;
    kubectl_apply(&fleet, &ring(&fleet, &names)).await.unwrap();
    for (name, identity) in names.iter().zip(&identities) {
        let server = fleet.wait_ready(name).await.unwrap();
        assert_eq!(server.status.unwrap().bmc_identity.as_ref(), Some(identity));
    }
    // Nothing of the addresses before is held any more.
    wait_for("two claims by text", LIMIT, async || {
        let claimed =
            fleet.records().number("SELECT COUNT(*) FROM bmc_claim WHERE host LIKE 'name:%'").await?;
        Ok(if claimed == 2 { Look::Holds(()) } else { Look::NotYet(claimed.to_string()) })
    })
    .await
    .unwrap();
    fleet.end().await.unwrap();
}
