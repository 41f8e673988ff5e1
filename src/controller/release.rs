//! Letting a server go: what is left of its job, then its record and its claims, then the finalizer.

use sha2::{Digest as _, Sha256};

use super::apply::{Applied, ApplyError};
use super::context::Context;
use super::finalizer;
use super::observe::Observed;
use crate::api::{Reason, names};
use crate::job::{Action, JobId, Problem};
use crate::plan::Farewell;
use crate::queue::{Abandoned, Released};

pub(super) async fn release(
    context: &Context,
    observed: &Observed,
    farewell: Farewell,
) -> Result<Applied, ApplyError> {
    let queue = &context.queue;
    let live = observed.seen.job.as_ref().map(|job| job.id);
    let unreadable = observed.seen.unreadable_job.as_ref().and_then(|job| job.id);
    match (live.or(unreadable), farewell) {
        (Some(id), _) => {
            let dead = context.sites.dead(&observed.seen.server.spec.site);
            if queue.abandon(&observed.uid, id, why(farewell), dead).await? == Abandoned::InFlight {
                return Ok(Applied::InTheWay);
            }
        }
        (None, Farewell::WithoutPowerOff | Farewell::WithoutWipe | Farewell::LeftPoweredOff) => {
            queue.record_farewell(&in_history(observed, farewell)).await?;
        }
        (None, Farewell::Clean | Farewell::WithoutUndo) => {}
    }
    // A job that came in between is decided on first.
    if queue.release(&observed.uid).await? == Released::StillLive {
        return Ok(Applied::InTheWay);
    }
    let released = finalizer::remove(context, &observed.seen.server).await?;
    if matches!(released, Applied::Released) {
        context.newest.forget(observed.uid.as_str());
    }
    Ok(released)
}

fn why(farewell: Farewell) -> Problem {
    match farewell {
        Farewell::Clean => Problem::new(Reason::Deleting, "the Server was deleted"),
        Farewell::WithoutUndo => Problem::new(
            Reason::ReleasedWithoutUndo,
            "the Server was deleted and let go without undoing what the job had begun: look at the machine",
        ),
        Farewell::LeftPoweredOff => Problem::new(
            Reason::LeftPoweredOff,
            "the Server was deleted and let go while its machine was off, or about to be, which a job had switched off: switch it on by hand",
        ),
        Farewell::WithoutPowerOff => Problem::new(
            Reason::ReleasedWithoutPowerOff,
            "the Server was deleted and let go although the machine could not be powered off",
        ),
        Farewell::WithoutWipe => Problem::new(
            Reason::ReleasedWithoutWipe,
            "the Server was deleted and let go as autobuild.dev/abandon asked: its disks are not wiped",
        ),
    }
}

/// The same row however often the same farewell is repeated.
fn in_history(observed: &Observed, farewell: Farewell) -> crate::queue::Farewell {
    let server = &observed.seen.server;
    let digest = Sha256::digest(observed.uid.as_str().as_bytes());
    let number = u64::from(u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]));
    let deleted_at = server.metadata.deletion_timestamp.as_ref().map_or(0, |time| time.0.as_millisecond());
    crate::queue::Farewell {
        id: JobId::new(deleted_at, number),
        uid: observed.uid.clone(),
        namespace: observed.namespace.clone(),
        name: observed.name.clone(),
        site: server.spec.site.clone(),
        action: match farewell {
            Farewell::WithoutWipe => Action::Wipe,
            Farewell::LeftPoweredOff => Action::PowerOn,
            Farewell::Clean | Farewell::WithoutUndo | Farewell::WithoutPowerOff => Action::PowerOff,
        },
        why: why(farewell),
        requester: names::CONTROLLER.to_owned(),
    }
}
