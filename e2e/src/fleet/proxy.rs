//! A TCP proxy that can be away, and lead elsewhere: for processes whose API server or database is cut off, comes back,
//! or is replaced.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::database::answers::address;

/// How the proxy behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// It forwards.
    Up,
    /// Open connections are cut, new ones are closed at once.
    Cut,
    /// Connections stay open and nothing passes.
    Silent,
    /// It forwards, each piece of an answer so much later. Open connections end with it.
    Slow(Duration),
}

/// A proxy in front of one address. It ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    link: Arc<watch::Sender<Link>>,
    target: Arc<watch::Sender<SocketAddr>>,
    open: Arc<watch::Sender<()>>,
    frozen: Arc<watch::Sender<()>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// In front of `target`, on a free port of loopback.
    pub async fn start(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let link = Arc::new(watch::channel(Link::Up).0);
        let links = Arc::clone(&link);
        let target = Arc::new(watch::channel(target).0);
        let targets = Arc::clone(&target);
        let open = Arc::new(watch::channel(()).0);
        let opened = Arc::clone(&open);
        let frozen = Arc::new(watch::channel(()).0);
        let freezes = Arc::clone(&frozen);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let target = *targets.borrow();
                let (mut cut, link) = (opened.subscribe(), links.subscribe());
                let mut frozen = freezes.subscribe();
                tokio::spawn(async move {
                    let mut forwarding = std::pin::pin!(forward(client, target, link));
                    tokio::select! {
                        _ = cut.changed() => {}
                        () = &mut forwarding => {}
                        // Both ends stay open, and nothing passes any more.
                        _ = frozen.changed() => drop(cut.changed().await),
                    }
                });
            }
        });
        Ok(Self { address, link, target, open, frozen, accepting })
    }

    /// In front of the API server of a kubeconfig, with a kubeconfig in `dir` that leads through it.
    pub async fn before_api_server(kubeconfig: &Path, dir: &Path) -> Result<(Self, PathBuf)> {
        let mut config: serde_yaml::Value = serde_yaml::from_str(&std::fs::read_to_string(kubeconfig)?)?;
        let server = &mut config["clusters"][0]["cluster"]["server"];
        let proxy = Self::start(address(server.as_str().context("the kubeconfig has no server")?)?).await?;
        *server = format!("https://{}", proxy.address).into();
        let name = kubeconfig.file_name().context("the kubeconfig has no name")?;
        let path = dir.join(name).with_extension(format!("proxied-{}", proxy.address.port()));
        std::fs::write(&path, serde_yaml::to_string(&config)?)?;
        Ok((proxy, path))
    }

    /// In front of a database, with the URL that leads through it.
    pub async fn before_database(url: &str) -> Result<(Self, String)> {
        let proxy = Self::start(address(url)?).await?;
        let mut through = url::Url::parse(url)?;
        through.set_port(Some(proxy.address.port())).ok().context("the URL takes no port")?;
        Ok((proxy, through.to_string()))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads new connections to another server. Open ones stay where they are until they are cut.
    pub fn lead_to(&self, target: SocketAddr) {
        self.target.send_replace(target);
    }

    /// Cuts every open connection; new ones pass.
    pub fn cut_open(&self) {
        self.open.send_replace(());
    }

    /// Freezes every open connection: it stays open, and nothing passes. New ones pass.
    pub fn freeze_open(&self) {
        self.frozen.send_replace(());
    }

    /// Changes how it behaves.
    pub fn set(&self, link: Link) {
        self.link.send_replace(link);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.link.send_replace(Link::Cut);
    }
}

/// Until one of them ends.
async fn forward_slowly(
    client: &mut TcpStream,
    server: &mut TcpStream,
    later: Duration,
) -> std::io::Result<()> {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let asking = tokio::io::copy(&mut from_client, &mut to_server);
    let answering = async {
        let mut piece = vec![0; 64 * 1024];
        loop {
            let length = from_server.read(&mut piece).await?;
            if length == 0 {
                return std::io::Result::Ok(());
            }
            tokio::time::sleep(later).await;
            to_client.write_all(&piece[..length]).await?;
        }
    };
    tokio::select! {
        asked = asking => asked.map(|_| ()),
        answered = answering => answered,
    }
}

async fn forward(mut client: TcpStream, target: SocketAddr, mut link: watch::Receiver<Link>) {
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    loop {
        let now = *link.borrow_and_update();
        match now {
            Link::Cut => return,
            Link::Silent => {
                if link.changed().await.is_err() {
                    return;
                }
            }
            Link::Up => tokio::select! {
                _ = copy_bidirectional(&mut client, &mut server) => return,
                changed = link.changed() => if changed.is_err() { return },
            },
            Link::Slow(later) => tokio::select! {
                _ = forward_slowly(&mut client, &mut server, later) => return,
                // A piece that is held back now would be missing later.
                _ = link.changed() => return,
            },
        }
    }
}
