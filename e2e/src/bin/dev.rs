//! What `make packages`, `make check`, `make up`, `make down`, `make demo`, `make bench` and `make bench-fleet` run.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use e2e::packages::Purpose;

#[derive(Debug, Parser)]
#[command(about = "AutoBuild with everything it stands on, on this machine")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install what is missing on this machine
    Packages {
        /// What is to run
        purpose: Purpose,
    },
    /// Check licences, sources, bans and advisories of all dependencies
    Deny,
    /// Start everything detached and write target/dev/env
    Up,
    /// Stop exactly what `up` started
    Down,
    /// Start everything, show what becomes of some servers, and stop
    Demo,
    /// Serve what emulated machines boot
    #[command(hide = true)]
    ServeFiles {
        /// Where to listen
        address: String,
    },
    /// Measure the queue on a MySQL and on a MariaDB with durable settings
    Bench {
        /// The program to measure: a release build of autobuild with the feature peer-apalis
        binary: PathBuf,
        /// Further arguments of `autobuild bench queue`
        #[arg(last = true)]
        more: Vec<String>,
    },
    /// Measure all of it together, on a control plane and a database with durable settings
    BenchFleet {
        /// The program to measure: a release build of autobuild
        binary: PathBuf,
        /// Further arguments of `autobuild bench fleet`
        #[arg(last = true)]
        more: Vec<String>,
    },
}

fn main() -> ExitCode {
    let command = Args::parse().command;
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let result = runtime.block_on(async {
        match command {
            Command::Packages { purpose } => e2e::packages::install(purpose),
            Command::Deny => e2e::dev::deny(),
            Command::Up => e2e::dev::up().await,
            Command::Down => e2e::dev::down().await,
            Command::Demo => e2e::dev::demo().await,
            Command::ServeFiles { address } => e2e::dev::serve_files(&address).await,
            Command::Bench { binary, more } => e2e::dev::bench(&binary, &more).await,
            Command::BenchFleet { binary, more } => e2e::dev::bench_fleet(&binary, &more).await,
        }
    });
    // After Ctrl-C nobody waits for a build that runs in another thread.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    e2e::wait::say(format!("{error:#}"));
    ExitCode::FAILURE
}
