//! `make bench-leases`: pairs of RL.ACQUIRE and RL.RELEASE beside the same in Lua on a sorted set, and the bytes of a lease.
//!
//! ```text
//! pairs a second  = pairs / seconds that the server's main thread was on a processor
//! bytes a lease   = MEMORY USAGE of a key with n leases / n
//! ```
//!
//! They take turns, round by round, with 10 leases held, of which the oldest goes: a ratio is the median over the rounds.

use std::path::Path;

use anyhow::{Result, ensure};
use clap::Args;
use redis::Connection;

use crate::machine::{Build, circumstances};
use crate::page::{self, grouped, table};
use crate::promises::{Good, Promise, render};
use crate::server::{Server, info};
use crate::workload::{
    Decisions, LUA_AND_ZREM_PAIR, LUA_SLOT_PAIR, Ready, SLOT_PAIR, Workload, empty,
    processor_seconds,
};

#[derive(Args)]
pub struct Options {
    /// How often the two take turns.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// How many pairs a round has.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pairs: u64,
}

/// The leases that are held while pairs come and go.
const HELD: u64 = 10;
/// How many pairs are pipelined: as many commands are under way as from all the clients of the throughput part. With fewer,
/// a pair costs the server more for its socket than for the work.
const PIPELINE: u64 = 400;
/// The leases of which the bytes are measured.
const MEASURED: u64 = 1_000;

pub fn run(options: &Options, out: &Path) -> Result<()> {
    let build = Build::under_test()?;
    println!("{}", build.name);
    let server = Server::start()?;
    let [ours, lua, lua_and_zrem] = pairs(&server, options)?;
    let of = |theirs: &[f64]| {
        let ratios: Vec<f64> =
            ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
        median(&ratios)
    };
    let lease = bytes(&server, "RL.ACQUIRE leases 1000000 1h")?;
    let member = bytes(&server, "ZADD leases 1795558814000")?;
    let row = |workload: &Workload, pairs: &[f64], bytes: f64| {
        let ratio = format!("{:.2}x", of(pairs));
        [workload.name.into(), grouped(median(pairs)), ratio, format!("{bytes:.0}")]
    };
    let rows = [
        row(&SLOT_PAIR, &ours, lease),
        row(&LUA_SLOT_PAIR, &lua, member),
        row(&LUA_AND_ZREM_PAIR, &lua_and_zrem, member),
    ];
    let head = [
        "with 10 leases held; bytes at 1,000",
        "pairs/s of processor time",
        "RL.* of this",
        "bytes a lease",
    ];
    let measured = table(head, rows);
    let promised = render(&[
        promise("pairs a second, of both in Lua", (3.0, 3.0), Good::Higher, "x", of(&lua)),
        promise(
            "bytes a lease, ids of 16 bytes",
            (96.0, 64.0),
            Good::Lower,
            "bytes",
            lease.round(),
        ),
    ]);
    println!("{measured}\n\n{promised}");
    let rounds = format!("Rounds: {}, pairs: {}", options.rounds, grouped(options.pairs as f64));
    let body = format!("{}. {rounds}.\n\n{measured}\n\n{promised}", circumstances());
    println!("{}", page::put(out, page::LEASES, &build.name, &body)?.display());
    Ok(())
}

fn promise(
    what: &str,
    promised: (f64, f64),
    good: Good,
    unit: &'static str,
    measured: f64,
) -> Promise {
    let (least, aim) = promised;
    Promise { what: what.into(), least, aim, good, unit, measured }
}

/// Pairs a second of processor time of each round: ours, both in Lua, Lua and ZREM.
fn pairs(server: &Server, options: &Options) -> Result<[Vec<f64>; 3]> {
    let mut pairs = [const { Vec::new() }; 3];
    for _ in 0..options.rounds {
        for (pairs, workload) in pairs.iter_mut().zip([SLOT_PAIR, LUA_SLOT_PAIR, LUA_AND_ZREM_PAIR])
        {
            pairs.push(round(server, &workload, options.pairs)?);
        }
    }
    Ok(pairs)
}

fn round(server: &Server, workload: &Workload, pairs: u64) -> Result<f64> {
    let mut connection = server.connection()?;
    empty(&mut connection)?;
    let ready: Ready = workload.prepare(&mut connection, HELD, 1)?;
    let look = |connection: &mut Connection| info(connection, "everything");
    let before = look(&mut connection)?;
    ready.send(&mut connection, HELD, pairs, PIPELINE)?;
    let after = look(&mut connection)?;
    workload.check(Decisions::of(&before), Decisions::of(&after), pairs)?;
    let seconds = processor_seconds(&after)? - processor_seconds(&before)?;
    ensure!(seconds > 0.0, "too few pairs to measure");
    Ok(pairs as f64 / seconds)
}

/// The bytes of a lease, or of a member, whose command ends in an id of 16 bytes.
fn bytes(server: &Server, call: &str) -> Result<f64> {
    let mut connection = server.connection()?;
    empty(&mut connection)?;
    for number in 0..MEASURED {
        let mut command = redis::Cmd::new();
        for word in call.split(' ') {
            command.arg(word);
        }
        // In no order, as ids come.
        command.arg(format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        command.query::<redis::Value>(&mut connection)?;
    }
    let mut usage = redis::cmd("MEMORY");
    let bytes: f64 =
        usage.arg("USAGE").arg("leases").arg("SAMPLES").arg(0).query(&mut connection)?;
    Ok(bytes / MEASURED as f64)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
