//! `make bench`: how many requests a second the server does of each command, and how long they take.
//!
//! ```text
//! for each round, for each setting (plain, append-only file, replica, redis-cell)
//!     a fresh server
//!     for each command     fill with keys, and
//!                          several times in turn:  SET EX, the command      in pipelines
//!                                                  PING, the command        without
//! a figure  = the median over the rounds
//! a ratio   = the command to what took turns with it, a quarter of a second before; the median over the rounds
//! ```
//!
//! So a machine's slow second slows both sides of a ratio. Two commands are compared by their ratios, too.
//!
//! The times of the three calls beside one RL.MULTI are added up. They are measured in pipelines thrice as long, too, since three
//! times as many commands go into what one pipeline of RL.MULTI decides.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::machine::{Build, Pinning};
use crate::redis_benchmark::{self, Report, Run};
use crate::replica::Replica;
use crate::results::{Results, median, report};
use crate::server::{Builder, Server, info};
use crate::workload::{
    self, Decisions, PING_YARDSTICK, PIPELINE, REDIS_CELL, Ready, SET_EX, SET_YARDSTICK,
    TOKENBUCKET_GRANTED, Workload, processor_seconds,
};

#[derive(Args)]
pub struct Options {
    /// How often everything is measured.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// How many requests redis-benchmark sends of a command in pipelines.
    #[arg(long, default_value_t = 500_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub requests: u64,
    /// How many it sends without pipelines.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub unpipelined: u64,
    /// How many keys there are.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub keys: u64,
    /// redis-cell's library, to measure it, too.
    #[arg(long)]
    cell: Option<PathBuf>,
    /// Draws the chart, too.
    #[arg(long)]
    pub chart: bool,
}

/// How a server is set up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    Plain,
    AppendOnly,
    Replicated,
    RedisCell,
}

/// A command in a setting.
pub struct Point {
    pub setting: Setting,
    pub workload: Workload,
    /// The name in the tables, and under which the point is found.
    pub name: String,
    /// How many commands a pipeline holds.
    pipeline: u64,
    /// Whether it is measured without pipelines, too.
    pub unpipelined: bool,
    pub rounds: Vec<Sample>,
}

/// What one round says of a point.
#[derive(Clone, Copy)]
pub struct Sample {
    pub requests_per_second: f64,
    /// How many times the throughput of SET EX.
    pub of_set_ex: f64,
    pub processor_us: f64,
    pub unpipelined: Option<Unpipelined>,
}

/// What one round says of a point without pipelines.
#[derive(Clone, Copy)]
pub struct Unpipelined {
    pub report: Report,
    /// How many times PING's 99th percentile.
    pub p99_of_ping: f64,
}

/// How often a command and what it is compared with take turns in a round.
const TURNS: u64 = 5;

pub const APPEND_ONLY: &str = "appendonly yes: ";
const REPLICATED: &str = "a replica attached: ";
pub const ALONE: &str = "pipelines of 48: ";

pub fn bench(options: &Options, out: &Path) -> Result<()> {
    redis_benchmark::require()?;
    if let Some(cell) = &options.cell {
        ensure!(cell.is_file(), "CELL is {}, which is no file", cell.display());
    }
    let build = Build::under_test()?;
    let pinning = Pinning::bind("the server", "redis-benchmark");
    println!("{}, {}", build.name, pinning.line);
    let mut points = points(options);
    let progress = ProgressBar::new(u64::from(options.rounds) * points.len() as u64)
        .with_style(ProgressStyle::with_template("{bar:40} {pos}/{len} {msg} {eta}")?);
    for _ in 0..options.rounds {
        for setting in
            [Setting::Plain, Setting::AppendOnly, Setting::Replicated, Setting::RedisCell]
        {
            let mut of_setting: Vec<_> =
                points.iter_mut().filter(|point| point.setting == setting).collect();
            if !of_setting.is_empty() {
                round(setting, &mut of_setting, options, &pinning, &progress)?;
            }
        }
    }
    progress.finish_and_clear();
    report(&Results { points, build }, options, &pinning, out)
}

/// All that is measured in a round.
fn points(options: &Options) -> Vec<Point> {
    let point = |setting, prefix: &str, workload: Workload| Point {
        setting,
        workload,
        name: format!("{prefix}{}", workload.name),
        pipeline: PIPELINE,
        unpipelined: setting == Setting::Plain,
        rounds: Vec::new(),
    };
    let mut points: Vec<_> =
        workload::ALL.iter().map(|&workload| point(Setting::Plain, "", workload)).collect();
    points.extend(workload::OF_MULTI.map(|workload| Point {
        pipeline: PIPELINE * workload::OF_MULTI.len() as u64,
        unpipelined: false,
        ..point(Setting::Plain, ALONE, workload)
    }));
    for (setting, prefix) in [(Setting::AppendOnly, APPEND_ONLY), (Setting::Replicated, REPLICATED)]
    {
        points
            .extend([SET_EX, TOKENBUCKET_GRANTED].map(|workload| point(setting, prefix, workload)));
    }
    if options.cell.is_some() {
        points.push(point(Setting::RedisCell, "redis-cell's server: ", SET_EX));
        points.push(point(Setting::RedisCell, "", REDIS_CELL));
    }
    points
}

/// Measures these points once, on a server of their own.
fn round(
    setting: Setting,
    points: &mut [&mut Point],
    options: &Options,
    pinning: &Pinning,
    progress: &ProgressBar,
) -> Result<()> {
    let server = pinning.start(setting.server(options)?)?;
    let replica = (setting == Setting::Replicated).then(|| Replica::attach(&server)).transpose()?;
    for point in points {
        progress.set_message(point.name.clone());
        let sample = point.measure(&server, options)?;
        point.rounds.push(sample);
        progress.inc(1);
    }
    replica.map_or(Ok(()), |replica| replica.detach(&server))
}

impl Setting {
    fn server(self, options: &Options) -> Result<Builder> {
        let server = Server::builder().setting("auto-aof-rewrite-percentage 0");
        Ok(match self {
            Self::Plain => server,
            Self::AppendOnly => server.setting("appendonly yes").setting("appendfsync everysec"),
            // The replica never says how far it is.
            Self::Replicated => {
                server.setting("repl-diskless-sync no").setting("repl-timeout 3600")
            }
            Self::RedisCell => {
                let cell = options.cell.as_ref().context("redis-cell's library is not given")?;
                server.without_module().module_before(cell.canonicalize()?)
            }
        })
    }
}

impl Point {
    fn measure(&self, server: &Server, options: &Options) -> Result<Sample> {
        let mut connection = server.connection()?;
        workload::empty(&mut connection)?;
        let set_ex = SET_YARDSTICK.prepare(&mut connection, options.keys, 1)?;
        let ping = PING_YARDSTICK.prepare(&mut connection, 1, 1)?;
        let ready = self.workload.prepare(&mut connection, options.keys, 1)?;
        let mut info = || info(&mut connection, "everything");
        let mut own = |requests, pipeline| -> Result<(Report, f64)> {
            let before = info()?;
            let report = run(server, &ready, options, requests, pipeline)?;
            let after = info()?;
            self.workload.check(Decisions::of(&before), Decisions::of(&after), requests)?;
            Ok((report, processor_seconds(&after)? - processor_seconds(&before)?))
        };

        let requests = options.requests.div_ceil(TURNS);
        let (mut ours, mut theirs, mut processor) = (0.0, 0.0, 0.0);
        for _ in 0..TURNS {
            // As many requests each time: so the times add up.
            theirs += 1.0 / run(server, &set_ex, options, requests, PIPELINE)?.requests_per_second;
            let (report, seconds) = own(requests, self.pipeline)?;
            ours += 1.0 / report.requests_per_second;
            processor += seconds;
        }
        let processor_us = processor * 1e6 / (requests * TURNS) as f64;

        let unpipelined = self.unpipelined.then(|| -> Result<Unpipelined> {
            let requests = options.unpipelined.div_ceil(TURNS);
            let turns = (0..TURNS).map(|_| {
                let theirs = run(server, &ping, options, requests, 1)?;
                Ok((own(requests, 1)?.0, theirs))
            });
            Unpipelined::of(&turns.collect::<Result<Vec<_>>>()?)
        });
        Ok(Sample {
            requests_per_second: TURNS as f64 / ours,
            of_set_ex: theirs / ours,
            processor_us,
            unpipelined: unpipelined.transpose()?,
        })
    }
}

impl Unpipelined {
    /// The median of each figure over turns, a command's report beside PING's.
    fn of(turns: &[(Report, Report)]) -> Result<Self> {
        let figure = |of: fn(&(Report, Report)) -> f64| median(turns.iter().map(of).collect());
        Ok(Self {
            report: Report {
                requests_per_second: figure(|(ours, _)| ours.requests_per_second),
                p50_ms: figure(|(ours, _)| ours.p50_ms),
                p99_ms: figure(|(ours, _)| ours.p99_ms),
            },
            p99_of_ping: figure(|(ours, ping)| ours.p99_ms / ping.p99_ms),
        })
    }
}

fn run(
    server: &Server,
    ready: &Ready,
    options: &Options,
    requests: u64,
    pipeline: u64,
) -> Result<Report> {
    let (port, words) = (server.port(), ready.words());
    Run { port, words, keys: options.keys, requests, pipeline }.measure()
}
