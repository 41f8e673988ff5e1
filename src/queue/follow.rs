//! Where the address of the database leads by now. Every process that is connected goes along, because the connections do
//! it for it: nobody has to ask for that, and nobody can forget it.
//!
//! Workers are the exception that needs no flag: from its first entry into the registry on, a process finds another history
//! by its heartbeat, ends its incarnation, and tells at its next entry what it left.

use std::sync::{Arc, Weak};
use std::time::Duration;

use sqlx::Connection;
use tokio::sync::watch;

use super::history::{Asked, Told, Underived};
use super::present::Present;
use super::{Inner, Queue, QueueError, connection};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(2);
/// Longest time of a look. A database that hangs is as good as one that is away.
const LOOK: Duration = Duration::from_secs(5);

/// What the last look at where the address of the database leads found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lead {
    /// How often it led to another history. Whatever was read before that may not hold any more.
    pub changes: u64,
    /// The mark of what was not derived again yet.
    pub underived: Option<Underived>,
    /// Why the last look found nothing.
    pub trouble: Option<String>,
}

/// Looks as long as the queue lives.
pub(super) fn start(queue: &Weak<Inner>, present: &Arc<Present>) {
    let (queue, present) = (Weak::clone(queue), Arc::clone(present));
    tokio::spawn(async move {
        let mut login = None;
        loop {
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = present.another_seen() => {}
            }
            let Some(inner) = queue.upgrade() else { return };
            if inner.pool.is_closed() {
                return;
            }
            inner.renew_login(&mut login);
            if present.enters() {
                present.lead.send_modify(|lead| lead.trouble = None);
            } else if let Err(error) = (Queue { inner }).follow().await {
                tracing::debug!("where the database's address leads is not known: {error}");
            }
        }
    });
}

impl Inner {
    /// Connections that the pool opens from now on log in as the address says now. Those that are open go on: the server does
    /// not ask them again.
    fn renew_login(&self, before: &mut Option<Arc<str>>) {
        let Ok(url) = self.address.url() else { return };
        if before.as_ref() == Some(&url) {
            return;
        }
        if let Ok(options) = self.address.options() {
            self.pool.set_connect_options(options);
            if before.replace(url).is_some() {
                tracing::info!("new connections to the database use what --database-url-file says now");
            }
        }
    }
}

impl Queue {
    /// What each look finds, from now on.
    pub fn lead(&self) -> watch::Receiver<Lead> {
        self.inner.present.lead.subscribe()
    }

    /// Why nothing goes on although the database answers; `None`: nothing is known of that.
    pub fn hangs(&self) -> Option<&'static str> {
        self.inner.present.hangs()
    }

    /// Looks where the address leads by now, with a connection of its own, and goes along.
    pub async fn follow(&self) -> Result<Lead, QueueError> {
        let present = &self.inner.present;
        let _one_at_a_time = present.looking.lock().await;
        let looked = tokio::time::timeout(LOOK, self.lead_now()).await;
        let late = || QueueError::Unavailable(format!("no answer within {} s", LOOK.as_secs()));
        match looked.map_err(|_| late()).and_then(|looked| looked) {
            Ok(told) => {
                let another = present.follow(&told);
                let before = present.lead.borrow().clone();
                if before.trouble.is_some() {
                    // What was open when it hung or went away may hang for as long as its system keeps it.
                    present.renew();
                }
                let changes = before.changes + u64::from(another);
                let lead = Lead { changes, underived: told.underived, trouble: None };
                present.lead.send_replace(lead.clone());
                Ok(lead)
            }
            Err(error) => {
                present.lead.send_modify(|lead| lead.trouble = Some(error.to_string()));
                Err(error)
            }
        }
    }

    async fn lead_now(&self) -> Result<Told, QueueError> {
        let mut connection = connection::single(&self.inner.address.options()?).await?;
        let told = self.inner.present.read(&mut connection, self.inner.writer, Asked::First).await?;
        self.inner.present.met(&told.node)?;
        connection.close().await.ok();
        Ok(told)
    }
}
