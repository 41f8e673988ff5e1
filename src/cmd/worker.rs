//! `autobuild worker`: claims jobs of its site and carries them out against BMCs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::api_server::WATCH_SILENCE;
use super::connect::{self, ClusterError, DatabaseArgs};
use crate::api::WipeImages;
use crate::bmc::network::{BmcNetwork, BmcNetworks};
use crate::bmc::{
    Connector, ConnectorSettings, ImageUrl, IpmiLan, PlainHttp, SHORTEST_IPMI_REQUEST, UnverifiedTls,
};
use crate::boot::PublicUrl;
use crate::config::{duration, image_name, is_dns_label};
use crate::descriptors;
use crate::http::{self, Readiness};
use crate::queue::QueueError;
use crate::worker::{Broken, LiveReader, Remembered, Settings, Surroundings, Turns, pool, serve};

/// What a job may hold open at once: a connection to its BMC, the look-up of its name, the two outputs of ipmitool, a read from
/// the API server.
const SLOT_DESCRIPTORS: u64 = 5;
/// What a worker holds open beside its slots and its connections to the database: its ports, and whoever asks there.
const OTHER_DESCRIPTORS: u64 = 64;

/// The flags of `autobuild worker`.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub(super) struct Args {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    http: http::Args,
    /// The BMC network that it serves: spec.site of the Servers that it works on
    #[arg(long, value_name = "NAME", default_value = crate::api::DEFAULT_SITE)]
    site: String,
    /// Jobs that run at once
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=2000))]
    slots: u16,
    /// Slots that only urgent jobs may use; by default one in sixteen, and one at least where there are two
    #[arg(long, value_name = "N")]
    urgent_slots: Option<u16>,
    /// Slots that jobs of one namespace may hold while Servers of others are known; by default three times as many as stay free,
    /// which are three quarters of all, and fewer where several namespaces have much to do
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=2000))]
    slots_per_namespace: Option<u16>,
    /// One claim in N starts from a lower priority than the highest that waits, so that nothing waits for ever; 0 turns
    /// that off
    #[arg(long, value_name = "N", default_value_t = 16)]
    lower_share: u32,
    /// Installations and wipes in flight at once at this site; the same for all workers of a site
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    installs: u32,
    /// Longest time of a job in its slot; one that takes longer is stopped, which counts as a crash of its step; by
    /// default ten times --request-timeout and a minute
    #[arg(long, value_name = "TIME", value_parser = duration)]
    slot_deadline: Option<Duration>,
    /// Worker processes; with more than one, this process only starts them and restarts one that ends
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    processes: u16,
    /// How long SIGTERM waits for steps that run
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    grace: Duration,
    /// Between two heartbeats
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    heartbeat: Duration,
    /// How long a heartbeat may stand still before others take over; the same for all workers of a site
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    lease: Duration,
    /// Networks that BMCs are in, separated by commas: workers talk to no other address, whatever a Server names. NAMESPACE=NET is
    /// one of a namespace, which then reaches its own alone. Special ranges such as loopback are named by themselves
    #[arg(long, value_name = "NET,...", value_delimiter = ',', required = true)]
    bmc_cidr: Vec<BmcNetwork>,
    /// Speak plain HTTP to BMCs of redfish+http:// addresses: passwords can be read on the way
    #[arg(long)]
    allow_plain_http: bool,
    /// Speak IPMI over LAN, by ipmitool, to BMCs of ipmi:// addresses: whoever reaches such a BMC gets a hash of the password
    #[arg(long)]
    allow_ipmi: bool,
    /// Obey spec.bmc.tls.verify: Disabled: whoever sits between can read the password
    #[arg(long)]
    allow_unverified_tls: bool,
    /// Tell BMCs which worker asks, and for which claim, in the headers X-AutoBuild-Worker and X-Request-Id: for drills on an
    /// emulated fleet
    #[arg(long)]
    tell_bmcs_who_asks: bool,
    /// File with the key of the hashes that tell a changed Secret: at least 16 bytes, the same for all workers
    #[arg(long, value_name = "FILE")]
    login_key_file: PathBuf,
    /// Longest time of one request to a BMC
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    request_timeout: Duration,
    /// How long an operating system may take to shut down before the power is cut
    #[arg(long, value_name = "TIME", default_value = "180s", value_parser = duration)]
    shutdown_deadline: Duration,
    /// How long a power change may take once the BMC accepted it
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    power_deadline: Duration,
    /// How long a job that switched a machine off tries to switch it on again, whatever is in the way
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = duration)]
    power_on_patience: Duration,
    /// How soon a power state that was asked for is read again
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    power_poll: Duration,
    /// How long a machine may take from its start until it fetches its boot script
    #[arg(long, value_name = "TIME", default_value = "20m", value_parser = duration)]
    boot_deadline: Duration,
    /// How long an installation may take from then on
    #[arg(long, value_name = "TIME", default_value = "90m", value_parser = duration)]
    install_deadline: Duration,
    /// How long erasing the disks of a machine may take
    #[arg(long, value_name = "TIME", default_value = "6h", value_parser = duration)]
    wipe_deadline: Duration,
    /// The OSImage that erases disks, in the namespace of each Server; the same for all controllers and workers
    #[arg(long, value_name = "NAME", default_value = "wipe", value_parser = image_name)]
    wipe_image: String,
    /// The OSImage that erases the disks of machines with bootMethod VirtualMedia; the same for all controllers and workers
    #[arg(long, value_name = "NAME", default_value = "wipe-iso", value_parser = image_name)]
    wipe_iso: String,
    /// Where BMCs reach the boot service, for spec.bootMethod VirtualMedia: http://HOST[:PORT], most often its --public-url
    #[arg(long, value_name = "URL")]
    boot_url: Option<PublicUrl>,
    /// The boot program that BMCs with an HttpBootUri are told for spec.bootMethod HTTP: an iPXE, http://HOST/snponly.efi;
    /// without it DHCP tells machines
    #[arg(long, value_name = "URL", value_parser = ImageUrl::parse)]
    http_boot_uri: Option<ImageUrl>,
    /// How long a job that was asked to stop tries to undo what it began
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration)]
    undo_deadline: Duration,
    /// Set by the pool manager
    #[arg(long, value_name = "N", hide = true)]
    pool_member: Option<u16>,
}

/// `autobuild worker` ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(
        "--lease {lease} s is too short for --heartbeat {heartbeat} s: make it at least three times as long"
    )]
    Lease { lease: f64, heartbeat: f64 },
    #[error(
        "--urgent-slots {urgent} leaves no slot for other jobs: make it smaller than --slots, which is {slots}"
    )]
    UrgentSlots { urgent: u16, slots: u16 },
    #[error(
        "--slots {slots} may need {needed} file descriptors, and this process gets no more than {limit}: {fewer}raise the limit \
         of open files where it runs (ulimit -Hn, LimitNOFILE= of a unit, --ulimit nofile of a container)"
    )]
    Descriptors { slots: u16, needed: u64, limit: u64, fewer: String },
    #[error("--lower-share 1 would start every claim from a lower priority: give 2 or more, or 0 for never")]
    LowerShare,
    #[error(
        "--slot-deadline {deadline} s is too short for --request-timeout {request} s: make it at least twice as long"
    )]
    SlotDeadline { deadline: f64, request: f64 },
    #[error(
        "--request-timeout {request} s is too short for --allow-ipmi: make it at least {shortest} s, because each packet of \
         an IPMI session is waited for a second"
    )]
    IpmiTimeout { request: f64, shortest: f64 },
    #[error("{flag} is 0: give a time such as {example}")]
    Zero { flag: &'static str, example: &'static str },
    #[error("--site {0:?} is no site: lower-case letters, digits and '-', at most 63")]
    Site(String),
    #[error("--login-key-file {path} cannot be read: {source}; write at least 16 random bytes into it")]
    LoginKey { path: PathBuf, source: std::io::Error },
    #[error("--login-key-file {0} has fewer than 16 bytes: write at least 16 random bytes into it")]
    ShortLoginKey(PathBuf),
    #[error("the pool cannot be started: {0}")]
    Pool(std::io::Error),
    #[error(transparent)]
    Database(#[from] QueueError),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Serve(#[from] http::ServeError),
    #[error(transparent)]
    Broken(#[from] Broken),
}

impl Args {
    fn check(&self) -> Result<(), Error> {
        for (flag, time, example) in [
            ("--heartbeat", self.heartbeat, "2s"),
            ("--request-timeout", self.request_timeout, "30s"),
            ("--power-poll", self.power_poll, "2s"),
            ("--power-deadline", self.power_deadline, "5m"),
            ("--power-on-patience", self.power_on_patience, "15m"),
            ("--boot-deadline", self.boot_deadline, "20m"),
            ("--install-deadline", self.install_deadline, "90m"),
            ("--wipe-deadline", self.wipe_deadline, "6h"),
        ] {
            if time.is_zero() {
                return Err(Error::Zero { flag, example });
            }
        }
        if self.lease < self.heartbeat * 3 {
            return Err(Error::Lease {
                lease: self.lease.as_secs_f64(),
                heartbeat: self.heartbeat.as_secs_f64(),
            });
        }
        if self.urgent_slots() >= self.slots {
            return Err(Error::UrgentSlots { urgent: self.urgent_slots(), slots: self.slots });
        }
        if self.lower_share == 1 {
            return Err(Error::LowerShare);
        }
        if self.slot_deadline() < self.request_timeout * 2 {
            return Err(Error::SlotDeadline {
                deadline: self.slot_deadline().as_secs_f64(),
                request: self.request_timeout.as_secs_f64(),
            });
        }
        if self.allow_ipmi && self.request_timeout < SHORTEST_IPMI_REQUEST {
            return Err(Error::IpmiTimeout {
                request: self.request_timeout.as_secs_f64(),
                shortest: SHORTEST_IPMI_REQUEST.as_secs_f64(),
            });
        }
        if is_dns_label(&self.site) { Ok(()) } else { Err(Error::Site(self.site.clone())) }
    }

    /// Slots that cannot all have their descriptors would fail their jobs. `limit`: as many as this process may have.
    fn check_descriptors(&self, limit: Option<u64>) -> Result<(), Error> {
        let others = OTHER_DESCRIPTORS + u64::from(self.database.database_connections);
        let needed = others + u64::from(self.slots) * SLOT_DESCRIPTORS;
        match limit.filter(|limit| *limit < needed) {
            None => Ok(()),
            Some(limit) => {
                // Where not even one fits, fewer slots are no way out.
                let fit = limit.saturating_sub(others) / SLOT_DESCRIPTORS;
                let fewer =
                    if fit == 0 { String::new() } else { format!("give --slots {fit} or fewer, or ") };
                Err(Error::Descriptors { slots: self.slots, needed, limit, fewer })
            }
        }
    }

    fn urgent_slots(&self) -> u16 {
        self.urgent_slots.unwrap_or(if self.slots > 1 { (self.slots / 16).max(1) } else { 0 })
    }

    fn slot_deadline(&self) -> Duration {
        self.slot_deadline.unwrap_or(self.request_timeout * 10 + Duration::from_mins(1))
    }

    fn settings(&self) -> Result<Settings, Error> {
        Ok(Settings {
            site: self.site.clone(),
            host: host_name(),
            slots: usize::from(self.slots),
            urgent_slots: usize::from(self.urgent_slots()),
            slots_per_namespace: self.slots_per_namespace.map(u32::from),
            lower_share: self.lower_share,
            installs: self.installs,
            slot_deadline: self.slot_deadline(),
            heartbeat: self.heartbeat,
            lease: self.lease,
            grace: self.grace,
            request_timeout: self.request_timeout,
            shutdown_deadline: self.shutdown_deadline,
            power_deadline: self.power_deadline,
            power_poll: self.power_poll,
            power_on_patience: self.power_on_patience,
            boot_deadline: self.boot_deadline,
            install_deadline: self.install_deadline,
            wipe_deadline: self.wipe_deadline,
            wipe_images: WipeImages { network: self.wipe_image.clone(), iso: self.wipe_iso.clone() },
            undo_deadline: self.undo_deadline,
            boot_url: self.boot_url.clone(),
            http_boot_uri: self.http_boot_uri.clone(),
            login_key: login_key(&self.login_key_file)?,
        })
    }

    fn connector(&self) -> Connector {
        Connector::new(ConnectorSettings {
            networks: BmcNetworks::of(&self.bmc_cidr),
            plain_http: if self.allow_plain_http { PlainHttp::Allowed } else { PlainHttp::Refused },
            ipmi: if self.allow_ipmi { IpmiLan::Allowed } else { IpmiLan::Refused },
            unverified_tls: if self.allow_unverified_tls {
                UnverifiedTls::Allowed
            } else {
                UnverifiedTls::Refused
            },
            connect_timeout: self.request_timeout.min(Duration::from_secs(10)),
            request_timeout: self.request_timeout,
            inspect_timeout: self.request_timeout * 4,
            worker: self.tell_bmcs_who_asks.then(host_name),
        })
    }
}

fn login_key(path: &Path) -> Result<Vec<u8>, Error> {
    let key = std::fs::read(path).map_err(|source| Error::LoginKey { path: path.to_owned(), source })?;
    if key.len() < 16 { Err(Error::ShortLoginKey(path.to_owned())) } else { Ok(key) }
}

/// For people who look into the registry; decides nothing.
fn host_name() -> String {
    let name = std::env::var("HOSTNAME").ok().or_else(|| std::fs::read_to_string("/etc/hostname").ok());
    let name = name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    format!("{}/{}", name.unwrap_or_else(|| "unknown".to_owned()), std::process::id())
}

/// Works until `stop`.
pub(super) async fn run(args: Args, stop: CancellationToken) -> Result<(), Error> {
    args.check()?;
    args.check_descriptors(descriptors::raise())?;
    let settings = args.settings()?;
    let readiness = Readiness::default();
    let endpoints = match args.pool_member {
        Some(number) => {
            pool::end_with_manager(stop.clone());
            pool::member_listen(&args.http, number)
        }
        None => args.http.clone(),
    };
    let endpoints_stop = CancellationToken::new();
    http::serve(&endpoints, readiness.clone(), endpoints_stop.clone()).await?;
    if args.processes > 1 && args.pool_member.is_none() {
        let managed = pool::manage(args.processes, args.grace, stop).await.map_err(Error::Pool);
        endpoints_stop.cancel();
        return managed;
    }
    let live = LiveReader::new(connect::cluster(WATCH_SILENCE, &readiness).await?);
    let connector = args.connector();
    let Some(queue) = connect::database(&args.database, &readiness, &stop).await? else { return Ok(()) };
    let around = Surroundings {
        queue: queue.clone(),
        live,
        connector,
        settings: Arc::new(settings),
        remembered: Remembered::default(),
        turns: Turns::default(),
        stop,
    };
    let served = serve(&around, &readiness).await;
    queue.close().await;
    endpoints_stop.cancel();
    Ok(served?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Worker {
        #[command(flatten)]
        args: Args,
    }

    fn args(more: &[&str]) -> Args {
        let own = [
            "worker",
            "--database-url",
            "mysql://a@b/c",
            "--bmc-cidr",
            "192.0.2.0/24",
            "--login-key-file",
            "/k",
        ];
        Worker::try_parse_from(own.iter().chain(more)).unwrap().args
    }

    #[test]
    fn slots_that_cannot_have_their_descriptors_are_refused_with_the_way_out() {
        let many = args(&["--slots", "2000"]);
        let error = many.check_descriptors(Some(4096)).unwrap_err().to_string();
        for part in ["--slots 2000", "10080", "4096", "--slots 803", "ulimit -Hn"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        args(&["--slots", "803"]).check_descriptors(Some(4096)).unwrap();
        let none = args(&[]).check_descriptors(Some(64)).unwrap_err().to_string();
        assert!(none.contains("64: raise the limit") && !none.contains("or fewer"), "{none}");
        many.check_descriptors(None).unwrap();
        args(&[]).check_descriptors(Some(1024)).unwrap();
    }

    #[test]
    fn bmcs_are_not_told_who_asks_unless_that_is_wanted() {
        assert!(!args(&[]).tell_bmcs_who_asks);
        assert!(args(&["--tell-bmcs-who-asks"]).tell_bmcs_who_asks);
    }
}
