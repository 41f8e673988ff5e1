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

/// Longest time until the database has answered: a machine gives up by then, and comes again.
const ANSWER: Duration = Duration::from_secs(10);

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
        let telling = async {
            let mut tried = 0;
            loop {
                match self.0.call_home(&armed.uid, armed.job, token.as_deref(), what.clone()).await {
                    Err(QueueError::Busy) if tried < TRIES => {
                        tried += 1;
                        tokio::time::sleep(PAUSE).await;
                    }
                    ended => return ended,
                }
            }
        };
        heard(within(telling).await?)
    }
}

/// An answer, or that there is none: a database that hangs keeps nobody waiting.
async fn within<T>(asked: impl Future<Output = Result<T, QueueError>>) -> Result<T, StoreAway> {
    let answer = tokio::time::timeout(ANSWER, asked).await;
    let late = || StoreAway(format!("none within {} s", ANSWER.as_secs()));
    answer.map_err(|_| late())?.map_err(|error| StoreAway(error.to_string()))
}

fn heard(heard: queue::Heard) -> Result<Heard, StoreAway> {
    match heard {
        queue::Heard::Recorded => Ok(Heard::Recorded),
        queue::Heard::Refused => Ok(Heard::Refused),
        queue::Heard::GivenBefore => Ok(Heard::GivenBefore),
        // Until then the row of a session may be one of a time that is over.
        queue::Heard::Underived => Err(StoreAway(
            "it tells another history than before, and not every job was derived again yet".to_owned(),
        )),
    }
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
        data_version: session.data_version,
    })
}

impl Sessions for QueueSessions {
    fn at_mac<'a>(&'a self, mac: &'a Mac) -> BoxFuture<'a, Result<AtMac, StoreAway>> {
        async move {
            Ok(match within(self.0.boot_at_mac(&mac.with_colons())).await? {
                queue::AtMac::Unknown => AtMac::Unknown,
                queue::AtMac::Idle => AtMac::Idle,
                queue::AtMac::Armed(session) => armed(*session).map_or(AtMac::Unknown, AtMac::Armed),
                queue::AtMac::OtherCard(session) => armed(*session).map_or(AtMac::Unknown, AtMac::OtherCard),
            })
        }
        .boxed()
    }

    fn hand_out<'a>(
        &'a self,
        armed: &'a Armed,
        token: TokenHash,
        data: String,
    ) -> BoxFuture<'a, Result<Heard, StoreAway>> {
        let what = queue::CallHome::ScriptFetched { token_hash: token.to_hex(), data_version: data };
        self.tell(armed, None, what).boxed()
    }

    fn by_token<'a>(&'a self, token: &'a TokenHash) -> BoxFuture<'a, Result<Option<Armed>, StoreAway>> {
        async move {
            let found = within(self.0.boot_by_token(&token.to_hex())).await?;
            Ok(found.and_then(armed))
        }
        .boxed()
    }

    fn by_media<'a>(&'a self, token: &'a TokenHash) -> BoxFuture<'a, Result<Option<Armed>, StoreAway>> {
        async move {
            let found = within(self.0.boot_by_media(&token.to_hex())).await?;
            Ok(found.and_then(armed))
        }
        .boxed()
    }

    fn with_media(&self) -> BoxFuture<'_, Result<Vec<Armed>, StoreAway>> {
        async move {
            let found = within(self.0.boot_media(MEDIA)).await?;
            Ok(found.into_iter().filter_map(armed).collect())
        }
        .boxed()
    }

    fn media_read<'a>(&'a self, token: &'a TokenHash) -> BoxFuture<'a, Result<(), StoreAway>> {
        async move { heard(within(self.0.media_read(&token.to_hex())).await?).map(drop) }.boxed()
    }

    fn not_served<'a>(&'a self, armed: &'a Armed, why: String) -> BoxFuture<'a, Result<Heard, StoreAway>> {
        self.tell(armed, None, queue::CallHome::NotServed { why }).boxed()
    }

    fn waits<'a>(&'a self, armed: &'a Armed, why: String) -> BoxFuture<'a, Result<Heard, StoreAway>> {
        let waits = InstallProgress { percent: 0, line: why };
        self.tell(armed, None, queue::CallHome::Progress(waits)).boxed()
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
