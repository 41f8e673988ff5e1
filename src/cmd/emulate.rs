//! `autobuild emulate`: a fleet of Redfish BMCs in one process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use tokio_util::sync::CancellationToken;

use crate::config::duration;
use crate::emulator::{
    self, AfterWipe, BootUrl, Bound, Disk, Fleet, FleetError, HostKind, HostSettings, InitialPower,
    LastResetTime, Listeners, Pace, Payloads, QemuError, QemuSettings, SameState, Scenario, ServeError,
};

/// The flags of `autobuild emulate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many systems the fleet has
    #[arg(long, default_value_t = 10)]
    systems: usize,
    /// What their names start with; a number from 0001 follows
    #[arg(long, default_value = "system-")]
    name_prefix: String,
    /// What inventories and random choices follow from
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Plain HTTP on this address (port 0 takes a free one)
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// HTTPS on this address, with a certificate of the fleet's own CA for 127.0.0.1, ::1 and localhost
    #[arg(long, value_name = "ADDR")]
    listen_https: Option<SocketAddr>,
    /// HTTPS on this address, with a self-signed certificate
    #[arg(long, value_name = "ADDR")]
    listen_https_self_signed: Option<SocketAddr>,
    /// HTTPS on this address, with a certificate of the fleet's CA for another host
    #[arg(long, value_name = "ADDR")]
    listen_https_wrong_name: Option<SocketAddr>,
    /// Write the bound host:port of --listen to this file
    #[arg(long, value_name = "FILE", requires = "listen")]
    listen_file: Option<PathBuf>,
    /// Write the bound host:port of --listen-https to this file
    #[arg(long, value_name = "FILE", requires = "listen_https")]
    listen_https_file: Option<PathBuf>,
    /// Write all bound addresses, those of own ports included, and the certificates' fingerprints to this file (JSON)
    #[arg(long, value_name = "FILE")]
    addresses_file: Option<PathBuf>,
    /// Write the CA certificate (PEM) to this file
    #[arg(long, value_name = "FILE")]
    ca_out: Option<PathBuf>,
    /// User name of every BMC
    #[arg(long, default_value = "admin", env = "AUTOBUILD_EMULATOR_USERNAME")]
    username: String,
    /// Password of every BMC
    #[arg(long, default_value = "password", env = "AUTOBUILD_EMULATOR_PASSWORD", hide_env_values = true)]
    password: String,
    /// How long powering on takes
    #[arg(long, value_name = "MS", default_value_t = 2_000)]
    power_on_delay: u64,
    /// How long powering off takes
    #[arg(long, value_name = "MS", default_value_t = 1_000)]
    power_off_delay: u64,
    /// Power of the systems at the start
    #[arg(long, value_enum, default_value_t = Power::Off)]
    initial_power: Power,
    /// Every n-th system has LastResetTime (0: none)
    #[arg(long, value_name = "N", default_value_t = 3)]
    last_reset_time_every: usize,
    /// What a reset into the state that is there already gets
    #[arg(long, value_enum, default_value_t = SameStateAnswer::Conflict)]
    same_state: SameStateAnswer,
    /// Serve the first K systems on ports of their own too
    #[arg(long, value_name = "K", default_value_t = 0)]
    own_ports: usize,
    /// How many mutating requests, and how many reads, the log keeps
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    log_capacity: usize,
    /// How many sessions a BMC keeps
    #[arg(long, value_name = "N", default_value_t = 4)]
    session_limit: usize,
    /// For how long a BMC that starts again is away
    #[arg(long, value_name = "MS", default_value_t = 90_000)]
    bmc_reboot: u64,
    /// How long a BMC takes for each request, such as 2s, or 1s..5s for a time in between by the seed: as real ones do
    #[arg(long, value_name = "TIME[..TIME]", value_parser = pace)]
    pace: Option<Pace>,
    /// What is behind the BMCs
    #[arg(long, value_enum, default_value_t = Host::Emulated)]
    host: Host,
    /// The folder of the virtual machines' disks and serial consoles
    #[arg(long, value_name = "FOLDER", required_if_eq("host", "qemu"))]
    disk_folder: Option<PathBuf>,
    /// How large a virtual machine's disk is made
    #[arg(long, value_name = "SIZE", default_value = "64MiB")]
    disk_size: ByteSize,
    /// The program that is a virtual machine: a path, or a name on PATH
    #[arg(long, value_name = "PROGRAM", default_value = "qemu-system-x86_64")]
    qemu: PathBuf,
    /// The boot service that hosts boot from over the network, as DHCP would tell them
    #[arg(long, value_name = "URL")]
    boot_url: Option<BootUrl>,
    /// What is on the disks at the start: Empty, Unknown or the digest of an image
    #[arg(long, value_name = "CONTENT", default_value = "Empty")]
    disk: Disk,
    /// How long a host's self-test takes
    #[arg(long, value_name = "MS", default_value_t = 1_000)]
    post_delay: u64,
    /// How long an installation (or a wipe) takes
    #[arg(long, value_name = "MS", default_value_t = 10_000)]
    install_duration: u64,
    /// How often an installer says how far it is
    #[arg(long, value_name = "MS", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..))]
    progress_interval: u64,
    /// By how many hundredths these three may be longer, by the seed
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=100))]
    spread_percent: u8,
    /// What hosts do about kernels and initial RAM disks
    #[arg(long, value_enum, default_value_t = HostPayloads::Download)]
    payloads: HostPayloads,
    /// What a host does after its disks were erased
    #[arg(long, value_enum, default_value_t = WipeEnd::PowerOff)]
    after_wipe: WipeEnd,
    /// How many requests of all hosts are under way at most
    #[arg(long, value_name = "N", default_value_t = 64)]
    boot_connections: usize,
    /// How often a host repeats a request that got no answer, or a 5xx
    #[arg(long, value_name = "N", default_value_t = 120)]
    boot_retries: u32,
    /// The pause before it does
    #[arg(long, value_name = "MS", default_value_t = 1_000)]
    boot_retry_pause: u64,
    /// YAML file with exceptions for single systems and with misbehaviour
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
}

/// `--pace`.
fn pace(text: &str) -> Result<Pace, String> {
    let (shortest, longest) = text.split_once("..").unwrap_or((text, text));
    Pace::new(duration(shortest)?, duration(longest)?).ok_or_else(|| {
        format!("{text:?} ends before it begins: write the shorter time first, such as 1s..5s")
    })
}

/// `--initial-power`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Power {
    On,
    Off,
    Mixed,
}

/// `--host`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Host {
    /// Hosts that are worked out, by the thousand
    Emulated,
    /// A QEMU virtual machine each
    Qemu,
}

/// `--payloads`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum HostPayloads {
    /// Download them, and the install data, and throw them away
    Download,
    /// Ask for their heads only
    Pretend,
}

/// `--after-wipe`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum WipeEnd {
    /// Turn itself off
    PowerOff,
    /// Start again
    Reboot,
}

/// `--same-state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum SameStateAnswer {
    /// 409 ResourceInUse
    Conflict,
    /// 204
    NoContent,
}

/// `autobuild emulate` could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No address was given.
    #[error("no address to listen on: give --listen ADDR or --listen-https ADDR, such as 127.0.0.1:0")]
    NoListener,
    /// A file could not be read.
    #[error("--scenario is {path}, which cannot be read: {source}; give the path of a readable YAML file")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The scenario is not one.
    #[error("--scenario {path} is no scenario: {source}; docs/src/emulator.md lists the fields")]
    Scenario {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_yaml::Error,
    },
    /// A file could not be written.
    #[error("{flag} is {path}, which cannot be written: {source}; give a path in a writable directory")]
    Write {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The fleet cannot be built.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// There can be no virtual machines.
    #[error(transparent)]
    Qemu(#[from] QemuError),
    /// No place for their disks.
    #[error("--host is qemu, and --disk-folder is missing: give the folder of the disks")]
    NoDiskFolder,
    /// The fleet cannot listen.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

impl Args {
    fn fleet(&self) -> Result<Fleet, Error> {
        let scenario = match &self.scenario {
            None => Scenario::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|source| Error::Read { path: path.clone(), source })?;
                Scenario::parse(&text).map_err(|source| Error::Scenario { path: path.clone(), source })?
            }
        };
        let fleet = Fleet::builder()
            .systems(self.systems)
            .name_prefix(&self.name_prefix)
            .seed(self.seed)
            .credentials(&self.username, &self.password)
            .delays(Duration::from_millis(self.power_on_delay), Duration::from_millis(self.power_off_delay))
            .initial_power(match self.initial_power {
                Power::On => InitialPower::On,
                Power::Off => InitialPower::Off,
                Power::Mixed => InitialPower::Mixed,
            })
            .last_reset_time(match self.last_reset_time_every {
                0 => LastResetTime::Never,
                n => LastResetTime::Every(n),
            })
            .same_state(match self.same_state {
                SameStateAnswer::Conflict => SameState::Conflict,
                SameStateAnswer::NoContent => SameState::NoContent,
            })
            .log_capacity(self.log_capacity)
            .session_limit(self.session_limit)
            .bmc_reboot(Duration::from_millis(self.bmc_reboot))
            .pace(self.pace)
            .host_kind(self.host_kind()?)
            .hosts(self.hosts())
            .scenario(scenario)
            .build()?;
        Ok(fleet)
    }

    fn host_kind(&self) -> Result<HostKind, Error> {
        match self.host {
            Host::Emulated => Ok(HostKind::Emulated),
            Host::Qemu => {
                let folder = self.disk_folder.as_deref().ok_or(Error::NoDiskFolder)?;
                Ok(HostKind::Qemu(QemuSettings::new(&self.qemu, folder, self.disk_size.as_u64())?))
            }
        }
    }

    fn hosts(&self) -> HostSettings {
        HostSettings {
            boot_url: self.boot_url.clone(),
            disk: self.disk.clone(),
            post_delay: Duration::from_millis(self.post_delay),
            install_duration: Duration::from_millis(self.install_duration),
            progress_interval: Duration::from_millis(self.progress_interval),
            spread_percent: self.spread_percent,
            payloads: match self.payloads {
                HostPayloads::Download => Payloads::Download,
                HostPayloads::Pretend => Payloads::Pretend,
            },
            after_wipe: match self.after_wipe {
                WipeEnd::PowerOff => AfterWipe::PowerOff,
                WipeEnd::Reboot => AfterWipe::Reboot,
            },
            connections: self.boot_connections,
            retries: self.boot_retries,
            retry_pause: Duration::from_millis(self.boot_retry_pause),
        }
    }

    fn write_files(&self, bound: &Bound) -> Result<(), Error> {
        let address = |address: Option<SocketAddr>| address.map(|address| address.to_string());
        let http = address(bound.http).unwrap_or_default();
        let https = address(bound.https).unwrap_or_default();
        write("--ca-out", self.ca_out.as_deref(), &bound.ca_pem)?;
        write("--addresses-file", self.addresses_file.as_deref(), &addresses(bound).to_string())?;
        // These last: whoever waits for them finds the others complete.
        write("--listen-https-file", self.listen_https_file.as_deref(), &https)?;
        write("--listen-file", self.listen_file.as_deref(), &http)
    }
}

fn addresses(bound: &Bound) -> serde_json::Value {
    serde_json::json!({
        "http": bound.http,
        "https": bound.https,
        "https_self_signed": bound.https_self_signed,
        "https_wrong_name": bound.https_wrong_name,
        "fingerprint_sha256": bound.fingerprint,
        "self_signed_fingerprint_sha256": bound.self_signed_fingerprint,
        "own": bound.own.iter().map(|own| serde_json::json!({
            "system": own.system, "http": own.http, "https": own.https,
        })).collect::<Vec<_>>(),
    })
}

/// Writes a file so that a reader never sees half of it.
fn write(flag: &'static str, path: Option<&Path>, text: &str) -> Result<(), Error> {
    let Some(path) = path else { return Ok(()) };
    let failed = |source| Error::Write { flag, path: path.to_owned(), source };
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    std::fs::write(&partial, text).map_err(failed)?;
    std::fs::rename(&partial, path).map_err(failed)
}

/// Serves the fleet until `shutdown`.
pub async fn run(args: Args, shutdown: CancellationToken) -> Result<(), Error> {
    let listeners = Listeners {
        http: args.listen,
        https: args.listen_https,
        https_self_signed: args.listen_https_self_signed,
        https_wrong_name: args.listen_https_wrong_name,
        own_ports: args.own_ports,
    };
    let fleet = args.fleet()?;
    let bound = emulator::serve(fleet, listeners, shutdown).await.map_err(|error| match error {
        ServeError::NoListener => Error::NoListener,
        other => Error::Serve(other),
    })?;
    args.write_files(&bound)?;
    tracing::info!(
        systems = args.systems,
        http = bound.http.map(tracing::field::display),
        https = bound.https.map(tracing::field::display),
        "the emulated fleet answers"
    );
    bound.stopped().await;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, missing_docs)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    async fn refusal(flags: &[&str]) -> String {
        let flags = std::iter::once(&"emulate").chain(flags);
        let command = Command::try_parse_from(flags).unwrap();
        run(command.args, CancellationToken::new()).await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn flags_that_cannot_be_meant_are_refused_by_name_value_and_way_out() {
        for (flags, parts) in [
            (vec![], ["--listen", "127.0.0.1:0"]),
            (vec!["--listen", "127.0.0.1:0", "--systems", "0"], ["systems is 0", "at least 1"]),
            (vec!["--listen", "127.0.0.1:0", "--name-prefix", "a/b"], ["a/b", "letters"]),
            (vec!["--listen", "127.0.0.1:0", "--own-ports", "99"], ["own-ports is 99", "at most"]),
            (vec!["--listen", "127.0.0.1:0", "--username", "a:b"], ["a:b", "no ':'"]),
            (
                vec![
                    "--listen",
                    "127.0.0.1:0",
                    "--host",
                    "qemu",
                    "--disk-folder",
                    "/nowhere",
                    "--qemu",
                    "qqq",
                ],
                ["qemu is 'qqq'", "qemu-system-x86 and ipxe-qemu"],
            ),
            (vec!["--listen", "127.0.0.1:0", "--scenario", "/nowhere.yaml"], ["/nowhere.yaml", "readable"]),
            (vec!["--listen", "127.0.0.1:0", "--ca-out", "/nowhere/ca.pem"], ["--ca-out", "writable"]),
        ] {
            let message = refusal(&flags).await;
            assert!(parts.iter().all(|part| message.contains(part)), "{flags:?}: {message}");
        }
    }

    #[test]
    fn a_pace_is_one_time_or_two() {
        let of = |text: &str| pace(text);
        assert_eq!(of("1s..5s"), Ok(Pace::new(Duration::from_secs(1), Duration::from_secs(5)).unwrap()));
        assert_eq!(of("200ms"), of("200ms..200ms"));
        assert!(of("5s..1s").unwrap_err().contains("the shorter time first"));
        assert!(of("fast").unwrap_err().contains("no duration"));
    }

    #[tokio::test]
    async fn a_started_fleet_writes_its_addresses_and_stops_when_told() {
        let directory = std::env::temp_dir().join(format!("autobuild-emulate-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let file = directory.join("addresses.json");
        let command = Command::try_parse_from([
            "emulate",
            "--listen",
            "127.0.0.1:0",
            "--own-ports",
            "2",
            "--addresses-file",
            file.to_str().unwrap(),
        ])
        .unwrap();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(run(command.args, shutdown.clone()));
        let wait = async {
            while !file.exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), wait).await.unwrap();
        let written: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        assert_eq!(written["own"].as_array().unwrap().len(), 2);
        assert_eq!(written["own"][1]["system"], "system-0002");
        shutdown.cancel();
        tokio::time::timeout(Duration::from_mins(1), running).await.unwrap().unwrap().unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
