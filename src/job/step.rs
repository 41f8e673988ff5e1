//! Steps: the small durable pieces of an action.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One step of an action. After every step the row is advanced, so a crash resumes at the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Step {
    /// Reads power, identity and inventory.
    Inspect,
    /// Powers off and reads it back. (Its name is not `Off`: a YAML 1.1 reader takes that for a boolean.)
    #[serde(rename = "PowerOff")]
    Off,
    /// Powers on and reads it back.
    #[serde(rename = "PowerOn")]
    On,
    /// Has the machine boot its installer once, from the network or from the medium that is inserted before, and reads that
    /// back. The boot session is published with its first request.
    SetBootOverride,
    /// Waits until the machine has fetched its boot script, or what runs from its medium has asked for its session.
    AwaitBoot,
    /// Takes the boot override away where it outlived its one boot, and reads that back.
    ClearBootOverride,
    /// Waits until the installed system has called home.
    AwaitInstall,
    /// Takes the medium out of the virtual CD drive, and reads that back. Only where a machine boots from one.
    EjectMedia,
    /// Waits until the wipe image has called home.
    AwaitWipe,
    /// Powers off for good and reads it back.
    OffForGood,
}

impl Step {
    /// Every step, in a fixed order.
    pub const ALL: [Self; 10] = [
        Self::Inspect,
        Self::Off,
        Self::On,
        Self::SetBootOverride,
        Self::AwaitBoot,
        Self::ClearBootOverride,
        Self::AwaitInstall,
        Self::EjectMedia,
        Self::AwaitWipe,
        Self::OffForGood,
    ];

    /// The name in the API, the database, logs and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inspect => "Inspect",
            Self::Off => "PowerOff",
            Self::On => "PowerOn",
            Self::SetBootOverride => "SetBootOverride",
            Self::AwaitBoot => "AwaitBoot",
            Self::ClearBootOverride => "ClearBootOverride",
            Self::AwaitInstall => "AwaitInstall",
            Self::EjectMedia => "EjectMedia",
            Self::AwaitWipe => "AwaitWipe",
            Self::OffForGood => "OffForGood",
        }
    }

    /// The step of that name; `None` for a name of another release.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.as_str() == name)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
