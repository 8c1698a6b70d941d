//! The built program.
//!
//! Gateway::start(&server, config, arguments)    on ports that the system chose, and ready
//! drop(gateway)                                 kills it

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use tempfile::TempDir;

use crate::server::Server;

/// A running gateway.
pub struct Gateway {
    child: Child,
    folder: TempDir,
    pub grpc: u16,
    pub http: u16,
    pub metrics: u16,
}

impl Gateway {
    /// With the rules of a file or folder, in front of a server.
    pub fn start(server: &Server, config: &Path, arguments: &[&str]) -> Self {
        Self::at(&format!("redis://127.0.0.1:{}", server.port()), config, arguments)
    }

    /// In front of what a URL names.
    pub fn at(url: &str, config: &Path, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = File::create(folder.path().join("log")).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_redis-rl-gateway"))
            .arg("serve")
            .arg("--config")
            .arg(config)
            .args(["--redis", url, "--timeout", "5s"])
            .args(["--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--metrics", "127.0.0.1:0"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut ports = BTreeMap::new();
        loop {
            let Some(line) = lines.next() else {
                panic!("the gateway ended: {}", read_log(&folder))
            };
            let line = line.unwrap();
            if line == "redis-rl-gateway: ready" {
                break;
            }
            if let Some((name, port)) = listener(&line) {
                ports.insert(name, port);
            }
        }
        // Read on, so that the gateway never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, folder, grpc: ports["grpc"], http: ports["http"], metrics: ports["metrics"] }
    }

    pub fn log(&self) -> String {
        read_log(&self.folder)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill();
    }
}

fn read_log(folder: &TempDir) -> String {
    fs::read_to_string(folder.path().join("log")).unwrap_or_default()
}

/// `redis-rl-gateway: grpc on 127.0.0.1:41234` as (`grpc`, 41234).
fn listener(line: &str) -> Option<(String, u16)> {
    let (name, address) = line.strip_prefix("redis-rl-gateway: ")?.split_once(" on ")?;
    let (_, port) = address.rsplit_once(':')?;
    Some((name.to_owned(), port.parse().ok()?))
}
