//! The machine, the server and the tools that figures were measured with, and which core each of them runs on.

use std::env::consts::{ARCH, OS};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::server::{self, Builder, Server};

/// A server's binary: what it says it is.
pub struct Build {
    /// `Redis 7.0.15`
    pub name: String,
    /// `Redis 7.0.15 (build ae4d7c971a948f0, x86_64)`: what an instruction count holds for.
    pub exact: String,
}

impl Build {
    pub fn under_test() -> Result<Self> {
        let binary = server::binary();
        let text = output(Command::new(&binary).arg("--version"))
            .with_context(|| format!("{} does not run", binary.display()))?;
        let word = |prefix: &str| text.split(' ').find_map(|word| word.strip_prefix(prefix));
        let product = text.split(' ').next().unwrap_or_default();
        let name = format!("{product} {}", word("v=").context("the server tells no version")?);
        let exact =
            format!("{name} (build {}, {ARCH})", word("build=").unwrap_or("unknown").trim());
        Ok(Self { name, exact })
    }
}

/// Where and when something was measured, in a line of the page.
pub fn circumstances() -> String {
    // Of the machine: this program may be bound to one of them.
    let cores = output(Command::new("getconf").arg("_NPROCESSORS_ONLN"));
    let cores = cores.unwrap_or_else(|_| "?".into());
    let date = output(Command::new("date").args(["-u", "+%Y-%m-%d"]));
    let date = date.unwrap_or_else(|_| "an unknown day".into());
    let version = env!("CARGO_PKG_VERSION");
    format!("redis-rl {version}, {}; {}, cores: {cores}, {OS} {ARCH}; {date}", rustc(), processor())
}

/// `rustc 1.90.0`: a module is built by the compiler that is there.
pub fn rustc() -> String {
    let version = output(Command::new("rustc").arg("--version")).unwrap_or_default();
    let words: Vec<_> = version.split_whitespace().take(2).collect();
    if words.is_empty() { "rustc unknown".into() } else { words.join(" ") }
}

fn processor() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split_once(": ")).map(|(_, model)| model.to_owned());
    let sysctl = || output(Command::new("sysctl").args(["-n", "machdep.cpu.brand_string"])).ok();
    model.or_else(sysctl).unwrap_or_else(|| "an unknown processor".into())
}

/// Whether a program is on the PATH.
pub fn has(program: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| folder.join(program).is_file())
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    anyhow::ensure!(output.status.success(), "{command:?} fails");
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Which core is that of what is measured alone: the other is this program's, and that of the load.
pub struct Pinning {
    measured: Option<usize>,
    pub line: String,
}

impl Pinning {
    /// Binds this program, and with it those that it starts, to a core of their own. The names of what is on the one core, and
    /// on the other, are for the page.
    pub fn bind(measured: &str, load: &str) -> Self {
        let unpinned =
            |why: &str| Self { measured: None, line: format!("not pinned to cores: {why}") };
        if !has("taskset") {
            return unpinned("there is no taskset");
        }
        let cores = allowed_cores();
        let Some((&first, others)) = cores.split_first() else {
            return unpinned("the cores are not known");
        };
        // Two threads of one core would take turns.
        let siblings = siblings(first);
        let Some(ours) = others.iter().find(|core| !siblings.contains(core)) else {
            return unpinned("there is no second core");
        };
        let pid = std::process::id().to_string();
        match output(Command::new("taskset").args(["-a", "-c", "-p", &ours.to_string(), &pid])) {
            Ok(_) => Self {
                measured: Some(first),
                line: format!("{measured} on core {first}, {load} on core {ours}"),
            },
            Err(_) => unpinned("taskset fails"),
        }
    }

    /// Starts a server that is measured.
    pub fn start(&self, builder: Builder) -> Result<Server> {
        builder.under(self.under().iter().map(String::as_str)).start()
    }

    /// What runs a program that is measured: its name and arguments follow.
    pub fn under(&self) -> Vec<String> {
        let words = |core| ["taskset".to_owned(), "-c".to_owned(), format!("{core}")];
        self.measured.map(words).into_iter().flatten().collect()
    }
}

fn allowed_cores() -> Vec<usize> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    list.map(core_list).unwrap_or_default()
}

/// The cores that are threads of the same one.
fn siblings(core: usize) -> Vec<usize> {
    let file = format!("/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list");
    fs::read_to_string(Path::new(&file)).map(|list| core_list(&list)).unwrap_or_default()
}

/// `0-2,5` as numbers.
fn core_list(list: &str) -> Vec<usize> {
    let ranges = list.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse::<usize>().ok()?..=last.parse().ok()?)
    });
    ranges.flatten().collect()
}
