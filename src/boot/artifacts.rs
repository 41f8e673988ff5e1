//! The artifact cache: a folder of files named by their SHA-256. Each replica has its own.
#![expect(clippy::disallowed_methods, reason = "what failed is tried again after a time")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use super::disk::Disk;
use super::download::{self, DownloadError, Pace};
use super::pauses::Pauses;
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
    /// The least that a server has to send.
    pub pace: Pace,
    /// After a download that failed; each pause is twice as long as the one before.
    pub first_pause: Duration,
    /// The disk that the folder is on.
    pub disk: Arc<dyn Disk>,
}

impl CacheSettings {
    /// How long is waited after a first failure.
    pub const FIRST_PAUSE: Duration = Duration::from_secs(5);
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
    clients: download::Clients,
    shelf: Mutex<Shelf>,
    running: Mutex<HashMap<Key, Running>>,
    /// Of downloads that failed.
    pauses: Mutex<Pauses<Key, DownloadError>>,
    /// Why the disk took nothing, the last time that something was to be written.
    trouble: Mutex<Option<DownloadError>>,
    /// How many files have come.
    come: watch::Sender<u64>,
    tasks: Mutex<JoinSet<()>>,
}

/// Digest and URL: whoever names another place for a file waits for nobody's download.
type Key = (String, String);

fn key(artifact: &Artifact) -> Key {
    (artifact.sha256.clone(), artifact.url.clone())
}

type Running = Shared<BoxFuture<'static, Result<(), DownloadError>>>;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
        let clients = download::Clients::new(&settings.sources)
            .map_err(|error| CacheError::Client(error.to_string()))?;
        let pauses = Mutex::new(Pauses::new(settings.first_pause));
        Ok(Self(Arc::new(Inner {
            settings,
            clients,
            shelf: Mutex::new(shelf),
            running: Mutex::default(),
            pauses,
            trouble: Mutex::default(),
            come: watch::channel(0).0,
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
            let _ = self.running(artifact);
        }
    }

    /// Why the disk took nothing, the last time that something was to be written.
    pub fn trouble(&self) -> Option<String> {
        locked(&self.0.trouble).as_ref().map(ToString::to_string)
    }

    async fn fetched(&self, artifact: &Artifact) -> Result<Present, DownloadError> {
        let mut come = self.0.come.subscribe();
        loop {
            come.mark_unchanged();
            if let Some(present) = self.present(&artifact.sha256).await {
                return Ok(present);
            }
            let ended = tokio::select! {
                ended = self.running(artifact)? => ended,
                // Perhaps this one, from elsewhere.
                _ = come.changed() => Ok(()),
            };
            ended?;
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

    /// The download of this file from there that runs, or a new one. What failed a moment ago is not tried yet.
    fn running(&self, artifact: &Artifact) -> Result<Running, DownloadError> {
        let mut running = locked(&self.0.running);
        if let Some(running) = running.get(&key(artifact)) {
            return Ok(running.clone());
        }
        if let Some(error) = locked(&self.0.pauses).holds(&key(artifact), Instant::now()) {
            return Err(error);
        }
        let (tell, told) = oneshot::channel();
        let new = told.map(|told| told.unwrap_or(Err(DownloadError::Stopped))).boxed().shared();
        running.insert(key(artifact), new.clone());
        let (artifact, inner) = (artifact.clone(), Arc::downgrade(&self.0));
        let mut tasks = locked(&self.0.tasks);
        while tasks.try_join_next().is_some() {}
        // A task of its own: a machine that gives up does not end what others wait for.
        tasks.spawn(async move {
            let Some(inner) = inner.upgrade() else { return };
            let artifacts = Self(inner);
            let ended = tokio::select! {
                ended = artifacts.download(&artifact) => ended,
                // First to finish wins.
                () = artifacts.comes(&artifact.sha256) => Ok(()),
            };
            metrics::BOOT_DOWNLOADS.one(&[ended.as_ref().err().map_or("done", DownloadError::class)]);
            artifacts.judge(&artifact, ended.as_ref().err());
            locked(&artifacts.0.running).remove(&key(&artifact));
            let _ = tell.send(ended);
        });
        Ok(new)
    }

    /// Remembers how a download ended.
    fn judge(&self, artifact: &Artifact, error: Option<&DownloadError>) {
        let mut pauses = locked(&self.0.pauses);
        let Some(error) = error else { return pauses.end(&key(artifact)) };
        let url = &artifact.url;
        if error.may_pass() {
            let pause = pauses.begin(key(artifact), error.clone(), Instant::now());
            tracing::warn!(
                url,
                pause_s = pause.as_secs(),
                "a file was not downloaded, and is tried again: {error}"
            );
        } else {
            tracing::warn!(url, "a file was not downloaded: {error}");
        }
        if error.is_of_the_disk() {
            *locked(&self.0.trouble) = Some(error.clone());
        }
    }

    /// Waits until the file is there, from wherever.
    async fn comes(&self, digest: &str) {
        let mut come = self.0.come.subscribe();
        while !self.shelf().holds(digest) && come.changed().await.is_ok() {}
    }

    async fn download(&self, artifact: &Artifact) -> Result<(), DownloadError> {
        let settings = &self.0.settings;
        let mut room = Room { artifacts: self, bytes: 0 };
        let partial = settings.folder.join(PARTIAL);
        let into = self.path(&artifact.sha256);
        let from = download::Wanted {
            artifact,
            sources: &settings.sources,
            largest: settings.largest,
            pace: settings.pace,
            disk: &settings.disk,
        };
        let bytes = download::file(&self.0.clients, from, &partial, &into, &mut room).await?;
        drop(room);
        *locked(&self.0.trouble) = None;
        let held = {
            let mut kept = self.shelf();
            kept.add(&artifact.sha256, bytes);
            kept.held()
        };
        metrics::BOOT_CACHE_BYTES.set(&[], held as f64);
        self.0.come.send_modify(|come| *come += 1);
        Ok(())
    }

    fn remove(&self, digest: &str) {
        if let Err(error) = std::fs::remove_file(self.path(digest)) {
            tracing::warn!(%digest, "a file of the cache cannot be removed: {error}");
        }
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.0.settings.folder.join(digest)
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        locked(&self.0.shelf)
    }
}

/// The room that one download has taken; given back when it ends.
pub(super) struct Room<'a> {
    artifacts: &'a Artifacts,
    bytes: u64,
}

impl Room<'_> {
    /// Whether a file of so many bytes can be here at all, and now.
    pub(super) fn can_hold(&self, bytes: u64) -> Result<(), DownloadError> {
        let settings = &self.artifacts.0.settings;
        let disk = settings.disk.space(&settings.folder).ok();
        let kept = self.artifacts.shelf();
        let most = disk.map_or(u64::MAX, |disk| disk.total).min(kept.limit());
        if bytes > most {
            return Err(DownloadError::NeverFits { bytes, most });
        }
        match disk {
            Some(disk) if bytes > disk.free.saturating_add(kept.idle()) => {
                Err(DownloadError::DiskFull(format!(
                    "{bytes} bytes are needed, and {} are free or can be made so",
                    disk.free + kept.idle()
                )))
            }
            _ => Ok(()),
        }
    }

    /// Makes room for so many bytes in all.
    pub(super) fn grow(&mut self, bytes: u64) -> Result<(), DownloadError> {
        let more = bytes.saturating_sub(self.bytes);
        let mut kept = self.artifacts.shelf();
        let go = kept.reserve(more).map_err(|Full| DownloadError::NoRoom)?;
        self.bytes += more;
        // Under the lock: nobody may find the name and open nothing.
        for digest in go {
            self.artifacts.remove(&digest);
        }
        Ok(())
    }

    /// Gets rid of what was not used for longest; `false`: nothing can go.
    pub(super) fn make_space(&self) -> bool {
        let mut kept = self.artifacts.shelf();
        let Some(digest) = kept.evict() else { return false };
        self.artifacts.remove(&digest);
        true
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
