//! The Redfish backend: a client of the few resources that matter here.
//!
//! A call goes: `mod` (the verbs, their time, their metrics) - `find` (which system) - `read` (links, redirects) -
//! `login` (Basic, or a session for a turn) - `line` (the wire) - `answer` (what a status means: `class`, `message`, `plain`). `change` sends what changes the machine. `system`, `boot`,
//! `media`, `inventory` and `origin` judge what was read. `quirks` has the habits of BMCs, and `learnt` which of them were met.
#![expect(clippy::disallowed_methods, reason = "requests have deadlines")]

mod answer;
mod boot;
mod change;
mod class;
mod encoding;
mod find;
mod inventory;
mod learnt;
mod line;
mod login;
mod media;
mod message;
mod origin;
mod plain;
mod preconditions;
mod quirks;
mod read;
mod system;
#[cfg(test)]
mod tests;
mod unopened;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::HeaderValue;
use serde_json::Value;
use tokio::time::Instant;

use self::answer::Document;
pub(super) use self::line::{Asker, Secured};
use self::learnt::Learnt;
use self::line::{Line, Route};
use self::login::NeedSessions;
use self::origin::{Origin, last_segment};
use self::preconditions::Place;
use self::system::Reset;
use super::call::in_turn;
use super::credentials::Credentials;
use super::error::{BmcError, BmcErrorKind};
use super::gate::Gates;
use super::peers::{Experience, Peers};
use super::text::{self, Voice};
use super::{Beside, Bmc, BootOverride, Media, Probe};
use crate::api::bmc_address::BmcAddress;
use crate::api::hardware::PowerState;
use crate::job::{Reading, RequestKind};

/// How long calls may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) connect: Duration,
    pub(super) request: Duration,
    pub(super) inspect: Duration,
}

/// What a process shares between all of its BMCs.
#[derive(Debug, Clone, Default)]
pub(super) struct Shared {
    pub(super) gates: Gates,
    pub(super) learnt: Learnt,
    pub(super) need_sessions: NeedSessions,
    pub(super) experience: Experience,
}

/// One machine behind a Redfish BMC.
#[derive(Debug)]
pub(super) struct Redfish {
    route: Route,
    wanted: Option<String>,
    shared: Shared,
    times: Times,
    found: Mutex<Option<Found>>,
}

/// What the last read found.
#[derive(Debug, Clone)]
struct Found {
    path: String,
    /// The same document, for preconditions.
    place: Place,
    power: PowerState,
    reset: Option<Reset>,
    /// What a boot override may name, where the BMC says it.
    boot_targets: Option<Vec<String>>,
    /// From where it boots by UEFI HTTP; `None`: it has no such setting.
    http_uri: Option<String>,
    media: media::Links,
}

impl Redfish {
    /// A client for the system of `address` at one of `peers`; `tls` is absent for plain HTTP. Sends nothing.
    pub(super) fn new(
        address: &BmcAddress,
        peers: Peers,
        credentials: &Credentials,
        tls: Option<Secured>,
        asker: Asker,
        times: Times,
        shared: Shared,
    ) -> Option<Self> {
        let origin = Origin::of(address)?;
        let mut authorization = HeaderValue::from_str(&format!("Basic {}", text::login(credentials))).ok()?;
        authorization.set_sensitive(true);
        let route = Route {
            origin,
            peers,
            tls,
            authorization,
            opening: login::opening(credentials),
            asker,
            connect_timeout: times.connect,
            request_timeout: times.request,
            voice: Voice::new(address.host_and_port(), credentials),
        };
        let wanted = address.system().map(str::to_owned);
        Some(Self { route, wanted, shared, times, found: Mutex::new(None) })
    }

    /// Waits for the BMC's turn until `turn_by`, then runs `work`, which has until `done_by` told from then.
    async fn call<T, W>(
        &self,
        operation: &'static str,
        turn_by: Instant,
        done_by: impl FnOnce(Instant) -> Instant,
        work: W,
    ) -> Result<T, BmcError>
    where
        W: AsyncFnOnce(&mut Line<'_>) -> Result<T, BmcError>,
    {
        let line = (&self.shared.gates, &self.route.peers);
        in_turn(line, operation, turn_by, async |pass| {
            let need_sessions = self.shared.need_sessions.clone();
            let mut line = Line::new(&self.route, done_by(Instant::now()), need_sessions, pass);
            let done = match line.prepare().await {
                Ok(()) => work(&mut line).await,
                Err(error) => Err(error),
            };
            line.log_out().await;
            done
        })
        .await
    }

    /// Reads for as long as `time`, after a turn that may take longer: others of the same BMC may be under inspection.
    async fn reading<T, W>(&self, operation: &'static str, time: Duration, work: W) -> Result<T, BmcError>
    where
        W: AsyncFnOnce(&mut Line<'_>) -> Result<T, BmcError>,
    {
        self.call(operation, Instant::now() + self.times.inspect * 2, |start| start + time, work).await
    }

    /// Reads the system, by the shortest way that is known.
    async fn system_document(&self, line: &mut Line<'_>) -> Result<Document, BmcError> {
        let before = self.found();
        let read = match &before {
            Some(found) => find::known(line, &found.path, self.wanted.as_deref()).await,
            None => find::system(line, self.wanted.as_deref()).await,
        };
        let document = match read {
            Ok(document) => document,
            Err(error) => {
                // What is not there any more is looked for from the root the next time.
                if matches!(error.kind, BmcErrorKind::NotFound | BmcErrorKind::Protocol) {
                    self.remember(None);
                }
                return Err(error);
            }
        };
        let mut reset = system::reset(&document.value);
        if let Some(reset) = reset.as_mut().filter(|reset| reset.offered.is_none()) {
            let known = before.and_then(|found| found.reset).filter(|known| known.target == reset.target);
            reset.offered =
                match (known.and_then(|known| known.offered), system::action_info(&document.value)) {
                    (Some(offered), _) => Some(offered),
                    (None, Some(info)) => {
                        line.description(&document.path, &info).await?.as_ref().and_then(system::offered)
                    }
                    (None, None) => None,
                };
        }
        let (path, place) = (document.path.clone(), Place::of(&document));
        let boot_targets = boot::offered(&document.value);
        let media = media::Links::of(&document.value);
        let http_uri = boot::http_uri(&document.value);
        let power = system::power(&document.value);
        self.remember(Some(Found { path, place, power, reset, boot_targets, http_uri, media }));
        Ok(document)
    }

    fn found(&self) -> Option<Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn remember(&self, found: Option<Found>) {
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }
}

impl Bmc for Redfish {
    fn peer(&self) -> SocketAddr {
        self.route.peers.one()
    }

    fn peers(&self) -> Vec<SocketAddr> {
        self.route.peers.to_try().to_vec()
    }

    fn lines(&self) -> BTreeSet<String> {
        self.route.peers.lines()
    }

    fn system(&self) -> Option<String> {
        self.found().map(|found| last_segment(&found.path))
    }

    fn probe(&self) -> BoxFuture<'_, Result<Probe, BmcError>> {
        let work = async |line: &mut Line<'_>| Ok(system::probe(&self.system_document(line).await?.value));
        self.reading("probe", self.times.request * 2, work).boxed()
    }

    fn inspect(&self) -> BoxFuture<'_, Result<Reading, BmcError>> {
        let work = async |line: &mut Line<'_>| {
            let document = self.system_document(line).await?;
            let hardware = inventory::read(line, &document).await?;
            let told: &Value = &document.value;
            Ok(Reading {
                power: system::power(told),
                identity: system::identity(told),
                hardware,
                last_reset_time: system::last_reset_time(told),
            })
        };
        self.reading("inspect", self.times.inspect, work).boxed()
    }

    fn boot_override(&self) -> BoxFuture<'_, Result<BootOverride, BmcError>> {
        let work = async |line: &mut Line<'_>| Ok(boot::read(&self.system_document(line).await?.value));
        self.reading("boot_override", self.times.request * 2, work).boxed()
    }

    fn media(&self) -> BoxFuture<'_, Result<Media, BmcError>> {
        let work = async |line: &mut Line<'_>| {
            let system = self.system_document(line).await?;
            let links = media::Links::of(&system.value);
            let drive = media::drive(line, &system.path, &links).await?;
            Ok(drive.map_or(Media::NoDrive, |drive| media::read(&drive.value)))
        };
        self.reading("media", self.times.inspect, work).boxed()
    }

    fn send_with<'a>(
        &'a self,
        request: RequestKind,
        beside: Beside<'a>,
        within: Duration,
    ) -> BoxFuture<'a, Result<(), BmcError>> {
        self.act(request, beside, within).boxed()
    }
}
