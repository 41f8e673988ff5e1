//! `autobuild boot`: answers machines that boot from the network, and hears what they report.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use ipnet::IpNet;
use tokio_util::sync::CancellationToken;

use super::api_server::WATCH_SILENCE;
use super::boot_sessions::QueueSessions;
use super::connect::{self, ClusterError, DatabaseArgs};
use crate::bmc::network::{AddressRefused, BmcNetworks};
use crate::boot::{
    Artifacts, BootListener, BootService, CacheError, CacheSettings, ListenError, LiveReader, LocalDisk,
    Pace, Patience, PublicUrl, Source, Sources,
};
use crate::config::duration;
use crate::http::{self, Readiness};
use crate::queue::QueueError;

/// The flags of `autobuild boot`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    http: http::Args,
    /// Address that machines are answered at (port 0 takes a free one)
    #[arg(long, value_name = "ADDR", default_value = "[::]:8081")]
    boot_listen: SocketAddr,
    /// Write the bound host:port of --boot-listen to this file
    #[arg(long, value_name = "FILE")]
    boot_listen_file: Option<PathBuf>,
    /// Where machines reach --boot-listen: http://HOST[:PORT], the start of every URL that they are given
    #[arg(long, value_name = "URL")]
    public_url: PublicUrl,
    /// Networks that machines are in, separated by commas; without it every address is answered
    #[arg(long, value_name = "NET,...", value_delimiter = ',')]
    boot_cidr: Vec<IpNet>,
    /// Folder of downloaded kernels and RAM disks, this replica's own
    #[arg(long, value_name = "DIR")]
    cache_dir: PathBuf,
    /// How much --cache-dir holds, or its disk where that is smaller; what was not used for longest goes first
    #[arg(long, value_name = "SIZE", default_value = "20GiB")]
    cache_size: ByteSize,
    /// Largest file that is downloaded
    #[arg(long, value_name = "SIZE", default_value = "8GiB")]
    cache_file_size: ByteSize,
    /// A host that may be asked over http, that other hosts may redirect to, and whose address may be loopback, link-local or
    /// otherwise special; can be given several times
    #[arg(long, value_name = "HOST[:PORT]")]
    http_source: Vec<Source>,
    /// How long SIGTERM waits for machines that are being answered
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    grace: Duration,
}

/// `autobuild boot` ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// No file would ever fit.
    #[error("--cache-file-size {file} is larger than --cache-size {all}: make it smaller")]
    CacheSize {
        /// The largest file.
        file: ByteSize,
        /// All files.
        all: ByteSize,
    },
    /// The file cannot be written.
    #[error("--boot-listen-file {path} cannot be written: {source}; give a path in a writable directory", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The cache.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The database.
    #[error(transparent)]
    Database(#[from] QueueError),
    /// The cluster.
    #[error("{0}")]
    Cluster(String),
    /// The endpoints.
    #[error(transparent)]
    Serve(#[from] http::ServeError),
    /// The boot listener.
    #[error(transparent)]
    Listen(#[from] ListenError),
}

impl From<ClusterError> for Error {
    fn from(error: ClusterError) -> Self {
        Self::Cluster(error.to_string())
    }
}

/// What an address is that an OSImage may not name: the same that no BMC may have.
fn special(address: IpAddr) -> Option<&'static str> {
    match BmcNetworks::default().check(address) {
        Err(AddressRefused::Special(_, range)) => Some(range.as_str()),
        _ => None,
    }
}

impl Args {
    fn cache(&self) -> Result<CacheSettings, Error> {
        if self.cache_file_size > self.cache_size {
            return Err(Error::CacheSize { file: self.cache_file_size, all: self.cache_size });
        }
        Ok(CacheSettings {
            folder: self.cache_dir.clone(),
            size: self.cache_size.as_u64(),
            largest: self.cache_file_size.as_u64(),
            sources: Sources::new(self.http_source.clone(), special),
            pace: Pace::default(),
            first_pause: CacheSettings::FIRST_PAUSE,
            disk: Arc::new(LocalDisk),
        })
    }
}

/// Answers machines until `stop`.
pub(super) async fn run(args: Args, stop: CancellationToken) -> Result<(), Error> {
    let cache = args.cache()?;
    let readiness = Readiness::default();
    let endpoints_stop = CancellationToken::new();
    http::serve(&args.http, readiness.clone(), endpoints_stop.clone()).await?;
    let listener = BootListener::bind(args.boot_listen).await?;
    if let Some(path) = &args.boot_listen_file {
        http::write_whole(path, &listener.address.to_string())
            .map_err(|source| Error::File { path: path.clone(), source })?;
    }
    let artifacts = Artifacts::open(cache)?;
    let disk = artifacts.clone();
    readiness.add_note("cache", move || disk.trouble());
    let live = LiveReader::new(connect::cluster(WATCH_SILENCE, &readiness).await?);
    let Some(queue) = connect::database(&args.database, &readiness, &stop).await? else { return Ok(()) };
    let sessions = Arc::new(QueueSessions::new(queue.clone()));
    let service = BootService::new(
        args.public_url.clone(),
        args.boot_cidr.clone(),
        sessions,
        live,
        artifacts,
        Patience::default(),
    );
    tracing::info!(address = %listener.address, url = %args.public_url, "answering machines");
    let ahead = service.fetch_ahead(stop.clone());
    tokio::join!(listener.serve(service.clone(), stop, args.grace), ahead);
    queue.close().await;
    endpoints_stop.cancel();
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn line(more: &[&str]) -> Result<Args, String> {
        let needed = ["boot", "--database-url", "mysql://a/b", "--cache-dir", "cache", "--public-url"];
        let all = needed.iter().chain(more);
        Line::try_parse_from(all).map(|line| line.args).map_err(|error| error.to_string())
    }

    #[test]
    fn the_flags_are_read() {
        let args = line(&[
            "http://10.0.0.5:8080",
            "--boot-cidr=10.0.0.0/8,2001:db8::/32",
            "--http-source=mirror.example.com",
            "--http-source=[::1]:8000",
            "--cache-size=2GiB",
            "--cache-file-size=1GiB",
        ])
        .unwrap();
        assert_eq!(args.cache().unwrap().largest, 1 << 30);
        assert_eq!((args.boot_cidr.len(), args.http_source.len()), (2, 2));
    }

    #[test]
    fn addresses_that_no_bmc_may_have_are_those_that_no_image_may_name() {
        for (address, range) in
            [("127.0.0.1", Some("loopback")), ("169.254.169.254", Some("link-local")), ("10.0.0.1", None)]
        {
            assert_eq!(special(address.parse().unwrap()), range, "{address}");
        }
    }

    #[test]
    fn a_bad_flag_is_named_with_the_way_out() {
        assert!(line(&["10.0.0.5"]).unwrap_err().contains("write http://HOST"));
        assert!(line(&["http://a", "--http-source=http://a"]).unwrap_err().contains("write HOST"));
        let small = line(&["http://a", "--cache-size=1GiB"]).unwrap();
        assert!(small.cache().unwrap_err().to_string().contains("make it smaller"));
    }
}
