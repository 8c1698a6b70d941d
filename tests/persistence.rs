//! What a limiter remembers outlives the process: saving and restarting, a crash, and all that moves, copies or frees keys.
//!
//! Each test fills a server with limiters of every kind, takes down what it holds ([`keyspace`]: digests and
//! expiries), does something to the server, and finds the same again. A digest is made of the very bytes that are
//! saved, so what is found must also *answer* as it would have: [`go_on`] asks it, and a server to which
//! nothing happened.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::thread;

use redis::{Connection, Value};

use crate::client::{T0, answer, at, digest, error, keyspace, send, send_all, try_send, used};
use crate::server::{Builder, Server, field, info, wait_for};

/// Limiters of every kind: their command, the milliseconds after [`T0`] at which they are used, and how.
const LIMITERS: &[(&str, &[(u64, &str)])] = &[
    ("RL.TOKENBUCKET token 100 100/60", &[(0, "COST 20"), (9, ""), (333, "COST 7")]),
    ("RL.TOKENBUCKET debt 10 1/7", &[(0, ""), (100, "FORCE COST 25")]),
    ("RL.TOKENBUCKET huge 1000000000000 1/3650d", &[(0, "COST 1000000000000"), (5, "FORCE")]),
    ("RL.LEAKYBUCKET leaky 100 0.5", &[(0, "COST 20"), (1, ""), (400, "")]),
    ("RL.FIXEDWINDOW fixed 50 1h", &[(0, "COST 5"), (10, "")]),
    ("RL.FIXEDWINDOW aligned 50 1d ALIGN -8h", &[(0, "COST 5"), (10, "PARTIAL COST 99")]),
    ("RL.SLIDING sliding 50 1m", &[(0, ""), (1, ""), (4_000, "COST 3"), (7_000, ""), (9_000, "")]),
    ("RL.SLIDING fine 50 1m BUCKETS 1024", &[(0, ""), (58, ""), (59, ""), (200, ""), (300, "")]),
    ("RL.SLIDINGLOG log 9 1m", &[(0, "COST 3"), (1, ""), (2, "COST 2"), (9_000, "FORCE COST 9")]),
    ("RL.SLIDINGLOG one 9 1m", &[(0, "COST 4")]),
];

/// A moment at which all of [`LIMITERS`] are still in use, in microseconds after [`T0`].
const LATER: u64 = 9_500_000;

/// Fills a server: the limiters above, and some to which more has happened.
fn fill(connection: &mut Connection) {
    for (command, uses) in LIMITERS {
        for (millis, options) in *uses {
            let reply = at(connection, millis * 1_000, &format!("{command} {options}"));
            assert_eq!(reply[0], 1, "{command} {options}");
        }
    }
    for micros in 0..150 {
        at(connection, micros, "RL.SLIDINGLOG hundred 1000 1m");
    }
    // Refunds close the newest entry, and changed limits regroup the entries.
    for millis in [0, 3_000, 6_000, 9_000] {
        at(connection, millis * 1_000, "RL.SLIDING refunded 50 1m COST 2");
        at(connection, millis * 1_000, "RL.SLIDING regrouped 50 1m BUCKETS 1000");
    }
    at(connection, 9_000_000, "RL.REFUND refunded 3");
    at(connection, 9_000_001, "RL.SLIDING regrouped 50 50s BUCKETS 2");
    // Leases of one holder and of many, with ids of every length, replaced, renewed, given back and run out.
    for (millis, line) in [
        (0, "RL.ACQUIRE slots 50 1m a COST 3"),
        (1, "RL.ACQUIRE slots 50 2m b"),
        (2, "RL.ACQUIRE slots 50 5s gone COST 7"),
        (3, "RL.ACQUIRE slots 50 1m a COST 2"),
        (4, "RL.ACQUIRE slots 50 1m 01234567-89ab-cdef-0123-456789abcdef"),
        (5, "RL.ACQUIRE slots 50 1m 0123456789abcdef"),
        (6, "RL.RELEASE slots 0123456789abcdef"),
        (9_000, "RL.RENEW slots 3m b nobody"),
        (9_001, "RL.ACQUIRE slots 50 1m c"),
        (0, "RL.ACQUIRE single 1 1h a"),
    ] {
        answer(connection, millis * 1_000, line);
    }
    for number in 0..200 {
        let line = format!("RL.ACQUIRE many 1000000000000 1m id:{number} COST {}", number + 1);
        assert_eq!(at(connection, number * 100, &line)[0], 1);
    }
    // Settled in both directions.
    at(connection, 0, "RL.SLIDING settled 50 1m COST 20");
    send::<Value>(connection, &format!("RL.SETTLE 2 settled token 20 9 AT {}", T0 + 1_000_000));
    send::<Value>(connection, &format!("RL.SETTLE 2 settled debt 9 60 AT {}", T0 + 2_000_000));
    // Denied in a row, closed, and closed with nothing used.
    for (key, denials) in [("row", 1), ("closed", 2), ("empty", 2)] {
        let line = format!("RL.SLIDING {key} 1 1m BLOCK 1m AFTER 2");
        (0..=denials).for_each(|n| _ = at(connection, n * 2_000_000, &line));
    }
    at(connection, 4_000_001, "RL.REFUND empty 1");
    // What redis-cell left, once taken over and once not.
    let arrival = (T0 + 40_000_000) * 1_000;
    for key in ["cell", "taken"] {
        send::<()>(connection, &format!("SET {key} {arrival} PXAT {}", T0 / 1_000 + 50_000));
    }
    at(connection, 0, "CL.THROTTLE taken 99 1 1");
    // A user's own expiry, and none.
    at(connection, 0, "RL.SLIDING mortal 50 1m");
    send::<()>(connection, &format!("PEXPIREAT mortal {}", T0 / 1_000 + 123_456));
    at(connection, 0, "RL.SLIDING immortal 50 1m");
    send::<()>(connection, "PERSIST immortal");
}

/// Uses all that [`fill`] made: what is answered, and what is there afterwards.
fn go_on(connection: &mut Connection) -> (Vec<Value>, BTreeMap<String, (String, i64)>) {
    let made_by_hand = [
        "RL.SLIDINGLOG hundred 1000 1m",
        "RL.SLIDING refunded 50 1m",
        "RL.SLIDING settled 50 1m",
        "RL.SLIDING row 1 1m BLOCK 1m AFTER 2",
        "RL.SLIDING closed 1 1m",
        "RL.SLIDING empty 1 1m BLOCK 5s",
        "RL.ACQUIRE slots 9 1m new COST 2",
        "RL.ACQUIRE slots 50 1m b COST 8",
        "RL.ACQUIRE single 1 1m new",
        "RL.ACQUIRE many 10000 1m new COST 500",
        "RL.SLIDING regrouped 50 50s BUCKETS 2",
        "CL.THROTTLE taken 99 1 1",
        "CL.THROTTLE cell 99 1 1",
        "RL.SLIDING mortal 50 1m",
        "RL.SLIDING immortal 50 1m",
    ];
    let commands: Vec<_> =
        LIMITERS.iter().map(|(command, _)| *command).chain(made_by_hand).collect();
    let mut replies = Vec::new();
    for micros in [LATER, LATER + 1, LATER + 700_000, LATER + 4_000_000, LATER + 55_000_000] {
        for command in &commands {
            let key = command.split(' ').nth(1).unwrap();
            for line in [
                format!("RL.PEEK {key}"),
                (*command).into(),
                format!("RL.REFUND {key} 1"),
                format!("RL.LEASES {key}"),
                format!("RL.RENEW {key} 70s a id:7"),
                format!("RL.RELEASE {key} b id:8"),
                format!("RL.SETTLE 1 {key} 2 3"),
            ] {
                // redis-cell's key is none to look at: that is an answer, too.
                let line = format!("{line} AT {}", T0 + micros);
                let words: Vec<_> = line.split(' ').map(str::as_bytes).collect();
                replies.push(
                    try_send(connection, &words)
                        .unwrap_or_else(|e| Value::SimpleString(e.to_string())),
                );
            }
        }
    }
    (replies, keyspace(connection))
}

/// Asserts that a server answers as one to which nothing has happened.
fn assert_goes_on(connection: &mut Connection) {
    let undisturbed = virtual_clock().start().unwrap();
    let mut other = undisturbed.connection().unwrap();
    fill(&mut other);
    let (replies, keys) = go_on(connection);
    let (expected, keys_expected) = go_on(&mut other);
    assert_eq!(replies, expected);
    assert_eq!(keys, keys_expected);
}

fn virtual_clock() -> Builder {
    Server::builder().virtual_clock()
}

/// Starts a server, and fills it.
fn filled(builder: &Builder) -> (Server, Connection) {
    let server = builder.start().unwrap();
    let mut connection = server.connection().unwrap();
    fill(&mut connection);
    (server, connection)
}

fn number(connection: &mut Connection, section: &str, name: &str) -> i64 {
    field(&info(connection, section).unwrap(), name).unwrap().parse().unwrap()
}

/// Rewrites the append-only file, and waits until that is done.
fn rewrite_aof(connection: &mut Connection) {
    wait_for("the last rewrite to end", || {
        Ok(number(connection, "persistence", "aof_rewrite_in_progress") == 0)
    })
    .unwrap();
    send::<()>(connection, "BGREWRITEAOF");
    wait_for("the append-only file to be rewritten", || {
        let info = info(connection, "persistence")?;
        let is = |name, value: &str| field(&info, name).as_deref() == Some(value);
        Ok(is("aof_rewrite_in_progress", "0") && is("aof_rewrite_scheduled", "0"))
    })
    .unwrap();
    let info = info(connection, "persistence").unwrap();
    assert_eq!(field(&info, "aof_last_bgrewrite_status").unwrap(), "ok");
}

/// The file with which the append-only files begin.
fn aof_base(server: &Server) -> Vec<u8> {
    let files = std::fs::read_dir(server.dir().join("appendonlydir")).unwrap();
    let base = files
        .map(|file| file.unwrap().path())
        .find(|path| path.to_string_lossy().contains(".base."));
    std::fs::read(base.unwrap()).unwrap()
}

#[test]
fn a_saved_server_starts_again_with_all_it_had() {
    let (mut server, mut connection) = filled(&virtual_clock());
    let before = keyspace(&mut connection);
    send::<()>(&mut connection, "SAVE");
    server.kill();
    server.start_again().unwrap();
    assert_eq!(keyspace(&mut server.connection().unwrap()), before);
    server.shutdown(true).unwrap();
    server.start_again().unwrap();
    let mut connection = server.connection().unwrap();
    assert_eq!(keyspace(&mut connection), before);
    assert_goes_on(&mut connection);
}

#[test]
fn a_rewritten_append_only_file_holds_all_with_and_without_rdb_preamble() {
    for preamble in ["yes", "no"] {
        let builder = virtual_clock()
            .setting("appendonly yes")
            .setting(format!("aof-use-rdb-preamble {preamble}"));
        let (mut server, mut connection) = filled(&builder);
        rewrite_aof(&mut connection);
        let base = aof_base(&server);
        assert_eq!(base.starts_with(b"*"), preamble == "no", "a preamble is no command");
        // What comes after the rewrite is appended: half of it is undone again.
        at(&mut connection, LATER, "RL.TOKENBUCKET token 100 100/60 COST 3");
        at(&mut connection, LATER, "RL.REFUND token 1");
        at(&mut connection, LATER, "RL.SLIDINGLOG late 5 1m");
        let before = keyspace(&mut connection);
        server.kill();
        server.start_again().unwrap();
        let mut connection = server.connection().unwrap();
        assert_eq!(keyspace(&mut connection), before, "preamble {preamble}");
        // A file that is rewritten from what was loaded is the same once more.
        rewrite_aof(&mut connection);
        server.kill();
        server.start_again().unwrap();
        assert_eq!(keyspace(&mut server.connection().unwrap()), before, "preamble {preamble}");
    }
}

#[test]
fn an_append_only_file_alone_makes_a_server_that_goes_on_as_if_nothing_had_happened() {
    for preamble in ["yes", "no"] {
        let builder = virtual_clock()
            .setting("appendonly yes")
            .setting(format!("aof-use-rdb-preamble {preamble}"));
        let (mut server, mut connection) = filled(&builder);
        if preamble == "no" {
            rewrite_aof(&mut connection);
        }
        server.kill();
        server.start_again().unwrap();
        assert_goes_on(&mut server.connection().unwrap());
    }
}

#[test]
fn what_was_granted_before_a_crash_is_used_after_it() {
    const CLIENTS: i64 = 4;
    let commands = [
        ("RL.TOKENBUCKET token 1000000 1/3650d", vec!["token"]),
        ("RL.LEAKYBUCKET leaky 1000000 1/3650d", vec!["leaky"]),
        ("RL.FIXEDWINDOW fixed 1000000 1d", vec!["fixed"]),
        ("RL.SLIDING sliding 1000000 1d", vec!["sliding"]),
        ("RL.SLIDINGLOG log 100000 1d", vec!["log"]),
        ("CL.THROTTLE cell 1000000 1 315360000", vec!["cell"]),
        ("RL.ACQUIRE slots 1000000 1d #", vec!["slots"]),
        (
            "RL.MULTI 3 one two log SLIDING 99999 1d FIXEDWINDOW 99999 1d SLIDINGLOG 99999 1d",
            vec!["one", "two", "log"],
        ),
    ];
    for preamble in ["yes", "no"] {
        let mut server = Server::builder()
            .setting("appendonly yes")
            .setting("appendfsync always")
            .setting(format!("aof-use-rdb-preamble {preamble}"))
            .start()
            .unwrap();
        let answered: BTreeMap<&str, AtomicI64> = commands
            .iter()
            .flat_map(|(_, keys)| keys)
            .map(|key| (*key, AtomicI64::new(0)))
            .collect();
        let all = AtomicI64::new(0);
        thread::scope(|scope| {
            for client in 0..CLIENTS as usize {
                let mut connection = server.connection().unwrap();
                let (commands, answered, all) = (&commands, &answered, &all);
                scope.spawn(move || {
                    // Until the connection breaks.
                    for (call, (line, keys)) in commands.iter().cycle().skip(client).enumerate() {
                        let line = line.replace('#', &format!("{client}:{call}"));
                        let words: Vec<_> = line.split(' ').map(str::as_bytes).collect();
                        if try_send::<Value>(&mut connection, &words).is_err() {
                            break;
                        }
                        for key in keys {
                            answered[key].fetch_add(1, SeqCst);
                        }
                        all.fetch_add(1, SeqCst);
                    }
                });
            }
            let reach = |goal| wait_for("grants", || Ok(all.load(SeqCst) >= goal)).unwrap();
            reach(200);
            // The file is rewritten meanwhile, and grants go on being appended.
            rewrite_aof(&mut server.connection().unwrap());
            reach(all.load(SeqCst) + 200);
            server.kill();
        });
        server.start_again().unwrap();
        let mut connection = server.connection().unwrap();
        for (key, answered) in &answered {
            let (answered, used) = (answered.load(SeqCst), used(&mut connection, key, ""));
            assert!(answered > 0 && used >= answered, "{key}: {used} used, {answered} answered");
            assert!(used <= answered + CLIENTS, "{key}: {used} used, {answered} answered");
            assert!(send::<i64>(&mut connection, &format!("PTTL {key}")) > 0, "{key} expires");
        }
    }
}

#[test]
fn a_reload_changes_nothing() {
    let (_server, mut connection) = filled(&virtual_clock().setting("appendonly yes"));
    let before = keyspace(&mut connection);
    send::<()>(&mut connection, "DEBUG RELOAD");
    assert_eq!(keyspace(&mut connection), before);
    send::<()>(&mut connection, "DEBUG LOADAOF");
    assert_eq!(keyspace(&mut connection), before);
    assert_goes_on(&mut connection);
}

#[test]
fn a_dumped_key_is_restored_with_its_expiry_or_the_one_it_is_given() {
    let (_server, mut connection) = filled(&virtual_clock());
    let before = keyspace(&mut connection);
    let dump = |connection: &mut Connection, key: &str| -> Vec<u8> {
        try_send(connection, &[b"DUMP", key.as_bytes()]).unwrap()
    };
    for (key, (_, expires)) in &before {
        let payload = dump(&mut connection, key);
        let expires = (*expires).max(0).to_string();
        let mut restore = |words: &[&[u8]]| {
            let words = [&[b"RESTORE", key.as_bytes()], words].concat();
            try_send::<()>(&mut connection, &words).map_err(|error| error.to_string())
        };
        assert!(restore(&[b"0", &payload]).unwrap_err().contains("BUSYKEY"), "{key}");
        restore(&[expires.as_bytes(), &payload, b"ABSTTL", b"REPLACE"]).unwrap();
        send::<()>(&mut connection, &format!("DEL {key}"));
        let words: [&[u8]; 5] =
            [b"RESTORE", key.as_bytes(), expires.as_bytes(), &payload, b"ABSTTL"];
        try_send::<()>(&mut connection, &words).unwrap();
    }
    assert_eq!(keyspace(&mut connection), before);

    // A key of another algorithm is replaced. The expiry that is given holds until the next grant.
    let payload = dump(&mut connection, "sliding");
    let expiry = |connection: &mut Connection| send::<i64>(connection, "PTTL token");
    for (ttl, expected) in [("0", -1..=-1), ("500000", 1..=500_000)] {
        let words: [&[u8]; 5] = [b"RESTORE", b"token", ttl.as_bytes(), &payload, b"REPLACE"];
        try_send::<()>(&mut connection, &words).unwrap();
        assert!(expected.contains(&expiry(&mut connection)), "{ttl}");
        assert_eq!(at(&mut connection, LATER, "RL.SLIDING token 1 1m")[0], 0, "a denial");
        assert!(expected.contains(&expiry(&mut connection)), "{ttl}");
        assert_eq!(at(&mut connection, LATER, "RL.SLIDING token 50 1m")[0], 1);
        let expires: i64 = send(&mut connection, "PEXPIRETIME token");
        let idle_at = i64::try_from((T0 + LATER) / 1_000).unwrap() + 60_000;
        assert!((idle_at..=idle_at + 61_000).contains(&expires), "{expires} for {idle_at}");
    }
    send::<()>(&mut connection, "DEL token");
    let words: [&[u8]; 4] = [b"RESTORE", b"token", b"0", &dump(&mut connection, "token2")];
    assert!(error(&mut connection, &words).contains("DUMP payload"), "of nothing");
}

#[test]
fn a_copy_is_a_limiter_of_its_own() {
    let (_server, mut connection) = filled(&virtual_clock());
    let before = keyspace(&mut connection);
    for key in before.keys() {
        assert_eq!(send::<i64>(&mut connection, &format!("COPY {key} {key} DB 1")), 1, "{key}");
        assert_eq!(send::<i64>(&mut connection, &format!("COPY {key} copy")), 1, "{key}");
        assert_eq!(send::<i64>(&mut connection, "COPY token copy"), 0, "is taken");
        assert_eq!(send::<i64>(&mut connection, &format!("COPY {key} copy REPLACE")), 1, "{key}");
        assert_eq!(digest(&mut connection, "copy"), before[key].0, "{key}");
        let expires: i64 = send(&mut connection, "PEXPIRETIME copy");
        assert_eq!(expires, before[key].1, "{key}");
        send::<()>(&mut connection, "DEL copy");
    }
    send::<()>(&mut connection, "SELECT 1");
    assert_eq!(keyspace(&mut connection), before);
    assert_goes_on(&mut connection);
    send::<()>(&mut connection, "SELECT 0");
    assert_eq!(keyspace(&mut connection), before, "the originals know nothing of it");
    assert_goes_on(&mut connection);
}

#[test]
fn a_key_may_change_its_name_and_its_database() {
    let (_server, mut connection) = filled(&virtual_clock());
    let before = keyspace(&mut connection);
    for key in before.keys() {
        send::<()>(&mut connection, &format!("RENAME {key} other"));
        assert_eq!(digest(&mut connection, "other"), before[key].0, "{key}");
        assert_eq!(send::<i64>(&mut connection, &format!("RENAMENX other {key}")), 1, "{key}");
        assert_eq!(send::<i64>(&mut connection, &format!("MOVE {key} 1")), 1, "{key}");
    }
    assert_eq!(keyspace(&mut connection), BTreeMap::new());
    send::<()>(&mut connection, "SELECT 1");
    assert_eq!(keyspace(&mut connection), before);
    send::<()>(&mut connection, "SWAPDB 0 1");
    assert_eq!(keyspace(&mut connection), BTreeMap::new());
    send::<()>(&mut connection, "SELECT 0");
    assert_eq!(keyspace(&mut connection), before);
    assert_goes_on(&mut connection);
}

#[test]
fn active_defragmentation_moves_limiters_and_changes_none() {
    let (_server, mut connection) = filled(&virtual_clock());
    let turned_on: Result<(), _> =
        try_send(&mut connection, &[b"CONFIG", b"SET", b"activedefrag", b"yes"]);
    if turned_on.is_err() {
        println!("skipped: this server has no active defragmentation");
        return;
    }
    send::<()>(&mut connection, "CONFIG SET activedefrag no");
    // Logs whose blocks lie between others, most of which go away: a few are left on every page.
    for micros in 0..145 {
        at(&mut connection, micros, "RL.SLIDINGLOG logs:0 1000 1m");
    }
    let each = |line: &dyn Fn(u64) -> String| (1..4_000).map(line).collect::<Vec<_>>();
    send_all(&mut connection, each(&|n| format!("COPY logs:0 logs:{n}")));
    let bucket = |n| format!("RL.TOKENBUCKET buckets:{n} 50 1 COST 9 AT {}", T0 + n);
    send_all(&mut connection, each(&bucket));
    // Too large for the small form: these have a block of their own, too.
    let large = |n| format!("RL.TOKENBUCKET large:{n} 1000000000000 1 COST 9 AT {}", T0 + n);
    send_all(&mut connection, each(&large));
    // Leases have three: what is of all, the leases, and what is long of their ids.
    for number in 0..20 {
        let id = format!("an-id-of-more-than-sixteen-bytes:{number}");
        at(&mut connection, 0, &format!("RL.ACQUIRE leases:0 100 1m {id}"));
    }
    send_all(&mut connection, each(&|n| format!("COPY leases:0 leases:{n}")));
    let delete = |n| format!("DEL logs:{n} buckets:{n} large:{n} leases:{n}");
    send_all(&mut connection, (1..4_000).filter(|n| n % 5 != 0).map(delete));
    let before = keyspace(&mut connection);
    let holes = |connection: &mut Connection| number(connection, "memory", "allocator_frag_bytes");
    // Four of five blocks of 1,792 bytes are gone; the server counts ten times a second.
    let mut holes_before = 0;
    wait_for("the server to count the holes", || {
        holes_before = holes(&mut connection);
        Ok(holes_before > 4_000_000)
    })
    .unwrap();
    for setting in [
        "active-defrag-ignore-bytes 1",
        "active-defrag-threshold-lower 0",
        "active-defrag-threshold-upper 1",
        "active-defrag-cycle-min 60",
        "active-defrag-cycle-max 75",
        "activedefrag yes",
    ] {
        send::<()>(&mut connection, &format!("CONFIG SET {setting}"));
    }
    // Limiters are used and looked at while they are moved.
    let mut rounds = 0;
    wait_for("the holes to be closed", || {
        rounds += 1;
        assert_eq!(at(&mut connection, rounds, "RL.SLIDINGLOG logs:5 1000 1m COST 0")[0], 1);
        assert_eq!(at(&mut connection, rounds, "RL.SLIDINGLOG used 1000 1m")[0], 1);
        let line = format!("RL.ACQUIRE held 100 1m an-id-that-comes-again:{}", rounds % 50);
        assert_eq!(at(&mut connection, rounds, &line)[0], 1);
        assert_eq!(at(&mut connection, rounds, "RL.PEEK leases:5")[2], 80);
        Ok(holes(&mut connection) < holes_before / 3)
    })
    .unwrap();
    send::<()>(&mut connection, "DEL used held");
    assert_eq!(keyspace(&mut connection), before);
    send::<()>(&mut connection, "CONFIG SET activedefrag no");
    // The original of the copies included: its ring has free slots, and goes on.
    at(&mut connection, 500, "RL.SLIDINGLOG logs:0 1000 1m");
    assert_eq!(used(&mut connection, "logs:0", &format!("AT {}", T0 + 500)), 146);
    assert_eq!(at(&mut connection, 500, "RL.ACQUIRE leases:0 100 1m new")[2], 79);
    send_all(&mut connection, each(&delete));
    send::<()>(&mut connection, "DEL logs:0 leases:0");
    assert_goes_on(&mut connection);
}

/// Makes keys of a command, each granted so many units at different microseconds.
fn make(server: &Server, keys: u64, grants: u64, command: &str, limits: &str) {
    // The buffers of this connection go with it.
    let mut connection = server.connection().unwrap();
    let grant = |n| {
        let (key, at) = (n / grants, T0 + n % grants);
        // A lease needs an id of its own.
        let limits = limits.replace('#', &format!("{n:016}"));
        format!("{command} key:{key:012} {limits} AT {at}")
    };
    send_all(&mut connection, (0..keys * grants).map(grant));
}

/// The memory that a server uses when nobody else is connected.
fn used_memory(connection: &mut Connection) -> i64 {
    wait_for(
        "others to disconnect",
        || Ok(number(connection, "clients", "connected_clients") == 1),
    )
    .unwrap();
    number(connection, "memory", "used_memory")
}

#[test]
fn the_memory_of_a_big_log_comes_back() {
    assert_memory_comes_back("RL.SLIDINGLOG", "100000 1m", 12..24);
}

#[test]
fn the_memory_of_many_leases_comes_back() {
    assert_memory_comes_back("RL.ACQUIRE", "100000 1m #", 55..88);
}

/// Asserts that a key of 100,000 entries takes so many bytes for each, and frees them however it goes.
fn assert_memory_comes_back(command: &str, limits: &str, each: Range<i64>) {
    const ENTRIES: i64 = 100_000;
    let server = virtual_clock().start().unwrap();
    let mut connection = server.connection().unwrap();
    let empty = used_memory(&mut connection);
    make(&server, 1, ENTRIES.unsigned_abs(), command, limits);
    let key = "key:000000000000";
    assert_eq!(used(&mut connection, key, &format!("AT {}", T0 + 100_000)), ENTRIES);
    let says: i64 = send(&mut connection, &format!("MEMORY USAGE {key} SAMPLES 0"));
    let takes = used_memory(&mut connection) - empty;
    assert!((says - takes).abs() < takes / 10, "{says} said of {takes}");
    let range = each.start * ENTRIES..each.end * ENTRIES;
    assert!(range.contains(&takes), "{takes} for {ENTRIES} entries");

    for free in ["UNLINK", "FLUSHALL ASYNC", "DEL", "RL.RESET", "expiry"] {
        for copy in 0..8 {
            send::<i64>(&mut connection, &format!("COPY {key} copy:{copy}"));
        }
        let full = used_memory(&mut connection);
        assert!(full - empty > 8 * each.start * ENTRIES, "{full} with eight copies");
        match free {
            "FLUSHALL ASYNC" => send::<()>(&mut connection, free),
            _ => (0..8).for_each(|copy| match free {
                "expiry" => send::<()>(&mut connection, &format!("PEXPIRE copy:{copy} 1")),
                _ => send::<()>(&mut connection, &format!("{free} copy:{copy}")),
            }),
        }
        let kept = send::<i64>(&mut connection, &format!("EXISTS {key}")) * takes;
        wait_for(&format!("the memory to come back after {free}"), || {
            Ok(used_memory(&mut connection) - empty - kept < takes / 4)
        })
        .unwrap();
        if kept == 0 {
            make(&server, 1, ENTRIES.unsigned_abs(), command, limits);
        }
    }
}

/// What a key takes of the server's memory, and what MEMORY USAGE says of it, in bytes.
#[derive(Debug)]
struct Bytes {
    takes: i64,
    says: i64,
}

/// Fills the server with keys, and measures them.
fn measure(server: &Server, keys: u64, fill: impl Fn(u64)) -> Bytes {
    let mut connection = server.connection().unwrap();
    send::<()>(&mut connection, "FLUSHALL SYNC");
    let before = used_memory(&mut connection);
    fill(keys);
    let usage = |n| send::<i64>(&mut connection, &format!("MEMORY USAGE key:{n:012} SAMPLES 0"));
    let says: i64 = (0..keys).map(usage).sum();
    // Each look at a key brings the server's tables forward, should they be growing.
    let takes = used_memory(&mut connection) - before;
    let keys = keys.cast_signed();
    Bytes { takes: takes / keys, says: says / keys }
}

#[test]
fn memory_usage_tells_what_is_allocated() {
    let server = virtual_clock().start().unwrap();
    // The first keys of a server bring structures that stay.
    make(&server, 1, 1, "RL.TOKENBUCKET", "100 1");
    let string = measure(&server, 6_000, |keys| {
        let set = |n| format!("SET key:{n:012} short PX 1000000000");
        send_all(&mut server.connection().unwrap(), (0..keys).map(set));
    });
    // MEMORY USAGE leaves out the server's share: the tables and the expiry, as of a string, and at most two headers
    // of 16 bytes that all values of modules have.
    let least = string.takes - string.says;
    let mut first = None;
    for (keys, grants, command, limits) in [
        (6_000, 1, "RL.TOKENBUCKET", "100 1"),
        (6_000, 1, "RL.TOKENBUCKET", "1000000000000 1"),
        (6_000, 1, "RL.LEAKYBUCKET", "100 1"),
        (6_000, 1, "RL.FIXEDWINDOW", "100 1m"),
        (6_000, 1, "RL.SLIDING", "100 1m"),
        (6_000, 1, "RL.SLIDINGLOG", "100 1m"),
        (3_000, 10, "RL.SLIDINGLOG", "100 1m"),
        (1_000, 100, "RL.SLIDINGLOG", "100 1m"),
        (60, 1_000, "RL.SLIDING", "1000 1ms BUCKETS 1024"),
        (6_000, 1, "RL.ACQUIRE", "100 1m #"),
        (1_000, 100, "RL.ACQUIRE", "100 1m #-that-is-longer-than-sixteen"),
        (60, 1_000, "RL.ACQUIRE", "1000 1m #"),
    ] {
        let found = measure(&server, keys, |keys| make(&server, keys, grants, command, limits));
        let range = (found.says + least) * 9 / 10..=(found.says + least + 32) * 11 / 10;
        assert!(range.contains(&found.takes), "{command} {grants}: {found:?}, {string:?}");
        // That share is the same for all kinds.
        let bucket: &Bytes = first.get_or_insert(Bytes { ..found });
        let off = (found.takes - bucket.takes) - (found.says - bucket.says);
        assert!(off.abs() <= found.takes / 10, "{command} {grants}: {found:?}, {bucket:?}");
    }
}
