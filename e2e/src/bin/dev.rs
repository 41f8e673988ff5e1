//! What `make up`, `make down` and `make demo` run.

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(about = "AutoBuild with everything it stands on, on this machine")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start everything detached and write target/dev/env
    Up,
    /// Stop exactly what `up` started
    Down,
    /// Start everything, show ten servers, and stop
    Demo,
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let result = match Args::parse().command {
        Command::Up => e2e::dev::up().await,
        Command::Down => e2e::dev::down().await,
        Command::Demo => e2e::dev::demo().await,
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            e2e::wait::say(format!("{error:#}"));
            std::process::ExitCode::FAILURE
        }
    }
}
