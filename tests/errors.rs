//! Bad input of any kind gets an error with a code, the parameter and its bounds, and changes nothing.

use proptest::prelude::*;
use redis::{Connection, Value};

use crate::client::{cases, error, send, try_send};
use crate::server::Server;

#[test]
fn bad_input_gets_a_clear_error_and_changes_nothing() {
    let server = Server::start().unwrap();
    let mut connection = server.connection().unwrap();
    let units = "must be an integer from 0 to 1000000000000";
    let leased = "must be an integer from 1 to 1000000000000";
    let long = "x".repeat(65);
    let rows: &[(&str, &str)] = &[
        ("RL.TOKENBUCKET k x 1", &format!("ERR capacity {units}")),
        ("RL.TOKENBUCKET k -1 1", &format!("ERR capacity {units}")),
        ("RL.TOKENBUCKET k 1.5 1", &format!("ERR capacity {units}")),
        ("RL.TOKENBUCKET k 1000000000001 1", &format!("ERR capacity {units}")),
        ("RL.TOKENBUCKET k 99999999999999999999999999 1", &format!("ERR capacity {units}")),
        ("RL.TOKENBUCKET k 1 0", "ERR rate must be"),
        ("RL.TOKENBUCKET k 1 -1", "ERR rate must be"),
        ("RL.TOKENBUCKET k 1 nan", "ERR rate must be"),
        ("RL.TOKENBUCKET k 1 1e3", "ERR rate must be"),
        ("RL.TOKENBUCKET k 1 1/0", "ERR rate must be"),
        ("RL.TOKENBUCKET k 1 1000000001", "ERR rate must be"),
        ("RL.SLIDING k x 1m", &format!("ERR limit {units}")),
        ("RL.SLIDING k 1 0", "ERR window must be a duration"),
        ("RL.SLIDING k 1 999us", "ERR window must be a duration"),
        ("RL.SLIDING k 1 3651d", "ERR window must be a duration"),
        ("RL.SLIDING k 1 1M", "ERR window must be a duration"),
        ("RL.SLIDING k 1 1m BUCKETS 0", "ERR BUCKETS must be an integer from 1 to 1024"),
        ("RL.SLIDING k 1 1m BUCKETS 1025", "ERR BUCKETS must be an integer from 1 to 1024"),
        ("RL.SLIDING k 1 1m BUCKETS", "ERR BUCKETS must be followed by a value"),
        ("RL.SLIDING k 1 1m BUCKETS 2 buckets 2", "ERR BUCKETS must be given only once"),
        ("RL.SLIDING k 1 1m COST -1", &format!("ERR COST {units}")),
        ("RL.SLIDING k 1 1m COST 1000000000001", &format!("ERR COST {units}")),
        ("RL.SLIDING k 1 1m COST", "ERR COST must be followed by a value"),
        ("RL.SLIDING k 1 1m COST 1 COST 1", "ERR COST must be given only once"),
        ("RL.SLIDING k 1 1m BLOCK", "ERR BLOCK must be followed by a value"),
        (
            "RL.SLIDING k 1 1m BLOCK 0",
            "ERR BLOCK must be a duration like 60, 0.5, 250ms, 1m, 12h or 7d, from 1ms to 3650d",
        ),
        ("RL.SLIDING k 1 1m BLOCK 3651d", "ERR BLOCK must be"),
        ("RL.SLIDING k 1 1m BLOCK month", "ERR BLOCK must be"),
        ("RL.SLIDING k 1 1m BLOCK 1m block 1m", "ERR BLOCK must be given only once"),
        ("RL.SLIDING k 1 1m BLOCK 1m AFTER 0", "ERR AFTER must be an integer from 1 to 1000000"),
        ("RL.SLIDING k 1 1m BLOCK 1m AFTER 1000001", "ERR AFTER must be"),
        ("RL.SLIDING k 1 1m BLOCK 1m AFTER", "ERR AFTER must be followed by a value"),
        ("RL.SLIDING k 1 1m AFTER 1 AFTER 1", "ERR AFTER must be given only once"),
        ("RL.SLIDING k 1 1m AFTER 1", "ERR AFTER needs BLOCK"),
        ("RL.MULTI 1 k SLIDING 1 1m AFTER 1", "ERR AFTER needs BLOCK"),
        ("RL.ACQUIRE l 1 1m id BLOCK 1m", "ERR unknown option; expected one of COST, AT"),
        ("RL.MULTI 1 k SLIDING 1 1m BLOCK 1m FORCE BLOCK 1m", "ERR unknown option"),
        ("RL.PEEK k BLOCK 1m", "ERR unknown option; expected one of COST, AT"),
        ("RL.SLIDING k 1 1m FORCE FORCE", "ERR FORCE must be given only once"),
        ("RL.SLIDING k 1 1m PARTIAL FORCE", "ERR PARTIAL and FORCE are mutually exclusive"),
        ("RL.SLIDING k 1 1m AT 1", "ERR AT is for tests"),
        ("RL.SLIDING k 1 1m AT x", "ERR AT must be microseconds"),
        ("RL.SLIDING k 1 1m AT 9007199254740992", "ERR AT must be microseconds"),
        ("RL.SLIDING k 1 1m ALIGN 1", "ERR unknown option; expected one of BUCKETS, COST"),
        ("RL.TOKENBUCKET k 1 1 BUCKETS 1", "ERR unknown option; expected one of COST"),
        ("RL.TOKENBUCKET k 1 1 what", "ERR unknown option"),
        ("RL.FIXEDWINDOW k 1 1m ALIGN x", "ERR ALIGN must be a duration"),
        ("RL.FIXEDWINDOW k 1 1m ALIGN --1h", "ERR ALIGN must be a duration"),
        (
            "RL.FIXEDWINDOW k 1 month ALIGN -25h",
            "ERR ALIGN must be a duration like 60, 0.5, 250ms, 1m, 12h or 7d, from -1d to 1d",
        ),
        (
            "RL.FIXEDWINDOW k 1 MONTH",
            "ERR window must be a duration like 60, 0.5, 250ms, 1m, 12h or 7d, from 1ms to 3650d, or one of day, week, month, year",
        ),
        ("RL.SLIDING k 1 month", "ERR window must be a duration"),
        (
            "RL.SLIDINGLOG k 100001 1m",
            "ERR limit must be an integer from 0 to 100000 (the setting rl.max-log-entries); use RL.SLIDING for larger ones",
        ),
        ("RL.PEEK k COST x", &format!("ERR COST {units}")),
        ("RL.PEEK k FORCE", "ERR unknown option; expected one of COST, AT"),
        ("RL.REFUND k -1", &format!("ERR units {units}")),
        ("RL.INFO k COST 1", "ERR unknown option; expected one of AT"),
        ("RL.ACQUIRE l x 1m id", &format!("ERR limit {units}")),
        ("RL.ACQUIRE l -1 1m id", &format!("ERR limit {units}")),
        ("RL.ACQUIRE l 1000000000001 1m id", &format!("ERR limit {units}")),
        (
            "RL.ACQUIRE l 1 0 id",
            "ERR ttl must be a duration like 60, 0.5, 250ms, 1m, 12h or 7d, from 1ms to 3650d",
        ),
        ("RL.ACQUIRE l 1 999us id", "ERR ttl must be"),
        ("RL.ACQUIRE l 1 3651d id", "ERR ttl must be"),
        ("RL.ACQUIRE l 1 1.0000001 id", "ERR ttl must be"),
        ("RL.ACQUIRE l 1 month id", "ERR ttl must be"),
        ("RL.ACQUIRE l 1 1m ", "ERR id must be 1 to 64 bytes"),
        (&format!("RL.ACQUIRE l 1 1m {long}"), "ERR id must be 1 to 64 bytes"),
        ("RL.ACQUIRE l 1 1m id COST 0", &format!("ERR COST {leased} for a lease")),
        ("RL.ACQUIRE l 1 1m id COST -1", &format!("ERR COST {leased} for a lease")),
        ("RL.ACQUIRE l 1 1m id COST 1000000000001", &format!("ERR COST {leased} for a lease")),
        ("RL.ACQUIRE l 1 1m id COST 1.5", &format!("ERR COST {leased} for a lease")),
        ("RL.ACQUIRE l 1 1m id COST", "ERR COST must be followed by a value"),
        ("RL.ACQUIRE l 1 1m id COST 1 COST 1", "ERR COST must be given only once"),
        ("RL.ACQUIRE l 1 1m id PARTIAL", "ERR unknown option; expected one of COST, AT"),
        ("RL.ACQUIRE l 1 1m id FORCE", "ERR unknown option; expected one of COST, AT"),
        ("RL.ACQUIRE l 1 1m id id", "ERR unknown option; expected one of COST, AT"),
        ("RL.ACQUIRE l 1 1m id AT 1", "ERR AT is for tests"),
        ("RL.ACQUIRE l 1 1m id AT x", "ERR AT must be microseconds"),
        ("RL.ACQUIRE l 1 1m", "ERR wrong number of arguments"),
        ("RL.ACQUIRE k 1 1m id", "WRONGTYPE the key holds a SLIDING limiter, not CONCURRENCY"),
        ("RL.RENEW held 0 id", "ERR ttl must be"),
        ("RL.RENEW held 3651d id", "ERR ttl must be"),
        ("RL.RENEW held x id", "ERR ttl must be"),
        ("RL.RENEW held 1m ", "ERR id must be 1 to 64 bytes"),
        ("RL.RENEW held 1m id ", "ERR id must be 1 to 64 bytes"),
        (&format!("RL.RENEW held 1m id {long} id"), "ERR id must be 1 to 64 bytes"),
        ("RL.RENEW held 1m id AT 1", "ERR AT is for tests"),
        ("RL.RENEW held 1m id AT x", "ERR AT must be microseconds"),
        ("RL.RENEW held 1m", "ERR wrong number of arguments"),
        ("RL.RENEW k 1m id", "WRONGTYPE the key holds a SLIDING limiter, not CONCURRENCY"),
        ("RL.RELEASE held ", "ERR id must be 1 to 64 bytes"),
        (&format!("RL.RELEASE held id {long}"), "ERR id must be 1 to 64 bytes"),
        ("RL.RELEASE held id at 1", "ERR AT is for tests"),
        ("RL.RELEASE held id at -1", "ERR AT must be microseconds"),
        ("RL.RELEASE held", "ERR wrong number of arguments"),
        ("RL.RELEASE k id", "WRONGTYPE the key holds a SLIDING limiter, not CONCURRENCY"),
        ("RL.LEASES held COUNT 0", "ERR COUNT must be an integer from 1 to 1000000"),
        ("RL.LEASES held COUNT 1000001", "ERR COUNT must be an integer from 1 to 1000000"),
        ("RL.LEASES held COUNT -1", "ERR COUNT must be an integer from 1 to 1000000"),
        ("RL.LEASES held COUNT", "ERR COUNT must be followed by a value"),
        ("RL.LEASES held COST 1", "ERR unknown option; expected one of COUNT, AT"),
        ("RL.LEASES held 1", "ERR unknown option; expected one of COUNT, AT"),
        ("RL.LEASES", "ERR wrong number of arguments"),
        ("RL.LEASES k", "WRONGTYPE the key holds a SLIDING limiter, not CONCURRENCY"),
        ("RL.PEEK held COST 1000000000001", &format!("ERR COST {units}")),
        (
            "RL.REFUND held 1",
            "WRONGTYPE the key holds a CONCURRENCY limiter; give leases back with RL.RELEASE",
        ),
        ("RL.SLIDING held 1 1m", "WRONGTYPE the key holds a CONCURRENCY limiter, not SLIDING"),
        ("RL.MULTI 1 l CONCURRENCY 1 1m id FORCE", "ERR FORCE cannot be used with CONCURRENCY"),
        (
            "RL.MULTI 2 l k CONCURRENCY 1 1m id SLIDING 5 1m FORCE",
            "ERR FORCE cannot be used with CONCURRENCY",
        ),
        (
            "RL.MULTI 2 k l SLIDING 5 1m CONCURRENCY 1 1m id COST 0",
            &format!("ERR COST {leased} for a lease"),
        ),
        ("RL.MULTI 2 k l SLIDING 5 1m CONCURRENCY 1 0 id", "ERR ttl must be"),
        ("RL.MULTI 2 k l SLIDING 5 1m CONCURRENCY 1 1m ", "ERR id must be 1 to 64 bytes"),
        ("RL.MULTI 2 k l SLIDING 5 1m CONCURRENCY 1 1m", "ERR wrong number of arguments"),
        (
            "RL.MULTI 2 k l SLIDING 5 1m CONCURRENCY 1 1m id PARTIAL",
            "ERR unknown option; expected one of FORCE, AT",
        ),
        (
            "RL.MULTI 1 l ACQUIRE 1 1m id",
            "ERR a limit must begin with one of TOKENBUCKET, LEAKYBUCKET, FIXEDWINDOW, SLIDING, SLIDINGLOG, CONCURRENCY",
        ),
        ("RL._ADD k nonsense", "ERR effect must be 42 to 106 bytes"),
        ("RL._RESTORE k nonsense", "ERR state must be"),
        ("RL.TOKENBUCKET", "ERR wrong number of arguments"),
        ("RL.TOKENBUCKET k 1", "ERR wrong number of arguments"),
        ("RL.PEEK", "ERR wrong number of arguments"),
        ("RL.REFUND k", "ERR wrong number of arguments"),
        ("RL.RESET", "ERR wrong number of arguments"),
    ];
    send::<Vec<i64>>(&mut connection, "RL.SLIDING k 5 1m");
    send::<Vec<i64>>(&mut connection, "RL.ACQUIRE held 5 1m id");
    let held = |connection: &mut Connection| -> (String, [i64; 2]) {
        let expires = ["k", "held"].map(|key| send(connection, &format!("PEXPIRETIME {key}")));
        (send(connection, "DEBUG DIGEST"), expires)
    };
    let before = held(&mut connection);
    for (line, expected) in rows {
        let words: Vec<_> = line.split(' ').map(str::as_bytes).collect();
        let found = error(&mut connection, &words);
        assert!(found.starts_with(expected), "{line}\n found {found}\n wants {expected}");
    }
    assert_eq!(held(&mut connection), before);
    assert_eq!(send::<i64>(&mut connection, "DBSIZE"), 2);
}

#[test]
fn no_error_repeats_what_the_client_sent() {
    let server = Server::start().unwrap();
    let mut connection = server.connection().unwrap();
    let hostile = b"\xff\r\n-ERR\0<script>";
    for position in 1..8 {
        for line in [
            "RL.SLIDING k 1 1m COST 1 BUCKETS 2",
            "RL.ACQUIRE l 1 1m id COST 1 AT",
            "RL.RENEW l 1m id id id AT 1",
            "RL.RELEASE l id id id id AT 1",
            "RL.LEASES l COUNT 1 AT 1 x x",
            "RL.SETTLE 2 k k 1 2 AT 1",
            "RL.TOP COUNT 1 AT 1 x x x x",
        ] {
            let mut words: Vec<_> = line.split(' ').map(str::as_bytes).collect();
            words[position] = hostile;
            if let Err(error) = try_send::<Value>(&mut connection, &words) {
                let text = crate::client::text(&error);
                assert!(!text.contains("script") && text.is_ascii(), "{text}");
            }
        }
    }
    assert_eq!(send::<String>(&mut connection, "PING"), "PONG");
}

#[test]
fn a_key_may_be_any_bytes() {
    let server = Server::start().unwrap();
    let mut connection = server.connection().unwrap();
    let long = vec![b'x'; 100_000];
    for key in [&b""[..], b"\0", b"\xff\xfe", b"a b\r\n", "\u{1f600}".as_bytes(), &long] {
        let reply: Vec<i64> =
            try_send(&mut connection, &[b"RL.TOKENBUCKET", key, b"5", b"5/m"]).unwrap();
        assert_eq!(reply[2], 4);
        let reply: Vec<i64> = try_send(&mut connection, &[b"RL.PEEK", key]).unwrap();
        assert_eq!(reply[2], 4);
    }
}

/// A word as hostile clients would choose it: near what is right, or far from it.
fn word() -> impl Strategy<Value = Vec<u8>> {
    let near = prop::sample::select(vec![
        "k",
        "0",
        "1",
        "-1",
        "1000000000000",
        "18446744073709551616",
        "1/60",
        "100/1m",
        "1m",
        "1ms",
        "3650d",
        "0.5",
        "COST",
        "PARTIAL",
        "FORCE",
        "BUCKETS",
        "ALIGN",
        "AT",
        "-8h",
        "2",
        "TOKENBUCKET",
        "SLIDING",
        "FIXEDWINDOW",
        "CONCURRENCY",
        "COUNT",
        "RESET",
        "id",
    ]);
    prop_oneof![
        4 => near.prop_map(|word| word.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..12),
    ]
}

#[test]
fn random_words_never_stop_the_server() {
    let mut server = Server::builder().virtual_clock().start().unwrap();
    let mut connection = server.connection().unwrap();
    let commands: Vec<String> = send(&mut connection, "COMMAND LIST FILTERBY MODULE rl");
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: cases(),
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let connection = std::cell::RefCell::new(connection);
    let call = (prop::sample::select(commands), prop::collection::vec(word(), 0..9));
    runner
        .run(&call, |(command, args)| {
            let mut words = vec![command.as_bytes()];
            words.extend(args.iter().map(Vec::as_slice));
            if let Err(error) = try_send::<Value>(&mut connection.borrow_mut(), &words) {
                let text = crate::client::text(&error);
                let code = text.split(' ').next().unwrap_or_default();
                prop_assert!(["ERR", "WRONGTYPE", "OOM"].contains(&code), "{}", text);
                prop_assert!(!text.contains("internal error"), "{}", text);
            }
            Ok(())
        })
        .unwrap();
    assert!(server.is_alive());
}
