//! The flags of `autobuild import`.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use super::Error;
use crate::api::{CaRef, CaRefKind};
use crate::bmc::network::BmcNetworks;
use crate::bmc::{Connector, ConnectorSettings, IpmiLan, PlainHttp, Trust};
use crate::cmd::kubeconfig;
use crate::config::duration;
use crate::import::Judge;

/// Flags of `autobuild import`. User name and password come from `--secrets-file` or from the environment, never from a flag.
#[derive(Debug, Clone, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own on the command line")]
pub struct Args {
    /// The list: lines of ADDRESS [NAME [SECRET]], or a CSV table with a header; - is standard input
    #[arg(value_name = "LIST", default_value = "-")]
    list: PathBuf,
    /// The credentials Secret of BMCs for which the list names none. Its user name and password may be given as
    /// AUTOBUILD_BMC_USERNAME and AUTOBUILD_BMC_PASSWORD in the environment
    #[arg(long, value_name = "NAME", default_value = "bmc")]
    pub(super) secret: String,
    /// The manifests of the credentials Secrets, as they are, or will be, in the cluster
    #[arg(long, value_name = "FILE")]
    pub(super) secrets_file: Option<PathBuf>,
    /// Write the Secrets too, passwords and all; without it they are only named
    #[arg(long)]
    pub(super) write_secrets: bool,
    /// The OSImage that is on the machines, where the list has no column image
    #[arg(long, value_name = "NAME")]
    pub(super) image: Option<String>,
    /// Their site, where the list has no column site
    #[arg(long, value_name = "NAME")]
    pub(super) site: Option<String>,
    /// Write one file for each machine into this folder instead of printing; no file is overwritten
    #[arg(long, value_name = "DIR")]
    pub(super) output: Option<PathBuf>,
    /// Write nothing: compare with the Servers, OSImages and Secrets of the cluster
    #[arg(long, conflicts_with_all = ["output", "write_secrets"])]
    pub(super) check: bool,
    #[command(flatten)]
    pub(super) cluster: kubeconfig::ClusterArgs,
    /// File with the CA that signed the BMCs' certificates (PEM)
    #[arg(long, value_name = "FILE", requires = "ca_ref")]
    ca_file: Option<PathBuf>,
    /// Where that CA is in the cluster: ConfigMap/NAME/KEY or Secret/NAME/KEY
    #[arg(long, value_name = "KIND/NAME/KEY", requires = "ca_file")]
    ca_ref: Option<String>,
    /// Pin the certificate that each BMC shows now: only in a network where nobody sits between
    #[arg(long, conflicts_with = "ca_file")]
    pin_certificates: bool,
    /// Networks that BMCs are in, separated by commas; without it every address that is not loopback, link-local,
    /// multicast or otherwise special
    #[arg(long, value_name = "NET,...", value_delimiter = ',')]
    bmc_cidr: Vec<IpNet>,
    /// Speak plain HTTP to BMCs of redfish+http:// addresses: passwords can be read on the way
    #[arg(long)]
    allow_plain_http: bool,
    /// Speak IPMI over LAN, by ipmitool, to BMCs of ipmi:// addresses: whoever reaches such a BMC gets a hash of the password
    #[arg(long)]
    allow_ipmi: bool,
    /// BMCs that are read at once
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(super) parallel: u16,
    /// Longest time of one request to a BMC
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    request_timeout: Duration,
}

impl Args {
    pub(super) fn text(&self) -> Result<String, Error> {
        let wrong = |source| Error::List { path: self.list.display().to_string(), source };
        if self.list != Path::new("-") {
            return std::fs::read_to_string(&self.list).map_err(wrong);
        }
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(wrong)?;
        Ok(text)
    }

    pub(super) fn judge(&self) -> Result<Judge, Error> {
        if self.pin_certificates {
            return Ok(Judge::AsSeen);
        }
        let Some(path) = &self.ca_file else { return Ok(Judge::By(Trust::System)) };
        let pem =
            std::fs::read(path).map_err(|source| Error::Ca { path: path.display().to_string(), source })?;
        Ok(Judge::By(Trust::Ca(pem)))
    }

    pub(super) fn ca_ref(&self) -> Result<Option<CaRef>, Error> {
        let Some(text) = &self.ca_ref else { return Ok(None) };
        let wrong = || Error::CaRef(text.clone());
        let mut parts = text.split('/');
        let (Some(kind), Some(name), Some(key), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(wrong());
        };
        let kind = match kind {
            "ConfigMap" => CaRefKind::ConfigMap,
            "Secret" => CaRefKind::Secret,
            _ => return Err(wrong()),
        };
        Ok(Some(CaRef { kind, name: name.to_owned(), key: key.to_owned() }))
    }

    pub(super) fn connector(&self) -> Connector {
        Connector::new(ConnectorSettings {
            networks: BmcNetworks::new(self.bmc_cidr.clone()),
            plain_http: if self.allow_plain_http { PlainHttp::Allowed } else { PlainHttp::Refused },
            ipmi: if self.allow_ipmi { IpmiLan::Allowed } else { IpmiLan::Refused },
            connect_timeout: self.request_timeout.min(Duration::from_secs(10)),
            request_timeout: self.request_timeout,
            inspect_timeout: self.request_timeout * 4,
            worker: Some("import".to_owned()),
            ..ConnectorSettings::default()
        })
    }
}
