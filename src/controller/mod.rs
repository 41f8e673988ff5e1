//! The controller: compares each `Server` with what is known of its machine, enqueues what is due, and shows what was
//! found in `status`.
//!
//! One replica leads; the others stand by. A term as leader runs these, and ends them all when the Lease is lost:
//!
//! | file | does |
//! |---|---|
//! | `reconcile` | observe, decide, apply, show, for one server |
//! | `observe`, `apply`, `status`, `events` | the four parts of it |
//! | `finalizer`, `release`, `requester` | parts of `apply` |
//! | `feed` | wakes the reconciles of servers that changed in the database |
//! | `secrets`, `images`, `sites` | wake the reconciles that a Secret, an `OSImage` or a site's workers concern; `listed` keeps what a watch has shown |
//! | `history`, `derivation` | notice another database behind the same address, have everything looked at again, and let workers claim when it is |
//! | `backlog` | what waits for workers, as metrics |
//! | `definition` | whether the definition of Server has what this release writes |
//! | `namespaces` | which watched namespaces cannot be listed, and are left out |
//! | `retries`, `repeats` | how long what failed rests, and how often the log has it |
//! | `ghosts`, `housekeeping` | rows whose server is gone, and what else is left over |
//! | `work_queue` | which Servers wait to be reconciled, and whose turn is next |
//! | `fair_queue` | where the jobs of a namespace come beside those of others |
//! | `leader` | who leads |
//!
//! Two leaders at once do no harm: an enqueue names the version that it was decided on, a patch the resourceVersion.
#![expect(clippy::disallowed_types, reason = "the client is handed to each term")]
#![expect(clippy::disallowed_methods, reason = "a term ends before the next one begins: it is awaited")]

mod api_call;
mod apply;
mod backlog;
mod budgets;
mod context;
mod definition;
mod derivation;
mod events;
mod fair_queue;
mod feed;
mod finalizer;
mod fleet;
mod ghosts;
mod history;
mod housekeeping;
mod images;
mod leader;
mod listed;
mod namespaces;
mod newest;
mod observe;
mod own_jobs;
mod paced;
mod reconcile;
mod release;
mod repeats;
mod requester;
mod retries;
mod secrets;
mod settings;
mod sites;
mod status;
mod term;
mod watch_error;
mod work_queue;

use std::time::Duration;

use kube::Client;
use tokio_util::sync::CancellationToken;

pub use self::budgets::DestructionBudget;
pub use self::leader::ElectionSettings;
pub use self::settings::ControllerSettings;

use self::leader::Elector;
use crate::http::Readiness;
use crate::metrics;
use crate::queue::Queue;

/// The label of this controller in metrics and logs.
const CONTROLLER: &str = "server";

/// Stands for election and leads, again and again, until `stop`.
pub async fn run(
    client: Client,
    queue: Queue,
    settings: ControllerSettings,
    readiness: Readiness,
    stop: CancellationToken,
) {
    metrics::MAX_RECONCILES.set(&[CONTROLLER], f64::from(settings.concurrency));
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "autobuild".to_owned());
    let mut elector = Elector::new(client.clone(), settings.election.clone(), &host);
    while elector.campaign(&readiness, &stop).await {
        let over = stop.child_token();
        let term = tokio::spawn(term::serve(
            client.clone(),
            queue.clone(),
            settings.clone(),
            elector.leadership(),
            readiness.clone(),
            over.clone(),
        ));
        // Renewed until the last reconcile has ended, so that nobody else leads meanwhile.
        let ended = CancellationToken::new();
        let mark = ended.clone();
        let watched = async {
            if let Err(error) = term.await {
                tracing::error!(%error, "the controller's term ended in a panic");
            }
            mark.cancel();
        };
        let held = async {
            elector.hold(&readiness, &ended).await;
            over.cancel();
        };
        tokio::join!(watched, held);
        elector.release().await;
        if stop.is_cancelled() {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
