//! `make bench` and its like measure every command, and keep what the others have written. Numbers are tiny here: what they say
//! is of no interest.

use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::server::binary;

/// A row of every table of commands.
const COMMANDS: [&str; 20] = [
    "PING",
    "GET",
    "INCR",
    "SET EX 60",
    "RL.TOKENBUCKET granted",
    "RL.TOKENBUCKET denied",
    "RL.LEAKYBUCKET granted",
    "RL.LEAKYBUCKET denied",
    "RL.FIXEDWINDOW granted",
    "RL.FIXEDWINDOW denied",
    "RL.SLIDING granted",
    "RL.SLIDING denied",
    "RL.SLIDINGLOG granted",
    "RL.SLIDINGLOG denied",
    "RL.MULTI of 3 granted",
    "RL.PEEK",
    "CL.THROTTLE granted",
    "Lua token bucket",
    "Lua sliding log",
    "Lua fixed window",
];

fn program() -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_bench"));
    // Its servers run under valgrind, beside those of other tests: waiting is longer.
    program.env("RL_SLOW", "20");
    program
}

fn bench(out: &Path, arguments: &str) -> Output {
    program().arg("--out").arg(out).args(arguments.split(' ')).output().unwrap()
}

/// What it prints when all is well.
fn printed(out: &Path, arguments: &str) -> String {
    let output = bench(out, arguments);
    assert!(output.status.success(), "{arguments}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The line that it ends with when something is wrong.
fn error(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), error.lines().count()), (Some(1), 1), "{output:?}");
    error
}

/// Whether a program is here, which a test needs. It is said where it is not.
fn has(name: &str) -> bool {
    let folders = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&folders).any(|folder| folder.join(name).is_file());
    if !found {
        println!("not tested: there is no {name}");
    }
    found
}

/// The rows of the tables that begin with this name, without counting their cells' width.
fn rows(text: &str, name: &str) -> usize {
    let first =
        |line: &str| line.strip_prefix("| ")?.split_once(" |").map(|(cell, _)| cell.trim() == name);
    text.lines().filter_map(first).filter(|&is_row| is_row).count()
}

/// The blocks of a page that begin with this title, each up to its end.
fn blocks<'a>(page: &'a str, title: &str) -> Vec<&'a str> {
    let blocks = page.split("<!-- begin ").skip(1).filter(|block| block.starts_with(title));
    blocks.map(|block| block.split_once("<!-- end ").expect("a block ends").0).collect()
}

#[test]
fn every_command_is_measured_and_each_part_of_the_page_is_kept() {
    if !has("redis-benchmark") {
        return;
    }
    let out = tempfile::tempdir().unwrap();
    let page = || fs::read_to_string(out.path().join("benchmarks.md")).unwrap();
    let throughput = "throughput --rounds 1 --requests 2000 --unpipelined 200 --keys 100 --chart";
    let text = printed(out.path(), throughput);
    let first = page();
    let chart = fs::read_to_string(out.path().join("benchmarks.svg")).unwrap();
    for command in COMMANDS {
        assert_eq!(rows(&text, command), 2, "{command}, throughput and latency: {text}");
        assert_eq!(rows(&first, command), 2, "{command}: {first}");
        assert!(chart.contains(command), "{command}: {chart}");
    }
    for other in ["appendonly yes: SET EX 60", "a replica attached: RL.TOKENBUCKET granted"] {
        assert_eq!(rows(&first, other), 1, "{other}: {first}");
    }
    assert!(first.contains("](benchmarks.svg)"), "{first}");

    printed(out.path(), "memory --keys 64");
    let second = page();
    assert_eq!(rows(&second, "RL.SLIDINGLOG"), 1, "{second}");
    for part in ["throughput", "latency"] {
        assert_eq!(blocks(&second, part).len(), 1, "{second}");
        assert_eq!(blocks(&second, part), blocks(&first, part));
    }

    let text = printed(out.path(), "leases --rounds 1 --pairs 20000");
    for name in ["RL.ACQUIRE and RL.RELEASE", "both in Lua on a sorted set"] {
        assert_eq!((rows(&text, name), rows(&page(), name)), (1, 1), "{text}");
    }

    printed(out.path(), throughput);
    let third = page();
    assert_eq!(blocks(&third, "throughput").len(), 1, "{third}");
    assert_ne!(blocks(&third, "throughput"), blocks(&first, "throughput"));
    assert_eq!(blocks(&third, "memory"), blocks(&second, "memory"));
}

/// The program with this on its standard input.
fn fed(out: &Path, arguments: &str, input: &str) -> Output {
    let mut program = program();
    program.arg("--out").arg(out).args(arguments.split(' '));
    program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = program.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn what_the_clients_measured_gets_into_its_own_part() {
    let out = tempfile::tempdir().unwrap();
    let page = || fs::read_to_string(out.path().join("benchmarks.md")).unwrap();
    for speed in ["1,234", "5,678"] {
        let table = format!(
            "#### Python 3.11\n\n| library | requests/s |\n| --- | --- |\n| limits | {speed} |\n"
        );
        let output = fed(out.path(), "clients", &table);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(blocks(&page(), "clients").len(), 1, "{}", page());
        assert!(page().contains(table.trim()), "{}", page());
    }
    let before = page();
    assert!(error(&fed(out.path(), "clients", "")).contains("no table"));
    assert_eq!(page(), before);
}

/// The file of instructions, with the one figure that it holds changed.
fn change_kept(file: &PathBuf, change: impl Fn(f64) -> f64) {
    let text = fs::read_to_string(file).unwrap();
    let (before, last) = text.trim_end().rsplit_once('\n').unwrap();
    let mut columns: Vec<String> = last.split('\t').map(str::to_owned).collect();
    columns[2] = format!("{:.0}", change(columns[2].parse().unwrap()));
    fs::write(file, format!("{before}\n{}\n", columns.join("\t"))).unwrap();
}

#[test]
fn more_instructions_than_were_kept_are_an_error() {
    let out = tempfile::tempdir().unwrap();
    let check = "instructions --check --calls 5000";
    assert!(printed(out.path(), check).contains("skipped: instructions.tsv has no"));
    if !has("valgrind") {
        return;
    }
    let denied = "RL.TOKENBUCKET denied";
    let file = out.path().join("instructions.tsv");
    let count = program()
        .arg("--out")
        .arg(out.path())
        .args(["instructions", "--calls", "5000", "--only", denied])
        .output()
        .unwrap();
    assert!(count.status.success(), "{count:?}");

    // A busy machine counts some per cent more: so what is told apart is far apart.
    change_kept(&file, |count| count * 1.2);
    let text = printed(out.path(), check);
    assert!(text.contains("more than 3 % below") && rows(&text, denied) == 1, "{text}");

    change_kept(&file, |count| count / 1.5);
    let message = error(&bench(out.path(), check));
    assert!(
        message.contains("more than 3 % more instructions") && message.contains(denied),
        "{message}"
    );

    fs::write(&file, "server\tcommand\tinstructions\tcompiler\nno row\n").unwrap();
    assert!(error(&bench(out.path(), check)).contains("has a line that is none: no row"));
}

#[test]
fn what_cannot_be_measured_is_said_in_a_line() {
    let out = tempfile::tempdir().unwrap();
    let nowhere = program()
        .arg("throughput")
        .env("PATH", out.path())
        .env("RL_SERVER", binary())
        .output()
        .unwrap();
    assert!(error(&nowhere).contains("there is no redis-benchmark"));
    let nowhere =
        program().args(["memory", "--keys", "64"]).env("RL_SERVER", "/no/server").output();
    assert!(error(&nowhere.unwrap()).contains("/no/server does not run"));
    if has("redis-benchmark") {
        let output = bench(out.path(), "throughput --cell /no/cell.so");
        assert!(error(&output).contains("CELL is /no/cell.so, which is no file"));
    }
    if has("valgrind") {
        let output = bench(out.path(), "instructions --only NOTHING");
        assert!(error(&output).contains("no command's name contains 'NOTHING'"));
    }
}
