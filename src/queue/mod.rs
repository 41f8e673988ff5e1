//! All SQL of AutoBuild: the queue of jobs, what is known of each server, and the registry of workers.
//!
//! Knows no Kubernetes client. Every transaction is short, is a type of its own in a file named by what it does, and
//! takes its locks in one order: `queue`, `job`, `boot_session`, `server_state`, `handled_token`, `machine`, `bmc_claim`, `budget`, worker row
//! (shared), `permit`; only the insert of a new
//! queue row may come last. Every write of a worker names the token of its claim and the revision that it saw, so a worker
//! that lost its lease changes nothing, and a commit whose answer was lost is recognised when it is repeated.
//!
//! A live job is in exactly one of these places:
//!
//! | place | `job.owner` | row in `queue` |
//! |---|---|---|
//! | queued: never started | NULL | `queued`, by lane and age |
//! | ready: started, waits for a worker | NULL | `ready`, by lane and age |
//! | parked: waits for a time or a signal | NULL | `parked`, by wake time |
//! | held by a worker | incarnation | none |
#![expect(clippy::disallowed_types, clippy::disallowed_methods, reason = "this is the module with the SQL")]

mod abandon;
mod address;
mod advance;
mod batch;
mod bmc_claim;
mod boot_session;
mod budget;
mod cancel;
mod card_claim;
mod claim;
mod complete;
mod connection;
mod decided_on;
mod depth;
mod derive;
mod enqueue;
mod error;
mod facts;
mod feed;
mod fence;
mod fitness;
mod follow;
mod front;
mod handled_token;
mod head;
mod history;
mod hold_back;
mod identity;
mod inventory;
mod lease;
mod login;
mod lost;
mod machine;
mod many;
pub mod measure;
mod migrating;
mod nodes;
mod observe;
mod park;
mod permit;
mod present;
mod reap;
mod register;
mod release;
mod request;
mod row;
mod schema;
mod shares;
mod state;
mod state_row;
mod sweep;
mod transaction;
mod wake;
mod writer;

use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Weak};

use sqlx::mysql::MySqlPool;

use batch::Batcher;
use connection::Checked;
use present::Present;
use writer::Writer;

pub use abandon::{Abandoned, Farewell};
pub use address::DatabaseAddress;
pub use bmc_claim::{BmcClaimed, BmcKey, Claimant};
pub use boot_session::{AtMac, BootSession, CallHome, Heard, NewBootSession};
pub use cancel::CancelOutcome;
pub use card_claim::{CardClaim, CardOwner};
pub use claim::{Claim, ClaimFrom, Served};
pub use complete::{Disks, End, Installed};
pub use connection::{Engine, ServerInfo};
pub use decided_on::DecidedOn;
pub use depth::Waiting;
pub use derive::Derived;
pub use enqueue::{Enqueued, NewJob};
pub use error::QueueError;
pub use facts::{Demand, Finding, Verdict};
pub use feed::{Changed, FeedCursor};
pub use fence::Fenced;
pub use fitness::check_database;
pub use follow::Lead;
pub use front::{Front, Room};
pub use history::Underived;
pub use lease::{Beat, Heart, Newcomer, Past};
pub use login::{LoginEnd, LoginKey, LoginLeave, LoginPeer, RefusedLogin};
pub use lost::LostJob;
pub use machine::MachineKey;
pub use observe::{Registered, Seen};
pub use park::{OwnedJob, ParkAs, Parked};
pub use permit::Permits;
pub use reap::{CRASH_LIMIT, Heartbeat, LeaseWatch, Reaped};
pub use release::Released;
pub use request::{ContentsAfter, Effects};
pub use row::PlaceInQueue;
pub use schema::{Migrated, migrate};
pub use shares::{ShareBound, Shares};
pub use state::Report;
pub use sweep::Swept;

/// The queue: a pool of connections to one database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Queue {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    address: DatabaseAddress,
    pool: MySqlPool,
    present: Arc<Present>,
    server: ServerInfo,
    writer: Writer,
    shards: u16,
    /// Connections that tasks keep between their transactions.
    kept: Arc<AtomicU32>,
    batchers: Batchers,
}

/// Where calls of one kind meet, to share transactions.
#[derive(Debug)]
struct Batchers {
    enqueue: Batcher<enqueue::Enqueue>,
    store_request: Batcher<request::StoreRequest>,
    close_request: Batcher<request::CloseRequest>,
    advance: Batcher<advance::Advance>,
    park: Batcher<park::Park>,
    complete: Batcher<complete::Complete>,
}

impl Batchers {
    fn start(queue: &Weak<Inner>) -> Self {
        Self {
            enqueue: Batcher::start(queue),
            store_request: Batcher::start(queue),
            close_request: Batcher::start(queue),
            advance: Batcher::start(queue),
            park: Batcher::start(queue),
            complete: Batcher::start(queue),
        }
    }
}

/// How long is waited for connections that are in use.
const CLOSING: std::time::Duration = std::time::Duration::from_secs(2);

impl Queue {
    /// Connects, checks server and schema, and logs what could lose a commit. From then on it goes where the address of the
    /// database leads.
    ///
    /// `connections` bounds the pool. Fails with a sentence that says what to do.
    pub async fn connect(address: impl Into<DatabaseAddress>, connections: u32) -> Result<Self, QueueError> {
        let address = address.into();
        let options = address.options()?;
        schema::verify(&options).await?;
        let Checked { server, writer, told, warnings } = connection::check(&options).await?;
        for warning in warnings.into_iter().chain(address::warning(&options)) {
            tracing::warn!(engine = server.engine.as_str(), "{warning}");
        }
        let present = Arc::new(Present::new(told));
        let pool = connection::pool(options, connections, writer, &present);
        let shards = schema::shards(&pool).await?;
        let inner = Arc::new_cyclic(|queue| {
            follow::start(queue, &present);
            Inner {
                address,
                pool,
                present,
                server,
                writer,
                shards,
                kept: Arc::default(),
                batchers: Batchers::start(queue),
            }
        });
        Ok(Self { inner })
    }

    /// What the database server is.
    pub fn server(&self) -> &ServerInfo {
        &self.inner.server
    }

    /// Shards per site.
    pub fn shards(&self) -> u16 {
        self.inner.shards
    }

    /// Closes every connection. One that a task still keeps is closed when that task ends, and is not waited for.
    pub async fn close(&self) {
        if tokio::time::timeout(CLOSING, self.inner.pool.close()).await.is_err() {
            tracing::debug!("a connection is still in use");
        }
    }

    fn pool(&self) -> &MySqlPool {
        &self.inner.pool
    }
}

/// Milliseconds since the Unix epoch by the database's clock: it orders and wakes, no safety hangs on it.
macro_rules! now_ms {
    () => {
        "CAST(UNIX_TIMESTAMP(CURRENT_TIMESTAMP(3)) * 1000 AS SIGNED)"
    };
}
use now_ms;
