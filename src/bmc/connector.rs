//! From an address to a client that can reach that machine and nothing else.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::HeaderValue;
use rustls::pki_types::ServerName;
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::Bmc;
use super::credentials::Credentials;
use super::error::{BmcError, BmcErrorKind, Delivery};
use super::ipmi::{self, Ipmi};
use super::network::BmcNetworks;
use super::own;
use super::peers::{Experience, Peers, interleaved};
use super::redfish::{self, Asker, Redfish, Secured, Times};
use super::tls::{Tls, Trust};
use crate::api::BootMode;
use crate::api::bmc_address::{BmcAddress, BmcHost, BmcScheme};

/// Whether passwords may go over the network in the clear.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PlainHttp {
    /// `redfish+http` works.
    Allowed,
    /// `redfish+http` is refused.
    #[default]
    Refused,
}

/// Whether BMCs may be spoken to by IPMI over LAN.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IpmiLan {
    /// `ipmi` works.
    Allowed,
    /// `ipmi` is refused.
    #[default]
    Refused,
}

/// Whether `spec.bmc.tls.verify: Disabled` works.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UnverifiedTls {
    /// It works.
    Allowed,
    /// It is refused.
    #[default]
    Refused,
}

/// What the operator allows, and how long things may take.
#[derive(Debug, Clone)]
pub struct ConnectorSettings {
    /// Which addresses may be talked to.
    pub networks: BmcNetworks,
    /// Whether `redfish+http` works.
    pub plain_http: PlainHttp,
    /// Whether `ipmi` works.
    pub ipmi: IpmiLan,
    /// Whether certificates may go unverified.
    pub unverified_tls: UnverifiedTls,
    /// For resolving a name, and for TCP and TLS together.
    pub connect_timeout: Duration,
    /// For one HTTP request from connecting to the end of its answer.
    pub request_timeout: Duration,
    /// For all requests of one inspection, its turn not counted.
    pub inspect_timeout: Duration,
    /// The name under which BMCs see who asks (header `X-AutoBuild-Worker`); they see the claim beside it (`X-Request-Id`).
    /// `None`: neither of them is a BMC's business.
    pub worker: Option<String>,
}

impl Default for ConnectorSettings {
    fn default() -> Self {
        Self {
            networks: BmcNetworks::default(),
            plain_http: PlainHttp::default(),
            ipmi: IpmiLan::default(),
            unverified_tls: UnverifiedTls::default(),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            inspect_timeout: Duration::from_mins(2),
            worker: None,
        }
    }
}

/// Opens BMCs. One for each process: it lets only one connection at a time to each BMC. Clones are the same.
#[derive(Debug, Clone)]
pub struct Connector {
    settings: ConnectorSettings,
    request_id: Option<String>,
    boot_mode: Option<BootMode>,
    redfish: redfish::Shared,
    ipmi: ipmi::Shared,
}

impl Connector {
    /// A connector that knows no BMC yet.
    pub fn new(settings: ConnectorSettings) -> Self {
        Self {
            settings,
            request_id: None,
            boot_mode: None,
            redfish: redfish::Shared::default(),
            ipmi: ipmi::Shared::default(),
        }
    }

    /// The same connector for a `Server` of this namespace, whose requests bear this id where BMCs are told who asks.
    #[must_use]
    pub fn on_behalf_of(&self, namespace: &str, request_id: String) -> Self {
        let networks = self.settings.networks.for_namespace(namespace);
        Self {
            settings: ConnectorSettings { networks, ..self.settings.clone() },
            request_id: self.settings.worker.is_some().then_some(request_id),
            ..self.clone()
        }
    }

    /// The same connector, whose overrides of the boot order are in this mode; `None`: the mode is left as it is.
    #[must_use]
    pub fn in_boot_mode(self, boot_mode: Option<BootMode>) -> Self {
        Self { boot_mode, ..self }
    }

    /// Resolves the host once, judges its addresses, and prepares a client that connects to one of these very addresses.
    /// Sends nothing to the BMC.
    pub async fn open(
        &self,
        address: &BmcAddress,
        credentials: Credentials,
        trust: Trust,
    ) -> Result<Box<dyn Bmc>, BmcError> {
        let unsent = |kind, message: String| BmcError::new(kind, Delivery::NotSent, message);
        if address.scheme() == BmcScheme::Ipmi {
            return self.open_ipmi(address, credentials, &trust).await;
        }
        if credentials.username.contains(':') {
            let message = "the Secret of spec.bmc.credentialsRef has a ':' in its \"username\", which Basic \
                           authentication cannot carry: use another account";
            return Err(unsent(BmcErrorKind::Credentials, message.to_owned()));
        }
        self.judge_scheme(address, &trust).map_err(|message| unsent(BmcErrorKind::TlsConfig, message))?;
        let tls = match address.scheme() {
            BmcScheme::RedfishHttps => Some(self.secured(address, trust).await?),
            BmcScheme::RedfishHttp | BmcScheme::Ipmi => None,
        };
        let peers = self.resolve(address, &self.redfish.experience).await?;
        let header = |text: &Option<String>| HeaderValue::from_str(text.as_deref()?).ok();
        let asker = Asker { worker: header(&self.settings.worker), request_id: header(&self.request_id) };
        let times = Times {
            connect: self.settings.connect_timeout,
            request: self.settings.request_timeout,
            inspect: self.settings.inspect_timeout,
        };
        match Redfish::new(
            address,
            peers,
            &credentials,
            tls,
            asker,
            times,
            (self.redfish.clone(), self.boot_mode),
        ) {
            Some(redfish) => Ok(Box::new(redfish)),
            None => Err(unsent(
                BmcErrorKind::AddressNotAllowed,
                format!("spec.bmc.address {:?} cannot be requested: correct it", address.normalised()),
            )),
        }
    }

    async fn open_ipmi(
        &self,
        address: &BmcAddress,
        credentials: Credentials,
        trust: &Trust,
    ) -> Result<Box<dyn Bmc>, BmcError> {
        let unsent = |kind, message: &str| BmcError::new(kind, Delivery::NotSent, message);
        if self.settings.ipmi == IpmiLan::Refused {
            let message = "spec.bmc.address has the scheme ipmi, which is refused, because IPMI gives a hash of the password \
                           to whoever asks (CVE-2013-4786): use redfish+https if the BMC offers Redfish, or let the \
                           operator start the workers with --allow-ipmi";
            return Err(unsent(BmcErrorKind::AddressNotAllowed, message));
        }
        if *trust != Trust::System {
            let message = "spec.bmc.tls is set, and IPMI has no certificates: remove it";
            return Err(unsent(BmcErrorKind::TlsConfig, message));
        }
        let peers = self.resolve(address, &self.ipmi.experience).await?;
        let times =
            ipmi::Times { request: self.settings.request_timeout, inspect: self.settings.inspect_timeout };
        Ok(Box::new(Ipmi::new(peers, credentials, times, self.ipmi.clone())?))
    }

    fn judge_scheme(&self, address: &BmcAddress, trust: &Trust) -> Result<(), String> {
        match address.scheme() {
            BmcScheme::RedfishHttp if self.settings.plain_http == PlainHttp::Refused => Err(
                "spec.bmc.address has the scheme redfish+http, which sends the password in the clear and is refused: use \
                 redfish+https, or let the operator start the workers with --allow-plain-http"
                    .to_owned(),
            ),
            BmcScheme::RedfishHttps
                if *trust == Trust::Unverified && self.settings.unverified_tls == UnverifiedTls::Refused =>
            {
                Err("spec.bmc.tls.verify is Disabled, which is refused: set spec.bmc.tls.certificateSHA256, or let the \
                     operator start the workers with --allow-unverified-tls"
                    .to_owned())
            }
            _ => Ok(()),
        }
    }

    async fn secured(&self, address: &BmcAddress, trust: Trust) -> Result<Secured, BmcError> {
        let failed = |message: String| BmcError::new(BmcErrorKind::TlsConfig, Delivery::NotSent, message);
        let name = match address.host() {
            BmcHost::Ip(ip) => ServerName::from(*ip),
            BmcHost::Name(name) => ServerName::try_from(name.clone()).map_err(|_| {
                failed(format!("spec.bmc.address has the host {name:?}, which no certificate can name"))
            })?,
        };
        let judged = trust.clone();
        // The first one reads the system's certificates from disk.
        let tls = tokio::task::spawn_blocking(move || Tls::new(&judged)).await;
        let tls = tls.map_err(|error| failed(format!("TLS cannot be set up: {error}")))?;
        Ok(Secured { tls: tls.map_err(|error| failed(error.to_string()))?, name, trust })
    }

    /// The addresses of the host that may be talked to, in the order in which they are tried.
    async fn resolve(&self, address: &BmcAddress, experience: &Experience) -> Result<Peers, BmcError> {
        let name = match address.host() {
            BmcHost::Ip(ip) => return self.judge(vec![*ip], address, experience),
            BmcHost::Name(name) => name,
        };
        let failed = |why: &str| {
            own::trouble(format!(
                "the host {name:?} of spec.bmc.address was not looked up, because the resolver of this worker fails ({why}): \
                 check its name servers; the BMC was not asked"
            ))
        };
        let unknown = || {
            let message = format!(
                "the host {name:?} of spec.bmc.address cannot be resolved (the resolver knows no address): check the name"
            );
            BmcError::new(BmcErrorKind::Unreachable, Delivery::NotSent, message)
        };
        let found =
            timeout(self.settings.connect_timeout, lookup_host((name.as_str(), address.port()))).await;
        match found {
            Err(_) => Err(failed("it did not answer in time")),
            Ok(Err(error)) if own::knows_no_address(&error) => Err(unknown()),
            Ok(Err(error)) => {
                Err(failed(own::cause(&error).or_else(own::no_descriptor).unwrap_or(&error.to_string())))
            }
            Ok(Ok(found)) => match interleaved(found.map(|found| found.ip())) {
                none if none.is_empty() => Err(unknown()),
                ips => self.judge(ips, address, experience),
            },
        }
    }

    fn judge(
        &self,
        ips: Vec<IpAddr>,
        address: &BmcAddress,
        experience: &Experience,
    ) -> Result<Peers, BmcError> {
        let (mut allowed, mut refused) = (Vec::new(), None);
        for ip in ips {
            match self.settings.networks.check(ip) {
                Ok(()) => allowed.push(SocketAddr::new(ip, address.port())),
                Err(why) => refused = refused.or(Some(why)),
            }
        }
        let Some((first, others)) = allowed.split_first() else {
            let why = refused.map(|why| why.to_string()).unwrap_or_default();
            return Err(BmcError::new(BmcErrorKind::AddressNotAllowed, Delivery::NotSent, why));
        };
        Ok(Peers::new(address.host_and_port(), *first, others, experience.clone()))
    }
}
