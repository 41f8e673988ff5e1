//! Another database behind the same address, after a failover or a restore: what was read before may not hold any more,
//! so every server is looked at again, and everything is derived anew from Kubernetes. Workers that found it wait until
//! the leader says that this is done. The queue itself goes where the address leads.

use std::collections::HashSet;
use std::sync::Arc;

use super::context::Context;
use super::namespaces::Namespaces;
use crate::http::Readiness;
use crate::job::ServerUid;
use crate::metrics;
use crate::queue::{Derived, Lead, QueueError, Underived};

/// What waits, in `/readyz`.
pub(super) const DERIVATION: &str = "derivation";

/// Goes on for ever.
pub(super) async fn run(context: &Context, readiness: &Readiness) {
    let mut leads = context.queue.lead();
    let mut left_out = context.namespaces.changes();
    let mut changes = leads.borrow_and_update().changes;
    let mut lead = context.queue.follow().await.ok();
    loop {
        // A look that found nothing is told where the connections are.
        if let Some(lead) = &lead {
            if lead.changes != std::mem::replace(&mut changes, lead.changes) {
                tracing::warn!("the database tells another history: every server is looked at again");
                context.fleet.wake_where(None, |_| true);
            }
            if let Err(error) = look(context, lead, readiness).await {
                readiness.waits(DERIVATION, error.to_string());
            }
        }
        tokio::select! {
            _ = leads.changed() => {
                let found = leads.borrow_and_update().clone();
                lead = Some(found).filter(|lead| lead.trouble.is_none());
            }
            () = context.derivation.enough() => lead = context.queue.follow().await.ok(),
            _ = left_out.changed() => lead = context.queue.follow().await.ok(),
        }
    }
}

async fn look(context: &Context, lead: &Lead, readiness: &Readiness) -> Result<(), QueueError> {
    match &lead.underived {
        Some(mark) if context.derivation.is_over(mark) => Ok(()),
        Some(mark) => derive(context, mark, readiness).await,
        None => {
            over(context, readiness);
            context.derivation.is_gone();
            Ok(())
        }
    }
}

fn over(context: &Context, readiness: &Readiness) {
    readiness.ready(DERIVATION);
    if context.derivation.end() {
        tracing::info!("every job was derived again from the Servers: workers claim again");
    }
}

/// Holds back what nobody can derive.
async fn hold_back(
    context: &Context,
    mark: &Underived,
    namespaces: &[String],
    done: &Arc<HashSet<ServerUid>>,
) -> Result<(), QueueError> {
    let held = context.queue.hold_back(mark, namespaces, Arc::clone(done)).await?;
    if held > 0 {
        tracing::warn!(
            jobs = held,
            namespaces = namespaces.join(","),
            "jobs of namespaces that cannot be looked after are held back; all others are derived again"
        );
    }
    Ok(())
}

/// Names a server that holds up all claims, ever more rarely.
fn told(context: &Context, server: &str) {
    if let Some(times) = context.repeats.met(&format!("not derived again yet {server}")) {
        tracing::info!(server, times, "not derived again yet: no worker claims before");
    }
}

/// Has every server looked at, and lets workers claim when that is done.
async fn derive(context: &Context, mark: &Underived, readiness: &Readiness) -> Result<(), QueueError> {
    // Nothing is known of the fleet before the first list.
    context.fleet.synced().await;
    let all = context.fleet.readable();
    if context.derivation.begin(mark, all.len()) {
        metrics::HISTORIES.one(&[]);
        tracing::warn!(
            servers = all.len(),
            "another history was found: no worker claims before every job is derived"
        );
        context.fleet.wake_where(None, |_| true);
    }
    let done = context.derivation.done();
    // Before what is left is looked for: the others do not wait for those.
    let left_out = context.namespaces.left_out();
    hold_back(context, mark, &left_out, &done).await?;
    let mut left = all.iter().filter(|(uid, _)| !done.contains(uid));
    if let Some((_, name)) = left.next() {
        let count = 1 + left.count();
        told(context, name);
        // Whoever may ask a port for its health need not know what machines there are.
        let waits = format!(
            "{count} Servers were not derived again yet; no worker claims before: this controller's log names one of them, and what \
             is in its way (\"not derived again yet\", \"not reconciled\")"
        );
        readiness.waits(DERIVATION, waits);
        return Ok(());
    }
    if !context.leadership.holds() {
        return Ok(());
    }
    let ended = context.queue.derived(mark, &context.settings.namespaces, Arc::clone(&done)).await?;
    match ended {
        Derived::Over => over(context, readiness),
        Derived::NotYet { namespace, name } if context.settings.namespaces.contains(&namespace) => {
            told(context, &format!("{namespace}/{name}"));
            readiness.waits(
                DERIVATION,
                format!(
                    "a job in namespace {namespace} was not derived again yet: see this controller's log about its Servers; no \
                     worker claims before"
                ),
            );
        }
        // No controller watches what is gone.
        Derived::NotYet { namespace, .. }
            if Namespaces::does_not_exist(&context.client, &namespace).await =>
        {
            hold_back(context, mark, &[namespace], &done).await?;
        }
        Derived::NotYet { namespace, .. } => readiness.waits(
            DERIVATION,
            format!(
                "a job in namespace {namespace} was not derived again yet: a controller has to run that watches it \
                 (--watch-namespaces); no worker claims before"
            ),
        ),
    }
    Ok(())
}
