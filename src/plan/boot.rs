//! What stands in the way of a machine's booting its installer, as far as it is known before anything is sent.

use super::Observation;
use crate::api::Reason;
use crate::job::{Problem, not_its_card};

/// Why it cannot boot the image; `None`: nothing is known against it.
pub(super) fn obstacle(seen: &Observation, image: &str) -> Option<Problem> {
    mismatch(seen, image).or_else(|| flaw(seen, image)).or_else(|| no_card(seen))
}

/// The boot service would refuse it, once the machine was switched off for it.
fn flaw(seen: &Observation, image: &str) -> Option<Problem> {
    let flaw = seen.image_flaw.as_ref()?;
    let message = format!(
        "no machine can be given the OSImage {image:?}: {flaw}; an OSImage cannot be changed, so make another"
    );
    Some(Problem::new(Reason::ImageUnusable, message))
}

fn mismatch(seen: &Observation, image: &str) -> Option<Problem> {
    let message = seen.spec().boot_method.mismatch(image, seen.image_kind?)?;
    Some(Problem::new(Reason::BootMethodMismatch, message))
}

/// The boot service knows a machine by the card that boots; BMCs that speak IPMI tell of no cards.
fn no_card(seen: &Observation) -> Option<Problem> {
    let hardware = &seen.reading()?.hardware;
    // The job reads them once more, and waits.
    if hardware.may_have_more_nics() {
        return None;
    }
    let told = hardware.cards();
    match &seen.spec().boot_mac_address {
        None if told.is_empty() => Some(Problem::new(
            Reason::BootMACMissing,
            "the BMC tells of no Ethernet interface with a MAC address (over IPMI none does): set spec.bootMACAddress to the \
             one that boots",
        )),
        Some(wished) if !told.is_empty() => {
            let mac = wished.parse().ok().filter(|mac| !told.contains(mac))?;
            Some(Problem::new(Reason::BootMACMismatch, not_its_card(&mac, &told)))
        }
        None | Some(_) => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;
    use crate::api::{BootMethod, ImageKind, ImageWish};
    use crate::job::Contents;
    use crate::plan::fixture::{known, ready};
    use crate::plan::image::{self, ImageSync};

    /// A machine that was installed once and shall be again.
    fn wishing(kind: ImageKind, method: BootMethod) -> Observation {
        let mut seen = ready();
        seen.server.spec.image = Some(ImageWish { name: "debian".into(), ..ImageWish::default() });
        seen.server.spec.boot_method = method;
        (seen.image_digest, seen.image_kind) = (Some("sha256:1".into()), Some(kind));
        known(&mut seen).contents = Some(Contents::Unknown { since_ms: 1 });
        seen
    }

    fn blocked(seen: &Observation) -> Option<Problem> {
        match image::sync(seen) {
            ImageSync::Blocked(problem) => Some(problem),
            _ => None,
        }
    }

    #[test]
    fn an_iso_waits_for_virtual_media_and_a_kernel_for_the_network() {
        assert_eq!(blocked(&wishing(ImageKind::Iso, BootMethod::VirtualMedia)), None);
        assert_eq!(blocked(&wishing(ImageKind::Network, BootMethod::HTTP)), None);
        for (kind, method) in
            [(ImageKind::Iso, BootMethod::PXE), (ImageKind::Network, BootMethod::VirtualMedia)]
        {
            assert_eq!(blocked(&wishing(kind, method)).unwrap().reason, Reason::BootMethodMismatch);
        }
    }

    #[test]
    fn an_image_that_no_machine_can_be_given_switches_none_off() {
        let mut seen = wishing(ImageKind::Network, BootMethod::PXE);
        seen.image_flaw = Some("spec.source.args has too much".into());
        let problem = blocked(&seen).unwrap();
        assert_eq!(problem.reason, Reason::ImageUnusable);
        for said in ["\"debian\"", "spec.source.args has too much", "make another"] {
            assert!(problem.message.contains(said), "{}", problem.message);
        }
    }

    #[test]
    fn a_machine_whose_bmc_tells_of_no_card_needs_its_address_in_spec() {
        let mut seen = wishing(ImageKind::Network, BootMethod::PXE);
        known(&mut seen).reading.as_mut().unwrap().hardware.nics.clear();
        let problem = blocked(&seen).unwrap();
        assert_eq!(problem.reason, Reason::BootMACMissing);
        assert!(problem.message.contains("spec.bootMACAddress"), "{}", problem.message);
        seen.server.spec.boot_mac_address = Some("52:54:00:12:34:56".into());
        assert_eq!(blocked(&seen), None);
    }

    #[test]
    fn a_card_that_the_bmc_does_not_tell_of_is_not_booted_from() {
        let mut seen = wishing(ImageKind::Network, BootMethod::PXE);
        seen.server.spec.boot_mac_address = Some("52-54-00-12-34-57".into());
        let problem = blocked(&seen).unwrap();
        assert_eq!(problem.reason, Reason::BootMACMismatch);
        for said in ["spec.bootMACAddress 52:54:00:12:34:57", "tells of 52:54:00:12:34:56"] {
            assert!(problem.message.contains(said), "{}", problem.message);
        }
        seen.server.spec.boot_mac_address = Some("52-54-00-12-34-56".into());
        assert_eq!(blocked(&seen), None, "however it is written");
    }
}
