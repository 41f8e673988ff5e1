//! What people get wrong about images: files and data that are not what the `OSImage` says, one MAC address twice, and
//! objects that go or change in mid-install.

use anyhow::{Result, ensure};
use autobuild::api::Reason;
use autobuild::api::condition::ConditionType;
use autobuild::job::{Action, JobResult};
use e2e::fleet::{BootFiles, Fleet, LIMIT, Layout, QUICK_INSTALLS};
use e2e::wait::{Look, wait_for};
use serde_json::{Value, json};

use crate::installation::installed;
use crate::steps::{at_rest, ended, fresh_look, kubectl_apply, system};

const PRESEED: &str = "d-i netcfg/get_hostname string {{ name }}\n";
/// Of `PRESEED`.
const PRESEED_SHA256: &str = "46fd9fcd91fffc5c3695c8f373622a04e033653b18877c2e229589a47dcdf7d1";

fn preseed(fleet: &Fleet, data: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": "preseed", "namespace": fleet.namespace() },
        "data": { "all": data },
    })
}

/// Nothing is left to boot, and nothing was written.
async fn untouched(fleet: &Fleet, name: &str) -> Result<()> {
    let told = fleet.bmcs().system(name).await?;
    ensure!(told["boot"]["enabled"] == "Disabled", "{told}");
    ensure!(fleet.installs(name).await? == 0 && fleet.disk(name).await? == "Empty", "{told}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_image_names_and_nobody_can_give_is_told_before_a_disk_is_touched() {
    let fleet = Fleet::with(Layout::new(2).emulator(QUICK_INSTALLS)).await.unwrap();
    let files = BootFiles::serve().await.unwrap();
    let mut wrong = files.source(&[]);
    wrong["initrd"]["sha256"] = json!("0".repeat(64));
    fleet.image_of("wrong-checksum", &wrong).await.unwrap();
    fleet.image("debian-12", &files, &[]).await.unwrap();
    let with_data = json!({
        "apiVersion": "autobuild.dev/v1alpha1",
        "kind": "OSImage",
        "metadata": { "name": "with-data", "namespace": fleet.namespace() },
        "spec": {
            "source": files.source(&[]),
            "install": {
                "format": "preseed",
                "dataRef": { "kind": "ConfigMap", "name": "preseed", "key": "all" },
                "sha256": PRESEED_SHA256,
            },
        },
    });
    kubectl_apply(&fleet, &with_data).await.unwrap();
    kubectl_apply(&fleet, &preseed(&fleet, "changed\n")).await.unwrap();
    let _boot = fleet.boot("boot", &files).await.unwrap();
    let _controller = fleet.controller("controller").await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    let (checksum, data) = (system(1), system(2));
    for (name, image, said) in [
        (
            &checksum,
            "wrong-checksum",
            "spec.source.initrd of the OSImage \"wrong-checksum\": the file has the SHA-256",
        ),
        (&data, "with-data", "make another OSImage for the changed data"),
    ] {
        fleet.declare(name, json!({ "image": { "name": image } })).await.unwrap();
        let why = fleet.wait_reason(name, ConditionType::Stalled, Reason::ImageUnusable).await.unwrap();
        assert!(why.contains(said) && why.contains("its disks were not touched"), "{why}");
        untouched(&fleet, name).await.unwrap();
    }
    fleet.change(&checksum, json!({ "image": { "name": "debian-12" } })).await.unwrap();
    installed(&fleet, &checksum, "debian-12").await.unwrap();
    kubectl_apply(&fleet, &preseed(&fleet, PRESEED)).await.unwrap();
    fleet.change(&data, json!({ "reimageToken": "corrected" })).await.unwrap();
    installed(&fleet, &data, "with-data").await.unwrap();
    fleet.end().await.unwrap();
}

/// A host rule by which its installer never ends.
async fn hang(fleet: &Fleet, name: &str) -> Result<u64> {
    let rule = json!({ "system": name, "count": 1, "behaviour": { "kind": "Hang", "at_percent": 40 } });
    fleet.bmcs().host_rule(rule).await
}

async fn in_mid_install(fleet: &Fleet, name: &str, installs: u64) -> Result<()> {
    wait_for(&format!("installation {installs} of {name} to begin"), LIMIT, async || {
        let begun = fleet.installs(name).await?;
        Ok(if begun == installs { Look::Holds(()) } else { Look::NotYet(format!("{begun} begun")) })
    })
    .await
}

/// The MAC address under which a machine boots.
async fn mac_of(fleet: &Fleet, uid: &str) -> Result<String> {
    let found = sqlx::query_scalar("SELECT mac FROM boot_session WHERE server_uid = ?").bind(uid);
    Ok(found.fetch_one(fleet.records().pool()).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_or_changes_in_mid_install_ends_in_the_last_wish_alone() {
    let fleet = Fleet::with(Layout::new(3).emulator(QUICK_INSTALLS)).await.unwrap();
    let files = BootFiles::serve().await.unwrap();
    for name in ["debian-12", "debian-13"] {
        fleet.image(name, &files, &[&format!("release={name}")]).await.unwrap();
    }
    let _boot = fleet.boot("boot", &files).await.unwrap();
    let _controller = fleet.controller("controller").await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    let kubectl = fleet.kubectl().in_namespace(fleet.namespace());
    let (first, second, third) = (system(1), system(2), system(3));

    // A Server with another machine's MAC address: it is told, and never boots the first one's image.
    let wish = json!({ "image": { "name": "debian-12" } });
    hang(&fleet, &first).await.unwrap();
    let begun = fleet.declare(&first, wish.clone()).await.unwrap();
    in_mid_install(&fleet, &first, 1).await.unwrap();
    let mac = mac_of(&fleet, begun.metadata.uid.as_deref().unwrap_or_default()).await.unwrap();
    fleet
        .declare(&second, json!({ "image": { "name": "debian-12" }, "bootMACAddress": &mac }))
        .await
        .unwrap();
    let why = fleet.wait_reason(&second, ConditionType::Stalled, Reason::BootMACMismatch).await.unwrap();
    assert!(why.contains(&mac), "{why}");
    assert_eq!(fleet.installs(&second).await.unwrap(), 0);
    fleet.change(&second, json!({ "bootMACAddress": null })).await.unwrap();
    installed(&fleet, &second, "debian-12").await.unwrap();

    // Another image under the same name.
    kubectl.run(&["delete", "osimage", "debian-12"]).await.unwrap();
    fleet.image("debian-12", &files, &["release=another"]).await.unwrap();
    installed(&fleet, &first, "debian-12").await.unwrap();
    assert_eq!(fleet.installs(&first).await.unwrap(), 2, "the first, which was stopped, and another");
    // What is installed is not what the name means by now, and nobody asked for the machine that runs to be installed.
    fresh_look(&fleet, &second).await.unwrap();
    assert_eq!(fleet.installs(&second).await.unwrap(), 1);

    // Tokens in quick succession, and back: one installation for the last one that is new.
    for token in ["a", "b", "c"] {
        fleet.change(&first, json!({ "reimageToken": token })).await.unwrap();
    }
    let handled = |server: &autobuild::api::Server| {
        let tokens = server.status.as_ref().map(|status| status.reimage_tokens.clone()).unwrap_or_default();
        tokens.iter().any(|token| token == "c") && at_rest(server)
    };
    fleet.wait(&first, "the last token handled", handled).await.unwrap();
    ended(&fleet, &first, Action::Reimage, JobResult::Succeeded).await.unwrap();
    let installs = fleet.installs(&first).await.unwrap();
    assert!((3..=5).contains(&installs), "{installs}: one for each token that was begun at most");
    for token in ["c", "a", "b"] {
        fleet.change(&first, json!({ "reimageToken": token })).await.unwrap();
        fresh_look(&fleet, &first).await.unwrap();
    }
    let after = fleet.installs(&first).await.unwrap();
    assert!(after >= installs && after <= 5, "{after}: a token counts once");

    // A server that goes.
    hang(&fleet, &third).await.unwrap();
    fleet.declare(&third, wish).await.unwrap();
    in_mid_install(&fleet, &third, 1).await.unwrap();
    fleet.delete(&third).await.unwrap();
    fleet.wait_gone(&third).await.unwrap();
    let told = fleet.bmcs().system(&third).await.unwrap();
    assert_eq!(told["boot"]["enabled"], "Disabled", "{told}");
    let sessions = fleet.records().number("SELECT COUNT(*) FROM boot_session").await.unwrap();
    assert_eq!(sessions, 0, "nothing serves a machine whose Server is gone");
    fleet.end().await.unwrap();
}
