//! The picture: what was granted and what was denied, over time.
//!
//! ```text
//! requests in 1 h |        ##          a bar for each bin: granted, and denied on top of it
//!                 |   ##   ::   ##     a bin is the shortest of WIDTHS of which MOST_BINS suffice for the log
//!                 |   ::   ::   ::     bins and labels begin at whole minutes, hours, days, Mondays of the log's clock
//!                 +------------------
//!                 17 May 10:00
//! ```

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::path::Path;

use anyhow::{Context, Result, bail};
use chrono::DateTime;
use plotters::prelude::*;

use crate::log::Traffic;
use crate::picture::{self, Area, BLUE, RED, letters};
use crate::report::share;

const DAY: i64 = 24 * 60 * 60;
const WEEK: i64 = 7 * DAY;
/// From a Monday to 1970-01-01.
const SINCE_MONDAY: i64 = 3 * DAY;
/// How long a bin may be, in seconds. Longer ones double.
const WIDTHS: [(i64, &str); 18] = [
    (1, "1 s"),
    (2, "2 s"),
    (5, "5 s"),
    (10, "10 s"),
    (15, "15 s"),
    (30, "30 s"),
    (60, "1 min"),
    (120, "2 min"),
    (300, "5 min"),
    (600, "10 min"),
    (900, "15 min"),
    (1_800, "30 min"),
    (3_600, "1 h"),
    (7_200, "2 h"),
    (10_800, "3 h"),
    (21_600, "6 h"),
    (43_200, "12 h"),
    (DAY, "1 d"),
];
const MOST_BINS: i64 = 120;
const MOST_LABELS: i64 = 9;
/// How many characters of a limit there is space for in the title.
const LONGEST_LIMIT: usize = 70;
const HEIGHT: u32 = 420;

/// A span of time with a name: of a bin, or between two labels.
struct Step {
    seconds: i64,
    name: String,
}

impl Step {
    /// The shortest of which so many suffice.
    fn of(span: i64, most: i64) -> Self {
        let known = WIDTHS.iter().map(|&(seconds, name)| (seconds, name.to_owned()));
        let weeks = (0..16).map(|power| 1 << power);
        let longer = weeks.map(|weeks| (weeks * WEEK, format!("{} d", weeks * 7)));
        let fits = |(seconds, _): &(i64, String)| span / seconds < most - 1;
        let (seconds, name) =
            known.chain(longer).find(fits).unwrap_or_else(|| (span.max(1), format!("{span} s")));
        Self { seconds, name }
    }

    /// The last beginning of a step that is not after a moment.
    fn begin(&self, time: i64) -> i64 {
        (time + SINCE_MONDAY).div_euclid(self.seconds) * self.seconds - SINCE_MONDAY
    }
}

/// How many requests were granted and denied in each bin.
pub struct Bins {
    step: Step,
    /// When the first bin begins, by the log's clock.
    start: i64,
    zone: i32,
    counts: Vec<[u64; 2]>,
}

impl Bins {
    pub fn of(traffic: &Traffic) -> Self {
        let zone = i64::from(traffic.zone);
        let (first, last) = traffic.span();
        let (first, last) = (i64::from(first) + zone, i64::from(last) + zone);
        let step = Step::of(last - first, MOST_BINS);
        let start = step.begin(first);
        let bins = usize::try_from((last - start) / step.seconds).unwrap_or_default() + 1;
        Self { step, start, zone: traffic.zone, counts: vec![[0; 2]; bins] }
    }

    pub fn add(&mut self, time: u32, granted: bool) {
        let bin = (i64::from(time) + i64::from(self.zone) - self.start) / self.step.seconds;
        let bin = usize::try_from(bin).ok().and_then(|bin| self.counts.get_mut(bin));
        if let Some([grants, denials]) = bin {
            *(if granted { grants } else { denials }) += 1;
        }
    }

    fn end(&self) -> i64 {
        self.start + self.step.seconds * i64::try_from(self.counts.len()).unwrap_or(i64::MAX)
    }

    fn total(&self, of: impl Fn(&[u64; 2]) -> u64) -> u64 {
        self.counts.iter().map(of).sum()
    }
}

/// Whether a picture can be written into this file: seen before the replay, not after it.
pub fn check(file: &Path) -> Result<()> {
    let name = file.display();
    if !file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("svg")) {
        bail!("the picture is SVG: '{name}' must end in .svg");
    }
    let folder = file.parent().filter(|folder| *folder != OsStr::new("")).unwrap_or(Path::new("."));
    let written = if file.exists() {
        OpenOptions::new().append(true).open(file).map(drop)
    } else {
        tempfile::tempfile_in(folder).map(drop)
    };
    written.with_context(|| format!("cannot write {name}"))
}

pub fn draw(file: &Path, limit: &str, bins: &Bins) -> Result<()> {
    let svg = picture::svg(HEIGHT, |root| {
        let denied = bins.total(|[_, denied]| *denied);
        let requests = bins.total(|[granted, denied]| granted + denied);
        let title = format!(
            "{}: denied {} of {requests} requests",
            shortened(limit),
            share(denied, requests)
        );
        root.draw(&Text::new(title, (16, 14), letters(18.0)))?;
        picture::legend(root, (84, 44), [("granted", BLUE), ("denied", RED)])?;
        let (_, below) = root.split_vertically(64);
        chart(&below, bins)
    })?;
    fs::write(file, svg).with_context(|| format!("cannot write {}", file.display()))
}

fn chart(area: &Area<'_>, bins: &Bins) -> Result<()> {
    let highest = bins.counts.iter().map(|[granted, denied]| granted + denied).max().unwrap_or(1);
    let labels = Step::of(bins.end() - bins.start, MOST_LABELS);
    let first = labels.begin(bins.start + labels.seconds - 1);
    let moments = (0..MOST_LABELS).map(|number| first + number * labels.seconds);
    let moments: Vec<_> = moments.filter(|moment| *moment <= bins.end()).collect();
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .margin_right(48)
        .x_label_area_size(44)
        .y_label_area_size(76)
        .build_cartesian_2d(
            (bins.start..bins.end()).with_key_points(moments.clone()),
            0..highest + highest.div_ceil(20),
        )?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .label_style(letters(13.0))
        .x_labels(moments.len())
        .y_labels(6)
        .x_label_formatter(&|&moment| label(moment, labels.seconds))
        .x_desc(format!("{} to {}, {}", full(bins.start), full(bins.end()), zone(bins.zone)))
        .y_desc(format!("requests in {}", bins.step.name))
        .draw()?;
    let gap = if bins.counts.len() > 1 { 1 } else { 0 };
    for (is_denied, color) in [(false, BLUE), (true, RED)] {
        let bars = (0..).zip(&bins.counts).map(|(number, &[granted, denied])| {
            let left = bins.start + number * bins.step.seconds;
            let (low, high) = if is_denied { (granted, granted + denied) } else { (0, granted) };
            ([(left, low), (left + bins.step.seconds, high)], low < high)
        });
        chart.draw_series(bars.filter(|(_, is_some)| *is_some).map(|(corners, _)| {
            let mut bar = Rectangle::new(corners, color.filled());
            bar.set_margin(0, 0, 0, gap);
            bar
        }))?;
    }
    Ok(())
}

/// A moment by the log's clock.
fn format(moment: i64, format: &str) -> String {
    DateTime::from_timestamp(moment, 0)
        .map_or_else(String::new, |time| time.format(format).to_string())
}

fn full(moment: i64) -> String {
    format(moment, "%d %b %Y %H:%M:%S")
}

/// A moment, as exactly as the distance between two of them asks for.
fn label(moment: i64, distance: i64) -> String {
    format(
        moment,
        match distance {
            ..60 => "%H:%M:%S",
            60..DAY => "%d %b %H:%M",
            _ => "%d %b %Y",
        },
    )
}

/// How a log's clock is called: UTC, UTC+02:00.
fn zone(seconds: i32) -> String {
    let (sign, minutes) = (if seconds < 0 { '-' } else { '+' }, seconds.abs() / 60);
    if seconds == 0 {
        return "UTC".into();
    }
    format!("UTC{sign}{:02}:{:02}", minutes / 60, minutes % 60)
}

/// A limit for the title: in one line, and cut if it is long.
fn shortened(limit: &str) -> String {
    let limit = limit.split_whitespace().collect::<Vec<_>>().join(" ");
    if limit.chars().count() <= LONGEST_LIMIT {
        return limit;
    }
    limit.chars().take(LONGEST_LIMIT - 1).chain(['…']).collect()
}
