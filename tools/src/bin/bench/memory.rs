//! `make bench-memory`: how many bytes a key takes.
//!
//! ```text
//! bytes of a key = (used_memory with n keys - used_memory with none) / n
//! ```
//!
//! Hits come on the virtual clock, an hour from now, so that no key expires meanwhile. Keys of more hits are fewer, by powers
//! of two: a hash table doubles, so its share of a key is the same.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use redis::{Cmd, Connection};

use crate::machine::{Build, circumstances};
use crate::page::{self, grouped, table};
use crate::promises::{ByServer, Good, Promise, for_server, on_redis_7, render};
use crate::server::{Server, field, info};

#[derive(Args)]
pub struct Options {
    /// How many keys there are of one hit.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(64..))]
    keys: u64,
}

/// Hits of a key, and by what its number of keys is divided.
const HITS: [(u64, u64); 3] = [(1, 1), (10, 8), (100, 64)];
const MINUTE_US: u64 = 60_000_000;
const BATCH: u64 = 1_000;

/// What a key holds.
#[derive(Clone, Copy)]
struct Holds {
    name: &'static str,
    /// The command of a hit, with the key behind its first word.
    hit: fn(key: &str, micros: u64) -> Vec<Cmd>,
}

const SET_EX: Holds = Holds { name: "SET EX of 16 bytes of text", hit: set };
const TOKENBUCKET: &str = "RL.TOKENBUCKET";
const SLIDING: &str = "RL.SLIDING";

const LIMITERS: [Holds; 6] = [
    Holds { name: TOKENBUCKET, hit: |key, at| limiter("RL.TOKENBUCKET", key, "100/60", at) },
    Holds { name: "RL.LEAKYBUCKET", hit: |key, at| limiter("RL.LEAKYBUCKET", key, "100/60", at) },
    Holds { name: "RL.FIXEDWINDOW", hit: |key, at| limiter("RL.FIXEDWINDOW", key, "1m", at) },
    Holds { name: SLIDING, hit: |key, at| limiter("RL.SLIDING", key, "1m", at) },
    Holds { name: "RL.SLIDINGLOG", hit: |key, at| limiter("RL.SLIDINGLOG", key, "1m", at) },
    Holds { name: "a log in a sorted set", hit: sorted_set },
];

/// A row of the table: the bytes of a key at each number of hits.
struct Row {
    name: &'static str,
    bytes: Vec<f64>,
}

pub fn run(options: &Options, out: &Path) -> Result<()> {
    let build = Build::under_test()?;
    // Often at its background work, so that a hash table that has grown is soon moved and the old one freed.
    let server = Server::builder().virtual_clock().setting("hz 500").start()?;
    println!("{}", build.name);
    let progress = ProgressBar::new(1 + (LIMITERS.len() * HITS.len()) as u64)
        .with_style(ProgressStyle::with_template("{bar:40} {pos}/{len} {msg} {eta}")?);
    let measure = |holds: Holds, hits: &[(u64, u64)]| -> Result<Row> {
        let bytes = hits.iter().map(|&(hits, part)| {
            progress.set_message(format!("{} of {hits} hits", holds.name));
            let bytes = bytes_of_a_key(&server, holds, options.keys / part, hits);
            progress.inc(1);
            bytes
        });
        Ok(Row { name: holds.name, bytes: bytes.collect::<Result<_>>()? })
    };
    let set_ex = measure(SET_EX, &HITS[..1])?;
    let limiters: Result<Vec<Row>> = LIMITERS.iter().map(|&holds| measure(holds, &HITS)).collect();
    let limiters = limiters?;
    progress.finish_and_clear();

    let measured = render_rows(&set_ex, &limiters);
    let promised = render(&promises(&build.name, &set_ex, &limiters));
    println!("{measured}\n\n{promised}");
    let keys = grouped(options.keys as f64);
    let body = format!("{}. {keys} keys.\n\n{measured}\n\n{promised}", circumstances());
    println!("{}", page::put(out, page::MEMORY, &build.name, &body)?.display());
    Ok(())
}

fn set(key: &str, _micros: u64) -> Vec<Cmd> {
    let mut set = redis::cmd("SET");
    set.arg(key).arg("a-16-byte-string").arg("EX").arg(6_000);
    vec![set]
}

fn limiter(name: &str, key: &str, per: &str, micros: u64) -> Vec<Cmd> {
    let mut call = redis::cmd(name);
    call.arg(key).arg(100).arg(per).arg("AT").arg(micros);
    vec![call]
}

fn sorted_set(key: &str, micros: u64) -> Vec<Cmd> {
    let (mut add, mut expire) = (redis::cmd("ZADD"), redis::cmd("PEXPIRE"));
    add.arg(key).arg(micros).arg(micros);
    expire.arg(key).arg(6_000_000);
    vec![add, expire]
}

fn bytes_of_a_key(server: &Server, holds: Holds, keys: u64, hits: u64) -> Result<f64> {
    let mut connection = server.connection()?;
    redis::cmd("FLUSHALL").arg("SYNC").query::<()>(&mut connection)?;
    let before = settled_memory(&mut connection)?;
    // By a connection of its own, so that its buffers are not counted.
    fill(&mut server.connection()?, holds, keys, hits)?;
    let after = settled_memory(&mut connection)?;
    let found: u64 = redis::cmd("DBSIZE").query(&mut connection)?;
    ensure!(found == keys, "{}: {found} keys instead of {keys}", holds.name);
    Ok((after - before) / keys as f64)
}

/// Sends the hits of all keys in the order of time, since a clock does not step back.
fn fill(connection: &mut Connection, holds: Holds, keys: u64, hits: u64) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros();
    let start = u64::try_from(now)? + 60 * MINUTE_US;
    for hit in 0..hits {
        let micros = start + hit * MINUTE_US / hits;
        for first in (0..keys).step_by(usize::try_from(BATCH)?) {
            let mut pipeline = redis::pipe();
            for number in first..keys.min(first + BATCH) {
                for command in (holds.hit)(&format!("key:{number:012}"), micros) {
                    pipeline.add_command(command).ignore();
                }
            }
            pipeline
                .query::<()>(connection)
                .with_context(|| format!("{} of {hits} hits", holds.name))?;
        }
    }
    Ok(())
}

/// What the server uses, once that no longer changes: it rehashes and frees in the background.
fn settled_memory(connection: &mut Connection) -> Result<f64> {
    let mut used = used_memory(connection)?;
    for _ in 0..100 {
        sleep(Duration::from_millis(100));
        let now = used_memory(connection)?;
        if now == used {
            break;
        }
        used = now;
    }
    Ok(used)
}

fn used_memory(connection: &mut Connection) -> Result<f64> {
    let used = field(&info(connection, "memory")?, "used_memory");
    Ok(used.context("INFO has no used_memory")?.trim().parse()?)
}

fn render_rows(set_ex: &Row, limiters: &[Row]) -> String {
    let [reference] = set_ex.bytes[..] else { return String::new() };
    let first = [set_ex.name.into(), format!("{reference:.0}"), String::new(), String::new()];
    let rows = limiters.iter().map(|row| {
        let cell = |&bytes: &f64| format!("{bytes:.0} ({:+.0})", bytes - reference);
        let mut cells = row.bytes.iter().map(cell);
        let mut next = || cells.next().unwrap_or_default();
        [row.name.into(), next(), next(), next()]
    });
    table(
        ["bytes of a key (beside SET EX)", "1 hit", "10 hits", "100 hits"],
        [first].into_iter().chain(rows),
    )
}

fn promises(server: &str, set_ex: &Row, limiters: &[Row]) -> Vec<Promise> {
    let bytes = |name: &str, hits: usize| {
        let row = limiters.iter().find(|row| row.name == name);
        row.and_then(|row| row.bytes.get(hits)).copied().unwrap_or(f64::NAN)
    };
    let over_set: ByServer<(f64, f64)> =
        [Some((16.0, 0.0)), Some((32.0, 16.0)), Some((56.0, 40.0))];
    let set_ex = set_ex.bytes.first().copied().unwrap_or(f64::NAN);
    let promised = [
        ("RL.TOKENBUCKET, over SET EX", over_set, bytes(TOKENBUCKET, 0) - set_ex),
        ("RL.SLIDING, 10 hits", on_redis_7((384.0, 320.0)), bytes(SLIDING, 1)),
    ];
    let promises = promised.into_iter().filter_map(|(what, promised, measured)| {
        let (least, aim) = for_server(server, promised)?;
        // What the server's tables take of a key is no whole number.
        let (what, measured) = (what.to_owned(), measured.round());
        Some(Promise { what, least, aim, good: Good::Lower, unit: "bytes", measured })
    });
    promises.collect()
}
