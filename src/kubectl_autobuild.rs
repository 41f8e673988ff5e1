//! The plugin of kubectl: `kubectl autobuild` runs this. See [`autobuild::cmd::plugin`].

use std::process::ExitCode;

use clap::Parser as _;

#[tokio::main]
async fn main() -> ExitCode {
    autobuild::cmd::plugin::run(autobuild::cmd::plugin::Cli::parse()).await
}
