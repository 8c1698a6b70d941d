//! `make replay` tells what a limit would have done to a log.

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use flate2::{Compression, write::GzEncoder};

fn replay(limit: &str, log: &str, input: &[u8]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_replay"))
        .args(["--limit", limit, log])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A wrong limit is told before the log is read: then nobody takes it.
    let _ = program.stdin.take().unwrap().write_all(input);
    program.wait_with_output().unwrap()
}

/// The value of a line of the output, without the share behind it.
fn value(output: &Output, name: &str) -> u64 {
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let line = line.unwrap_or_else(|| panic!("{output:?} has no line {name}"));
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn counts(output: &Output) -> [u64; 5] {
    ["requests ", "granted ", "denied ", "clients ", "lines not read "]
        .map(|name| value(output, name))
}

/// A line of the combined format, so many seconds into an hour.
fn line(client: &str, second: u64) -> String {
    let (minute, second) = (second / 60, second % 60);
    format!(
        "{client} - - [17/May/2015:10:{minute:02}:{second:02} +0000] \"GET /a HTTP/1.1\" 200 5 \"-\" \"curl/8\"\n"
    )
}

#[test]
fn a_limit_does_to_a_log_what_it_would_have_done_to_the_traffic() {
    let burst: String = (0..100).map(|_| line("192.0.2.1", 0)).collect();
    let calm: String = (0..100).map(|n| line("example.com", 2 * n)).collect();
    let log = burst + &calm;
    for (limit, denied) in [
        ("SLIDING 60 1m", 40),
        ("sliding 60 1m", 40),
        ("SLIDINGLOG 60 1m", 40),
        ("TOKENBUCKET 60 1", 40),
        ("LEAKYBUCKET 60 1", 40),
        ("FIXEDWINDOW 60 1m ALIGN 0", 40),
        ("SLIDING 50 1m BUCKETS 60", 50),
        ("SLIDING 60 1m; TOKENBUCKET 30 1", 70),
    ] {
        let output = replay(limit, "-", log.as_bytes());
        assert_eq!(counts(&output), [200, 200 - denied, denied, 2, 0], "{limit}: {output:?}");
    }
}

#[test]
fn a_log_may_be_gzip_and_a_file() {
    let log: String = (0..100).map(|_| line("2001:db8::1", 0)).collect();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("access log.gz");
    let mut encoder = GzEncoder::new(fs::File::create(&file).unwrap(), Compression::default());
    encoder.write_all(log.as_bytes()).unwrap();
    encoder.finish().unwrap();
    let output = replay("SLIDING 60 1m", file.to_str().unwrap(), b"");
    assert_eq!(counts(&output), [100, 60, 40, 1, 0]);
    let packed = fs::read(&file).unwrap();
    assert_eq!(counts(&replay("SLIDING 60 1m", "-", &packed)), [100, 60, 40, 1, 0]);
    let cut = replay("SLIDING 60 1m", "-", &packed[..packed.len() - 9]);
    assert!(!cut.status.success() && String::from_utf8_lossy(&cut.stderr).contains("cannot read"));
}

#[test]
fn lines_that_cannot_be_read_are_counted_and_not_fatal() {
    let mut log = b"no log line\n\n\xff\xfe\x00\n".to_vec();
    log.extend(line("192.0.2.1", 0).bytes());
    log.extend(b"192.0.2.1 - - [17/May/2015:10:00:00 +0000] \"\\x16\\x03\" 400 0 \"-\" \"\xff\"\n");
    log.extend(b"192.0.2.1 - - [17/May/9999:10:00:00 +0000] \"GET / HTTP/1.1\" 200 5\n");
    log.extend(b"192.0.2.1 - - [99/May/2015:10:00:00 +0000] \"GET / HTTP/1.1\" 200 5");
    let output = replay("SLIDING 1 1m", "-", &log);
    assert_eq!(counts(&output), [2, 1, 1, 1, 4]);
}

#[test]
fn the_most_denied_clients_come_first_and_equals_by_address() {
    let log: String =
        ["b", "a", "d", "c", "c", "b", "a", "c", "d", "e"].map(|c| line(c, 0)).concat();
    let output = replay("SLIDING 1 1m", "-", log.as_bytes());
    let text = String::from_utf8(output.stdout).unwrap();
    let table = text.split_once("\n\n").unwrap().1.lines().skip(2); // its header
    let rows: Vec<Vec<_>> = table
        .map(|row| row.split(['|', ' ']).filter(|word| !word.is_empty()).take(4).collect())
        .collect();
    assert_eq!(
        rows,
        [["c", "3", "1", "2"], ["a", "2", "1", "1"], ["b", "2", "1", "1"], ["d", "2", "1", "1"]]
    );
}

#[test]
fn a_log_that_steps_backwards_is_sorted_by_time() {
    // In the order of the log, the first would be the last to be sent.
    let log = line("192.0.2.1", 90) + &line("192.0.2.1", 0) + &line("192.0.2.1", 30);
    let output = replay("SLIDING 1 1m", "-", log.as_bytes());
    assert_eq!(counts(&output), [3, 2, 1, 1, 0]);
    assert_eq!(value(&output, "steps backwards "), 1);
}

#[test]
fn what_cannot_be_done_is_said_in_a_line() {
    for (limit, log, input, message) in [
        ("SLIDING 60 1x", "-", "", "window must be a duration"),
        ("SLIDING 60", "-", "", "window must be a duration"),
        ("NOTHING 60", "-", "", "a limit must begin with one of TOKENBUCKET"),
        ("CONCURRENCY 5 1m id", "-", "", "a lease needs the duration of each request"),
        (
            "SLIDING 5 1m; concurrency 5 1m id",
            "-",
            "",
            "a lease needs the duration of each request",
        ),
        ("", "-", "", "is no limit"),
        ("SLIDING 60 1m", "/does/not/exist", "", "cannot open /does/not/exist"),
        ("SLIDING 60 1m", "/", "", "cannot read /"),
        ("SLIDING 60 1m", "-", "", "has no requests"),
        ("SLIDING 60 1m", "-", "what\n", "has no requests (1 lines cannot be read)"),
    ] {
        let output = replay(limit, log, input.as_bytes());
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(message), "{limit}: {error}");
        assert_eq!((output.status.code(), error.lines().count()), (Some(1), 1), "{error}");
    }
}
