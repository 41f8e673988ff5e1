//! What was read belongs to the address and login that it was read through.
#![allow(clippy::unwrap_used, missing_docs)]

use rstest::rstest;

use super::{Command, Observation, decide, fixture as f, status};
use crate::api::condition::{ConditionType, find};
use crate::api::hardware::PowerState;
use crate::api::{BmcTls, ImageWish, Power};
use crate::job::{Action, Contents, InstalledImage, Origin, ReadThrough, Unanswered};

/// A machine that was read through what its spec gives, and runs an image that its spec does not ask for any more.
fn read() -> Observation {
    let mut seen = f::ready();
    seen.server.spec.image = Some(ImageWish { name: "new".into(), ..ImageWish::default() });
    seen.server.spec.power = Some(Power::PoweredOff);
    seen.image_digest = Some("sha256:new".into());
    f::known(&mut seen).contents = Some(Contents::Image(InstalledImage {
        name: "old".into(),
        digest: "sha256:old".into(),
        at_ms: 1,
        origin: Origin::Installed,
    }));
    f::known(&mut seen).read_through = Some(ReadThrough::of(&seen.server.spec.bmc));
    seen
}

fn truths(seen: &Observation) -> Vec<String> {
    let shown = status(seen, &decide(seen));
    [ConditionType::Ready, ConditionType::Reachable, ConditionType::Fresh]
        .map(|kind| find(&shown.conditions, kind).map(|one| one.status.clone()).unwrap_or_default())
        .to_vec()
}

#[rstest]
#[case::secret(|seen: &mut Observation| seen.server.spec.bmc.credentials_ref.name = "other".into())]
#[case::trust(|seen: &mut Observation| {
    seen.server.spec.bmc.tls = Some(BmcTls { certificate_sha256: Some("ab".repeat(32)), ..BmcTls::default() });
})]
#[case::address(|seen: &mut Observation| {
    let other = "redfish+https://192.0.2.11";
    seen.server.spec.bmc.address = other.into();
    seen.bmc_address = Ok(other.into());
    f::known(seen).claimed_address = Some(other.into());
})]
fn after_a_change_of_spec_bmc_the_machine_is_looked_at_and_nothing_else_is_decided(
    #[case] change: fn(&mut Observation),
) {
    let mut seen = read();
    let Command::Enqueue(work) = decide(&seen).command else { unreachable!("{:?}", decide(&seen)) };
    assert_eq!(work.action, Action::Reimage);
    change(&mut seen);
    assert_eq!(truths(&seen), ["Unknown", "Unknown", "Unknown"]);
    assert_eq!(status(&seen, &decide(&seen)).power, Some(PowerState::Unknown));
    // One that was begun before may just have ended.
    f::known(&mut seen).last_try_ms = Some(seen.now_ms - 2_000);
    let Command::Enqueue(work) = decide(&seen).command else { unreachable!("{:?}", decide(&seen)) };
    assert_eq!(work.action, Action::Inspect);
    // Silence there is told, and silence elsewhere is not.
    let through = Some(ReadThrough::of(&seen.server.spec.bmc));
    f::known(&mut seen).unanswered = Some(Unanswered { through, ..f::silence(1000) });
    assert_eq!(truths(&seen), ["False", "False", "Unknown"]);
    f::known(&mut seen).unanswered.as_mut().unwrap().through = Some(ReadThrough::nothing());
    assert_eq!(truths(&seen), ["Unknown", "Unknown", "Unknown"]);
}

#[test]
fn what_an_older_release_read_belongs_to_the_claimed_address() {
    let mut seen = read();
    f::known(&mut seen).read_through = None;
    assert!(matches!(decide(&seen).command, Command::Enqueue(work) if work.action == Action::Reimage));
    seen.server.spec.bmc.address = "redfish+https://192.0.2.11".into();
    seen.bmc_address = Ok("redfish+https://192.0.2.11".into());
    assert!(matches!(decide(&seen).command, Command::ClaimBmc { .. }));
    assert_eq!(truths(&seen), ["Unknown", "Unknown", "Unknown"]);
}
