//! Leases: RL.ACQUIRE, RL.RENEW, RL.RELEASE, RL.LEASES, and the rule CONCURRENCY in RL.MULTI, sentence by sentence.

use redis::{Connection, Value};

use crate::client::{T0, at, digest, error, send, try_send, used};
use crate::replication::number;
use crate::server::Server;

const SECOND: u64 = 1_000_000;

fn server() -> (Server, Connection) {
    let server = Server::builder().virtual_clock().start().unwrap();
    let connection = server.connection().unwrap();
    (server, connection)
}

/// Rows of a moment in microseconds, a command, and its reply.
fn check(connection: &mut Connection, rows: &[(u64, &str, &[i64])]) {
    for (micros, line, expected) in rows {
        assert_eq!(&at(connection, *micros, line), expected, "{line} at {micros} us");
    }
}

/// A count: what RL.RENEW and RL.RELEASE reply.
fn count(connection: &mut Connection, micros: u64, line: &str) -> i64 {
    send(connection, &format!("{line} AT {}", T0 + micros))
}

/// What RL.LEASES lists.
fn leases(connection: &mut Connection, micros: u64, line: &str) -> Vec<(String, i64, i64)> {
    send(connection, &format!("RL.LEASES {line} AT {}", T0 + micros))
}

fn lease(id: &str, units: i64, left: i64) -> (String, i64, i64) {
    (id.into(), units, left)
}

fn refused(connection: &mut Connection, line: &str) -> String {
    error(connection, &line.split(' ').map(str::as_bytes).collect::<Vec<_>>())
}

#[test]
fn at_most_the_limit_is_held_and_a_denial_knows_when_enough_has_run_out() {
    let (_server, mut connection) = server();
    check(
        &mut connection,
        &[
            (0, "RL.ACQUIRE k 4 10s a", &[1, 4, 3, 0, 10_000]),
            (SECOND, "RL.ACQUIRE k 4 5s b COST 2", &[1, 4, 1, 0, 9_000]),
            (SECOND, "RL.ACQUIRE k 4 30s c", &[1, 4, 0, 0, 30_000]),
            (SECOND, "RL.ACQUIRE k 4 1s d", &[0, 4, 0, 5_000, 30_000]),
            (SECOND, "RL.ACQUIRE k 4 1s d COST 3", &[0, 4, 0, 9_000, 30_000]),
            (SECOND, "RL.ACQUIRE k 4 1s d COST 4", &[0, 4, 0, 30_000, 30_000]),
            (SECOND, "RL.ACQUIRE k 4 1s d COST 5", &[0, 4, 0, -1, 30_000]),
            (SECOND, "RL.ACQUIRE k 0 1s d", &[0, 0, 0, -1, 30_000]),
            // One millisecond too early, and just in time.
            (SECOND * 6 - 1_000, "RL.ACQUIRE k 4 1s d", &[0, 4, 0, 1, 25_001]),
            (SECOND * 6, "RL.ACQUIRE k 4 1s d", &[1, 4, 1, 0, 25_000]),
        ],
    );
}

#[test]
fn a_lease_lasts_to_the_microsecond() {
    let (_server, mut connection) = server();
    check(&mut connection, &[(0, "RL.ACQUIRE k 1 1ms a", &[1, 1, 0, 0, 1])]);
    check(&mut connection, &[(999, "RL.ACQUIRE k 1 1ms b", &[0, 1, 0, 1, 1])]);
    assert_eq!(leases(&mut connection, 999, "k"), [lease("a", 1, 1)]);
    assert_eq!(leases(&mut connection, 1_000, "k"), []);
    check(&mut connection, &[(1_000, "RL.ACQUIRE k 1 1ms b", &[1, 1, 0, 0, 1])]);
}

#[test]
fn the_same_id_replaces_its_own_lease_and_a_denial_leaves_it() {
    let (_server, mut connection) = server();
    check(
        &mut connection,
        &[
            (0, "RL.ACQUIRE k 3 10s a COST 2", &[1, 3, 1, 0, 10_000]),
            (0, "RL.ACQUIRE k 3 10s a COST 2", &[1, 3, 1, 0, 10_000]),
            (SECOND, "RL.ACQUIRE k 3 20s a COST 3", &[1, 3, 0, 0, 20_000]),
            (SECOND, "RL.ACQUIRE k 3 1s a COST 1", &[1, 3, 2, 0, 1_000]),
            (SECOND, "RL.ACQUIRE k 3 10s b COST 2", &[1, 3, 0, 0, 10_000]),
            // Without its own unit one would be free.
            (SECOND, "RL.ACQUIRE k 3 10s a COST 2", &[0, 3, 1, 10_000, 10_000]),
        ],
    );
    assert_eq!(leases(&mut connection, SECOND, "k"), [lease("a", 1, 1_000), lease("b", 2, 10_000)]);
}

#[test]
fn a_smaller_limit_takes_nothing_from_anybody() {
    let (_server, mut connection) = server();
    check(
        &mut connection,
        &[
            (0, "RL.ACQUIRE k 3 10s a", &[1, 3, 2, 0, 10_000]),
            (0, "RL.ACQUIRE k 3 10s b", &[1, 3, 1, 0, 10_000]),
            (0, "RL.ACQUIRE k 1 10s c", &[0, 1, 0, 10_000, 10_000]),
        ],
    );
    assert_eq!(count(&mut connection, 0, "RL.RENEW k 20s a b"), 2);
    assert_eq!(count(&mut connection, 0, "RL.RELEASE k a"), 1);
    check(&mut connection, &[(0, "RL.ACQUIRE k 1 10s c", &[0, 1, 0, 20_000, 20_000])]);
    check(&mut connection, &[(0, "RL.ACQUIRE k 2 10s c", &[1, 2, 0, 0, 20_000])]);
}

#[test]
fn a_renewal_lasts_from_now_and_what_has_run_out_stays_lost() {
    let (_server, mut connection) = server();
    for id in ["a", "b", "c"] {
        at(&mut connection, 0, &format!("RL.ACQUIRE k 3 10s {id}"));
    }
    assert_eq!(count(&mut connection, 9 * SECOND, "RL.RENEW k 5s a b b x"), 3, "b twice");
    let held = [lease("c", 1, 1_000), lease("a", 1, 5_000), lease("b", 1, 5_000)];
    assert_eq!(leases(&mut connection, 9 * SECOND, "k"), held);
    assert_eq!(count(&mut connection, 10 * SECOND, "RL.RENEW k 5s c"), 0);
    assert_eq!(count(&mut connection, 14 * SECOND - 1, "RL.RENEW k 1ms a"), 1, "a shorter ttl");
    assert_eq!(leases(&mut connection, 14 * SECOND - 1, "k COUNT 1"), [lease("b", 1, 1)]);
    assert_eq!(count(&mut connection, 20 * SECOND, "RL.RENEW k 5s a b c"), 0);
    assert_eq!(count(&mut connection, 0, "RL.RENEW nothing 5s a"), 0);
}

#[test]
fn a_release_frees_only_what_its_id_holds_and_the_key_goes_with_the_last() {
    let (_server, mut connection) = server();
    at(&mut connection, 0, "RL.ACQUIRE k 2 10s a");
    at(&mut connection, 0, "RL.ACQUIRE k 2 10s b");
    for (ids, released) in [("x", 0), ("a x a", 1), ("a", 0)] {
        assert_eq!(count(&mut connection, 0, &format!("RL.RELEASE k {ids}")), released, "{ids}");
    }
    assert_eq!(leases(&mut connection, 0, "k"), [lease("b", 1, 10_000)]);
    assert_eq!(count(&mut connection, 10 * SECOND, "RL.RELEASE k b"), 0, "it has run out");
    at(&mut connection, 0, "RL.ACQUIRE k 2 10s b");
    assert_eq!(count(&mut connection, 0, "RL.RELEASE k b"), 1);
    assert_eq!(send::<i64>(&mut connection, "EXISTS k"), 0);
}

#[test]
fn an_id_is_1_to_64_bytes_of_any_kind_even_the_name_of_an_option() {
    let (_server, mut connection) = server();
    for id in [&b"\0"[..], &[255; 64], b"AT", b"COST", b"with space"] {
        let words: [&[u8]; 5] = [b"RL.ACQUIRE", b"k", b"9", b"10s", id];
        assert_eq!(try_send::<Vec<i64>>(&mut connection, &words).unwrap()[0], 1);
        let words: [&[u8]; 4] = [b"RL.RENEW", b"k", b"10s", id];
        assert_eq!(try_send::<i64>(&mut connection, &words).unwrap(), 1);
        let words: [&[u8]; 3] = [b"RL.RELEASE", b"k", id];
        assert_eq!(try_send::<i64>(&mut connection, &words).unwrap(), 1);
    }
    send::<Vec<i64>>(&mut connection, "RL.ACQUIRE k 9 10s AT");
    send::<Vec<i64>>(&mut connection, "RL.ACQUIRE k 9 10s 5");
    assert_eq!(send::<i64>(&mut connection, "RL.RELEASE k AT 5"), 2, "no id before it: no option");
    for id in [&b""[..], &[7; 65]] {
        for words in [
            &[b"RL.ACQUIRE", &b"k"[..], b"9", b"10s", id][..],
            &[b"RL.RENEW", b"k", b"10s", b"a", id],
            &[b"RL.RELEASE", b"k", b"a", id],
        ] {
            assert_eq!(error(&mut connection, words), "ERR id must be 1 to 64 bytes");
        }
    }
}

#[test]
fn bad_input_is_an_error_and_changes_nothing() {
    let (_server, mut connection) = server();
    at(&mut connection, 0, "RL.ACQUIRE k 3 10s a");
    at(&mut connection, 0, "RL.SLIDING s 3 1d");
    send::<()>(&mut connection, "SET text x");
    let before = digest(&mut connection, "k");
    let (limit, cost) = ("must be an integer from 0 to 10", "must be an integer from 1 to 10");
    let other =
        "WRONGTYPE the key holds a SLIDING limiter, not CONCURRENCY; delete it with RL.RESET first";
    for (line, expected) in [
        ("RL.ACQUIRE k x 10s b", format!("ERR limit {limit}")),
        ("RL.ACQUIRE k 1000000000001 10s b", format!("ERR limit {limit}")),
        ("RL.ACQUIRE k 3 0 b", "ERR ttl must be a duration".into()),
        ("RL.ACQUIRE k 3 999us b", "ERR ttl must be a duration".into()),
        ("RL.ACQUIRE k 3 3651d b", "ERR ttl must be a duration".into()),
        ("RL.ACQUIRE k 3 month b", "ERR ttl must be a duration".into()),
        ("RL.ACQUIRE k 3 10s b COST 0", format!("ERR COST {cost}")),
        ("RL.ACQUIRE k 3 10s b COST 1000000000001", format!("ERR COST {cost}")),
        ("RL.ACQUIRE k 3 10s b FORCE", "ERR unknown option; expected one of COST, AT".into()),
        ("RL.ACQUIRE k 3 10s b PARTIAL", "ERR unknown option; expected one of COST, AT".into()),
        ("RL.ACQUIRE k 3 10s b COST 1 COST 1", "ERR COST must be given only once".into()),
        ("RL.ACQUIRE text 3 10s b", "WRONGTYPE the key holds a value".into()),
        ("RL.ACQUIRE s 3 10s b", other.into()),
        ("RL.RENEW k 999us a", "ERR ttl must be a duration".into()),
        ("RL.RENEW text 1s a", "WRONGTYPE the key holds a value".into()),
        ("RL.RENEW s 1s a", other.into()),
        ("RL.RELEASE text a", "WRONGTYPE the key holds a value".into()),
        ("RL.RELEASE s a", other.into()),
        ("RL.LEASES k COUNT 0", "ERR COUNT must be an integer from 1 to 1000000".into()),
        ("RL.LEASES k COUNT 1000001", "ERR COUNT must be an integer from 1 to 1000000".into()),
        ("RL.LEASES k 1", "ERR unknown option; expected one of COUNT, AT".into()),
        ("RL.LEASES text", "WRONGTYPE the key holds a value".into()),
        ("RL.LEASES s", other.into()),
        (
            "RL.REFUND k 1",
            "WRONGTYPE the key holds a CONCURRENCY limiter; give leases back with RL.RELEASE"
                .into(),
        ),
        (
            "RL.MULTI 1 k CONCURRENCY 3 10s b FORCE",
            "ERR FORCE cannot be used with CONCURRENCY".into(),
        ),
        ("RL.MULTI 1 k CONCURRENCY 3 10s", "ERR wrong number of arguments".into()),
        ("RL.MULTI 1 k CONCURRENCY 3 10s b COST 0", format!("ERR COST {cost}")),
    ] {
        let at =
            if expected.starts_with("WRONGTYPE") { format!(" AT {T0}") } else { String::new() };
        let found = refused(&mut connection, &format!("{line}{at}"));
        assert!(found.starts_with(&expected), "{line}\n found {found}\n wants {expected}");
    }
    assert_eq!(digest(&mut connection, "k"), before);
    assert_eq!(send::<i64>(&mut connection, "DBSIZE"), 3);
}

#[test]
fn one_lease_more_than_the_setting_allows_is_an_error_and_replacing_one_is_not() {
    let (_server, mut connection) = server();
    send::<()>(&mut connection, "CONFIG SET rl.max-leases 2");
    at(&mut connection, 0, "RL.ACQUIRE k 9 10s a");
    at(&mut connection, 0, "RL.ACQUIRE k 9 5s b");
    let before = digest(&mut connection, "k");
    let error = "ERR the key has too many leases: at most 2 (the setting rl.max-leases)";
    assert_eq!(refused(&mut connection, &format!("RL.ACQUIRE k 9 10s c AT {T0}")), error);
    let multi = format!("RL.MULTI 2 s k SLIDING 9 1d CONCURRENCY 9 10s c AT {T0}");
    assert_eq!(refused(&mut connection, &multi), error);
    assert_eq!(send::<i64>(&mut connection, "EXISTS s"), 0);
    assert_eq!(digest(&mut connection, "k"), before);
    check(
        &mut connection,
        &[
            // A denial is a denial, whatever the number of leases.
            (0, "RL.ACQUIRE k 1 10s c", &[0, 1, 0, 10_000, 10_000]),
            (0, "RL.ACQUIRE k 9 5s a", &[1, 9, 7, 0, 5_000]),
            // What has run out does not count.
            (5 * SECOND, "RL.ACQUIRE k 9 5s c", &[1, 9, 8, 0, 5_000]),
        ],
    );
    send::<()>(&mut connection, "CONFIG SET rl.max-leases 1");
    assert_eq!(at(&mut connection, 5 * SECOND, "RL.ACQUIRE k 9 5s c")[0], 1, "still no more");
}

#[test]
fn looks_show_what_is_held() {
    let (_server, mut connection) = server();
    assert_eq!(leases(&mut connection, 0, "k"), []);
    at(&mut connection, 0, "RL.ACQUIRE k 5 10s a COST 2");
    at(&mut connection, 0, "RL.ACQUIRE k 5 5s b");
    check(
        &mut connection,
        &[
            (0, "RL.PEEK k", &[1, 5, 2, 0, 10_000]),
            (0, "RL.PEEK k COST 3", &[0, 5, 2, 5_000, 10_000]),
            (0, "RL.PEEK k COST 6", &[0, 5, 2, -1, 10_000]),
        ],
    );
    let info: Vec<Value> = send(&mut connection, &format!("RL.INFO k AT {T0}"));
    let text = |text: &str| Value::BulkString(text.into());
    for (name, value) in [
        ("algorithm", text("CONCURRENCY")),
        ("limit", Value::Int(5)),
        ("ttl_us", Value::Int(5_000_000)),
        ("used", Value::Int(3)),
        ("remaining", Value::Int(2)),
        ("wait_ms", Value::Int(0)),
        ("reset_ms", Value::Int(10_000)),
        ("leases", Value::Int(2)),
    ] {
        let place = info.iter().position(|field| *field == text(name)).expect(name);
        assert_eq!(info[place + 1], value, "{name}");
    }
    assert!(!info.contains(&text("entries")));
    let idle = format!("RL.PEEK k AT {}", T0 + 10 * SECOND);
    assert_eq!(send::<Value>(&mut connection, &idle), Value::Nil);
    assert_eq!(send::<i64>(&mut connection, "RL.RESET k"), 1);
}

#[test]
fn a_clock_that_stepped_back_ends_what_would_last_longer_than_twice_its_ttl() {
    let (_server, mut connection) = server();
    at(&mut connection, 100 * SECOND, "RL.ACQUIRE k 2 10s a");
    at(&mut connection, 100 * SECOND, "RL.ACQUIRE k 2 60s b");
    assert_eq!(leases(&mut connection, 90 * SECOND, "k").len(), 2);
    assert_eq!(leases(&mut connection, 90 * SECOND - 1, "k"), [lease("b", 1, 70_001)]);
    check(&mut connection, &[(80 * SECOND, "RL.ACQUIRE k 2 10s c", &[1, 2, 0, 0, 80_000])]);
    assert_eq!(leases(&mut connection, 100 * SECOND, "k"), [lease("b", 1, 60_000)], "a is gone");
}

#[test]
fn slots_requests_and_tokens_are_one_decision() {
    let (_server, mut connection) = server();
    let multi = |connection: &mut Connection, micros: u64, line: &str| -> Vec<Value> {
        send(connection, &format!("RL.MULTI {line} AT {}", T0 + micros))
    };
    let row = |integers: [i64; 5]| Value::Array(integers.map(Value::Int).to_vec());
    let keys = "3 {u}:r {u}:t {u}:s";
    let limits = "SLIDING 5 1m FIXEDWINDOW 1000 1d COST 300 CONCURRENCY 2 30s";
    let reply = multi(&mut connection, 0, &format!("{keys} {limits} one"));
    assert_eq!(reply[..3], [1, 0, -1].map(Value::Int));
    assert_eq!(reply[5], row([1, 2, 1, 0, 30_000]));
    // The same holder again takes no second slot; the others are charged, since they know no holders.
    let reply = multi(&mut connection, 0, &format!("{keys} {limits} one"));
    assert_eq!(
        reply[3..],
        [row([1, 5, 3, 0, 60_000]), row([1, 1_000, 400, 0, 86_400_000]), row([1, 2, 1, 0, 30_000]),]
    );
    multi(&mut connection, 0, &format!("{keys} {limits} two"));
    // The slots refuse: nothing is taken from the others.
    let reply = multi(
        &mut connection,
        0,
        "3 {u}:r {u}:t {u}:s SLIDING 5 1m FIXEDWINDOW 1000 1d COST 100 CONCURRENCY 2 30s three",
    );
    assert_eq!(reply[..3], [0, 30_000, 2].map(Value::Int));
    assert_eq!(
        reply[3..],
        [
            row([1, 5, 2, 0, 60_000]),
            row([1, 1_000, 100, 0, 86_400_000]),
            row([0, 2, 0, 30_000, 30_000]),
        ]
    );
    // The tokens refuse: no slot is taken.
    assert_eq!(count(&mut connection, 0, "RL.RELEASE {u}:s two"), 1);
    let reply = multi(&mut connection, 0, &format!("{keys} {limits} three"));
    assert_eq!(reply[..3], [0, 86_400_000, 1].map(Value::Int));
    assert_eq!(reply[5], row([1, 2, 1, 0, 30_000]), "as it stands");
    assert_eq!(leases(&mut connection, 0, "{u}:s"), [lease("one", 1, 30_000)]);
    assert_eq!(used(&mut connection, "{u}:r", &format!("AT {T0}")), 3);
}

#[test]
fn the_key_lives_until_the_last_lease_has_run_out_renewals_included() {
    let (_server, mut connection) = server();
    let expires = |connection: &mut Connection| {
        send::<i64>(connection, "PEXPIRETIME k") - (T0 / 1_000) as i64
    };
    at(&mut connection, 0, "RL.ACQUIRE k 3 10s a");
    assert!((10_000..=21_000).contains(&expires(&mut connection)));
    at(&mut connection, 0, "RL.ACQUIRE k 3 1s b");
    assert!((10_000..=21_000).contains(&expires(&mut connection)), "the last of them counts");
    count(&mut connection, 0, "RL.RENEW k 100s b");
    assert!((100_000..=201_000).contains(&expires(&mut connection)));
    let before = expires(&mut connection);
    count(&mut connection, 0, "RL.RELEASE k b");
    assert_eq!(expires(&mut connection), before, "a release leaves the expiry alone");
}

#[test]
fn what_changes_nothing_writes_nothing() {
    let server = Server::builder().virtual_clock().setting("appendonly yes").start().unwrap();
    let mut connection = server.connection().unwrap();
    at(&mut connection, 0, "RL.ACQUIRE k 1 10s a");
    let mut watcher = server.connection().unwrap();
    send::<()>(&mut watcher, "WATCH k");
    let expiry = send::<i64>(&mut connection, "PEXPIRETIME k");
    let size = number(&mut connection, "persistence", "aof_current_size");
    let before = digest(&mut connection, "k");
    at(&mut connection, SECOND, "RL.ACQUIRE k 1 99s b");
    assert_eq!(count(&mut connection, SECOND, "RL.RENEW k 99s b"), 0);
    assert_eq!(count(&mut connection, SECOND, "RL.RELEASE k b"), 0);
    assert_eq!(leases(&mut connection, SECOND, "k").len(), 1);
    assert_eq!(number(&mut connection, "persistence", "aof_current_size"), size);
    assert_eq!(send::<i64>(&mut connection, "PEXPIRETIME k"), expiry);
    assert_eq!(digest(&mut connection, "k"), before);
    send::<()>(&mut watcher, "MULTI");
    send::<Value>(&mut watcher, "PING");
    assert_ne!(send::<Value>(&mut watcher, "EXEC"), Value::Nil, "nobody changed the key");
    assert_eq!(count(&mut connection, SECOND, "RL.RELEASE k a"), 1);
    assert!(number(&mut connection, "persistence", "aof_current_size") > size);
}

#[test]
fn an_idle_concurrency_limit_is_no_key_and_is_replaced() {
    let (_server, mut connection) = server();
    at(&mut connection, 0, "RL.ACQUIRE k 1 1s a");
    assert!(
        refused(&mut connection, &format!("RL.SLIDING k 1 1s AT {T0}")).starts_with("WRONGTYPE")
    );
    check(&mut connection, &[(SECOND, "RL.SLIDING k 1 1s", &[1, 1, 0, 0, 1_000])]);
    check(&mut connection, &[(2 * SECOND, "RL.ACQUIRE k 1 1s a", &[1, 1, 0, 0, 1_000])]);
}

#[test]
fn grants_denials_and_releases_are_counted() {
    let (_server, mut connection) = server();
    at(&mut connection, 0, "RL.ACQUIRE k 1 1s a");
    at(&mut connection, 0, "RL.ACQUIRE k 1 1s b");
    count(&mut connection, 0, "RL.RELEASE k a b");
    for (name, value) in
        [("rl_concurrency_granted", 1), ("rl_concurrency_denied", 1), ("rl_leases_released", 1)]
    {
        assert_eq!(number(&mut connection, "modules", name), value, "{name}");
    }
}
