//! The command line: one file per subcommand.

mod migrate;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Reconciles physical servers: one binary, one subcommand per process.
#[derive(Debug, Parser)]
#[command(name = "autobuild", version, about, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Brings the database's schema to this release's version.
    Migrate(migrate::Args),
}

/// Runs the command line to its end. Errors go to standard error in one line.
pub async fn run(cli: Cli) -> ExitCode {
    let result = match cli.command {
        Command::Migrate(args) => migrate::run(args).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
