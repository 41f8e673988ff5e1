//! `autobuild bench`: measures what a database makes of the queue.

use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use crate::bench::{self, BenchError, Depth, Order, Part, Peer};

/// Measures what a database makes of the queue.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Throughput and waiting times of the queue, beside the raw limit of the server.
    Queue(QueueArgs),
}

/// The flags of `autobuild bench queue`.
#[derive(Debug, clap::Args)]
struct QueueArgs {
    /// The database server: mysql://USER:PASSWORD@HOST:PORT. The user needs the right to create and drop databases
    /// named autobuild_bench_*; no other one is touched
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: String,
    /// Write the figures into this file: a list of name, value, unit, target, holds
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write plots (SVG) into this folder
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
    /// Half a minute instead of some minutes, with small numbers: shows that it works, and no more
    #[arg(long)]
    quick: bool,
    /// Length of each window of the throughput figures
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: Option<u32>,
    /// Only these parts, separated by commas
    #[arg(long, value_name = "PART,...", value_delimiter = ',', value_enum)]
    only: Vec<Part>,
    /// Race another queue on the same server; needs a program that was built with --features peer-apalis, and MySQL
    #[arg(long, value_name = "NAME", value_enum)]
    peer: Option<Peer>,
}

pub(super) async fn run(args: Args, stop: CancellationToken) -> Result<(), BenchError> {
    let What::Queue(args) = args.what;
    let order = Order {
        database_url: args.database_url,
        depth: if args.quick { Depth::Quick } else { Depth::Whole },
        only: args.only,
        seconds: args.seconds,
        peer: args.peer,
        json: args.json,
        plots: args.plots,
    };
    Box::pin(bench::queue(order, stop)).await
}
