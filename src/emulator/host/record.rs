//! What hosts did by themselves, for the log.

use serde::Serialize;

use super::super::time::Millis;

/// One act of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostEntry {
    /// Grows by one with every entry of the fleet, requests included.
    pub seq: u64,
    /// When, in milliseconds since the start of the fleet.
    pub at_ms: Millis,
    /// Which system.
    pub system: String,
    /// What it did.
    pub act: HostAct,
}

/// What a host does that a test may want to count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind")]
pub enum HostAct {
    /// An installer runs.
    InstallerStarted,
    /// It writes to the disk: what was on it is gone.
    WriteBegun {
        /// The digest of the image.
        digest: String,
    },
    /// The image is on the disk, whole.
    Written {
        /// The digest of the image.
        digest: String,
    },
    /// It erases the disks: what was on them is gone.
    WipeBegun,
    /// The disks are empty.
    Wiped,
    /// `installed` was posted.
    CalledHome {
        /// What was answered.
        status: u16,
    },
    /// A network boot or a call home came to nothing.
    GaveUp {
        /// On the way to what.
        stage: Stage,
        /// Why.
        why: Why,
    },
}

impl HostAct {
    /// Whether data is lost by it.
    pub const fn destroys(&self) -> bool {
        matches!(self, Self::WriteBegun { .. } | Self::WipeBegun)
    }
}

/// The parts of a network boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Stage {
    /// The boot script.
    Script,
    /// The session of what runs from virtual media.
    Session,
    /// The kernel and the initial RAM disks, or the ISO.
    Payload,
    /// The kernel's arguments.
    Orders,
    /// `booted`.
    Booted,
    /// The install data.
    InstallData,
    /// `progress`.
    Progress,
    /// `failed`.
    Failed,
    /// `installed`.
    Installed,
}

/// Why one came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "kind")]
pub enum Why {
    /// Nobody told the network where the boot service is.
    #[error("the fleet has no boot URL")]
    NoBootService,
    /// No answer, or only ones that say "later", as often as it was tried.
    #[error("the boot service does not answer")]
    Unreachable,
    /// An answer that is none of success and none of "later".
    #[error("the boot service answers {status}")]
    Refused {
        /// Its status.
        status: u16,
    },
    /// What came cannot be followed.
    #[error("{error}")]
    NotUnderstood {
        /// Where and why.
        error: String,
    },
}
