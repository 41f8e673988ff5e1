//! The throughput figures: rounds of raw limit, figure, raw limit, figure, so that a ratio compares neighbours.

use std::collections::BTreeMap;

use super::enqueuer::Idle;
use super::figure::{Figure, Target, median};
use super::ground::Ground;
use super::plan::Part;
use super::window::{Count, Load, Span};
use super::worker::{self, Process};
use super::{Bench, BenchError};
use crate::queue::Engine;
use crate::queue::measure::{Laid, RawLimit};

/// Connections of the two raw limits.
const FEW: usize = 16;
const MANY: usize = 64;

/// One throughput figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Path {
    Single,
    SingleApart,
    Claimers,
    Enqueue,
    Batched,
    Together,
    Parked,
}

impl Path {
    const ALL: [Self; 7] = [
        Self::Single,
        Self::SingleApart,
        Self::Claimers,
        Self::Enqueue,
        Self::Batched,
        Self::Parked,
        Self::Together,
    ];

    const fn part(self) -> Part {
        match self {
            Self::Single | Self::SingleApart => Part::Single,
            Self::Claimers => Part::Claimers,
            Self::Enqueue => Part::Enqueue,
            Self::Batched => Part::Batched,
            Self::Together => Part::Together,
            Self::Parked => Part::Parked,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Single => "single-job path, 16 claimers of one process",
            Self::SingleApart => "single-job path, 16 processes",
            Self::Claimers => "single-job path, 64 claimers of one process",
            Self::Enqueue => "enqueue",
            Self::Batched => "batched path",
            Self::Together => "enqueue and complete together",
            Self::Parked => "batched path beside parked jobs",
        }
    }

    /// The connections of the raw limit that it is compared with.
    const fn raw(self) -> usize {
        match self {
            Self::Single | Self::SingleApart => FEW,
            _ => MANY,
        }
    }
}

/// What the rounds measured: the rates of each path, and each divided by its neighbours of the raw limit.
#[derive(Debug, Default)]
struct Measured {
    raw: BTreeMap<usize, Vec<f64>>,
    rates: BTreeMap<Path, Vec<f64>>,
    ratios: BTreeMap<Path, Vec<f64>>,
    parked: Vec<f64>,
    claimers: Vec<f64>,
}

/// Measures all wanted throughput figures.
pub(super) async fn measure(bench: &Bench, ground: &Ground) -> Result<Vec<Figure>, BenchError> {
    let wanted: Vec<Path> = Path::ALL.into_iter().filter(|path| bench.plan.wants(path.part())).collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let mut raw = RawLimit::prepare(&bench.laboratory.empty_schema().await?, MANY).await?;
    let mut measured = Measured::default();
    let bar = bench.progress.bar("rounds", u64::from(bench.plan.rounds) * wanted.len() as u64);
    for round in 1..=bench.plan.rounds {
        let mut neighbour = BTreeMap::new();
        for path in &wanted {
            ground.top_up(bench.plan.backlog).await?;
            let connections = path.raw();
            let before = match neighbour.get(&connections) {
                Some(rate) => *rate,
                None => raw_rate(bench, &mut raw, connections, &mut measured).await?,
            };
            let rate = one(bench, ground, *path, &mut measured).await?;
            let after = raw_rate(bench, &mut raw, connections, &mut measured).await?;
            neighbour = BTreeMap::from([(connections, after)]);
            measured.rates.entry(*path).or_default().push(rate);
            measured.ratios.entry(*path).or_default().push(2.0 * rate / (before + after).max(1.0));
            bar.advance(1);
            bench.progress.say(&format!(
                "round {round} of {}: {}: {rate:.0}/s, the raw limit at {connections} connections: {before:.0} and \
                 {after:.0}/s",
                bench.plan.rounds,
                path.name()
            ));
        }
        measured.compare_last();
    }
    bar.end();
    Ok(measured.figures(bench))
}

async fn raw_rate(
    bench: &Bench,
    raw: &mut RawLimit,
    connections: usize,
    measured: &mut Measured,
) -> Result<f64, BenchError> {
    let Span { warm_up, window } = bench.plan.raw_span;
    let rate = raw.rate(connections, warm_up, window).await?;
    measured.raw.entry(connections).or_default().push(rate);
    Ok(rate)
}

async fn one(bench: &Bench, ground: &Ground, path: Path, measured: &mut Measured) -> Result<f64, BenchError> {
    match path {
        Path::Single => one_process(bench, ground, FEW).await,
        Path::Claimers => one_process(bench, ground, MANY).await,
        Path::SingleApart => apart(bench, ground, FEW).await,
        Path::Enqueue => enqueue(bench, ground).await,
        Path::Batched => batched(bench, ground).await,
        Path::Together => together(bench, ground).await,
        Path::Parked => {
            let without = batched(bench, ground).await?;
            ground.top_up(bench.plan.backlog).await?;
            let until_ms = super::jobs::now_ms() + 86_400_000;
            let parked = ground.add(bench.plan.parked, Laid::Parked { until_ms }).await?;
            let with = batched(bench, ground).await?;
            ground.unpark(&parked, until_ms).await?;
            measured.parked.push(with / without.max(1.0));
            Ok(with)
        }
    }
}

/// `claimers` of one process, which share its connections.
async fn one_process(bench: &Bench, ground: &Ground, claimers: usize) -> Result<f64, BenchError> {
    let process = Process::join(ground, claimers as u32).await?;
    let (mut load, ended) = (Load::default(), Count::default());
    for number in 0..claimers {
        let fetcher = process.fetcher(ground, worker::shards_of(number, claimers), &ended);
        load.add(fetcher.one_by_one(load.stop()));
    }
    let [rate] = load.rates(bench.plan.span, [&ended]).await?;
    process.leave().await?;
    Ok(rate)
}

/// `processes` of one slot each: nothing can be put together with anything.
async fn apart(bench: &Bench, ground: &Ground, processes: usize) -> Result<f64, BenchError> {
    let (mut load, ended) = (Load::default(), Count::default());
    let mut joined = Vec::new();
    for number in 0..processes {
        let process = Process::join(ground, 1).await?;
        let fetcher = process.fetcher(ground, worker::shards_of(number, processes), &ended);
        load.add(fetcher.one_by_one(load.stop()));
        joined.push(process);
    }
    let [rate] = load.rates(bench.plan.span, [&ended]).await?;
    worker::leave(joined).await?;
    Ok(rate)
}

/// A few workers with many slots each.
pub(super) async fn batched(bench: &Bench, ground: &Ground) -> Result<f64, BenchError> {
    let (mut load, ended) = (Load::default(), Count::default());
    let crew = bench.plan.crew.start(ground, &mut load, &ended, None).await?;
    let [rate] = load.rates(bench.plan.span, [&ended]).await?;
    worker::leave(crew).await?;
    Ok(rate)
}

async fn enqueue(bench: &Bench, ground: &Ground) -> Result<f64, BenchError> {
    let idle = Idle::of(ground, bench.plan.servers).await?;
    let (mut load, accepted) = (Load::default(), Count::default());
    let queue = bench.plan.enqueuers.start(ground, &mut load, &idle, &accepted).await?;
    let [rate] = load.rates(bench.plan.span, [&accepted]).await?;
    queue.close().await;
    Ok(rate)
}

/// The smaller of what goes in and what is done.
async fn together(bench: &Bench, ground: &Ground) -> Result<f64, BenchError> {
    let idle = Idle::of(ground, bench.plan.servers).await?;
    let mut both = Both::start(bench, ground, &idle, false).await?;
    let load = std::mem::take(&mut both.load);
    let [accepted, ended] = load.rates(bench.plan.span, [&both.accepted, &both.ended]).await?;
    both.leave().await?;
    Ok(accepted.min(ended))
}

/// Enqueuers and workers at once.
#[derive(Debug)]
pub(super) struct Both {
    pub load: Load,
    pub accepted: Count,
    pub ended: Count,
    queue: crate::queue::Queue,
    crew: Vec<Process>,
}

impl Both {
    /// Starts them. `again`: a server whose job ended gets the next one.
    pub(super) async fn start(
        bench: &Bench,
        ground: &Ground,
        idle: &Idle,
        again: bool,
    ) -> Result<Self, BenchError> {
        let (mut load, accepted, ended) = (Load::default(), Count::default(), Count::default());
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        let crew = bench.plan.crew.start(ground, &mut load, &ended, again.then_some(&sender)).await?;
        if again {
            load.add(idle.clone().refill(ground.clone(), receiver, load.stop()));
        }
        let queue = bench.plan.enqueuers.start(ground, &mut load, idle, &accepted).await?;
        Ok(Self { load, accepted, ended, queue, crew })
    }

    /// After the load has ended.
    pub(super) async fn leave(self) -> Result<(), BenchError> {
        self.queue.close().await;
        worker::leave(self.crew).await
    }
}

impl Measured {
    /// 64 claimers against 16 of the same round.
    fn compare_last(&mut self) {
        let last = |path: Path| self.rates.get(&path).and_then(|rates| rates.last()).copied();
        if let (Some(few), Some(many)) = (last(Path::Single), last(Path::Claimers)) {
            self.claimers.push(many / few.max(1.0));
        }
    }

    fn figures(&self, bench: &Bench) -> Vec<Figure> {
        let mut figures = Vec::new();
        for (connections, rates) in &self.raw {
            let name = format!("raw limit at {connections}");
            figures.push(Figure::new(name, median(rates), "transactions/s"));
        }
        for path in Path::ALL {
            let (Some(rates), Some(ratios)) = (self.rates.get(&path), self.ratios.get(&path)) else {
                continue;
            };
            figures.push(Figure::new(path.name(), median(rates), "jobs/s"));
            let name = format!("{} / raw limit at {}", path.name(), path.raw());
            let ratio = Figure::new(name, median(ratios), "ratio");
            figures.push(match (path, bench.engine) {
                (Path::Single, _) => ratio.held_against(Target::AtLeast(0.25)),
                (Path::Batched, _) => ratio.held_against(Target::AtLeast(1.8)),
                (Path::Together, Engine::MariaDb) => ratio.held_against(Target::AtLeast(1.2)),
                (Path::Together, Engine::MySql) => ratio.held_against(Target::AtLeast(1.1)),
                _ => ratio,
            });
        }
        if !self.claimers.is_empty() {
            figures.push(Figure::new("64 claimers / 16 claimers", median(&self.claimers), "ratio"));
        }
        if !self.parked.is_empty() {
            let name = format!("batched path beside {} parked jobs / beside none", bench.plan.parked);
            figures.push(Figure::new(name, median(&self.parked), "ratio").held_against(Target::AtLeast(0.9)));
        }
        figures
    }
}
