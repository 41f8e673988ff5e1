//! The web server from which the boot service fetches kernels and installers, and installers fetch images.

use std::path::Path;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Bytes;
use axum::routing::get;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::HOST;
use super::files::{MachineFiles, Release};
use crate::fleet::hex;

/// What an `OSImage` has an installer do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Write this system to the disk.
    Install(Release),
    /// Erase the disk.
    Wipe,
}

#[derive(Debug, Clone)]
struct Served {
    name: String,
    sha256: String,
}

/// The files of machines over plain HTTP, on loopback, until it is dropped.
#[derive(Debug)]
pub struct Shelf {
    port: u16,
    kernel: Served,
    installer: Served,
    images: Vec<(Release, Served)>,
    served: tokio::task::JoinHandle<()>,
}

impl Drop for Shelf {
    fn drop(&mut self) {
        self.served.abort();
    }
}

impl Shelf {
    /// Serves them.
    pub async fn serve(files: &MachineFiles) -> Result<Self> {
        let mut routes = Router::new();
        let mut put = |path: &Path| -> Result<Served> {
            let content = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let sha256 = hex(&Sha256::digest(&content));
            let content = Bytes::from(content);
            routes = std::mem::take(&mut routes).route(&format!("/{name}"), get(async move || content));
            Ok(Served { name, sha256 })
        };
        let kernel = put(&files.kernel())?;
        let installer = put(&files.installer())?;
        let images = Release::ALL
            .into_iter()
            .map(|release| Ok((release, put(&files.image(release))?)))
            .collect::<Result<Vec<_>>>()?;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let served = tokio::spawn(async move {
            let _ = axum::serve(listener, routes).await;
        });
        Ok(Self { port, kernel, installer, images, served })
    }

    /// `host:port`, for processes of this host.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The `source` of an `OSImage` for this task.
    pub fn source(&self, task: Task) -> Value {
        let file = |served: &Served| json!({ "url": format!("http://{}/{}", self.address(), served.name), "sha256": served.sha256 });
        let mut args: Vec<String> =
            ["console=ttyS0", "quiet", "no_timer_check", "panic=5"].map(str::to_owned).to_vec();
        match task {
            // The boot service tells it so.
            Task::Wipe => {}
            Task::Install(release) => {
                let image = self.images.iter().find(|(other, _)| *other == release).map(|(_, image)| image);
                if let Some(Served { name, sha256 }) = image {
                    args.push(format!("disk.url=http://{HOST}:{}/{name}", self.port));
                    args.push(format!("disk.sha256={sha256}"));
                }
            }
        }
        json!({ "kernel": file(&self.kernel), "initrd": file(&self.installer), "args": args })
    }
}
