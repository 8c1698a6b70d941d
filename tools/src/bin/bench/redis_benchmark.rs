//! redis-benchmark, and what it says.

use std::io::ErrorKind;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// One of its runs.
pub struct Run<'a> {
    pub port: u16,
    pub words: &'a [String],
    pub keys: u64,
    pub requests: u64,
    pub pipeline: u64,
}

/// What it measured.
#[derive(Clone, Copy)]
pub struct Report {
    pub requests_per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

const PROGRAM: &str = "redis-benchmark";
const CLIENTS: u64 = 50;

/// Fails where it is missing, before anything is measured.
pub fn require() -> Result<()> {
    let mut program = Command::new(PROGRAM);
    match program.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("there is no {PROGRAM}: run  scripts/setup bench")
        }
        _ => Ok(()),
    }
}

impl Run<'_> {
    pub fn measure(&self) -> Result<Report> {
        let output = Command::new(PROGRAM)
            .args(["-h", "127.0.0.1", "--csv", "-p", &self.port.to_string()])
            .args(["-c", &CLIENTS.to_string(), "-n", &self.requests.to_string()])
            .args(["-P", &self.pipeline.to_string(), "-r", &self.keys.to_string()])
            .args(self.words)
            .output()
            .with_context(|| format!("{PROGRAM} does not run"))?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{PROGRAM} {}: {}", self.words.join(" "), error.trim());
        let text = String::from_utf8_lossy(&output.stdout);
        parse(&text).with_context(|| format!("{PROGRAM} says something new: {}", text.trim()))
    }
}

/// Finds the columns by their names. The first column is the command, which may hold commas and quotes: so columns are
/// counted from the end.
fn parse(csv: &str) -> Option<Report> {
    let mut lines = csv.lines().rev();
    let values: Vec<_> = lines.next()?.rsplit(',').collect();
    let names: Vec<_> = lines.next_back()?.rsplit(',').collect();
    let value = |name: &str| {
        let column = names.iter().position(|column| column.trim_matches('"') == name)?;
        values.get(column)?.trim_matches('"').parse().ok()
    };
    Some(Report {
        requests_per_second: value("rps")?,
        p50_ms: value("p50_latency_ms")?,
        p99_ms: value("p99_latency_ms")?,
    })
}
