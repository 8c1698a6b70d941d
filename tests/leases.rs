//! The concurrency limit: who holds what until when. Rows on a virtual clock for each sentence of its contract.
//!
//! What is written of it is in `replication.rs`, what wrong calls are answered in `errors.rs`, real holders in
//! `holders.rs`.

use redis::{Connection, Value};

use crate::client::{T0, answer, at, check_answers, digest, error, send, try_send};
use crate::server::{Server, field, info};

const SECOND: u64 = 1_000_000;

fn server() -> (Server, Connection) {
    let server = Server::builder().virtual_clock().start().unwrap();
    let connection = server.connection().unwrap();
    (server, connection)
}

/// Asserts rows on a server of their own.
fn check(rows: &[(u64, &str, &str)]) {
    let (_server, mut connection) = server();
    check_answers(&mut connection, rows);
}

#[test]
fn a_lease_is_held_until_its_ttl_is_over_to_the_microsecond() {
    check(&[
        (0, "RL.ACQUIRE k 1 1s a", "1 1 0 0 1000"),
        (1, "RL.ACQUIRE k 1 1s b", "0 1 0 1000 1000"),
        (999_999, "RL.ACQUIRE k 1 1s b", "0 1 0 1 1"),
        (999_999, "RL.LEASES k", "[a 1 1]"),
        (999_999, "RL.PEEK k", "0 1 0 1 1"),
        (1_000_000, "RL.LEASES k", ""),
        (1_000_000, "RL.PEEK k", "nil"),
        (1_000_000, "RL.RENEW k 1s a", "0"),
        (1_000_000, "RL.RELEASE k a", "0"),
        (1_000_000, "RL.ACQUIRE k 1 1s b", "1 1 0 0 1000"),
        // Until the last microsecond it may be renewed, and given back.
        (1_999_999, "RL.RENEW k 1s b", "1"),
        (2_999_998, "RL.ACQUIRE k 1 1s c", "0 1 0 1 1"),
        (2_999_998, "RL.RELEASE k b", "1"),
        (2_999_998, "RL.ACQUIRE k 1 1s c", "1 1 0 0 1000"),
    ]);
}

#[test]
fn a_denial_waits_until_enough_leases_have_run_out_and_is_granted_exactly_then() {
    let (_server, mut connection) = server();
    check_answers(
        &mut connection,
        &[
            (0, "RL.ACQUIRE k 10 1s a COST 4", "1 10 6 0 1000"),
            (300_500, "RL.ACQUIRE k 10 2s b COST 5", "1 10 1 0 2000"),
            (400_000, "RL.ACQUIRE k 10 5s c COST 2", "0 10 1 600 1901"),
            (400_000, "RL.ACQUIRE k 10 5s c COST 6", "0 10 1 1901 1901"),
            (400_000, "RL.ACQUIRE k 10 5s c COST 11", "0 10 1 -1 1901"),
            (400_000, "RL.ACQUIRE k 10 5s c", "1 10 0 0 5000"),
            (400_000, "RL.ACQUIRE k 0 5s d", "0 0 0 -1 5000"),
        ],
    );
    let mut waits = Vec::new();
    for cost in 1..=10 {
        let ask = |connection: &mut Connection, micros, id: &str| {
            send::<i64>(connection, "COPY k copy REPLACE");
            at(connection, micros, &format!("RL.ACQUIRE copy 10 1s {id} COST {cost}"))
        };
        for id in ["a", "b", "new"] {
            let denied = ask(&mut connection, 500_000, id);
            if denied[0] == 0 {
                let wait = denied[3].unsigned_abs() * 1_000;
                assert_eq!(ask(&mut connection, 499_000 + wait, id)[0], 0, "{id}, {cost}: early");
                assert_eq!(
                    ask(&mut connection, 500_000 + wait, id)[0],
                    1,
                    "{id}, {cost}: promised"
                );
                waits.push(denied[3]);
            }
        }
    }
    waits.sort_unstable();
    waits.dedup();
    assert_eq!(waits, [500, 1_801, 4_900], "until a, b and c have run out");
}

#[test]
fn the_same_id_again_replaces_its_lease_and_a_denial_keeps_the_old_one() {
    check(&[
        (0, "RL.ACQUIRE k 3 1s a COST 2", "1 3 1 0 1000"),
        // As if the old one were given back: with it, there would be room for one unit alone.
        (400_000, "RL.ACQUIRE k 3 1s a COST 3", "1 3 0 0 1000"),
        (400_000, "RL.LEASES k", "[a 3 1000]"),
        // The new cost and the whole new ttl count, shorter ones as well.
        (500_000, "RL.ACQUIRE k 3 200ms a", "1 3 2 0 200"),
        (500_000, "RL.ACQUIRE k 3 2s a", "1 3 2 0 2000"),
        (500_000, "RL.ACQUIRE k 3 2s b COST 2", "1 3 0 0 2000"),
        // A denial: the new ttl counts as little as the new cost.
        (600_000, "RL.ACQUIRE k 3 9s a COST 2", "0 3 1 1900 1900"),
        (600_000, "RL.ACQUIRE k 3 9s a COST 4", "0 3 1 -1 1900"),
        (600_000, "RL.LEASES k", "[a 1 1900] [b 2 1900]"),
        // One that had run out is no longer its own.
        (2_500_000, "RL.ACQUIRE k 3 1s a COST 3", "1 3 0 0 1000"),
        (2_500_000, "RL.LEASES k", "[a 3 1000]"),
    ]);
}

#[test]
fn a_retry_never_takes_two() {
    check(&[
        (0, "RL.ACQUIRE k 2 1s a", "1 2 1 0 1000"),
        (0, "RL.ACQUIRE k 2 1s a", "1 2 1 0 1000"),
        (1, "RL.ACQUIRE k 2 1s a", "1 2 1 0 1000"),
        (1, "RL.ACQUIRE k 1 1s a", "1 1 0 0 1000"),
        (1, "RL.LEASES k", "[a 1 1000]"),
        (1, "RL.RELEASE k a", "1"),
    ]);
}

#[test]
fn a_renewal_counts_from_now_and_what_had_run_out_stays_lost() {
    check(&[
        (0, "RL.ACQUIRE k 2 1s a", "1 2 1 0 1000"),
        (0, "RL.ACQUIRE k 2 1s b", "1 2 0 0 1000"),
        (500_000, "RL.RENEW k 1s a", "1"),
        (500_000, "RL.LEASES k", "[b 1 500] [a 1 1000]"),
        // Nobody else's calls prolong it: neither denials nor grants nor renewals.
        (600_000, "RL.ACQUIRE k 2 9s c", "0 2 0 400 900"),
        (600_000, "RL.ACQUIRE k 3 9s c", "1 3 0 0 9000"),
        (600_000, "RL.RENEW k 9s c nobody", "1"),
        (600_000, "RL.LEASES k", "[b 1 400] [a 1 900] [c 1 9000]"),
        (1_000_000, "RL.RENEW k 1s a b", "1"),
        (1_000_000, "RL.LEASES k", "[a 1 1000] [c 1 8600]"),
        (1_000_000, "RL.RENEW k 1s b", "0"),
        (1_000_000, "RL.RENEW missing 1s a", "0"),
        // Of several all are renewed, and a shorter ttl counts as well.
        (1_500_000, "RL.RENEW k 1ms c a", "2"),
        (1_500_000, "RL.LEASES k", "[a 1 1] [c 1 1]"),
        (1_501_000, "RL.RENEW k 1s a c", "0"),
        (1_501_000, "RL.ACQUIRE k 3 1s a COST 3", "1 3 0 0 1000"),
    ]);
}

#[test]
fn a_release_frees_what_its_id_holds_once_and_nobody_else_s() {
    let (_server, mut connection) = server();
    check_answers(
        &mut connection,
        &[
            (0, "RL.ACQUIRE k 3 1s a", "1 3 2 0 1000"),
            (0, "RL.ACQUIRE k 3 1s b COST 2", "1 3 0 0 1000"),
            (0, "RL.RELEASE k stranger A aa", "0"),
            (0, "RL.RELEASE missing a", "0"),
            (0, "RL.RELEASE k stranger a", "1"),
            (0, "RL.RELEASE k a", "0"),
            (0, "RL.LEASES k", "[b 2 1000]"),
            (0, "RL.ACQUIRE k 3 1s c", "1 3 0 0 1000"),
            // A holder that was stopped too long frees nothing of who came after it.
            (1_000_000, "RL.ACQUIRE k 3 1s d COST 3", "1 3 0 0 1000"),
            (1_000_000, "RL.RELEASE k b c", "0"),
            (1_000_000, "RL.LEASES k", "[d 3 1000]"),
        ],
    );
    assert_eq!(answer(&mut connection, SECOND, "RL.RELEASE k c d d b"), "1");
    assert_eq!(send::<i64>(&mut connection, "EXISTS k"), 0, "with the last lease the key goes");
}

#[test]
fn with_the_last_lease_that_counts_the_key_goes_though_others_have_run_out() {
    let (_server, mut connection) = server();
    check_answers(
        &mut connection,
        &[
            (0, "RL.ACQUIRE k 3 1s short", "1 3 2 0 1000"),
            (0, "RL.ACQUIRE k 3 9s long", "1 3 1 0 9000"),
            (SECOND, "RL.RELEASE k short", "0"),
            (SECOND, "RL.RELEASE k long", "1"),
        ],
    );
    assert_eq!(send::<i64>(&mut connection, "EXISTS k"), 0);
}

#[test]
fn a_smaller_limit_takes_nothing_from_anybody_and_drains() {
    check(&[
        (0, "RL.ACQUIRE k 5 1s a COST 3", "1 5 2 0 1000"),
        (0, "RL.ACQUIRE k 5 2s b COST 2", "1 5 0 0 2000"),
        (0, "RL.ACQUIRE k 2 1s c", "0 2 0 2000 2000"),
        (0, "RL.ACQUIRE k 3 1s c", "0 3 0 1000 2000"),
        (0, "RL.LEASES k", "[a 3 1000] [b 2 2000]"),
        (0, "RL.PEEK k", "0 5 0 1000 2000"),
        (0, "RL.RENEW k 1s a b", "2"),
        (0, "RL.RELEASE k b", "1"),
        (0, "RL.ACQUIRE k 3 1s c", "0 3 0 1000 1000"),
        (0, "RL.ACQUIRE k 4 1s c", "1 4 0 0 1000"),
        // Only a grant stores the new limit.
        (0, "RL.PEEK k", "0 4 0 1000 1000"),
        (0, "RL.ACQUIRE k 9 1s d", "1 9 4 0 1000"),
        (0, "RL.PEEK k COST 4", "1 9 4 0 1000"),
    ]);
}

#[test]
fn the_largest_and_the_smallest_numbers_are_exact() {
    let most = "1000000000000";
    let years: u64 = 315_360_000_000;
    check(&[
        (0, &format!("RL.ACQUIRE k {most} 3650d a COST {most}"), &format!("1 {most} 0 0 {years}")),
        (1, &format!("RL.ACQUIRE k {most} 1ms b"), &format!("0 {most} 0 {years} {years}")),
        (1, &format!("RL.ACQUIRE k {most} 1ms a COST {most}"), &format!("1 {most} 0 0 1")),
        (1_001, &format!("RL.ACQUIRE k {most} 1ms b COST {most}"), &format!("1 {most} 0 0 1")),
    ]);
}

#[test]
fn a_key_has_at_most_as_many_leases_as_the_setting_says() {
    let (_server, mut connection) = server();
    send::<()>(&mut connection, "CONFIG SET rl.max-leases 2");
    let full = "ERR the key has too many leases: at most 2 (the setting rl.max-leases)";
    check_answers(
        &mut connection,
        &[
            (0, "RL.ACQUIRE k 9 1s a", "1 9 8 0 1000"),
            (0, "RL.ACQUIRE k 9 2s b", "1 9 7 0 2000"),
            (0, "RL.ACQUIRE k 9 1s c", full),
            (0, "RL.MULTI 2 other k SLIDING 5 1s CONCURRENCY 9 1s c", full),
            // To replace one is not one more, and a denial is a denial.
            (0, "RL.ACQUIRE k 9 1s a COST 3", "1 9 5 0 2000"),
            (0, "RL.ACQUIRE k 9 1s c COST 6", "0 9 5 1000 2000"),
            (0, "RL.LEASES k", "[a 3 1000] [b 1 2000]"),
            // What has run out counts no longer.
            (SECOND, "RL.ACQUIRE k 9 1s c", "1 9 7 0 1000"),
            (SECOND, "RL.ACQUIRE k 9 1s a", full),
            (SECOND, "RL.RELEASE k c", "1"),
            (SECOND, "RL.ACQUIRE k 9 1s a", "1 9 7 0 1000"),
        ],
    );
    assert_eq!(send::<i64>(&mut connection, "EXISTS other"), 0, "nothing was taken");
    // More than a smaller setting allows: it drains.
    send::<()>(&mut connection, "CONFIG SET rl.max-leases 1");
    assert!(answer(&mut connection, SECOND, "RL.ACQUIRE k 9 1s c").starts_with("ERR "));
    assert_eq!(answer(&mut connection, SECOND, "RL.ACQUIRE k 9 1s a"), "1 9 7 0 1000");
    for line in ["CONFIG SET rl.max-leases 0", "CONFIG SET rl.max-leases 1000001"] {
        let words: Vec<_> = line.split(' ').map(str::as_bytes).collect();
        error(&mut connection, &words);
    }
}

#[test]
fn a_clock_that_stepped_back_keeps_a_lease_for_at_most_twice_its_ttl() {
    let (_server, mut connection) = server();
    check_answers(
        &mut connection,
        &[
            (10 * SECOND, "RL.ACQUIRE k 1 1s a", "1 1 0 0 1000"),
            (9 * SECOND, "RL.ACQUIRE k 1 1s b", "0 1 0 2000 2000"),
            (9 * SECOND, "RL.RENEW k 1s b", "0"),
            (9 * SECOND, "RL.LEASES k", "[a 1 2000]"),
            // A microsecond more, and it is over.
            (9 * SECOND - 1, "RL.LEASES k", ""),
            (9 * SECOND - 1, "RL.PEEK k", "nil"),
            (9 * SECOND - 1, "RL.RENEW k 1s a", "0"),
            (9 * SECOND - 1, "RL.RELEASE k a", "0"),
            (9 * SECOND - 1, "RL.ACQUIRE k 1 1s b", "1 1 0 0 1000"),
            (9 * SECOND, "RL.LEASES k", "[b 1 1000]"),
            // The lease that was over is gone for good.
            (10 * SECOND, "RL.LEASES k", ""),
        ],
    );
    // Each lease goes by its own ttl.
    check_answers(
        &mut connection,
        &[
            (100 * SECOND, "RL.ACQUIRE l 2 1s short", "1 2 1 0 1000"),
            (100 * SECOND, "RL.ACQUIRE l 2 50s long", "1 2 0 0 50000"),
            (60 * SECOND, "RL.LEASES l", "[long 1 90000]"),
            (60 * SECOND, "RL.RENEW l 1s short long", "1"),
            (60 * SECOND, "RL.LEASES l", "[long 1 1000]"),
        ],
    );
    // And one that steps forward ends them all.
    assert_eq!(answer(&mut connection, 1 << 50, "RL.ACQUIRE l 1 1s new"), "1 1 0 0 1000");
}

#[test]
fn a_key_that_holds_something_else_is_left_alone() {
    let (_server, mut connection) = server();
    send::<()>(&mut connection, "SET text hello");
    at(&mut connection, 0, "RL.TOKENBUCKET bucket 1 1");
    at(&mut connection, 0, "RL.ACQUIRE k 1 1s a");
    let before: String = send(&mut connection, "DEBUG DIGEST");
    let (text, other) = (
        "WRONGTYPE the key holds a value that is not a rate limiter",
        "WRONGTYPE the key holds a TOKENBUCKET limiter, not CONCURRENCY; delete it with RL.RESET first",
    );
    for rest in ["ACQUIRE KEY 1 1s a", "RENEW KEY 1s a", "RELEASE KEY a", "LEASES KEY"] {
        let ask = |key| format!("RL.{}", rest.replace("KEY", key));
        assert_eq!(answer(&mut connection, 0, &ask("text")), text, "{rest}");
        assert_eq!(answer(&mut connection, 0, &ask("bucket")), other, "{rest}");
    }
    for limits in [
        "TOKENBUCKET k 1 1",
        "LEAKYBUCKET k 1 1",
        "FIXEDWINDOW k 1 1",
        "SLIDING k 1 1",
        "SLIDINGLOG k 1 1",
    ] {
        let name = limits.split(' ').next().unwrap();
        let expected = format!(
            "WRONGTYPE the key holds a CONCURRENCY limiter, not {name}; delete it with RL.RESET first"
        );
        assert_eq!(answer(&mut connection, 0, &format!("RL.{limits}")), expected);
    }
    assert!(answer(&mut connection, 0, "RL.THROTTLE k 1 1 1").starts_with("WRONGTYPE "));
    let multi = "RL.MULTI 2 new k SLIDING 1 1 SLIDING 1 1";
    assert!(answer(&mut connection, 0, multi).starts_with("WRONGTYPE "));
    assert_eq!(
        answer(&mut connection, 0, "RL.REFUND k 1"),
        "WRONGTYPE the key holds a CONCURRENCY limiter; give leases back with RL.RELEASE"
    );
    assert_eq!(send::<String>(&mut connection, "DEBUG DIGEST"), before);
}

#[test]
fn an_idle_limiter_of_another_kind_is_as_no_key_both_ways() {
    check(&[
        (0, "RL.TOKENBUCKET k 1 1", "1 1 0 0 1000"),
        (SECOND, "RL.RENEW k 1s a", "0"),
        (SECOND, "RL.RELEASE k a", "0"),
        (SECOND, "RL.LEASES k", ""),
        (SECOND, "RL.ACQUIRE k 1 1s a", "1 1 0 0 1000"),
        (SECOND, "RL.LEASES k", "[a 1 1000]"),
        (2 * SECOND, "RL.REFUND k 1", "nil"),
        (2 * SECOND, "RL.SLIDING k 1 1s", "1 1 0 0 1000"),
    ]);
}

#[test]
fn peek_info_and_reset_work_as_on_any_limiter() {
    let (_server, mut connection) = server();
    check_answers(
        &mut connection,
        &[
            (0, "RL.ACQUIRE k 5 1s a COST 2", "1 5 3 0 1000"),
            (0, "RL.ACQUIRE k 5 3s b", "1 5 2 0 3000"),
            (0, "RL.PEEK k", "1 5 2 0 3000"),
            (0, "RL.PEEK k COST 3", "0 5 2 1000 3000"),
            (0, "RL.PEEK k COST 5", "0 5 2 3000 3000"),
            (0, "RL.PEEK k COST 6", "0 5 2 -1 3000"),
            (0, "RL.PEEK k COST 0", "1 5 2 0 3000"),
        ],
    );
    let described = answer(&mut connection, 0, "RL.INFO k");
    let (fields, bytes) = described.split_once(" bytes ").unwrap();
    assert_eq!(
        fields,
        "algorithm CONCURRENCY limit 5 ttl_us 3000000 used 3 remaining 2 wait_ms 0 reset_ms 3000 leases 2"
    );
    let bytes: u64 = bytes.parse().unwrap();
    assert!((96..=400).contains(&bytes), "{bytes}");
    let later = answer(&mut connection, SECOND, "RL.INFO k");
    assert!(later.contains(" used 1 ") && later.contains(" leases 1 "), "{later}");
    assert_eq!(answer(&mut connection, 3 * SECOND, "RL.INFO k"), "nil");
    assert_eq!(send::<i64>(&mut connection, "RL.RESET k missing"), 1);
    assert_eq!(send::<i64>(&mut connection, "EXISTS k"), 0);
}

#[test]
fn leases_are_listed_by_when_they_run_out_all_or_the_first() {
    let (_server, mut connection) = server();
    check_answers(
        &mut connection,
        &[
            (0, "RL.LEASES k", ""),
            (0, "RL.ACQUIRE k 9 3s c", "1 9 8 0 3000"),
            (0, "RL.ACQUIRE k 9 1s b COST 2", "1 9 6 0 3000"),
            (0, "RL.ACQUIRE k 9 2s a", "1 9 5 0 3000"),
            (0, "RL.ACQUIRE k 9 2s A", "1 9 4 0 3000"),
            (1, "RL.LEASES k", "[b 2 1000] [A 1 2000] [a 1 2000] [c 1 3000]"),
            (1, "RL.LEASES k COUNT 1", "[b 2 1000]"),
            (1, "RL.LEASES k COUNT 3", "[b 2 1000] [A 1 2000] [a 1 2000]"),
            (1, "RL.LEASES k COUNT 1000000", "[b 2 1000] [A 1 2000] [a 1 2000] [c 1 3000]"),
            (SECOND, "RL.LEASES k COUNT 2", "[A 1 1000] [a 1 1000]"),
            (1_999_999, "RL.LEASES k", "[A 1 1] [a 1 1] [c 1 1001]"),
        ],
    );
}

#[test]
fn an_id_may_be_any_bytes_and_only_the_same_bytes_are_the_same() {
    let (_server, mut connection) = server();
    let (long, longer) = ([b'x'; 63], [b'x'; 64]);
    let mut other = longer;
    other[63] = b'y';
    let now = T0.to_string();
    let now = now.as_bytes();
    let ids: &[&[u8]] = &[
        b"\0",
        b"\0\0",
        b" ",
        b"a",
        b"A",
        b"a\0",
        b"\xff\r\n$",
        b"AT",
        b"COST",
        b"0123456789abcdef",
        b"0123456789abcdefg",
        b"0123456789abcdef\0",
        &long,
        &longer,
        &other,
    ];
    for (number, id) in ids.iter().enumerate() {
        let words: [&[u8]; 7] = [b"RL.ACQUIRE", b"k", b"99", b"1m", *id, b"AT", now];
        let reply: Vec<i64> = try_send(&mut connection, &words).unwrap();
        assert_eq!(reply[2], 98 - number as i64, "{id:?} is another");
    }
    let leases: Vec<(Vec<u8>, i64, i64)> =
        try_send(&mut connection, &[b"RL.LEASES", b"k", b"AT", now]).unwrap();
    let mut expected: Vec<_> = ids.iter().map(|id| id.to_vec()).collect();
    expected.sort();
    assert_eq!(leases.into_iter().map(|lease| lease.0).collect::<Vec<_>>(), expected);
    for id in ids {
        for (line, expected) in [
            ([&b"RL.RENEW"[..], b"k", b"2m", id, b"AT", now].to_vec(), 1),
            ([&b"RL.RELEASE"[..], b"k", id, b"AT", now].to_vec(), 1),
            ([&b"RL.RELEASE"[..], b"k", id, b"AT", now].to_vec(), 0),
        ] {
            let reply: i64 = try_send(&mut connection, &line).unwrap();
            assert_eq!(reply, expected, "{line:?}");
        }
    }
    assert_eq!(send::<i64>(&mut connection, "EXISTS k"), 0);
}

#[test]
fn a_key_goes_by_itself_but_never_before_its_last_lease() {
    let (_server, mut connection) = server();
    let now = (T0 / 1_000).cast_signed();
    let expiry = |connection: &mut Connection| send::<i64>(connection, "PEXPIRETIME k") - now;
    let mut grant = |millis: i64, line: &str, idle: i64| {
        answer(&mut connection, millis.unsigned_abs() * 1_000, line);
        let expires = expiry(&mut connection);
        let reset = idle - millis;
        assert!(expires >= idle, "{line} at {millis}: {expires} is before {idle}");
        assert!(expires <= millis + 2 * reset + 1_000, "{line} at {millis}: {expires} for {idle}");
        expires
    };
    grant(0, "RL.ACQUIRE k 9 10s a", 10_000);
    grant(0, "RL.ACQUIRE k 9 1m b", 60_000);
    grant(0, "RL.ACQUIRE k 9 1s c", 60_000);
    grant(30_000, "RL.RENEW k 1m b", 90_000);
    grant(30_000, "RL.RENEW k 10m b", 630_000);
    // The key is idle sooner, and its expiry follows.
    grant(30_000, "RL.RENEW k 1s b", 31_000);
    grant(30_000, "RL.ACQUIRE k 9 1h a", 3_630_000);
    let before = grant(30_000, "RL.ACQUIRE k 9 10s a", 40_000);
    // A release leaves it alone, and so do a denial and what finds nothing.
    for line in ["RL.RELEASE k b", "RL.RELEASE k b", "RL.ACQUIRE k 1 1h d", "RL.RENEW k 1h d"] {
        answer(&mut connection, 30_000_000, line);
        assert_eq!(expiry(&mut connection), before, "{line}");
    }
    // A user's own expiry holds until the next grant or renewal.
    for (line, idle) in [("RL.ACQUIRE k 9 10s a", 40_000), ("RL.RENEW k 20s a", 50_000)] {
        for own in ["PERSIST k".to_owned(), format!("PEXPIREAT k {}", now + 31_000)] {
            send::<i64>(&mut connection, &own);
            let held = expiry(&mut connection);
            answer(&mut connection, 30_000_000, "RL.RENEW k 1h nobody");
            assert_eq!(expiry(&mut connection), held, "{own}");
            answer(&mut connection, 30_000_000, line);
            let expires = expiry(&mut connection);
            assert!((idle..=2 * idle).contains(&expires), "{line} after {own}: {expires}");
        }
    }
}

#[test]
fn the_server_counts_what_is_acquired_denied_and_released() {
    let (_server, mut connection) = server();
    for (line, expected) in [
        ("RL.ACQUIRE k 3 1s a", "1 3 2 0 1000"),
        ("RL.ACQUIRE k 3 1s b", "1 3 1 0 1000"),
        ("RL.ACQUIRE k 3 1s c COST 2", "0 3 1 1000 1000"),
        ("RL.ACQUIRE k 3 1s a", "1 3 1 0 1000"),
        ("RL.RENEW k 1s a b", "2"),
        ("RL.RELEASE k a nobody b", "2"),
        ("RL.RELEASE k a", "0"),
    ] {
        assert_eq!(answer(&mut connection, 0, line), expected, "{line}");
    }
    let stats = info(&mut connection, "modules").unwrap();
    for (name, expected) in
        [("concurrency_granted", "3"), ("concurrency_denied", "1"), ("leases_released", "2")]
    {
        assert_eq!(field(&stats, &format!("rl_{name}")).unwrap(), expected, "{name}");
    }
}

#[test]
fn memory_grows_and_shrinks_with_the_leases_there_are() {
    let (_server, mut connection) = server();
    let usage =
        |connection: &mut Connection| -> i64 { send(connection, "MEMORY USAGE k SAMPLES 0") };
    let acquire = |connection: &mut Connection, micros: u64, numbers: std::ops::Range<u64>| {
        crate::client::send_all(
            connection,
            numbers.map(|n| format!("RL.ACQUIRE k 100000 1m id-{n:012} AT {}", T0 + micros)),
        );
    };
    acquire(&mut connection, 0, 0..1);
    let one = usage(&mut connection);
    acquire(&mut connection, 0, 1..1_000);
    let full = usage(&mut connection);
    assert!((54_000..=96_000).contains(&(full - one)), "{full} for a thousand, {one} for one");
    // Given back one by one, and run out at once.
    let mut before = full;
    for tenth in 0..9 {
        let ids: Vec<_> = (tenth * 100..tenth * 100 + 100).map(|n| format!("id-{n:012}")).collect();
        let line = format!("RL.RELEASE k {}", ids.join(" "));
        assert_eq!(answer(&mut connection, 1, &line), "100");
        let now = usage(&mut connection);
        let left = (900 - tenth as i64 * 100).max(1);
        assert!(now <= before && now < one + 96 * left, "{now} for {left} leases");
        before = now;
    }
    acquire(&mut connection, 2, 0..900);
    acquire(&mut connection, 60_000_001, 1..2);
    let rest = usage(&mut connection);
    acquire(&mut connection, 60_000_003, 1..2);
    assert!(
        usage(&mut connection) < one + 1_000,
        "{rest}, then {} for one",
        usage(&mut connection)
    );
}

#[test]
fn all_of_it_works_in_transactions_scripts_and_resp3() {
    let server = Server::start().unwrap();
    let mut connection = server.connection().unwrap();
    send::<Value>(&mut connection, "HELLO 3");
    for line in ["MULTI", "RL.ACQUIRE k 1 1m a", "RL.ACQUIRE k 1 1m b", "RL.RENEW k 2m a"] {
        send::<Value>(&mut connection, line);
    }
    let replies: Vec<Value> = send(&mut connection, "EXEC");
    let row = |row: [i64; 5]| Value::Array(row.map(Value::Int).into());
    assert_eq!(replies[0], row([1, 1, 0, 0, 60_000]));
    assert_eq!(replies[2], Value::Int(1));
    let script =
        b"return {redis.call('RL.RELEASE', KEYS[1], 'a', 'b'), #redis.call('RL.LEASES', KEYS[1])}";
    let reply: Vec<i64> = try_send(&mut connection, &[b"EVAL", script, b"1", b"k"]).unwrap();
    assert_eq!(reply, [1, 0]);
    assert_eq!(digest(&mut connection, "k"), "0".repeat(40), "the key has gone");
}
