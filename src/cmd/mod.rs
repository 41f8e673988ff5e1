//! The command line: one file per subcommand.

mod again;
mod api_server;
mod bench;
mod boot;
mod boot_sessions;
mod check_database;
mod connect;
mod controller;
mod crds;
mod emulate;
mod explain;
mod import;
mod kubeconfig;
mod migrate;
pub mod plugin;
mod why;
mod worker;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{descriptors, shutdown};

/// Reconciles physical servers: one binary, one subcommand per process.
#[derive(Debug, Parser)]
#[command(name = "autobuild", version, about, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Decides what each Server needs, enqueues it, and writes status.
    Controller(Box<controller::Args>),
    /// Says what a database is, before anything is installed, and what has to be mended.
    CheckDatabase(check_database::Args),
    /// Brings the database's schema to this release's version.
    Migrate(migrate::Args),
    /// Carries out jobs against BMCs.
    Worker(Box<worker::Args>),
    /// Answers machines that boot from the network to be installed, and hears what they report.
    Boot(Box<boot::Args>),
    /// Prints the definitions of the resources Server and OSImage, or compares them with a folder.
    Crds(crds::Args),
    /// Serves a fleet of Redfish BMCs that do not exist, for tests, demos and trials.
    Emulate(Box<emulate::Args>),
    /// Measures what a database makes of the queue.
    Bench(bench::Args),
    /// Reads the BMCs of a list and prints manifests of Servers that adopt what is there; changes no machine.
    Import(Box<import::Args>),
    /// Reads a Server and what is known of it, and prints the decision and the status that follows.
    Explain(explain::Args),
}

/// Why a subcommand ended.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error(transparent)]
    Bench(#[from] crate::bench::BenchError),
    #[error(transparent)]
    Boot(#[from] boot::Error),
    #[error(transparent)]
    Controller(#[from] controller::Error),
    #[error(transparent)]
    Queue(#[from] crate::queue::QueueError),
    #[error(transparent)]
    Crds(#[from] crds::CrdsError),
    #[error(transparent)]
    Emulate(#[from] emulate::Error),
    #[error("signals cannot be received: {0}")]
    Signals(#[from] std::io::Error),
    #[error(transparent)]
    Import(#[from] import::Error),
    #[error(transparent)]
    Worker(#[from] worker::Error),
    #[error(transparent)]
    Explain(#[from] explain::ExplainError),
}

/// Runs the command line to its end. An error goes to standard error in one line.
pub async fn run(cli: Cli) -> ExitCode {
    // Every one of them may hold many connections.
    let _ = descriptors::raise();
    match dispatch(cli.command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&error);
            ExitCode::FAILURE
        }
    }
}

/// Says why it ended: in the log, or past it where `RUST_LOG` hides it.
#[expect(clippy::print_stderr, reason = "the last word of a process, which nobody may lose")]
fn tell(error: &CommandError) {
    if tracing::enabled!(tracing::Level::ERROR) {
        tracing::error!("{error}");
    } else {
        eprintln!("{error}");
    }
}

async fn dispatch(command: Command) -> Result<(), CommandError> {
    match command {
        Command::Controller(args) => controller::run(*args, shutdown::on_signal()?).await?,
        Command::CheckDatabase(args) => check_database::run(args).await?,
        Command::Migrate(args) => migrate::run(args).await?,
        Command::Worker(args) => worker::run(*args, shutdown::on_signal()?).await?,
        Command::Boot(args) => boot::run(*args, shutdown::on_signal()?).await?,
        Command::Crds(args) => crds::run(args)?,
        Command::Emulate(args) => emulate::run(*args, shutdown::on_signal()?).await?,
        Command::Bench(args) => bench::run(args, shutdown::on_signal()?).await?,
        Command::Import(args) => import::run(*args).await?,
        Command::Explain(args) => explain::run(&args)?,
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }

    #[test]
    fn every_long_running_subcommand_with_a_database_goes_through_a_failover_in_a_test() {
        let command = super::Cli::command();
        let has = |command: &clap::Command, flag: &str| {
            command.get_arguments().any(|argument| argument.get_long() == Some(flag))
        };
        let all = command.get_subcommands().filter(|one| has(one, "database-url") && has(one, "listen"));
        let names: Vec<&str> = all.map(clap::Command::get_name).collect();
        // A new one is added to e2e/tests/failover/followed.rs first.
        assert_eq!(names, ["controller", "worker", "boot"]);
    }

    /// What is on a command line is in the history of a shell, and anybody on the machine can read it.
    #[test]
    fn no_flag_of_an_import_takes_a_login() {
        let command = super::Cli::command();
        let import = command.find_subcommand("import").unwrap();
        for flag in import.get_arguments() {
            let name = flag.get_id().as_str();
            assert!(!["user", "password", "login"].iter().any(|word| name.contains(word)), "--{name}");
        }
    }
}
