//! Steps: the small durable pieces of an action.

use std::fmt;
use std::time::Duration;

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
}

impl Step {
    /// Every step, in a fixed order.
    pub const ALL: [Self; 3] = [Self::Inspect, Self::Off, Self::On];

    /// The name in the API, the database, logs and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inspect => "Inspect",
            Self::Off => "PowerOff",
            Self::On => "PowerOn",
        }
    }

    /// The step of that name; `None` for a name of another release.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.as_str() == name)
    }

    /// How long the step may take once the BMC answers, from the first time that it ran; after that the job fails
    /// for good. `None`: it is tried for ever (an unreachable BMC is no failure of the step).
    pub const fn deadline(self) -> Option<Duration> {
        match self {
            Self::Inspect => None,
            // A graceful shutdown has its own, shorter deadline before it is forced (`--shutdown-deadline`).
            Self::Off => Some(Duration::from_mins(10)),
            Self::On => Some(Duration::from_mins(5)),
        }
    }

    /// Whether the step sends requests that change the machine.
    pub const fn mutates(self) -> bool {
        match self {
            Self::Inspect => false,
            Self::Off | Self::On => true,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
