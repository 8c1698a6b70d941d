//! Measures the module on a real server: `make bench`, `make bench-memory`, `make bench-leases`, `make bench-clients`,
//! `make bench-instructions`, `make check-instructions`.
//!
//! ```text
//! throughput     requests a second and latencies, by redis-benchmark        throughput.rs, redis_benchmark.rs, replica.rs, results.rs, chart.rs
//! memory         bytes of a key                                             memory.rs
//! leases         pairs of RL.ACQUIRE and RL.RELEASE, bytes of a lease       leases.rs
//! clients        what clients/*/bench.sh have measured, into the page       clients.rs
//! instructions   of one command, by callgrind, and the guard over them      instructions.rs, callgrind.rs
//! ```
//!
//! The commands stand in workload.rs, what they are to reach in promises.rs. Each subcommand prints its tables and puts them into
//! its own part of docs/benchmarks.md (page.rs). The server is the one that RL_SERVER names, or an installed one.

#![allow(clippy::float_arithmetic, reason = "figures are ratios and means")]
#![allow(missing_docs, reason = "a program has no users of its parts")]

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod callgrind;
mod chart;
mod clients;
mod instructions;
mod leases;
mod machine;
mod memory;
mod page;
#[path = "../../picture.rs"]
mod picture;
mod promises;
mod redis_benchmark;
mod replica;
mod results;
#[path = "../../../../tests/server.rs"]
mod server;
mod throughput;
mod workload;

/// Measures the module on a real server.
#[derive(Parser)]
struct Options {
    /// The folder that the page is written into.
    #[arg(long, default_value = "docs", global = true)]
    out: PathBuf,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Requests a second and latencies, by redis-benchmark.
    Throughput(throughput::Options),
    /// Bytes of a key.
    Memory(memory::Options),
    /// Pairs of RL.ACQUIRE and RL.RELEASE a second, and bytes of a lease.
    Leases(leases::Options),
    /// Puts the tables that clients/*/bench.sh print, on standard input, into the page.
    Clients,
    /// Instructions of one command, by callgrind.
    Instructions(instructions::Options),
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    match &options.what {
        What::Throughput(throughput) => throughput::bench(throughput, &options.out),
        What::Memory(memory) => memory::run(memory, &options.out),
        What::Leases(leases) => leases::run(leases, &options.out),
        What::Clients => clients::run(&options.out),
        What::Instructions(instructions) => instructions::run(instructions, &options.out),
    }
}
