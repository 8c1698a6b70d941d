//! What the pictures of these programs have in common: the canvas, the letters, the colours and the legend.

#![allow(dead_code, reason = "each of the binaries that use this file uses a part of it")]

use anyhow::Result;
use plotters::coord::Shift;
use plotters::prelude::*;

pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

pub const BLUE: RGBColor = RGBColor(31, 119, 180);
pub const ORANGE: RGBColor = RGBColor(255, 127, 14);
pub const GREEN: RGBColor = RGBColor(44, 160, 44);
pub const RED: RGBColor = RGBColor(214, 39, 40);
pub const PURPLE: RGBColor = RGBColor(148, 103, 189);

pub const WIDTH: u32 = 960;

/// A picture on white, as SVG.
pub fn svg(height: u32, draw: impl FnOnce(&Area<'_>) -> Result<()>) -> Result<String> {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
        root.fill(&WHITE)?;
        draw(&root)?;
        root.present()?;
    }
    Ok(text)
}

pub fn letters(size: f64) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&RGBColor(40, 40, 40))
}

/// Names colours, in one line.
pub fn legend<'a>(
    area: &Area<'_>,
    (mut left, top): (i32, i32),
    entries: impl IntoIterator<Item = (&'a str, RGBColor)>,
) -> Result<()> {
    for (name, color) in entries {
        area.draw(&Rectangle::new([(left, top), (left + 12, top + 12)], color.filled()))?;
        area.draw(&Text::new(name.to_owned(), (left + 18, top), letters(14.0)))?;
        left += 60 + 7 * i32::try_from(name.len())?;
    }
    Ok(())
}
