//! `make bench-instructions`: the instructions of each command, into docs/benchmarks.md and docs/instructions.tsv.
//! `make check-instructions`: the guard against getting slower. It counts the module's commands again and compares with that file.
//!
//! Instructions are the same on every machine that runs the same code, and within a part in a thousand from run to run. So a
//! figure is kept for an exact build of a server, and holds for that one alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::callgrind::{self, Case};
use crate::machine::{Build, circumstances, rustc};
use crate::page::{self, grouped, table};
use crate::promises::{ByServer, Good, Promise, for_server, on_redis_7, render};
use crate::server::{Builder, Server};
use crate::workload::{
    self, REDIS_CELL, SET_EX, SLIDING_GRANTED, SLIDINGLOG_GRANTED, SLOT_PAIR, TOKENBUCKET_DENIED,
    TOKENBUCKET_GRANTED, Workload,
};

#[derive(Args)]
pub struct Options {
    /// How many calls an instruction count is the mean of.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    calls: u64,
    /// How many servers run at a time.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    jobs: u64,
    /// Only commands whose names contain this. Those of others stay in the file, and the page is left alone.
    #[arg(long)]
    only: Option<String>,
    /// redis-cell's library, to measure it, too.
    #[arg(long)]
    cell: Option<PathBuf>,
    /// Measures nothing but what is guarded, and compares it with the file instead of writing.
    #[arg(long)]
    check: bool,
}

const FILE: &str = "instructions.tsv";
/// A server draws the seed of its hash tables, and with it how many keys share a bucket. With so many keys, of which few do,
/// that is nearly the same each time: a table of theirs has just doubled.
const KEYS: u64 = 1_100;
/// How far a command may be above its kept figure.
const TOLERANCE: f64 = 0.03;
/// How far the server's own command may be off on a machine that is to be compared: its processor and C library count, too.
const YARDSTICK_TOLERANCE: f64 = 0.02;
const WITH_AOF: &str = "with AOF: ";
const HEARD: &str = "with AOF, up to the propagation: RL.TOKENBUCKET granted";
/// What the server does, whatever the command, with what is to be propagated: it is queued, then written, and flushed.
const PROPAGATION: [&str; 3] = ["alsoPropagate", "propagatePendingCommands", "flushAppendOnlyFile"];
/// How many entries an ordinary log has at first.
const LOG_ENTRIES: u64 = 10;
const LONG_LOG: &str = "RL.SLIDINGLOG granted, 100,000 entries";
/// The call that such a log is filled by, in real time: under valgrind no two come in one microsecond.
const LONG_CALL: &str = "RL.SLIDINGLOG key:__rand_int__ 10000000 1h";
/// Denials of so few keys that RL.TOP counts each of them, and of more: then every denial takes another's place.
const FEW_DENIED: &str = "RL.TOKENBUCKET denied, one of 100 keys";
const FEW_LEASES: &str = "RL.ACQUIRE and RL.RELEASE, 10 leases";
const MANY_LEASES: &str = "RL.ACQUIRE and RL.RELEASE, 10,000 leases";
/// What `--check` counts: first what is not ours, to tell whether this machine counts as that of the file did.
const GUARDED: [&str; 11] = [
    SET_EX.name,
    "RL.TOKENBUCKET granted",
    TOKENBUCKET_DENIED.name,
    FEW_DENIED,
    "RL.LEAKYBUCKET granted",
    "RL.FIXEDWINDOW granted",
    "RL.SLIDING granted",
    "RL.SLIDINGLOG granted",
    "RL.MULTI of 3 granted",
    FEW_LEASES,
    MANY_LEASES,
];

/// Instructions by command, in the order of the tables.
type Counts = Vec<(String, f64)>;

pub fn run(options: &Options, out: &Path) -> Result<()> {
    let build = Build::under_test()?;
    if options.check {
        return check(options, &build, out);
    }
    callgrind::require()?;
    if let Some(cell) = &options.cell {
        ensure!(cell.is_file(), "CELL is {}, which is no file", cell.display());
    }
    println!("{}", build.exact);
    let counts = count(cases(options, &build.name)?, options)?;
    let mut kept = Kept::read(out)?;
    let row = |name: &str, count: f64| [name.to_owned(), grouped(count)];
    let mut rows: Vec<_> = counts.iter().map(|(name, count)| row(name, *count)).collect();
    // redis-cell's figure stays if it is not measured anew.
    let cell = kept.find(&build, REDIS_CELL.name).filter(|_| options.cell.is_none());
    rows.extend(cell.map(|(_, count)| row(REDIS_CELL.name, *count)));
    let measured = table(["command", "instructions"], rows);
    let promised = render(&promises(&build.name, &counts));
    println!("{measured}\n\n{promised}");
    if options.only.is_none() {
        kept.forget(&build, options.cell.is_none());
        let body = format!("{}; {}.\n\n{measured}\n\n{promised}", circumstances(), build.exact);
        println!("{}", page::put(out, page::INSTRUCTIONS, &build.name, &body)?.display());
    }
    kept.put(&build, &counts);
    println!("{}", kept.write(out)?.display());
    Ok(())
}

/// Every command that is counted.
fn cases(options: &Options, product: &str) -> Result<Vec<Case>> {
    let case = |name: &str, workload: Workload, server: Builder| Case {
        name: name.into(),
        workload,
        server,
        keys: KEYS,
        times: if workload.name == SLIDINGLOG_GRANTED.name { LOG_ENTRIES } else { 1 },
        without: &[],
    };
    let plain = Server::builder();
    let append_only = plain.clone().setting("appendonly yes").setting("appendfsync no");
    let mut cases: Vec<_> = workload::ALL
        .iter()
        .map(|&workload| case(workload.name, workload, plain.clone()))
        .collect();
    let long_log = Workload { call: LONG_CALL, prepare: LONG_CALL, ..SLIDINGLOG_GRANTED };
    let server = plain.clone().setting("rl.max-log-entries 10000000");
    cases.push(Case { keys: 1, times: 100_000, ..case(LONG_LOG, long_log, server) });
    cases.push(Case { keys: 100, ..case(FEW_DENIED, TOKENBUCKET_DENIED, plain.clone()) });
    for (name, leases) in [(FEW_LEASES, 10), (MANY_LEASES, 10_000)] {
        cases.push(Case { keys: leases, ..case(name, SLOT_PAIR, plain.clone()) });
    }
    // Elsewhere these functions have other names, or none.
    if product.starts_with("Redis 7.0.") {
        let heard = case(HEARD, TOKENBUCKET_GRANTED, append_only.clone());
        cases.push(Case { without: &PROPAGATION, ..heard });
    }
    for workload in [SET_EX, TOKENBUCKET_GRANTED, SLIDING_GRANTED] {
        cases.push(case(&format!("{WITH_AOF}{}", workload.name), workload, append_only.clone()));
    }
    if let Some(cell) = &options.cell {
        let server = plain.without_module().module_before(cell.canonicalize()?);
        cases.push(case(REDIS_CELL.name, REDIS_CELL, server));
    }
    if let Some(only) = &options.only {
        cases.retain(|case| case.name.contains(only));
        ensure!(!cases.is_empty(), "no command's name contains '{only}'");
    }
    Ok(cases)
}

/// Counts these, some at a time: who is next takes the next.
fn count(cases: Vec<Case>, options: &Options) -> Result<Counts> {
    let progress = ProgressBar::new(cases.len() as u64)
        .with_style(ProgressStyle::with_template("{bar:40} {pos}/{len} {msg} {eta}")?);
    let waiting = Mutex::new(cases.into_iter().enumerate());
    let work = || -> Result<Vec<(usize, String, f64)>> {
        let mut counted = Vec::new();
        while let Some((position, case)) = next(&waiting) {
            progress.set_message(case.name.clone());
            counted.push((position, case.name.clone(), case.count(options.calls)?));
            progress.inc(1);
        }
        Ok(counted)
    };
    let counted: Result<Vec<_>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..options.jobs).map(|_| scope.spawn(work)).collect();
        let results = workers.into_iter().map(|worker| match worker.join() {
            Ok(result) => result,
            Err(_) => bail!("a worker panicked"),
        });
        results.collect()
    });
    progress.finish_and_clear();
    let mut counted = counted?.concat();
    counted.sort_by_key(|&(position, ..)| position);
    Ok(counted.into_iter().map(|(_, name, count)| (name, count)).collect())
}

fn next<T>(waiting: &Mutex<impl Iterator<Item = T>>) -> Option<T> {
    waiting.lock().ok()?.next()
}

fn find(counts: &Counts, name: &str) -> f64 {
    counts.iter().find(|(known, _)| known == name).map_or(f64::NAN, |&(_, count)| count)
}

fn promises(server: &str, counts: &Counts) -> Vec<Promise> {
    let of = |name: &str| find(counts, name);
    let grant = of("RL.TOKENBUCKET granted");
    let denials = counts.iter().filter(|(name, _)| name.ends_with(" denied"));
    let dearest_denial = denials.map(|&(_, count)| count).fold(f64::NAN, f64::max);
    let ratio: ByServer<(f64, f64)> = on_redis_7((1.15, 1.0));
    let promised = [
        ("RL.TOKENBUCKET granted", on_redis_7((8_700.0, 8_000.0)), "", grant),
        (
            "the same with AOF, up to the propagation itself",
            on_redis_7((11_000.0, 10_200.0)),
            "",
            of(HEARD),
        ),
        (
            "RL.ACQUIRE and RL.RELEASE, of RL.TOKENBUCKET",
            on_redis_7((2.5, 2.2)),
            "x",
            of(FEW_LEASES) / grant,
        ),
        (
            "the same with 10,000 leases, of 10",
            on_redis_7((1.5, 1.2)),
            "x",
            of(MANY_LEASES) / of(FEW_LEASES),
        ),
        ("RL.SLIDING granted, of RL.TOKENBUCKET", ratio, "x", of("RL.SLIDING granted") / grant),
        (
            "RL.FIXEDWINDOW granted, of RL.TOKENBUCKET",
            ratio,
            "x",
            of("RL.FIXEDWINDOW granted") / grant,
        ),
        (
            "RL.LEAKYBUCKET granted, of RL.TOKENBUCKET",
            ratio,
            "x",
            of("RL.LEAKYBUCKET granted") / grant,
        ),
        (
            "RL.SLIDINGLOG granted with 100,000 entries, of RL.TOKENBUCKET",
            on_redis_7((1.3, 1.1)),
            "x",
            of(LONG_LOG) / grant,
        ),
        ("the dearest denial", on_redis_7((6_700.0, 6_200.0)), "", dearest_denial),
    ];
    let promises = promised.into_iter().filter_map(|(what, promised, unit, measured)| {
        let (least, aim) = for_server(server, promised)?;
        let what = what.to_owned();
        Some(Promise { what, least, aim, good: Good::Lower, unit, measured })
    });
    promises.filter(|promise| promise.measured.is_finite()).collect()
}

/// The file docs/instructions.tsv: the figures of each build of a server, with the compiler that the module was built by.
#[derive(Default)]
struct Kept {
    /// By server and command.
    rows: BTreeMap<(String, String), (String, f64)>,
}

impl Kept {
    const HEAD: &str = "\
# Instructions of one command, as callgrind counts the server. make bench-instructions writes a server's rows,
# and make check-instructions compares with those of the very server that it runs.
server\tcommand\tinstructions\tcompiler
";

    /// What is in this folder: nothing where there is no file.
    fn read(folder: &Path) -> Result<Self> {
        let file = folder.join(FILE);
        if !file.exists() {
            return Ok(Self::default());
        }
        let text =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let rows = text.lines().filter(|line| !line.starts_with('#')).skip(1).map(|line| {
            let parsed = match line.split('\t').collect::<Vec<_>>()[..] {
                [server, command, count, compiler] => count.parse().ok().map(|count| {
                    ((server.to_owned(), command.to_owned()), (compiler.to_owned(), count))
                }),
                _ => None,
            };
            parsed.with_context(|| format!("{} has a line that is none: {line}", file.display()))
        });
        Ok(Self { rows: rows.collect::<Result<_>>()? })
    }

    fn write(&self, folder: &Path) -> Result<PathBuf> {
        let file = folder.join(FILE);
        let rows = self.rows.iter().map(|((server, command), (compiler, count))| {
            format!("{server}\t{command}\t{count:.0}\t{compiler}\n")
        });
        let text = Self::HEAD.to_owned() + &rows.collect::<String>();
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&file, text))
            .with_context(|| format!("cannot write {}", file.display()))?;
        Ok(file)
    }

    /// Forgets the figures of a build, but for redis-cell's if they are not measured.
    fn forget(&mut self, build: &Build, but_for_cell: bool) {
        self.rows.retain(|(server, name), _| {
            *server != build.exact || but_for_cell && *name == REDIS_CELL.name
        });
    }

    fn put(&mut self, build: &Build, counts: &Counts) {
        let compiler = rustc();
        for (name, count) in counts {
            self.rows.insert((build.exact.clone(), name.clone()), (compiler.clone(), *count));
        }
    }

    fn find(&self, build: &Build, name: &str) -> Option<&(String, f64)> {
        self.rows.get(&(build.exact.clone(), name.into()))
    }
}

/// Counts again what seems to have risen, and takes the least of three counts: some servers draw a seed of their hash tables
/// with which a command takes some per cent more.
fn count_risen_again(
    counts: &mut Counts,
    kept: &Kept,
    build: &Build,
    options: &Options,
) -> Result<()> {
    for _ in 0..2 {
        let has_risen = |name: &str, count: f64| {
            kept.find(build, name).is_some_and(|(_, before)| count / before - 1.0 > TOLERANCE)
        };
        let mut again = cases(options, &build.name)?;
        again.retain(|case| has_risen(&case.name, find(counts, &case.name)));
        for (name, count) in count(again, options)? {
            if let Some((_, least)) = counts.iter_mut().find(|(known, _)| *known == name) {
                *least = least.min(count);
            }
        }
    }
    Ok(())
}

/// Compares what is guarded with what is kept.
fn check(options: &Options, build: &Build, out: &Path) -> Result<()> {
    let kept = Kept::read(out)?;
    let mut cases = cases(options, &build.name)?;
    cases.retain(|case| {
        GUARDED.contains(&case.name.as_str()) && kept.find(build, &case.name).is_some()
    });
    if cases.is_empty() {
        println!("skipped: {FILE} has no instruction counts for {}", build.exact);
        return Ok(());
    }
    if callgrind::require().is_err() {
        println!("skipped: there is no valgrind to count instructions with");
        return Ok(());
    }
    let mut counts = count(cases, options)?;
    count_risen_again(&mut counts, &kept, build, options)?;
    if let Some((_, before)) = kept.find(build, SET_EX.name)
        && let Some(count) =
            counts.iter().find(|(name, _)| name == SET_EX.name).map(|found| found.1)
        && (count / before - 1.0).abs() > YARDSTICK_TOLERANCE
    {
        let (count, before) = (grouped(count), grouped(*before));
        println!(
            "skipped: this machine counts otherwise, or is too busy: {count} for {}, not {before}",
            SET_EX.name
        );
        return Ok(());
    }
    let mut risen = Vec::new();
    let mut fallen = false;
    let rows: Vec<_> = counts
        .into_iter()
        .filter_map(|(name, count)| {
            let (compiler, before) = kept.find(build, &name)?;
            let change = count / before - 1.0;
            fallen |= change < -TOLERANCE;
            // Another compiler makes other code of the module: that alone is no fault.
            if change > TOLERANCE && *compiler == rustc() {
                risen.push(format!("{name} ({:+.1} %, kept by {compiler})", change * 100.0));
            }
            Some([name, grouped(*before), grouped(count), format!("{:+.1} %", change * 100.0)])
        })
        .collect();
    println!("{}\n\n{}", build.exact, table(["command", "kept", "now", "change"], rows));
    if fallen {
        println!(
            "\nSome are more than 3 % below what is kept: renew it by  make bench-instructions"
        );
    }
    ensure!(
        risen.is_empty(),
        "more than 3 % more instructions than in {FILE}: {}; this is {}",
        risen.join(", "),
        rustc()
    );
    Ok(())
}
