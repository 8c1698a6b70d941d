//! The gateway under test: one thread, on the core that it has for itself.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::machine::Pinning;

/// The rules that are asked for: see [`crate::load::Shape`].
pub const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/load/rules.yaml");

pub struct Gateway {
    child: Child,
    pub grpc: u16,
}

impl Gateway {
    pub fn start(pinning: &Pinning, server: u16) -> Result<Self> {
        let mut words = pinning.under();
        words.push(env!("CARGO_BIN_EXE_redis-rl-gateway").to_owned());
        let (program, arguments) = words.split_first().context("nothing to start")?;
        let mut child = Command::new(program)
            .args(arguments)
            .args(["serve", "--threads", "1", "--timeout", "5s", "--config", RULES])
            .args(["--redis", &format!("redis://127.0.0.1:{server}")])
            .args(["--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--metrics", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("the gateway does not start")?;
        let lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let mut grpc = None;
        let mut lines = lines.map_while(Result::ok);
        for line in lines.by_ref() {
            if let Some(address) = line.strip_prefix("redis-rl-gateway: grpc on ") {
                grpc = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
            }
            if line == "redis-rl-gateway: ready" {
                break;
            }
        }
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { child, grpc: grpc.context("the gateway has no gRPC port")? })
    }

    /// How long its threads have been on a processor; nothing where the system does not say.
    pub fn processor_time(&self) -> Duration {
        let tasks =
            fs::read_dir(format!("/proc/{}/task", self.child.id())).into_iter().flatten().flatten();
        let nanos = tasks.filter_map(|task| {
            let stat = fs::read_to_string(task.path().join("schedstat")).ok()?;
            stat.split(' ').next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanos.sum())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
