//! Rows whose `Server` is gone: somebody took the finalizer off by force, or a backup brought the row back. They are
//! let go, so that their BMC is free for another one.
#![expect(
    clippy::disallowed_methods,
    reason = "a server that was just missed is looked for again after a time"
)]

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::api_call::{ApiError, call};
use super::apply::ApplyError;
use super::context::Context;
use super::fleet::Standing;
use crate::api::hardware::PowerState;
use crate::api::{Reason, names};
use crate::config;
use crate::job::{Action, JobId, Problem, ServerUid};
use crate::queue::{Farewell, QueueError, Registered};

/// How long one is left alone after a look.
const PAUSE: Duration = Duration::from_secs(5);

/// Those that were met.
#[derive(Debug, Default)]
pub(super) struct Ghosts {
    met: HashMap<ServerUid, Met>,
}

#[derive(Debug, Clone, Copy)]
struct Met {
    first: Instant,
    last: Instant,
}

impl Ghosts {
    /// Looks at a row whose server the watch does not have, and lets it go if the object is gone indeed.
    pub(super) async fn look_at(&mut self, context: &Context, row: &Registered) {
        let now = Instant::now();
        // A row of a server that is present again, or gone for good, is not met any more.
        self.met.retain(|_, met| now.duration_since(met.last) < PAUSE * 60);
        let met = self.met.entry(row.uid.clone()).or_insert(Met { first: now, last: now });
        if met.first != now && now.duration_since(met.last) < PAUSE {
            return;
        }
        met.last = now;
        let lasts = now.duration_since(met.first);
        match self.let_go(context, row, lasts).await {
            Ok(()) => {}
            Err(error) => {
                tracing::debug!(uid = row.uid.as_str(), %error, "a row without a Server stays for now");
            }
        }
    }

    async fn let_go(&self, context: &Context, row: &Registered, lasts: Duration) -> Result<(), ApplyError> {
        let found = call("read the server", context.servers(&row.namespace).get_metadata(&row.name)).await;
        match found {
            Ok(live) if live.metadata.uid.as_deref() == Some(row.uid.as_str()) => return Ok(()),
            Ok(_) | Err(ApiError::NotFound(_)) => {}
            // Nothing can be in a namespace that does not exist, whoever may look there.
            Err(ApiError::Forbidden { .. }) if context.namespaces.is_missing(&row.namespace) => {}
            Err(error) => return Err(error.into()),
        }
        let queue = &context.queue;
        let seen = queue.observe(&row.uid).await?;
        let owes = seen.known.as_ref().and_then(|known| {
            let reads_on = known.reading.as_ref().is_some_and(|one| one.power == PowerState::PoweredOn);
            known.debt.clone().filter(|_| !reads_on)
        });
        let left_off = |what: &str| {
            Problem::new(
                Reason::LeftPoweredOff,
                format!(
                    "the Server is gone, and its machine was off, which {what} had switched off: switch it on by hand"
                ),
            )
        };
        if let Some(job) = seen.job {
            if job.cancel.is_none() {
                queue.cancel(&row.uid, job.id, Reason::ServerGone).await?;
            } else if config::ms(lasts) >= context.settings.plan.undo_wait_ms {
                let undone = || {
                    let message =
                        "the Server is gone; what the job had begun was not undone: look at the machine";
                    Problem::new(Reason::ReleasedWithoutUndo, message)
                };
                let why = owes.map_or_else(undone, |debt| left_off(debt.action.as_str()));
                queue.abandon(&row.uid, job.id, why, context.sites.all_dead()).await?;
            }
        } else if let Some(job) = seen.unreadable
            && let Some(id) = job.id
            && config::ms(lasts) >= context.settings.plan.undo_wait_ms
        {
            let why = Problem::new(
                Reason::ReleasedWithoutUndo,
                format!("the Server is gone; {}", job.problem.message),
            );
            queue.abandon(&row.uid, id, why, context.sites.all_dead()).await?;
        } else if let Some(debt) = owes {
            let farewell = Farewell {
                id: JobId::new(debt.since_ms, debt.job.0.unsigned_abs()),
                uid: row.uid.clone(),
                namespace: row.namespace.clone(),
                name: row.name.clone(),
                // No Server is there that could tell it.
                site: String::new(),
                action: Action::PowerOn,
                why: left_off(debt.action.as_str()),
                requester: names::CONTROLLER.to_owned(),
            };
            queue.record_farewell(&farewell).await?;
        }
        // With a job that is still being undone this changes nothing.
        queue.release(&row.uid).await?;
        tracing::info!(
            controller = "server",
            namespace = row.namespace,
            name = row.name,
            uid = row.uid.as_str(),
            reason = Reason::ServerGone.as_str(),
            "a row without a Server is being let go"
        );
        Ok(())
    }

    /// Compares the next page of rows with the watches; returns where the page after it begins.
    pub(super) async fn patrol(
        &mut self,
        context: &Context,
        after: Option<&ServerUid>,
    ) -> Result<Option<ServerUid>, QueueError> {
        const PAGE: u16 = 500;
        let rows = context.queue.registered(after, PAGE).await?;
        for row in &rows {
            if context.fleet.standing(&row.namespace, &row.name, &row.uid) == Standing::Missing {
                self.look_at(context, row).await;
            }
        }
        let full = rows.len() == usize::from(PAGE);
        Ok(rows.into_iter().next_back().filter(|_| full).map(|row| row.uid))
    }
}
