//! RL.SETTLE: what work really cost is given back or charged, on every key at once.

use redis::{Connection, Value};

use crate::client::{T0, appended, at, digest, error, send};
use crate::replication::{number, wait_for_file};
use crate::server::Server;

fn server() -> (Server, Connection) {
    let server = Server::builder().virtual_clock().start().unwrap();
    let connection = server.connection().unwrap();
    (server, connection)
}

/// The rows of a reply; none for nil.
fn settle(connection: &mut Connection, micros: u64, line: &str) -> Vec<Option<Vec<i64>>> {
    send(connection, &format!("RL.SETTLE {line} AT {}", T0 + micros))
}

fn refused(connection: &mut Connection, line: &str) -> String {
    error(connection, &line.split(' ').map(str::as_bytes).collect::<Vec<_>>())
}

#[test]
fn every_algorithm_is_given_back_what_was_not_used_and_charged_what_was_missing() {
    let (_server, mut connection) = server();
    for (limits, reset) in [
        ("TOKENBUCKET k 10 1", [2_000, 14_000]),
        ("LEAKYBUCKET k 10 1", [2_000, 14_000]),
        ("FIXEDWINDOW k 10 10s", [10_000, 10_000]),
        ("SLIDING k 10 10s", [10_000, 10_000]),
        ("SLIDINGLOG k 10 10s", [10_000, 10_000]),
    ] {
        at(&mut connection, 0, &format!("RL.{limits} COST 6"));
        let reply = settle(&mut connection, 0, "1 k 6 2").remove(0).unwrap();
        assert_eq!((reply[0], reply[2], reply[4]), (1, 8, reset[0]), "{limits}: 4 back");
        // Above the limit: a debt, as with FORCE.
        let reply = settle(&mut connection, 0, "1 k 2 14").remove(0).unwrap();
        assert_eq!((reply[0], reply[2], reply[4]), (0, 0, reset[1]), "{limits}: 12 more");
        assert_eq!(
            settle(&mut connection, 0, "1 k 14 0"),
            [Some(vec![1, 10, 10, 0, 0])],
            "{limits}"
        );
        assert_eq!(send::<i64>(&mut connection, "EXISTS k"), 0, "{limits}: nothing is used");
    }
}

#[test]
fn several_keys_are_settled_at_once_and_missing_ones_are_nil() {
    let (_server, mut connection) = server();
    at(&mut connection, 0, "RL.SLIDING {a}s 10 1m COST 5");
    at(&mut connection, 0, "RL.TOKENBUCKET {a}t 10 10 COST 5");
    let rows = settle(&mut connection, 0, "3 {a}s {a}x {a}t 5 3");
    assert_eq!(rows, [Some(vec![1, 10, 7, 0, 60_000]), None, Some(vec![1, 10, 7, 0, 300])]);
    assert_eq!(send::<i64>(&mut connection, "EXISTS {a}x"), 0, "nothing is done there");
    // Idle is as missing.
    let rows = settle(&mut connection, 1_000_000, "2 {a}t {a}s 3 9");
    assert_eq!(rows, [None, Some(vec![1, 10, 1, 0, 60_000])]);
}

#[test]
fn of_a_window_that_has_ended_nothing_is_given_back() {
    let (_server, mut connection) = server();
    at(&mut connection, 0, "RL.FIXEDWINDOW k 10 10s ALIGN 0 COST 8");
    // The next window, in which other work was granted.
    at(&mut connection, 10_000_000, "RL.FIXEDWINDOW k 10 10s ALIGN 0 COST 3");
    let row = settle(&mut connection, 10_000_000, "1 k 8 1").remove(0).unwrap();
    assert_eq!(row[2], 10, "at most what is in use is given back");
    at(&mut connection, 20_000_000, "RL.FIXEDWINDOW k 10 10s ALIGN 0 COST 8");
    assert_eq!(settle(&mut connection, 30_000_000, "1 k 8 1"), [None], "nothing is in use");
}

#[test]
fn equal_numbers_write_nothing_and_a_difference_is_one_effect_for_all() {
    let server = Server::builder().virtual_clock().setting("appendonly yes").start().unwrap();
    let mut connection = server.connection().unwrap();
    wait_for_file(&server);
    at(&mut connection, 0, "RL.SLIDING {a}s 10 1m COST 5");
    at(&mut connection, 0, "RL.TOKENBUCKET {a}t 10 10 COST 5");
    let size = number(&mut connection, "persistence", "aof_current_size");
    assert_eq!(settle(&mut connection, 0, "2 {a}s {a}t 7 7").len(), 2);
    assert_eq!(settle(&mut connection, 0, "1 {a}x 7 9"), [None]);
    assert_eq!(number(&mut connection, "persistence", "aof_current_size"), size);
    settle(&mut connection, 0, "2 {a}s {a}t 7 9");
    crate::server::wait_for("the file", || {
        Ok(appended(&server).last().is_some_and(|last| last.len() == 5))
    })
    .unwrap();
    let last = appended(&server).pop().unwrap();
    assert_eq!((&*last[0], &*last[1], &*last[3]), ("RL._ADD", "{a}s", "{a}t"));
}

#[test]
fn bad_input_is_an_error_and_nothing_is_done() {
    let (_server, mut connection) = server();
    at(&mut connection, 0, "RL.SLIDING s 10 1m COST 5");
    at(&mut connection, 0, "RL.ACQUIRE c 10 1m id");
    send::<()>(&mut connection, "SET text x");
    let before = digest(&mut connection, "s") + &digest(&mut connection, "c");
    let units = "must be an integer from 0 to 1000000000000";
    for (line, expected) in [
        ("RL.SETTLE 1 s x 1", format!("ERR reserved {units}")),
        ("RL.SETTLE 1 s 1 1000000000001", format!("ERR used {units}")),
        ("RL.SETTLE 1 s 1 -1", format!("ERR used {units}")),
        ("RL.SETTLE 0 s 1 2", "ERR numkeys must be an integer from 1 to 128".into()),
        ("RL.SETTLE 129 s 1 2", "ERR numkeys must be an integer from 1 to 128".into()),
        ("RL.SETTLE 2 s 1 2", "ERR wrong number of arguments".into()),
        ("RL.SETTLE 2 s s 1 2", "ERR each key must be named only once".into()),
        ("RL.SETTLE 1 s 1 2 FORCE", "ERR unknown option; expected one of AT".into()),
        (
            "RL.SETTLE 2 s text 1 2",
            "WRONGTYPE the key holds a value that is not a rate limiter".into(),
        ),
        (
            "RL.SETTLE 2 s c 1 2",
            "WRONGTYPE the key holds a CONCURRENCY limiter; give leases back with RL.RELEASE"
                .into(),
        ),
        ("RL.SETTLE 1 s 1 2 AT x", "ERR AT must be".into()),
    ] {
        let line = if line.ends_with("2") && expected.starts_with("WRONGTYPE") {
            format!("{line} AT {T0}")
        } else {
            line.to_owned()
        };
        let found = refused(&mut connection, &line);
        assert!(found.starts_with(&expected), "{line}\n found {found}\n wants {expected}");
    }
    assert_eq!(digest(&mut connection, "s") + &digest(&mut connection, "c"), before);
    assert_eq!(send::<Value>(&mut connection, "EXISTS s c text"), Value::Int(3));
}

#[test]
fn what_needs_memory_that_is_not_there_is_refused_on_all_keys() {
    let (_server, mut connection) = server();
    for number in 0..4 {
        at(&mut connection, number, "RL.SLIDINGLOG l 100 1m");
    }
    at(&mut connection, 0, "RL.TOKENBUCKET t 10 10 COST 5");
    send::<()>(&mut connection, "CONFIG SET maxmemory 1");
    let before = digest(&mut connection, "l") + &digest(&mut connection, "t");
    let mut refusals = 0;
    for number in 10..14 {
        // Each needs a place for one entry more: sooner or later there is none.
        let line = format!("RL.SETTLE 2 l t 1 2 AT {}", T0 + number);
        let words: Vec<_> = line.split(' ').map(str::as_bytes).collect();
        match crate::client::try_send::<Value>(&mut connection, &words) {
            Ok(_) => assert_eq!(refusals, 0),
            Err(_) => refusals += 1,
        }
    }
    assert!(refusals > 0, "the list did not need to grow");
    let after = digest(&mut connection, "l") + &digest(&mut connection, "t");
    assert!(after != before || refusals == 4);
    assert!(
        refused(&mut connection, &format!("RL.SETTLE 2 l t 1 2 AT {}", T0 + 20))
            .starts_with("OOM ")
    );
    assert_eq!(digest(&mut connection, "l") + &digest(&mut connection, "t"), after);
    assert!(
        settle(&mut connection, 21, "2 l t 2 1").iter().all(Option::is_some),
        "giving back needs none"
    );
}
