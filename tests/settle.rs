//! RL.SETTLE: work was charged an estimate when it began, and what it really cost is settled on all its keys as one.

use std::ops::Range;

use redis::{Connection, Value};

use crate::client::{T0, answer, appended, at, check_answers, digest, send, used};
use crate::server::{Server, field, info};

const SECOND: u64 = 1_000_000;

/// One limit of each algorithm, of 10 units that nothing gives back within a second.
const LIMITS: [(&str, &str); 5] = [
    ("token", "RL.TOKENBUCKET token 10 1/m"),
    ("leaky", "RL.LEAKYBUCKET leaky 10 1/m"),
    ("fixed", "RL.FIXEDWINDOW fixed 10 1m"),
    ("slide", "RL.SLIDING slide 10 1m"),
    ("log", "RL.SLIDINGLOG log 10 1m"),
];

fn server() -> (Server, Connection) {
    let server = Server::builder().virtual_clock().setting("appendonly yes").start().unwrap();
    let connection = server.connection().unwrap();
    (server, connection)
}

/// Units used of all five, at a moment.
fn used_of_all(connection: &mut Connection, micros: u64) -> [i64; 5] {
    LIMITS.map(|(key, _)| used(connection, key, &format!("AT {}", T0 + micros)))
}

/// What a server's memory and its file hold: for what must change nothing and write nothing.
fn held(server: &Server, connection: &mut Connection) -> (String, usize, Vec<i64>) {
    let digest: String = send(connection, "DEBUG DIGEST");
    let expires =
        LIMITS.map(|(key, _)| send::<i64>(connection, &format!("PEXPIRETIME {key}"))).to_vec();
    (digest, appended(server).len(), expires)
}

#[test]
fn the_difference_is_given_back_or_taken_on_each_algorithm() {
    let (_server, mut connection) = server();
    for (key, command) in LIMITS {
        assert_eq!(at(&mut connection, 0, &format!("{command} COST 6"))[0], 1);
        // Cheaper than it was thought to be: as RL.REFUND of the difference on a copy.
        let as_if = |connection: &mut Connection, line: &str| {
            send::<i64>(connection, &format!("COPY {key} copy REPLACE"));
            at(connection, 0, line);
            let peek = answer(connection, 0, "RL.PEEK copy");
            (peek, digest(connection, "copy"))
        };
        let (peek, state) = as_if(&mut connection, "RL.REFUND copy 4");
        let settled = answer(&mut connection, 0, &format!("RL.SETTLE 1 {key} 6 2"));
        assert_eq!(settled, format!("[{peek}]"), "{key}");
        assert_eq!(digest(&mut connection, key), state, "{key}");
        // Dearer: as FORCE of the difference, also above the limit.
        let forced = format!("{} COST 13 FORCE", command.replacen(key, "copy", 1));
        let (peek, state) = as_if(&mut connection, &forced);
        let settled = answer(&mut connection, 0, &format!("RL.SETTLE 1 {key} 2 15"));
        assert_eq!(settled, format!("[{peek}]"), "{key}");
        assert_eq!(digest(&mut connection, key), state, "{key}");
    }
    assert_eq!(used_of_all(&mut connection, 0), [15; 5]);
    for (key, command) in LIMITS {
        assert_eq!(at(&mut connection, 0, command)[0], 0, "{key} is above its limit");
    }
}

#[test]
fn a_debt_is_paid_back_before_anything_is_granted() {
    let (_server, mut connection) = server();
    check_answers(
        &mut connection,
        &[
            (0, "RL.TOKENBUCKET k 10 1 COST 8", "1 10 2 0 8000"),
            (0, "RL.SETTLE 1 k 8 20", "[0 10 0 11000 20000]"),
            (0, "RL.TOKENBUCKET k 10 1", "0 10 0 11000 20000"),
            (10_999_000, "RL.TOKENBUCKET k 10 1", "0 10 0 1 9001"),
            (11_000_000, "RL.TOKENBUCKET k 10 1", "1 10 0 0 10000"),
            (0, "RL.SLIDING w 10 1s COST 8", "1 10 2 0 1000"),
            (500_000, "RL.SETTLE 1 w 8 15", "[0 10 0 500 1000]"),
            (999_999, "RL.SLIDING w 10 1s", "0 10 0 1 501"),
            (SECOND, "RL.SLIDING w 10 1s", "1 10 2 0 1000"),
        ],
    );
}

#[test]
fn many_keys_are_settled_as_one() {
    let (server, mut connection) = server();
    let keys = LIMITS.map(|(key, _)| key).join(" ");
    for (_, command) in LIMITS {
        at(&mut connection, 0, &format!("{command} COST 6"));
    }
    let before = appended(&server).len();
    let settled = answer(&mut connection, 0, &format!("RL.SETTLE 6 {keys} missing 6 2"));
    let rows = LIMITS
        .map(|(key, _)| format!("[{}]", answer(&mut connection, 0, &format!("RL.PEEK {key}"))));
    assert_eq!(settled, format!("{} nil", rows.join(" ")));
    assert_eq!(used_of_all(&mut connection, 0), [2; 5]);
    answer(&mut connection, 0, &format!("RL.SETTLE 6 missing {keys} 2 15"));
    assert_eq!(used_of_all(&mut connection, 0), [15; 5]);
    // One effect for all: a file that is cut short has all of it or nothing.
    let file = appended(&server);
    let heads: Vec<_> = file[before..].iter().map(|command| (&command[0], command.len())).collect();
    let add = "RL._ADD".to_owned();
    assert_eq!(heads, [(&add, 11), (&add, 11)], "a key and an effect five times");
    assert_eq!(send::<i64>(&mut connection, "EXISTS missing"), 0, "nothing is done there");

    // As many keys as RL.MULTI takes.
    let keys: Vec<_> = (0..128).map(|number| format!("k{number}")).collect();
    for key in &keys {
        at(&mut connection, 0, &format!("RL.SLIDING {key} 9 1m COST 5"));
    }
    let settled = answer(&mut connection, 0, &format!("RL.SETTLE 128 {} 5 3", keys.join(" ")));
    assert_eq!(settled, ["[1 9 6 0 60000]"; 128].join(" "));
    assert_eq!(appended(&server).last().unwrap().len(), 257);
}

#[test]
fn equal_numbers_and_missing_keys_write_nothing() {
    let (server, mut connection) = server();
    for (_, command) in LIMITS {
        at(&mut connection, 0, &format!("{command} COST 6"));
    }
    let before = held(&server, &mut connection);
    let rows = |connection: &mut Connection| {
        LIMITS
            .map(|(key, _)| format!("[{}]", answer(connection, 0, &format!("RL.PEEK {key}"))))
            .join(" ")
    };
    let keys = LIMITS.map(|(key, _)| key).join(" ");
    let expected = rows(&mut connection);
    for numbers in ["0 0", "6 6", "1000000000000 1000000000000"] {
        let found = answer(&mut connection, 0, &format!("RL.SETTLE 5 {keys} {numbers}"));
        assert_eq!(found, expected, "{numbers}");
    }
    for (line, expected) in [
        ("RL.SETTLE 1 missing 9 1", "nil"),
        ("RL.SETTLE 2 missing none 1 9", "nil nil"),
        ("RL.SETTLE 1 missing 0 0", "nil"),
    ] {
        assert_eq!(answer(&mut connection, 0, line), expected, "{line}");
    }
    // An idle one is as none, though its key may linger.
    for numbers in ["9 1", "1 9"] {
        let line = format!("RL.SETTLE 5 {keys} {numbers}");
        assert_eq!(answer(&mut connection, 600 * SECOND, &line), "nil nil nil nil nil");
    }
    assert_eq!(held(&server, &mut connection), before);
    // Nor does it disturb who watches.
    for (numbers, disturbs) in [("6 6", false), ("6 7", true), ("7 6", true)] {
        let mut watcher = server.connection().unwrap();
        send::<()>(&mut watcher, "WATCH token missing");
        answer(&mut connection, 0, &format!("RL.SETTLE 2 token missing {numbers}"));
        send::<()>(&mut watcher, "MULTI");
        send::<()>(&mut watcher, "PING");
        assert_eq!(send::<Value>(&mut watcher, "EXEC") == Value::Nil, disturbs, "{numbers}");
    }
}

#[test]
fn never_more_is_given_back_than_is_used_and_at_nothing_the_key_goes() {
    let (server, mut connection) = server();
    for (key, command) in LIMITS {
        at(&mut connection, 0, &format!("{command} COST 6"));
        let reply = answer(&mut connection, 0, &format!("RL.SETTLE 1 {key} 1000000000000 0"));
        assert_eq!(reply, "[1 10 10 0 0]", "{key}");
    }
    assert_eq!(send::<i64>(&mut connection, "DBSIZE"), 0);
    // On a replica and after a restart as well.
    let mut server = server;
    server.kill();
    server.start_again().unwrap();
    assert_eq!(send::<i64>(&mut server.connection().unwrap(), "DBSIZE"), 0);
}

#[test]
fn what_is_used_saturates_at_two_million_million_units() {
    let (_server, mut connection) = server();
    let most = "1000000000000";
    for (key, command) in LIMITS {
        at(&mut connection, 0, command);
        for _ in 0..3 {
            at(&mut connection, 0, &format!("{command} COST 0"));
            send::<Vec<Vec<i64>>>(&mut connection, &format!("RL.SETTLE 1 {key} 0 {most} AT {T0}"));
        }
        assert_eq!(used(&mut connection, key, &format!("AT {T0}")), 2_000_000_000_000, "{key}");
    }
}

/// The units that an attempt after the settlement is granted one by one, from a moment on.
fn grants(connection: &mut Connection, command: &str, moments: Range<u64>, step: u64) -> i64 {
    moments.step_by(step as usize).map(|micros| at(connection, micros, command)[0]).sum()
}

#[test]
fn across_a_window_s_edge_no_more_is_given_back_than_counts() {
    // Charged in one window, settled in the next: nothing of it counts any more, so nothing is given back.
    let (_server, mut connection) = server();
    check_answers(
        &mut connection,
        &[
            (0, "RL.FIXEDWINDOW f 10 1s COST 8", "1 10 2 0 1000"),
            (SECOND, "RL.SETTLE 1 f 8 3", "nil"),
            (SECOND, "RL.FIXEDWINDOW f 10 1s COST 2", "1 10 8 0 1000"),
            (1_500_000, "RL.SETTLE 1 f 8 3", "[1 10 10 0 0]"),
            (1_500_000, "RL.FIXEDWINDOW f 10 1s COST 4", "1 10 6 0 1000"),
            // And what it cost more is taken where the window is now.
            (1_600_000, "RL.SETTLE 1 f 1 5", "[1 10 2 0 900]"),
            (0, "RL.SLIDING s 10 1s COST 8", "1 10 2 0 1000"),
            (900_000, "RL.SLIDING s 10 1s COST 2", "1 10 0 0 1000"),
            (SECOND, "RL.SETTLE 1 s 8 3", "[1 10 10 0 0]"),
        ],
    );
    // So a span passes at most the limit and what was given back.
    for command in ["RL.SLIDING k 10 1s BUCKETS 10", "RL.SLIDINGLOG k 10 1s"] {
        send::<i64>(&mut connection, "DEL k");
        assert_eq!(grants(&mut connection, command, 0..500_000, 50_000), 10);
        // Six of the ten are given back, the newest first.
        answer(&mut connection, 500_000, "RL.SETTLE 1 k 10 4");
        let more = grants(&mut connection, command, 500_001..999_999, 20_000);
        assert_eq!(more, 6, "{command}: what was given back and nothing else");
    }
}

#[test]
fn limits_are_those_of_the_last_grant() {
    let (_server, mut connection) = server();
    check_answers(
        &mut connection,
        &[
            (0, "RL.TOKENBUCKET k 10 1 COST 5", "1 10 5 0 5000"),
            (0, "RL.TOKENBUCKET k 20 2 COST 5", "1 20 10 0 5000"),
            // A denial with others stores nothing.
            (0, "RL.TOKENBUCKET k 1 1 COST 1", "0 1 0 5000 5000"),
            (0, "RL.SETTLE 1 k 5 9", "[1 20 6 0 7000]"),
            (0, "RL.SETTLE 1 k 9 5", "[1 20 10 0 5000]"),
        ],
    );
}

#[test]
fn what_is_wrong_is_an_error_and_nothing_is_done_to_any_key() {
    let (server, mut connection) = server();
    send::<()>(&mut connection, "SET text hello");
    send::<()>(&mut connection, "SET cell 4000000009000000000 PX 100000");
    at(&mut connection, 0, "RL.ACQUIRE slots 5 1m a");
    for (_, command) in LIMITS {
        at(&mut connection, 0, &format!("{command} COST 6"));
    }
    let before = held(&server, &mut connection);
    let (reserved, used) = (
        "ERR reserved must be an integer from 0 to 1000000000000",
        "ERR used must be an integer from 0 to 1000000000000",
    );
    let numkeys = "ERR numkeys must be an integer from 1 to 128, followed by that many keys";
    let twice = "ERR each key must be named only once";
    let leases = "WRONGTYPE the key holds a CONCURRENCY limiter; give leases back with RL.RELEASE";
    let foreign = "WRONGTYPE the key holds a value that is not a rate limiter";
    let option = "ERR unknown option; expected one of AT";
    let few = "ERR wrong number of arguments";
    let many = "ERR wrong number of arguments for 'RL.SETTLE' command";
    let rows = [
        ("2 token token 6 2", twice),
        ("3 token fixed token 6 2", twice),
        ("2 token token 6 6", twice),
        ("2 token slots 6 2", leases),
        ("2 slots token 2 6", leases),
        ("1 slots 6 6", leases),
        ("2 token text 6 2", foreign),
        ("2 text token 6 2", foreign),
        ("3 token fixed cell 2 6", foreign),
        ("1 text 6 6", foreign),
        ("1 token x 2", reserved),
        ("1 token -1 2", reserved),
        ("1 token 1000000000001 2", reserved),
        ("1 token 1.5 2", reserved),
        ("1 token 6 x", used),
        ("1 token 6 -1", used),
        ("1 token 6 1000000000001", used),
        ("0 token 6 2", numkeys),
        ("129 token 6 2", numkeys),
        ("-1 token 6 2", numkeys),
        ("x token 6 2", numkeys),
        ("9 token 6 2", numkeys),
        ("2 token 6 2", few),
        ("3 token 6 2", few),
        ("1 token 6 2 FORCE", option),
        ("1 token 6 2 COST 1", option),
        ("1 token 6 2 3", option),
    ];
    for (rest, expected) in rows {
        let line = format!("RL.SETTLE {rest} AT {T0}");
        // `AT` and its moment would be numbers, if there are too few.
        let line = if expected == few { format!("RL.SETTLE {rest}") } else { line };
        let words: Vec<_> = line.split(' ').map(str::as_bytes).collect();
        let found = crate::client::error(&mut connection, &words);
        assert_eq!(found, expected, "{line}");
        assert_eq!(held(&server, &mut connection), before, "{line}");
    }
    for line in ["RL.SETTLE", "RL.SETTLE 1", "RL.SETTLE 1 token", "RL.SETTLE 1 token 6"] {
        let words: Vec<_> = line.split(' ').map(str::as_bytes).collect();
        let found = crate::client::error(&mut connection, &words);
        assert!(found.to_lowercase().starts_with(&many[..29].to_lowercase()), "{line}: {found}");
    }
}

#[test]
fn full_memory_refuses_what_must_grow_and_settles_the_rest() {
    let (server, mut connection) = server();
    let full = |connection: &mut Connection, yes: u8| {
        send::<()>(connection, &format!("CONFIG SET maxmemory {yes}"));
    };
    for (_, command) in LIMITS {
        at(&mut connection, 0, &format!("{command} COST 6"));
    }
    // Some more entries, until another would need a larger block.
    let bytes = |connection: &mut Connection| send::<i64>(connection, "MEMORY USAGE log SAMPLES 0");
    let before = bytes(&mut connection);
    let mut now = 0;
    while bytes(&mut connection) == before {
        now += 1;
        at(&mut connection, now, "RL.SLIDINGLOG log 100 1m");
    }
    let grown = bytes(&mut connection);
    while bytes(&mut connection) == grown {
        now += 1;
        at(&mut connection, now, "RL.SLIDINGLOG log 100 1m");
    }
    // The last one made it grow: there is room again, as many as fit.
    let grown = bytes(&mut connection);
    full(&mut connection, 1);
    let oom = "OOM a new limiter needs memory, but used memory exceeds 'maxmemory'";
    let refused = loop {
        now += 1;
        let before = held(&server, &mut connection);
        let reply = answer(&mut connection, now, "RL.SETTLE 3 token log missing 0 1");
        if reply.starts_with("OOM ") {
            assert_eq!(held(&server, &mut connection), before, "none of them was changed");
            break reply;
        }
        assert_eq!(bytes(&mut connection), grown, "{reply}");
    };
    assert_eq!(refused, oom);
    // What takes no memory goes on: what is given back, and what joins an entry that is there.
    let last = now - 1;
    assert!(answer(&mut connection, now, "RL.SETTLE 2 token log 1 0").starts_with('['));
    assert!(
        answer(&mut connection, last, "RL.SETTLE 4 token leaky fixed missing 1 3")
            .ends_with(" nil")
    );
    assert_eq!(answer(&mut connection, now, "RL.SETTLE 1 missing 1 3"), "nil");
    full(&mut connection, 0);
    assert!(answer(&mut connection, now, "RL.SETTLE 3 token log missing 0 1").starts_with('['));
}

#[test]
fn it_is_counted_neither_as_granted_nor_as_denied() {
    let (_server, mut connection) = server();
    at(&mut connection, 0, "RL.SLIDING k 10 1m COST 5");
    answer(&mut connection, 0, "RL.SETTLE 1 k 5 20");
    answer(&mut connection, 0, "RL.SETTLE 1 k 20 1");
    let stats = info(&mut connection, "modules").unwrap();
    assert_eq!(field(&stats, "rl_sliding_granted").unwrap(), "1");
    assert_eq!(field(&stats, "rl_sliding_denied").unwrap(), "0");
}
