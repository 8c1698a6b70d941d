//! What the rounds say, in the page and on the screen.

use std::fmt::{self, Display};
use std::time::Duration;

use anyhow::Result;

use crate::Options;
use crate::load::Rate;
use crate::machine::{Build, Pinning, circumstances};
use crate::pace::Latencies;
use crate::page::{self, grouped, table};
use crate::promises::{Good, Promise, render};

/// The decisions a second that are promised.
pub const DECISIONS: f64 = 30_000.0;

/// All that is measured once in a round.
pub struct Round {
    pub one: Rate,
    pub three: Rate,
    pub denied: Rate,
    pub direct: Latencies,
    pub through: Latencies,
}

impl Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [one, three, denied] =
            [&self.one, &self.three, &self.denied].map(|rate| grouped(rate.rate()));
        write!(
            f,
            "{one} decisions a second, {three} of three limits, {denied} denials from memory; {:.3} ms added at the 99th percentile",
            self.added(99)
        )
    }
}

impl Round {
    /// Milliseconds that the gateway adds at a percentile.
    fn added(&self, percent: usize) -> f64 {
        millis(self.through.percentile(percent)) - millis(self.direct.percentile(percent))
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

pub struct Results {
    pub rounds: Vec<Round>,
    pub build: Build,
    pub pinning: Pinning,
}

impl Results {
    fn median(&self, of: impl Fn(&Round) -> f64) -> f64 {
        let mut values: Vec<f64> = self.rounds.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    }

    fn rates(&self) -> String {
        let row = |what: &str, of: fn(&Round) -> &Rate| {
            let busy = self.median(|round| {
                of(round).busy.as_secs_f64() / of(round).time.as_secs_f64() * 100.0
            });
            [
                what.to_owned(),
                grouped(self.median(|round| of(round).rate())),
                grouped(self.median(|round| of(round).of_processor())),
                format!("{busy:.0} %"),
            ]
        };
        let rows = [
            row("one limit", |round| &round.one),
            row("three limits, one RL.MULTI", |round| &round.three),
            row("a denial from memory", |round| &round.denied),
        ];
        table(
            [
                "request",
                "a second",
                "a second of the gateway's processor",
                "its processor was busy",
            ],
            rows,
        )
    }

    fn latencies(&self) -> String {
        let row = |what: &str, of: fn(&Round) -> &Latencies| {
            let percentile = |percent| {
                format!("{:.3} ms", self.median(|round| millis(of(round).percentile(percent))))
            };
            [what.to_owned(), percentile(50), percentile(99)]
        };
        let added = |percent| format!("{:.3} ms", self.median(|round| round.added(percent)));
        let rows = [
            row("the server itself", |round| &round.direct),
            row("the gateway, which asks it", |round| &round.through),
            ["added".into(), added(50), added(99)],
        ];
        table(["asked", "p50", "p99"], rows)
    }

    fn promises(&self) -> String {
        let higher = |what: &str, least, aim, measured| Promise {
            what: what.into(),
            least,
            aim,
            good: Good::Higher,
            unit: "",
            measured,
        };
        render(&[
            higher(
                "decisions a second on one core, the server asked for each",
                DECISIONS,
                60_000.0,
                self.median(|round| round.one.rate()),
            ),
            higher(
                "denials from memory a second",
                100_000.0,
                100_000.0,
                self.median(|round| round.denied.rate()),
            ),
            Promise {
                what: "p99 added, at half of these decisions".into(),
                least: 1000.0,
                aim: 1000.0,
                good: Good::Lower,
                unit: "µs",
                measured: self.median(|round| round.added(99)) * 1000.0,
            },
        ])
    }

    pub fn report(&self, options: &Options) -> Result<()> {
        let (rates, latencies, promises) = (self.rates(), self.latencies(), self.promises());
        println!("{rates}\n\n{latencies}\n\n{promises}");
        let body = format!(
            "{}; {}. Rounds: {}, each measurement {} s; {} connections with {} requests under way on each, {} users. \
             Latencies at {} requests a second.\n\n{rates}\n\n{latencies}\n\n{promises}",
            circumstances(),
            self.pinning.line,
            self.rounds.len(),
            options.seconds,
            options.connections,
            options.streams,
            grouped(options.users as f64),
            grouped(DECISIONS / 2.0),
        );
        println!("{}", page::put(&options.out, page::GATEWAY, &self.build.name, &body)?.display());
        Ok(())
    }
}
