//! Boot sessions, as the database keeps them: what a machine may boot, and what it has reported.

use futures::future::BoxFuture;

use super::token::TokenHash;
use crate::api::Mac;
use crate::job::{BootPurpose, JobId, ServerUid};

/// The database gives no answer to decide on. The machine is asked to come again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the database gives no answer: {0}")]
pub struct StoreAway(pub String);

/// A session that waits for its machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Armed {
    /// The server.
    pub uid: ServerUid,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The job that armed the session.
    pub job: JobId,
    /// The server's count of installations; tokens are bound to it.
    pub install: i64,
    /// Name of the `OSImage`.
    pub image: String,
    /// The image's digest as it was when the job was armed.
    pub digest: String,
    /// What it is for.
    pub purpose: BootPurpose,
    /// The network card that boots.
    pub mac: Mac,
    /// The medium that it boots from.
    pub medium: Medium,
    /// Which objects, in which version, its first script was given with; `None`: none was given yet.
    pub data_version: Option<String>,
}

/// Whether a session has a medium for its machine's virtual CD drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// It has none: its machine boots from the network.
    Absent,
    /// It has one, which was not read yet.
    Unread,
    /// It has one, which its BMC has begun to read.
    Read,
}

/// What is known of a network card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AtMac {
    /// No server boots from it.
    Unknown,
    /// A server's, and nothing is to be installed.
    Idle,
    /// A session waits for it.
    Armed(Armed),
    /// A session waits for another card of its machine.
    OtherCard(Armed),
}

/// What a machine reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallHome {
    /// The installer runs.
    Booted,
    /// So far it is.
    Progress {
        /// 0 to 100.
        percent: u8,
        /// What it does, one line.
        line: String,
    },
    /// It gave up.
    Failed {
        /// Why, one line.
        reason: String,
    },
    /// The installed system runs: the session is over.
    Installed,
}

impl CallHome {
    /// The name in paths, logs and metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Booted => "booted",
            Self::Progress { .. } => "progress",
            Self::Failed { .. } => "failed",
            Self::Installed => "installed",
        }
    }
}

/// Whether a write changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It is committed.
    Recorded,
    /// The session is over, or is another one by now: nothing was written.
    Refused,
    /// It was handed out before the database was failed over or restored, which may have lost the end of it: nothing was written.
    GivenBefore,
}

/// Where sessions are kept.
pub trait Sessions: Send + Sync {
    /// What is known of a network card.
    fn at_mac<'a>(&'a self, mac: &'a Mac) -> BoxFuture<'a, Result<AtMac, StoreAway>>;

    /// Records that the machine fetched its script, or where its session is, with a token of this hash; the newest one
    /// counts. `data`: which objects it is given with, the same as with the first.
    fn hand_out<'a>(
        &'a self,
        armed: &'a Armed,
        token: TokenHash,
        data: String,
    ) -> BoxFuture<'a, Result<Heard, StoreAway>>;

    /// The session whose newest token has this hash.
    fn by_token<'a>(&'a self, token: &'a TokenHash) -> BoxFuture<'a, Result<Option<Armed>, StoreAway>>;

    /// The session whose medium is read by a token of this hash.
    fn by_media<'a>(&'a self, token: &'a TokenHash) -> BoxFuture<'a, Result<Option<Armed>, StoreAway>>;

    /// Sessions with media, as many as a process looks after at once.
    fn with_media(&self) -> BoxFuture<'_, Result<Vec<Armed>, StoreAway>>;

    /// Records that its BMC reads the medium.
    fn media_read<'a>(&'a self, token: &'a TokenHash) -> BoxFuture<'a, Result<(), StoreAway>>;

    /// Records that the machine of that session cannot be given what its image names, for its job.
    fn not_served<'a>(&'a self, armed: &'a Armed, why: String) -> BoxFuture<'a, Result<Heard, StoreAway>>;

    /// Records what the machine of that session waits for, for who looks at its server.
    fn waits<'a>(&'a self, armed: &'a Armed, why: String) -> BoxFuture<'a, Result<Heard, StoreAway>>;

    /// Records that the machine of that session asked with another of its cards, for its job.
    fn other_card<'a>(&'a self, armed: &'a Armed, mac: &'a Mac) -> BoxFuture<'a, Result<Heard, StoreAway>>;

    /// Records that another machine asked in place of the one of that session, with what it said of itself, for its job.
    fn other_machine<'a>(&'a self, armed: &'a Armed, said: String)
    -> BoxFuture<'a, Result<Heard, StoreAway>>;

    /// Records what the machine of that session reports.
    fn call_home<'a>(
        &'a self,
        armed: &'a Armed,
        token: &'a TokenHash,
        call: CallHome,
    ) -> BoxFuture<'a, Result<Heard, StoreAway>>;
}
