//! The Redfish backend: a client of the few resources that matter here.
//!
//! A call goes: `mod` (the verbs, their time, their metrics) - `find` (which system) - `read` (links, redirects) -
//! `login` (Basic, or a session for a turn) - `line` (the wire) - `answer` (what a status means: `class`, `message`, `plain`). `change` sends what changes the machine. `system`, `boot`,
//! `media`, `inventory` and `origin` judge what was read. `quirks` has the habits of BMCs, and `learnt` which of them were met.
#![expect(clippy::disallowed_methods, reason = "requests have deadlines")]

mod answer;
mod boot;
mod boot_change;
mod change;
mod class;
mod encoding;
mod find;
mod insertion;
mod inventory;
mod learnt;
mod line;
mod login;
mod media;
mod media_change;
mod message;
mod origin;
mod parts;
mod plain;
mod preconditions;
mod quirks;
mod read;
mod system;
mod task;
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
use self::find::Sought;
use self::learnt::{Learnt, OF_ONE_MAX};
pub(super) use self::line::{Asker, Secured};
use self::line::{Line, Route};
use self::login::NeedSessions;
use self::origin::{Origin, last_segment};
use self::preconditions::Place;
use self::quirks::{Habit, Maker};
use self::system::Reset;
use super::call::in_turn;
use super::credentials::Credentials;
use super::error::{BmcError, BmcErrorKind};
use super::gate::Gates;
use super::peers::{Experience, Peers};
use super::text::{self, Voice};
use super::{Beside, Bmc, BootOverride, ImageUrl, Media, Ours, Probe};
use crate::api::BootMode;
use crate::api::bmc_address::BmcAddress;
use crate::api::hardware::{HardwareIdentity, PowerState};
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
    used: Mutex<Used>,
    boot_mode: Option<BootMode>,
}

/// Which drive this client used.
#[derive(Debug, Default)]
struct Used {
    /// The path of the drive that was looked at last.
    drive: Option<String>,
    /// The task of an insertion that was still under way, and what was to be inserted.
    task: Option<(String, ImageUrl)>,
}

/// What the last read found.
#[derive(Debug, Clone)]
struct Found {
    path: String,
    /// Whether its BMC has other systems.
    has_siblings: bool,
    /// The same document, for preconditions.
    place: Place,
    power: PowerState,
    reset: Option<Reset>,
    /// What a boot override may name, where the BMC says it.
    boot_targets: Option<Vec<String>>,
    /// From where it boots by UEFI HTTP; `None`: it has no such setting.
    http_uri: Option<String>,
    /// The mode that it boots in, and those that it offers.
    boot_mode: Option<String>,
    boot_modes: Option<Vec<String>>,
    /// The names of its CD drive in an override, best first.
    cd_targets: &'static [&'static str],
    maker: Maker,
    /// The link to what takes the settings of the next start.
    settings: Option<Value>,
    media: media::Links,
}

impl Redfish {
    /// A client for the system of `address` at one of `peers`; `tls` is absent for plain HTTP. Overrides of the boot order are in
    /// `boot_mode`, where that is given. Sends nothing.
    pub(super) fn new(
        address: &BmcAddress,
        peers: Peers,
        credentials: &Credentials,
        tls: Option<Secured>,
        asker: Asker,
        times: Times,
        (shared, boot_mode): (Shared, Option<BootMode>),
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
        let (found, used) = (Mutex::new(None), Mutex::default());
        Some(Self { route, wanted, shared, times, found, used, boot_mode })
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
            let known = (self.shared.need_sessions.clone(), self.shared.learnt.clone());
            let mut line = Line::new(&self.route, done_by(Instant::now()), known, pass);
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
        let work = async |line: &mut Line<'_>| {
            line.limit = Some(time);
            work(line).await
        };
        self.call(operation, Instant::now() + self.times.inspect * 2, |start| start + time, work).await
    }

    /// Reads the system, by the shortest way that is known.
    async fn system_document(&self, line: &mut Line<'_>) -> Result<Document, BmcError> {
        let before = self.found();
        let Sought { document, has_siblings } = self.sought(line, before.as_ref()).await?;
        let mut reset = system::reset(&document.value);
        if let Some(reset) = reset.as_mut().filter(|reset| reset.offered.is_none()) {
            let known = before.and_then(|found| found.reset).filter(|known| known.target == reset.target);
            reset.offered =
                match (known.and_then(|known| known.offered), system::action_info(&document.value)) {
                    (Some(offered), _) => Some(offered),
                    (None, Some(info)) => self.described(line, &document.path, &info).await?,
                    (None, None) => None,
                };
        }
        let told = &document.value;
        let maker = Maker::of(told);
        self.remember(Some(Found {
            path: document.path.clone(),
            has_siblings,
            place: Place::of(&document),
            power: system::power(told),
            reset,
            boot_targets: boot::offered(told),
            http_uri: boot::http_uri(told),
            boot_mode: boot::mode(told),
            boot_modes: boot::modes(told),
            cd_targets: maker.cd_targets(told),
            maker,
            settings: boot::settings(told),
            media: media::Links::of(told),
        }));
        Ok(document)
    }

    /// The system's document, by the shortest way: where this client found it, where another of this process did, where the
    /// standard has it, or from the root.
    async fn sought(&self, line: &mut Line<'_>, before: Option<&Found>) -> Result<Sought, BmcError> {
        let (host, wanted) = (self.route.peers.host(), self.wanted.as_deref());
        let known = before
            .map(|found| learnt::System { path: found.path.clone(), has_siblings: found.has_siblings })
            .or_else(|| self.shared.learnt.of(host, |facts| facts.systems.get(&self.wanted).cloned()));
        if let Some(known) = known {
            match find::known(line, &known.path, wanted).await {
                Ok(document) => return Ok(Sought { document, has_siblings: known.has_siblings }),
                // What is not there any more is looked for from the root.
                Err(error) if matches!(error.kind, BmcErrorKind::NotFound | BmcErrorKind::Protocol) => {
                    self.remember(None);
                    self.shared.learnt.of(host, |facts| facts.systems.remove(&self.wanted));
                    if before.is_some() {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        let sought = find::system(line, wanted).await?;
        let system = learnt::System { path: sought.document.path.clone(), has_siblings: sought.has_siblings };
        self.shared.learnt.of(host, |facts| {
            if facts.systems.len() < OF_ONE_MAX {
                facts.systems.insert(self.wanted.clone(), system);
            }
        });
        Ok(sought)
    }

    /// The reset types that a description offers. One that is not there is not asked for again.
    async fn described(
        &self,
        line: &mut Line<'_>,
        at: &str,
        place: &Value,
    ) -> Result<Option<Vec<String>>, BmcError> {
        let (host, learnt) = (self.route.peers.host(), &self.shared.learnt);
        let key = place.to_string();
        if learnt.of(host, |facts| facts.no_description.contains(&key)) {
            return Ok(None);
        }
        let described = line.description(at, place).await?;
        if described.is_none() {
            learnt.of(host, |facts| {
                facts.no_description.len() < OF_ONE_MAX && facts.no_description.insert(key)
            });
        }
        Ok(described.as_ref().and_then(system::offered))
    }

    /// Which machine a document is of.
    fn identity(&self, document: &Document) -> HardwareIdentity {
        let identity = system::identity(&document.value);
        let has_siblings = self.found().is_some_and(|found| found.has_siblings);
        if !has_siblings || identity.uuid.is_some() || identity.serial_number.is_none() {
            return identity;
        }
        self.shared.learnt.met(self.route.peers.host(), Habit::NodesWithOneSerialNumber);
        HardwareIdentity { system: Some(text::printable(&last_segment(&document.path), 128)), ..identity }
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
        let work = async |line: &mut Line<'_>| {
            let document = self.system_document(line).await?;
            Ok(Probe {
                power: system::power(&document.value),
                identity: self.identity(&document),
                last_reset_time: system::last_reset_time(&document.value),
            })
        };
        self.reading("probe", self.times.request * 2, work).boxed()
    }

    fn inspect(&self) -> BoxFuture<'_, Result<Reading, BmcError>> {
        let work = async |line: &mut Line<'_>| {
            let document = self.system_document(line).await?;
            let hardware = inventory::read(line, &document).await?;
            let told: &Value = &document.value;
            Ok(Reading {
                power: system::power(told),
                identity: self.identity(&document),
                hardware,
                last_reset_time: system::last_reset_time(told),
            })
        };
        self.reading("inspect", self.times.inspect, work).boxed()
    }

    fn is_switchable(&self) -> bool {
        self.found().is_none_or(|found| found.reset.is_some())
    }

    fn systems(&self) -> BoxFuture<'_, Result<Vec<String>, BmcError>> {
        let work = async |line: &mut Line<'_>| {
            let members = find::members(line).await?;
            let found = find::switchable(line, &members).await?;
            Ok(found.iter().map(|one| last_segment(&one.path)).collect())
        };
        self.reading("systems", self.times.inspect, work).boxed()
    }

    fn boot_override(&self) -> BoxFuture<'_, Result<BootOverride, BmcError>> {
        let work = async |line: &mut Line<'_>| self.read_boot(line).await;
        self.reading("boot_override", self.times.request * 2, work).boxed()
    }

    fn media_of<'a>(&'a self, ours: Ours<'a>) -> BoxFuture<'a, Result<Media, BmcError>> {
        let work = async |line: &mut Line<'_>| {
            self.system_document(line).await?;
            self.read_media(line, ours).await
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
