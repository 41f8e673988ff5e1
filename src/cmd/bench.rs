//! `autobuild bench`: measures the queue on a given database, and all of it together on a given cluster.

use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use super::api_server::WATCH_SILENCE;
use super::connect;
use crate::bench::{self, BenchError, Depth, Fleet, Order, Part, Peer, Scenario};
use crate::http::Readiness;

/// Measures the queue, or all of it together.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Throughput and waiting times of the queue, beside the raw limit of the server.
    Queue(QueueArgs),
    /// All of it together: Servers, status, jobs, Redfish and installs, on the cluster of KUBECONFIG with emulated machines.
    Fleet(FleetArgs),
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

/// The flags of `autobuild bench fleet`.
#[derive(Debug, clap::Args)]
struct FleetArgs {
    /// The database server: mysql://USER:PASSWORD@HOST:PORT. The user needs the right to create and drop databases
    /// named autobuild_bench_*; no other one is touched
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: String,
    /// Servers, each with an emulated machine of its own
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(2..=20_000))]
    servers: u32,
    /// Reimages in all; by default one for each server
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    reimages: Option<u32>,
    /// Installations in flight at once: --installs of the workers
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    parallel: u32,
    /// Reimages that wait while urgent reboots are asked for; by default as many as there are servers, and nine in ten at most
    #[arg(long, value_name = "N")]
    queued: Option<u32>,
    /// Installations in the hands of the worker that is killed
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_500))]
    in_flight: u32,
    /// Changes on the idle fleet, and urgent reboots
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    samples: u32,
    /// Worker processes
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    workers: u32,
    /// --slots of each
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..=2_000))]
    slots: u32,
    /// --concurrency of the controller
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    concurrency: u32,
    /// Only these parts, separated by commas; servers are created whatever is chosen
    #[arg(long, value_name = "PART,...", value_delimiter = ',', value_enum)]
    only: Vec<Scenario>,
    /// Tell the cost of this process too, such as etcd; can be given several times
    #[arg(long, value_name = "NAME=PID", value_parser = named_process)]
    watch: Vec<(String, i32)>,
    /// Write the figures into this file: a list of name, value, unit, target, holds
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write plots (SVG) into this folder
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
    /// Keep the logs of the processes in this folder
    #[arg(long, value_name = "DIR")]
    logs: Option<PathBuf>,
}

fn named_process(text: &str) -> Result<(String, i32), String> {
    let parsed = text.split_once('=').and_then(|(name, pid)| Some((name.to_owned(), pid.parse().ok()?)));
    parsed
        .filter(|(_, pid)| *pid > 0)
        .ok_or_else(|| format!("{text:?} is no NAME=PID: write one such as etcd=1234"))
}

pub(super) async fn run(args: Args, stop: CancellationToken) -> Result<(), BenchError> {
    match args.what {
        What::Queue(args) => Box::pin(bench::queue(order(args), stop)).await,
        What::Fleet(args) => {
            let client = connect::cluster(WATCH_SILENCE, &Readiness::default()).await;
            let client = client
                .map_err(|error| BenchError::Cluster { what: "answer".into(), why: error.to_string() })?;
            Box::pin(bench::fleet(whole(args), client, stop)).await
        }
    }
}

fn order(args: QueueArgs) -> Order {
    Order {
        database_url: args.database_url,
        depth: if args.quick { Depth::Quick } else { Depth::Whole },
        only: args.only,
        seconds: args.seconds,
        peer: args.peer,
        json: args.json,
        plots: args.plots,
    }
}

fn whole(args: FleetArgs) -> Fleet {
    Fleet {
        database_url: args.database_url,
        servers: args.servers,
        reimages: args.reimages.unwrap_or(args.servers),
        parallel: args.parallel,
        queued: args.queued.unwrap_or(args.servers),
        in_flight: args.in_flight,
        samples: args.samples,
        workers: args.workers,
        slots: args.slots,
        concurrency: args.concurrency,
        only: args.only.into_iter().collect(),
        watched: args.watch,
        json: args.json,
        plots: args.plots,
        logs: args.logs,
    }
}
