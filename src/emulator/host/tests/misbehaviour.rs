//! What a host does when something is wrong with it, or with the boot service.

use super::*;

const DIGEST: &str = "sha256:abababababababababababababababababababababababababababababababab";

const HOME: HostAct = HostAct::CalledHome { status: 200 };

fn written() -> HostAct {
    HostAct::Written { digest: DIGEST.to_owned() }
}

fn begun() -> HostAct {
    HostAct::WriteBegun { digest: DIGEST.to_owned() }
}

/// A host that is told to install and does this instead.
async fn installing(behaviour: HostBehaviour) -> Site {
    let site = site().await;
    site.behaves(behaviour);
    site.arm(ONE, Armed::Install(DIGEST));
    site.boot_from_network(ONE).await;
    site
}

#[tokio::test]
async fn a_host_without_power_and_one_that_is_reset_write_no_further_byte() {
    for reset in ["ForceOff", "ForceRestart"] {
        let site = installing(HostBehaviour::InstallDuration { ms: 600_000 }).await;
        site.did(&begun()).await;
        site.reset(ONE, reset).await;
        // The reset has been answered: from here on the installer is no more.
        let asked = site.server.asked().len();
        let view = site.view();
        assert_eq!((view.disk, view.booted), (Disk::Unknown, Booted::Nothing), "{reset}");
        site.fleet.clear_host_rules();
        if reset == "ForceOff" {
            until("it is off", || site.view().power == PowerState::Off).await;
            site.reset(ONE, "On").await;
        }
        until("it is on", || site.view().power == PowerState::On).await;
        assert_eq!(site.view().booted, Booted::Nothing, "half a disk does not boot");
        assert!(site.server.asked().len() <= asked + 1, "one request may have been under way");
        assert!(!site.acts(ONE).contains(&written()));
        assert_eq!(site.destroyed(ONE), 1);
    }
}

#[tokio::test]
async fn a_session_that_is_revoked_in_mid_install_ends_the_attempt() {
    let site = installing(HostBehaviour::InstallDuration { ms: 600_000 }).await;
    site.did(&begun()).await;
    site.server.revoke_all();
    site.did(&HostAct::GaveUp { stage: Stage::Progress, why: Why::Refused { status: 404 } }).await;
    until("it boots from its disk", || site.view().booted == Booted::Nothing).await;
    assert_eq!((site.view().disk, site.view().power), (Disk::Unknown, PowerState::On));
}

#[tokio::test]
async fn a_kernel_that_is_refused_and_arguments_without_orders_leave_the_disk_alone() {
    let site = site().await;
    site.server.refuse("kernel");
    site.arm(ONE, Armed::Install(DIGEST));
    site.boot_from_network(ONE).await;
    site.did(&HostAct::GaveUp { stage: Stage::Payload, why: Why::Refused { status: 404 } }).await;
    assert_eq!(site.destroyed(ONE), 0);

    for (text, stage) in [("<html>", Stage::Script), ("#!ipxe\nkernel /efi quiet\nboot", Stage::Orders)] {
        let site = super::site().await;
        site.arm(ONE, Armed::Text(text.to_owned()));
        site.boot_from_network(ONE).await;
        until("it gives up", || !site.gave_up().is_empty()).await;
        let (at, why) = site.gave_up().remove(0);
        assert_eq!((at, site.destroyed(ONE)), (stage, 0), "{why}");
        assert!(matches!(why, Why::NotUnderstood { .. }), "{why}");
    }
}

#[tokio::test]
async fn an_installer_that_fails_says_why_and_stays() {
    let fail = |at_percent| HostBehaviour::Fail { at_percent, reason: "no disk & no hint".to_owned() };
    for (at_percent, disk) in [(0, Disk::Empty), (50, Disk::Unknown)] {
        let site = installing(fail(at_percent)).await;
        until("it says failed", || site.server.count("POST failed") == 1).await;
        assert_eq!(site.server.asked().pop().unwrap(), "POST failed reason=no+disk+%26+no+hint");
        let view = site.view();
        assert_eq!((view.disk, view.booted), (disk, Booted::Installer));
    }
}

#[tokio::test]
async fn an_installer_that_takes_no_time_and_hangs_half_way_has_begun() {
    let site = site().await;
    site.behaves(HostBehaviour::InstallDuration { ms: 0 });
    site.behaves(HostBehaviour::Hang { at_percent: 50 });
    site.arm(ONE, Armed::Install(DIGEST));
    site.boot_from_network(ONE).await;
    site.did(&begun()).await;
    let view = site.view();
    assert_eq!((view.disk, view.booted, view.installs), (Disk::Unknown, Booted::Installer, 1));
    assert!(!site.acts(ONE).contains(&written()));
}

#[tokio::test]
async fn an_installer_that_hangs_and_a_host_that_loses_its_power_leave_half_a_disk() {
    let site = installing(HostBehaviour::LosePower { at_percent: 50 }).await;
    until("it lost its power", || site.view().power == PowerState::Off).await;
    assert_eq!((site.view().disk, site.view().booted), (Disk::Unknown, Booted::Nothing));

    let site = installing(HostBehaviour::Hang { at_percent: 30 }).await;
    site.did(&begun()).await;
    assert_eq!((site.view().disk, site.view().booted), (Disk::Unknown, Booted::Installer));
    assert!(!site.acts(ONE).contains(&written()));

    site.fleet.clear_host_rules();
    site.boot_next(ONE, json!({"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "Pxe"}))
        .await;
    site.reset(ONE, "ForceRestart").await;
    site.did(&HOME).await;
    assert_eq!(site.view().installs, 2);
}

#[tokio::test]
async fn a_host_may_never_call_home_or_twice_of_which_the_second_is_harmless() {
    let site = installing(HostBehaviour::NeverCallHome {}).await;
    until("the image runs", || site.view().booted == Booted::DiskImage).await;
    until("the rule acted", || site.fleet.host_rules()[0].acted == 1).await;
    assert_eq!(site.server.count("POST installed"), 0);

    let site = installing(HostBehaviour::CallHomeTwice {}).await;
    site.did(&HostAct::CalledHome { status: 404 }).await;
    let calls = site.acts(ONE).split_off(3);
    assert_eq!(calls, [HOME, HostAct::CalledHome { status: 404 }]);
    assert_eq!(site.view().booted, Booted::DiskImage);
}

#[tokio::test]
async fn a_host_that_lost_its_power_before_it_called_home_does_so_at_its_next_start() {
    let site = installing(HostBehaviour::CallHomeLate { ms: 600_000 }).await;
    until("it waits to call home", || site.fleet.host_rules()[0].acted == 1).await;
    assert_eq!(site.view().booted, Booted::DiskImage);
    site.reset(ONE, "ForceOff").await;
    until("it is off", || site.view().power == PowerState::Off).await;
    assert_eq!(site.server.count("POST installed"), 0);
    site.fleet.clear_host_rules();
    site.reset(ONE, "On").await;
    site.did(&HOME).await;
    assert_eq!(site.destroyed(ONE), 1);
}

#[tokio::test]
async fn a_host_may_forget_its_override_stay_in_its_self_test_or_ignore_a_reset() {
    let site = installing(HostBehaviour::ForgetOverride {}).await;
    until("it started", || site.view().resets == 1).await;
    let view = site.view();
    assert_eq!(
        (view.boot.enabled, view.booted),
        (crate::emulator::OverrideEnabled::Disabled, Booted::Nothing)
    );
    assert!(site.server.asked().is_empty());

    let site = installing(HostBehaviour::StayInPost {}).await;
    until("it started", || site.view().resets == 1).await;
    assert!(site.server.asked().is_empty());
    site.fleet.clear_host_rules();
    site.boot_next(ONE, json!({"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "Pxe"}))
        .await;
    site.reset(ONE, "PowerCycle").await;
    site.did(&HOME).await;

    let site = super::site().await;
    site.behaves(HostBehaviour::IgnoreReset {});
    site.boot_from_network(ONE).await;
    let entry = site.fleet.entries(crate::emulator::Which::Mutating, Some(ONE), 0).pop().unwrap();
    assert_eq!((entry.status, entry.effect), (Some(204), crate::emulator::Effect::Ignored));
    assert_eq!((site.view().power, site.view().resets), (PowerState::Off, 0));
}
