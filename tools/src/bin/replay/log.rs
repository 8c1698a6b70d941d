//! The log: lines, plain or gzip, to the requests that they name.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, stdin};

use access_log_parser::{LogEntry, LogType};
use anyhow::{Context, Result, bail};
use flate2::bufread::MultiGzDecoder;
use indexmap::IndexSet;

/// The end of the year 2100, in seconds since 1970. A date behind it is a mistake; with none, a moved log ends well
/// before the year 2255, where the server's times do.
const LATEST: u32 = 4_133_980_800;

/// A request of a log.
#[derive(Clone, Copy)]
pub struct Request {
    /// Seconds since 1970, as they stand in the log.
    pub time: u32,
    /// The client's number.
    pub client: u32,
}

/// The requests of a log.
#[derive(Default)]
pub struct Traffic {
    pub requests: Vec<Request>,
    /// The clients' addresses.
    clients: IndexSet<String>,
    /// How far ahead of UTC the first line's clock is, in seconds.
    pub zone: i32,
    pub unreadable: u64,
    pub steps_back: u64,
}

impl Traffic {
    /// Reads a log, and sorts its requests by time.
    pub fn of(name: &str) -> Result<Self> {
        let mut traffic = Self::default();
        traffic.read(open(name)?).with_context(|| format!("cannot read {name}"))?;
        if traffic.requests.is_empty() {
            bail!("{name} has no requests ({} lines cannot be read)", traffic.unreadable);
        }
        traffic.requests.sort_by_key(|request| request.time);
        Ok(traffic)
    }

    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    pub fn client(&self, number: u32) -> &str {
        self.clients.get_index(number as usize).map_or("", String::as_str)
    }

    /// The times of the first and of the last request.
    pub fn span(&self) -> (u32, u32) {
        let times = self.requests.iter().map(|request| request.time);
        let ends = times.clone().min().zip(times.max());
        ends.unwrap_or_default()
    }

    fn read(&mut self, mut log: impl BufRead) -> io::Result<()> {
        let mut line = Vec::new();
        let mut latest = 0;
        while log.read_until(b'\n', &mut line)? > 0 {
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end();
            match parse(text) {
                Some((time, zone, client)) => {
                    if self.requests.is_empty() {
                        self.zone = zone;
                    }
                    self.steps_back += u64::from(time < latest);
                    latest = time;
                    let client = self.number(client);
                    self.requests.push(Request { time, client });
                }
                None => self.unreadable += u64::from(!text.is_empty()),
            }
            line.clear();
        }
        Ok(())
    }

    fn number(&mut self, client: &str) -> u32 {
        let known = self.clients.get_index_of(client);
        let index = known.unwrap_or_else(|| self.clients.insert_full(client.to_owned()).0);
        u32::try_from(index).unwrap_or(u32::MAX)
    }
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

/// The time (seconds since 1970), how far ahead of UTC its clock is, and the client of a line. The common format is the
/// beginning of the combined one.
fn parse(line: &str) -> Option<(u32, i32, &str)> {
    let (client, rest) = line.split_once(' ')?;
    // The parser knows addresses alone, but a log may have hosts' names in their place.
    let line = format!("0.0.0.0 {rest}");
    let Ok(LogEntry::CommonLog(entry)) = access_log_parser::parse(LogType::CommonLog, &line) else {
        return None;
    };
    let time = u32::try_from(entry.timestamp.timestamp()).ok()?;
    (time < LATEST).then_some((time, entry.timestamp.offset().local_minus_utc(), client))
}
