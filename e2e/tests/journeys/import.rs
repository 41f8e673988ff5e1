//! A fleet that exists comes under management: imported, applied, adopted, and never touched.

use std::path::Path;

use anyhow::Result;
use autobuild::api::condition::ConditionType;
use e2e::autobuild::binary;
use e2e::fleet::{AUTHORITY, BootFiles, Fleet, Layout, SECRET, truth};
use e2e::kubectl::Output;
use e2e::wait::say;
use tokio::process::Command;

use crate::steps::{at_rest, system};

const SYSTEMS: usize = 20;

/// `autobuild import` as a person runs it: the login is in the environment.
async fn import(fleet: &Fleet, login: &(String, String), list: &Path, more: &[&str]) -> Result<Output> {
    let authority = fleet.bmcs().emulator().authority().display().to_string();
    let reference = format!("ConfigMap/{AUTHORITY}/ca.crt");
    let output = Command::new(binary()?)
        .arg("import")
        .arg(list)
        .args(["--image", "debian-12", "--secret", SECRET, "-n", fleet.namespace()])
        .args(["--bmc-cidr", "127.0.0.0/8", "--request-timeout", "10s"])
        .args(if more.contains(&"--pin-certificates") {
            vec![]
        } else {
            vec!["--ca-file", &authority, "--ca-ref", &reference]
        })
        .args(more)
        .env("KUBECONFIG", fleet.plane().kubeconfig())
        .env("AUTOBUILD_BMC_USERNAME", &login.0)
        .env("AUTOBUILD_BMC_PASSWORD", &login.1)
        .kill_on_drop(true)
        .output()
        .await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let output = Output {
        success: output.status.success(),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    };
    say(format!("autobuild import {}\n{}", more.join(" "), output.stderr));
    Ok(output)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_that_exists_is_imported_applied_and_adopted_without_one_request_that_changes_it() {
    // Machines of its own, and an address of its own (ports are used again): those of other tests are in the same
    // cluster, and `--check` looks at all of it.
    let machines = ["--initial-power", "on", "--disk", "Unknown", "--seed", "7700101"];
    let on = [&machines[..], &["--listen-https", "127.0.0.2:0"]].concat();
    let fleet = Fleet::with(Layout::new(SYSTEMS as u32).emulator(&on)).await.unwrap();
    let login = (fleet.username().to_owned(), fleet.password().to_owned());
    let files = BootFiles::serve().await.unwrap();
    fleet.image("debian-12", &files, &[]).await.unwrap();
    let dir = fleet.dir().join("import");
    std::fs::create_dir_all(&dir).unwrap();
    let list = dir.join("fleet.csv");
    let mut lines = vec!["name,status,oob_ip".to_owned()];
    for number in 1..=SYSTEMS {
        let address = fleet.bmcs().https_of(&system(number));
        let name = if number <= 2 { format!("Rack1 U{number:02}") } else { String::new() };
        lines.push(format!("{name},active,{address}"));
    }
    std::fs::write(&list, lines.join("\n")).unwrap();
    let folder = dir.join("manifests");
    let folder_text = folder.display().to_string();
    let check = import(&fleet, &login, &list, &["--check"]).await.unwrap();
    assert!(check.success && check.stdout.is_empty(), "{check:?}");
    assert!(
        check.stderr.contains("20 of 20 lines are read") && check.stderr.contains("nothing in the cluster")
    );
    let written = import(&fleet, &login, &list, &["--output", &folder_text]).await.unwrap();
    assert!(written.success, "{}", written.stderr);
    let again = import(&fleet, &login, &list, &["--output", &folder_text]).await.unwrap();
    assert!(!again.success && again.stderr.contains("is there already and is not overwritten"), "{again:?}");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), SYSTEMS);

    let _controller = fleet.controller("controller").await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    fleet.kubectl().run(&["apply", "-f", &folder_text]).await.unwrap();
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert!(names.contains(&"rack1-u01".to_owned()), "{names:?}");
    for name in &names {
        let server = fleet
            .wait(name, "adopted and Ready", |server| {
                let image = server.status.as_ref().and_then(|status| status.image.as_ref());
                image.is_some_and(|image| image.adopted && image.name == "debian-12") && at_rest(server)
            })
            .await
            .unwrap();
        assert_eq!(truth(&server, ConditionType::ImageSynced), Some("True"));
    }
    for number in 1..=SYSTEMS {
        let changes = fleet.bmcs().changes(&system(number)).await.unwrap();
        assert!(changes.is_empty(), "{changes:?}");
    }
    let held = import(&fleet, &login, &list, &["--check"]).await.unwrap();
    assert!(!held.success, "{held:?}");
    assert_eq!(held.stderr.matches("is under management already").count(), SYSTEMS, "{}", held.stderr);
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_imported_is_told_by_line_and_keeps_nothing_else_back() {
    let fleet = Fleet::start(3).await.unwrap();
    let login = (fleet.username().to_owned(), fleet.password().to_owned());
    let whole_fleet = fleet.bmcs().emulator().https().to_owned();
    let (one, two, three) = (
        fleet.bmcs().https_of("system-0001"),
        fleet.bmcs().https_of("system-0002"),
        fleet.bmcs().https_of("system-0003"),
    );
    let list = fleet.dir().join("fleet.txt");
    let lines = [
        format!("{one} a"),
        "127.0.0.1:1 nobody".to_owned(),
        format!("https://{two}/redfish/v1/Systems/system-0002 b other-secret"),
        format!("https://{whole_fleet}/redfish/v1/Systems/system-0001 again"),
        format!("{three} a"),
        format!("https://{three}/ twice"),
        "not a list at all".to_owned(),
        "192.0.2.1 outside".to_owned(),
    ];
    std::fs::write(&list, lines.join("\n")).unwrap();
    let told = import(&fleet, &login, &list, &[]).await.unwrap();
    assert!(!told.success, "{told:?}");
    for part in [
        "line 2: redfish+https://127.0.0.1:1: Unreachable",
        "check the address in the list",
        "line 3: the Secret \"other-secret\" is not in --secrets-file",
        "line 4: it is the machine of line 1, by the same UUID",
        "line 5: the name \"a\" becomes \"a-2\"",
        "line 6: it has the BMC address of line 5",
        "line 7: 5 words",
        "line 8: redfish+https://192.0.2.1: AddressNotAllowed",
        "2 of 8 lines are read",
    ] {
        assert!(told.stderr.contains(part), "{part:?} is missing in\n{}", told.stderr);
    }
    assert!(!told.stderr.contains("spec."), "{}", told.stderr);
    assert_eq!(told.stdout.matches("kind: Server\n").count(), 2, "{}", told.stdout);
    assert!(!told.stdout.contains(fleet.password()) && !told.stdout.contains("power:"), "{}", told.stdout);
    assert!(told.stdout.contains("provisioning: Adopt") && told.stdout.contains("serial number"));

    // Certificates that nobody signed are pinned as they are shown, before a password is sent.
    let list = fleet.dir().join("self-signed.txt");
    let address = format!("https://{}/redfish/v1/Systems/system-0001", fleet.bmcs().self_signed().unwrap());
    std::fs::write(&list, address).unwrap();
    let unknown = import(&fleet, &login, &list, &[]).await.unwrap();
    assert!(!unknown.success && unknown.stderr.contains("TLSFailed"), "{unknown:?}");
    let pinned = import(&fleet, &login, &list, &["--pin-certificates", "--write-secrets"]).await.unwrap();
    assert!(pinned.success, "{pinned:?}");
    let fingerprint = fleet.bmcs().self_signed_fingerprint().unwrap();
    assert!(pinned.stdout.contains(&format!("certificateSHA256: {fingerprint}")), "{}", pinned.stdout);
    assert!(pinned.stdout.contains("type: autobuild.dev/bmc-credentials"));
    fleet.kubectl().run_with_input(&["apply", "--dry-run=server", "-f", "-"], &pinned.stdout).await.unwrap();

    // Those that answer wait for nobody.
    let list = fleet.dir().join("silent.txt");
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let lines = format!("{}\n{one} a\n127.0.0.1:1 nobody\n", silent.local_addr().unwrap());
    std::fs::write(&list, lines).unwrap();
    let told = import(&fleet, &login, &list, &["--parallel", "2"]).await.unwrap();
    let place = |text: &str| {
        told.stderr.find(text).unwrap_or_else(|| panic!("{text:?} is missing in {}", told.stderr))
    };
    assert!(place("line 3: ") < place("2 of 3 BMCs have answered; waiting for line 1"), "{}", told.stderr);
    assert!(place("waiting for line 1") < place("line 1: "), "{}", told.stderr);

    // One login that is refused is one try.
    let wrong = (login.0, "wrong".to_owned());
    let refused = import(&fleet, &wrong, &list, &["--pin-certificates"]).await.unwrap();
    assert!(refused.stderr.contains("CredentialsInvalid"), "{}", refused.stderr);
    let log = fleet.bmcs().whole_log().await.unwrap();
    assert_eq!(log.iter().filter(|one| one.status == Some(401)).count(), 1);
    fleet.end().await.unwrap();
}
