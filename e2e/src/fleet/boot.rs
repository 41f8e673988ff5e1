//! What a fleet needs to be installed: files to boot, `OSImage`s that name them, and the boot service.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use axum::Router;
use axum::routing::get;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Flags, Fleet};
use crate::autobuild::Running;

/// The emulator's flags for machines that are installed in less than a second, and tell of it on the way.
pub const QUICK_INSTALLS: &[&str] =
    &["--install-duration", "400", "--post-delay", "100", "--progress-interval", "100"];

/// A kernel, an initial RAM disk and an ISO, served over plain HTTP; the bytes mean nothing to emulated hosts.
#[derive(Debug)]
pub struct BootFiles {
    address: String,
    asked: Arc<AtomicU64>,
    served: tokio::task::JoinHandle<()>,
}

/// The `source` of an `OSImage` whose files are served at an address (`host:port`), with these kernel arguments.
pub fn source_at(address: &str, args: &[&str]) -> Value {
    let files = files_at(address);
    json!({ "kernel": files["kernel"], "initrd": files["initrd"], "args": args })
}

fn files_at(address: &str) -> BTreeMap<&'static str, Value> {
    FILES
        .into_iter()
        .map(|(name, content)| {
            let url = format!("http://{address}/{name}");
            (name, json!({ "url": url, "sha256": hex(&Sha256::digest(content)) }))
        })
        .collect()
}

impl Drop for BootFiles {
    fn drop(&mut self) {
        self.served.abort();
    }
}

const FILES: [(&str, &str); 3] =
    [("kernel", "this is no kernel"), ("initrd", "this is no initial RAM disk"), ("iso", "this is no ISO")];

impl BootFiles {
    /// Serves until it is dropped.
    pub async fn serve() -> Result<Self> {
        Self::serve_at("127.0.0.1:0").await
    }

    /// The same at a given address.
    pub async fn serve_at(address: &str) -> Result<Self> {
        let listener = tokio::net::TcpListener::bind(address).await?;
        let address = listener.local_addr()?.to_string();
        let asked = Arc::new(AtomicU64::new(0));
        let routes = FILES.into_iter().fold(Router::new(), |routes, (name, content)| {
            let asked = Arc::clone(&asked);
            let answer = move || {
                asked.fetch_add(1, Ordering::Relaxed);
                std::future::ready(content)
            };
            routes.route(&format!("/{name}"), get(answer))
        });
        let served = tokio::spawn(async move {
            let _ = axum::serve(listener, routes).await;
        });
        Ok(Self { address, asked, served })
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// How often a file was asked for.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// The `source` of an `OSImage` with these kernel arguments.
    pub fn source(&self, args: &[&str]) -> Value {
        source_at(&self.address, args)
    }

    /// The `source` of an `OSImage` that is an ISO.
    pub fn iso(&self) -> Value {
        json!({ "iso": files_at(&self.address)["iso"] })
    }

    /// Serves until its process ends.
    pub async fn ended(mut self) {
        let _ = (&mut self.served).await;
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

impl Fleet {
    /// Starts a boot service, waits until it is ready, and has the fleet's hosts boot from it.
    pub async fn boot(&self, name: &str, files: &BootFiles) -> Result<Running> {
        Ok(self.boot_and_url(name, files).await?.0)
    }

    /// The same, with its `--public-url`.
    pub async fn boot_and_url(&self, name: &str, files: &BootFiles) -> Result<(Running, String)> {
        // Its address is a part of what it hands out, so it has to be known before.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        // What `--http-source` names is asked for through no proxy: nobody answers at this one.
        let nowhere = [("HTTP_PROXY", "http://127.0.0.1:1"), ("HTTPS_PROXY", "http://127.0.0.1:1")];
        let running = self.boot_with(name, &address, files, &nowhere).await?;
        let url = format!("http://{address}");
        self.bmcs().boot_from(&url).await?;
        Ok((running, url))
    }

    /// The same at a given address, and without telling the hosts.
    pub async fn boot_at(&self, name: &str, address: &str, files: &BootFiles) -> Result<Running> {
        self.boot_with(name, address, files, &[]).await
    }

    /// The same with these variables.
    pub async fn boot_with(
        &self,
        name: &str,
        address: &str,
        files: &BootFiles,
        env: &[(&str, &str)],
    ) -> Result<Running> {
        self.boot_as(name, &self.boot_flags(name, address, files.address())?, env).await
    }

    /// The usual flags of a boot service at this address, which fetches files from `source` (`host:port`).
    pub fn boot_flags(&self, name: &str, address: &str, source: &str) -> Result<Flags> {
        let cache = self.dir().join(format!("{name}-cache"));
        std::fs::create_dir_all(&cache)?;
        Ok(Flags::new("boot")
            .set("--boot-listen", address)
            .set("--public-url", format!("http://{address}"))
            .set("--cache-dir", cache.display().to_string())
            .set("--http-source", source))
    }

    /// Starts a boot service with these flags and variables, and waits until it is ready.
    pub async fn boot_as(&self, name: &str, flags: &Flags, env: &[(&str, &str)]) -> Result<Running> {
        let running = self.launch(name, flags, self.cluster().boot(), env).await?;
        running.wait_ready().await?;
        Ok(running)
    }

    /// Creates an `OSImage` whose kernel has these arguments.
    pub async fn image(&self, name: &str, files: &BootFiles, args: &[&str]) -> Result<()> {
        self.image_of(name, &files.source(args)).await
    }

    /// Creates an `OSImage` of a `source`.
    pub async fn image_of(&self, name: &str, source: &Value) -> Result<()> {
        let manifest = json!({
            "apiVersion": "autobuild.dev/v1alpha1",
            "kind": "OSImage",
            "metadata": { "name": name, "namespace": self.namespace() },
            "spec": { "source": source, "install": { "format": "none" } },
        });
        self.kubectl().run_with_input(&["apply", "-f", "-"], &manifest.to_string()).await?;
        Ok(())
    }

    /// What is on a system's disk, as its emulator says: `Empty`, `Unknown`, or the digest of an image.
    pub async fn disk(&self, system: &str) -> Result<String> {
        let told = self.bmcs().system(system).await?;
        let disk = &told["disk"];
        let kind = disk["kind"].as_str().with_context(|| format!("no disk in {told}"))?;
        Ok(disk["digest"].as_str().unwrap_or(kind).to_owned())
    }

    /// How often an installer has begun to write to a system's disk.
    pub async fn installs(&self, system: &str) -> Result<u64> {
        let told = self.bmcs().system(system).await?;
        told["installs"].as_u64().with_context(|| format!("no installs in {told}"))
    }
}
