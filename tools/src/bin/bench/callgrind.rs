//! Counts the instructions of one command: the server under valgrind's callgrind, twice.
//!
//! ```text
//! instructions = (count of a run of FEW + n calls - count of a run of FEW calls) / n
//! ```
//!
//! Starting, preparing and stopping are in both runs and fall out of the difference. What the server does by itself, once a second,
//! is not counted: a longer run on a busier machine has more of it. Keys are taken in turn, so nothing is left to chance but the server's hash seed: see [`crate::instructions`].

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::machine::has;
use crate::server::{Builder, Server, info};
use crate::workload::{Decisions, PIPELINE, Workload};

/// The calls of the shorter run.
const FEW: u64 = 1_000;

/// A command, and the server that it is sent to.
pub struct Case {
    pub name: String,
    pub workload: Workload,
    pub server: Builder,
    /// How many keys are taken in turn, and how often each is prepared.
    pub keys: u64,
    pub times: u64,
    /// The server's functions that do not count, with all that they call.
    pub without: &'static [&'static str],
}

/// Fails where valgrind is missing, before anything is measured.
pub fn require() -> Result<()> {
    if !has("valgrind") {
        bail!("there is no valgrind: run  scripts/setup valgrind");
    }
    Ok(())
}

impl Case {
    /// The instructions of one call, as the mean of so many.
    pub fn count(&self, calls: u64) -> Result<f64> {
        let run = |calls| self.total(calls).with_context(|| self.name.clone());
        Ok((run(FEW + calls)? - run(FEW)?) / calls as f64)
    }

    /// All instructions of a server from its start to its end.
    fn total(&self, calls: u64) -> Result<f64> {
        let folder = tempfile::tempdir()?;
        // A forked child would write its own file: the number of the process tells them apart.
        let file = format!("--callgrind-out-file={}/%p", folder.path().display());
        let builder = self.server.clone().setting("hz 1").setting("auto-aof-rewrite-percentage 0");
        let mut valgrind =
            ["valgrind", "--quiet", "--tool=callgrind", &file].map(str::to_owned).to_vec();
        valgrind.extend(
            ["serverCron"]
                .iter()
                .chain(self.without)
                .map(|name| format!("--toggle-collect={name}")),
        );
        // A function to toggle at would switch counting off until it is entered.
        valgrind.push("--collect-atstart=yes".into());
        let mut server = builder.under(valgrind.iter().map(String::as_str)).start()?;
        let pid = server.pid().context("the server has no process")?;
        self.send(&server, calls)?;
        server.shutdown(false)?;
        total(&folder.path().join(pid.to_string()))
    }

    fn send(&self, server: &Server, calls: u64) -> Result<()> {
        let mut connection = server.connection()?;
        let ready = self.workload.prepare(&mut connection, self.keys, self.times)?;
        let before = Decisions::of(&info(&mut connection, "everything")?);
        ready.send(&mut connection, self.keys, calls, PIPELINE)?;
        let after = Decisions::of(&info(&mut connection, "everything")?);
        self.workload.check(before, after, calls)
    }
}

/// The sum in a file of callgrind's.
fn total(file: &Path) -> Result<f64> {
    let text = fs::read_to_string(file).context("callgrind has written nothing")?;
    let totals = text.lines().find_map(|line| line.strip_prefix("totals: "));
    Ok(totals.context("callgrind tells no total")?.trim().parse()?)
}
