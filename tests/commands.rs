//! What every command replies: rows on a virtual clock.

use std::collections::HashMap;

use redis::{Connection, Value};

use crate::client::{T0, at, digest, send, used};
use crate::server::{Server, info};

fn server() -> Server {
    Server::builder().virtual_clock().start().unwrap()
}

/// Rows of a moment in milliseconds, a command, and its reply.
fn check(rows: &[(u64, &str, &[i64])]) {
    let server = server();
    let mut connection = server.connection().unwrap();
    for (millis, line, expected) in rows {
        let reply = at(&mut connection, millis * 1_000, line);
        assert_eq!(&reply, expected, "{line} at {millis} ms");
    }
}

#[test]
fn a_token_bucket_lets_a_burst_pass_and_then_its_rate() {
    check(&[
        (0, "RL.TOKENBUCKET k 3 1", &[1, 3, 2, 0, 1_000]),
        (0, "RL.TOKENBUCKET k 3 1 COST 2", &[1, 3, 0, 0, 3_000]),
        (0, "RL.TOKENBUCKET k 3 1", &[0, 3, 0, 1_000, 3_000]),
        (999, "RL.TOKENBUCKET k 3 1", &[0, 3, 0, 1, 2_001]),
        (1_000, "RL.TOKENBUCKET k 3 1", &[1, 3, 0, 0, 3_000]),
        (1_000, "RL.TOKENBUCKET k 3 1 COST 4", &[0, 3, 0, -1, 3_000]),
        (4_000, "RL.TOKENBUCKET k 3 1 COST 0", &[1, 3, 3, 0, 0]),
    ]);
}

#[test]
fn a_leaky_bucket_tells_turns_that_are_one_rate_apart() {
    check(&[
        (0, "RL.LEAKYBUCKET k 3 1", &[1, 3, 2, 0, 1_000]),
        (0, "RL.LEAKYBUCKET k 3 1", &[1, 3, 1, 1_000, 2_000]),
        (500, "RL.LEAKYBUCKET k 3 1", &[1, 3, 0, 1_500, 2_500]),
        (500, "RL.LEAKYBUCKET k 3 1", &[0, 3, 0, 500, 2_500]),
        (1_000, "RL.LEAKYBUCKET k 3 1", &[1, 3, 0, 2_000, 3_000]),
    ]);
}

#[test]
fn a_fixed_window_starts_anew_when_it_ends() {
    check(&[
        (0, "RL.FIXEDWINDOW k 2 1s", &[1, 2, 1, 0, 1_000]),
        (900, "RL.FIXEDWINDOW k 2 1s", &[1, 2, 0, 0, 100]),
        (999, "RL.FIXEDWINDOW k 2 1s", &[0, 2, 0, 1, 1]),
        (1_000, "RL.FIXEDWINDOW k 2 1s", &[1, 2, 1, 0, 1_000]),
    ]);
}

#[test]
fn an_aligned_window_ends_where_the_calendar_says() {
    // T0 is 07:06:40 of a day in UTC. The day of UTC+8 ends at 16:00.
    let day: u64 = 86_400_000;
    assert_eq!(T0 / 1_000 % day, 25_600_000, "T0 is 07:06:40");
    let to_midnight = i64::try_from(day - 25_600_000).unwrap();
    let to_midnight_of_8 = to_midnight - 8 * 3_600_000;
    check(&[
        (0, "RL.FIXEDWINDOW utc 2 1d ALIGN 0", &[1, 2, 1, 0, to_midnight]),
        (0, "RL.FIXEDWINDOW east 2 1d ALIGN -8h", &[1, 2, 1, 0, to_midnight_of_8]),
        (0, "RL.FIXEDWINDOW east 2 1d ALIGN 16h", &[1, 2, 0, 0, to_midnight_of_8]),
    ]);
}

#[test]
fn a_calendar_window_ends_with_its_day_week_month_or_year() {
    // T0 is Tuesday, 2096-10-02, 07:06:40.
    let day: i64 = 86_400_000;
    let (midnight, hour) = (day - 25_600_000, day / 24);
    check(&[
        (0, "RL.FIXEDWINDOW d 2 day", &[1, 2, 1, 0, midnight]),
        (0, "RL.FIXEDWINDOW w 2 week", &[1, 2, 1, 0, midnight + 5 * day]),
        (0, "RL.FIXEDWINDOW m 2 month", &[1, 2, 1, 0, midnight + 29 * day]),
        (0, "RL.FIXEDWINDOW y 2 year", &[1, 2, 1, 0, midnight + 90 * day]),
        (0, "RL.FIXEDWINDOW east 2 month ALIGN -8h", &[1, 2, 1, 0, midnight + 29 * day - 8 * hour]),
        // Just before November, and in it.
        (30 * 86_400_000 - 25_600_001, "RL.FIXEDWINDOW m 2 month", &[1, 2, 0, 0, 1]),
        (30 * 86_400_000 - 25_600_001, "RL.FIXEDWINDOW m 2 month", &[0, 2, 0, 1, 1]),
        (30 * 86_400_000 - 25_600_000, "RL.FIXEDWINDOW m 2 month", &[1, 2, 1, 0, 30 * day]),
    ]);
    let server = server();
    let mut connection = server.connection().unwrap();
    at(&mut connection, 0, "RL.FIXEDWINDOW m 2 month");
    let info: Vec<Value> = send(&mut connection, &format!("RL.INFO m AT {T0}"));
    let window = Value::Int(31 * day * 1_000);
    assert!(info.contains(&window), "RL.INFO shows the month's length: {info:?}");
}

#[test]
fn a_sliding_window_never_holds_more_than_its_limit() {
    for command in ["RL.SLIDING", "RL.SLIDINGLOG"] {
        let line = format!("{command} k 2 1s");
        check(&[
            (0, &line, &[1, 2, 1, 0, 1_000]),
            (500, &line, &[1, 2, 0, 0, 1_000]),
            (999, &line, &[0, 2, 0, 1, 501]),
            (1_000, &line, &[1, 2, 0, 0, 1_000]),
            (1_000, &line, &[0, 2, 0, 500, 1_000]),
        ]);
    }
}

#[test]
fn a_sliding_window_gives_merged_hits_back_together_and_a_log_one_by_one() {
    check(&[
        (0, "RL.SLIDING k 2 1s BUCKETS 2", &[1, 2, 1, 0, 1_000]),
        (499, "RL.SLIDING k 2 1s BUCKETS 2", &[1, 2, 0, 0, 1_000]),
        (499, "RL.SLIDING k 2 1s BUCKETS 2", &[0, 2, 0, 1_000, 1_000]),
        (0, "RL.SLIDINGLOG l 2 1s", &[1, 2, 1, 0, 1_000]),
        (499, "RL.SLIDINGLOG l 2 1s", &[1, 2, 0, 0, 1_000]),
        (499, "RL.SLIDINGLOG l 2 1s", &[0, 2, 0, 501, 1_000]),
    ]);
}

#[test]
fn every_option_works_on_every_algorithm() {
    for limits in [
        "TOKENBUCKET k 10 10",
        "LEAKYBUCKET k 10 10",
        "FIXEDWINDOW k 10 1s",
        "SLIDING k 10 1s",
        "SLIDINGLOG k 10 1s",
    ] {
        let server = server();
        let mut connection = server.connection().unwrap();
        let mut ask = |options: &str| at(&mut connection, 0, &format!("RL.{limits} {options}"));
        assert_eq!(ask("cost 8")[..3], [1, 10, 2], "{limits}");
        let partial = ask("PARTIAL COST 5");
        assert_eq!((partial[2], partial[5]), (0, 2), "{limits} takes what there is");
        let denied = ask("PARTIAL COST 5");
        assert_eq!((denied[0], denied[5]), (0, 0), "{limits}");
        assert!(denied[3] > 0, "{limits} waits for one unit");
        assert_eq!(ask("FORCE COST 7")[..3], [1, 10, 0], "{limits} goes into debt");
        assert_eq!(ask("COST 0")[..4], [1, 10, 0, 0], "{limits} can be looked at");
        assert_eq!(ask("COST 11")[3], -1, "{limits} never grants more than its limit");
        let used = used(&mut connection, "k", &format!("AT {T0}"));
        assert_eq!(used, 17, "{limits}: 8 + 2 + 7 are used");
    }
}

#[test]
fn peek_tells_what_the_same_request_then_gets_and_writes_nothing() {
    let server = server();
    let mut connection = server.connection().unwrap();
    assert_eq!(send::<Option<Vec<i64>>>(&mut connection, "RL.PEEK k"), None);
    at(&mut connection, 0, "RL.TOKENBUCKET k 10 1 COST 8");
    let before = digest(&mut connection, "k");
    assert_eq!(at(&mut connection, 0, "RL.PEEK k"), [1, 10, 2, 0, 8_000]);
    assert_eq!(at(&mut connection, 0, "RL.PEEK k COST 3"), [0, 10, 2, 1_000, 8_000]);
    assert_eq!(at(&mut connection, 0, "RL.PEEK k COST 11"), [0, 10, 2, -1, 8_000]);
    assert_eq!(digest(&mut connection, "k"), before);
    assert_eq!(at(&mut connection, 0, "RL.TOKENBUCKET k 10 1 COST 3"), [0, 10, 2, 1_000, 8_000]);
    let idle: Option<Vec<i64>> = send(&mut connection, &format!("RL.PEEK k AT {}", T0 + 8_000_000));
    assert_eq!(idle, None, "a limiter as if never used is no limiter");
}

#[test]
fn refund_and_reset_undo() {
    let server = server();
    let mut connection = server.connection().unwrap();
    at(&mut connection, 0, "RL.SLIDING k 10 1s COST 8");
    assert_eq!(at(&mut connection, 0, "RL.REFUND k 3"), [1, 10, 5, 0, 1_000]);
    assert_eq!(at(&mut connection, 0, "RL.REFUND k 0"), [1, 10, 5, 0, 1_000]);
    assert_eq!(at(&mut connection, 0, "RL.REFUND k 99"), [1, 10, 10, 0, 0]);
    assert_eq!(send::<i64>(&mut connection, "EXISTS k"), 0);
    let nothing: Option<Vec<i64>> = send(&mut connection, "RL.REFUND k 1");
    assert_eq!(nothing, None);
    at(&mut connection, 0, "RL.SLIDING k 10 1s");
    at(&mut connection, 0, "RL.TOKENBUCKET l 10 1");
    assert_eq!(send::<i64>(&mut connection, "RL.RESET k l missing k"), 2);
    assert_eq!(send::<i64>(&mut connection, "DBSIZE"), 0);
}

#[test]
fn a_key_of_another_kind_is_left_alone() {
    let server = server();
    let mut connection = server.connection().unwrap();
    send::<()>(&mut connection, "SET text hello");
    at(&mut connection, 0, "RL.TOKENBUCKET k 1 1");
    for line in [
        "RL.TOKENBUCKET text 1 1",
        "RL.SLIDING text 1 1",
        "RL.PEEK text",
        "RL.INFO text",
        "RL.REFUND text 1",
        "RL.RESET k text",
    ] {
        let words: Vec<_> = line.split(' ').map(str::as_bytes).collect();
        let error = crate::client::error(&mut connection, &words);
        assert!(error.starts_with("WRONGTYPE "), "{line}: {error}");
    }
    assert_eq!(send::<i64>(&mut connection, "EXISTS k text"), 2, "RL.RESET removed nothing");
    let line = format!("RL.SLIDING k 1 1 AT {T0}");
    let words: Vec<_> = line.split(' ').map(str::as_bytes).collect();
    let error = crate::client::error(&mut connection, &words);
    assert_eq!(
        error,
        "WRONGTYPE the key holds a TOKENBUCKET limiter, not SLIDING; delete it with RL.RESET first"
    );
    // One second later the bucket is as if never used: it is no limiter any more.
    assert_eq!(at(&mut connection, 1_000_000, "RL.SLIDING k 1 1"), [1, 1, 0, 0, 1_000]);
}

#[test]
fn a_foreign_string_keeps_its_encoding() {
    let server = Server::start().unwrap();
    let mut connection = server.connection().unwrap();
    send::<()>(&mut connection, "SET number 5");
    send::<()>(&mut connection, "SET text hello EX 100");
    // As redis-cell writes it, but only its own command may take it for a limiter.
    send::<()>(&mut connection, "SET cell 1764000000000000000 EX 100");
    let encodings = |connection: &mut Connection| -> Vec<String> {
        ["number", "text", "cell"]
            .map(|key| send(connection, &format!("OBJECT ENCODING {key}")))
            .into()
    };
    let before = encodings(&mut connection);
    for key in ["number", "text", "cell"] {
        for line in [
            format!("RL.PEEK {key}"),
            format!("RL.INFO {key}"),
            format!("RL.TOKENBUCKET {key} 1 1"),
            format!("RL.MULTI 1 {key} TOKENBUCKET 1 1"),
            format!("RL.REFUND {key} 1"),
            format!("RL.RESET {key}"),
        ] {
            let words: Vec<_> = line.split(' ').map(str::as_bytes).collect();
            let error = crate::client::error(&mut connection, &words);
            assert!(error.starts_with("WRONGTYPE "), "{line}: {error}");
        }
    }
    for key in ["number", "text"] {
        let words: Vec<_> = [b"CL.THROTTLE", key.as_bytes(), b"1", b"1", b"1"].into();
        assert!(crate::client::error(&mut connection, &words).starts_with("WRONGTYPE "));
    }
    assert_eq!(encodings(&mut connection), before, "an error changes nothing");
}

#[test]
fn a_limiter_is_a_type_of_its_own() {
    let server = Server::start().unwrap();
    let mut connection = server.connection().unwrap();
    send::<()>(&mut connection, "SET text hello");
    send::<Value>(&mut connection, "RL.SLIDING k 5 1m");
    assert_eq!(send::<String>(&mut connection, "TYPE k"), "ratelimit");
    let (_, found): (String, Vec<String>) =
        send(&mut connection, "SCAN 0 COUNT 100 TYPE ratelimit");
    assert_eq!(found, ["k"]);
}

#[test]
fn settings_have_bounds_and_only_one_may_change_at_run_time() {
    let server = Server::start().unwrap();
    let mut connection = server.connection().unwrap();
    let ask = "RL.SLIDINGLOG k 11 1m COST 0";
    send::<()>(&mut connection, "CONFIG SET rl.max-log-entries 10");
    let words: Vec<_> = ask.split(' ').map(str::as_bytes).collect();
    assert!(crate::client::error(&mut connection, &words).contains("from 0 to 10 "));
    send::<()>(&mut connection, "CONFIG SET rl.max-log-entries 11");
    send::<Vec<i64>>(&mut connection, ask);
    for line in [
        "CONFIG SET rl.max-log-entries 0",
        "CONFIG SET rl.max-log-entries 10000001",
        "CONFIG SET rl.cl-throttle no",
        "CONFIG SET rl.client-clock yes",
    ] {
        let words: Vec<_> = line.split(' ').map(str::as_bytes).collect();
        crate::client::error(&mut connection, &words);
    }
}

#[test]
fn replies_are_integers_and_maps_in_resp3_too() {
    let server = Server::start().unwrap();
    let mut connection = server.connection().unwrap();
    send::<Value>(&mut connection, "HELLO 3");
    let reply: Value = send(&mut connection, "RL.TOKENBUCKET k 5 5/m");
    assert_eq!(reply, Value::Array([1, 5, 4, 0, 12_000].map(Value::Int).into()));
    match send::<Value>(&mut connection, "RL.INFO k") {
        Value::Map(fields) => {
            assert_eq!(fields[1], (Value::BulkString(b"limit".into()), Value::Int(5)))
        }
        other => panic!("{other:?} is no map"),
    }
    assert_eq!(send::<Value>(&mut connection, "RL.PEEK nothing"), Value::Nil);
}

#[test]
fn a_key_goes_by_itself_when_its_limiter_is_idle() {
    let server = server();
    let mut connection = server.connection().unwrap();
    for (line, reset) in [
        ("RL.TOKENBUCKET a 100 100/60 COST 20", 12_000),
        ("RL.LEAKYBUCKET b 100 100/60 COST 20", 12_000),
        ("RL.FIXEDWINDOW c 5 1m", 60_000),
        ("RL.SLIDING d 5 1m", 60_000),
        ("RL.SLIDINGLOG e 5 1m", 60_000),
    ] {
        let key = line.split(' ').nth(1).unwrap();
        let now = (T0 / 1_000) as i64;
        // A second grant may leave the expiry alone, a user's own expiry may not stay.
        for expiry in ["", "PERSIST", "PEXPIREAT"] {
            match expiry {
                "PERSIST" => send::<()>(&mut connection, &format!("PERSIST {key}")),
                "PEXPIREAT" => {
                    send::<()>(&mut connection, &format!("PEXPIREAT {key} {}", now + 5_000));
                }
                _ => {}
            }
            let reply = at(&mut connection, 0, line);
            let expires: i64 = send(&mut connection, &format!("PEXPIRETIME {key}"));
            let left = expires - now;
            assert!(reply[0] == 1 && reply[4] <= 3 * reset, "{line}: {reply:?}");
            assert!(left >= reply[4], "{line}: {left} after {expiry:?}: {reply:?}");
            assert!(left <= 2 * reply[4] + 1_000, "{line}: {left} after {expiry:?}: {reply:?}");
        }
    }
}

#[test]
fn info_tells_all_about_a_limiter() {
    let server = server();
    let mut connection = server.connection().unwrap();
    at(&mut connection, 0, "RL.FIXEDWINDOW k 10 1d ALIGN -8h COST 3");
    let words: Vec<Value> = send(&mut connection, &format!("RL.INFO k AT {T0}"));
    let text: Vec<String> = words
        .iter()
        .map(|word| match word {
            Value::Int(number) => number.to_string(),
            Value::BulkString(bytes) => String::from_utf8(bytes.clone()).unwrap(),
            other => panic!("{other:?}"),
        })
        .collect();
    let line = text.join(" ");
    let expected = "algorithm FIXEDWINDOW limit 10 window_us 86400000000 align_us 57600000000 used 3 remaining 7 wait_ms 0 reset_ms ";
    assert!(line.starts_with(expected), "{line}");
    let bytes: i64 = text.last().unwrap().parse().unwrap();
    assert!((32..=64).contains(&bytes), "{line}");
}

#[test]
fn the_server_counts_what_was_granted_and_denied() {
    let server = Server::start().unwrap();
    let mut connection = server.connection().unwrap();
    for _ in 0..3 {
        send::<Vec<i64>>(&mut connection, "RL.SLIDING k 2 1m");
    }
    send::<Vec<i64>>(&mut connection, "RL.SLIDING k 2 1m COST 0");
    let stats = info(&mut connection, "modules").unwrap();
    for line in [
        concat!("rl_version:", env!("CARGO_PKG_VERSION")),
        "rl_sliding_granted:2",
        "rl_sliding_denied:1",
        "rl_tokenbucket_granted:0",
    ] {
        assert!(stats.contains(line), "{line} is not in {stats}");
    }
    assert!(stats.contains("# rl_stats"), "{stats}");
}

#[test]
fn the_server_shows_the_package_s_version_two_digits_a_part() {
    let server = Server::start().unwrap();
    let mut connection = server.connection().unwrap();
    let parts = env!("CARGO_PKG_VERSION").split('.').map(|part| part.parse::<i64>().unwrap());
    let expected = parts.fold(0, |version, part| version * 100 + part);
    let modules: Vec<HashMap<String, Value>> = send(&mut connection, "MODULE LIST");
    let ours = modules.iter().find(|module| module["name"] == Value::BulkString(b"rl".into()));
    assert_eq!(ours.unwrap()["ver"], Value::Int(expected));
}

#[test]
fn the_server_knows_the_commands_as_the_table_declares_them() {
    let server = Server::start().unwrap();
    let mut connection = server.connection().unwrap();
    for (line, keys) in [
        ("RL.TOKENBUCKET a 1 1", vec!["a"]),
        ("RL.SLIDING a 1 1 BUCKETS 2", vec!["a"]),
        ("RL.PEEK a", vec!["a"]),
        ("RL.REFUND a 1", vec!["a"]),
        ("RL.RESET a b c", vec!["a", "b", "c"]),
        ("RL.MULTI 2 a b SLIDING 1 1 SLIDING 1 1", vec!["a", "b"]),
        ("RL.ACQUIRE a 1 1 id", vec!["a"]),
        ("RL.RENEW a 1 id id", vec!["a"]),
        ("RL.RELEASE a id id", vec!["a"]),
        ("RL.LEASES a", vec!["a"]),
        ("RL.SETTLE 2 a b 1 1", vec!["a", "b"]),
        ("CL.THROTTLE a 1 1 1", vec!["a"]),
        ("RL._ADD a effect", vec!["a"]),
        ("RL._RESTORE a state", vec!["a"]),
    ] {
        let found: Vec<String> = send(&mut connection, &format!("COMMAND GETKEYS {line}"));
        assert_eq!(found, keys, "{line}");
    }
    let commands: Vec<String> = send(&mut connection, "COMMAND LIST FILTERBY MODULE rl");
    for command in &commands {
        let docs: HashMap<String, HashMap<String, Value>> =
            send(&mut connection, &format!("COMMAND DOCS {command}"));
        for part in ["summary", "complexity", "since"] {
            match &docs[command][part] {
                Value::BulkString(text) => assert!(!text.is_empty(), "{command} has no {part}"),
                other => panic!("{command}: {part} is {other:?}"),
            }
        }
        match &docs[command]["arguments"] {
            Value::Array(arguments) => assert!(!arguments.is_empty(), "{command}"),
            other => panic!("{command}: arguments are {other:?}"),
        }
    }
    assert_eq!(commands.len(), 20, "{commands:?}");
}
