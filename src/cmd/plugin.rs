//! The command line of `kubectl-autobuild`, which kubectl runs for `kubectl autobuild`. It needs the API server only, with
//! the rights of whoever runs it.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use super::why;

/// AutoBuild for people: looks at Servers with the rights of your kubeconfig.
#[derive(Debug, Parser)]
#[command(name = "kubectl-autobuild", bin_name = "kubectl autobuild", version, about, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Says of each Server why it is as it is, what it waits for, and what to try
    Why(why::Args),
}

/// Runs the command line to its end. An error goes to standard error.
#[expect(clippy::print_stderr, reason = "an error is for the person at the terminal")]
pub async fn run(cli: Cli) -> ExitCode {
    let Command::Why(args) = cli.command;
    match why::run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
