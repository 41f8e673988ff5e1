//! The artifact cache: a folder of files named by their SHA-256. Each replica has its own.
#![expect(
    clippy::disallowed_types,
    reason = "kernels, RAM disks and ISOs are downloaded from where an OSImage says"
)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::download::{self, DownloadError};
use super::shelf::{Full, Shelf};
use super::sources::Sources;
use crate::api::Artifact;
use crate::metrics;

/// How long a machine waits for a download before it is asked to come again.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);
/// The folder of what is not complete yet.
const PARTIAL: &str = "partial";

/// Where the cache is, and how large it gets.
#[derive(Debug, Clone)]
pub struct CacheSettings {
    /// The folder.
    pub folder: PathBuf,
    /// Bytes of all files together.
    pub size: u64,
    /// Bytes of the largest file.
    pub largest: u64,
    /// Where files may be from.
    pub sources: Sources,
}

/// A cache that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The folder.
    #[error("--cache-dir {path} cannot be used: {source}; give a folder that this process may write to")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The HTTP client.
    #[error("files cannot be downloaded: {0}")]
    Client(String),
}

/// The files. Cheap to clone.
#[derive(Clone)]
pub struct Artifacts(Arc<Inner>);

struct Inner {
    settings: CacheSettings,
    client: reqwest::Client,
    shelf: Mutex<Shelf>,
    running: Mutex<HashMap<String, Running>>,
    tasks: Mutex<JoinSet<()>>,
}

#[derive(Clone)]
struct Running {
    url: String,
    end: Shared<BoxFuture<'static, Result<(), DownloadError>>>,
}

/// A file that is there, and stays until this is dropped.
pub struct Present {
    artifacts: Artifacts,
    digest: String,
}

impl Present {
    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.artifacts.path(&self.digest)
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.artifacts.shelf().close(&self.digest);
    }
}

impl Artifacts {
    /// Takes up what an earlier process left in the folder, and throws away what was not complete.
    pub fn open(settings: CacheSettings) -> Result<Self, CacheError> {
        let folder = |source| CacheError::Folder { path: settings.folder.clone(), source };
        let mut shelf = Shelf::new(settings.size);
        for (digest, bytes) in prepare(&settings.folder).map_err(folder)? {
            shelf.add(&digest, bytes);
        }
        metrics::BOOT_CACHE_BYTES.set(&[], shelf.held() as f64);
        let client = download::client().map_err(|error| CacheError::Client(error.to_string()))?;
        Ok(Self(Arc::new(Inner {
            settings,
            client,
            shelf: Mutex::new(shelf),
            running: Mutex::default(),
            tasks: Mutex::default(),
        })))
    }

    /// The file, downloaded where it is not here yet. Who comes while it is being downloaded waits for that one.
    pub async fn get(&self, artifact: &Artifact) -> Result<Present, DownloadError> {
        self.get_within(artifact, PATIENCE).await
    }

    /// The same for somebody who waits for a download only so long.
    pub async fn get_within(
        &self,
        artifact: &Artifact,
        patience: Duration,
    ) -> Result<Present, DownloadError> {
        // It becomes the name of a file.
        if !is_digest(&artifact.sha256) {
            return Err(DownloadError::NoDigest(artifact.sha256.clone()));
        }
        tokio::time::timeout(patience, self.fetched(artifact))
            .await
            .unwrap_or(Err(DownloadError::StillRunning))
    }

    /// Begins to download the file where it is not here yet, for whoever asks soon.
    pub fn prefetch(&self, artifact: &Artifact) {
        if is_digest(&artifact.sha256) && !self.shelf().holds(&artifact.sha256) {
            drop(self.running(artifact));
        }
    }

    async fn fetched(&self, artifact: &Artifact) -> Result<Present, DownloadError> {
        loop {
            if let Some(present) = self.present(&artifact.sha256).await {
                return Ok(present);
            }
            let running = self.running(artifact);
            match running.end.await {
                Ok(()) => {}
                // Another image has this file from elsewhere: its trouble is not ours.
                Err(_) if running.url != artifact.url => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn present(&self, digest: &str) -> Option<Present> {
        if !self.shelf().open(digest) {
            return None;
        }
        let present = Present { artifacts: self.clone(), digest: digest.to_owned() };
        if tokio::fs::try_exists(present.path()).await.unwrap_or(false) {
            return Some(present);
        }
        // Somebody cleared the folder.
        self.shelf().forget(digest);
        None
    }

    /// The download of this digest that runs, or a new one.
    fn running(&self, artifact: &Artifact) -> Running {
        let mut running = self.0.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = running.get(&artifact.sha256) {
            return running.clone();
        }
        let (tell, told) = oneshot::channel();
        let end = told.map(|told| told.unwrap_or(Err(DownloadError::Stopped))).boxed().shared();
        let new = Running { url: artifact.url.clone(), end };
        running.insert(artifact.sha256.clone(), new.clone());
        let (artifact, inner) = (artifact.clone(), Arc::downgrade(&self.0));
        let mut tasks = self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        // A task of its own: a machine that gives up does not end what others wait for.
        tasks.spawn(async move {
            let Some(inner) = inner.upgrade() else { return };
            let artifacts = Self(inner);
            let ended = artifacts.download(&artifact).await;
            metrics::BOOT_DOWNLOADS.one(&[ended.as_ref().err().map_or("done", DownloadError::class)]);
            if let Err(error) = &ended {
                tracing::warn!(url = artifact.url, "a file was not downloaded: {error}");
            }
            artifacts.0.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&artifact.sha256);
            let _ = tell.send(ended);
        });
        new
    }

    async fn download(&self, artifact: &Artifact) -> Result<(), DownloadError> {
        let settings = &self.0.settings;
        let mut room = Room { artifacts: self, bytes: 0 };
        let partial = settings.folder.join(PARTIAL);
        let into = self.path(&artifact.sha256);
        let client = &self.0.client;
        let from = download::Wanted { artifact, sources: &settings.sources, largest: settings.largest };
        let bytes = download::file(client, from, &partial, &into, |bytes| room.grow(bytes)).await?;
        drop(room);
        let mut kept = self.shelf();
        kept.add(&artifact.sha256, bytes);
        metrics::BOOT_CACHE_BYTES.set(&[], kept.held() as f64);
        Ok(())
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.0.settings.folder.join(digest)
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.0.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The room that one download has taken; given back when it ends.
struct Room<'a> {
    artifacts: &'a Artifacts,
    bytes: u64,
}

impl Room<'_> {
    /// Makes room for so many bytes in all.
    fn grow(&mut self, bytes: u64) -> Result<(), DownloadError> {
        let more = bytes.saturating_sub(self.bytes);
        let mut kept = self.artifacts.shelf();
        let go = kept.reserve(more).map_err(|Full| DownloadError::NoRoom)?;
        self.bytes += more;
        for digest in go {
            // Under the lock: nobody may find the name and open nothing.
            if let Err(error) = std::fs::remove_file(self.artifacts.path(&digest)) {
                tracing::warn!(%digest, "a file of the cache cannot be removed: {error}");
            }
        }
        Ok(())
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.artifacts.shelf().release(self.bytes);
    }
}

/// Makes the folder, empties the part for what is not complete, and lists the rest, the oldest first.
fn prepare(folder: &Path) -> std::io::Result<Vec<(String, u64)>> {
    let partial = folder.join(PARTIAL);
    if partial.exists() {
        std::fs::remove_dir_all(&partial)?;
    }
    std::fs::create_dir_all(&partial)?;
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let (name, metadata) = (entry.file_name().to_string_lossy().into_owned(), entry.metadata()?);
        if metadata.is_file() && is_digest(&name) {
            found.push((metadata.modified()?, name, metadata.len()));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, name, bytes)| (name, bytes)).collect())
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
