//! `autobuild check-database`: one line for each thing that was found, with its remedy.

use std::io::Write as _;

use super::connect::AddressArgs;
use crate::queue::{Demand, QueueError, Verdict, check_database};

/// Says what a database is, before anything is installed, and what has to be mended. Ends with 0 where it fits, also with warnings, and
/// with 1 where it does not.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The user that migrates: what migrations do is tried with a table that goes again.
    #[command(flatten)]
    address: AddressArgs,
    /// How many processes will be connected: controllers, workers and boot services together
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=1000))]
    processes: u32,
    /// What each of them has as --database-connections
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(2..=1000))]
    database_connections: u32,
}

pub(super) async fn run(args: Args) -> Result<(), QueueError> {
    let demand = Demand { processes: args.processes, connections: args.database_connections };
    let found = check_database(args.address.address(), demand).await?;
    let mut out = std::io::stdout().lock();
    for one in &found {
        // Who reads no more has read enough.
        let _ = writeln!(out, "{:<4}  {:<10}  {}", one.verdict.as_str(), one.about, one.says);
    }
    let unfit = found.iter().filter(|one| one.verdict == Verdict::Fail).count();
    if unfit == 0 {
        return Ok(());
    }
    Err(QueueError::Unfit(format!("the database does not fit: mend what FAIL stands before ({unfit})")))
}
