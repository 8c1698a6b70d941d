//! What would this limit have done to my traffic, and which limit would affect few? Replays an access log against a real server
//! with the module.
//!
//! ```text
//! log -> lines -> (time, client) sorted by time           log.rs
//!     -> moved to the future by whole weeks               limiter.rs
//!     -> RL.MULTI ... client ... AT time -> what it did   report.rs, plot.rs
//!     -> the most of each client in any window -> limits  suggest.rs
//! ```
//!
//! Every request is sent at its own time, on a virtual clock, keyed by its client's address. Real logs step backwards, since a
//! line is written when its request ends: so they are sorted, stably. They are moved by whole weeks, which keeps days and hours as
//! they are, since the server expires keys by its own clock: no moment may lie in its past.
//!
//! In memory a request is 8 bytes, and a client one string and 60 bytes.

#![allow(missing_docs, reason = "a program has no users of its parts")]

use std::io::{self, Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::Parser;

mod limiter;
mod log;
#[path = "../../picture.rs"]
mod picture;
mod plot;
mod report;
#[path = "../../../../tests/server.rs"]
mod server;
mod suggest;

use limiter::Limiter;
use log::Traffic;
use plot::Bins;
use report::{Count, Outcome};

/// What would this limit have done to my traffic, and which limit would affect few clients?
#[derive(Parser)]
struct Options {
    /// The limit, as a command has it behind the key: 'SLIDING 60 1m'. Several, separated by ';', are decided together.
    #[arg(long, required_unless_present = "suggest")]
    limit: Option<String>,
    /// Draw what the limit granted and denied over time, into this file (.svg).
    #[arg(long)]
    plot: Option<PathBuf>,
    /// Suggest limits for a sliding window of this duration, as '1m', after what clients really did.
    #[arg(long)]
    suggest: Option<String>,
    /// How many of the most denied clients to list.
    #[arg(long, default_value_t = 10)]
    top: usize,
    /// An access log in common or combined format, plain or gzip; '-' is standard input.
    log: String,
}

fn main() -> ExitCode {
    match replay(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads the output has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "replay: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io_error = error.downcast_ref::<io::Error>();
    io_error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn replay(options: &Options) -> Result<()> {
    // What is wrong with the options shows before a long log is read.
    if let Some(picture) = &options.plot {
        ensure!(options.limit.is_some(), "a picture shows what a limit does: give a limit, too");
        plot::check(picture)?;
    }
    let limits: Option<Vec<_>> =
        options.limit.as_ref().map(|limits| limits.split(';').map(str::trim).collect());
    let mut limiter = Limiter::start()?;
    if let Some(limits) = &limits {
        limiter.check(limits)?;
    }
    let window = options.suggest.as_ref().map(|text| limiter.window(text)).transpose()?;

    let mut traffic = Traffic::of(&options.log)?;
    let mut out = stdout().lock();
    let Some(limits) = limits else {
        report::traffic(&mut out, &traffic)?;
        return window.map_or(Ok(()), |window| suggest::suggest(&mut out, &mut traffic, &window));
    };

    let mut counts = vec![Count::default(); traffic.clients()];
    let mut bins = Bins::of(&traffic);
    limiter.send(&limits, &traffic, |request, granted| {
        if let Some(count) = counts.get_mut(request.client as usize) {
            count.add(granted);
        }
        bins.add(request.time, granted);
    })?;
    let limit = limits.join("; ");
    // A picture that fails now, on a full disk, takes nothing from the report.
    let drawn = options.plot.as_ref().map_or(Ok(()), |picture| plot::draw(picture, &limit, &bins));
    let blocks = limiter.blocks(&limits)?;
    let outcome = Outcome { limit: &limit, counts: &counts, blocks };
    report::replay(&mut out, &traffic, &outcome, options.top)?;
    if let Some(window) = window {
        suggest::suggest(&mut out, &mut traffic, &window)?;
    }
    drawn
}
