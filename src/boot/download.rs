//! One download: judged before every request, bounded, verified while it is written, and put in place whole.
#![expect(
    clippy::disallowed_types,
    reason = "kernels, RAM disks and ISOs are downloaded from where an OSImage says"
)]

use std::path::Path;
use std::time::Duration;

use futures::StreamExt as _;
use reqwest::redirect::Policy;
use reqwest::{Client, Response};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;
use url::Url;

use super::sources::{SourceRefused, Sources};
use crate::api::Artifact;

/// Longest chain of redirects.
const REDIRECTS: usize = 5;
/// Until a server is connected, and between two pieces of its answer.
const CONNECT: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(30);
/// Longest time of a download.
const DOWNLOAD: Duration = Duration::from_hours(1);
/// Room is taken in steps of so many bytes where the server does not say how long the file is.
const STEP: u64 = 16 * 1024 * 1024;

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
    /// The cache is full of files that are being read or downloaded.
    #[error("the cache is full: let the operator allow more with --cache-size")]
    NoRoom,
    /// The disk.
    #[error("the cache cannot be written: {0}")]
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
            Self::NoRoom => "no_room",
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
            | Self::Digest { .. }
            | Self::NoDigest(_) => false,
            Self::Server(_) | Self::NoRoom | Self::Disk(_) | Self::StillRunning | Self::Stopped => true,
        }
    }
}

/// What is downloaded.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) artifact: &'a Artifact,
    pub(super) sources: &'a Sources,
    pub(super) largest: u64,
}

/// A client that follows nothing by itself.
pub(super) fn client() -> reqwest::Result<Client> {
    // Whoever comes first chooses; a second call changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .redirect(Policy::none())
        .connect_timeout(CONNECT)
        .read_timeout(SILENCE)
        .user_agent(concat!("autobuild/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Downloads a file into a folder for unfinished ones, and moves it into place when its digest is right. `room` is asked
/// before the file grows. Returns how long it is.
pub(super) async fn file(
    client: &Client,
    from: Wanted<'_>,
    partial: &Path,
    into: &Path,
    room: impl FnMut(u64) -> Result<(), DownloadError>,
) -> Result<u64, DownloadError> {
    let whole = async {
        let response = ask(client, from).await?;
        write(response, from, partial, into, room).await
    };
    let late = || DownloadError::Server(format!("not done within {} s", DOWNLOAD.as_secs()));
    tokio::time::timeout(DOWNLOAD, whole).await.map_err(|_| late())?
}

async fn ask(client: &Client, from: Wanted<'_>) -> Result<Response, DownloadError> {
    let mut url = from.sources.judge(&from.artifact.url)?;
    for _ in 0..=REDIRECTS {
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

async fn write(
    response: Response,
    from: Wanted<'_>,
    partial: &Path,
    into: &Path,
    mut room: impl FnMut(u64) -> Result<(), DownloadError>,
) -> Result<u64, DownloadError> {
    let largest = from.largest;
    let fits = |bytes: u64| if bytes > largest { Err(DownloadError::TooLarge(largest)) } else { Ok(()) };
    let said = response.content_length().unwrap_or_default();
    fits(said)?;
    let mut taken = said;
    room(taken)?;
    let (file, path) = tempfile::NamedTempFile::new_in(partial).map_err(|error| disk(&error))?.into_parts();
    let mut file = tokio::fs::File::from_std(file);
    let (mut digest, mut bytes) = (Sha256::new(), 0_u64);
    let mut body = response.bytes_stream();
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(server)?;
        bytes += piece.len() as u64;
        fits(bytes)?;
        if bytes > taken {
            taken = bytes.saturating_add(STEP).min(largest);
            room(taken)?;
        }
        digest.update(&piece);
        file.write_all(&piece).await.map_err(|error| disk(&error))?;
    }
    file.sync_all().await.map_err(|error| disk(&error))?;
    let (found, wanted) = (format!("{:x}", digest.finalize()), from.artifact.sha256.clone());
    if found != wanted {
        return Err(DownloadError::Digest { found, wanted });
    }
    path.persist(into).map_err(|error| disk(&error.error))?;
    Ok(bytes)
}

fn server(error: reqwest::Error) -> DownloadError {
    // The URL is in the log line already, and may be long.
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    DownloadError::Server(text)
}

fn disk(error: &std::io::Error) -> DownloadError {
    DownloadError::Disk(error.to_string())
}
