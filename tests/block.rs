//! BLOCK: who is asked in spite of denials is closed for a while, and a flood against it writes no more than it must.

use redis::{Connection, Value};

use crate::client::{T0, answer, appended, at, check_answers, digest, keyspace, send, send_all};
use crate::replication::{connect, wait_for_link};
use crate::server::{Server, field, info, wait_for};

const SECOND: u64 = 1_000_000;

/// A limit of one unit by each algorithm, which is used up for a minute.
const LIMITS: [&str; 5] = [
    "TOKENBUCKET k 1 1/1m",
    "LEAKYBUCKET k 1 1/1m",
    "FIXEDWINDOW k 1 1m",
    "SLIDING k 1 1m",
    "SLIDINGLOG k 1 1m",
];

fn server() -> (Server, Connection) {
    let server = Server::builder().virtual_clock().start().unwrap();
    let connection = server.connection().unwrap();
    (server, connection)
}

/// A counter in INFO.
fn counted(server: &Server, name: &str) -> u64 {
    let stats = info(&mut connect(server), "modules").unwrap();
    field(&stats, name).unwrap().parse().unwrap()
}

#[test]
fn each_algorithm_is_closed_after_so_many_denials_in_a_row() {
    let (server, mut connection) = server();
    for limits in LIMITS {
        let call = format!("RL.{limits}");
        let block = format!("{call} BLOCK 10m AFTER 3");
        let (nothing, two) = (format!("{block} COST 0"), format!("{call} COST 2"));
        let (look, partial) = (format!("{call} COST 0"), format!("{call} PARTIAL"));
        check_answers(
            &mut connection,
            &[
                (0, &*block, "1 1 0 0 60000"),
                (SECOND, &block, "0 1 0 59000 59000"),
                (2 * SECOND, &block, "0 1 0 58000 58000"),
                // What asks for no block, or for nothing, counts for none.
                (3 * SECOND, &call, "0 1 0 57000 57000"),
                (3 * SECOND, &nothing, "1 1 0 0 57000"),
                (4 * SECOND, &block, "0 1 0 600000 600000"),
                (5 * SECOND, &call, "0 1 0 599000 599000"),
                (5 * SECOND, &two, "0 1 0 -1 599000"),
                (5 * SECOND, &look, "1 1 0 0 599000"),
                (5 * SECOND, &partial, "0 1 0 599000 599000 0"),
                (5 * SECOND, "RL.PEEK k", "0 1 0 599000 599000"),
                (603_999_999, &call, "0 1 0 1 1"),
                (604 * SECOND, "RL.PEEK k", "nil"),
            ],
        );
        assert_eq!(at(&mut connection, 604 * SECOND, &call)[0], 1, "{call}");
        send::<()>(&mut connection, "DEL k");
    }
    assert_eq!(counted(&server, "rl_blocks_begun"), 5);
    assert_eq!(counted(&server, "rl_denied_by_block"), 4 * 5);
}

#[test]
fn force_is_granted_and_the_limiter_stays_closed() {
    let (_server, mut connection) = server();
    check_answers(
        &mut connection,
        &[
            (0, "RL.TOKENBUCKET k 1 1/1m", "1 1 0 0 60000"),
            (0, "RL.TOKENBUCKET k 1 1/1m BLOCK 1h", "0 1 0 3600000 3600000"),
            (0, "RL.TOKENBUCKET k 1 1/1m COST 2 FORCE", "1 1 0 0 3600000"),
            (SECOND, "RL.TOKENBUCKET k 9 1/1m BLOCK 1h", "0 9 0 3599000 3599000"),
            // What the work cost is settled, and given back, and it stays closed.
            (SECOND, "RL.SETTLE 1 k 1 3", "[0 1 0 3599000 3599000]"),
            (SECOND, "RL.SETTLE 1 k 9 1", "[0 1 0 3599000 3599000]"),
            (SECOND, "RL.REFUND k 5", "0 1 0 3599000 3599000"),
            (SECOND, "RL.SETTLE 1 k 0 2", "[0 1 0 3599000 3599000]"),
            (SECOND, "CL.THROTTLE k 4 1 60", "1 5 0 3599 3599"),
            (
                SECOND,
                "RL.SLIDING k 5 1m",
                "WRONGTYPE the key holds a TOKENBUCKET limiter, not SLIDING; delete it with RL.RESET first",
            ),
        ],
    );
    assert_eq!(send::<i64>(&mut connection, "RL.RESET k"), 1);
    assert_eq!(at(&mut connection, SECOND, "RL.TOKENBUCKET k 1 1/1m")[0], 1, "RL.RESET opens it");
}

#[test]
fn info_shows_the_row_and_the_block() {
    let (server, mut connection) = server();
    let mut looker = connect(&server);
    let mut shown = |micros: u64, name: &str| {
        let info: Vec<Value> = send(&mut looker, &format!("RL.INFO k AT {}", T0 + micros));
        let place = info.iter().position(|word| *word == Value::BulkString(name.into()))?;
        Some(info[place + 1].clone())
    };
    let mut both = |micros| (shown(micros, "denials"), shown(micros, "blocked_ms"));
    at(&mut connection, 0, "RL.SLIDING k 1 1m");
    assert_eq!(both(0), (None, None));
    for denials in 1..=4 {
        at(&mut connection, 0, "RL.SLIDING k 1 1m BLOCK 5s AFTER 5");
        assert_eq!(both(0), (Some(Value::Int(denials)), None));
    }
    at(&mut connection, 0, "RL.SLIDING k 1 1m BLOCK 5s AFTER 5");
    assert_eq!(both(4_999_999), (None, Some(Value::Int(1))));
    assert_eq!(both(5 * SECOND), (None, None));
}

#[test]
fn a_refusal_in_a_decision_of_several_counts_for_the_limit_that_refuses() {
    let (server, mut connection) = server();
    let both = "RL.MULTI 2 a b SLIDING 1 1m BLOCK 5m AFTER 2 TOKENBUCKET 5 1/1h BLOCK 1h";
    check_answers(
        &mut connection,
        &[
            (0, both, "1 0 -1 [1 1 0 0 60000] [1 5 4 0 3600000]"),
            (0, both, "0 60000 0 [0 1 0 60000 60000] [1 5 4 0 3600000]"),
            (0, both, "0 300000 0 [0 1 0 300000 300000] [1 5 4 0 3600000]"),
            (SECOND, both, "0 299000 0 [0 1 0 299000 299000] [1 5 4 0 3599000]"),
            (SECOND, "RL.PEEK b", "1 5 4 0 3599000"),
            // Both refuse: each counts its own.
            (SECOND, "RL.TOKENBUCKET b 5 1/1h COST 4", "1 5 0 0 17999000"),
            (SECOND, both, "0 3600000 0 [0 1 0 299000 299000] [0 5 0 3600000 17999000]"),
        ],
    );
    assert_eq!(counted(&server, "rl_blocks_begun"), 2);
    assert_eq!(counted(&server, "rl_denied_by_block"), 2);
    // FORCE takes from all, and opens none.
    let forced = "RL.MULTI 2 a b SLIDING 1 1m TOKENBUCKET 5 1/1h FORCE";
    assert_eq!(
        answer(&mut connection, SECOND, forced),
        "1 0 -1 [1 1 0 0 299000] [1 5 0 0 21599000]"
    );
    assert_eq!(at(&mut connection, SECOND, "RL.PEEK a")[3], 299_000);
}

#[test]
fn a_flood_writes_as_many_effects_as_after_says_and_not_one_more() {
    let server = Server::builder().virtual_clock().setting("appendonly yes").start().unwrap();
    let mut connection = server.connection().unwrap();
    at(&mut connection, 0, "RL.SLIDING k 1 1h");
    let before = appended(&server).len();
    let digest_after = |connection: &mut Connection, after: u64| {
        let line = format!("RL.SLIDING k 1 1h BLOCK 1h AFTER {after} AT {T0}");
        send_all(connection, (0..after).map(|_| line.clone()));
        digest(connection, "k")
    };
    let closed = digest_after(&mut connection, 20);
    let line = format!("RL.SLIDING k 1 1h BLOCK 1h AFTER 20 AT {}", T0 + 1);
    send_all(&mut connection, (0..100_000).map(|_| line.clone()));
    let file = appended(&server);
    assert_eq!(file.len() - before, 20, "of 100,020 denials");
    assert!(file[before..].iter().all(|words| words[0] == "RL._ADD" && words.len() == 3));
    assert_eq!(digest(&mut connection, "k"), closed, "none prolongs the block");
    let stats = info(&mut connection, "modules").unwrap();
    assert!(stats.contains("rl_denied_by_block:100000"), "{stats}");
}

#[test]
fn replicas_files_and_copies_hold_the_same_row_and_the_same_block() {
    let primary = Server::builder().virtual_clock().setting("appendonly yes").start().unwrap();
    let replica = Server::builder().virtual_clock().replica_of(&primary).start().unwrap();
    wait_for_link(&replica);
    let mut connection = connect(&primary);
    for limits in LIMITS {
        for (key, denials) in [("row", 2), ("closed", 3), ("empty", 3)] {
            let name = limits.split(' ').next().unwrap();
            let call = format!(
                "RL.{} BLOCK 10m AFTER 3",
                limits.replacen(" k ", &format!(" {key}:{name} "), 1)
            );
            (0..=denials).for_each(|n| _ = at(&mut connection, n * SECOND, &call));
            if key == "empty" {
                at(&mut connection, 4 * SECOND, &format!("RL.REFUND {key}:{name} 1"));
            }
        }
    }
    let held = keyspace(&mut connection);
    assert_eq!(held.len(), 15);
    replica.wait_for_sync(&primary).unwrap();
    assert_eq!(keyspace(&mut connect(&replica)), held, "by effects");
    for (key, (digest_of_key, _)) in &held {
        let bytes: Vec<u8> = send(&mut connection, &format!("DUMP {key}"));
        let words: [&[u8]; 4] = [b"RESTORE", b"restored", b"0", &bytes];
        crate::client::try_send::<()>(&mut connection, &words).unwrap();
        assert_eq!(send::<Vec<u8>>(&mut connection, "DUMP restored"), bytes, "{key}");
        send::<()>(&mut connection, "DEL restored");
        assert_eq!(send::<i64>(&mut connection, &format!("COPY {key} copy")), 1);
        assert_eq!(digest(&mut connection, "copy"), *digest_of_key, "{key}");
        send::<()>(&mut connection, "DEL copy");
    }
    for reload in ["DEBUG RELOAD", "DEBUG LOADAOF"] {
        send::<()>(&mut connection, reload);
        assert_eq!(keyspace(&mut connection), held, "{reload}");
    }
    send::<()>(&mut connection, "BGREWRITEAOF");
    wait_for("the file to be rewritten", || {
        let info = info(&mut connection, "persistence")?;
        Ok(info.contains("aof_rewrite_in_progress:0") && info.contains("aof_rewrite_scheduled:0"))
    })
    .unwrap();
    send::<()>(&mut connection, "DEBUG LOADAOF");
    assert_eq!(keyspace(&mut connection), held, "from a rewritten file");
    // The replica that is promoted is as closed as the primary was.
    let mut promoted = connect(&replica);
    send::<()>(&mut promoted, "REPLICAOF NO ONE");
    let call = "RL.SLIDING closed:SLIDING 1 1m BLOCK 10m AFTER 3";
    assert_eq!(answer(&mut promoted, 303 * SECOND, call), "0 1 0 300000 300000");
    let call = "RL.SLIDING row:SLIDING 1 1m BLOCK 10m AFTER 3";
    assert_eq!(answer(&mut promoted, 3 * SECOND, call), "0 1 0 600000 600000", "its third");
}

#[test]
fn the_key_lives_while_the_block_runs_and_goes_by_itself() {
    let server = Server::start().unwrap();
    let mut connection = server.connection().unwrap();
    let call = "RL.SLIDING k 1 1ms BLOCK 300ms";
    // The window is over before a slow machine asks again: so until it was in time.
    wait_for("a block", || {
        send::<Vec<i64>>(&mut connection, call);
        Ok(send::<Vec<i64>>(&mut connection, call)[3] > 200)
    })
    .unwrap();
    let left: i64 = send(&mut connection, "PTTL k");
    assert!((100..2_000).contains(&left), "{left} ms");
    wait_for("the key to go", || Ok(send::<i64>(&mut connection, "EXISTS k") == 0)).unwrap();
}

#[test]
fn a_clock_that_stepped_back_ends_a_block() {
    let (_server, mut connection) = server();
    at(&mut connection, 100 * SECOND, "RL.FIXEDWINDOW k 1 1d");
    at(&mut connection, 100 * SECOND, "RL.FIXEDWINDOW k 1 1d BLOCK 1s");
    assert_eq!(at(&mut connection, 100 * SECOND, "RL.FIXEDWINDOW k 9 1d")[0], 0);
    assert_eq!(at(&mut connection, 99 * SECOND, "RL.FIXEDWINDOW k 9 1d")[0], 1);
}

#[test]
fn a_denial_that_would_need_memory_is_answered_and_not_counted() {
    let (_server, mut connection) = server();
    for key in ["new", "row"] {
        at(&mut connection, 0, &format!("RL.SLIDING {key} 1 1m"));
    }
    at(&mut connection, 0, "RL.SLIDING row 1 1m BLOCK 5m AFTER 3");
    send::<()>(&mut connection, "CONFIG SET maxmemory 1");
    let before = digest(&mut connection, "new");
    for _ in 0..3 {
        let denied = answer(&mut connection, 0, "RL.SLIDING new 1 1m BLOCK 5m");
        assert_eq!(denied, "0 1 0 60000 60000");
    }
    assert_eq!(digest(&mut connection, "new"), before);
    // A row that is there goes on.
    at(&mut connection, 0, "RL.SLIDING row 1 1m BLOCK 5m AFTER 3");
    let third = answer(&mut connection, 0, "RL.SLIDING row 1 1m BLOCK 5m AFTER 3");
    assert_eq!(third, "0 1 0 300000 300000");
    send::<()>(&mut connection, "CONFIG SET maxmemory 0");
    assert_eq!(at(&mut connection, 0, "RL.SLIDING new 1 1m BLOCK 5m")[3], 300_000);
}

#[test]
fn a_limiter_that_saw_a_block_takes_its_bytes_back_with_the_next_grant() {
    let (_server, mut connection) = server();
    let mut bytes = |line: &str, micros: u64| -> i64 {
        at(&mut connection, micros, line);
        send(&mut connection, "MEMORY USAGE k")
    };
    let plain = bytes("RL.TOKENBUCKET k 1 1", 0);
    for _ in 0..2 {
        let more = bytes("RL.TOKENBUCKET k 1 1 BLOCK 2s AFTER 2", 0) - plain;
        assert!((56..=64).contains(&more), "{more} bytes more");
    }
    assert_eq!(bytes("RL.TOKENBUCKET k 1 1 BLOCK 2s AFTER 2", 2 * SECOND), plain);
}
