//! Bad input: each gets a clear message where the person looks, nothing that changes a machine is sent for it, and
//! mending it helps.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod addresses;
mod answers;
mod certificates;
mod command_line;
mod credentials;
mod database;
mod departures;
mod duplicates;
mod manifests;
mod os_images;
mod power;
mod proxies;
mod surroundings;
mod texts;
mod writers;

use std::future::Future;
use std::pin::Pin;

use anyhow::{Context as _, Result, ensure};
use futures::future::join_all;

/// Refuses a text in which one of `parts` is missing.
fn says(text: &str, parts: &[&str]) -> Result<()> {
    let missing: Vec<&&str> = parts.iter().filter(|part| !text.contains(**part)).collect();
    ensure!(missing.is_empty(), "{missing:?} is missing in: {text}");
    Ok(())
}

/// One case of several that run at the same time on one fleet.
type Case<'a> = (&'static str, Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>);

/// Runs all cases, and tells of all that failed.
async fn all(cases: Vec<Case<'_>>) {
    let results =
        join_all(cases.into_iter().map(|(name, case)| async move { case.await.context(name) })).await;
    let failed: Vec<String> =
        results.into_iter().filter_map(|result| Some(format!("{:#}", result.err()?))).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}
