//! Every `redis-cli` block of the README is run through the real redis-cli, and its output must agree.
//!
//! A block is fenced as ```` ```redis-cli ````. A line that begins with the prompt is a command; the lines up to
//! the next prompt are what redis-cli prints on a terminal. All blocks run in their order in one session on one fresh
//! server, so keys carry on from block to block.
//!
//! Lines must be equal, but for two kinds of integers:
//!
//! - Times, since the real clock runs. Where the README shows more than 0 ms, so must the server: less by at most the
//!   time that the session took, or more by at most the 20 ms that a reader may have taken to type. A time is
//!   the fourth or fifth integer of a limiter's reply, the second of RL.MULTI's, or the value of a field `wait_ms` or
//!   `reset_ms`. RL.THROTTLE and CL.THROTTLE answer in seconds, which are equal.
//! - The field `bytes`, since allocators round up differently: at most a quarter more than the README shows.

use std::env;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::server::Server;

const README: &str = include_str!("../README.md");
const PROMPT: &str = "127.0.0.1:6379> ";
/// What stands between the outputs of a session.
const MARK: &str = "-- end of output --";
/// How long the commands of the README may have taken when its output was written down.
const TYPING_MS: i64 = 20;

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
            Some(language) => in_block = !in_block && language.trim() == "redis-cli",
            None if !in_block => {}
            None => match line.strip_prefix(PROMPT) {
                Some(command) => examples.push(Example { command, output: Vec::new() }),
                None => examples.last_mut().expect("a prompt comes first").output.push(line),
            },
        }
    }
    examples
}

/// What redis-cli prints for each of these commands, in one session: a process for each would take so long on a busy
/// machine that short limits are over before the next.
fn session(port: u16, examples: &[Example<'_>]) -> Vec<Vec<String>> {
    let program = env::var("RL_CLI").unwrap_or_else(|_| "redis-cli".into());
    let mut cli = Command::new(program)
        .args(["--no-raw", "-h", "127.0.0.1", "-p", &port.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("redis-cli runs");
    let mut input = String::new();
    for Example { command, .. } in examples {
        input.push_str(&format!("{command}\nECHO \"{MARK}\"\n"));
    }
    cli.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = String::from_utf8(cli.wait_with_output().unwrap().stdout).unwrap();
    let mark = format!("\"{MARK}\"\n");
    let outputs = output.split_terminator(&mark);
    outputs.map(|output| output.lines().map(str::to_owned).collect()).collect()
}

/// Whether a line that redis-cli printed, in a session of so many milliseconds, is what the README shows.
fn agrees(command: &str, before: &str, shown: &str, printed: &str, took_ms: i64) -> bool {
    if shown == printed {
        return true;
    }
    let ((labels, shown), (printed_labels, printed)) = (split(shown), split(printed));
    let (Some(shown), Some(printed)) = (shown, printed) else {
        return false;
    };
    let name = command.split(' ').next().unwrap_or_default();
    let label = labels.split_whitespace().last().unwrap_or_default();
    let is_field =
        |names: &[&str]| names.iter().any(|name| before.ends_with(&format!("\"{name}\"")));
    let is_time = match name {
        "RL.INFO" => is_field(&["wait_ms", "reset_ms"]),
        "RL.MULTI" if !labels.starts_with(' ') => labels.trim() == "2)", // the rows are indented
        "RL.THROTTLE" | "CL.THROTTLE" => false,
        _ => name.starts_with("RL.") && (label == "4)" || label == "5)"),
    };
    let may_be = if is_time && shown > 0 {
        (shown - took_ms).max(1)..=shown + TYPING_MS
    } else if name == "RL.INFO" && is_field(&["bytes"]) {
        shown..=shown + shown / 4
    } else {
        shown..=shown
    };
    labels == printed_labels && may_be.contains(&printed)
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
    let examples = examples(README);
    assert!(examples.len() >= 10, "the README has lost its redis-cli blocks: {}", examples.len());
    let server = Server::start().unwrap();
    let start = Instant::now();
    let outputs = session(server.port(), &examples);
    let took_ms = start.elapsed().as_millis() as i64;
    assert_eq!(outputs.len(), examples.len(), "{outputs:#?}");
    for (Example { command, output }, printed) in examples.iter().zip(&outputs) {
        assert_eq!(printed.len(), output.len(), "{command}: {printed:#?}");
        let mut before = "";
        for (shown, printed) in output.iter().zip(printed) {
            assert!(
                agrees(command, before, shown, printed, took_ms),
                "{command}\n shown   {shown}\n printed {printed}\n in a session of {took_ms} ms"
            );
            before = shown;
        }
    }
}

#[test]
fn the_readme_has_a_heading_for_each_command_of_the_server_and_no_other() {
    let server = Server::start().unwrap();
    let mut connection = server.connection().unwrap();
    let mut list = redis::cmd("COMMAND");
    list.arg("LIST").arg("FILTERBY").arg("MODULE").arg("rl");
    let mut names: Vec<String> = list.query(&mut connection).unwrap();
    names.iter_mut().for_each(|name| name.make_ascii_uppercase());
    names.retain(|name| !name.starts_with("RL._"));
    names.sort();
    // The name, and its syntax behind it.
    let headings = README.lines().filter_map(|line| line.strip_prefix("### ")?.split_once(' '));
    let mut documented: Vec<_> = headings
        .filter(|(name, _)| name.starts_with("RL.") || name.starts_with("CL."))
        .map(|(name, _)| name.to_owned())
        .collect();
    documented.sort();
    assert!(!names.is_empty(), "the module has no commands");
    assert_eq!(documented, names);
}

#[test]
fn only_the_fenced_redis_cli_blocks_are_examples() {
    let readme = "```text\n127.0.0.1:6379> A\n```\n127.0.0.1:6379> B\n```redis-cli\n\
                  127.0.0.1:6379> C 'd e'\n1) x\n2) y\n127.0.0.1:6379> F\n```\n3) z\n";
    let found: Vec<_> = examples(readme).into_iter().map(|e| (e.command, e.output)).collect();
    assert_eq!(found, [("C 'd e'", vec!["1) x", "2) y"]), ("F", vec![])]);
    assert!(examples("# No blocks\n```text\n127.0.0.1:6379> A\n```\n").is_empty());
}

#[test]
fn the_comparison_lets_times_differ_by_what_the_session_took_and_nothing_else() {
    let sliding = |shown, printed| agrees("RL.SLIDING k 5 1m", "", shown, printed, 500);
    assert!(sliding("4) (integer) 59990", "4) (integer) 59490"));
    assert!(!sliding("4) (integer) 59990", "4) (integer) 59489"));
    assert!(sliding("4) (integer) 59990", "4) (integer) 60010"));
    assert!(!sliding("4) (integer) 59990", "4) (integer) 60011"));
    assert!(!sliding("4) (integer) 59990", "5) (integer) 59990"));
    assert!(!sliding("4) (integer) 59990", "4) (nil)"));
    assert!(sliding("5) (integer) 9", "5) (integer) 1"));
    assert!(!sliding("5) (integer) 9", "5) (integer) 0"));
    assert!(!sliding("4) (integer) 0", "4) (integer) 1"));
    assert!(!sliding("4) (integer) -1", "4) (integer) 0"));
    assert!(!sliding("3) (integer) 1", "3) (integer) 2"));
    assert!(!sliding("(nil)", "4) (integer) 2"));

    let throttle = |shown, printed| agrees("CL.THROTTLE k 15 30 60", "", shown, printed, 500);
    assert!(!throttle("5) (integer) 2", "5) (integer) 1"));
    let foreign = |shown, printed| agrees("LRANGE k 0 9", "", shown, printed, 500);
    assert!(!foreign("5) (integer) 2", "5) (integer) 1"));

    let info = |before, printed| agrees("RL.INFO k", before, "5) (integer) 48", printed, 10);
    assert!(info("4) \"wait_ms\"", "5) (integer) 38"));
    assert!(!info("4) \"wait_ms\"", "5) (integer) 37"));
    assert!(info("4) \"bytes\"", "5) (integer) 60"));
    assert!(!info("4) \"bytes\"", "5) (integer) 61"));
    assert!(!info("4) \"bytes\"", "5) (integer) 47"));
    assert!(!info("4) \"used\"", "5) (integer) 47"));

    let multi = |shown, printed| agrees("RL.MULTI 1 k SLIDING 1 1", "", shown, printed, 500);
    assert!(multi("2) (integer) 9", "2) (integer) 8"));
    assert!(multi("   4) (integer) 9", "   4) (integer) 8"));
    assert!(!multi("   2) (integer) 9", "   2) (integer) 8"));
    assert!(!multi("3) (integer) 0", "3) (integer) 1"));
}
