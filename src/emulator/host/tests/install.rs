//! What a host does when nothing is wrong with it.

use super::*;

const DIGEST: &str = "sha256:abababababababababababababababababababababababababababababababab";

fn image() -> Disk {
    DIGEST.parse().unwrap()
}

fn digest() -> String {
    DIGEST.to_owned()
}

const HOME: HostAct = HostAct::CalledHome { status: 200 };

#[tokio::test]
async fn a_host_that_boots_from_the_network_installs_reboots_and_calls_home() {
    let site = site().await;
    site.arm(ONE, Armed::Install(DIGEST));
    site.boot_from_network(ONE).await;
    site.did(&HOME).await;
    assert_eq!(
        site.acts(ONE),
        [
            HostAct::InstallerStarted,
            HostAct::WriteBegun { digest: digest() },
            HostAct::Written { digest: digest() },
            HOME
        ]
    );
    let view = site.view();
    assert_eq!((view.disk, view.booted, view.power), (image(), Booted::DiskImage, PowerState::On));
    assert_eq!((view.installs, view.wipes, view.reboots, view.resets), (1, 0, 1, 1));
    let asked = site.server.asked();
    let order = ["GET script", "GET kernel", "GET initrd", "POST booted", "GET install", "GET user-data"];
    assert_eq!(asked[..order.len()], order, "{asked:?}");
    assert!(asked.contains(&"POST progress percent=0&message=writing".to_owned()), "{asked:?}");
    assert_eq!(asked[asked.len() - 2..], ["POST progress percent=100&message=written", "POST installed"]);
}

#[tokio::test]
async fn an_installed_host_boots_from_its_disk_and_asks_nobody() {
    let site = site().await;
    site.arm(ONE, Armed::Install(DIGEST));
    site.boot_from_network(ONE).await;
    site.did(&HOME).await;
    let asked = site.server.asked().len();
    for reset in ["ForceRestart", "PowerCycle"] {
        let resets = site.view().resets;
        site.reset(ONE, reset).await;
        until("the image runs again", || {
            let view = site.view();
            view.resets > resets && view.booted == Booted::DiskImage
        })
        .await;
    }
    assert_eq!((site.view().disk, site.destroyed(ONE)), (image(), 1));
    assert_eq!(site.server.asked().len(), asked);
}

#[tokio::test]
async fn a_machine_without_a_session_or_unknown_to_the_boot_service_boots_from_its_disk() {
    let site = site_with(|builder| builder, HostSettings { disk: image(), ..quick() }).await;
    site.boot_from_network(ONE).await;
    until("the disk boots", || site.view().booted == Booted::DiskImage).await;
    assert_eq!(site.gave_up(), [(Stage::Script, Why::Refused { status: 404 })]);

    site.arm(ONE, Armed::Exit);
    site.reset(ONE, "ForceOff").await;
    until("it is off", || site.view().power == PowerState::Off).await;
    assert_eq!(site.view().booted, Booted::Nothing);
    site.boot_from_network(ONE).await;
    until("the disk boots again", || site.view().booted == Booted::DiskImage).await;
    assert_eq!((site.gave_up().len(), site.destroyed(ONE)), (1, 0));
}

#[tokio::test]
async fn a_wiped_host_says_so_and_turns_itself_off_or_starts_again() {
    for (after_wipe, power) in [(AfterWipe::PowerOff, PowerState::Off), (AfterWipe::Reboot, PowerState::On)] {
        let site = site_of(1, HostSettings { after_wipe, disk: image(), ..quick() }).await;
        site.arm(ONE, Armed::Wipe);
        site.boot_from_network(ONE).await;
        site.did(&HOME).await;
        until("the installer is gone", || site.view().booted == Booted::Nothing).await;
        until("it turned itself off, or not", || site.view().power == power).await;
        let view = site.view();
        assert_eq!((view.disk, view.wipes, view.installs), (Disk::Empty, 1, 0));
        assert_eq!(view.reboots, u64::from(after_wipe == AfterWipe::Reboot));
        assert_eq!(site.acts(ONE), [HostAct::InstallerStarted, HostAct::WipeBegun, HostAct::Wiped, HOME]);
    }
}

#[tokio::test]
async fn a_boot_service_that_is_away_is_asked_again_and_a_dead_one_given_up() {
    let site = site().await;
    site.arm(ONE, Armed::Install(DIGEST));
    site.server.be_unavailable(5);
    site.boot_from_network(ONE).await;
    site.did(&HOME).await;
    assert_eq!(site.server.count("GET script"), 6);

    let site = site_of(1, HostSettings { retries: 2, ..quick() }).await;
    let dead = BootServer::start().await.url;
    site.fleet.set_boot_url(Some(dead.parse().unwrap()));
    site.boot_from_network(ONE).await;
    site.did(&HostAct::GaveUp { stage: Stage::Script, why: Why::Unreachable }).await;

    site.fleet.set_boot_url(None);
    site.reset(ONE, "ForceOff").await;
    until("it is off", || site.view().power == PowerState::Off).await;
    site.boot_from_network(ONE).await;
    site.did(&HostAct::GaveUp { stage: Stage::Script, why: Why::NoBootService }).await;
}

#[tokio::test]
async fn a_host_follows_the_address_that_its_bmc_was_given() {
    for (address, armed) in [("/boot/other", Armed::Exit), ("/efi", Armed::Install(DIGEST))] {
        let site = site().await;
        site.arm(ONE, armed);
        site.server
            .arm("other", Armed::Text(format!("#!ipxe\nchain {}/boot/one-more || exit", site.server.url)));
        site.server.arm("one-more", Armed::Install(DIGEST));
        let boot = json!({
            "BootSourceOverrideEnabled": "Once",
            "BootSourceOverrideTarget": "UefiHttp",
            "HttpBootUri": format!("{}{address}", site.server.url),
        });
        site.boot_next(ONE, boot).await;
        site.reset(ONE, "On").await;
        site.did(&HOME).await;
        assert_eq!(site.view().disk, image(), "{address}");
    }
}

#[tokio::test]
async fn many_hosts_install_at_once_over_few_connections_and_each_writes_once() {
    let many = 150;
    let settings = HostSettings { payloads: Payloads::Pretend, connections: 8, ..quick() };
    let site = site_of(many, settings).await;
    let names: Vec<String> = site.fleet.names().map(str::to_owned).collect();
    for name in &names {
        site.arm(name, Armed::Install(DIGEST));
        site.boot_from_network(name).await;
    }
    let home = || site.fleet.host_acts(None, 0).iter().filter(|entry| entry.act == HOME).count();
    until("all called home", || home() == many).await;
    for name in &names {
        let view = site.fleet.system(name).unwrap();
        assert_eq!((view.disk, view.booted, site.destroyed(name)), (image(), Booted::DiskImage, 1));
    }
    assert_eq!((site.server.count("HEAD kernel"), site.server.count("GET kernel")), (many, 0));
    assert!((2..=8).contains(&site.server.most_under_way()), "{} at once", site.server.most_under_way());
}
