//! Every `redis-cli` block of the README is run through the real redis-cli, and its output must agree.
//!
//! A block is fenced as ```` ```redis-cli ````. A line that begins with the prompt is a command; the lines up to
//! the next prompt are what redis-cli prints on a terminal. All blocks run in their order on one fresh
//! server, so keys carry on from block to block.
//!
//! Lines must be equal, but for times, since the real clock runs: where the README says so many milliseconds,
//! more than none, so must the server, give or take a second. A time is the fourth or fifth integer of a
//! limiter's reply, the second of RL.MULTI's, or the value of a field `wait_ms` or `reset_ms`.

use std::env;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::server::Server;

const PROMPT: &str = "127.0.0.1:6379> ";
const TOLERANCE_MS: i64 = 1_000;

/// A command of the README, and the lines of its output.
struct Example<'a> {
    command: &'a str,
    output: Vec<&'a str>,
}

fn examples(readme: &str) -> Vec<Example<'_>> {
    let mut examples: Vec<Example<'_>> = Vec::new();
    let mut in_block = false;
    for line in readme.lines() {
        match line.strip_prefix("```") {
            Some(language) => in_block = !in_block && language == "redis-cli",
            None if !in_block => {}
            None => match line.strip_prefix(PROMPT) {
                Some(command) => examples.push(Example { command, output: Vec::new() }),
                None => examples.last_mut().expect("a prompt comes first").output.push(line),
            },
        }
    }
    examples
}

fn redis_cli(port: u16, command: &str) -> String {
    let program = env::var("RL_CLI").unwrap_or_else(|_| "redis-cli".into());
    let mut cli = Command::new(program)
        .args(["--no-raw", "-h", "127.0.0.1", "-p", &port.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("redis-cli runs");
    let mut stdin = cli.stdin.take().unwrap();
    writeln!(stdin, "{command}").unwrap();
    drop(stdin);
    String::from_utf8(cli.wait_with_output().unwrap().stdout).unwrap()
}

/// Whether a line that redis-cli printed is what the README shows.
fn agrees(command: &str, before: Option<&str>, shown: &str, printed: &str) -> bool {
    if shown == printed {
        return true;
    }
    let ((labels, shown), (printed_labels, printed)) = (split(shown), split(printed));
    let (Some(shown), Some(printed)) = (shown, printed) else {
        return false;
    };
    let label = labels.split_whitespace().last().unwrap_or_default();
    let named = before.is_some_and(|line| line.contains("wait_ms") || line.contains("reset_ms"));
    let is_time = match command.split(' ').next().unwrap_or_default() {
        "RL.INFO" => named,
        "RL.MULTI" if !labels.starts_with(' ') => labels.trim() == "2)", // the rows are indented
        _ => label == "4)" || label == "5)",
    };
    is_time
        && labels == printed_labels
        && shown > 0
        && printed > 0
        && (shown - printed).abs() <= TOLERANCE_MS
}

/// A line's labels, ` 4) `, and its integer.
fn split(line: &str) -> (&str, Option<i64>) {
    match line.split_once("(integer) ") {
        Some((labels, integer)) => (labels, integer.parse().ok()),
        None => (line, None),
    }
}

#[test]
fn every_redis_cli_block_of_the_readme_says_what_redis_cli_prints() {
    let examples = examples(include_str!("../README.md"));
    assert!(examples.len() >= 10, "the README has lost its examples");
    let server = Server::start().unwrap();
    for Example { command, output } in examples {
        let printed = redis_cli(server.port(), command);
        let printed: Vec<_> = printed.lines().collect();
        assert_eq!(printed.len(), output.len(), "{command}: {printed:#?}");
        let mut before = None;
        for (shown, printed) in output.into_iter().zip(printed) {
            assert!(
                agrees(command, before, shown, printed),
                "{command}\n shown   {shown}\n printed {printed}"
            );
            before = Some(shown);
        }
    }
}

#[test]
fn the_comparison_lets_times_differ_and_nothing_else() {
    let sliding = |shown, printed| agrees("RL.SLIDING k 5 1m", None, shown, printed);
    assert!(sliding("4) (integer) 59990", "4) (integer) 59012"));
    assert!(!sliding("4) (integer) 59990", "4) (integer) 5999"));
    assert!(!sliding("4) (integer) 1", "4) (integer) 0"));
    assert!(!sliding("4) (integer) -1", "4) (integer) 0"));
    assert!(!sliding("3) (integer) 1", "3) (integer) 2"));
    assert!(!sliding("(nil)", "4) (integer) 2"));
    let info = |before| agrees("RL.INFO k", before, "5) (integer) 7", "5) (integer) 8");
    assert!(info(Some("4) \"wait_ms\"")) && !info(Some("4) \"used\"")));
    let multi = |shown, printed| agrees("RL.MULTI 1 k SLIDING 1 1", None, shown, printed);
    assert!(multi("2) (integer) 9", "2) (integer) 8"));
    assert!(multi("   4) (integer) 9", "   4) (integer) 8"));
    assert!(!multi("   2) (integer) 9", "   2) (integer) 8"));
    assert!(!multi("3) (integer) 0", "3) (integer) 1"));
}
