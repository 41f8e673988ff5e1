//! Another history behind the same address: a replica that lags and is promoted, one that takes no writes, an old
//! primary that lives on, an empty database, a restored backup. On both engines; `DB` names one of them.
//!
//! The database is reached through a proxy, so its address stays the same. Whatever was lost is derived again from the
//! Servers, nothing that is done already is done again, and status tells the truth.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod followed;
mod lagging;
mod left_out;
mod replaced;
mod site;
mod underived;
mod writable;

use e2e::database::Engine;

/// Whether `DB` asks for the other engine only.
fn is_left_out(engine: Engine) -> bool {
    std::env::var("DB").is_ok_and(|wanted| !wanted.is_empty() && wanted != engine.as_str())
}
