//! Waiting for conditions, and saying what is waited for.

use std::fmt::Display;
use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is looked at.
const EVERY: Duration = Duration::from_millis(50);

/// Prints one line of progress to standard error.
#[expect(clippy::print_stderr, reason = "progress is for the person at the terminal; tests capture it")]
pub fn say(line: impl Display) {
    eprintln!("[harness] {line}");
}

/// What a look at a condition found.
#[derive(Debug)]
pub enum Look<T> {
    /// It holds, and this is what came with it.
    Holds(T),
    /// It does not hold yet; the text says what was seen instead and ends up in the error.
    NotYet(String),
}

/// Looks until the condition holds, and gives up with the last thing seen after `timeout`.
pub async fn wait_for<T, F>(what: &str, timeout: Duration, mut look: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Look<T>>>,
{
    let start = Instant::now();
    let mut said = false;
    loop {
        let seen = match look().await {
            Ok(Look::Holds(value)) => return Ok(value),
            Ok(Look::NotYet(seen)) => seen,
            Err(error) => format!("{error:#}"),
        };
        if start.elapsed() > timeout {
            bail!("waited {} s for {what}; last seen: {seen}", timeout.as_secs());
        }
        if !said && start.elapsed() > Duration::from_secs(2) {
            said = true;
            say(format!("waiting for {what} (at most {} s; now: {seen})", timeout.as_secs()));
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// [`wait_for`] with a plain yes or no.
pub async fn wait_until<F>(what: &str, timeout: Duration, mut holds: impl FnMut() -> F) -> Result<()>
where
    F: Future<Output = Result<bool>>,
{
    wait_for(what, timeout, || {
        let look = holds();
        async move { Ok(if look.await? { Look::Holds(()) } else { Look::NotYet("it does not hold".to_owned()) }) }
    })
    .await
}
