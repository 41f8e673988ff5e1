//! Everything that a decision is made on, put together. The object was taken before: what the database says is read
//! after it, so that an old row is never shown under a new resourceVersion.

use super::context::Context;
use super::fair_queue::{Line, Live, Whose};
use super::images::SeenImage;
use crate::api::bmc_address::BmcAddress;
use crate::api::foreign_status::{self, Record};
use crate::api::{BootMethod, Reason, Server};
use crate::job::{Problem, ServerUid, TokenValue};
use crate::plan::{Observation, WipeImage};
use crate::queue::{DecidedOn, QueueError, Underived};

/// An observation, and what is not decided on.
pub(super) struct Observed {
    pub seen: Observation,
    /// Whether somebody else wrote into the object's status: `seen` lacks that.
    pub foreign_status: bool,
    /// `metadata.uid`.
    pub uid: ServerUid,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Whether the newest version waits to be shown.
    pub in_feed: bool,
    /// The object that is decided on.
    pub on: DecidedOn,
    /// The generation of the object that was decided on last.
    pub last_generation: i64,
    /// Whether its job is held back until it was derived.
    pub held_back: bool,
    /// The mark of another history, where it was seen before all this was read.
    pub underived: Option<Underived>,
}

impl Observed {
    /// The version of what is known; 0 where nothing is.
    pub(super) fn version(&self) -> i64 {
        self.seen.known.as_ref().map_or(0, |known| known.version)
    }
}

/// An object, and what was known of decisions when it was read.
pub(super) struct Object {
    pub server: Server,
    /// The generation of the object that had been decided on last before this one was read live; `None`: it is from the
    /// watch.
    pub not_before: Option<i64>,
}

pub(super) async fn observe(
    context: &Context,
    Object { mut server, not_before }: Object,
    underived: Option<&Underived>,
) -> Result<Observed, QueueError> {
    let metadata = &server.metadata;
    let uid = ServerUid(metadata.uid.clone().unwrap_or_default());
    let namespace = metadata.namespace.clone().unwrap_or_default();
    let name = metadata.name.clone().unwrap_or_default();
    let row = context.queue.observe_asked(&uid, &TokenValue::all_of(&server.spec)).await?;
    let is_lost = row.known.is_none() || underived.is_some() || row.held_back;
    let foreign_status =
        foreign_status::ignore(&mut server, if is_lost { Record::Lost } else { Record::Kept });
    let live = row.job.as_ref().zip(row.order_ms);
    let live = live.map(|(job, order_ms)| Live {
        line: Line::of(job.action, job.lane),
        order_ms,
        started: job.started(),
    });
    context.fair.saw(Whose { uid: &uid, namespace: &namespace, site: &server.spec.site }, live);
    let own_job = context.own_jobs.of(&uid, row.job.is_some() || row.unreadable.is_some());
    let image = image(context, &namespace, &server);
    let mut seen = Observation {
        bmc_address: address(&server.spec.bmc.address).map(|address| address.normalised()),
        image_kind: image.as_ref().map(|image| image.kind),
        image_flaw: image.as_ref().and_then(|image| image.flaw.clone()),
        image_digest: image.map(|image| image.digest),
        wipe: wipe_image(context, &namespace, server.spec.boot_method),
        budget: context.budgets.left(context, &namespace).await?,
        secret: context.secret(&namespace, &server.spec.bmc.credentials_ref.name),
        site: context.sites.workers(&server.spec.site),
        urgent_is_full: context.fair.is_full(context.settings.urgent_per_namespace, &namespace, &uid),
        known: row.known,
        job: row.job,
        unreadable_job: row.unreadable,
        own_job,
        visibility: row.visibility,
        shown_job_ended: false,
        another_history: underived.is_some() || row.held_back,
        // One clock for what happened and for now: a controller whose clock is wrong decides the same.
        now_ms: row.now_ms,
        settings: context.settings.plan,
        server,
    };
    if let Some(id) = seen.missing_job() {
        seen.shown_job_ended = context.queue.has_ended(&uid, id).await?;
    }
    let generation = seen.server.metadata.generation.unwrap_or_default();
    Ok(Observed {
        seen,
        foreign_status,
        uid,
        namespace,
        name,
        in_feed: row.in_feed,
        on: match not_before {
            Some(last) => DecidedOn::read_live(generation, last),
            None => DecidedOn::object(generation),
        },
        last_generation: row.generation,
        held_back: row.held_back,
        underived: underived.cloned(),
    })
}

/// What is known of the `OSImage` that a server names.
fn image(context: &Context, namespace: &str, server: &Server) -> Option<SeenImage> {
    context.images.get(namespace, &server.spec.image.as_ref()?.name)
}

/// What erases the disks of a machine that boots like this. One that it cannot boot counts as missing.
fn wipe_image(context: &Context, namespace: &str, method: BootMethod) -> WipeImage {
    let name = context.settings.wipe_images.of(method);
    let image = context.images.get(namespace, name).filter(|image| image.kind == method.image_kind());
    WipeImage { name: name.to_owned(), digest: image.map(|image| image.digest) }
}

/// `spec.bmc.address`, if it can be used.
pub(super) fn address(text: &str) -> Result<BmcAddress, Problem> {
    BmcAddress::parse(text).map_err(|error| Problem::new(Reason::InvalidAddress, error.to_string()))
}
