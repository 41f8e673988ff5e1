//! What people do with AutoBuild, on real parts: the real kubectl and API server, real databases, BMCs that keep a log.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod addresses;
mod adoption;
mod at_the_terminal;
mod boot_methods;
mod by_hand;
mod call_home;
mod cards;
mod deletion;
mod end_of_life;
mod image_mistakes;
mod import;
mod installation;
mod left_off;
mod one_reboot_per_token;
mod other_vendor;
mod paused;
mod persons_word;
mod power;
mod priority;
mod reverts;
mod scraped;
mod secrets;
mod silence;
mod slow_bmcs;
mod steps;
mod taken_back;
mod unread;
mod why;
