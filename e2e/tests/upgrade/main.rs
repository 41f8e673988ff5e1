//! From the release before to this one and back, with work in flight: nothing is lost, nothing is done twice that may not.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod back_and_forth;
mod rows;
mod side_by_side;

use e2e::database::Engine;

/// Whether `DB` asks for the other engine only.
fn is_left_out(engine: Engine) -> bool {
    std::env::var("DB").is_ok_and(|wanted| !wanted.is_empty() && wanted != engine.as_str())
}
