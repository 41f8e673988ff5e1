//! A server that answers what a member of a cluster answers in trouble: a real one, with a proxy before it that understands the
//! protocol of MySQL and gives numbers for answers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The command of the protocol that carries a statement as text: `BEGIN`, `COMMIT` and `ROLLBACK` come so.
const COM_QUERY: u8 = 3;
/// First byte of an error packet.
const ERROR: u8 = 0xff;

/// What the server has done by the time that it answers an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meanwhile {
    /// It carried the statement out.
    Done,
    /// It never saw it.
    Nothing,
    /// It does not see it before [`Answering::let_go`], and nothing is answered until then.
    Hangs,
}

/// An error for an answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The statement, whole.
    pub to: &'static str,
    /// The server's error number.
    pub code: u16,
    /// What really became of the statement.
    pub meanwhile: Meanwhile,
    /// To how many such statements.
    pub times: usize,
}

/// The proxy. It ends when dropped.
#[derive(Debug)]
pub struct Answering {
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    answers: Mutex<Vec<Answer>>,
    given: AtomicUsize,
    closed: AtomicUsize,
    opened: AtomicUsize,
    /// How often what hung was let go.
    let_go: watch::Sender<u64>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            answers: Mutex::default(),
            given: AtomicUsize::default(),
            closed: AtomicUsize::default(),
            opened: AtomicUsize::default(),
            let_go: watch::channel(0).0,
        }
    }
}

impl Answering {
    /// In front of a database, with the URL that leads through it. The URL must not ask for TLS.
    pub async fn before(url: &str) -> Result<(Self, String)> {
        let (proxy, address) = Self::before_all(&[address(url)?]).await?;
        let mut through = url::Url::parse(url)?;
        through.set_port(Some(address.port())).ok().context("the URL takes no port")?;
        Ok((proxy, through.to_string()))
    }

    /// In front of several servers: each new connection leads to the next one of them, as a balancer does it.
    pub async fn before_all(targets: &[SocketAddr]) -> Result<(Self, SocketAddr)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state: Arc<State> = Arc::default();
        let (of_all, targets) = (Arc::clone(&state), targets.to_vec());
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = of_all.opened.fetch_add(1, Ordering::SeqCst);
                let state = Arc::clone(&of_all);
                let target = targets[number % targets.len()];
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(target).await {
                        forward(client, server, &state).await;
                    }
                    state.closed.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Ok((Self { state, accepting }, address))
    }

    /// From now on.
    pub fn answer(&self, answer: Answer) {
        self.state.answers.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
    }

    /// Whatever hangs goes on, and nothing hangs from now on.
    pub fn let_go(&self) {
        self.state
            .answers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|answer| answer.meanwhile != Meanwhile::Hangs);
        self.state.let_go.send_modify(|times| *times += 1);
    }

    /// How many errors were given for answers.
    pub fn given(&self) -> usize {
        self.state.given.load(Ordering::SeqCst)
    }

    /// How many connections have ended.
    pub fn closed(&self) -> usize {
        self.state.closed.load(Ordering::SeqCst)
    }

    /// How many connections were opened.
    pub fn opened(&self) -> usize {
        self.state.opened.load(Ordering::SeqCst)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Where a URL leads.
pub fn address(url: &str) -> Result<SocketAddr> {
    let addresses = url::Url::parse(url)?.socket_addrs(|| None)?;
    addresses.first().copied().context("the URL has no address")
}

impl State {
    /// The answer to this statement, where one is left.
    fn take(&self, payload: &[u8]) -> Option<Answer> {
        let statement = std::str::from_utf8(payload.strip_prefix(&[COM_QUERY])?).ok()?;
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let one = answers.iter_mut().find(|one| one.to == statement && one.times > 0)?;
        one.times -= 1;
        self.given.fetch_add(1, Ordering::SeqCst);
        Some(one.clone())
    }
}

async fn forward(client: TcpStream, server: TcpStream, state: &State) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (to_client, instead) = (tokio::sync::Mutex::new(to_client), Mutex::new(None));
    tokio::select! {
        _ = statements(from_client, to_server, &to_client, &instead, state) => {}
        _ = answers(from_server, &to_client, &instead) => {}
    }
}

/// From the client to the server.
async fn statements(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    back: &tokio::sync::Mutex<OwnedWriteHalf>,
    instead: &Mutex<Option<Answer>>,
    state: &State,
) -> Result<()> {
    loop {
        let packet = Packet::read(&mut from).await?;
        let answer = state.take(&packet.payload);
        let answer = match answer {
            Some(Answer { meanwhile: Meanwhile::Hangs, .. }) => {
                state.let_go.subscribe().changed().await?;
                None
            }
            answer => answer,
        };
        match answer {
            Some(answer) if answer.meanwhile == Meanwhile::Nothing => {
                back.lock().await.write_all(&error(answer.code, packet.sequence + 1)).await?;
            }
            answer => {
                *instead.lock().unwrap_or_else(PoisonError::into_inner) = answer;
                to.write_all(&packet.bytes()).await?;
            }
        }
    }
}

/// From the server to the client.
async fn answers(
    mut from: OwnedReadHalf,
    to: &tokio::sync::Mutex<OwnedWriteHalf>,
    instead: &Mutex<Option<Answer>>,
) -> Result<()> {
    loop {
        let packet = Packet::read(&mut from).await?;
        let answer = instead.lock().unwrap_or_else(PoisonError::into_inner).take();
        let bytes = answer.map_or_else(|| packet.bytes(), |answer| error(answer.code, packet.sequence));
        to.lock().await.write_all(&bytes).await?;
    }
}

struct Packet {
    sequence: u8,
    payload: Vec<u8>,
}

impl Packet {
    async fn read(from: &mut OwnedReadHalf) -> Result<Self> {
        let mut head = [0; 4];
        from.read_exact(&mut head).await?;
        let length = usize::from(head[0]) | usize::from(head[1]) << 8 | usize::from(head[2]) << 16;
        let mut payload = vec![0; length];
        from.read_exact(&mut payload).await?;
        Ok(Self { sequence: head[3], payload })
    }

    fn bytes(&self) -> Vec<u8> {
        let length = self.payload.len().to_le_bytes();
        [&length[..3], &[self.sequence], &self.payload].concat()
    }
}

fn error(code: u16, sequence: u8) -> Vec<u8> {
    let text = format!("#HY000answered by the test ({code})");
    let payload = [&[ERROR][..], &code.to_le_bytes(), text.as_bytes()].concat();
    Packet { sequence, payload }.bytes()
}
