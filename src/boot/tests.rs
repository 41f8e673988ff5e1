//! The whole service, against a store, an API server and a source of files that do not exist.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

mod call_home;
mod cluster;
mod files;
mod journey;
mod media;
mod refusals;
mod site;
mod store;
mod waiting;
