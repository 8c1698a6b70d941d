//! `make bench-gateway`: how many requests a second the gateway decides, how long it takes, and how fast it says no from memory.
//!
//! ```text
//! core 0   the gateway, with one thread
//! core 1   the server, and this program: HTTP/2 connections with many requests under way on each
//!
//! decisions   closed loop: each stream asks anew as soon as it is answered            load.rs
//! latency     open loop: requests are sent when they are due, at half the promised     pace.rs
//!             rate, to the gateway and to the server itself in turns
//! denials     one user who is over his limit: the server must not hear of him
//! ```
//!
//! Rounds take turns with everything, and medians over them count. The figures go into docs/benchmarks.md. Run by `cargo test`, it
//! measures next to nothing into a temporary folder: so this program is tested, too.

#![allow(clippy::float_arithmetic, reason = "figures are ratios and means")]
#![allow(missing_docs, reason = "a program has no users of its parts")]

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;

mod gateway;
mod load;
#[path = "../../../tools/src/bin/bench/machine.rs"]
#[allow(dead_code, reason = "shared with the other measurements")]
mod machine;
mod pace;
#[path = "../../../tools/src/bin/bench/page.rs"]
#[allow(dead_code, reason = "shared with the other measurements")]
mod page;
#[path = "../../../tools/src/bin/bench/promises.rs"]
#[allow(dead_code, reason = "shared with the other measurements")]
mod promises;
mod results;
#[path = "../../../tests/server.rs"]
mod server;

use gateway::Gateway;
use load::{Load, Shape};
use machine::{Build, Pinning};
use results::{DECISIONS, Results, Round};
use server::{Server, field, info};

/// Measures the gateway in front of a real server.
#[derive(Parser)]
pub struct Options {
    /// The folder that the page is written into.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs"))]
    out: PathBuf,
    /// How often everything is measured.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// How long each measurement of a round takes.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Connections of the load.
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Requests under way on each of them.
    #[arg(long, default_value_t = 32)]
    streams: usize,
    /// Users that ask.
    #[arg(long, default_value_t = 10_000)]
    users: usize,
    /// What cargo passes.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let measured = if std::env::args().any(|argument| argument == "--bench") {
        measure(&Options::parse())
    } else {
        try_it()
    };
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What `cargo test` runs.
fn try_it() -> Result<()> {
    let out = tempfile::tempdir()?;
    let path = out.path().to_string_lossy();
    let arguments = [
        "load",
        "--rounds",
        "1",
        "--seconds",
        "0.3",
        "--connections",
        "2",
        "--streams",
        "2",
        "--users",
        "10",
    ];
    measure(&Options::parse_from(arguments.into_iter().chain(["--out", &path])))?;
    let page = std::fs::read_to_string(out.path().join("benchmarks.md"))?;
    for what in
        ["one limit", "three limits", "a denial from memory", "the gateway", "the server itself"]
    {
        ensure!(page.contains(&format!("| {what}")), "the page has no row {what}: {page}");
    }
    Ok(())
}

fn measure(options: &Options) -> Result<()> {
    let pinning = Pinning::bind("the gateway", "the server and the load");
    let build = Build::under_test()?;
    println!("{}", build.name);
    let server = Server::start()?;
    let gateway = Gateway::start(&pinning, server.port())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut rounds = Vec::new();
    for number in 1..=options.rounds {
        let round = runtime.block_on(round(options, &server, &gateway))?;
        println!("round {number} of {}: {round}", options.rounds);
        rounds.push(round);
    }
    Results { rounds, build, pinning }.report(options)
}

async fn round(options: &Options, server: &Server, gateway: &Gateway) -> Result<Round> {
    let time = Duration::from_secs_f64(options.seconds);
    let load = |shape| Load::new(gateway, shape, options);
    let one = load(Shape::OneLimit).await?.run(time).await?;
    let three = load(Shape::ThreeLimits).await?.run(time).await?;

    let before = decided(server)?;
    let denied = load(Shape::Denied).await?.run(time).await?;
    let asked = decided(server)? - before;
    // The first denial is the server's, and those that are under way with it.
    let under_way = options.connections * options.streams;
    ensure!(
        asked <= under_way as u64 + 1,
        "the server was asked {asked} times for one user who is over his limit"
    );

    let rate = DECISIONS / 2.0;
    let direct = pace::server(server, rate, time, options.users).await?;
    let through = pace::gateway(&load(Shape::OneLimit).await?, rate, time).await?;
    Ok(Round { one, three, denied, direct, through })
}

/// How many times the server has decided.
fn decided(server: &Server) -> Result<u64> {
    let info = info(&mut server.connection()?, "commandstats")?;
    let calls = field(&info, "cmdstat_RL.MULTI").or_else(|| field(&info, "cmdstat_rl.multi"));
    let calls = calls.and_then(|stats| {
        stats.split(',').find_map(|part| part.strip_prefix("calls=")?.parse().ok())
    });
    Ok(calls.unwrap_or(0))
}
