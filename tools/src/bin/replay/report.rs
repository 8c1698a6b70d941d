//! What a limit did, as rows and a table.

use std::io::Write;

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};

use crate::log::Traffic;

/// What a client asked for, and was denied.
#[derive(Clone, Copy, Default)]
pub struct Count {
    requests: u64,
    denied: u64,
}

impl Count {
    pub fn add(&mut self, granted: bool) {
        self.requests += 1;
        self.denied += u64::from(!granted);
    }
}

/// What is in a log.
pub fn traffic(out: &mut impl Write, traffic: &Traffic) -> Result<()> {
    row(out, "requests", &traffic.requests.len().to_string())?;
    row(out, "clients", &traffic.clients().to_string())?;
    rows_of_log(out, traffic)
}

/// What a limit did to it.
pub struct Outcome<'a> {
    pub limit: &'a str,
    /// Of each client.
    pub counts: &'a [Count],
    /// How many blocks began, and how many requests were denied by one.
    pub blocks: Option<[u64; 2]>,
}

pub fn replay(
    out: &mut impl Write,
    traffic: &Traffic,
    &Outcome { limit, counts, blocks }: &Outcome<'_>,
    top: usize,
) -> Result<()> {
    let requests = traffic.requests.len() as u64;
    let denied: u64 = counts.iter().map(|count| count.denied).sum();
    let affected = counts.iter().filter(|count| count.denied > 0).count();
    row(out, "limit", limit)?;
    row(out, "requests", &requests.to_string())?;
    row(out, "granted", &share(requests - denied, requests))?;
    row(out, "denied", &share(denied, requests))?;
    if let Some([begun, denied]) = blocks {
        row(out, "denied by a block", &share(denied, requests))?;
        row(out, "blocks begun", &begun.to_string())?;
    }
    row(out, "clients", &counts.len().to_string())?;
    row(out, "clients affected", &share(affected as u64, counts.len() as u64))?;
    rows_of_log(out, traffic)?;
    if affected > 0 && top > 0 {
        writeln!(out, "\n{}", most_denied(traffic, counts, top))?;
    }
    Ok(())
}

fn rows_of_log(out: &mut impl Write, traffic: &Traffic) -> Result<()> {
    row(out, "time", &time_span(traffic))?;
    row(out, "steps backwards", &traffic.steps_back.to_string())?;
    row(out, "lines not read", &traffic.unreadable.to_string())
}

fn row(out: &mut impl Write, name: &str, value: &str) -> Result<()> {
    Ok(writeln!(out, "{name:<17} {value}")?)
}

fn most_denied(traffic: &Traffic, counts: &[Count], top: usize) -> Table {
    let mut clients: Vec<_> =
        (0..).zip(counts).map(|(number, count)| (traffic.client(number), count)).collect();
    clients.retain(|(_, count)| count.denied > 0);
    clients.sort_by_key(|&(client, count)| (u64::MAX - count.denied, client));
    let rows = clients.into_iter().take(top).map(|(client, count)| {
        let granted = count.requests - count.denied;
        let denied = share(count.denied, count.requests);
        [client.to_owned(), count.requests.to_string(), granted.to_string(), denied]
    });
    table(["most denied", "requests", "granted", "denied"], rows)
}

/// A table of Markdown, its numbers to the right.
pub fn table<const N: usize>(header: [&str; N], rows: impl Iterator<Item = [String; N]>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(header);
    table.add_rows(rows);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// A number, and which part of all it is.
pub fn share(part: u64, all: u64) -> String {
    let per_mille = (part * 1_000 + all / 2).checked_div(all).unwrap_or_default();
    format!("{part} ({}.{} %)", per_mille / 10, per_mille % 10)
}

fn time_span(traffic: &Traffic) -> String {
    let (first, last) = traffic.span();
    let seconds = last - first;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    format!("{days} d {hours} h {minutes} min {} s", seconds % 60)
}
