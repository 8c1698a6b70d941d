//! RL.MULTI decides several limits as one: all grant, or nothing is taken from any.

use redis::Connection;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::client::{T0, at, digest, error, send};
use crate::server::Server;

/// What RL.MULTI answers.
#[derive(Debug, PartialEq)]
struct Reply {
    allowed: bool,
    wait_ms: i64,
    refused: i64,
    rows: Vec<Vec<i64>>,
}

fn server() -> (Server, Connection) {
    let server = Server::builder().virtual_clock().start().unwrap();
    let connection = server.connection().unwrap();
    (server, connection)
}

fn multi(connection: &mut Connection, micros: u64, line: &str) -> Reply {
    let line = format!("RL.MULTI {line} AT {}", T0 + micros);
    let (allowed, wait_ms, refused, rows) = match send::<Vec<redis::Value>>(connection, &line) {
        reply if reply.len() > 3 => {
            let integer = |index: usize| redis::from_redis_value_ref::<i64>(&reply[index]).unwrap();
            let rows = reply[3..].iter().map(|row| redis::from_redis_value_ref(row).unwrap());
            (integer(0), integer(1), integer(2), rows.collect())
        }
        reply => panic!("{line}: {reply:?}"),
    };
    Reply { allowed: allowed == 1, wait_ms, refused, rows }
}

#[test]
fn a_second_a_day_and_an_address_are_one_decision() {
    let (_server, mut connection) = server();
    let line = "3 {u}:s {u}:d {u}:ip TOKENBUCKET 10 10 FIXEDWINDOW 5000 1d SLIDING 2 1m";
    let reply = multi(&mut connection, 0, line);
    assert_eq!((reply.allowed, reply.wait_ms, reply.refused), (true, 0, -1));
    assert_eq!(reply.rows[0], [1, 10, 9, 0, 100]);
    assert_eq!(reply.rows[1], [1, 5_000, 4_999, 0, 86_400_000]);
    assert_eq!(reply.rows[2], [1, 2, 1, 0, 60_000]);
    let refused = multi(&mut connection, 10_000, &format!("{line} COST 2"));
    assert_eq!((refused.allowed, refused.wait_ms, refused.refused), (false, 59_990, 2));
    assert_eq!(refused.rows[0], [1, 10, 9, 0, 90], "as it stands, with nothing taken");
    assert_eq!(refused.rows[2], [0, 2, 1, 59_990, 59_990]);
}

#[test]
fn the_reply_names_the_first_refusal_and_waits_for_the_longest() {
    let (_server, mut connection) = server();
    let fill = multi(&mut connection, 0, "3 a b c SLIDING 1 1s SLIDING 1 5s SLIDING 9 9s");
    assert!(fill.allowed);
    let line = "3 c a b SLIDING 9 9s SLIDING 1 1s SLIDING 1 5s";
    let refused = multi(&mut connection, 0, line);
    assert_eq!((refused.wait_ms, refused.refused), (5_000, 1));
    let never = multi(&mut connection, 0, "3 c a b SLIDING 9 9s SLIDING 1 1s COST 2 SLIDING 1 5s");
    assert_eq!((never.wait_ms, never.refused), (-1, 1), "one of them can never be");
    assert!(!multi(&mut connection, 4_999_999, line).allowed);
    assert!(multi(&mut connection, 5_000_000, line).allowed);
}

#[test]
fn force_settles_all_at_once() {
    let (_server, mut connection) = server();
    let limits = "2 a b TOKENBUCKET 5 1 COST 9 SLIDING 5 1m COST 7";
    assert!(!multi(&mut connection, 0, limits).allowed);
    let forced = multi(&mut connection, 0, &format!("{limits} force"));
    assert!(forced.allowed);
    assert_eq!(forced.rows[0], [1, 5, 0, 0, 9_000]);
    assert_eq!(forced.rows[1], [1, 5, 0, 0, 60_000]);
    assert_eq!(at(&mut connection, 0, "RL.PEEK a")[3], 5_000, "the debt is paid back first");
}

#[test]
fn a_turn_of_a_leaky_bucket_is_the_turn_of_all() {
    let (_server, mut connection) = server();
    let line = "3 a b c LEAKYBUCKET 9 1 LEAKYBUCKET 9 2 SLIDING 9 1m";
    assert_eq!(multi(&mut connection, 0, line).wait_ms, 0);
    let second = multi(&mut connection, 0, line);
    assert_eq!((second.wait_ms, second.rows[1][3], second.rows[2][3]), (1_000, 500, 0));
}

#[test]
fn a_refusal_creates_no_key_and_a_cost_of_nothing_neither() {
    let (_server, mut connection) = server();
    let refused = multi(&mut connection, 0, "3 a b c SLIDING 5 1m SLIDING 0 1m SLIDING 5 1m");
    assert_eq!((refused.allowed, refused.refused), (false, 1));
    let looked = multi(&mut connection, 0, "2 a b SLIDING 5 1m COST 0 TOKENBUCKET 5 1 COST 0");
    assert!(looked.allowed);
    assert_eq!(send::<i64>(&mut connection, "DBSIZE"), 0);
}

#[test]
fn slots_requests_and_tokens_are_one_decision() {
    let (_server, mut connection) = server();
    let line = |id: &str| {
        format!(
            "3 {{u}}:slots {{u}}:rpm {{u}}:tpm CONCURRENCY 2 1s {id} FIXEDWINDOW 3 1m TOKENBUCKET 90 1 COST 40"
        )
    };
    let first = multi(&mut connection, 0, &line("a"));
    assert_eq!((first.allowed, first.wait_ms, first.refused), (true, 0, -1));
    assert_eq!(first.rows, [[1, 2, 1, 0, 1_000], [1, 3, 2, 0, 60_000], [1, 90, 50, 0, 40_000]]);
    assert!(multi(&mut connection, 0, &line("b")).allowed);
    let keys = ["{u}:slots", "{u}:rpm", "{u}:tpm"];
    let state = |connection: &mut Connection| keys.map(|key| digest(connection, key));

    // Neither has room: the first is named, and the longest is waited for. Nothing is taken of the third.
    let before = state(&mut connection);
    let refused = multi(&mut connection, 0, &line("c"));
    assert_eq!((refused.allowed, refused.wait_ms, refused.refused), (false, 30_000, 0));
    let rows = [[0, 2, 0, 1_000, 1_000], [1, 3, 1, 0, 60_000], [0, 90, 10, 30_000, 80_000]];
    assert_eq!(refused.rows, rows, "as it stands");
    assert_eq!(state(&mut connection), before);
    // The slot alone refuses, and then all but the slot.
    at(&mut connection, 0, "RL.REFUND {u}:tpm 80");
    let before = state(&mut connection);
    let refused = multi(&mut connection, 0, &line("c"));
    assert_eq!((refused.wait_ms, refused.refused), (1_000, 0));
    assert_eq!(state(&mut connection), before, "nothing is taken from any");
    assert_eq!(send::<i64>(&mut connection, &format!("RL.RELEASE {{u}}:slots b AT {T0}")), 1);
    at(&mut connection, 0, "RL.FIXEDWINDOW {u}:rpm 3 1m");
    let before = state(&mut connection);
    let refused = multi(&mut connection, 0, &line("c"));
    assert_eq!((refused.wait_ms, refused.refused), (60_000, 1));
    assert_eq!(refused.rows[0], [1, 2, 1, 0, 1_000], "one slot is free, and stays so");
    assert_eq!(state(&mut connection), before, "no slot is taken");
}

#[test]
fn a_retry_with_the_same_id_takes_no_second_slot() {
    let (_server, mut connection) = server();
    let line = "2 slots rpm CONCURRENCY 2 1s a SLIDING 9 1m";
    for remaining in [8, 7, 6] {
        let reply = multi(&mut connection, 0, line);
        assert!(reply.allowed);
        assert_eq!(
            (reply.rows[0][2], reply.rows[1][2]),
            (1, remaining),
            "the request counts again"
        );
    }
    let leases = |connection: &mut Connection, micros| {
        crate::client::answer(connection, micros, "RL.LEASES slots")
    };
    // Another's refusal leaves the old lease as it is: cost, ttl and all.
    let refused =
        multi(&mut connection, 500_000, "2 slots rpm CONCURRENCY 2 9s a COST 2 SLIDING 0 1m");
    assert_eq!((refused.allowed, refused.refused), (false, 1));
    assert_eq!(refused.rows[0], [1, 2, 1, 0, 500], "as it stands: with its own lease");
    assert_eq!(leases(&mut connection, 500_000), "[a 1 500]");
    assert!(
        multi(&mut connection, 500_000, "2 slots rpm CONCURRENCY 2 9s a COST 2 SLIDING 9 1m")
            .allowed
    );
    assert_eq!(leases(&mut connection, 500_000), "[a 2 9000]");
}

#[test]
fn bad_input_is_refused_and_nothing_is_taken() {
    let (_server, mut connection) = server();
    send::<()>(&mut connection, "SET text hello");
    let rows = [
        ("RL.MULTI 0 a SLIDING 1 1", "ERR numkeys must be an integer from 1 to 128"),
        ("RL.MULTI 129 a SLIDING 1 1", "ERR numkeys must be"),
        ("RL.MULTI -1 a SLIDING 1 1", "ERR numkeys must be"),
        ("RL.MULTI x a SLIDING 1 1", "ERR numkeys must be"),
        ("RL.MULTI 9 a SLIDING 1 1", "ERR numkeys must be"),
        ("RL.MULTI 2 a a SLIDING 1 1 SLIDING 1 1", "ERR each key must be named only once"),
        ("RL.MULTI 2 a b SLIDING 1 1", "ERR there must be one limit for each key"),
        ("RL.MULTI 1 a SLIDING 1 1 SLIDING 1 1", "ERR there must be one limit for each key"),
        ("RL.MULTI 1 a NOTHING 1 1", "ERR a limit must begin with one of TOKENBUCKET"),
        ("RL.MULTI 2 a b SLIDING 1 1 FORCE SLIDING 1 1", "ERR a limit must begin with one of"),
        ("RL.MULTI 1 a SLIDING 1", "ERR wrong number of arguments"),
        ("RL.MULTI 1 a SLIDING 1 1 PARTIAL", "ERR unknown option; expected one of FORCE, AT"),
        ("RL.MULTI 1 a SLIDING 1 1 ALIGN 1", "ERR unknown option"),
        ("RL.MULTI 1 a TOKENBUCKET 1 1 BUCKETS 1", "ERR unknown option"),
        ("RL.MULTI 1 a SLIDING 1 1 COST 1 COST 1", "ERR COST must be given only once"),
        ("RL.MULTI 1 a SLIDING 1 1 FORCE FORCE", "ERR FORCE must be given only once"),
        ("RL.MULTI 2 a b SLIDING 1 1 SLIDING x 1", "ERR limit must be an integer"),
        ("RL.MULTI 2 a text SLIDING 1 1 SLIDING 1 1", "WRONGTYPE "),
    ];
    for (line, expected) in rows {
        let words: Vec<_> = line.split(' ').map(str::as_bytes).collect();
        let found = error(&mut connection, &words);
        assert!(found.starts_with(expected), "{line}\n found {found}\n wants {expected}");
    }
    assert_eq!(send::<i64>(&mut connection, "DBSIZE"), 1);
}

#[test]
fn a_hundred_and_twenty_eight_limits_are_the_most() {
    let (_server, mut connection) = server();
    for count in [1, 2, 3, 50, 128] {
        let keys: Vec<_> = (0..count).map(|number| format!("{count}:{number}")).collect();
        let limits = "SLIDINGLOG 2 1m ".repeat(count);
        let line = format!("{count} {} {limits}", keys.join(" "));
        for (allowed, remaining) in [(true, 1), (true, 0), (false, 0)] {
            let reply = multi(&mut connection, 0, &line);
            assert_eq!((reply.allowed, reply.rows.len()), (allowed, count));
            assert!(reply.rows.iter().all(|row| row[2] == remaining));
        }
    }
}

/// A limit on the key of its number, what it costs, and what is done about those who ask on.
fn limit(number: usize) -> impl Strategy<Value = String> {
    let (limit, cost) = (0..6u64, prop_oneof![Just(0u64), Just(1), 2..7u64]);
    let block = prop_oneof![2 => Just(""), 1 => Just(" BLOCK 2s"), 1 => Just(" BLOCK 1s AFTER 2")];
    (limit, 1..4u64, cost, any::<bool>(), block).prop_map(
        move |(limit, span, cost, named, block)| {
            let cost_of = cost;
            let cost = if named || cost != 1 { format!(" COST {cost}") } else { String::new() };
            let cost = cost + block;
            match number % 6 {
                0 => format!("TOKENBUCKET {limit} {span}/3{cost}"),
                1 => format!("LEAKYBUCKET {limit} {span}/3{cost}"),
                2 => format!("FIXEDWINDOW {limit} {span}s ALIGN 300ms{cost}"),
                3 => format!("SLIDING {limit} {span}s BUCKETS 3{cost}"),
                4 => format!("SLIDINGLOG {limit} {span}s{cost}"),
                // Ids come again, and a lease costs something.
                _ => format!(
                    "CONCURRENCY {limit} {span}s {}",
                    ["a", "b COST 1", "a COST 3", "c COST 2"][cost_of as usize % 4]
                ),
            }
        },
    )
}

/// The milliseconds before a call, its keys and their limits, and whether it forces.
type Step = (u64, Vec<(usize, String)>, bool);

/// Calls of a few of eight keys.
fn calls() -> impl Strategy<Value = Vec<Step>> {
    let keys = prop::sample::subsequence((0..8).collect::<Vec<usize>>(), 1..=5).prop_shuffle();
    let limits = keys.prop_flat_map(|keys| {
        keys.into_iter().map(|key| (Just(key), limit(key))).collect::<Vec<_>>()
    });
    let gap = prop_oneof![Just(0u64), 1..2_000u64];
    prop::collection::vec((gap, limits, prop::bool::weighted(0.1)), 1..12)
}

#[test]
fn it_equals_deciding_each_alone_on_a_copy_and_taking_all_or_none() {
    let (_server, connection) = server();
    let connection = std::cell::RefCell::new(connection);
    let cases = if std::env::var_os("RL_LONG").is_some() { 20_000 } else { 300 };
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config)
        .run(&calls(), |calls| {
            let connection = &mut connection.borrow_mut();
            send::<()>(connection, "FLUSHALL");
            let mut micros = 0;
            for (gap, limits, force) in calls {
                micros += gap * 1_000;
                one_call(connection, micros, &limits, force);
            }
            Ok(())
        })
        .unwrap();
}

/// What a concurrency limit holds, under the limit of a call: there is no call that takes nothing.
fn look_at_leases(connection: &mut Connection, micros: u64, key: &str, limits: &str) -> Vec<i64> {
    let leases: Vec<(String, i64, i64)> =
        send(connection, &format!("RL.LEASES {key} AT {}", T0 + micros));
    let limit: i64 = limits.split(' ').next().unwrap().parse().unwrap();
    let used: i64 = leases.iter().map(|lease| lease.1).sum();
    let reset = leases.iter().map(|lease| lease.2).max().unwrap_or(0);
    vec![1, limit, (limit - used).max(0), 0, reset]
}

fn one_call(connection: &mut Connection, micros: u64, limits: &[(usize, String)], force: bool) {
    // A lease cannot be forced.
    let force = force && !limits.iter().any(|(_, limit)| limit.starts_with("CONCURRENCY"));
    let force = if force { " FORCE" } else { "" };
    // What each alone would say on a copy, taking and not taking.
    let mut alone = Vec::new();
    for (key, limit) in limits {
        send::<i64>(connection, &format!("DEL copy:{key}"));
        send::<i64>(connection, &format!("COPY key:{key} copy:{key}"));
        let (name, arguments) = limit.split_once(' ').unwrap();
        let (arguments, _) = arguments.split_once(" COST").unwrap_or((arguments, ""));
        let (arguments, _) = arguments.split_once(" BLOCK").unwrap_or((arguments, ""));
        let full = format!("RL.{}{force}", limit.replacen(' ', &format!(" copy:{key} "), 1));
        let full = full.replace("RL.CONCURRENCY", "RL.ACQUIRE");
        let look = |connection: &mut Connection| {
            if name == "CONCURRENCY" {
                look_at_leases(connection, micros, &format!("copy:{key}"), arguments)
            } else {
                at(connection, micros, &format!("RL.{name} copy:{key} {arguments} COST 0"))
            }
        };
        let before = look(connection);
        let answer = at(connection, micros, &full);
        // A denial may have begun a block.
        let look = if answer[0] == 0 { look(connection) } else { before };
        alone.push((answer, look));
    }
    let keys: Vec<_> = limits.iter().map(|(key, _)| format!("key:{key}")).collect();
    let words: Vec<_> = limits.iter().map(|(_, limit)| limit.as_str()).collect();
    let line = format!("{} {} {}", keys.len(), keys.join(" "), words.join(" "));
    let state = |connection: &mut Connection, name: &str| -> Vec<(String, i64)> {
        limits
            .iter()
            .map(|(key, _)| {
                let key = format!("{name}:{key}");
                (digest(connection, &key), send(connection, &format!("PEXPIRETIME {key}")))
            })
            .collect()
    };
    let before = state(connection, "key");
    let reply = multi(connection, micros, &format!("{line}{force}"));
    let after = state(connection, "key");

    let refusing: Vec<_> = (0..limits.len()).filter(|&row| alone[row].0[0] == 0).collect();
    assert_eq!(reply.allowed, refusing.is_empty(), "{line}");
    if reply.allowed {
        let rows: Vec<_> = alone.iter().map(|(answer, _)| answer.clone()).collect();
        assert_eq!(reply.rows, rows, "{line}");
        assert_eq!(
            (reply.refused, reply.wait_ms),
            (-1, rows.iter().map(|row| row[3]).max().unwrap())
        );
        assert_eq!(after, state(connection, "copy"), "{line}");
    } else {
        for (row, (answer, look)) in reply.rows.iter().zip(&alone) {
            assert_eq!(row, &[answer[0], answer[1], look[2], answer[3], look[4]], "{line}");
        }
        assert_eq!(reply.refused, refusing[0] as i64, "{line}");
        // Nothing is taken; a denial counts for the limit that refuses, as it does alone.
        let copies = state(connection, "copy");
        for (row, (after, before)) in after.iter().zip(&before).enumerate() {
            let expected = if refusing.contains(&row) { &copies[row] } else { before };
            assert_eq!(after, expected, "{line}: limit {row}");
            let counts = limits[row].1.contains("BLOCK");
            assert!(counts || after == before, "{line}: a refusal changes nothing");
        }
        if reply.wait_ms > 0 {
            let later = |wait_ms: i64| micros + wait_ms.unsigned_abs() * 1_000;
            // Without BLOCK, since that denial would count, too.
            let words: Vec<_> =
                words.iter().map(|limit| limit.split(" BLOCK").next().unwrap()).collect();
            let asked = format!("{} {} {}", keys.len(), keys.join(" "), words.join(" "));
            assert!(
                !multi(connection, later(reply.wait_ms - 1), &asked).allowed,
                "{line}: too early"
            );
            assert!(
                multi(connection, later(reply.wait_ms), &line).allowed,
                "{line}: it was told so"
            );
            // That took from the keys, and at a later time: begin anew.
            send::<()>(connection, "FLUSHALL");
        }
    }
}
