//! Whoever follows a primary holds what it holds: replicas, their replicas, and the append-only file of each.
//!
//! ```text
//! primary --- first --- below        each with a file of its own
//!        \--- second    late
//! ```
//!
//! What is replicated is the effect of a grant or a refund and nothing else: of one size for any state, in one piece,
//! and not a byte where nothing was taken.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use redis::{Connection, Value};

use crate::client::{Finally, T0, appended, at, digest, error, send, send_all, text, try_send};
use crate::random::{Clock, Load, keys, seeds};
use crate::server::{Builder, Server, field, info, wait_for};

/// Servers with a file of their own, whose links carry nothing but commands.
fn follower() -> Builder {
    Server::builder()
        .virtual_clock()
        .setting("appendonly yes")
        .setting("repl-ping-replica-period 3600")
        .setting("repl-backlog-size 64mb")
}

pub fn connect(server: &Server) -> Connection {
    server.connection().unwrap()
}

pub fn tell(server: &Server, line: &str) {
    send::<Value>(&mut connect(server), line);
}

pub fn follow(server: &Server, primary: &Server) {
    tell(server, &format!("REPLICAOF 127.0.0.1 {}", primary.port()));
}

pub fn number(connection: &mut Connection, section: &str, name: &str) -> i64 {
    field(&info(connection, section).unwrap(), name).unwrap().parse().unwrap()
}

/// A key in a database, its digest, and when it expires (-1: never, -2: there is no key, or its time is up).
type Keys = BTreeMap<(u8, String), (String, i64)>;

/// What a server holds of [`keys`], those included whose time is up but which it has not deleted yet.
fn held(server: &Server) -> Keys {
    let mut connection = connect(server);
    let names: Vec<_> = keys().collect();
    let mut held = Keys::new();
    for database in [0, 1] {
        send::<()>(&mut connection, &format!("SELECT {database}"));
        let line = format!("DEBUG DIGEST-VALUE {}", names.join(" "));
        let digests: Vec<String> = send(&mut connection, &line);
        for (name, digest) in names.iter().zip(digests) {
            let expires = send(&mut connection, &format!("PEXPIRETIME {name}"));
            held.insert((database, name.clone()), (digest, expires));
        }
    }
    held
}

/// Asserts that two servers held the same. A key whose time was up may be deleted on either. How many keys there were.
fn assert_same(found: &Keys, expected: &Keys, whose: &str) -> usize {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let is_up = |expires: i64| expires == -2 || (0..=now).contains(&expires);
    let is_gone = |digest: &str| digest.bytes().all(|digit| digit == b'0');
    for (key, (digest, expires)) in expected {
        let (other, others) = &found[key];
        let deleted = (is_gone(digest) || is_gone(other)) && is_up(*expires) && is_up(*others);
        assert!(
            digest == other || deleted,
            "{key:?} of {whose}: {:?}, not {:?}",
            found[key],
            expected[key]
        );
        assert!(
            expires == others || (is_up(*expires) && is_up(*others)),
            "{key:?} of {whose} expires at {others}, not at {expires}, at {now}"
        );
    }
    expected.values().filter(|(_, expires)| !is_up(*expires)).count()
}

/// Asserts that all hold what the primary holds, once they have all it sent; how many keys that are.
fn assert_agree(primary: &Server, others: &[(&str, &Server)]) -> usize {
    // From here on the primary expires nothing by itself, so nothing is sent any more.
    tell(primary, "DEBUG SET-ACTIVE-EXPIRE 0");
    for (_, other) in others {
        other.wait_for_sync(primary).unwrap();
    }
    let found: Vec<_> = others.iter().map(|(_, other)| held(other)).collect();
    let expected = held(primary);
    for ((whose, _), found) in others.iter().zip(&found) {
        assert_same(found, &expected, whose);
    }
    let count = assert_same(&expected, &expected, "the primary");
    tell(primary, "DEBUG SET-ACTIVE-EXPIRE 1");
    count
}

/// Does something while a server is busy.
fn under_load<T>(load: &mut Load, server: &Server, something: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut connection = connect(server);
            while !done.load(SeqCst) {
                load.run(&mut connection, 20);
            }
            load.run(&mut connection, 200);
        });
        // Also if it panics, or the load would never end.
        let _end = Finally(&done);
        something()
    })
}

/// Waits until a server follows another.
pub fn wait_for_link(server: &Server) {
    let mut connection = connect(server);
    wait_for("the link", || {
        Ok(info(&mut connection, "replication")?.contains("master_link_status:up"))
    })
    .unwrap_or_else(|error| panic!("{error}:\n{}", server.log()));
}

/// Waits until a server's file holds all that it has.
pub fn wait_for_file(server: &Server) {
    let mut connection = connect(server);
    wait_for("the append-only file", || {
        let info = info(&mut connection, "persistence")?;
        let is = |name, value: &str| field(&info, name).as_deref() == Some(value);
        Ok(is("aof_rewrite_in_progress", "0")
            && is("aof_rewrite_scheduled", "0")
            && is("aof_enabled", "1"))
    })
    .unwrap();
}

fn all_hold_the_same_whatever_happens(seed: u64, clock: Clock) {
    let mut load = Load::new(seed, clock);
    let [mut primary, mut first, mut second, below] = [(); 4].map(|()| follower().start().unwrap());
    Load::load_function(&mut connect(&primary));
    follow(&first, &primary);
    follow(&second, &primary);
    follow(&below, &first);
    load.run(&mut connect(&primary), 600);
    let follow_it = [("first", &first), ("second", &second), ("below", &below)];
    assert!(assert_agree(&primary, &follow_it) > 5, "there are keys to compare");

    // One comes late, while the primary is busy, and gets all at once.
    let late = follower().start().unwrap();
    under_load(&mut load, &primary, || {
        follow(&late, &primary);
        wait_for_link(&late);
    });
    let follow_it = [("first", &first), ("second", &second), ("below", &below), ("late", &late)];
    assert_agree(&primary, &follow_it);

    // Links break, and each goes on where it stopped.
    let stats = |name| number(&mut connect(&primary), "stats", name);
    let (full, partial) = (stats("sync_full"), stats("sync_partial_ok"));
    under_load(&mut load, &primary, || {
        for _ in 0..2 {
            for server in [&primary, &first] {
                tell(server, "CLIENT KILL TYPE replica");
            }
            tell(&late, "CLIENT KILL TYPE master");
            [&first, &second, &below, &late].into_iter().for_each(wait_for_link);
        }
    });
    assert_agree(&primary, &follow_it);
    assert_eq!(stats("sync_full"), full);
    assert!(stats("sync_partial_ok") > partial);

    // One starts again from its own file, and joins again.
    wait_for_file(&second);
    second.kill();
    second.start_again().unwrap();
    let found = held(&second);
    assert_same(&found, &held(&primary), "second from its file");
    under_load(&mut load, &primary, || {
        follow(&second, &primary);
        wait_for_link(&second);
    });
    let follow_it = [("first", &first), ("second", &second), ("below", &below), ("late", &late)];
    assert_agree(&primary, &follow_it);

    // Keys expire by themselves, however fast all of the above went.
    if matches!(clock, Clock::Real) {
        let mut connection = connect(&primary);
        let has_expired = || {
            load.run(&mut connection, 20);
            Ok(stats("expired_keys") > 10)
        };
        wait_for("keys to expire", has_expired).unwrap();
        assert_agree(&primary, &follow_it);
    }

    // The primary is lost, and one that followed takes its place.
    let granted = info(&mut connect(&primary), "modules").unwrap();
    primary.kill();
    tell(&first, "REPLICAOF NO ONE");
    under_load(&mut load, &first, || {
        follow(&second, &first);
        follow(&late, &first);
        [&second, &below, &late].into_iter().for_each(wait_for_link);
    });
    let follow_it = [("second", &second), ("below", &below), ("late", &late)];
    assert_agree(&first, &follow_it);
    wait_for_file(&first);
    let before = held(&first);
    first.kill();
    first.start_again().unwrap();
    assert_same(&held(&first), &before, "first from its file");

    for algorithm in
        ["tokenbucket", "leakybucket", "fixedwindow", "sliding", "slidinglog", "concurrency"]
    {
        for what in ["granted", "denied"] {
            let count = field(&granted, &format!("rl_{algorithm}_{what}")).unwrap();
            assert!(count.parse::<u64>().unwrap() > 20, "{algorithm}: {count} {what}");
        }
    }
}

#[test]
fn all_who_follow_hold_the_same_whatever_happens() {
    for seed in seeds() {
        all_hold_the_same_whatever_happens(seed, Clock::Real);
    }
}

#[test]
fn all_who_follow_hold_the_same_though_the_clock_steps() {
    for seed in seeds() {
        all_hold_the_same_whatever_happens(seed, Clock::stepping());
    }
}

/// A primary with a replica and a file, and a connection to it.
struct Watched {
    primary: Server,
    replica: Server,
    connection: Connection,
    observer: Connection,
}

impl Watched {
    fn start() -> Self {
        let primary = follower().start().unwrap();
        let replica = follower().start().unwrap();
        follow(&replica, &primary);
        wait_for_link(&replica);
        let mut connection = connect(&primary);
        // The first write of a stream names the database.
        send::<()>(&mut connection, "SET any thing");
        replica.wait_for_sync(&primary).unwrap();
        let observer = connect(&primary);
        Self { primary, replica, connection, observer }
    }

    /// How long the stream to the replicas and the append-only file are.
    fn written(&mut self) -> (i64, i64) {
        let stream = number(&mut self.observer, "replication", "master_repl_offset");
        (stream, number(&mut self.observer, "persistence", "aof_current_size"))
    }

    /// The bytes that a command adds to both.
    fn cost(&mut self, line: &str) -> i64 {
        let before = self.written();
        let words: Vec<_> = line.split_whitespace().map(str::as_bytes).collect();
        // An error is an answer.
        let _ = try_send::<Value>(&mut self.connection, &words);
        let after = self.written();
        assert_eq!(after.0 - before.0, after.1 - before.1, "{line}");
        after.0 - before.0
    }
}

/// One limit of each algorithm, with room for 10.
const LIMITS: [&str; 5] = [
    "TOKENBUCKET 10 1",
    "LEAKYBUCKET 10 1",
    "FIXEDWINDOW 10 1m",
    "SLIDING 10 1m",
    "SLIDINGLOG 10 1m",
];

/// What happens to two leases, of 8 units and of 1, in the key `slots` that has room for 10: each is written.
const LEASED: [&str; 6] = [
    "RL.ACQUIRE slots 10 1m a COST 7",
    "RL.ACQUIRE slots 10 1m a COST 8",
    "RL.ACQUIRE slots 10 1m b COST 2",
    "RL.RENEW slots 2m nobody a b",
    "RL.RELEASE slots b nobody",
    "RL.ACQUIRE slots 10 1m b",
];

/// What changes nothing about these leases: denials, and what finds no lease.
const NOTHING_LEASED: [&str; 28] = [
    "RL.ACQUIRE slots 10 1m c COST 2",
    "RL.ACQUIRE slots 10 1m c COST 11",
    "RL.ACQUIRE slots 0 1m c",
    "RL.ACQUIRE slots 10 1m a COST 10",
    "RL.ACQUIRE slots 7 1m b",
    "RL.ACQUIRE slots 10 1m a COST 0",
    "RL.ACQUIRE slots 10 0 a",
    "RL.ACQUIRE slots x 1m a",
    "RL.ACQUIRE other 0 1m a",
    "RL.ACQUIRE any 10 1m a",
    "RL.RENEW slots 1m nobody",
    "RL.RENEW slots 0 a",
    "RL.RENEW other 1m a",
    "RL.RENEW any 1m a",
    "RL.RELEASE slots nobody A ab",
    "RL.RELEASE other a",
    "RL.RELEASE any a",
    "RL.LEASES slots",
    "RL.LEASES slots COUNT 1",
    "RL.LEASES other",
    "RL.PEEK slots COST 3",
    "RL.INFO slots",
    "RL.REFUND slots 1",
    "RL.SETTLE 1 slots 1 2",
    "RL.SLIDING slots 1 1m",
    "RL.MULTI 2 other slots SLIDING 5 1m CONCURRENCY 10 1m c COST 2",
    "RL.MULTI 2 slots other CONCURRENCY 10 1m c SLIDING 0 1m",
    "RL.MULTI 2 slots other CONCURRENCY 10 1m c SLIDING 5 1m FORCE",
];

/// A command of these limits on a key.
fn on(key: &str, limits: &str) -> String {
    format!("RL.{}", limits.replacen(' ', &format!(" {key} "), 1))
}

#[test]
fn what_changes_nothing_writes_nothing() {
    let mut server = Watched::start();
    let now = format!("AT {T0}");
    for limits in LIMITS {
        let key = limits.split(' ').next().unwrap();
        let command = on(key, limits);
        assert!(server.cost(&format!("{command} COST 8 {now}")) > 0, "{command}");
        assert!(server.cost(&format!("RL.REFUND {key} 1 {now}")) > 0, "{command}");
        assert!(server.cost(&format!("{command} PARTIAL COST 8 {now}")) > 0, "{command}");
        for nothing in [
            format!("{command} {now}"),
            format!("{command} COST 11 {now}"),
            format!("{command} COST 0 {now}"),
            format!("{command} COST 0 FORCE {now}"),
            format!("{command} PARTIAL COST 5 {now}"),
            format!("{command} COST x {now}"),
            format!("{command} {now} {now}"),
            on("any", limits),
            format!("{} {now}", on("other", &limits.replacen(" 10 ", " 0 ", 1))),
            format!("RL.PEEK {key} {now}"),
            format!("RL.PEEK {key} COST 3 {now}"),
            format!("RL.INFO {key} {now}"),
            format!("RL.REFUND {key} 0 {now}"),
            format!("RL.REFUND other 5 {now}"),
            format!("RL.REFUND {key} 5 AT {}", T0 + 3_600_000_000),
            format!("RL.MULTI 2 other {key} SLIDING 5 1m {limits} {now}"),
            format!("RL.MULTI 2 other {key} SLIDING 5 1m COST 0 {limits} COST 0 {now}"),
            format!("RL.MULTI 2 other any SLIDING 5 1m {limits} {now}"),
            format!("RL.SETTLE 1 {key} 3 3 {now}"),
            format!("RL.SETTLE 2 other none 1 3 {now}"),
            format!("RL.SETTLE 2 {key} any 1 3 {now}"),
            format!("RL.SETTLE 2 {key} {key} 1 3 {now}"),
            format!("RL.SETTLE 1 {key} 1 3 AT {}", T0 + 3_600_000_000),
        ] {
            assert_eq!(server.cost(&nothing), 0, "{nothing}");
        }
        // Nor where it is one of several.
        for line in ["MULTI", &format!("{command} {now}"), &format!("RL.PEEK {key} {now}"), "EXEC"]
        {
            assert_eq!(server.cost(line), 0, "{line} of a transaction");
        }
        let before = server.written();
        let script = format!(
            "return redis.call('RL.{}')",
            command[3..].replace(' ', "','") + &format!("','AT',{T0},'PARTIAL")
        );
        let reply: Vec<i64> =
            try_send(&mut server.connection, &[b"EVAL", script.as_bytes(), b"1", key.as_bytes()])
                .unwrap();
        assert_eq!((reply[0], server.written()), (0, before), "{script}");
    }
    // A denial is written if it counts for a block, which needs something used and none that runs yet.
    let block = format!("BLOCK 1h AFTER 2 {now}");
    for limits in LIMITS {
        let command = on(&format!("closed:{limits}").replace(' ', "-"), limits);
        let key = command.split(' ').nth(1).unwrap();
        assert!(server.cost(&format!("{command} COST 10 {now}")) > 0, "{command}");
        assert!(server.cost(&format!("{command} {block}")) > 0, "{command}");
        assert_eq!(server.cost(&format!("{command} {now}")), 0, "{command}");
        assert!(server.cost(&format!("{command} COST 11 {block}")) > 0, "{command}");
        for nothing in [
            format!("{command} {block}"),
            format!("{command} COST 11 {block}"),
            format!("{command} COST 5 PARTIAL {block}"),
            format!("{command} COST 0 {block}"),
            format!("RL.MULTI 2 other {key} SLIDING 5 1m BLOCK 1s {limits} BLOCK 1h {now}"),
            format!("{} {block}", on("fresh", &limits.replacen(" 10 ", " 0 ", 1))),
        ] {
            assert_eq!(server.cost(&nothing), 0, "{nothing}");
        }
        assert!(server.cost(&format!("RL.REFUND {key} 10 {now}")) > 0, "it is there still");
        assert_eq!(server.cost(&format!("RL.REFUND {key} 1 {now}")), 0, "nothing is used");
        assert_eq!(server.cost(&format!("RL.SETTLE 1 {key} 2 1 {now}")), 0, "nothing is used");
        assert!(server.cost(&format!("{command} FORCE {block}")) > 0, "{command}");
    }
    for line in LEASED {
        assert!(server.cost(&format!("{line} {now}")) > 0, "{line}");
    }
    for line in NOTHING_LEASED {
        assert_eq!(server.cost(&format!("{line} {now}")), 0, "{line}");
    }
    // When all have run out, though the key may linger.
    for line in ["RL.RENEW slots 1m a b", "RL.RELEASE slots a b", "RL.LEASES slots"] {
        assert_eq!(server.cost(&format!("{line} AT {}", T0 + 120_000_000)), 0, "{line}");
    }
    for name in ["CL.THROTTLE", "RL.THROTTLE"] {
        assert!(server.cost(&format!("{name} {name} 4 1 1 5 {now}")) > 0, "{name}");
        for nothing in ["4 1 1 1", "4 1 1 0", "4 1 1 6", "4 1 0", "-1 1 1"] {
            assert_eq!(
                server.cost(&format!("{name} {name} {nothing} {now}")),
                0,
                "{name} {nothing}"
            );
        }
        assert_eq!(server.cost(&format!("{name} any 4 1 1 {now}")), 0, "{name}");
        assert!(
            server.cost(&format!("SET cell {}000 PXAT {}", T0 + 9_000_000, T0 / 1_000 + 9_000)) > 0
        );
        assert_eq!(
            server.cost(&format!("{name} cell 4 1 1 {now}")),
            0,
            "{name}: it is not taken over"
        );
    }
    assert_eq!(server.cost("RL.RESET other"), 0);
    assert_eq!(server.cost("RL.RESET TOKENBUCKET any"), 0, "a foreign key among them");
    assert_eq!(server.cost("RL._ADD any effect"), 0);
    assert_eq!(server.cost("RL._RESTORE any state"), 0);
    assert!(server.cost("RL.RESET TOKENBUCKET") > 0);
    assert_agree(&server.primary, &[("the replica", &server.replica)]);
}

#[test]
fn a_grant_costs_the_same_bytes_whatever_the_size_of_the_state() {
    let mut server = Watched::start();
    let mut costs = Vec::new();
    for (key, small, large, entries) in [
        ("token", "TOKENBUCKET 10 1/1m", "TOKENBUCKET 1000000000000 1000000000/7", 1),
        ("leaky", "LEAKYBUCKET 10 1/1m", "LEAKYBUCKET 1000000000000 1000000000/7", 1),
        ("fixed", "FIXEDWINDOW 10 1m", "FIXEDWINDOW 1000000000000 3650d ALIGN -8h", 1),
        ("slide", "SLIDING 10 1m", "SLIDING 1000000000000 1ms BUCKETS 1024", 900),
        ("exact", "SLIDINGLOG 10 1m", "SLIDINGLOG 100000 1m", 10_000),
    ] {
        // What is settled is an effect like the others, in either direction.
        let settle = |numbers| format!("RL.SETTLE 1 {key} {numbers} AT {T0}");
        costs.push(server.cost(&format!("{} AT {T0}", on(key, small))));
        costs.push(server.cost(&settle("1 5")));
        costs.push(server.cost(&settle("5 1")));
        costs.push(server.cost(&format!("{} AT {T0}", on(key, small))));
        let grant = |n| format!("{} COST 2 AT {}", on(key, large), T0 + n);
        send_all(&mut server.connection, (0..entries).map(grant));
        costs.push(server.cost(&grant(entries)));
        costs.push(server.cost(&format!("RL.REFUND {key} 1 AT {}", T0 + entries)));
        if entries > 1 {
            let info: Vec<Value> =
                send(&mut server.connection, &format!("RL.INFO {key} AT {}", T0 + entries));
            let place =
                info.iter().position(|field| *field == Value::BulkString(b"entries".into()));
            let Value::Int(found) = info[place.unwrap() + 1] else { panic!("{info:?}") };
            assert!(found.unsigned_abs() >= entries, "{key} has {found} entries");
        }
    }
    // An effect on a lease has the id besides, however many leases there are.
    let acquire =
        |id: &str, n| format!("RL.ACQUIRE slots 1000000000000 3650d {id} COST 3 AT {}", T0 + n);
    costs.push(server.cost(&acquire("a", 0)) - 1);
    send_all(&mut server.connection, (0..10_000).map(|n| acquire(&format!("lease-{n}"), n)));
    for id in ["b", "0123456789", "0123456789012345678901234567890123456789"] {
        let length = id.len() as i64;
        costs.push(server.cost(&acquire(id, 10_000)) - length);
        costs.push(server.cost(&acquire(id, 10_000)) - length);
        costs.push(server.cost(&format!("RL.RENEW slots 1ms {id} AT {T0}")) - length);
        costs.push(server.cost(&format!("RL.RELEASE slots {id} AT {T0}")) - length);
    }
    assert!(costs.iter().all(|cost| *cost == costs[0]), "{costs:?}");
    let longest = server.cost(&acquire(&"x".repeat(64), 10_000));
    assert_eq!(longest, costs[0] + 64 + 1, "its length has a digit more");
    assert!(costs[0] < 100, "{} bytes", costs[0]);
    assert_agree(&server.primary, &[("the replica", &server.replica)]);
}

#[test]
fn what_several_keys_give_is_written_as_one() {
    let mut server = Watched::start();
    let multi = format!("RL.MULTI 3 a b c SLIDING 5 1m TOKENBUCKET 5 1 LEAKYBUCKET 5 1 AT {T0}");
    let names =
        |command: &[String]| command.iter().step_by(2).cloned().collect::<Vec<_>>().join(" ");
    send::<Value>(&mut server.connection, &multi);
    let file = appended(&server.primary);
    assert_eq!(
        file.last().unwrap().iter().skip(1).step_by(2).cloned().collect::<Vec<_>>(),
        ["a", "b", "c"]
    );
    assert!(names(file.last().unwrap()).starts_with("RL._ADD "), "{file:?}");

    // In a transaction and in a script, what is taken stands between MULTI and EXEC.
    let one = format!("RL.SLIDING d 5 1m AT {T0}");
    for line in ["MULTI", &multi, &one, "RL.PEEK d", "EXEC"] {
        send::<Value>(&mut server.connection, line);
    }
    let script = format!(
        "redis.call('RL.SLIDING','d',5,'1m','AT',{T0}); redis.call('RL.SLIDING','e',5,'1m','AT',{T0})"
    );
    try_send::<Value>(&mut server.connection, &[b"EVAL", script.as_bytes(), b"2", b"d", b"e"])
        .unwrap();
    // A key whose time is up goes in the same piece.
    send::<()>(&mut server.connection, "DEBUG SET-ACTIVE-EXPIRE 0");
    send::<()>(&mut server.connection, "SET b text PX 1");
    wait_for("a key's time to be up", || {
        Ok(send::<i64>(&mut connect(&server.replica), "EXISTS b") == 0)
    })
    .unwrap();
    assert_eq!(send::<i64>(&mut server.connection, "DBSIZE"), 6, "any, a to e");
    let replies: Vec<Value> = send(&mut server.connection, &multi);
    assert_eq!(replies[0], Value::Int(1), "{replies:?}");
    let file = appended(&server.primary);
    let heads: Vec<_> =
        file.iter().map(|command| command[..2.min(command.len())].join(" ")).collect();
    let expected = [
        "MULTI",
        "RL._ADD a",
        "RL._ADD d",
        "EXEC",
        "MULTI",
        "RL._ADD d",
        "RL._ADD e",
        "EXEC",
        "SET b",
        "MULTI",
        "DEL b",
        "RL._ADD a",
        "EXEC",
    ];
    let tail: Vec<_> = heads[heads.len() - expected.len()..]
        .iter()
        .map(|head| head.replace("UNLINK", "DEL"))
        .collect();
    assert_eq!(tail, expected, "{heads:?}");
    assert_agree(&server.primary, &[("the replica", &server.replica)]);
}

#[test]
fn what_happens_to_several_leases_is_written_as_one() {
    let mut server = Watched::start();
    let start = appended(&server.primary).len();
    for line in [
        "RL.MULTI 3 a b c SLIDING 5 1m CONCURRENCY 5 1m one TOKENBUCKET 5 1",
        "RL.ACQUIRE b 5 1m two",
        "RL.RENEW b 2m one nobody two",
        "RL.SETTLE 2 a c 1 4",
        "RL.RELEASE b nobody two",
        "RL.RELEASE b two one",
        "RL.RELEASE b one two",
        "RL.SETTLE 2 a c 4 0",
    ] {
        send::<Value>(&mut server.connection, &format!("{line} AT {T0}"));
    }
    let file = appended(&server.primary);
    let keys: Vec<_> = file[start..]
        .iter()
        .map(|command| {
            assert_eq!(command[0], "RL._ADD");
            command.iter().skip(1).step_by(2).cloned().collect::<Vec<_>>().join(" ")
        })
        .collect();
    assert_eq!(keys, ["a b c", "b", "b b", "a c", "b", "b", "a c"]);
    assert_eq!(send::<i64>(&mut server.connection, "DBSIZE"), 1, "any is left");
    assert_agree(&server.primary, &[("the replica", &server.replica)]);
}

#[test]
fn what_is_forgotten_is_written_as_the_deletion_of_what_was_there() {
    let mut server = Watched::start();
    let grants = |keys: &[&str]| -> Vec<String> {
        keys.iter().map(|key| format!("RL.SLIDING {key} 5 1m AT {T0}")).collect()
    };
    send_all(&mut server.connection, grants(&["a", "b", "c"]));
    assert_eq!(send::<i64>(&mut server.connection, "RL.RESET a missing b a"), 2);
    assert_eq!(server.cost("RL.RESET a missing"), 0);
    assert_eq!(server.cost("RL.RESET c any"), 0, "a foreign key among them");
    // In a transaction and in a script, alone and among others.
    send_all(&mut server.connection, grants(&["a", "b"]));
    for line in ["MULTI", "RL.RESET a", "RL.RESET a b", "EXEC"] {
        send::<Value>(&mut server.connection, line);
    }
    let script = b"return redis.call('RL.RESET', 'c', 'missing')";
    let removed: i64 = try_send(&mut server.connection, &[b"EVAL", script, b"1", b"c"]).unwrap();
    assert_eq!(removed, 1);
    let file = appended(&server.primary);
    let lines: Vec<_> = file
        .iter()
        .map(|words| words.join(" "))
        .filter(|line| !line.starts_with("RL._ADD "))
        .collect();
    let tail = &lines[lines.len() - 6..];
    assert_eq!(tail, ["DEL a b", "MULTI", "DEL a", "DEL b", "EXEC", "DEL c"], "{lines:?}");
    assert_agree(&server.primary, &[("the replica", &server.replica)]);
}

#[test]
fn what_is_forgotten_goes_from_replicas_though_del_was_renamed() {
    let primary = follower().setting("rename-command DEL \"\"").start().unwrap();
    let replica = follower().replica_of(&primary).start().unwrap();
    wait_for_link(&replica);
    tell(&primary, "RL.SLIDING k 5 1m");
    tell(&primary, "RL.RESET k");
    replica.wait_for_sync(&primary).unwrap();
    assert_eq!(send::<i64>(&mut connect(&replica), "EXISTS k"), 0);
}

#[test]
fn a_file_that_was_cut_short_holds_all_that_several_keys_gave_or_nothing() {
    let mut server = Watched::start();
    let written = |server: &mut Watched| server.written().1 as usize;
    send::<Value>(&mut server.connection, &format!("RL.SLIDING a 5 1m AT {T0}"));
    let before = digest(&mut server.connection, "a");
    let start = written(&mut server);
    let multi = format!("RL.MULTI 3 a b c SLIDING 5 1m TOKENBUCKET 5 1 LEAKYBUCKET 5 1 AT {T0}");
    send::<Value>(&mut server.connection, &multi);
    let length = written(&mut server) - start;
    server.primary.kill();
    let files = std::fs::read_dir(server.primary.dir().join("appendonlydir")).unwrap();
    let file = files
        .map(|file| file.unwrap().path())
        .find(|path| path.to_string_lossy().contains(".incr."))
        .unwrap();
    let bytes = std::fs::read(&file).unwrap();
    for cut in [1, length / 2, length - 1] {
        std::fs::write(&file, &bytes[..bytes.len() - cut]).unwrap();
        server.primary.start_again().unwrap();
        let mut connection = connect(&server.primary);
        assert_eq!(send::<i64>(&mut connection, "EXISTS b c"), 0, "cut by {cut}");
        assert_eq!(digest(&mut connection, "a"), before, "cut by {cut}");
        server.primary.kill();
    }
}

#[test]
fn a_whole_state_reaches_replicas_and_the_append_only_file() {
    // As `limiter/codec.rs` draws it: a token bucket of 10 and one a second, of which five are used.
    let mut state = vec![1, 0];
    for number in [10, 1, 1_000_000, T0, 5_000_000, 0] {
        state.extend(number.to_le_bytes());
    }
    // A concurrency limit of 10 and a minute, of which "id" holds seven.
    let mut leases = vec![2, 5];
    for number in [10, 60_000_000, 0, T0, 60_000_000, 7] {
        leases.extend(u64::to_le_bytes(number));
    }
    leases.extend(b"\x02id");
    let mut primary = Server::builder().setting("appendonly yes").start().unwrap();
    let replica = Server::builder().replica_of(&primary).start().unwrap();
    replica.wait_for_sync(&primary).unwrap();
    let mut connection = connect(&primary);
    try_send::<()>(&mut connection, &[b"RL._RESTORE", b"k", &state]).unwrap();
    try_send::<()>(&mut connection, &[b"RL._RESTORE", b"l", &leases]).unwrap();
    assert_eq!(send::<i64>(&mut connection, "EXISTS k l"), 2);
    let digests = |connection: &mut Connection| ["k", "l"].map(|key| digest(connection, key));
    let expected = digests(&mut connection);
    wait_for("the replica to have the keys", || Ok(digests(&mut connect(&replica)) == expected))
        .unwrap();
    primary.shutdown(false).unwrap();
    primary.start_again().unwrap();
    assert_eq!(digests(&mut connect(&primary)), expected);
}

#[test]
fn a_replica_answers_looks_and_refuses_to_decide() {
    let mut server = Watched::start();
    let mut replica = connect(&server.replica);
    for limits in LIMITS {
        let key = limits.split(' ').next().unwrap();
        at(&mut server.connection, 0, &format!("{} COST 8", on(key, limits)));
    }
    for line in LEASED {
        send::<Value>(&mut server.connection, &format!("{line} AT {T0}"));
    }
    server.replica.wait_for_sync(&server.primary).unwrap();
    for limits in LIMITS {
        let key = limits.split(' ').next().unwrap();
        for look in ["RL.PEEK", "RL.INFO"] {
            let line = format!("{look} {key} AT {}", T0 + 500_000);
            let reply: Value = send(&mut replica, &line);
            assert_eq!(reply, send::<Value>(&mut server.connection, &line), "{line}");
            assert_ne!(reply, Value::Nil, "{line}");
        }
        let command = format!("{} AT {T0}", on(key, limits));
        assert_refused(&mut replica, &command);
        assert_refused(&mut replica, &format!("{command} COST 0"));
        assert_refused(&mut replica, &format!("RL.REFUND {key} 1"));
        assert_refused(&mut replica, &format!("RL.RESET {key}"));
    }
    for look in ["RL.PEEK slots", "RL.INFO slots", "RL.LEASES slots", "RL.LEASES slots COUNT 1"] {
        let line = format!("{look} AT {}", T0 + 500_000);
        let reply: Value = send(&mut replica, &line);
        assert_eq!(reply, send::<Value>(&mut server.connection, &line), "{line}");
        assert!(![Value::Nil, Value::Array(vec![])].contains(&reply), "{line}");
    }
    for decide in LEASED.iter().chain(&["RL.RELEASE slots nobody", "RL.RENEW slots 1m nobody"]) {
        assert_refused(&mut replica, decide);
    }
    assert_refused(&mut replica, "RL.SETTLE 1 SLIDING 2 1");
    assert_refused(&mut replica, "RL.MULTI 2 a b SLIDING 5 1m SLIDING 5 1m");
    for command in ["CL.THROTTLE a 1 1 1", "RL.THROTTLE a 1 1 1", "RL._ADD a b", "RL._RESTORE a b"]
    {
        assert_refused(&mut replica, command);
    }
}

fn assert_refused(connection: &mut Connection, line: &str) {
    let words: Vec<_> = line.split(' ').map(str::as_bytes).collect();
    let error = error(connection, &words);
    assert!(error.starts_with("READONLY "), "{line}: {error}");
}

#[test]
fn read_only_scripts_and_functions_may_look_and_nothing_else() {
    let server = Server::start().unwrap();
    let mut connection = connect(&server);
    send::<Value>(&mut connection, "RL.SLIDING k 10 1m COST 4");
    send::<Value>(&mut connection, "RL.ACQUIRE slots 10 1m id");
    let library = b"#!lua name=looks
        redis.register_function{function_name = 'call', flags = {'no-writes'},
            callback = function(keys, args) return redis.call(args[1], keys[1], unpack(args, 2)) end}";
    try_send::<Value>(&mut connection, &[b"FUNCTION", b"LOAD", library]).unwrap();
    let script = b"return redis.call(ARGV[1], KEYS[1], unpack(ARGV, 2))";
    for call in [[&b"EVAL_RO"[..], script, b"1", b"k"], [&b"FCALL_RO"[..], b"call", b"1", b"k"]] {
        let mut run =
            |words: &[&[u8]]| try_send::<Value>(&mut connection, &[&call, words].concat());
        let Ok(Value::Array(peek)) = run(&[b"RL.PEEK", b"COST", b"7"]) else { panic!("{call:?}") };
        assert_eq!(peek[..3], [0, 10, 6].map(Value::Int));
        assert!(matches!(run(&[b"RL.INFO"]), Ok(Value::Array(_) | Value::Map(_))), "{call:?}");
        assert!(run(&[b"RL.LEASES"]).is_err_and(|error| text(&error).starts_with("WRONGTYPE ")));
        for decide in [
            &[&b"RL.SLIDING"[..], b"10", b"1m"][..],
            &[b"RL.SLIDING", b"10", b"1m", b"COST", b"0"],
            &[b"RL.REFUND", b"1"],
            &[b"RL.ACQUIRE", b"1", b"1m", b"id"],
            &[b"RL.RENEW", b"1m", b"id"],
            &[b"RL.RELEASE", b"id"],
            &[b"RL.RESET"],
            &[b"RL.THROTTLE", b"1", b"1", b"1"],
        ] {
            let error = text(&run(decide).unwrap_err());
            assert!(error.contains("Write commands are not allowed"), "{error}");
        }
    }
}

#[test]
fn a_denied_call_disturbs_no_transaction_that_watches_the_key() {
    let server = Server::builder().virtual_clock().start().unwrap();
    let (mut connection, mut watcher) = (connect(&server), connect(&server));
    let mut disturbs = |line: &str| {
        send::<()>(&mut watcher, "WATCH k other");
        // An error is an answer.
        let words: Vec<_> = line.split_whitespace().map(str::as_bytes).collect();
        let reply = try_send::<Value>(&mut connection, &words);
        assert!(!matches!(reply, Ok(Value::Okay)), "{line}");
        send::<()>(&mut watcher, "MULTI");
        send::<()>(&mut watcher, "PING");
        send::<Value>(&mut watcher, "EXEC") == Value::Nil
    };
    let now = format!("AT {T0}");
    for limits in LIMITS {
        let command = on("k", limits);
        for (line, expected) in [
            (format!("{command} COST 0 {now}"), false),
            (format!("{command} COST 11 {now}"), false),
            (format!("{command} COST 8 {now}"), true),
            (format!("{command} COST 3 {now}"), false),
            (format!("{command} PARTIAL COST 3 {now}"), true),
            (format!("{command} PARTIAL COST 3 {now}"), false),
            (format!("RL.PEEK k {now}"), false),
            (format!("RL.INFO k {now}"), false),
            (format!("RL.REFUND k 0 {now}"), false),
            (format!("RL.REFUND other 1 {now}"), false),
            (format!("RL.MULTI 2 other k SLIDING 5 1m {limits} {now}"), false),
            (format!("{command} BLOCK 1s AFTER 2 {now}"), true),
            (format!("{command} FORCE {now}"), true),
            (format!("{command} BLOCK 1ms {now}"), true),
            (format!("{command} BLOCK 1ms {now}"), false),
            (format!("{command} FORCE AT {}", T0 + 1_000), true),
            (format!("RL.REFUND k 1 {now}"), true),
            (format!("RL.REFUND k 3 {now}"), true),
            (format!("RL.MULTI 2 other k SLIDING 5 1m {limits} {now}"), true),
            ("RL.RESET k other".into(), true),
            ("RL.RESET k other".into(), false),
            (format!("CL.THROTTLE k 1 1 1 2 {now}"), true),
            (format!("CL.THROTTLE k 1 1 1 1 {now}"), false),
            (format!("RL.REFUND k 2 {now}"), true),
        ] {
            assert_eq!(disturbs(&line), expected, "{line}");
        }
    }
    let leases = NOTHING_LEASED.map(|line| (line.replace("slots", "k"), false));
    let changes = LEASED.map(|line| (line.replace("slots", "k"), true));
    for (line, expected) in changes.into_iter().chain(leases) {
        if !line.contains("any") {
            assert_eq!(disturbs(&format!("{line} {now}")), expected, "{line}");
        }
    }
    assert!(disturbs(&format!("RL.RELEASE k a b {now}")));
    assert!(!disturbs(&format!("RL.RELEASE k a b {now}")));
}

#[test]
fn time_stands_still_in_transactions_and_scripts() {
    let server = Server::start().unwrap();
    let mut connection = connect(&server);
    let version = field(&info(&mut connection, "server").unwrap(), "redis_version").unwrap();
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap());
    if (parts.next(), parts.next()) < (Some(7), Some(2)) {
        println!("skipped: Redis {version} has no such clock");
        return;
    }
    // Looks before and after a while, which goes by outside.
    for line in [
        "MULTI",
        "RL.SLIDING k 10 1m",
        "DEBUG SLEEP 0.02",
        "RL.SLIDING k 10 1m",
        "RL.PEEK k",
        "EXEC",
    ] {
        let replies: Value = send(&mut connection, line);
        if let Value::Array(replies) = replies {
            assert_eq!(replies[3], Value::Array([1, 10, 8, 0, 60_000].map(Value::Int).into()));
        }
    }
    let fields: Vec<Value> = send(&mut connection, "RL.INFO k");
    let entries = fields.iter().position(|field| *field == Value::BulkString(b"entries".into()));
    assert_eq!(fields[entries.unwrap() + 1], Value::Int(1), "both hits came at one moment");
    let script = b"local first = redis.call('RL.SLIDING', KEYS[1], 10, '1m')
        for i = 1, 3000000 do end
        return redis.call('RL.PEEK', KEYS[1])[5]";
    let reset: i64 = try_send(&mut connection, &[b"EVAL", script, b"1", b"k"]).unwrap();
    assert_eq!(reset, 60_000);
    send::<Value>(&mut connection, "DEBUG SLEEP 0.02");
    let later: Vec<i64> = send(&mut connection, "RL.PEEK k");
    assert!(later[4] <= 59_980, "{later:?}");
}
