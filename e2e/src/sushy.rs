//! `sushy-emulator` with its fake machines: Redfish BMCs that somebody else wrote.
//!
//! A change of power takes it 1 to 11 seconds, at random. It has no ETags and no serial numbers.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::packages;
use crate::process::{Lifetime, Process, Spec};
use crate::wait::{Look, say};

/// Python starts slowly on a busy machine.
const READY: Duration = Duration::from_mins(1);
/// The longest time that a change of power takes it.
pub const SLOWEST_CHANGE: Duration = Duration::from_secs(12);

/// How it is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// In the clear.
    Http,
    /// Over TLS, under a certificate of a CA of its own.
    Https,
}

/// A running `sushy-emulator`. Ends with this value, unless it was started detached.
#[derive(Debug)]
pub struct Sushy {
    process: Process,
    transport: Transport,
    address: String,
    systems: Vec<String>,
    authority: Option<PathBuf>,
}

impl Sushy {
    /// Starts it with so many machines, all off, that one login opens; its files lie in `dir`.
    pub async fn start(
        dir: &Path,
        systems: usize,
        (username, password): (&str, &str),
        transport: Transport,
        lifetime: Lifetime,
    ) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let bin = packages::SUSHY.find()?;
        let ids: Vec<String> = (1..=systems).map(id).collect();
        let users = dir.join("sushy-users");
        std::fs::write(&users, htpasswd(&bin, username, password)?)?;
        let mut config = format!(
            "SUSHY_EMULATOR_LISTEN_IP = '127.0.0.1'\nSUSHY_EMULATOR_LISTEN_PORT = 0\n\
             SUSHY_EMULATOR_FAKE_DRIVER = True\nSUSHY_EMULATOR_AUTH_FILE = {}\nSUSHY_EMULATOR_STATE_DIR = {}\n",
            quoted(&users),
            quoted(&dir.join("sushy-state"))
        );
        let authority = match transport {
            Transport::Http => None,
            Transport::Https => Some(certificates(dir, &mut config)?),
        };
        let machines: Vec<String> = (1..).zip(&ids).map(|(number, id)| machine(number, id)).collect();
        config += &["SUSHY_EMULATOR_FAKE_SYSTEMS = [\n", &machines.concat(), "]\n"].concat();
        let file = dir.join("sushy.conf");
        std::fs::write(&file, config)?;
        say("starting sushy-emulator, and waiting for its port");
        let log_dir = dir.join("logs");
        // Logs are appended to: only what comes after this start counts.
        let before = std::fs::metadata(log_dir.join("sushy.log")).map_or(0, |log| log.len() as usize);
        let process = Process::start(Spec {
            name: "sushy".to_owned(),
            program: bin.join("sushy-emulator"),
            args: vec!["--fake".to_owned(), "--config".to_owned(), file.display().to_string()],
            env: vec![("PYTHONUNBUFFERED".to_owned(), "1".to_owned())],
            log_dir,
            lifetime,
        })?;
        let address = process
            .wait_ready("sushy-emulator to bind its port", READY, async || {
                let text = std::fs::read_to_string(process.log()).unwrap_or_default();
                let found = text.get(before..).unwrap_or_default().rsplit_once("Running on http");
                let found = found.and_then(|(_, rest)| rest.trim_start_matches('s').strip_prefix("://"));
                let found = found.and_then(|rest| rest.split_whitespace().next());
                Ok(found.map_or_else(
                    || Look::NotYet("it has not said its address yet".to_owned()),
                    |address| Look::Holds(address.to_owned()),
                ))
            })
            .await?;
        Ok(Self { process, transport, address, systems: ids, authority })
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The ids of its machines, which are their UUIDs too.
    pub fn systems(&self) -> &[String] {
        &self.systems
    }

    /// What `spec.bmc.address` has for one of its machines, or for any other id.
    pub fn bmc_address(&self, system: &str) -> String {
        let scheme = match self.transport {
            Transport::Http => "redfish+http",
            Transport::Https => "redfish+https",
        };
        format!("{scheme}://{}/redfish/v1/Systems/{system}", self.address)
    }

    /// The file with the certificate that signed its HTTPS certificate.
    pub fn authority(&self) -> Option<&Path> {
        self.authority.as_deref()
    }
}

/// A UUID that nobody takes for a placeholder.
fn id(number: usize) -> String {
    format!("5a5b5c5d-0000-4000-8000-{number:012x}")
}

fn machine(number: usize, id: &str) -> String {
    let mac = format!("02:00:00:00:{:02x}:{:02x}", number / 256, number % 256);
    format!(
        "  {{'uuid': '{id}', 'name': 'fake-{number}', 'power_state': 'Off', 'external_notifier': False, \
         'nics': [{{'mac': '{mac}', 'ip': '192.0.2.1'}}]}},\n"
    )
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display())
}

/// One line of an Apache user file; the only digest that it takes is bcrypt, which its own packages have.
fn htpasswd(bin: &Path, username: &str, password: &str) -> Result<String> {
    const HASH: &str = "import bcrypt, os; print(bcrypt.hashpw(os.environ['PASSWORD'].encode(), bcrypt.gensalt(4)).decode())";
    let output = Command::new(bin.join("python"))
        .args(["-c", HASH])
        .env("PASSWORD", password)
        .output()
        .context("hash the password for sushy-emulator")?;
    if !output.status.success() {
        bail!(
            "the password for sushy-emulator cannot be hashed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(format!("{username}:{}\n", String::from_utf8(output.stdout)?.trim()))
}

/// Makes a CA and a certificate for loopback, and names the latter in `config`.
fn certificates(dir: &Path, config: &mut String) -> Result<PathBuf> {
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let ca_key = KeyPair::generate()?;
    let authority = dir.join("sushy-ca.crt");
    std::fs::write(&authority, ca.self_signed(&ca_key)?.pem())?;
    let key = KeyPair::generate()?;
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let certificate = CertificateParams::new(names)?.signed_by(&key, &Issuer::new(ca, ca_key))?;
    let (certificate_file, key_file) = (dir.join("sushy.crt"), dir.join("sushy.key"));
    std::fs::write(&certificate_file, certificate.pem())?;
    std::fs::write(&key_file, key.serialize_pem())?;
    for (name, file) in [("CERT", &certificate_file), ("KEY", &key_file)] {
        *config += &["SUSHY_EMULATOR_SSL_", name, " = ", &quoted(file), "\n"].concat();
    }
    Ok(authority)
}
