//! Draws what each algorithm lets through of the same bursty traffic: `docs/algorithms.svg`.
//!
//! The requests are sent to a real server with the module, on a virtual clock. A panel counts, for every half second, the
//! requests that were made and those that went ahead: for the leaky bucket at the turn it told them.

#![allow(clippy::float_arithmetic, reason = "it draws")]

use std::fs;

use anyhow::{Context, Result};
use plotters::prelude::*;

#[path = "../picture.rs"]
mod picture;
#[path = "../../../tests/server.rs"]
mod server;

use picture::{Area, BLUE, GREEN, ORANGE, PURPLE, RED};
use server::Server;

const PICTURE: &str = "docs/algorithms.svg";
/// Where the virtual clock starts: a whole minute after every server's present, so that windows begin with it.
const START_US: u64 = 4_000_000_020_000_000;
const SECONDS: u32 = 60;
const BINS_PER_SECOND: u32 = 2;
const BIN_US: u64 = 500_000;

/// A command, and what its panel is to say of it.
const PANELS: [(&str, &str, RGBColor); 5] = [
    ("TOKENBUCKET 20 2", "a burst of 20, then 2 a second", BLUE),
    ("LEAKYBUCKET 20 2", "2 a second and never faster; a queue of 20", PURPLE),
    ("FIXEDWINDOW 20 10s ALIGN 0", "20 in each window; 40 around an edge", RED),
    ("SLIDING 20 10s", "20 in any 10 seconds, in 17 entries", GREEN),
    ("SLIDINGLOG 20 10s", "20 in any 10 seconds, exactly on time", ORANGE),
];

fn main() -> Result<()> {
    let server = Server::builder().virtual_clock().start()?;
    let mut connection = server.connection()?;
    let traffic = traffic();
    let offered = histogram(traffic.iter().copied());

    let svg = picture::svg(900, |root| {
        for (panel, area) in PANELS.iter().zip(root.split_evenly((PANELS.len(), 1))) {
            draw_panel(&area, panel, &mut connection, &traffic, &offered)?;
        }
        Ok(())
    })?;
    fs::create_dir_all("docs")?;
    fs::write(PICTURE, svg).context("the picture cannot be written")?;
    println!("{PICTURE}");
    Ok(())
}

/// Sends the traffic to a limiter, and draws what goes through.
fn draw_panel(
    area: &Area<'_>,
    (command, promise, color): &(&str, &str, RGBColor),
    connection: &mut redis::Connection,
    traffic: &[u64],
    offered: &[u32],
) -> Result<()> {
    let mut passed = Vec::new();
    for &micros in traffic {
        let mut words = command.split(' ');
        let mut request = redis::cmd(&format!("RL.{}", words.next().context("a name")?));
        request.arg(*command);
        words.for_each(|word| {
            request.arg(word);
        });
        let reply: Vec<i64> = request.arg("AT").arg(START_US + micros).query(connection)?;
        if let [1, _, _, wait_ms, _] = reply[..] {
            passed.push(micros + u64::try_from(wait_ms)? * 1_000);
        }
    }
    let count = passed.len();
    let title = format!("RL.{command}: {promise}. {count} of {} went ahead", traffic.len());
    draw(area, &title, *color, offered, &histogram(passed.into_iter()))
}

/// When requests come, in microseconds: one a second, and in between bursts of 15 a second.
fn traffic() -> Vec<u64> {
    let calm = (0..u64::from(SECONDS)).map(|second| second * 1_000_000 + 300_000);
    let bursts = [(8, 4), (28, 6), (48, 2)];
    let burst = bursts.into_iter().flat_map(|(start, seconds)| {
        (0..seconds * 15).map(move |number| start * 1_000_000 + number * 1_000_000 / 15)
    });
    let mut times: Vec<u64> = calm.chain(burst).collect();
    times.sort_unstable();
    times
}

fn histogram(times: impl Iterator<Item = u64>) -> Vec<u32> {
    let mut bins = vec![0; (SECONDS * BINS_PER_SECOND) as usize];
    for time in times {
        let bin = usize::try_from(time / BIN_US).ok().and_then(|bin| bins.get_mut(bin));
        bin.into_iter().for_each(|count| *count += 1);
    }
    bins
}

fn draw(
    area: &Area<'_>,
    title: &str,
    color: RGBColor,
    offered: &[u32],
    passed: &[u32],
) -> Result<()> {
    let highest = offered.iter().chain(passed).max().copied().unwrap_or(1);
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 16))
        .margin(6)
        .margin_right(24)
        .x_label_area_size(24)
        .y_label_area_size(36)
        .build_cartesian_2d(0f64..f64::from(SECONDS), 0..highest + 1)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .x_labels(13)
        .y_labels(4)
        .x_label_formatter(&|second| format!("{second:.0} s"))
        .draw()?;
    for (bins, style) in [(offered, RGBColor(215, 215, 215).filled()), (passed, color.filled())] {
        chart.draw_series(bins.iter().enumerate().map(|(bin, &count)| {
            let left = bin as f64 / f64::from(BINS_PER_SECOND);
            Rectangle::new([(left + 0.04, 0), (left + 0.46, count)], style)
        }))?;
    }
    Ok(())
}
