//! The chart docs/benchmarks.svg: a bar for each command, as long as its throughput against SET EX.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::page::{CHART, grouped};
use crate::picture::{self, BLUE, ORANGE, PURPLE, letters};
use crate::workload::Origin;

pub struct Bar {
    pub name: String,
    pub origin: Origin,
    pub requests_per_second: f64,
    pub ratio: f64,
}

/// Whose bars have which colour, in the order of the legend.
const COLORS: [(Origin, &str, RGBColor); 4] = [
    (Origin::Module, "redis-rl", BLUE),
    (Origin::BuiltIn, "the server's own commands", RGBColor(150, 150, 150)),
    (Origin::Lua, "Lua scripts", ORANGE),
    (Origin::RedisCell, "redis-cell", PURPLE),
];

const WIDTH: i32 = picture::WIDTH.cast_signed();
/// Where the bars begin: left of it stand the names.
const LEFT: i32 = 250;
/// How far the longest bar goes: right of it stands its number.
const RIGHT: i32 = WIDTH - 170;
const TOP: i32 = 70;
const ROW: i32 = 26;
const BAR: i32 = 18;

pub fn draw(folder: &Path, server: &str, bars: &[Bar]) -> Result<()> {
    let file = folder.join(CHART);
    fs::create_dir_all(folder).with_context(|| format!("cannot write {}", file.display()))?;
    let longest = bars.iter().map(|bar| bar.ratio).fold(1.0, f64::max);
    let scale = f64::from(RIGHT - LEFT) / longest;
    let height = TOP + ROW * i32::try_from(bars.len())? + 16;
    let svg = picture::svg(u32::try_from(height)?, |root| {
        let middle = |side| letters(14.0).pos(Pos::new(side, VPos::Center));
        let title = format!(
            "Requests a second of one core against SET key value EX 60, in pipelines of 16, {server}"
        );
        root.draw(&Text::new(title, (16, 14), letters(18.0)))?;
        let occurs = |origin| bars.iter().any(|bar| bar.origin == origin);
        let colors = COLORS.iter().filter(|(origin, ..)| occurs(*origin));
        picture::legend(root, (LEFT, 44), colors.map(|&(_, name, color)| (name, color)))?;

        // Where SET EX ends.
        let one = LEFT + pixels(scale);
        let line = [(one, TOP - 6), (one, height - 12)];
        root.draw(&PathElement::new(line, RGBColor(225, 225, 225)))?;
        for (row, bar) in (0..).zip(bars) {
            let center = TOP + ROW * row + ROW / 2;
            let end = LEFT + pixels(bar.ratio * scale);
            let corners = [(LEFT, center - BAR / 2), (end, center + BAR / 2)];
            root.draw(&Rectangle::new(corners, color(bar.origin).filled()))?;
            let name = Text::new(bar.name.clone(), (LEFT - 8, center), middle(HPos::Right));
            root.draw(&name)?;
            let number = format!("{:.2}x, {}/s", bar.ratio, grouped(bar.requests_per_second));
            root.draw(&Text::new(number, (end + 8, center), middle(HPos::Left)))?;
        }
        Ok(())
    })?;
    fs::write(&file, svg).with_context(|| format!("cannot write {}", file.display()))?;
    println!("{}", file.display());
    Ok(())
}

fn color(origin: Origin) -> RGBColor {
    let known = COLORS.iter().find(|(known, ..)| *known == origin);
    known.map_or(BLACK, |&(.., color)| color)
}

/// A length to the next pixel.
#[allow(clippy::cast_possible_truncation, reason = "a picture is small")]
fn pixels(length: f64) -> i32 {
    length.round() as i32
}
