//! What would this limit have done to my traffic? Replays an access log against a real server with the module.
//!
//! ```text
//! log -> lines -> (time, client) sorted by time -> moved to the future by whole weeks -> RL.… client … AT time
//! ```
//!
//! Every request is sent at its own time, on a virtual clock, keyed by its client's address. Real logs step backwards, since a
//! line is written when its request ends: so they are sorted, stably. They are moved by whole weeks, which keeps days and hours as
//! they are, since the server expires keys by its own clock: no moment may lie in its past.
//!
//! In memory a request is 12 bytes, and a client one string.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write, stdin, stdout};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use access_log_parser::{LogEntry, LogType};
use anyhow::{Context, Result, bail};
use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use flate2::bufread::MultiGzDecoder;
use indicatif::{ProgressBar, ProgressStyle};
use redis::{Connection, Value};

#[path = "../../../tests/server.rs"]
mod server;

use server::Server;

const WEEK: u64 = 7 * 24 * 60 * 60;
/// The end of the year 2100, in seconds since 1970. A date behind it is a mistake; with none, a moved log ends well
/// before the year 2255, where the server's times do.
const LATEST: u64 = 4_133_980_800;
/// How far in the future the first request must lie: longer than a replay takes.
const MARGIN: u64 = 60 * 60;
/// How many requests are sent before their answers are read.
const BATCH: usize = 1_000;

/// What would this limit have done to my traffic?
#[derive(Parser)]
struct Options {
    /// The limit, as a command has it behind the key: 'SLIDING 60 1m'. Several, separated by ';', are decided together.
    #[arg(long)]
    limit: String,
    /// How many of the most denied clients to list.
    #[arg(long, default_value_t = 10)]
    top: usize,
    /// An access log in common or combined format, plain or gzip; '-' is standard input.
    log: String,
}

/// The requests of a log.
#[derive(Default)]
struct Traffic {
    /// Seconds since 1970 and the client's number, as they stand in the log.
    requests: Vec<(u64, u32)>,
    /// The clients' addresses.
    clients: Vec<String>,
    numbers: HashMap<String, u32>,
    unreadable: u64,
    steps_back: u64,
}

/// What a client asked for, and was denied.
#[derive(Clone, Copy, Default)]
struct Count {
    requests: u64,
    denied: u64,
}

fn main() -> ExitCode {
    match replay(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads the output has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "replay: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io_error = error.downcast_ref::<io::Error>();
    io_error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn replay(options: &Options) -> Result<()> {
    let limits: Vec<_> = options.limit.split(';').map(str::trim).collect();
    refuse_leases(&limits)?;
    let builder = Server::builder().virtual_clock().setting("rl.max-log-entries 10000000");
    let server = builder.start()?;
    let mut connection = server.connection()?;
    check(&mut connection, &limits)?;

    let mut traffic = Traffic::default();
    traffic.read(open(&options.log)?).with_context(|| format!("cannot read {}", options.log))?;
    if traffic.requests.is_empty() {
        bail!("{} has no requests ({} lines cannot be read)", options.log, traffic.unreadable);
    }
    traffic.requests.sort_by_key(|&(time, _)| time);
    let counts = send(&mut connection, &limits, &traffic)?;
    report(&traffic, &counts, options)
}

/// The command that decides on one request: the server reads the limits, as it does for everybody.
fn command(limits: &[&str], client: &str, micros: u64) -> redis::Cmd {
    let mut command = redis::cmd("RL.MULTI");
    command.arg(limits.len());
    for number in 0..limits.len() {
        command.arg(format!("{{{client}}}:{number}"));
    }
    for word in limits.iter().flat_map(|limit| limit.split_whitespace()) {
        command.arg(word);
    }
    command.arg("AT").arg(micros);
    command
}

/// A lease lasts as long as its request, and a log does not say how long that was.
fn refuse_leases(limits: &[&str]) -> Result<()> {
    let is_leases = |limit: &&&str| limit.to_ascii_uppercase().starts_with("CONCURRENCY");
    if let Some(limit) = limits.iter().find(is_leases) {
        bail!(
            "'{limit}' cannot be replayed: a lease needs the duration of each request, and an access \
             log has none"
        );
    }
    Ok(())
}

/// Asks the server whether these are limits, before a long log is read.
fn check(connection: &mut Connection, limits: &[&str]) -> Result<()> {
    let probe = command(limits, "probe", (now()? + MARGIN) * 1_000_000);
    match probe.query::<Value>(connection) {
        Ok(Value::Array(_)) => {}
        Ok(_) => bail!("'{}' is no limit", limits.join("; ")),
        Err(error) => {
            let text = error.detail().unwrap_or("the server does not answer").to_owned();
            bail!("'{}' is no limit: {text}", limits.join("; "))
        }
    }
    Ok(redis::cmd("FLUSHALL").query(connection)?)
}

fn now() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}

/// Opens a log, plain or gzip.
fn open(name: &str) -> Result<Box<dyn BufRead>> {
    let source: Box<dyn Read> = if name == "-" {
        Box::new(stdin())
    } else {
        Box::new(File::open(name).with_context(|| format!("cannot open {name}"))?)
    };
    let mut source = BufReader::with_capacity(1 << 16, source);
    let start = source.fill_buf().with_context(|| format!("cannot read {name}"))?;
    let is_gzip = start.starts_with(&[0x1f, 0x8b]);
    Ok(if is_gzip {
        Box::new(BufReader::new(MultiGzDecoder::new(source)))
    } else {
        Box::new(source)
    })
}

impl Traffic {
    fn read(&mut self, mut log: impl BufRead) -> io::Result<()> {
        let mut line = Vec::new();
        let mut latest = 0;
        while log.read_until(b'\n', &mut line)? > 0 {
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end();
            match parse(text) {
                Some((time, client)) => {
                    self.steps_back += u64::from(time < latest);
                    latest = time;
                    let number = self.number(client);
                    self.requests.push((time, number));
                }
                None => self.unreadable += u64::from(!text.is_empty()),
            }
            line.clear();
        }
        Ok(())
    }

    fn number(&mut self, client: &str) -> u32 {
        if let Some(&number) = self.numbers.get(client) {
            return number;
        }
        let number = u32::try_from(self.clients.len()).unwrap_or(u32::MAX);
        self.clients.push(client.to_owned());
        self.numbers.insert(client.to_owned(), number);
        number
    }
}

/// The time (seconds since 1970) and the client of a line. The common format is the beginning of the combined one.
fn parse(line: &str) -> Option<(u64, &str)> {
    let (client, rest) = line.split_once(' ')?;
    // The parser knows addresses alone, but a log may have hosts' names in their place.
    let line = format!("0.0.0.0 {rest}");
    let Ok(LogEntry::CommonLog(entry)) = access_log_parser::parse(LogType::CommonLog, &line) else {
        return None;
    };
    let time = u64::try_from(entry.timestamp.timestamp()).ok()?;
    (time < LATEST).then_some((time, client))
}

/// Sends all requests, each at its time.
fn send(connection: &mut Connection, limits: &[&str], traffic: &Traffic) -> Result<Vec<Count>> {
    let first = traffic.requests.first().map_or(0, |&(time, _)| time);
    let weeks = (now()? + MARGIN).saturating_sub(first).div_ceil(WEEK);
    let style = "{wide_bar} {human_pos} of {human_len} requests, {eta} left";
    let progress = ProgressBar::new(traffic.requests.len() as u64) // hidden where there is no terminal
        .with_style(ProgressStyle::with_template(style)?);
    let mut counts = vec![Count::default(); traffic.clients.len()];
    for batch in traffic.requests.chunks(BATCH) {
        let mut pipeline = redis::pipe();
        for &(time, number) in batch {
            let client = traffic.clients.get(number as usize).map_or("", String::as_str);
            pipeline.add_command(command(limits, client, (time + weeks * WEEK) * 1_000_000));
        }
        let replies: Vec<Value> = pipeline.query(connection)?;
        for (&(_, number), reply) in batch.iter().zip(replies) {
            let allowed =
                matches!(&reply, Value::Array(items) if items.first() == Some(&Value::Int(1)));
            if let Some(count) = counts.get_mut(number as usize) {
                count.requests += 1;
                count.denied += u64::from(!allowed);
            }
        }
        progress.inc(batch.len() as u64);
    }
    progress.finish_and_clear();
    Ok(counts)
}

fn report(traffic: &Traffic, counts: &[Count], options: &Options) -> Result<()> {
    let requests = traffic.requests.len() as u64;
    let denied: u64 = counts.iter().map(|count| count.denied).sum();
    let affected = counts.iter().filter(|count| count.denied > 0).count();
    let rows = [
        ("limit", options.limit.clone()),
        ("requests", requests.to_string()),
        ("granted", share(requests - denied, requests)),
        ("denied", share(denied, requests)),
        ("clients", counts.len().to_string()),
        ("clients affected", share(affected as u64, counts.len() as u64)),
        ("time", time_span(traffic)),
        ("steps backwards", traffic.steps_back.to_string()),
        ("lines not read", traffic.unreadable.to_string()),
    ];
    let mut out = stdout().lock();
    for (name, value) in rows {
        writeln!(out, "{name:<17} {value}")?;
    }
    if affected > 0 && options.top > 0 {
        writeln!(out, "\n{}", most_denied(traffic, counts, options.top))?;
    }
    Ok(())
}

fn most_denied(traffic: &Traffic, counts: &[Count], top: usize) -> Table {
    let mut clients: Vec<_> = traffic.clients.iter().zip(counts).collect();
    clients.retain(|(_, count)| count.denied > 0);
    clients.sort_by_key(|&(client, count)| (u64::MAX - count.denied, client));
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["most denied", "requests", "granted", "denied"]);
    for (client, count) in clients.into_iter().take(top) {
        let granted = count.requests - count.denied;
        let denied = share(count.denied, count.requests);
        table.add_row([client.clone(), count.requests.to_string(), granted.to_string(), denied]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// A number, and which part of all it is.
fn share(part: u64, all: u64) -> String {
    let per_mille = (part * 1_000 + all / 2).checked_div(all).unwrap_or_default();
    format!("{part} ({}.{} %)", per_mille / 10, per_mille % 10)
}

fn time_span(traffic: &Traffic) -> String {
    let ends = (traffic.requests.first(), traffic.requests.last());
    let seconds = if let (Some((first, _)), Some((last, _))) = ends { last - first } else { 0 };
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    format!("{days} d {hours} h {minutes} min {} s", seconds % 60)
}
