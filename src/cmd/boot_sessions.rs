//! The boot service's sessions, as the queue keeps them.

use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::api::Mac;
use crate::boot::{Armed, AtMac, CallHome, Heard, Medium, Sessions, StoreAway, TokenHash};
use crate::job::InstallProgress;
use crate::queue::{self, Queue, QueueError};

/// How often a row that is being worked on is tried before the machine is asked to come again.
const TRIES: u32 = 20;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(25);

/// So many sessions with media are looked after at once: more are never installed at once by default.
const MEDIA: u32 = 100;

/// Sessions in a database.
pub(super) struct QueueSessions(Queue);

impl QueueSessions {
    pub(super) fn new(queue: Queue) -> Self {
        Self(queue)
    }

    async fn tell(
        &self,
        armed: &Armed,
        token: Option<&TokenHash>,
        what: queue::CallHome,
    ) -> Result<Heard, StoreAway> {
        let token = token.map(TokenHash::to_hex);
        let mut tried = 0;
        loop {
            match self.0.call_home(&armed.uid, armed.job, token.as_deref(), what.clone()).await {
                Ok(queue::Heard::Recorded) => return Ok(Heard::Recorded),
                Ok(queue::Heard::Refused) => return Ok(Heard::Refused),
                Err(QueueError::Busy) if tried < TRIES => {
                    tried += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(away(&error)),
            }
        }
    }
}

fn away(error: &QueueError) -> StoreAway {
    StoreAway(error.to_string())
}

/// What the database holds was written by us: a MAC address that cannot be read is as good as none.
fn armed(session: queue::BootSession) -> Option<Armed> {
    let medium = match (&session.what.media_hash, session.media_read_at_ms) {
        (None, _) => Medium::Absent,
        (Some(_), None) => Medium::Unread,
        (Some(_), Some(_)) => Medium::Read,
    };
    Some(Armed {
        install: session.job.0,
        medium,
        mac: session.what.mac.parse().ok()?,
        uid: session.uid,
        namespace: session.namespace,
        name: session.name,
        job: session.job,
        image: session.what.image,
        digest: session.what.digest,
        purpose: session.what.purpose,
    })
}

impl Sessions for QueueSessions {
    fn at_mac<'a>(&'a self, mac: &'a Mac) -> BoxFuture<'a, Result<AtMac, StoreAway>> {
        async move {
            let found = self.0.boot_at_mac(&mac.with_colons()).await;
            Ok(match found.map_err(|error| away(&error))? {
                queue::AtMac::Unknown => AtMac::Unknown,
                queue::AtMac::Idle => AtMac::Idle,
                queue::AtMac::Armed(session) => armed(*session).map_or(AtMac::Unknown, AtMac::Armed),
                queue::AtMac::OtherCard(session) => armed(*session).map_or(AtMac::Unknown, AtMac::OtherCard),
            })
        }
        .boxed()
    }

    fn hand_out<'a>(&'a self, armed: &'a Armed, token: TokenHash) -> BoxFuture<'a, Result<Heard, StoreAway>> {
        let what = queue::CallHome::ScriptFetched { token_hash: token.to_hex() };
        self.tell(armed, None, what).boxed()
    }

    fn by_token<'a>(&'a self, token: &'a TokenHash) -> BoxFuture<'a, Result<Option<Armed>, StoreAway>> {
        async move {
            let found = self.0.boot_by_token(&token.to_hex()).await.map_err(|error| away(&error))?;
            Ok(found.and_then(armed))
        }
        .boxed()
    }

    fn by_media<'a>(&'a self, token: &'a TokenHash) -> BoxFuture<'a, Result<Option<Armed>, StoreAway>> {
        async move {
            let found = self.0.boot_by_media(&token.to_hex()).await.map_err(|error| away(&error))?;
            Ok(found.and_then(armed))
        }
        .boxed()
    }

    fn with_media(&self) -> BoxFuture<'_, Result<Vec<Armed>, StoreAway>> {
        async move {
            let found = self.0.boot_media(MEDIA).await.map_err(|error| away(&error))?;
            Ok(found.into_iter().filter_map(armed).collect())
        }
        .boxed()
    }

    fn media_read<'a>(&'a self, token: &'a TokenHash) -> BoxFuture<'a, Result<(), StoreAway>> {
        async move { self.0.media_read(&token.to_hex()).await.map_err(|error| away(&error)) }.boxed()
    }

    fn not_served<'a>(&'a self, armed: &'a Armed, why: String) -> BoxFuture<'a, Result<Heard, StoreAway>> {
        self.tell(armed, None, queue::CallHome::NotServed { why }).boxed()
    }

    fn other_card<'a>(&'a self, armed: &'a Armed, mac: &'a Mac) -> BoxFuture<'a, Result<Heard, StoreAway>> {
        self.tell(armed, None, queue::CallHome::OtherCard { mac: mac.with_colons() }).boxed()
    }

    fn other_machine<'a>(
        &'a self,
        armed: &'a Armed,
        said: String,
    ) -> BoxFuture<'a, Result<Heard, StoreAway>> {
        self.tell(armed, None, queue::CallHome::OtherMachine { said }).boxed()
    }

    fn call_home<'a>(
        &'a self,
        armed: &'a Armed,
        token: &'a TokenHash,
        call: CallHome,
    ) -> BoxFuture<'a, Result<Heard, StoreAway>> {
        let what = match call {
            CallHome::Booted => queue::CallHome::Booted,
            CallHome::Progress { percent, line } => {
                queue::CallHome::Progress(InstallProgress { percent, line })
            }
            CallHome::Failed { reason } => queue::CallHome::Failed { reason },
            CallHome::Installed => queue::CallHome::Installed,
        };
        async move { self.tell(armed, Some(token), what).await }.boxed()
    }
}
