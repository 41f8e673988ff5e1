//! What a person can do about a reason: a text for the documentation, and the answers that are a command.

use super::Reason;

/// An answer that a person gives with one command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The annotation `autobuild.dev/confirm` with the object's uid: what is asked for may destroy data.
    Confirm,
    /// `spec.provisioning: Adopt`: what is on the machine is the image that spec names.
    Adopt,
    /// A new `spec.reimageToken`: install again.
    InstallAgain,
    /// The annotation `autobuild.dev/reconcile-requested-at`: look again, and try again what failed.
    LookAgain,
    /// `spec.paused: false`.
    GoOn,
    /// `spec.deletionPolicy: Retain`: let the machine go as it is.
    LetGo,
    /// The annotation `autobuild.dev/abandon` with the object's uid: let the machine go although it was not wiped.
    Abandon,
}

/// What to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remedy {
    /// For people, in a sentence or two.
    pub text: &'static str,
    /// The commands that may follow from it.
    pub answers: &'static [Answer],
}

const fn remedy(text: &'static str, answers: &'static [Answer]) -> Remedy {
    Remedy { text, answers }
}

impl Reason {
    /// What a person can try; `None`: nothing is wrong, it goes on by itself, or it is over.
    #[expect(clippy::too_many_lines, reason = "the table of every reason")]
    pub const fn remedy(self) -> Option<Remedy> {
        use Answer::{Adopt, Confirm, GoOn, InstallAgain, LookAgain};
        Some(match self {
            Self::Pending
            | Self::Inspecting
            | Self::AsDeclared
            | Self::Answered
            | Self::InSync
            | Self::OutOfSync
            | Self::RecentlyRead
            | Self::NotEnqueuedYet
            | Self::PoweringOn
            | Self::PoweringOff
            | Self::Rebooting
            | Self::Building
            | Self::Reimaging
            | Self::Wiping
            | Self::Decommissioning
            | Self::Decommissioned
            | Self::ImageInSync
            | Self::ImageOutOfSync
            | Self::Cancelling
            | Self::WishChanged
            | Self::AlreadyDone
            | Self::ServerGone
            | Self::Replaced
            | Self::Succeeded => return None,
            Self::ReadingTooOld => remedy(
                "Look why the BMC does not answer, and whether workers of its site run; it is read again by itself.",
                &[],
            ),
            Self::Queued => remedy(
                "Wait, or set `spec.priority` to Urgent; more slots or workers make the queue shorter. Where several namespaces \
                 have Servers, the jobs of one hold three quarters of a worker's slots at most (`--slots-per-namespace`).",
                &[],
            ),
            Self::NoWorkerForSite => remedy(
                "Start a worker with `--site` and the name in `spec.site`; the site of a Server cannot be changed.",
                &[],
            ),
            Self::ImageNotFound => {
                remedy("Create the OSImage in the Server's namespace, or correct `spec.image.name`.", &[])
            }
            Self::ImageReplaced => remedy(
                "Install the new one with a new `spec.reimageToken`, or set `spec.provisioning` to Adopt to record it without \
                 touching the machine.",
                &[InstallAgain, Adopt],
            ),
            Self::ConfirmBuild => remedy(
                "If its disks may be erased, confirm with the uid of this very object; if it has the image already, set \
                 `spec.provisioning` to Adopt.",
                &[Confirm, Adopt],
            ),
            Self::ContentsUnknown => remedy(
                "Look at the machine. If it has the image, set `spec.provisioning` to Adopt, which touches nothing; to have it \
                 installed again, set a new `spec.reimageToken`.",
                &[Adopt, InstallAgain],
            ),
            Self::ConfirmDecommission => remedy(
                "If the machine's life ends here and its disks may be erased, confirm with the uid of this very object; \
                 `spec.lifecycle` cannot be taken back.",
                &[Confirm],
            ),
            Self::ConfirmWipe => remedy(
                "If the disks may be erased, confirm with the uid of this very object; or let the machine go as it is with \
                 `deletionPolicy: Retain`.",
                &[Confirm],
            ),
            Self::WipeImageNotFound => remedy(
                "Create the OSImage that erases disks in the Server's namespace, under the name of `--wipe-image`, or of `--wipe-iso` \
                 for `bootMethod: VirtualMedia`.",
                &[LookAgain],
            ),
            Self::DestructionBudget => remedy(
                "Take the change back if it was a mistake. If it is meant, wait for the next hour, or let the operator raise \
                 `--destruction-budget`.",
                &[],
            ),
            Self::LifecycleForgotten => remedy(
                "Apply the present definition (`crds/`), then set `spec.lifecycle` to Decommissioned again. Or, to bring the machine \
                 back, delete this `Server` and create a new one with the annotation `autobuild.dev/recommission`.",
                &[],
            ),
            Self::MachineDecommissioned => remedy(
                "Correct `spec.bmc.address`; or, if the machine comes back into service, set the annotation \
                 autobuild.dev/recommission to its serial number.",
                &[],
            ),
            Self::BootMACMissing => {
                remedy("Set `spec.bootMACAddress` to the network interface that boots from the network.", &[])
            }
            Self::BootMethodMismatch => remedy(
                "Set `spec.bootMethod` to what the image is for (an ISO: VirtualMedia; a kernel: PXE or HTTP), or name another \
                 image.",
                &[],
            ),
            Self::MediaNotInserted => remedy(
                "Look whether the BMC reaches the boot service's address, and whether it has a virtual CD drive and the licence \
                 for it.",
                &[InstallAgain],
            ),
            Self::BootMACConflict => remedy(
                "Correct `spec.bootMACAddress`: two machines cannot have the same; or wait until the other is installed.",
                &[LookAgain],
            ),
            Self::BootMACMismatch => remedy(
                "Set `spec.bootMACAddress` to one of the network cards in `status.hardware.nics`, or leave it out; if it is right, \
                 look which machine `spec.bmc.address` leads to.",
                &[LookAgain],
            ),
            Self::BootOverrideIgnored => remedy(
                "Look at the boot settings of the BMC and the BIOS, update the BMC's firmware, or try another \
                 `spec.bootMethod`.",
                &[InstallAgain],
            ),
            Self::NeverBooted => remedy(
                "Look at its console while it boots: DHCP, the boot network, and whether `spec.bootMACAddress` is the \
                 interface in that network.",
                &[InstallAgain],
            ),
            Self::ImageUnusable => remedy(
                "Read what the boot service could not give: a file with another SHA-256, install data that was changed, is \
                 missing or cannot be rendered. Correct that, in a new OSImage where its spec is wrong.",
                &[InstallAgain],
            ),
            Self::InstallFailed => remedy(
                "Read what the installer said and look at its console; correct the install data or the image.",
                &[InstallAgain],
            ),
            Self::InstallTimedOut => remedy(
                "Look at its console. If the image is there and only never called home, set `spec.provisioning` to Adopt, which \
                 touches nothing; let the operator raise `--install-deadline` (`--wipe-deadline`) if it only needs longer.",
                &[Adopt, InstallAgain],
            ),
            Self::Paused => remedy("Set `spec.paused` to false to go on.", &[GoOn]),
            Self::Deleting => remedy(
                "Wait; if it does not end, look which finalizers the object has, and whether the controller runs.",
                &[],
            ),
            Self::Unreachable => remedy(
                "Look at the BMC's power and cable, whether the site's workers reach its network, and `spec.bmc.address`; it \
                 is tried again by itself.",
                &[LookAgain],
            ),
            Self::TLSFailed => remedy(
                "Compare the fingerprint that was seen with the one that the BMC shows, then set \
                 `spec.bmc.tls.certificateSHA256`, or name the CA in `spec.bmc.tls.caRef`.",
                &[],
            ),
            Self::BMCProtocolError => {
                remedy("Restart the BMC or update its firmware; it is tried again by itself.", &[LookAgain])
            }
            Self::BMCBusy => remedy(
                "Wait; if it stays so, read what the BMC said, look who else asks it so often, or restart it.",
                &[],
            ),
            Self::BMCPermissionDenied => remedy(
                "Give the account of `spec.bmc.credentialsRef` at the BMC the right to control the machine (most often the role \
                 Operator or Administrator), or name another account in the Secret; it is tried again by itself.",
                &[LookAgain],
            ),
            Self::CredentialsInvalid => remedy(
                "Correct user name and password in the Secret of `spec.bmc.credentialsRef`: changed ones are tried at once. Where \
                 they are right (the BMC had just started, or an account was locked by others): a new value of the annotation has \
                 them tried once more at once, and what logged in before is tried again by itself after 15 minutes, after 30, and \
                 then every hour.",
                &[LookAgain],
            ),
            Self::CredentialsMissing => remedy(
                "Create the Secret of `spec.bmc.credentialsRef` with type autobuild.dev/bmc-credentials and the keys username \
                 and password.",
                &[],
            ),
            Self::InvalidAddress => remedy("Correct `spec.bmc.address`.", &[]),
            Self::AddressNotAllowed => remedy(
                "Correct `spec.bmc.address`, or let the operator allow it to the workers (`--bmc-cidr`).",
                &[LookAgain],
            ),
            Self::TLSConfigInvalid => remedy(
                "Correct `spec.bmc.tls`: the CA has to be there, the fingerprint complete, and Disabled has to be allowed by \
                 the operator.",
                &[LookAgain],
            ),
            Self::SystemNotFound => {
                remedy("Correct the system in `spec.bmc.address` (/redfish/v1/Systems/ID).", &[LookAgain])
            }
            Self::IdentityMismatch => remedy(
                "Correct `spec.bmc.address`; if the machine was replaced, delete the Server (deletionPolicy Retain) and create \
                 it again.",
                &[],
            ),
            Self::IdentityConflict | Self::BMCClaimed => remedy(
                "Correct `spec.bmc.address`, or delete the Server that holds the machine (deletionPolicy Retain leaves it as it \
                 is).",
                &[LookAgain],
            ),
            Self::RequestRefused => remedy(
                "Read what the BMC said: often an account without the right, or a mode that forbids it.",
                &[LookAgain],
            ),
            Self::ShutdownForced => remedy(
                "Look at what ran on the machine; update the BMC's firmware, or shut the operating system down before the next time.",
                &[],
            ),
            Self::PowerStateMismatch => remedy(
                "Look at its console, or try `spec.shutdownMode: Forced`; let the operator raise `--power-deadline` if it only \
                 needs longer.",
                &[LookAgain],
            ),
            Self::LeftPoweredOff => remedy(
                "Read what is in the way, and switch the machine on by hand if it is needed at once: that ends it, and so does \
                 `spec.power: PoweredOff`. It is tried again by itself, and at once after a change of spec or of this annotation; not \
                 while `spec.paused` is true.",
                &[LookAgain, GoOn],
            ),
            Self::DeadlineExceeded => {
                remedy("Look at the machine and its BMC, then have it tried again.", &[LookAgain])
            }
            Self::CrashLimit => remedy(
                "Report it with the workers' logs about this job, then have it tried again.",
                &[LookAgain],
            ),
            Self::UnsupportedJob => remedy("Finish the upgrade: run the same release everywhere.", &[]),
            Self::APIUnavailable => remedy(
                "Look whether the workers reach the API server; nothing is sent to the machine meanwhile.",
                &[],
            ),
            Self::StatusRefused => remedy(
                "Read what the event says: it names who refuses it and the way out. Everything goes on by itself within a minute after.",
                &[],
            ),
            Self::WorkerTrouble => remedy(
                "Do what the message names where the workers of this site run; the machine and its BMC are not at fault, and it is tried \
                 again by itself.",
                &[],
            ),
            Self::NotApplicable => remedy("Set another token once the wish makes sense.", &[]),
            Self::RecordRebuilt => remedy("Set a new token if what was asked for is still wanted.", &[]),
            Self::HistoryLost => remedy(
                "Look at the machine, then ask anew with another token or another spec if it is still wanted.",
                &[LookAgain],
            ),
            Self::UnexplainedJob => remedy(
                "Find out who wrote into the database, or restored it. Look at the machine, then ask anew with another token or another \
                 spec if it is still wanted.",
                &[LookAgain],
            ),
            Self::ReleasedWithoutUndo | Self::ReleasedWithoutPowerOff => {
                remedy("Look at the machine: power and boot settings may be left in between.", &[])
            }
            Self::ReleasedWithoutWipe => {
                remedy("Erase the disks by hand before the machine leaves the house.", &[])
            }
            Self::VerificationDisabled => {
                remedy("Set `spec.bmc.tls.certificateSHA256` or `caRef` in place of `verify`.", &[])
            }
            Self::TokenAlreadyHandled => remedy("Set a value that was not there before.", &[]),
        })
    }

    /// The same while the object is being deleted: it can always be let go as it is.
    pub const fn remedy_in_deletion(self) -> Remedy {
        use Answer::{Abandon, Confirm, LetGo};
        match self.remedy() {
            Some(Remedy { text, .. }) if matches!(self, Self::ConfirmWipe) => {
                Remedy { text, answers: &[Confirm, LetGo, Abandon] }
            }
            Some(Remedy { text, .. }) => Remedy { text, answers: &[LetGo, Abandon] },
            None => Remedy { text: "Wait until what a job had begun is undone.", answers: &[LetGo] },
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn every_remedy_is_a_sentence_that_fits_a_table() {
        for reason in Reason::ALL {
            let Some(remedy) = reason.remedy() else { continue };
            assert!(
                remedy.text.ends_with('.') && !remedy.text.contains(['|', '\n']),
                "{reason}: {}",
                remedy.text
            );
        }
    }

    #[test]
    fn what_stands_in_the_way_of_a_bmc_has_a_remedy() {
        for reason in Reason::ALL {
            if reason.failure_scope() == crate::api::FailureScope::Bmc {
                assert!(reason.remedy().is_some(), "{reason}");
            }
        }
    }

    #[test]
    fn what_a_person_must_confirm_has_the_command() {
        for reason in Reason::ALL {
            let asks = reason.as_str().starts_with("Confirm");
            let answers = reason.remedy().map(|remedy| remedy.answers).unwrap_or_default();
            assert_eq!(answers.contains(&Answer::Confirm), asks, "{reason}");
        }
    }
}
