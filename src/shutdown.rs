//! SIGTERM and SIGINT ask the process to end; a second one ends it at once.
#![expect(
    clippy::disallowed_methods,
    reason = "whoever waits for signals waits as long as the process lives"
)]

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled by the first SIGTERM or SIGINT.
pub fn on_signal() -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let asked = token.clone();
    tokio::spawn(async move {
        for _ in 0..2 {
            tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
            if asked.is_cancelled() {
                tracing::warn!("asked to end a second time: ending at once");
                std::process::exit(130);
            }
            asked.cancel();
            tracing::info!("asked to end");
        }
    });
    Ok(token)
}
