//! What the rounds of `make bench` say: tables, promises, the chart.

use std::path::Path;

use anyhow::Result;

use crate::chart;
use crate::machine::{Build, Pinning, circumstances};
use crate::page::{self, grouped, table};
use crate::promises::{ByServer, Good, Promise, for_server, on_redis_7, render};
use crate::redis_benchmark::Report;
use crate::throughput::{ALONE, APPEND_ONLY, Options, Point, Sample, Unpipelined};
use crate::workload::{self, Origin};

const TOGETHER: &str = "RL.MULTI of 3 granted";
const TOKENBUCKET: &str = "RL.TOKENBUCKET granted";

impl Point {
    fn median(&self, figure: impl Fn(&Sample) -> f64) -> f64 {
        median(self.rounds.iter().map(figure).collect())
    }

    fn requests_per_second(&self) -> f64 {
        self.median(|sample| sample.requests_per_second)
    }

    fn of_set_ex(&self) -> f64 {
        self.median(|sample| sample.of_set_ex)
    }

    fn p99_of_ping(&self) -> f64 {
        self.unpipelined_median(|unpipelined| unpipelined.p99_of_ping)
    }

    fn unpipelined_median(&self, figure: impl Fn(&Unpipelined) -> f64) -> f64 {
        self.median(|sample| sample.unpipelined.as_ref().map_or(f64::NAN, &figure))
    }
}

/// The middle one, or the mean of both.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle =
        figures.get((figures.len().max(1) - 1) / 2..=figures.len() / 2).unwrap_or_default();
    middle.iter().sum::<f64>() / middle.len() as f64
}

/// What all rounds say of one server.
pub struct Results {
    pub points: Vec<Point>,
    pub build: Build,
}

impl Results {
    fn find(&self, name: &str) -> Option<&Point> {
        self.points.iter().find(|point| point.name == name)
    }

    /// How many times the throughput of SET EX.
    fn of_set_ex(&self, name: &str) -> Option<f64> {
        Some(self.find(name)?.of_set_ex())
    }

    /// How many times as many users RL.MULTI decides on as the three calls alone, whose times add up.
    fn multi_ratio(&self, alone: &str) -> Option<f64> {
        let alone = workload::OF_MULTI
            .iter()
            .map(|part| Some(1.0 / self.of_set_ex(&format!("{alone}{}", part.name))?));
        Some(self.of_set_ex(TOGETHER)? * alone.sum::<Option<f64>>()?)
    }

    fn throughput(&self) -> String {
        let rows = self.points.iter().map(|point| {
            [
                point.name.clone(),
                grouped(point.requests_per_second()),
                // Longer pipelines are not to be compared with it.
                if point.name.starts_with(ALONE) {
                    String::new()
                } else {
                    format!("{:.2}x", point.of_set_ex())
                },
                format!("{:.2}", point.median(|sample| sample.processor_us)),
            ]
        });
        table(["command", "requests/s", "of SET EX", "server's us each"], rows)
    }

    fn latency(&self) -> String {
        let rows = self.points.iter().filter(|point| point.unpipelined).map(|point| {
            let median = |of: fn(&Report) -> f64| point.unpipelined_median(|all| of(&all.report));
            [
                point.name.clone(),
                grouped(median(|report| report.requests_per_second)),
                format!("{:.3}", median(|report| report.p50_ms)),
                format!("{:.3}", median(|report| report.p99_ms)),
                format!("{:.2}x", point.p99_of_ping()),
            ]
        });
        table(["command", "requests/s", "p50 ms", "p99 ms", "p99 of PING's"], rows)
    }
}

/// A promise about how many times one is of another: the least, and the aim, for each server.
type Ratio = ByServer<(f64, f64)>;

fn throughput_promises(results: &Results) -> Vec<Promise> {
    let simple: Ratio = on_redis_7((0.85, 1.0));
    let of_set_ex = |name: &str| results.of_set_ex(name);
    let of_lua = |name: &str| Some(of_set_ex(TOKENBUCKET)? / of_set_ex(name)?);
    let multi: Ratio = on_redis_7((1.1, 1.4));
    let promised: [(String, Ratio, Option<f64>); 9] = [
        (
            "RL.TOKENBUCKET granted, of SET EX".into(),
            [Some((1.0, 1.1)), Some((0.80, 0.87)), Some((0.78, 0.85))],
            of_set_ex(TOKENBUCKET),
        ),
        ("RL.LEAKYBUCKET granted, of SET EX".into(), simple, of_set_ex("RL.LEAKYBUCKET granted")),
        ("RL.FIXEDWINDOW granted, of SET EX".into(), simple, of_set_ex("RL.FIXEDWINDOW granted")),
        ("RL.SLIDING granted, of SET EX".into(), simple, of_set_ex("RL.SLIDING granted")),
        ("RL.SLIDINGLOG granted, of SET EX".into(), simple, of_set_ex("RL.SLIDINGLOG granted")),
        (
            "RL.TOKENBUCKET granted, of the Lua token bucket".into(),
            [Some((4.2, 5.0)), Some((3.7, 5.0)), Some((6.0, 6.0))],
            of_lua("Lua token bucket"),
        ),
        (
            "with appendonly yes, of SET EX under the same".into(),
            on_redis_7((0.90, 1.0)),
            of_set_ex(&format!("{APPEND_ONLY}{TOKENBUCKET}")),
        ),
        ("RL.MULTI of 3, of the three alone".into(), multi, results.multi_ratio("")),
        (
            "RL.MULTI of 3, of the three alone in pipelines thrice as long".into(),
            multi,
            results.multi_ratio(ALONE),
        ),
    ];
    let server = &results.build.name;
    let promises = promised.into_iter().filter_map(|(what, promised, measured)| {
        let (least, aim) = for_server(server, promised)?;
        Some(Promise { what, least, aim, good: Good::Higher, unit: "x", measured: measured? })
    });
    promises.collect()
}

/// Holds for every command of the module: so the worst one counts.
fn latency_promises(results: &Results) -> Vec<Promise> {
    let Some((least, aim)) = for_server(&results.build.name, on_redis_7((1.25, 1.1))) else {
        return Vec::new();
    };
    let ours = results.points.iter().filter(|point| {
        point.unpipelined && point.workload.origin == Origin::Module && point.name != TOGETHER
    });
    let ratios = ours.map(|point| (point.p99_of_ping(), &point.name));
    let worst = ratios.max_by(|(one, _), (other, _)| one.total_cmp(other));
    let promise = worst.map(|(measured, name)| Promise {
        what: format!("p99 of PING's, the worst command of one limit ({name})"),
        least,
        aim,
        good: Good::Lower,
        unit: "x",
        measured,
    });
    promise.into_iter().collect()
}

pub fn report(results: &Results, options: &Options, pinning: &Pinning, out: &Path) -> Result<()> {
    let throughput = results.throughput();
    let multi = |alone| results.multi_ratio(alone).unwrap_or(f64::NAN);
    let multi = format!(
        "RL.MULTI of 3 decides on {:.2} times as many users as the three calls alone, and {:.2} times as many where their \
         pipelines are thrice as long, so that as many users are in one.",
        multi(""),
        multi(ALONE)
    );
    let promised = render(&throughput_promises(results));
    let latency = results.latency();
    let latency_promised = render(&latency_promises(results));
    println!("{throughput}\n\n{multi}\n\n{promised}\n{latency}\n\n{latency_promised}");

    let rounds = options.rounds;
    let [requests, unpipelined, keys] =
        [options.requests, options.unpipelined, options.keys].map(|count| grouped(count as f64));
    let how = format!("{}; {}", circumstances(), pinning.line);
    let server = &results.build.name;
    if options.chart {
        chart::draw(out, server, &results.bars())?;
    }
    let body = format!(
        "{how}. Rounds: {rounds}, requests: {requests}, keys: {keys}.\n\n{throughput}\n\n{multi}\n\n{promised}"
    );
    page::put(out, page::THROUGHPUT, server, &body)?;
    let body = format!(
        "{how}. Rounds: {rounds}, requests: {unpipelined}.\n\n{latency}\n\n{latency_promised}"
    );
    let page = page::put(out, page::LATENCY, server, &body)?;
    println!("{}", page.display());
    Ok(())
}

impl Results {
    /// The chart's bars: every command of the plain server, and redis-cell's.
    fn bars(&self) -> Vec<chart::Bar> {
        let points = self
            .points
            .iter()
            .filter(|point| point.unpipelined || point.workload.origin == Origin::RedisCell);
        let bars = points.map(|point| chart::Bar {
            name: point.name.clone(),
            origin: point.workload.origin,
            requests_per_second: point.requests_per_second(),
            ratio: point.of_set_ex(),
        });
        bars.collect()
    }
}
