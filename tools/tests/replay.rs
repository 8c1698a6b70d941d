//! `make replay` tells what a limit would have done to a log.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use chrono::{DateTime, FixedOffset};
use flate2::{Compression, write::GzEncoder};

fn replay(limit: &str, log: &str, input: &[u8]) -> Output {
    run(&["--limit", limit, log], input)
}

fn run(arguments: &[&str], input: &[u8]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_replay"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A wrong limit is told before the log is read: then nobody takes it.
    let _ = program.stdin.take().unwrap().write_all(input);
    program.wait_with_output().unwrap()
}

/// What it prints when all is well.
fn printed(arguments: &[&str], input: &[u8]) -> String {
    let output = run(arguments, input);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The line that it ends with when something is wrong.
fn error(arguments: &[&str], input: &[u8]) -> String {
    let output = run(arguments, input);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), error.lines().count()), (Some(1), 1), "{error}");
    error
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

/// The rows of the table whose first column is named so.
fn table(text: &str, name: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| -> Vec<_> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let lines = text.lines().skip_while(|line| !line.starts_with(&format!("| {name} ")));
    lines.skip(2).take_while(|line| line.starts_with('|')).map(cells).collect()
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
    let rows = table(&text, "most denied");
    assert_eq!(
        rows,
        [
            ["c", "3", "1", "2 (66.7 %)"],
            ["a", "2", "1", "1 (50.0 %)"],
            ["b", "2", "1", "1 (50.0 %)"],
            ["d", "2", "1", "1 (50.0 %)"]
        ]
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
fn a_limit_may_block_and_what_its_blocks_did_is_listed() {
    // The second denial in a row begins a block of 10 minutes, which denies what the window would grant.
    let log = [0, 1, 2, 100, 200, 700].map(|second| line("192.0.2.1", second)).concat();
    for limit in ["SLIDING 1 1m BLOCK 10m AFTER 2", "SLIDING 1 1m; SLIDING 1 1m block 10m after 2"]
    {
        let output = replay(limit, "-", log.as_bytes());
        assert_eq!(counts(&output), [6, 2, 4, 1, 0], "{limit}: {output:?}");
        let blocks = ["denied by a block ", "blocks begun "].map(|name| value(&output, name));
        assert_eq!(blocks, [2, 1], "{limit}: {output:?}");
    }
    let without = printed(&["--limit", "SLIDING 1 1m", "-"], log.as_bytes());
    assert!(!without.contains("block"), "{without}");
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
        let error = error(&["--limit", limit, log], input.as_bytes());
        assert!(error.contains(message), "{limit}: {error}");
    }
}

/// A line of the common format, at a moment of a clock that is two hours ahead of UTC.
fn dated(client: &str, moment: i64) -> String {
    let zone = FixedOffset::east_opt(7_200).unwrap();
    let time = DateTime::from_timestamp(moment, 0).unwrap().with_timezone(&zone);
    format!("{client} - - [{}] \"GET / HTTP/1.1\" 200 5\n", time.format("%d/%b/%Y:%H:%M:%S %z"))
}

/// How many rectangles of the picture have a colour, the one in the legend not counted.
fn bars(svg: &str, color: &str) -> usize {
    svg.split("<rect").filter(|shape| shape.contains(&format!("fill=\"{color}\""))).count() - 1
}

const GRANTED: &str = "#1F77B4";
const DENIED: &str = "#D62728";

#[test]
fn a_picture_shows_what_was_granted_and_denied_when() {
    let burst: String = (0..100).map(|_| line("192.0.2.1", 0)).collect();
    let calm: String = (0..100).map(|n| line("example.com", 2 * n)).collect();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a picture.SVG");
    fs::write(&file, "an older one").unwrap();
    let log = burst + &calm;
    let limit = "SLIDING  60 1m;TOKENBUCKET 1000 1";
    let text = printed(&["--limit", limit, "--plot", file.to_str().unwrap(), "-"], log.as_bytes());
    assert!(text.contains("denied            40 (20.0 %)"), "{text}");
    let svg = fs::read_to_string(&file).unwrap();
    // A bar for each 2 s; that of the first has all the denials.
    assert_eq!((bars(&svg, GRANTED), bars(&svg, DENIED)), (100, 1));
    for text in [
        "\nSLIDING 60 1m; TOKENBUCKET 1000 1: denied 40 (20.0 %) of 200 requests\n",
        "\ngranted\n",
        "\ndenied\n",
        "\nrequests in 2 s\n",
        "\n17 May 2015 10:00:00 to 17 May 2015 10:03:20, UTC\n",
        "\n10:01:00\n",
    ] {
        assert!(svg.contains(text), "{text}{svg}");
    }
}

#[test]
fn bars_and_labels_suit_a_log_of_any_length() {
    let start = 1_431_860_003; // 2015-05-17T10:53:23Z
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.svg");
    for (seconds, bar, from, label) in [
        (0, "1 s", "17 May 2015 12:53:23 to 17 May 2015 12:53:24", "12:53:24"),
        (1, "1 s", "17 May 2015 12:53:23 to 17 May 2015 12:53:25", "12:53:24"),
        (118, "1 s", "17 May 2015 12:53:23 to 17 May 2015 12:55:22", "12:54:00"),
        (119, "2 s", "17 May 2015 12:53:22 to 17 May 2015 12:55:24", "12:54:00"),
        (3_600, "1 min", "17 May 2015 12:53:00 to 17 May 2015 13:54:00", "17 May 13:00"),
        (86_400, "15 min", "17 May 2015 12:45:00 to 18 May 2015 13:00:00", "18 May 00:00"),
        (30 * 86_400, "12 h", "17 May 2015 12:00:00 to 17 Jun 2015 00:00:00", "25 May 2015"),
        (400 * 86_400, "7 d", "11 May 2015 00:00:00 to 27 Jun 2016 00:00:00", "13 Jul 2015"),
        (31_000 * 86_400, "448 d", "24 Feb 2014 00:00:00 to ", "29 Jun 2048"),
    ] {
        let log = dated("a", start) + &dated("a", start + seconds) + &dated("b", start + seconds);
        printed(
            &["--limit", "SLIDING 1 1s", "--plot", file.to_str().unwrap(), "-"],
            log.as_bytes(),
        );
        let svg = fs::read_to_string(&file).unwrap();
        let count = if seconds == 0 { 1 } else { 2 };
        let denied = usize::from(seconds == 0);
        assert_eq!((bars(&svg, GRANTED), bars(&svg, DENIED)), (count, denied), "{seconds}");
        for text in [&format!("\nrequests in {bar}\n"), from, ", UTC+02:00\n", label] {
            assert!(svg.contains(text), "{seconds} s: {text}{svg}");
        }
    }
}

#[test]
fn a_picture_that_cannot_be_drawn_is_said_before_the_log_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("folder.svg");
    fs::create_dir(&folder).unwrap();
    for (file, message) in [
        ("a.png", "'a.png' must end in .svg"),
        ("svg", "'svg' must end in .svg"),
        ("/does/not/exist/a.svg", "cannot write /does/not/exist/a.svg: "),
        ("/proc/a.svg", "cannot write /proc/a.svg: "),
        (folder.to_str().unwrap(), "folder.svg: Is a directory"),
    ] {
        let arguments = ["--limit", "SLIDING 1 1m", "--plot", file, "/no/log"];
        let error = error(&arguments, b"");
        assert!(error.contains(message), "{file}: {error}");
    }
    let error = error(&["--suggest", "1m", "--plot", "a.svg", "-"], b"");
    assert!(error.contains("give a limit, too"), "{error}");
}

#[test]
fn a_log_without_requests_leaves_no_picture_and_an_older_one_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (new, old) = (dir.path().join("new.svg"), dir.path().join("old.svg"));
    fs::write(&old, "old").unwrap();
    for file in [&new, &old] {
        let arguments = ["--limit", "SLIDING 1 1m", "--plot", file.to_str().unwrap(), "-"];
        assert!(error(&arguments, b"").contains("has no requests"));
    }
    assert!(!new.exists());
    assert_eq!(fs::read(&old).unwrap(), b"old");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// A log of half an hour: a few clients ask for much, many for little, some in bursts. Always the same.
fn uneven_log() -> (String, BTreeMap<u64, Vec<u64>>) {
    let mut state = 1u64;
    let mut random = move |below: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut times: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for client in 0..250 {
        let requests = 1 + 600 / (client + 1) + random(20);
        let burst = random(1_700);
        for number in 0..requests {
            let time = if number % 3 == 0 { burst + random(40) } else { random(1_800) };
            times.entry(client).or_default().push(time);
        }
    }
    let mut lines: Vec<_> = times
        .iter()
        .flat_map(|(client, times)| {
            times.iter().map(move |&time| (time, format!("10.0.0.{client}")))
        })
        .collect();
    lines.sort_unstable();
    (lines.iter().map(|(time, client)| line(client, *time)).collect(), times)
}

/// The most requests of a client in any window, counted the slow way.
fn most_in_any(times: &[u64], window: u64) -> u64 {
    let within = |end: u64| times.iter().filter(|&&t| t <= end && end - t < window).count() as u64;
    times.iter().map(|&end| within(end)).max().unwrap()
}

#[test]
fn a_suggested_limit_affects_as_few_clients_as_it_says_and_one_less_does_not() {
    let (log, times) = uneven_log();
    let clients = times.len() as u64;
    let affected = |limit: &str| value(&replay(limit, "-", log.as_bytes()), "clients affected ");
    for (window, seconds) in [("1m", 60), ("10s", 10)] {
        let text = printed(&["--suggest", window, "-"], log.as_bytes());
        assert!(!text.contains("denied  "), "{text}");

        let mut most: Vec<_> = times.values().map(|times| most_in_any(times, seconds)).collect();
        most.sort_unstable();
        let percentiles = table(&text, "share of clients");
        let names = ["50 %", "75 %", "90 %", "95 %", "99 %", "99.9 %", "100 %"];
        let ranks = [500, 750, 900, 950, 990, 999, 1_000].map(|n| (most.len() * n).div_ceil(1_000));
        let rows = names.iter().zip(ranks);
        let rows = rows.map(|(name, rank)| vec![(*name).to_owned(), most[rank - 1].to_string()]);
        assert_eq!(percentiles, rows.collect::<Vec<_>>(), "{window}");

        let suggestions = table(&text, "affects at most");
        assert_eq!(suggestions.len(), 3, "{text}");
        for (row, per_mille) in suggestions.iter().zip([1, 10, 50]) {
            let words: Vec<_> = row[1].split(' ').collect();
            let ["RL.SLIDING", "key", limit, last] = words[..] else { panic!("{row:?}") };
            assert_eq!(last, window);
            let limit: u64 = limit.parse().unwrap();
            let output = replay(&format!("SLIDING {limit} {window}"), "-", log.as_bytes());
            let real = ["clients affected ", "denied "].map(|name| value(&output, name));
            let said = [&row[2], &row[3]]
                .map(|cell| cell.split(' ').next().unwrap().parse::<u64>().unwrap());
            assert_eq!(said, real, "{row:?}: {output:?}");
            let is_few = |affected: u64| affected * 1_000 <= clients * per_mille;
            assert!(is_few(real[0]), "{row:?}");
            assert!(is_few(affected(&format!("SLIDINGLOG {limit} {window}"))), "{row:?}");
            assert!(!is_few(affected(&format!("SLIDING {} {window}", limit - 1))), "{row:?}");
        }
        // The percentiles are the limits of a window that is exact.
        let limit: u64 = percentiles[4][1].parse().unwrap();
        assert!(affected(&format!("SLIDINGLOG {limit} {window}")) * 100 <= clients);
        assert!(affected(&format!("SLIDINGLOG {} {window}", limit - 1)) * 100 > clients);
    }
}

#[test]
fn a_limit_and_a_suggestion_may_be_asked_for_at_once() {
    let (log, _) = uneven_log();
    let alone = printed(&["--limit", "SLIDING 20 1m", "-"], log.as_bytes());
    let suggestion = printed(&["--suggest", "1m", "-"], log.as_bytes());
    let tables = suggestion.split_once("\n\n").unwrap().1;
    let both = printed(&["--limit", "SLIDING 20 1m", "--suggest", "1m", "-"], log.as_bytes());
    assert_eq!(both, format!("{alone}\n{tables}"));
}

#[test]
fn a_suggestion_for_one_request_is_one() {
    for window in ["1ms", "500ms", "60", "0.5", "1h", "3650d"] {
        let text = printed(&["--suggest", window, "-"], line("a", 0).as_bytes());
        let rows = table(&text, "affects at most");
        let expected =
            [format!("RL.SLIDING key 1 {window}"), "0 (0.0 %)".into(), "0 (0.0 %)".into()];
        assert!(rows.len() == 3 && rows.iter().all(|row| row[1..] == expected), "{text}");
    }
}

#[test]
fn a_window_that_is_none_is_said_before_the_log_is_read() {
    for window in ["", "1x", "0", "-1m", "day", "1m 2", "1M", "3651d", "1m BUCKETS"] {
        let error = error(&[&format!("--suggest={window}"), "/no/log"], b"");
        let message = format!("'{window}' is no window: window must be a duration");
        assert!(error.contains(&message), "{error}");
    }
    assert!(error(&["--suggest", "1m", "-"], b"what\n").contains("has no requests"));
}

/// The variables of each `make replay` of a page, as the shell reads them.
fn documented_calls(page: &str) -> Vec<BTreeMap<String, String>> {
    let calls = page.lines().filter_map(|line| line.strip_prefix("    make replay "));
    let words = |call: &str| {
        let script = format!("printf '%s\\n' {call}");
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        let variables = String::from_utf8(output.stdout).unwrap();
        let variables = variables.lines().map(|word| word.split_once('=').unwrap());
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    calls.map(words).collect()
}

/// What a reader recognizes of an output: the names of its rows and the headings of its tables.
fn names(output: &str) -> BTreeSet<String> {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let is_heading = |line: &&str| {
        line.starts_with("| most") || line.starts_with("| share") || line.starts_with("| affects")
    };
    let headings = output.lines().filter(is_heading).map(words);
    let rows = output.lines().filter_map(|line| line.split_once("  ")).map(|(name, _)| words(name));
    headings.chain(rows.filter(|name| !name.is_empty() && !name.starts_with('|'))).collect()
}

#[test]
fn the_pages_show_calls_that_work_and_what_they_print() {
    let (log, _) = uneven_log();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let page = fs::read_to_string(root.join("docs/replay.md")).unwrap();
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let calls = documented_calls(&page);
    assert_eq!((calls.len(), documented_calls(&readme).len()), (3, 2));
    let mut prints = BTreeSet::new();
    for call in calls.iter().chain(&documented_calls(&readme)) {
        let mut arguments = Vec::new();
        for (name, value) in call {
            match &**name {
                "LOG" => {}
                "LIMIT" => arguments.push(format!("--limit={value}")),
                "SUGGEST" => arguments.push(format!("--suggest={value}")),
                "PLOT" => arguments.push(format!("--plot={}", dir.path().join(value).display())),
                _ => panic!("{call:?}"),
            }
        }
        arguments.push("-".into());
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        prints.extend(names(&printed(&arguments, log.as_bytes())));
    }
    let blocks = page.split("```text\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let shown: BTreeSet<_> = blocks.flat_map(names).collect();
    assert_eq!(shown, prints);
    assert!(dir.path().join("replay.svg").exists());
}
