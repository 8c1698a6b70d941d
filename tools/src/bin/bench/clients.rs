//! `make bench-clients`: the stores of the clients beside the libraries' own. `clients/*/bench.sh` measure and print a table each;
//! `scripts/bench-clients` puts a heading above each, and here they get into the page.

use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::machine::{Build, circumstances};
use crate::page;

pub fn run(out: &Path) -> Result<()> {
    let build = Build::under_test()?;
    let mut tables = String::new();
    io::stdin().read_to_string(&mut tables).context("the tables cannot be read")?;
    ensure!(
        tables.lines().any(|line| line.starts_with("| ")),
        "there is no table on standard input"
    );
    let body = format!("{}.\n\n{tables}", circumstances());
    println!("{}", page::put(out, page::CLIENTS, &build.name, &body)?.display());
    Ok(())
}
