//! What operators see: the fields of INFO `rl_stats`, what Prometheus's stock exporter for Redis makes of them with the script of
//! docs/operations.md, and the alerts of docs/alerts.yml.
//!
//! ```text
//! server -> exporter with the page's script -> series      they are those of tests/alerts.yml,
//! series of tests/alerts.yml -> promtool, docs/alerts.yml -> each alert when it is due, and none when all is well
//! ```
//!
//! The exporter and promtool are installed ones, or those that `scripts/setup metrics` fetches. The tests that need them are
//! skipped without.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, Result};
use redis::Value;

use crate::client::{send, try_send};
use crate::server::{Server, free_port, info, patience, wait_for};

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

/// A program, if this machine has it.
fn program(name: &str) -> Option<PathBuf> {
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/metrics/bin");
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain([fetched]);
    let found = folders.map(|folder| folder.join(name)).find(|file| file.is_file());
    if found.is_none() {
        println!("not tested: there is no {name} (make test-metrics fetches it)");
    }
    found
}

/// A running exporter, which asks a server when it is asked.
struct Exporter {
    child: Child,
    port: u16,
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Exporter {
    fn start(program: &Path, server: &Server, arguments: &[&str]) -> Self {
        loop {
            let port = free_port().unwrap();
            let child = Command::new(program)
                .arg(format!("-redis.addr=redis://127.0.0.1:{}", server.port()))
                .arg(format!("-web.listen-address=127.0.0.1:{port}"))
                .args(arguments)
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut exporter = Self { child, port };
            let mut ended = false;
            wait_for("the exporter", || {
                ended = exporter.child.try_wait()?.is_some();
                Ok(ended || exporter.get("/metrics").is_ok())
            })
            .unwrap();
            // Another program may have taken the port.
            if !ended {
                return exporter;
            }
        }
    }

    /// What it exports: each sample in its line.
    fn samples(&self) -> Vec<String> {
        let text = self.get("/metrics").unwrap();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(patience()))?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        anyhow::ensure!(head.contains(" 200 "), "{head}");
        Ok(body.to_owned())
    }
}

/// The script of the page, in a file.
fn script(folder: &Path) -> String {
    let page = read("docs/operations.md");
    let (_, rest) = page.split_once("```lua\n").unwrap();
    let file = folder.join("redis-rl.lua");
    fs::write(&file, rest.split_once("```").unwrap().0).unwrap();
    file.to_str().unwrap().to_owned()
}

/// The fields of a server's `rl_stats`, each with its value.
fn fields(server: &Server) -> Vec<(String, String)> {
    let text = info(&mut server.connection().unwrap(), "rl_stats").unwrap();
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// A name and its labels: `name{a="b",c="d"}`, in the order of the alphabet.
fn series(text: &str) -> (String, BTreeSet<String>) {
    let (name, labels) = text.split_once('{').unwrap_or((text, "}"));
    let labels = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty());
    (name.to_owned(), labels.map(str::to_owned).collect())
}

#[test]
fn every_field_of_info_has_a_row_that_says_what_it_counts_and_when_to_alert() {
    let server = Server::start().unwrap();
    let page = read("docs/operations.md");
    let (_, table) = page.split_once("| field | what it counts | alert when |\n").unwrap();
    let mut documented = BTreeSet::new();
    for row in table.lines().skip(1).take_while(|line| line.starts_with('|')) {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        assert!(cells.len() == 3 && cells.iter().all(|cell| !cell.is_empty()), "{row}");
        documented.insert(cells[0].trim_matches('`').to_owned());
    }
    let algorithms = |name: &str| {
        let name = name.strip_prefix("rl_")?;
        let end = ["_granted", "_denied"].into_iter().find(|end| name.ends_with(end))?;
        Some(format!("rl_<algorithm>{end}"))
    };
    let fields: BTreeSet<_> =
        fields(&server).iter().map(|(name, _)| algorithms(name).unwrap_or(name.clone())).collect();
    assert_eq!(documented, fields);
}

#[test]
fn the_stock_exporter_exports_every_number_with_the_script_of_the_page_and_none_without() {
    let Some(program) = program("prometheus-redis-exporter") else { return };
    let server = Server::builder().setting("appendonly yes").start().unwrap();
    let mut connection = server.connection().unwrap();
    for _ in 0..6 {
        let _: Vec<i64> = send(&mut connection, "RL.SLIDING key 5 1m");
    }
    let bare = Exporter::start(&program, &server, &[]).samples();
    assert!(bare.contains(&"redis_up 1".to_owned()), "{bare:?}");
    assert!(!bare.iter().any(|sample| sample.contains("rl_")), "{bare:?}");

    let script = script(server.dir());
    let samples = Exporter::start(&program, &server, &["-script", &script]).samples();
    let ours: BTreeSet<_> =
        samples.iter().filter(|sample| sample.contains("rl_")).map(String::as_str).collect();
    let expected: BTreeSet<_> = fields(&server)
        .iter()
        .filter(|(name, _)| name != "rl_version")
        .map(|(name, value)| {
            let value = if name == "rl_propagation" { "1" } else { value };
            format!("redis_script_values{{key=\"{name}\"}} {value}")
        })
        .collect();
    assert_eq!(ours, expected.iter().map(String::as_str).collect());

    let page = read("docs/operations.md");
    let shown: Vec<_> =
        page.lines().filter(|line| line.starts_with("redis_script_values{")).collect();
    assert!(shown.len() == 3 && shown.iter().all(|line| ours.contains(line)), "{shown:?}");
}

#[test]
fn a_server_without_followers_and_one_without_the_module_are_told_apart() {
    let Some(program) = program("prometheus-redis-exporter") else { return };
    let alone = Server::start().unwrap();
    let script = script(alone.dir());
    let samples = Exporter::start(&program, &alone, &["-script", &script]).samples();
    let propagation = "redis_script_values{key=\"rl_propagation\"} 0";
    assert!(samples.iter().any(|sample| sample == propagation), "{samples:?}");

    let bare = Server::builder().without_module().start().unwrap();
    let samples = Exporter::start(&program, &bare, &["-script", &script]).samples();
    assert!(samples.iter().any(|sample| sample == "redis_up 1"), "{samples:?}");
    assert!(!samples.iter().any(|sample| sample.contains("rl_")), "{samples:?}");
}

#[test]
fn the_exporters_user_needs_to_read_info_and_to_run_scripts() {
    let Some(program) = program("prometheus-redis-exporter") else { return };
    let server = Server::start().unwrap();
    let mut connection = server.connection().unwrap();
    let script = script(server.dir());
    for (rights, is_exported) in [("+info", false), ("+eval", false), ("+info +eval", true)] {
        let user = format!("ACL SETUSER exporter reset on >secret {rights}");
        send::<String>(&mut connection, &user);
        let user = ["-redis.user", "exporter", "-redis.password", "secret", "-script", &script];
        let samples = Exporter::start(&program, &server, &user).samples();
        let has = samples.iter().any(|sample| sample.contains("rl_sliding_denied"));
        assert_eq!(has, is_exported, "{rights}: {samples:?}");
    }
}

#[test]
fn the_exporter_yields_every_series_that_the_alerts_are_tested_with() {
    let Some(program) = program("prometheus-redis-exporter") else { return };
    let primary = Server::start().unwrap();
    let replica = Server::builder().replica_of(&primary).start().unwrap();
    replica.wait_for_sync(&primary).unwrap();
    let mut connection = primary.connection().unwrap();
    send::<String>(&mut connection, "SET text x");
    for window in ["1m", "never"] {
        // Errors that are counted: WRONGTYPE and ERR.
        let words = ["RL.SLIDING", "text", "5", window].map(str::as_bytes);
        try_send::<Value>(&mut connection, &words).unwrap_err();
    }
    let script = script(primary.dir());
    let exported: Vec<_> = [&primary, &replica]
        .into_iter()
        .flat_map(|server| Exporter::start(&program, server, &["-script", &script]).samples())
        .map(|sample| series(sample.rsplit_once(' ').unwrap().0))
        .collect();
    let tests = read("tests/alerts.yml");
    let used = tests.lines().filter_map(|line| line.trim().strip_prefix("- series: '"));
    let used: BTreeSet<_> = used.map(|line| series(line.trim_end_matches('\''))).collect();
    assert!(used.len() > 10, "{used:?}");
    for (name, mut labels) in used {
        // Prometheus adds the server's name.
        labels.retain(|label| !label.starts_with("instance="));
        let is_exported =
            |(other, others): &(String, _)| *other == name && labels.is_subset(others);
        assert!(exported.iter().any(is_exported), "{name} {labels:?}: {exported:?}");
    }
}

fn promtool(program: &Path, arguments: &[&str]) -> Output {
    let folder = env!("CARGO_MANIFEST_DIR");
    Command::new(program).args(arguments).current_dir(folder).output().unwrap()
}

#[test]
fn promtool_accepts_the_alerts_and_each_fires_when_it_is_due_and_only_then() {
    let Some(program) = program("promtool") else { return };
    for arguments in
        [&["check", "rules", "docs/alerts.yml"], &["test", "rules", "tests/alerts.yml"]]
    {
        let output = promtool(&program, arguments);
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn every_alert_is_tested_both_ways() {
    let (alerts, tests) = (read("docs/alerts.yml"), read("tests/alerts.yml"));
    let alerts: Vec<_> =
        alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 5, "{alerts:?}");
    for alert in alerts {
        let quiet = format!("- {{eval_time: 30m, alertname: {alert}}}\n");
        let due = format!("alertname: {alert}\n        exp_alerts:\n");
        assert!(tests.contains(&quiet) && tests.contains(&due), "tests/alerts.yml has no {alert}");
    }
}
