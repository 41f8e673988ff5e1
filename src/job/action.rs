//! The closed set of actions that a job can carry out.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Lane, Step, TokenKind};

/// What a job does to its server (jobs are of a closed set).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum Action {
    /// Reads the BMC; sends nothing that changes the machine.
    Inspect,
    /// Powers the machine on.
    PowerOn,
    /// Powers the machine off.
    PowerOff,
    /// Powers the machine off, then on.
    Reboot,
    /// First installation of a machine that was never installed.
    Build,
    /// Installs a machine again.
    Reimage,
    /// Erases the disks.
    Wipe,
    /// Wipes, powers off, and ends the machine's life.
    Decommission,
}

impl Action {
    /// Every action, in a fixed order.
    pub const ALL: [Self; 8] = [
        Self::Inspect,
        Self::PowerOn,
        Self::PowerOff,
        Self::Reboot,
        Self::Build,
        Self::Reimage,
        Self::Wipe,
        Self::Decommission,
    ];

    /// The name in the API, the database, logs and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inspect => "Inspect",
            Self::PowerOn => "PowerOn",
            Self::PowerOff => "PowerOff",
            Self::Reboot => "Reboot",
            Self::Build => "Build",
            Self::Reimage => "Reimage",
            Self::Wipe => "Wipe",
            Self::Decommission => "Decommission",
        }
    }

    /// The action of that name; `None` for a name of another release.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == name)
    }

    /// The lane in which a job of this action waits when the spec names no priority.
    pub const fn default_lane(self) -> Lane {
        match self {
            Self::Inspect => Lane::Background,
            Self::PowerOn | Self::PowerOff | Self::Reboot => Lane::High,
            Self::Reimage => Lane::Normal,
            Self::Build | Self::Wipe | Self::Decommission => Lane::Low,
        }
    }

    /// The steps in their order, each at most once: a job only goes forward.
    pub const fn steps(self) -> &'static [Step] {
        match self {
            Self::Inspect => &[Step::Inspect],
            Self::PowerOn => &[Step::On],
            Self::PowerOff => &[Step::Off],
            Self::Reboot => &[Step::Off, Step::On],
            Self::Build | Self::Reimage => &[
                Step::SetBootOverride,
                Step::Off,
                Step::On,
                Step::AwaitBoot,
                Step::ClearBootOverride,
                Step::AwaitInstall,
                Step::EjectMedia,
            ],
            Self::Wipe | Self::Decommission => &[
                Step::SetBootOverride,
                Step::Off,
                Step::On,
                Step::AwaitBoot,
                Step::ClearBootOverride,
                Step::AwaitWipe,
                Step::OffForGood,
            ],
        }
    }

    /// The steps that undo what was begun when a job is cancelled or fails after `step` stored a request.
    /// A reboot whose off was sent always ends with on, and so does a power-off that nobody wishes any more: a shutdown that was
    /// accepted takes minutes, and what is read meanwhile says nothing. A power-on goes on for the same reason. What an installer wrote or erased cannot be undone: the machine no longer
    /// boots from the network or a medium, and is on if it was on before.
    pub const fn undo(self) -> &'static [Step] {
        match self {
            Self::Reboot | Self::PowerOn | Self::PowerOff => &[Step::On],
            Self::Build | Self::Reimage | Self::Wipe | Self::Decommission => {
                &[Step::ClearBootOverride, Step::EjectMedia, Step::On]
            }
            Self::Inspect => &[],
        }
    }

    /// Whether a job of this action that is at `one` has come further than one that is at `other`. Not for undo steps, which go
    /// another way.
    pub fn is_further(self, one: Step, other: Step) -> bool {
        let place = |step| self.steps().iter().position(|it| *it == step);
        place(one) > place(other)
    }

    /// Whether a job of this action that is at `step` is undone by going on: what is on its way up, and an installation
    /// whose system has called home and whose medium is still in its drive.
    pub const fn is_undone_by_going_on(self, step: Step) -> bool {
        matches!(
            (self, step),
            (Self::Reboot | Self::PowerOn, Step::On) | (Self::Build | Self::Reimage, Step::EjectMedia)
        )
    }

    /// Whether a job of this action whose first request was stored runs to its end, whatever is wished then. For a reboot
    /// that is also how it is undone; half-erased disks help nobody.
    pub const fn runs_to_its_end(self) -> bool {
        matches!(self, Self::Reboot | Self::Wipe | Self::Decommission)
    }

    /// Whether the action ends with empty disks.
    pub const fn wipes(self) -> bool {
        matches!(self, Self::Wipe | Self::Decommission)
    }

    /// Whether the action ends with an image on the machine.
    pub const fn installs(self) -> bool {
        matches!(self, Self::Build | Self::Reimage)
    }

    /// The token of spec that asks for this action.
    pub const fn token(self) -> Option<TokenKind> {
        match self {
            Self::Reboot => Some(TokenKind::Reboot),
            Self::Build | Self::Reimage => Some(TokenKind::Reimage),
            Self::Inspect | Self::PowerOn | Self::PowerOff | Self::Wipe | Self::Decommission => None,
        }
    }

    /// Whether the action sends requests that change the machine.
    pub const fn effect(self) -> Effect {
        match self {
            Self::Inspect => Effect::ReadOnly,
            Self::PowerOn | Self::PowerOff | Self::Reboot => Effect::Power,
            Self::Build | Self::Reimage | Self::Wipe | Self::Decommission => Effect::Destructive,
        }
    }
}

/// How much an action can harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Only reads.
    ReadOnly,
    /// Changes the power state; running work on the machine is interrupted.
    Power,
    /// Data on the machine is lost.
    Destructive,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
