//! Drills over whole fleets: processes die and freeze, the database dies, clocks jump, disks fill up, links are cut.
//! Whatever happens, every wish is carried out once, nobody works on a machine that another one works on, and all is
//! well soon after the trouble ends.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::float_cmp,
    reason = "tests"
)]

mod bulk;
mod chassis;
mod clocks;
mod cluster_books;
mod cluster_faults;
mod cluster_site;
mod clusters;
mod conflicts;
mod crash;
mod cut_off;
mod debts;
mod disk;
mod judge;
mod mutations;
mod platform;
mod poison;
mod priority;
mod register;
mod reverts;
mod slow;
mod steps;
mod tenants;
mod trouble;
mod walks;
mod wishes;
