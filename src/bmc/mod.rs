//! BMCs: one trait with few verbs, and the backends that speak it. Of the processes only workers use it; `import`, a
//! command that a person gives, reads through it.
//!
//! A backend does one thing for each call and never repeats one by itself: when to try again is the worker's decision.

mod boot_override;
mod call;
mod connector;
pub mod credentials;
mod error;
mod gate;
mod ipmi;
mod key;
mod media;
pub mod network;
mod own;
mod peers;
mod redfish;
mod repeats;
mod text;
mod tls;

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use futures::future::BoxFuture;

use crate::api::hardware::{HardwareIdentity, PowerState};
use crate::job::{Reading, RequestKind};
pub use boot_override::{BootOverride, OverrideEnabled, OverrideTarget};
pub use connector::{Connector, ConnectorSettings, IpmiLan, PlainHttp, UnverifiedTls};
pub use error::{BmcError, BmcErrorKind, Delivery};
pub use ipmi::SHORTEST_REQUEST as SHORTEST_IPMI_REQUEST;
pub use media::{Beside, ImageUrl, ImageUrlError, Media, Ours};
pub use tls::{Trust, pin};

/// What a cheap read tells: enough to judge whether a request took effect, and whether it is still the same machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The power state.
    pub power: PowerState,
    /// Which machine answered.
    pub identity: HardwareIdentity,
    /// `LastResetTime` as the BMC writes it, where it has one.
    pub last_reset_time: Option<String>,
}

/// A machine, through its BMC. One value belongs to one claim of one job.
pub trait Bmc: Send + Sync + fmt::Debug {
    /// The address that was resolved, judged and connected to; before the first answer the one that is tried first.
    fn peer(&self) -> SocketAddr;

    /// Every address that may be connected to: the one that answered alone, once one has.
    fn peers(&self) -> Vec<SocketAddr>;

    /// What tells this BMC from others: its host and each of its addresses. Two that share one of them are one BMC.
    fn lines(&self) -> BTreeSet<String>;

    /// The id of the system behind that address, once a read has found it.
    fn system(&self) -> Option<String>;

    /// Reads power and identity.
    fn probe(&self) -> BoxFuture<'_, Result<Probe, BmcError>>;

    /// Reads everything that status shows.
    fn inspect(&self) -> BoxFuture<'_, Result<Reading, BmcError>>;

    /// Whether the system that the last read found can be switched; true where nothing was read.
    fn is_switchable(&self) -> bool;

    /// The ids of the systems behind its BMC that can be switched; none where a backend knows no such thing, or where there are
    /// more than eight.
    fn systems(&self) -> BoxFuture<'_, Result<Vec<String>, BmcError>>;

    /// Reads the override of the boot order.
    fn boot_override(&self) -> BoxFuture<'_, Result<BootOverride, BmcError>>;

    /// Reads what is in the virtual CD drive that is used: of several it is one with a medium of ours, else an empty one.
    fn media_of<'a>(&'a self, ours: Ours<'a>) -> BoxFuture<'a, Result<Media, BmcError>>;

    /// [`Bmc::media_of`] of somebody who has no medium yet.
    fn media(&self) -> BoxFuture<'_, Result<Media, BmcError>> {
        self.media_of(&|_| false)
    }

    /// Sends the one HTTP (or IPMI) request that changes the machine, after a [`Bmc::probe`] of the same value found
    /// where to send it. It is over within `within`, waiting for the BMC's turn and connecting included;
    /// [`BmcError::delivery`] tells whether it may have arrived.
    fn send_with<'a>(
        &'a self,
        request: RequestKind,
        beside: Beside<'a>,
        within: Duration,
    ) -> BoxFuture<'a, Result<(), BmcError>>;

    /// [`Bmc::send_with`] of a request that needs nothing beside its kind.
    fn send(&self, request: RequestKind, within: Duration) -> BoxFuture<'_, Result<(), BmcError>> {
        self.send_with(request, Beside::Nothing, within)
    }
}
