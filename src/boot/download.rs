//! One download: judged before every request, bounded, verified while it is written, and put in place whole.
#![expect(
    clippy::disallowed_types,
    reason = "kernels, RAM disks and ISOs are downloaded from where an OSImage says"
)]
#![expect(clippy::disallowed_methods, reason = "a server has to send so much in a time")]

use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, Response};
use sha2::{Digest as _, Sha256};
use url::Url;

use super::artifacts::Room;
use super::disk::{Disk, is_full};
use super::sources::{SourceRefused, Sources};
use crate::api::Artifact;
use crate::causes::causes;

/// Longest chain of redirects.
const REDIRECTS: usize = 5;
/// Until a server is connected, and between two pieces of its answer.
const CONNECT: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(30);
/// Longest time of a download.
const DOWNLOAD: Duration = Duration::from_hours(1);
/// Room is taken as bytes come: for as many again as have come, and for so many at most.
const STEP: u64 = 16 * 1024 * 1024;
/// Bytes that are written at once.
const WRITE: usize = 1024 * 1024;

/// The least that a server has to send.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// So many bytes,
    pub bytes: u64,
    /// in each time of this length.
    pub every: Duration,
}

impl Default for Pace {
    /// 64 KiB a second.
    fn default() -> Self {
        Self { bytes: 2 * 1024 * 1024, every: Duration::from_secs(32) }
    }
}

/// Why a file is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DownloadError {
    /// The URL, or where it leads, is not allowed.
    #[error(transparent)]
    Refused(#[from] SourceRefused),
    /// The URL leads on and on.
    #[error("the server redirects more than {REDIRECTS} times")]
    Redirects,
    /// Larger than allowed.
    #[error("the file is larger than {0} bytes: let the operator allow more with --cache-file-size")]
    TooLarge(u64),
    /// Another file than the image's author meant.
    #[error(
        "the file has the SHA-256 {found}, and the OSImage says {wanted}: make an OSImage with the one that is right"
    )]
    Digest {
        /// What was downloaded.
        found: String,
        /// What the image says.
        wanted: String,
    },
    /// The image names no digest.
    #[error("sha256 is {0:?}: write 64 lower-case hexadecimal digits")]
    NoDigest(String),
    /// The server refuses, or does not answer.
    #[error("the server gives no file: {0}")]
    Server(String),
    /// The server sends, and next to nothing.
    #[error("the server sends fewer than {0} bytes a second")]
    TooSlow(u64),
    /// Larger than the whole cache can be.
    #[error(
        "the file has {bytes} bytes, and the cache holds {most} at most: let the operator give it a larger disk and --cache-size"
    )]
    NeverFits {
        /// The file.
        bytes: u64,
        /// The smaller of `--cache-size` and the disk.
        most: u64,
    },
    /// The cache is full of files that are being read or downloaded.
    #[error("the cache is full: let the operator allow more with --cache-size")]
    NoRoom,
    /// The disk of the cache is full, although everything went that could.
    #[error(
        "the disk of the cache is full ({0}): let the operator give it a larger disk, or make room on it"
    )]
    DiskFull(String),
    /// The disk takes nothing.
    #[error("the cache cannot be written ({0}): let the operator look at the disk of --cache-dir")]
    Disk(String),
    /// It takes longer than a machine waits.
    #[error("the download still runs")]
    StillRunning,
    /// The process ends.
    #[error("the download was stopped")]
    Stopped,
}

impl DownloadError {
    /// The name in metrics.
    pub const fn class(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::Redirects => "redirects",
            Self::TooLarge(_) => "too_large",
            Self::Digest { .. } | Self::NoDigest(_) => "digest",
            Self::Server(_) => "server",
            Self::TooSlow(_) => "too_slow",
            Self::NeverFits { .. } => "never_fits",
            Self::NoRoom => "no_room",
            Self::DiskFull(_) => "disk_full",
            Self::Disk(_) => "disk",
            Self::StillRunning => "still_running",
            Self::Stopped => "stopped",
        }
    }

    /// Whether a later try can end otherwise, with the same image.
    pub const fn may_pass(&self) -> bool {
        match self {
            Self::Refused(_)
            | Self::Redirects
            | Self::TooLarge(_)
            | Self::NeverFits { .. }
            | Self::Digest { .. }
            | Self::NoDigest(_) => false,
            Self::Server(_)
            | Self::TooSlow(_)
            | Self::NoRoom
            | Self::DiskFull(_)
            | Self::Disk(_)
            | Self::StillRunning
            | Self::Stopped => true,
        }
    }

    /// Whether it is the disk of this replica that is in the way.
    pub const fn is_of_the_disk(&self) -> bool {
        matches!(self, Self::DiskFull(_) | Self::Disk(_))
    }
}

/// What is downloaded, and how.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) artifact: &'a Artifact,
    pub(super) sources: &'a Sources,
    pub(super) largest: u64,
    pub(super) pace: Pace,
    pub(super) disk: &'a Arc<dyn Disk>,
}

/// They follow nothing by themselves, and reach no address that only the operator may name.
pub(super) struct Clients {
    /// Through the proxy of the environment, where there is one.
    by_proxy: Client,
    /// For what `--http-source` names: that is on the operator's own networks.
    straight: Client,
}

impl Clients {
    pub(super) fn new(sources: &Sources) -> reqwest::Result<Self> {
        // Whoever comes first chooses; a second call changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = || {
            Client::builder()
                .redirect(Policy::none())
                .connect_timeout(CONNECT)
                .read_timeout(SILENCE)
                .dns_resolver(Judged(sources.clone()))
                .user_agent(concat!("autobuild/", env!("CARGO_PKG_VERSION")))
        };
        Ok(Self { by_proxy: builder().build()?, straight: builder().no_proxy().build()? })
    }

    fn to(&self, url: &Url, sources: &Sources) -> &Client {
        if sources.lists(url) { &self.straight } else { &self.by_proxy }
    }
}

/// Resolves names to addresses that may be reached: the very ones that are connected to.
struct Judged(Sources);

impl Resolve for Judged {
    fn resolve(&self, name: Name) -> Resolving {
        let sources = self.0.clone();
        Box::pin(async move {
            let host = name.as_str();
            let all = addresses(host).await?;
            if sources.names(host) {
                return Ok(Box::new(all.into_iter()) as Addrs);
            }
            let mut refused = None;
            let mut allowed = Vec::new();
            for address in all {
                match sources.judge_address(host, address.ip()) {
                    Ok(()) => allowed.push(address),
                    Err(error) => refused = Some(error),
                }
            }
            match refused.filter(|_| allowed.is_empty()) {
                Some(error) => Err(error.into()),
                None => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

async fn addresses(host: &str) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host((host, 0)).await?.collect())
}

/// Downloads a file into a folder for unfinished ones, and moves it into place when its digest is right. `room` is asked
/// before the file grows. Returns how long it is.
pub(super) async fn file(
    clients: &Clients,
    from: Wanted<'_>,
    partial: &Path,
    into: &Path,
    room: &mut Room<'_>,
) -> Result<u64, DownloadError> {
    let whole = async {
        let response = ask(clients, from).await?;
        write(response, from, partial, into, room).await
    };
    let late = || DownloadError::Server(format!("not done within {} s", DOWNLOAD.as_secs()));
    tokio::time::timeout(DOWNLOAD, whole).await.map_err(|_| late())?
}

async fn ask(clients: &Clients, from: Wanted<'_>) -> Result<Response, DownloadError> {
    let mut url = from.sources.judge(&from.artifact.url)?;
    for _ in 0..=REDIRECTS {
        judge_port(&url, from.sources).await?;
        let client = clients.to(&url, from.sources);
        let response = client.get(url.clone()).send().await.map_err(server)?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let to = response.headers().get(http::header::LOCATION).filter(|_| status.is_redirection());
        let Some(to) = to else {
            return Err(DownloadError::Server(format!("it answers {}", status.as_u16())));
        };
        let to = to.to_str().ok().and_then(|to| url.join(to).ok());
        let to: Url = to.ok_or(DownloadError::Refused(SourceRefused::Unreadable))?;
        from.sources.judge_redirect(&url, &to)?;
        url = to;
    }
    Err(DownloadError::Redirects)
}

/// A host that the operator named for one port is judged like any other on the rest of its ports.
async fn judge_port(url: &Url, sources: &Sources) -> Result<(), DownloadError> {
    let Some(host) = url.domain().filter(|host| sources.names(host) && !sources.lists(url)) else {
        return Ok(());
    };
    let all = addresses(host).await.map_err(|error| DownloadError::Server(error.to_string()))?;
    let ips = all.iter().map(SocketAddr::ip);
    ips.collect::<Vec<IpAddr>>()
        .into_iter()
        .try_for_each(|ip| sources.judge_address(host, ip))
        .map_err(DownloadError::Refused)
}

/// An unfinished file.
struct Unfinished {
    file: Arc<File>,
    digest: Sha256,
    bytes: u64,
    waiting: Vec<u8>,
}

impl Unfinished {
    /// Writes what waits. A full disk gets rid of what nobody reads, and is tried again.
    async fn flush(&mut self, disk: &Arc<dyn Disk>, room: &mut Room<'_>) -> Result<(), DownloadError> {
        let mut piece = std::mem::take(&mut self.waiting);
        let at = self.bytes - piece.len() as u64;
        loop {
            let (file, writer) = (Arc::clone(&self.file), Arc::clone(disk));
            let written = tokio::task::spawn_blocking(move || {
                let written = writer.write(&file, &piece, at);
                (piece, written)
            });
            let (back, written) = written.await.map_err(|_| DownloadError::Stopped)?;
            match written {
                Ok(()) => {
                    self.waiting = back;
                    self.waiting.clear();
                    return Ok(());
                }
                Err(error) if is_full(&error) && room.make_space() => piece = back,
                Err(error) => return Err(disk_error(&error)),
            }
        }
    }
}

async fn write(
    response: Response,
    from: Wanted<'_>,
    partial: &Path,
    into: &Path,
    room: &mut Room<'_>,
) -> Result<u64, DownloadError> {
    let largest = from.largest;
    let fits = |bytes: u64| if bytes > largest { Err(DownloadError::TooLarge(largest)) } else { Ok(()) };
    let said = response.content_length().unwrap_or_default();
    fits(said)?;
    room.can_hold(said)?;
    let (file, path) =
        tempfile::NamedTempFile::new_in(partial).map_err(|error| disk_error(&error))?.into_parts();
    let mut unfinished =
        Unfinished { file: Arc::new(file), digest: Sha256::new(), bytes: 0, waiting: Vec::new() };
    let (mut taken, mut window) = (0, (Instant::now(), 0_u64));
    let mut body = response.bytes_stream();
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(server)?;
        unfinished.bytes += piece.len() as u64;
        fits(unfinished.bytes)?;
        if unfinished.bytes > taken {
            // No more than the file is said to have, and never by what it is said alone.
            let end = if said == 0 { largest } else { said.max(unfinished.bytes) };
            let step = STEP.min(unfinished.bytes);
            taken = unfinished.bytes.saturating_add(step).min(end).min(largest);
            room.grow(taken)?;
        }
        unfinished.digest.update(&piece);
        unfinished.waiting.extend_from_slice(&piece);
        if unfinished.waiting.len() >= WRITE {
            unfinished.flush(from.disk, room).await?;
        }
        window.1 += piece.len() as u64;
        if window.0.elapsed() >= from.pace.every {
            if window.1 < from.pace.bytes {
                return Err(DownloadError::TooSlow(from.pace.bytes / from.pace.every.as_secs().max(1)));
            }
            window = (Instant::now(), 0);
        }
    }
    unfinished.flush(from.disk, room).await?;
    let Unfinished { file, digest, bytes, .. } = unfinished;
    let synced = tokio::task::spawn_blocking(move || file.sync_all());
    synced.await.map_err(|_| DownloadError::Stopped)?.map_err(|error| disk_error(&error))?;
    let (found, wanted) = (format!("{:x}", digest.finalize()), from.artifact.sha256.clone());
    if found != wanted {
        return Err(DownloadError::Digest { found, wanted });
    }
    path.persist(into).map_err(|error| disk_error(&error.error))?;
    Ok(bytes)
}

fn server(error: reqwest::Error) -> DownloadError {
    // The URL is in the log line already, and may be long.
    let error = error.without_url();
    let mut behind = std::error::Error::source(&error);
    while let Some(cause) = behind {
        if let Some(refused) = cause.downcast_ref::<SourceRefused>() {
            return DownloadError::Refused(refused.clone());
        }
        behind = cause.source();
    }
    DownloadError::Server(causes(&error))
}

fn disk_error(error: &io::Error) -> DownloadError {
    if is_full(error) {
        DownloadError::DiskFull(error.to_string())
    } else {
        DownloadError::Disk(error.to_string())
    }
}
