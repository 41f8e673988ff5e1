//! The IPMI backend, for machines without Redfish: `ipmitool`, once for each thing that is asked.
//!
//! A call goes: `mod` (the verbs, their time) - `tool` (the child process) - `answer` (what its output means) - `told`
//! (values). `suite` knows the cipher suites.
//!
//! A request that changes the machine is one run in which each packet is sent once. It is killed when its time is over.
//! Where the worker itself dies, the run goes on by itself; its packets have so little patience that all of them together
//! fit into about the time of the request.
#![expect(clippy::disallowed_methods, reason = "requests have deadlines")]

mod answer;
mod suite;
mod told;
mod tool;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use secrecy::ExposeSecret as _;
use tokio::time::Instant;

use self::answer::{Meaning, Verb};
use self::suite::Suites;
use self::tool::{NoOutput, PROGRAM, Packets, Tool};
use super::call::in_turn;
use super::credentials::Credentials;
use super::error::{BmcError, BmcErrorKind, Delivery};
use super::gate::Gates;
use super::own;
use super::peers::{Experience, Peers, share};
use super::{Beside, Bmc, BootOverride, Media, Ours, Probe};
use crate::api::hardware::HardwareIdentity;
use crate::job::{Reading, RequestKind};

/// What IPMI 2.0 carries, in bytes.
const USERNAME_MAX: usize = 16;
const PASSWORD_MAX: usize = 20;

/// How long calls may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) request: Duration,
    pub(super) inspect: Duration,
}

/// What a process shares between all of its BMCs.
#[derive(Debug, Clone, Default)]
pub(super) struct Shared {
    gates: Gates,
    suites: Suites,
    pub(super) experience: Experience,
}

/// The machine behind an IPMI BMC.
#[derive(Debug)]
pub(super) struct Ipmi {
    tool: Tool,
    peers: Peers,
    shared: Shared,
    times: Times,
    found: Mutex<Option<HardwareIdentity>>,
}

/// What a request is for ipmitool.
enum Change {
    /// This, after what may be refused.
    Run(&'static [Verb], Verb),
    /// IPMI has no such thing.
    Unknown(&'static str),
}

impl Change {
    const fn of(kind: RequestKind) -> Self {
        const MEDIA: &str = "has no virtual media, because IPMI knows none: use bootMethod PXE, or Redfish";
        match kind {
            RequestKind::GracefulShutdown => Self::Run(&[], Verb::SOFT),
            RequestKind::ForceOff => Self::Run(&[], Verb::OFF),
            RequestKind::PowerOn => Self::Run(&[], Verb::ON),
            RequestKind::BootFromNetworkOnce => Self::Run(&[Verb::KEEP_BOOT_FLAGS], Verb::BOOT_PXE),
            RequestKind::ClearBootOverride => Self::Run(&[], Verb::BOOT_NONE),
            RequestKind::BootFromHttpOnce => Self::Unknown(
                "cannot be told to boot over HTTP, because IPMI does not know it: use bootMethod PXE",
            ),
            RequestKind::BootFromMediaOnce | RequestKind::InsertMedia | RequestKind::EjectMedia => {
                Self::Unknown(MEDIA)
            }
        }
    }
}

impl Ipmi {
    /// A client for `address` at one of `peers`. Sends nothing.
    pub(super) fn new(
        peers: Peers,
        credentials: Credentials,
        times: Times,
        shared: Shared,
    ) -> Result<Self, BmcError> {
        let Credentials { username, password } = credentials;
        for (key, text, max) in [
            ("username", username.as_str(), USERNAME_MAX),
            ("password", password.expose_secret(), PASSWORD_MAX),
        ] {
            if text.len() > max || text.contains('\0') {
                let message = format!(
                    "the Secret of spec.bmc.credentialsRef has a {key:?} that IPMI cannot carry: give the account one of at \
                     most {max} bytes"
                );
                return Err(BmcError::new(BmcErrorKind::Credentials, Delivery::NotSent, message));
            }
        }
        Ok(Self {
            tool: Tool { program: (PROGRAM, &[]), username, password },
            peers,
            shared,
            times,
            found: Mutex::new(None),
        })
    }

    /// Asks at each address in turn until one answers; then only there.
    async fn ask(&self, verb: Verb, packets: Packets, by: Instant) -> Result<String, BmcError> {
        let peers = self.peers.to_try();
        let mut silent = Vec::new();
        for (at, peer) in peers.iter().enumerate() {
            let asked = self.ask_at(*peer, verb, packets, share(Instant::now(), by, peers.len() - at)).await;
            match asked {
                Err(error) if matches!(error.kind, BmcErrorKind::Unreachable | BmcErrorKind::Timeout) => {
                    self.peers.silent(*peer);
                    silent.push((*peer, error));
                }
                other => {
                    if !matches!(&other, Err(error) if error.kind == BmcErrorKind::Worker) {
                        self.peers.answered(*peer);
                    }
                    return other;
                }
            }
        }
        let all: Vec<String> = silent.iter().map(|(peer, _)| peer.to_string()).collect();
        let Some((_, mut last)) = silent.pop() else {
            return Err(self.error(BmcErrorKind::Unreachable, Delivery::NotSent, "has no address"));
        };
        if all.len() > 1 {
            last.message = format!("{} (asked at each of its addresses: {})", last.message, all.join(", "));
        }
        Err(last)
    }

    /// One run of ipmitool, or two where the BMC refuses the better cipher suite, after which nothing was sent yet.
    async fn ask_at(
        &self,
        peer: SocketAddr,
        verb: Verb,
        packets: Packets,
        by: Instant,
    ) -> Result<String, BmcError> {
        let (suites, host) = (&self.shared.suites, self.peers.host());
        for suite in suites.to_try(host) {
            let output = self.tool.run(peer, *suite, packets, verb.arguments, by).await;
            let output = output.map_err(|none| self.no_output(&none, packets))?;
            match answer::judge(verb, &output) {
                Meaning::Done => {
                    suites.accepted(host, *suite);
                    return Ok(output.stdout);
                }
                Meaning::SuiteRefused => suites.refused(host),
                Meaning::Failed(failure) => {
                    return Err(self.error(failure.kind, failure.delivery, &failure.text));
                }
            }
        }
        let text = "speaks neither of the IPMI cipher suites 17 and 3: enable one of them there";
        Err(self.error(BmcErrorKind::Tls, Delivery::NotSent, text))
    }

    /// Reads what has to be there.
    async fn read(&self, verb: Verb, until: Instant) -> Result<String, BmcError> {
        self.ask(verb, Packets::Repeated, until.min(Instant::now() + self.times.request)).await
    }

    /// Reads what a BMC may not have: then it is nothing.
    async fn optional(&self, verb: Verb, until: Instant) -> Result<String, BmcError> {
        self.read(verb, until).await.or_else(|error| match (&error.kind, error.delivery) {
            (BmcErrorKind::Busy(_), _) => Err(error),
            (_, Delivery::Answered) => Ok(String::new()),
            _ => Err(error),
        })
    }

    async fn probe_by(&self, until: Instant) -> Result<Probe, BmcError> {
        let power = told::power(&self.read(Verb::POWER_STATUS, until).await?);
        let uuid = told::uuid(&self.optional(Verb::GUID, until).await?);
        // Slow to read, and as good as the GUID that it was read with.
        let known = self.found().filter(|found| found.uuid.is_some() && found.uuid == uuid);
        let serial_number = match known {
            Some(known) => known.serial_number,
            None => told::serial(&self.optional(Verb::FRU, until).await?),
        };
        let identity = HardwareIdentity { serial_number, uuid, system: None };
        self.remember(identity.clone());
        Ok(Probe { power, identity, last_reset_time: None })
    }

    async fn inspect_by(&self, until: Instant) -> Result<Reading, BmcError> {
        let power = told::power(&self.read(Verb::POWER_STATUS, until).await?);
        let uuid = told::uuid(&self.optional(Verb::GUID, until).await?);
        let fru = self.optional(Verb::FRU, until).await?;
        let controller = self.optional(Verb::CONTROLLER, until).await?;
        let identity = HardwareIdentity { serial_number: told::serial(&fru), uuid, system: None };
        self.remember(identity.clone());
        let hardware = told::hardware(&identity, &fru, &controller);
        Ok(Reading { power, identity, hardware, last_reset_time: None })
    }

    async fn boot_override_by(&self, until: Instant) -> Result<BootOverride, BmcError> {
        told::boot_override(&self.read(Verb::BOOT_FLAGS, until).await?).ok_or_else(|| {
            self.error(BmcErrorKind::Protocol, Delivery::Answered, "shows boot flags that cannot be read")
        })
    }

    async fn act(&self, kind: RequestKind, within: Duration) -> Result<(), BmcError> {
        let until = Instant::now() + within;
        let unsent = |kind, text| Err(self.error(kind, Delivery::NotSent, text));
        let (before, verb) = match Change::of(kind) {
            Change::Run(before, verb) => (before, verb),
            Change::Unknown(text) => return unsent(BmcErrorKind::Unsupported, text),
        };
        if self.found().is_none() {
            return unsent(BmcErrorKind::NotFound, "was not read before something was to be sent to it");
        }
        let packets = Packets::Once(wait_for_a_packet(within));
        in_turn(self.line(), kind.as_str(), until, async |_pass| {
            for verb in before {
                match self.ask(*verb, packets, until).await {
                    Err(error) if error.delivery != Delivery::Answered => {
                        // What was asked for was not sent yet.
                        return Err(BmcError { delivery: Delivery::NotSent, ..error });
                    }
                    _ => {}
                }
            }
            self.ask(verb, packets, until).await.map(|_| ())
        })
        .await
    }

    fn line(&self) -> (&Gates, &Peers) {
        (&self.shared.gates, &self.peers)
    }

    /// Reads for as long as `time`, after a turn that may take longer.
    async fn reading<T, W>(&self, operation: &'static str, time: Duration, work: W) -> Result<T, BmcError>
    where
        W: AsyncFnOnce(Instant) -> Result<T, BmcError>,
    {
        let turn_by = Instant::now() + self.times.inspect * 2;
        in_turn(self.line(), operation, turn_by, async |_pass| work(Instant::now() + time).await).await
    }

    fn no_output(&self, none: &NoOutput, packets: Packets) -> BmcError {
        let own = |text: String| own::trouble(format!("the BMC {} {text}", self.peers.host()));
        let (kind, delivery, text) = match none {
            NoOutput::Missing => {
                return own(format!(
                    "cannot be asked: this worker has no {PROGRAM} in its PATH; install it where workers run (package \
                     {PROGRAM}), or use a redfish+https:// address"
                ));
            }
            NoOutput::NotStarted(error) => {
                let why = own::cause(error).map_or_else(|| own::told(error), str::to_owned);
                return own(format!("cannot be asked: {PROGRAM} cannot be started on this worker ({why})"));
            }
            NoOutput::Broken(error) => {
                let why = own::told(error);
                let error = own(format!("was asked, and the output of {PROGRAM} cannot be read ({why})"));
                return BmcError { delivery: Delivery::Unknown, ..error };
            }
            NoOutput::Late => (
                BmcErrorKind::Timeout,
                Delivery::Unknown,
                match packets {
                    Packets::Repeated => {
                        format!(
                            "did not answer in time (--request-timeout is {} s)",
                            self.times.request.as_secs()
                        )
                    }
                    Packets::Once(_) => "did not answer in time".to_owned(),
                },
            ),
            NoOutput::TooMuch => (
                BmcErrorKind::Protocol,
                Delivery::Unknown,
                "answered with more than a BMC has to say".to_owned(),
            ),
        };
        self.error(kind, delivery, &text)
    }

    fn error(&self, kind: BmcErrorKind, delivery: Delivery, text: &str) -> BmcError {
        BmcError::new(kind, delivery, format!("the BMC {} {text}", self.peers.host()))
    }

    fn found(&self) -> Option<HardwareIdentity> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn remember(&self, identity: HardwareIdentity) {
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(identity);
    }
}

impl Bmc for Ipmi {
    fn peer(&self) -> SocketAddr {
        self.peers.one()
    }

    fn peers(&self) -> Vec<SocketAddr> {
        self.peers.to_try().to_vec()
    }

    fn lines(&self) -> BTreeSet<String> {
        self.peers.lines()
    }

    fn system(&self) -> Option<String> {
        None
    }

    fn probe(&self) -> BoxFuture<'_, Result<Probe, BmcError>> {
        self.reading("probe", self.times.request * 2, async |until| self.probe_by(until).await).boxed()
    }

    fn inspect(&self) -> BoxFuture<'_, Result<Reading, BmcError>> {
        self.reading("inspect", self.times.inspect, async |until| self.inspect_by(until).await).boxed()
    }

    fn boot_override(&self) -> BoxFuture<'_, Result<BootOverride, BmcError>> {
        let work = async |until| self.boot_override_by(until).await;
        self.reading("boot_override", self.times.request * 2, work).boxed()
    }

    fn is_switchable(&self) -> bool {
        true
    }

    fn systems(&self) -> BoxFuture<'_, Result<Vec<String>, BmcError>> {
        futures::future::ready(Ok(Vec::new())).boxed()
    }

    fn media_of<'a>(&'a self, _ours: Ours<'a>) -> BoxFuture<'a, Result<Media, BmcError>> {
        futures::future::ready(Ok(Media::NoDrive)).boxed()
    }

    fn send_with<'a>(
        &'a self,
        request: RequestKind,
        _beside: Beside<'a>,
        within: Duration,
    ) -> BoxFuture<'a, Result<(), BmcError>> {
        self.act(request, within).boxed()
    }
}

/// The shortest time of a request: ipmitool waits for each of its packets in whole seconds.
pub const SHORTEST_REQUEST: Duration = Duration::from_secs(6);

/// How long each packet of a change is waited for. A session takes some six packets before the first one that counts, so
/// that all of them together end with the request's time, also where the worker that watches over it is dead.
fn wait_for_a_packet(within: Duration) -> Duration {
    (within / 6).clamp(Duration::from_secs(1), Duration::from_secs(5))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn the_packets_of_a_session_together_are_not_waited_for_longer_than_the_request() {
        for seconds in SHORTEST_REQUEST.as_secs()..=120 {
            let within = Duration::from_secs(seconds);
            assert!(wait_for_a_packet(within) * 6 <= within, "{seconds}");
        }
    }

    #[test]
    fn a_login_that_ipmi_cannot_carry_is_refused_before_anything_is_sent() {
        let times = Times { request: Duration::from_secs(1), inspect: Duration::from_secs(1) };
        let open = |username: usize, password: usize| {
            let login = Credentials { username: "u".repeat(username), password: "p".repeat(password).into() };
            let peer = SocketAddr::from(([192, 0, 2, 7], 623));
            let peers = Peers::new("192.0.2.7:623".to_owned(), peer, &[], Experience::default());
            Ipmi::new(peers, login, times, Shared::default())
        };
        assert!(open(16, 20).is_ok());
        for (username, password) in [(17, 20), (16, 21)] {
            let error = open(username, password).unwrap_err();
            assert_eq!((&error.kind, error.delivery), (&BmcErrorKind::Credentials, Delivery::NotSent));
            assert!(!error.message.contains("ppp"), "{error}");
        }
    }

    #[tokio::test]
    async fn an_address_that_is_silent_leads_to_the_next_one() {
        let peers = |shared: &Shared| {
            let at = |last| SocketAddr::from(([192, 0, 2, last], 623));
            Peers::new("bmc.example:623".to_owned(), at(1), &[at(2)], shared.experience.clone())
        };
        let shared = Shared::default();
        let times = Times { request: Duration::from_mins(1), inspect: Duration::from_mins(1) };
        let login = || Credentials { username: "u".to_owned(), password: "p".to_owned().into() };
        let mut bmc = Ipmi::new(peers(&shared), login(), times, shared.clone()).unwrap();
        bmc.tool.program = (
            "sh",
            &[
                "-c",
                r#"case "$*" in *192.0.2.1*) echo "Error: Unable to establish IPMI v2 / RMCP+ session" >&2;; *) echo "Chassis Power is on";; esac"#,
                "sh",
            ],
        );
        let until = Instant::now() + times.request;
        assert_eq!(bmc.read(Verb::POWER_STATUS, until).await.unwrap(), "Chassis Power is on\n");
        assert_eq!(bmc.peer().ip().to_string(), "192.0.2.2");
        assert_eq!(peers(&shared).one(), bmc.peer());
        bmc.tool.program = ("sh", &["-c", "echo Error: Unable to establish >&2"]);
        bmc.peers = peers(&Shared::default());
        let error = bmc.read(Verb::POWER_STATUS, until).await.unwrap_err();
        assert_eq!(error.kind, BmcErrorKind::Unreachable);
        assert!(error.message.contains("192.0.2.1:623, 192.0.2.2:623"), "{error}");
    }
}
