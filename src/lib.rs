//! AutoBuild: a Kubernetes-style reconciler for the life of physical servers.
//!
//! A user declares a machine as a [`api::Server`]. The controller compares the wish with what is known and
//! enqueues at most one prioritized job per server in MySQL; workers execute the jobs against the machines'
//! BMCs; what was observed goes back to `status`.
//!
//! The map, from the inside to the outside. A module uses only modules above it:
//!
//! | module | does | may do I/O |
//! |---|---|---|
//! | [`api`] | the resources as users see them: spec, status, conditions, BMC addresses | no |
//! | [`job`] | actions, their steps, intents, outcomes, retry policy | no |
//! | [`shard`] | site and BMC host to shard | no |
//! | [`plan`] | observation to decision, decision to status: no clock, no I/O | no |
//! | [`queue`] | all SQL: enqueue, claim, advance, complete, lease, reap, feed, history | MySQL |
//! | [`bmc`] | the `Bmc` trait and its Redfish backend, TLS, limits, credentials | BMCs |
//! | [`controller`] | observe, decide, apply; feed; leader election. Never touches a BMC | Kubernetes, `queue` |
//! | [`worker`] | pool, slots, heartbeat, reaper, one file per action. Never writes status | `bmc`, `queue` |
//! | [`emulator`] | a fleet of Redfish BMCs that can misbehave; stands alone | HTTP |
//! | [`cmd`] | one file per subcommand | wiring |

pub mod api;
pub mod bmc;
pub mod clock;
pub mod cmd;
pub mod config;
pub mod controller;
pub mod emulator;
pub mod http;
pub mod job;
pub mod metrics;
pub mod plan;
pub mod queue;
pub mod shard;
pub mod shutdown;
pub mod telemetry;
pub mod worker;
