//! From a claim to a BMC that may be spoken to: the live `Server`, its Secret, leave to log in, the first look, and
//! the proof that it is the right machine and nobody else's.

use std::net::SocketAddr;

use k8s_openapi::api::core::v1::Secret;
use sha2::Digest as _;

use super::live::Unavailable;
use super::refused;
use super::turns::{Asks, Turn, Wait};
use super::{Halt, Surroundings};
use crate::api::bmc_address::BmcAddress;
use crate::api::hardware::HardwareIdentity;
use crate::api::{BmcSpec, BmcTls, ImageKind, OSImage, Reason, Server, names};
use crate::bmc::credentials::{Credentials, content_hash};
use crate::bmc::{Bmc, BmcError, BmcErrorKind, Probe, Trust, pin};
use crate::job::{
    Action, Cause, Circumstance, Deleting, Intent, Problem, ReconcileRequest, SecretVersion, ServerUid, Wish,
};
use crate::queue::{
    BmcClaimed, BmcKey, Claim, Claimant, LoginEnd, LoginKey, LoginLeave, LoginPeer, MachineKey,
};

/// Why there is no session now.
#[derive(Debug)]
pub(super) enum NoSession {
    /// The API did not answer.
    Api(Problem),
    /// There are no credentials that may be tried.
    Credentials(Problem),
    /// The BMC refused these credentials: they are tried again then, in so many milliseconds.
    Refused(Problem, Option<i64>),
    /// Others are trying these credentials right now.
    LoginBusy,
    /// It is another job's turn at this BMC.
    Turn(Wait),
    /// Another `Server` holds the machine; the refusal is stored where the controller sees it.
    Claimed(Problem),
    /// The BMC, or what is said about it, is in the way.
    Bmc(BmcError),
    /// Not the machine that answered before, or an address or a CA that cannot be used.
    Wrong(Problem),
}

/// What is asked for right now.
#[derive(Debug, Clone)]
pub(super) struct Asking {
    /// The object.
    pub server: Server,
    /// The `OSImage` that the action boots; `None`: none is named, there is none of that name, it boots none, or it was not read.
    pub image: Option<BootImage>,
}

/// An `OSImage` that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BootImage {
    /// Its name.
    pub name: String,
    /// The digest of its spec.
    pub digest: String,
    /// How machines boot it.
    pub kind: ImageKind,
    /// Why no machine can be given it, as far as the object alone tells.
    pub flaw: Option<String>,
}

/// A `Server` as it stands now, or what is left of it.
pub(super) enum Live {
    /// It is there.
    Present(Box<Asking>),
    /// It is gone, or another one has its name.
    Gone,
}

/// Whether what an action boots is read as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadImage {
    /// It decides.
    Yes,
    /// What is booted was decided before the first request.
    No,
}

/// Reads the server of a claim, and what its action boots.
pub(super) async fn read(around: &Surroundings, claim: &Claim, images: ReadImage) -> Result<Live, Problem> {
    let reader = &around.live;
    let found = reader.server(claim.namespace(), claim.name()).await.map_err(|error| away(&error))?;
    let Some(server) = found.filter(|server| server.metadata.uid.as_deref() == Some(claim.uid().as_str()))
    else {
        return Ok(Live::Gone);
    };
    let action = claim.job().action;
    let wished = server.spec.image.as_ref().filter(|_| action.installs()).map(|image| image.name.clone());
    let method = server.spec.boot_method;
    let name = wished.or_else(|| action.wipes().then(|| around.settings.wipe_images.of(method).to_owned()));
    let image = match name.filter(|_| images == ReadImage::Yes) {
        Some(name) => {
            let found = reader.image(claim.namespace(), &name).await.map_err(|error| away(&error))?;
            found.map(|OSImage { spec, .. }| BootImage {
                name,
                digest: spec.digest(),
                kind: spec.kind(),
                flaw: spec.flaw(),
            })
        }
        None => None,
    };
    // What erases disks and cannot be booted is none.
    let image = image.filter(|image| action.installs() || image.kind == method.image_kind());
    Ok(Live::Present(Box::new(Asking { server, image })))
}

/// What is said while the API is away.
pub(super) fn away(error: &Unavailable) -> Problem {
    Problem::new(
        Reason::APIUnavailable,
        format!("{error}; nothing is sent to the BMC before the wish was read again"),
    )
}

/// What the live object asks of `action`.
pub(super) fn intent(action: Action, uid: &ServerUid, asking: &Asking) -> Intent {
    let Asking { server, image } = asking;
    let deleting = Deleting::of(server);
    let written = &server.spec.bmc.address;
    let normalised =
        BmcAddress::parse(written).map_or_else(|_| written.clone(), |address| address.normalised());
    let image_digest = image.as_ref().map(|image| image.digest.as_str());
    Intent::of(action, Wish { uid, spec: &server.spec, bmc_address: &normalised, image_digest, deleting })
}

/// A BMC that was logged in to, with what was seen on the way.
#[derive(Debug)]
pub(super) struct Session {
    bmc: Box<dyn Bmc>,
    key: LoginKey,
    login: Login,
    /// Where a login that never went well before was counted.
    counted: Option<LoginPeer>,
    identity: HardwareIdentity,
    turn: Turn,
}

/// The way into a BMC, as the cluster says it.
#[derive(Debug, Clone)]
pub(super) struct Login {
    address: BmcAddress,
    credentials: Credentials,
    trust: Trust,
    secret_hash: String,
}

/// What is known of a claim's surroundings, whether or not a session came of it.
#[derive(Debug, Default)]
pub(super) struct Circumstances {
    /// For a failure that is stored.
    pub cause: Option<Cause>,
    /// The Secret that was found.
    pub secret: Option<SecretVersion>,
    /// Which request for a look was acted on before.
    pub heeded: Option<ReconcileRequest>,
}

impl Circumstances {
    /// The circumstances of a failure of `action`, as they are now.
    fn cause(&self, action: Action, server: &Server) -> Cause {
        let asked = ReconcileRequest::newest(server, self.heeded.as_ref());
        let (secret, asked) = (self.secret.as_ref(), asked.as_deref());
        Cause::of(action, Circumstance { server, secret, asked })
    }
}

/// Which machine it has to be, and for whom it is claimed.
pub(super) struct Expected<'a> {
    /// The claim.
    pub claim: &'a Claim,
    /// The BMC.
    pub bmc: &'a BmcSpec,
    /// The object, where it is still there.
    pub server: Option<&'a Server>,
    /// The machine that the first request went to.
    pub begun: Option<&'a HardwareIdentity>,
    /// Whether this server was let in before with this very address and login.
    pub was_let_in: bool,
    /// How it was logged in to then, where the API is away.
    pub login: Option<Login>,
}

impl Session {
    /// Everything up to and including the first look.
    pub(super) async fn open(
        around: &Surroundings,
        expected: &Expected<'_>,
        circumstances: &mut Circumstances,
    ) -> Result<Result<(Self, Probe), NoSession>, Halt> {
        let prepared = match &expected.login {
            Some(login) => Ok(login.clone()),
            None => prepare(around, expected, circumstances).await,
        };
        let login = match prepared {
            Ok(login) => login,
            Err(none) => return Ok(Err(none)),
        };
        let blemish = login.credentials.blemish();
        let connector =
            around.connector.on_behalf_of(expected.claim.namespace(), expected.claim.name_to_bmcs());
        let connector = connector.in_boot_mode(expected.bmc.boot_mode);
        let (credentials, trust) = (login.credentials.clone(), login.trust.clone());
        let key = LoginKey { bmc: login.address.claim_key().host, secret_hash: login.secret_hash.clone() };
        let bmc = match connector.open(&login.address, credentials, trust).await {
            Ok(bmc) => bmc,
            Err(error) => return Ok(Err(NoSession::Bmc(error))),
        };
        let word = expected
            .server
            .and_then(|server| ReconcileRequest::new_word(server, circumstances.heeded.as_ref()));
        let peers = bmc.peers();
        // Before it stands in line: who has no business there would keep the one who has waiting.
        if !expected.was_let_in
            && let Some(problem) = may_not_contact(around, expected.claim, &login.address, &peers).await?
        {
            return Ok(Err(NoSession::Claimed(problem)));
        }
        let turn = match around.turns.take(bmc.lines(), &Asks::of(expected.claim), word.is_some()) {
            Ok(turn) => turn,
            Err(wait) => return Ok(Err(NoSession::Turn(wait))),
        };
        // And again: whoever had the turn before may have been let in meanwhile.
        if !expected.was_let_in
            && let Some(problem) = may_not_contact(around, expected.claim, &login.address, &peers).await?
        {
            return Ok(Err(NoSession::Claimed(problem)));
        }
        let mut session =
            Self { bmc, key, login, counted: None, identity: HardwareIdentity::default(), turn };
        if let Err(none) = session.begin_login(around, expected.claim, word, blemish.as_deref()).await? {
            return Ok(Err(none));
        }
        let probe = match session.bmc.probe().await {
            Ok(probe) => probe,
            Err(mut error) => {
                session.turn.met(&error);
                session.failed(around, &error).await?;
                if let (BmcErrorKind::Credentials, Some(blemish)) = (&error.kind, blemish) {
                    error.message = format!("{}; {blemish}", error.message);
                }
                return Ok(Err(NoSession::Bmc(error)));
            }
        };
        session.turn.answered();
        session.ended(around, LoginEnd::Accepted).await?;
        session.counted = None;
        session.leave_addresses(around, expected.claim).await?;
        if let Some(problem) = another_machine(expected, &probe.identity, session.bmc.peer()) {
            return Ok(Err(NoSession::Wrong(problem)));
        }
        session.identity = probe.identity.clone();
        Ok(match session.claim_machine(around, expected.claim).await? {
            Some(problem) => Err(NoSession::Claimed(problem)),
            None => Ok((session, probe)),
        })
    }

    /// The BMC.
    pub(super) fn bmc(&self) -> &dyn Bmc {
        self.bmc.as_ref()
    }

    /// How it was logged in to.
    pub(super) fn login(&self) -> &Login {
        &self.login
    }

    /// Which machine answered.
    pub(super) fn identity(&self) -> &HardwareIdentity {
        &self.identity
    }

    /// The BMC gave this error after it had let us in.
    pub(super) fn met(&mut self, error: &BmcError) {
        self.turn.met(error);
    }

    /// Counts how a login ended that did not succeed.
    pub(super) async fn failed(&self, around: &Surroundings, error: &BmcError) -> Result<(), Halt> {
        match error.kind {
            BmcErrorKind::Credentials => Ok(around.queue.login_refused(&self.key, &error.message).await?),
            // The account was let in, and lacks a right.
            BmcErrorKind::Forbidden => self.ended(around, LoginEnd::Accepted).await,
            _ => self.ended(around, LoginEnd::Unanswered).await,
        }
    }

    /// Counts how a login ended that was not refused.
    async fn ended(&self, around: &Surroundings, end: LoginEnd) -> Result<(), Halt> {
        around.queue.end_login(&self.key, end).await?;
        if let Some(peer) = &self.counted {
            around.queue.give_back_try(peer).await?;
        }
        Ok(())
    }

    /// Asks for leave to log in.
    async fn begin_login(
        &mut self,
        around: &Surroundings,
        claim: &Claim,
        word: Option<String>,
        blemish: Option<&str>,
    ) -> Result<Result<(), NoSession>, Halt> {
        let peer = LoginPeer {
            addresses: self.bmc.peers().iter().map(SocketAddr::to_string).collect(),
            namespace: claim.namespace().to_owned(),
        };
        match around.queue.begin_login_by(self.key.clone(), Some(peer.clone()), word).await? {
            LoginLeave::Granted => Ok(Ok(())),
            LoginLeave::Counted => {
                self.counted = Some(peer);
                Ok(Ok(()))
            }
            LoginLeave::Later => Ok(Err(NoSession::LoginBusy)),
            LoginLeave::Stopped => {
                let refused = around.queue.refused_login(&self.key).await?;
                // Somebody else's try went well in between.
                let Some(refused) = refused else { return Ok(Err(NoSession::LoginBusy)) };
                let next_in_ms = refused.next_try_ms.map(|at| at - refused.now_ms);
                let problem = refused::problem(claim, &self.key.bmc, &refused, blemish);
                Ok(Err(NoSession::Refused(problem, next_in_ms)))
            }
            LoginLeave::PeerStopped { from_ms, now_ms } => {
                let problem = refused::at_its_address(&peer.addresses, from_ms);
                Ok(Err(NoSession::Refused(problem, Some(from_ms - now_ms))))
            }
        }
    }

    /// The BMC at this address let us in: whatever is found there, no other address is the server's any more.
    async fn leave_addresses(&self, around: &Surroundings, claim: &Claim) -> Result<(), Halt> {
        let keep = vec![BmcKey::named(&self.login.address), self.resolved()];
        Ok(around.queue.leave_addresses(claim.uid(), keep).await?)
    }

    /// The address as it was resolved.
    fn resolved(&self) -> BmcKey {
        BmcKey::resolved(self.bmc.peer(), self.bmc.system().map(claimable).unwrap_or_default())
    }

    /// Claims what the BMC turned out to be. Nothing that changes the machine may be sent before this was granted.
    async fn claim_machine(&self, around: &Surroundings, claim: &Claim) -> Result<Option<Problem>, Halt> {
        let identity = &self.identity;
        let mut keys = vec![BmcKey::named(&self.login.address), self.resolved()];
        // A UUID alone where there is one: serial numbers of different makers may be equal.
        let machine = match (&identity.uuid, &identity.serial_number) {
            (Some(uuid), serial) => {
                let serial_number = serial.as_ref().unwrap_or(uuid).clone();
                Some(MachineKey { identity: format!("hw:uuid:{uuid}"), serial_number })
            }
            (None, Some(serial)) => {
                // Nodes of one board have one serial number.
                let system =
                    identity.system.as_ref().map(|system| format!(":system:{system}")).unwrap_or_default();
                let identity = format!("hw:serial:{serial}{system}");
                Some(MachineKey { identity, serial_number: serial.clone() })
            }
            (None, None) => None,
        };
        keys.extend(machine.iter().map(|machine| whole(machine.identity.clone())));
        Ok(refusal(around.queue.claim_identity(claimant(claim, &self.login.address), keys, machine).await?))
    }
}

/// Asked before the first byte is sent where this server was not let in before: who is let in at another server's BMC learns
/// whether a password is right, whatever name led there.
async fn may_not_contact(
    around: &Surroundings,
    claim: &Claim,
    address: &BmcAddress,
    peers: &[SocketAddr],
) -> Result<Option<Problem>, Halt> {
    let system = address.claim_key().system;
    let keys = peers.iter().map(|peer| BmcKey::resolved(*peer, system.clone()));
    let claimed = around.queue.may_contact(claimant(claim, address), keys.collect()).await?;
    Ok(refusal(claimed))
}

fn claimant(claim: &Claim, address: &BmcAddress) -> Claimant {
    Claimant {
        uid: claim.uid().clone(),
        namespace: claim.namespace().to_owned(),
        name: claim.name().to_owned(),
        address: address.normalised(),
        asked: None,
    }
}

/// What is said of a claim that was not granted; the refusal itself is stored where the controller sees it.
fn refusal(claimed: BmcClaimed) -> Option<Problem> {
    match claimed {
        BmcClaimed::Granted => None,
        BmcClaimed::Refused(refusal) => Some(Problem::new(
            refusal.reason,
            match refusal.reason {
                Reason::MachineDecommissioned => "this machine was decommissioned: nothing was sent to it",
                _ => "another Server holds this machine: nothing was sent to it",
            },
        )),
        BmcClaimed::Unknown => {
            Some(Problem::new(Reason::ServerGone, "the Server was let go: nothing was sent to its machine"))
        }
    }
}

/// The longest id of a system that is claimed as it is, in bytes.
const SYSTEM_MAX: usize = 128;

/// An id by which a system is claimed: one that is longer than any, or odd, stands there as its hash.
fn claimable(system: String) -> String {
    if system.len() <= SYSTEM_MAX && !system.chars().any(char::is_control) {
        return system;
    }
    let digest = sha2::Sha256::digest(system.as_bytes());
    digest.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

fn whole(host: String) -> BmcKey {
    BmcKey { host, system: String::new() }
}

/// Everything that the cluster has to say, before the BMC is asked anything.
async fn prepare(
    around: &Surroundings,
    expected: &Expected<'_>,
    circumstances: &mut Circumstances,
) -> Result<Login, NoSession> {
    let namespace = expected.claim.namespace();
    let name = &expected.bmc.credentials_ref.name;
    let found = around.live.secret(namespace, name).await.map_err(|error| NoSession::Api(away(&error)))?;
    circumstances.secret = found.as_ref().and_then(version);
    let action = expected.claim.job().action;
    circumstances.cause = expected.server.map(|server| circumstances.cause(action, server));
    let invalid = |error: crate::api::bmc_address::BmcAddressError| {
        NoSession::Wrong(Problem::new(Reason::InvalidAddress, error.to_string()))
    };
    let address = BmcAddress::parse(&expected.bmc.address).map_err(invalid)?;
    let missing = |message: String| NoSession::Credentials(Problem::new(Reason::CredentialsMissing, message));
    let secret = found.ok_or_else(|| {
        missing(format!(
            "there is no Secret {name:?} of spec.bmc.credentialsRef in this namespace: create it with type {}",
            names::CREDENTIALS_SECRET_TYPE
        ))
    })?;
    let credentials =
        Credentials::from_secret(&secret, &address).map_err(|error| missing(error.to_string()))?;
    let trust = trust(around, namespace, expected.bmc.tls.as_ref()).await?;
    let hash =
        content_hash(&secret, &around.settings.login_key).iter().fold(String::new(), |mut text, byte| {
            use std::fmt::Write as _;
            let _ = write!(text, "{byte:02x}");
            text
        });
    Ok(Login { address, credentials, trust, secret_hash: hash })
}

fn version(secret: &Secret) -> Option<SecretVersion> {
    Some(SecretVersion {
        uid: secret.metadata.uid.clone()?,
        resource_version: secret.metadata.resource_version.clone()?,
    })
}

/// How the BMC's certificate is judged.
async fn trust(around: &Surroundings, namespace: &str, tls: Option<&BmcTls>) -> Result<Trust, NoSession> {
    let Some(tls) = tls else { return Ok(Trust::System) };
    let wrong = |message: String| NoSession::Wrong(Problem::new(Reason::TLSConfigInvalid, message));
    if let Some(reference) = &tls.ca_ref {
        let found =
            around.live.ca(namespace, reference).await.map_err(|error| NoSession::Api(away(&error)))?;
        return found.map(Trust::Ca).map_err(wrong);
    }
    if let Some(text) = &tls.certificate_sha256 {
        return pin(text).map(Trust::Pin).ok_or_else(|| {
            wrong(format!("spec.bmc.tls.certificateSHA256 is {text:?}: write 64 hexadecimal digits"))
        });
    }
    Ok(if tls.verify.is_some() { Trust::Unverified } else { Trust::System })
}

/// Compares what both sides know: a BMC that tells nothing cannot be told apart.
fn another_machine(expected: &Expected<'_>, seen: &HardwareIdentity, peer: SocketAddr) -> Option<Problem> {
    let shown = expected.server.and_then(|server| server.status.as_ref()?.bmc_identity.as_ref());
    shown.into_iter().chain(expected.begun).find_map(|known| differs(known, seen, peer))
}

fn differs(known: &HardwareIdentity, seen: &HardwareIdentity, peer: SocketAddr) -> Option<Problem> {
    if !known.is_another(seen) {
        return None;
    }
    let text = |identity: &HardwareIdentity| {
        let serial = identity.serial_number.as_deref().unwrap_or("-");
        let uuid = identity.uuid.as_deref().unwrap_or("-");
        let system = identity.system.as_ref().map(|system| format!(", system {system}")).unwrap_or_default();
        format!("serial number {serial}, UUID {uuid}{system}")
    };
    Some(Problem::new(
        Reason::IdentityMismatch,
        format!(
            "a Server stays with its machine: spec.bmc.address leads to {peer}, where the machine with {} answers, and this Server's is \
             the one with {}; nothing is sent to another. Set spec.bmc.address to where the BMC of its own machine is; or, if the \
             machine was replaced, delete this Server (deletionPolicy Retain) and create it again",
            text(seen),
            text(known)
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_bmc_calls_a_system_it_can_be_claimed_and_told_apart() {
        assert_eq!(claimable("System.Embedded.1".to_owned()), "System.Embedded.1");
        let long = ["x".repeat(129), "x".repeat(5_000), "a\0b".to_owned()].map(claimable);
        for one in &long {
            assert!(one.len() == 71 && one.starts_with("sha256:"), "{one}");
        }
        assert!(long[0] != long[1] && long[1] != long[2]);
    }
}
