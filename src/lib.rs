//! AutoBuild: a Kubernetes-style reconciler for the life of physical servers.
//!
//! A user declares a machine as a `Server`. A controller compares the wish with what is known and enqueues at most
//! one prioritized job per server in MySQL; workers execute the jobs against the machines' BMCs; what was observed
//! goes back to `status`.
//!
//! The map, from the inside to the outside. A module uses only modules above it:
//!
//! | module | does | may do I/O |
//! |---|---|---|
//! | [`api`] | the resources as users see them: spec, hardware, reasons | no |
//! | [`job`] | actions, their steps, intents, outcomes, retry policy | no |
//! | [`plan`] | observation to decision, status and events | no |
//! | [`mod@why`] | what a person reads about one server, and what to try | no |
//! | [`shard`] | site and BMC host to shard | no |
//! | [`queue`] | all SQL: enqueue, claim, advance, complete, lease, reap, feed, history | MySQL |
//! | [`bmc`] | one trait, and the backends that talk to BMCs | BMC network |
//! | [`import`] | from a list of BMCs to manifests, for a person who takes over a fleet | BMC network (reads) |
//! | [`boot`] | answers machines that boot from the network, and hears what they report | sockets, API (read), HTTP, disk |
//! | [`worker`] | claims jobs and carries them out against BMCs | MySQL, BMC network, API (read) |
//! | [`controller`] | compares, enqueues, shows in status; leader election | API server, queue |
//! | [`emulator`] | a fleet of Redfish BMCs, and their misbehaviour | sockets |
//! | [`mod@bench`] | what the queue does per second on a given database, and all of it together on a given cluster | queue, files; `fleet`: API server, processes, HTTP |
//! | [`cmd`] | one file per subcommand | wiring |

pub mod api;
pub mod bench;
pub mod bmc;
pub mod boot;
pub mod causes;
pub mod cmd;
pub mod config;
pub mod connections;
pub mod controller;
pub mod descriptors;
pub mod emulator;
pub mod failpoint;
pub mod http;
pub mod import;
pub mod job;
pub mod metrics;
pub mod plan;
mod proxy;
pub mod queue;
pub mod shard;
pub mod shutdown;
pub mod why;
pub mod worker;
