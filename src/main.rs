//! The `autobuild` binary: see [`autobuild::cmd`].

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use tracing_subscriber::EnvFilter;

/// What is logged unless `RUST_LOG` says otherwise. The library of the API server tells each failed try of a watch or a call; ours
/// tell them once, with the way out.
const LOGGED: &str = "info,sqlx=warn,kube_runtime::watcher=error,kube_client::client::builder=off";

#[tokio::main]
async fn main() -> ExitCode {
    let cli = autobuild::cmd::Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOGGED));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        // Told on the very stream that is broken, it would panic in whatever task logs: work goes on without a log.
        .log_internal_errors(false)
        .init();
    #[cfg(feature = "failpoints")]
    let _armed = fail::FailScenario::setup();
    autobuild::cmd::run(cli).await
}
