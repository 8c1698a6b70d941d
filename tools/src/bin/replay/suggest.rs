//! Which limit would affect few clients? What each client really did, in the fullest window of this length:
//!
//! ```text
//!   requests    o   ooo  o    o  oo o o      o           the most in any |<- window ->| is 5:
//!                                |<- window ->|          a limit of 5 would not have affected this client, 4 would
//! ```
//!
//! A limit affects exactly those clients that did more than it: up to the first denial everything is granted. So the smallest
//! limit that affects at most a share of clients is a percentile of what they did at most.
//!
//! RL.SLIDING merges hits of less than window/n, and counts them as if all came with the last. So a client reaches a little more
//! there than it really did, and the limits suggested for it are made of that. This file's [`Run`] is what is needed of the
//! module's sliding_window.rs; the tests compare the two. Each client's requests pass it once for a question: O(requests).

use std::collections::VecDeque;
use std::io::Write;

use anyhow::Result;

use crate::limiter::Window;
use crate::log::{Request, Traffic};
use crate::report::{share, table};

/// The percentiles that are listed, in thousandths of the clients.
const PERCENTILES: [usize; 7] = [500, 750, 900, 950, 990, 999, 1_000];
/// How many clients the suggested limits affect at most, in thousandths.
const AFFECTED: [usize; 3] = [1, 10, 50];

/// One client's requests through a sliding window.
#[derive(Default)]
struct Run {
    /// When the hits of an entry count as if they came, and how many they are.
    entries: VecDeque<(u64, u64)>,
    /// When the newest entry's first hit was.
    first: u64,
    used: u64,
    most: u64,
    denied: u64,
}

impl Run {
    /// Without `buckets` every hit expires exactly on time.
    fn of(requests: &[Request], window: u64, buckets: Option<u64>, limit: u64) -> Self {
        let mut run = Self::default();
        for request in requests {
            run.pass(u64::from(request.time) * 1_000_000, window, buckets, limit);
        }
        run
    }

    fn pass(&mut self, now: u64, window: u64, buckets: Option<u64>, limit: u64) {
        while let Some(&(time, hits)) = self.entries.front()
            && time + window <= now
        {
            self.used -= hits;
            self.entries.pop_front();
        }
        if self.used >= limit {
            self.denied += 1;
            return;
        }
        self.used += 1;
        self.most = self.most.max(self.used);
        let is_within_bucket = buckets.is_some_and(|n| (now - self.first) * n < window);
        match self.entries.back_mut() {
            Some((time, hits)) if *time == now || is_within_bucket => {
                (*time, *hits) = (now, *hits + 1);
            }
            _ => {
                self.entries.push_back((now, 1));
                self.first = now;
            }
        }
    }
}

/// Prints what clients did, and the limits that follow. Sorts the requests by client.
pub fn suggest(out: &mut impl Write, traffic: &mut Traffic, window: &Window<'_>) -> Result<()> {
    traffic.requests.sort_unstable_by_key(|request| (request.client, request.time));
    let most = |buckets| {
        let runs = clients(traffic).map(|all| Run::of(all, window.micros, buckets, u64::MAX).most);
        let mut most: Vec<_> = runs.collect();
        most.sort_unstable();
        most
    };
    let really = most(None);
    let rows = PERCENTILES.map(|per_mille| {
        let requests = percentile(&really, per_mille).to_string();
        [format!("{} %", percent(per_mille)), requests]
    });
    let requests = format!("requests in any {}, at most", window.text);
    writeln!(out, "\n{}", table(["share of clients", &requests], rows.into_iter()))?;

    let reached = most(Some(window.buckets));
    let rows = AFFECTED.map(|per_mille| {
        let limit = percentile(&reached, 1_000 - per_mille);
        let denials = clients(traffic)
            .map(|all| Run::of(all, window.micros, Some(window.buckets), limit).denied);
        let (mut affected, mut denied) = (0, 0);
        for denials in denials {
            affected += u64::from(denials > 0);
            denied += denials;
        }
        [
            format!("{} % of clients", percent(per_mille)),
            format!("RL.SLIDING key {limit} {}", window.text),
            share(affected, traffic.clients() as u64),
            share(denied, traffic.requests.len() as u64),
        ]
    });
    let header = ["affects at most", "limit", "clients affected", "requests denied"];
    writeln!(out, "\n{}", table(header, rows.into_iter()))?;
    Ok(())
}

/// The requests of each client.
fn clients(traffic: &Traffic) -> impl Iterator<Item = &[Request]> {
    traffic.requests.chunk_by(|one, next| one.client == next.client)
}

/// The smallest value that at least so many thousandths of the values do not exceed.
fn percentile(sorted: &[u64], per_mille: usize) -> u64 {
    let rank = (sorted.len() * per_mille).div_ceil(1_000);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// Thousandths as percent, with a decimal if it is needed.
fn percent(per_mille: usize) -> String {
    match (per_mille / 10, per_mille % 10) {
        (whole, 0) => whole.to_string(),
        (whole, tenth) => format!("{whole}.{tenth}"),
    }
}
