//! A TCP proxy that can be away, and lead elsewhere: for processes whose API server or database is cut off, comes back,
//! or is replaced.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How the proxy behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// It forwards.
    Up,
    /// Open connections are cut, new ones are closed at once.
    Cut,
    /// Connections stay open and nothing passes.
    Silent,
}

/// A proxy in front of one address. It ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    link: Arc<watch::Sender<Link>>,
    target: Arc<watch::Sender<SocketAddr>>,
    open: Arc<watch::Sender<()>>,
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
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let target = *targets.borrow();
                let (mut cut, link) = (opened.subscribe(), links.subscribe());
                tokio::spawn(async move {
                    tokio::select! {
                        _ = cut.changed() => {}
                        () = forward(client, target, link) => {}
                    }
                });
            }
        });
        Ok(Self { address, link, target, open, accepting })
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
        }
    }
}
