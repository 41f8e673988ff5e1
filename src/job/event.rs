//! What happens to a machine, and what each thing does to what is known of it: its disks, its tokens, its stored failure.
//!
//! Evidence decides, not what was intended: disks count as overwritten from the first thing that may overwrite them, a token
//! as handled once a request for it may have been carried out, and a failure is over with the evidence that it is.

use super::{Action, Contents, Effect, InstalledImage, StoredFailure};
use crate::api::FailureScope;
use crate::api::hardware::PowerState;

/// Whether the BMC has read the medium that a machine is started from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// There is none: the machine boots from the network, where nothing is given out unseen.
    Absent,
    /// Not a byte of it.
    Unread,
    /// The BMC may have all of it.
    Read,
}

/// Something that happened to a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The first request of a job was stored, and is about to be sent.
    RequestStored,
    /// A request of the job was accepted, or nobody knows what became of it.
    RequestMayBeDone,
    /// A request of the job was refused: an answer came, and nothing was done.
    RequestRefused,
    /// The machine is started into an installer, or into what erases its disks.
    Started(Medium),
    /// The BMC of a machine that was started reads the medium for the first time.
    MediumRead,
    /// The machine was given its script, or what runs from its medium where its session is.
    ScriptGiven,
    /// The installed system called home, and the job came to its end.
    Installed(InstalledImage),
    /// What erases disks called home, and the job came to its end.
    Wiped,
    /// The same, and the machine's life has ended.
    Decommissioned,
    /// A person said that this image is on the machine.
    Adopted(InstalledImage),
    /// The power state was read.
    Read(PowerState),
    /// A job of this action came true.
    Succeeded(Action),
    /// A job failed for good, was stopped, or gave way.
    EndedInVain,
    /// The database lost what became of a job of this action that had begun.
    Lost(Action),
}

/// What becomes of the tokens that a job's first request takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tokens {
    /// Nothing.
    Same,
    /// They are handled, as long as nothing says that nothing was done.
    Taken,
    /// They stay handled, whatever comes.
    Handled,
    /// They ask again: every request of the job was refused.
    GivenBack,
}

impl Event {
    /// What is on the disks then, where that is something else than before.
    pub fn contents(&self, before: Option<&Contents>, now_ms: i64) -> Option<Contents> {
        let unknown = Contents::Unknown { since_ms: now_ms };
        match (self, before) {
            (Self::ScriptGiven, _) => Some(unknown),
            (Self::Lost(action), _) if action.effect() != Effect::Destructive => None,
            // A machine that counted as blank runs something from now on, and it is none of somebody else's.
            (Self::Started(_) | Self::MediumRead | Self::Lost(_), None | Some(Contents::Wiped { .. })) => {
                Some(unknown)
            }
            // An installer on a medium may run without ever calling, and what was lost may be that a script was given.
            (
                Self::Started(Medium::Read) | Self::MediumRead | Self::Lost(_),
                Some(Contents::Image(image)),
            ) => Some(Contents::Doubtful { image: image.clone(), since_ms: now_ms }),
            (Self::Installed(image) | Self::Adopted(image), _) => Some(Contents::Image(image.clone())),
            (Self::Wiped, _) => Some(Contents::Wiped { since_ms: now_ms }),
            (Self::Decommissioned, _) => Some(Contents::Decommissioned { since_ms: now_ms }),
            // A machine that is not off runs something, and from then on nobody takes it for blank, even when it is switched
            // off later.
            (Self::Read(power), None | Some(Contents::Wiped { .. })) if *power != PowerState::PoweredOff => {
                Some(Contents::Foreign { since_ms: now_ms })
            }
            (
                Self::Started(_)
                | Self::MediumRead
                | Self::Read(_)
                | Self::RequestStored
                | Self::RequestMayBeDone
                | Self::RequestRefused
                | Self::Succeeded(_)
                | Self::EndedInVain
                | Self::Lost(_),
                _,
            ) => None,
        }
    }

    /// What becomes of the tokens that the job's first request takes.
    pub const fn tokens(&self) -> Tokens {
        match self {
            Self::RequestStored => Tokens::Taken,
            Self::RequestMayBeDone | Self::Succeeded(_) => Tokens::Handled,
            Self::EndedInVain => Tokens::GivenBack,
            // It may be tried again; what ends the job decides.
            Self::RequestRefused
            | Self::Started(_)
            | Self::MediumRead
            | Self::ScriptGiven
            | Self::Installed(_)
            | Self::Wiped
            | Self::Decommissioned
            | Self::Adopted(_)
            | Self::Read(_)
            | Self::Lost(_) => Tokens::Same,
        }
    }

    /// Whether a stored failure is over with that.
    pub fn ends(&self, failure: &StoredFailure) -> bool {
        let destructive = |action: Action| action.effect() == Effect::Destructive;
        match self {
            // What came true is no longer in the way. A look says nothing about a change of power, and power that is as
            // wished says nothing about data that may be half gone.
            Self::Succeeded(action) => {
                (*action != Action::Inspect || failure.action == Action::Inspect)
                    && (!destructive(failure.action) || destructive(*action))
            }
            // Whatever an installation came to: this image is there now.
            Self::Installed(_) | Self::Adopted(_) => failure.action.installs(),
            Self::Wiped | Self::Decommissioned => destructive(failure.action),
            // The wished power is there, by whose hand ever.
            Self::Read(power) => {
                let there = match failure.action {
                    Action::PowerOn => *power == PowerState::PoweredOn,
                    Action::PowerOff => *power == PowerState::PoweredOff,
                    _ => false,
                };
                there && failure.problem.reason.failure_scope() == FailureScope::Intent
            }
            Self::RequestStored
            | Self::RequestMayBeDone
            | Self::RequestRefused
            | Self::Started(_)
            | Self::MediumRead
            | Self::ScriptGiven
            | Self::EndedInVain
            | Self::Lost(_) => false,
        }
    }
}

#[cfg(test)]
#[path = "event_test.rs"]
mod tests;
