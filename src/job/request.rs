//! The stored request: what a worker writes down before it sends anything that changes a machine.

use serde::{Deserialize, Serialize};

/// A request that changes a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RequestKind {
    /// Asks the operating system to shut down.
    GracefulShutdown,
    /// Cuts the power.
    ForceOff,
    /// Switches the power on.
    PowerOn,
    /// Makes the next start, and no other, boot from the network by PXE.
    BootFromNetworkOnce,
    /// Makes the next start, and no other, boot from the network by UEFI HTTP.
    BootFromHttpOnce,
    /// Makes the next start, and no other, boot from the CD drive, where virtual media are.
    BootFromMediaOnce,
    /// Lets the machine boot in its own order again.
    ClearBootOverride,
    /// Puts an image into the virtual CD drive; its address is not part of what is stored.
    InsertMedia,
    /// Empties the virtual CD drive.
    EjectMedia,
}

impl RequestKind {
    /// The name in the database and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::GracefulShutdown => "GracefulShutdown",
            Self::ForceOff => "ForceOff",
            Self::PowerOn => "PowerOn",
            Self::BootFromNetworkOnce => "BootFromNetworkOnce",
            Self::BootFromHttpOnce => "BootFromHttpOnce",
            Self::BootFromMediaOnce => "BootFromMediaOnce",
            Self::ClearBootOverride => "ClearBootOverride",
            Self::InsertMedia => "InsertMedia",
            Self::EjectMedia => "EjectMedia",
        }
    }
}

/// What was stored before a request was sent. While it is there, nobody sends another one, advances, parks, undoes
/// or ends the job; it goes when the answer came, or after `settle_ms` and a probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredRequest {
    /// What is sent.
    pub kind: RequestKind,
    /// For how many milliseconds after it was stored the request may still take effect: the request's time-out and
    /// a margin. Judged on monotonic clocks only; a successor waits all of it from its own claim.
    pub settle_ms: i64,
}
