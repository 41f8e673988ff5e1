//! From what was observed to one decision. Pure: no clock, no I/O, no async.
//!
//! [`decide`] looks at one server and says the one thing to do next; [`status`] says what its status shall be then;
//! [`events`] says what is worth telling. The controller carries it out and looks again. The rules stand in the order
//! in which they win, one file each:
//!
//! | file | concern |
//! |---|---|
//! | `first_sight` | finalizer, and the record of a server that was never seen |
//! | `deletion` | letting a machine go; with `Retain` it wins over everything |
//! | `history_lost` | what status knows of a job and the database forgot |
//! | `debt` | a machine that a job left off is switched on, whatever failed before |
//! | `paused` | nothing is begun, what runs is asked to stop |
//! | `claims` | one BMC, one `Server`, and no machine whose life has ended |
//! | `lifecycle` | the end of a machine's life: nothing else counts then |
//! | `budget` | how many machines of a namespace may lose their data in an hour |
//! | `image`, `reboot`, `power`, `inspect` | what the machine needs, the most important first |
//! | `failure` | what failed for good is not tried again until something changed |
//! | `live_job` | what becomes of a job that is there already |
//! | `recheck` | when to look again although nothing happened |
//! | `situation`, `conditions`, `status` | what the user sees |
//! | `passing` | what is over before anybody could read it is not shown |
//! | `events` | what is told once, when it changes |
//! | `word` | what only a person may say |

mod boot;
mod budget;
mod claims;
mod conditions;
mod debt;
mod decision;
mod deletion;
mod events;
mod explain;
mod failure;
mod first_sight;
mod history_lost;
mod image;
mod inspect;
mod lifecycle;
mod live_job;
mod observation;
mod passing;
mod paused;
mod power;
mod reboot;
mod recheck;
mod situation;
mod status;
mod word;
mod work;

#[cfg(test)]
mod asked_test;
#[cfg(test)]
mod failure_test;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod golden_test;
#[cfg(test)]
mod history_lost_test;
#[cfg(test)]
mod image_test;
#[cfg(test)]
mod kstatus;
#[cfg(test)]
mod live_job_test;
#[cfg(test)]
mod lost_fields_test;
#[cfg(test)]
mod property_story;
#[cfg(test)]
mod property_test;
#[cfg(test)]
mod property_world;
#[cfg(test)]
mod read_elsewhere_test;
#[cfg(test)]
mod situation_test;
#[cfg(test)]
mod unwitnessed_test;
#[cfg(test)]
mod witness_test;

pub use budget::Budget;
pub use decision::{Command, Decision, Farewell, NewRecord};
pub use events::{EventKind, EventNote, events};
pub use explain::{Explanation, Facts, explain};
pub use observation::{Observation, Settings, SiteWorkers, WipeImage};
pub use passing::{in_passing, only_steps};
pub use status::status;
pub use work::{Share, Work};

/// The one thing to do next for this server, and when to look again.
pub fn decide(seen: &Observation) -> Decision {
    let command = command(seen);
    let recheck_after_ms = recheck::after_ms(seen, &command);
    Decision { command, recheck_after_ms }
}

fn command(seen: &Observation) -> Command {
    deletion::unreadable(seen)
        .or_else(|| deletion::with_retain(seen))
        .or_else(|| first_sight::rule(seen))
        .or_else(|| history_lost::rule(seen))
        .or_else(|| debt::rule(seen))
        .or_else(|| paused::rule(seen))
        .or_else(|| deletion::with_power_off(seen))
        .or_else(|| deletion::with_wipe(seen))
        .or_else(|| claims::rule(seen))
        .or_else(|| image::rule(seen))
        .or_else(|| reboot::not_applicable(seen))
        .unwrap_or_else(|| live_job::settle(seen, work::wanted(seen)))
}
