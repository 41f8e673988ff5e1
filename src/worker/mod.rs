//! Workers: they claim jobs and carry them out against BMCs. Nobody else touches hardware; they never write status.
//!
//! | file | does |
//! |---|---|
//! | `pool` | `--processes N`: starts N workers and restarts one that ends |
//! | `incarnation` | one life of a worker in the registry: claims for its slots until it is over or asked to stop |
//! | `lease` | heartbeats, and until when hardware may be touched |
//! | `reaper` | takes over what dead workers left |
//! | `slots` | runs claims as supervised tasks |
//! | `turns` | one job at a time for each BMC; the others wait in the queue |
//! | `run` | one claim from taking it up to letting it go; `contact` and `request` are its dealings with the BMC |
//! | `confirm` | what the live `Server` has against a first request; pure |
//! | `witness`, `seal` | whether anything but its row says that a job has begun |
//! | `session`, `refused` | from a claim to a BMC that may be spoken to; what is told where it refused the login |
//! | `owed`, `remembered` | what a job that switched a machine off does until it is on again |
//! | `power`, `power_step`, `action/` | what each action does; `power` is pure |
//! | `checkpoint`, `live`, `settings` | what is kept between steps, what is read from the API, what an operator decides |

mod action;
mod checkpoint;
mod confirm;
mod contact;
mod incarnation;
mod lease;
mod live;
mod neighbours;
mod owed;
pub mod pool;
mod power;
mod power_step;
mod reaper;
mod refused;
mod remembered;
mod request;
mod run;
mod seal;
mod session;
mod settings;
mod slots;
mod turns;
mod witness;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::bmc::Connector;
use crate::http::Readiness;
use crate::metrics;
use crate::queue::{Past, Queue, QueueError};
use incarnation::Life;
use lease::Over;
pub use live::LiveReader;
pub use remembered::Remembered;
pub use settings::Settings;
pub use turns::Turns;

/// What every slot works with. Cheap to clone.
#[derive(Clone)]
pub struct Surroundings {
    /// The queue.
    pub queue: Queue,
    /// The API, for reading.
    pub live: LiveReader,
    /// The way to BMCs.
    pub connector: Connector,
    /// What the operator decided.
    pub settings: Arc<Settings>,
    /// What jobs that switched a machine off go on with while the API is away.
    pub remembered: Remembered,
    /// The turns at BMCs.
    pub turns: Turns,
    /// Cancelled when the process is asked to end.
    pub stop: CancellationToken,
}

/// Why work on a claim ended without a write that says so.
#[derive(Debug)]
enum Halt {
    /// The job is no longer this worker's.
    Lost,
    /// Nothing ended: the run has to look again.
    Again,
    /// It held its slot for longer than a job may.
    Stuck(Duration),
    /// The database.
    Database(QueueError),
}

impl From<QueueError> for Halt {
    fn from(error: QueueError) -> Self {
        Self::Database(error)
    }
}

/// A part of the worker ended that must not.
#[derive(Debug, thiserror::Error)]
#[error("the worker's {0} ended; the log above says why")]
pub struct Broken(&'static str);

/// Works until asked to stop. An incarnation that is over is followed by another one, with nothing in its hands.
pub async fn serve(around: &Surroundings, readiness: &Readiness) -> Result<(), Broken> {
    let mut past = Past::Continued;
    loop {
        readiness.waits("lease", "entering the registry of workers");
        match incarnation::live(around, readiness, past).await {
            Ok(Life::Asked) => return Ok(()),
            Ok(Life::Over(over)) => {
                metrics::LEASES_LOST.one(&[over.as_str()]);
                tracing::warn!(why = over.as_str(), "this incarnation is over; nothing of it is continued");
                if over == Over::Broken {
                    return Err(Broken("heartbeat or reaper"));
                }
                past = over.past();
            }
            Err(error) => {
                readiness.waits("lease", format!("cannot enter the registry of workers: {error}"));
                tracing::warn!(reason = error.class(), "cannot enter the registry of workers: {error}");
            }
        }
        tokio::select! {
            () = around.stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}
