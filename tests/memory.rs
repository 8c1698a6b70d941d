//! Full memory. With `noeviction` the limiters that are there go on deciding, what would need memory is answered
//! `-OOM` and changes nothing; with an eviction policy limiters go like any key, and the server goes on deciding.

use redis::Connection;

use crate::client::{T0, answer, at, digest, error, send};
use crate::server::{Server, field, info, wait_for};

const OOM: &str = "OOM a new limiter needs memory, but used memory exceeds 'maxmemory'";

/// A call of every algorithm.
const CALLS: &[&str] = &[
    "RL.TOKENBUCKET token 10 1/m",
    "RL.LEAKYBUCKET leaky 10 1/m",
    "RL.FIXEDWINDOW fixed 10 1m",
    "RL.FIXEDWINDOW aligned 10 1d ALIGN 0",
    "RL.SLIDING sliding 10 1m",
    "RL.SLIDINGLOG log 10 1m",
    "RL.THROTTLE throttle 9 1 60",
    "CL.THROTTLE cell 9 1 60",
];

fn key(call: &str) -> &str {
    call.split(' ').nth(1).unwrap()
}

/// Lets the server hold as much as it already does and no more, or whatever it likes.
fn fill(connection: &mut Connection, is_full: bool) {
    send::<()>(connection, &format!("CONFIG SET maxmemory {}", u8::from(is_full)));
}

/// Sends a line that is answered with an error, at a moment.
fn error_at(connection: &mut Connection, micros: u64, line: &str) -> String {
    let line = format!("{line} AT {}", T0 + micros);
    let words: Vec<_> = line.split(' ').map(str::as_bytes).collect();
    error(connection, &words)
}

/// All that a refused command must leave alone: every key, and what replicas are sent.
fn standing(connection: &mut Connection) -> (String, i64, String) {
    let digests: String = send(connection, "DEBUG DIGEST");
    let replication = info(connection, "replication").unwrap();
    let offset = field(&replication, "master_repl_offset").unwrap();
    (digests, send(connection, "DBSIZE"), offset)
}

/// A primary with a replica, so that there is an offset to see.
fn pair() -> (Server, Server) {
    let primary = Server::builder().virtual_clock().start().unwrap();
    let replica = Server::builder().virtual_clock().replica_of(&primary).start().unwrap();
    replica.wait_for_sync(&primary).unwrap();
    (primary, replica)
}

fn assert_same_keys(primary: &Server, replica: &Server) {
    replica.wait_for_sync(primary).unwrap();
    let (mut ours, mut theirs) = (replica.connection().unwrap(), primary.connection().unwrap());
    let keys: Vec<String> = send(&mut theirs, "KEYS *");
    assert_eq!(send::<usize>(&mut ours, "DBSIZE"), keys.len());
    for key in keys {
        assert_eq!(digest(&mut ours, &key), digest(&mut theirs, &key), "{key}");
    }
}

#[test]
fn limiters_that_are_there_go_on_deciding() {
    let (primary, replica) = pair();
    let mut connection = primary.connection().unwrap();
    for call in CALLS {
        at(&mut connection, 0, call);
    }
    // What redis-cell left is there, too: half of ten units are used.
    let arrival = T0 * 1_000 + 300_000_000_000;
    send::<()>(&mut connection, &format!("SET old {arrival} PX 100000000"));
    fill(&mut connection, true);
    let refused = error(&mut connection, &[b"SET", b"text", b"1"]);
    assert!(refused.starts_with("OOM "), "the server is full: {refused}");
    for call in CALLS {
        let remaining: Vec<i64> = (0..10).map(|_| at(&mut connection, 0, call)[2]).collect();
        assert_eq!(remaining, [8, 7, 6, 5, 4, 3, 2, 1, 0, 0], "{call}");
        let key = key(call);
        assert_eq!(at(&mut connection, 0, &format!("RL.PEEK {key}"))[2], 0);
        assert_eq!(at(&mut connection, 0, &format!("RL.REFUND {key} 2"))[2], 2);
        assert_eq!(at(&mut connection, 0, call)[2], 1, "{call}");
    }
    assert_eq!(at(&mut connection, 0, "RL.THROTTLE old 9 1 60")[..3], [0, 10, 4]);
    let both = "RL.MULTI 2 token sliding TOKENBUCKET 10 1/m SLIDING 10 1m";
    let reply: Vec<redis::Value> = send(&mut connection, &format!("{both} AT {T0}"));
    assert_eq!(reply[0], redis::Value::Int(1));
    assert_same_keys(&primary, &replica);
    assert_eq!(send::<i64>(&mut connection, "RL.RESET token fixed log"), 3);
    assert_same_keys(&primary, &replica);
}

#[test]
fn a_key_that_would_be_created_is_refused_and_nothing_changes() {
    let (primary, _replica) = pair();
    let mut connection = primary.connection().unwrap();
    send::<()>(&mut connection, "SET text hello");
    fill(&mut connection, true);
    let before = standing(&mut connection);
    for call in CALLS {
        assert_eq!(error_at(&mut connection, 0, call), OOM, "{call}");
    }
    let partial = "RL.TOKENBUCKET token 10 1/m COST 20 PARTIAL";
    assert_eq!(error_at(&mut connection, 0, partial), OOM);
    assert_eq!(error_at(&mut connection, 0, "RL.SLIDING log 1 1m COST 5 FORCE"), OOM);
    assert_eq!(standing(&mut connection), before);

    // What needs no memory is answered as ever, what is wrong is told first.
    assert_eq!(at(&mut connection, 0, "RL.TOKENBUCKET token 10 1/m COST 0")[..3], [1, 10, 10]);
    assert_eq!(at(&mut connection, 0, "RL.TOKENBUCKET token 10 1/m COST 11")[..4], [0, 10, 10, -1]);
    assert_eq!(at(&mut connection, 0, "RL.SLIDING sliding 0 1m")[..4], [0, 0, 0, -1]);
    assert!(error_at(&mut connection, 0, "RL.SLIDING text 1 1m").starts_with("WRONGTYPE "));
    assert!(error_at(&mut connection, 0, "RL.SLIDING token x 1m").starts_with("ERR limit "));
    let peek: Option<Vec<i64>> = send(&mut connection, "RL.PEEK token");
    let refund: Option<Vec<i64>> = send(&mut connection, "RL.REFUND token 1");
    assert_eq!((peek, refund), (None, None));
    assert_eq!(send::<i64>(&mut connection, "RL.RESET token"), 0);
    assert_eq!(standing(&mut connection), before);

    fill(&mut connection, false);
    for call in CALLS {
        assert_eq!(at(&mut connection, 0, call)[2], 9, "{call} with memory again");
    }
}

#[test]
fn a_list_that_must_be_allocated_anew_is_refused_and_nothing_changes() {
    for call in ["RL.SLIDING k 1000 1h BUCKETS 100", "RL.SLIDINGLOG k 1000 1h"] {
        let (primary, replica) = pair();
        let mut connection = primary.connection().unwrap();
        let second = 1_000_000;
        for number in 0..20 {
            at(&mut connection, number * 40 * second, call);
        }
        fill(&mut connection, true);
        let bytes = |connection: &mut Connection| send::<i64>(connection, "MEMORY USAGE k");
        let held = bytes(&mut connection);
        // There may be room for some entries more.
        let mut now = 800 * second;
        let mut refused = None;
        for _ in 0..20 {
            let before = (standing(&mut connection), digest(&mut connection, "k"));
            let line = format!("{call} AT {}", T0 + now);
            let words: Vec<_> = line.split(' ').map(str::as_bytes).collect();
            if let Err(error) = crate::client::try_send::<Vec<i64>>(&mut connection, &words) {
                assert_eq!(crate::client::text(&error), OOM);
                assert_eq!((standing(&mut connection), digest(&mut connection, "k")), before);
                refused = Some(before);
                break;
            }
            assert_eq!(bytes(&mut connection), held, "{call} takes no memory");
            now += 40 * second;
        }
        let before = refused.expect("its room is used up within 20 entries");

        // All but growing goes on: what joins an entry that is there, what is denied, what is given back.
        assert_eq!(at(&mut connection, now, &format!("{call} COST 2000"))[..1], [0]);
        let multi = "RL.MULTI 2 other k";
        let limits = call.split_once(" k ").map(|(name, limits)| (&name[3..], limits)).unwrap();
        fill(&mut connection, false);
        at(&mut connection, now, "RL.TOKENBUCKET other 10 1/h");
        fill(&mut connection, true);
        let other = digest(&mut connection, "other");
        let line = format!("{multi} TOKENBUCKET 10 1/h {} {}", limits.0, limits.1);
        assert_eq!(error_at(&mut connection, now, &line), OOM, "all or nothing");
        assert_eq!(digest(&mut connection, "other"), other);
        assert_eq!(digest(&mut connection, "k"), before.1);
        let last = now - 40 * second;
        assert_eq!(at(&mut connection, last, call)[0], 1, "a hit that joins the newest entry");
        assert_eq!(at(&mut connection, last, "RL.REFUND k 1")[0], 1);
        assert_eq!(digest(&mut connection, "k"), before.1);
        // When the oldest entry has left, there is room for another.
        assert_eq!(at(&mut connection, 3_600 * second, call)[0], 1);
        fill(&mut connection, false);
        assert_eq!(at(&mut connection, 3_601 * second, call)[0], 1);
        assert_same_keys(&primary, &replica);
    }
}

#[test]
fn leases_go_on_being_renewed_and_given_back_and_none_is_added_that_needs_memory() {
    let (primary, replica) = pair();
    let mut connection = primary.connection().unwrap();
    let bytes = |connection: &mut Connection| send::<i64>(connection, "MEMORY USAGE k");
    let acquire = |number: u64| format!("RL.ACQUIRE k 100 1m id:{number}");
    for number in 0..20 {
        at(&mut connection, 0, &acquire(number));
    }
    fill(&mut connection, true);
    let held = bytes(&mut connection);
    // There may be room for some more.
    let mut number = 20;
    let before = loop {
        let before = (standing(&mut connection), digest(&mut connection, "k"));
        let reply = answer(&mut connection, 1, &acquire(number));
        if reply == OOM {
            assert_eq!((standing(&mut connection), digest(&mut connection, "k")), before);
            break before;
        }
        assert!(reply.starts_with("1 100 "), "{reply}");
        assert_eq!(bytes(&mut connection), held, "it takes no memory");
        number += 1;
        assert!(number < 60, "its room is used up soon");
    };
    // A key that would be created, and an id that is longer than there is room for.
    for line in ["RL.ACQUIRE new 9 1m a", "RL.ACQUIRE k 100 1m an-id-of-more-than-sixteen-bytes"] {
        assert_eq!(error_at(&mut connection, 1, line), OOM, "{line}");
    }
    let multi = "RL.MULTI 2 new k CONCURRENCY 9 1m a CONCURRENCY 100 1m id:1";
    assert_eq!(error_at(&mut connection, 1, multi), OOM);
    assert_eq!((standing(&mut connection), digest(&mut connection, "k")), before);
    // All else goes on: who holds one may change it, what is denied is denied, and what is given back makes room.
    let denied = "0 9 0 60000 60000";
    for (line, expected) in [
        ("RL.ACQUIRE k 9 1m new", denied),
        ("RL.ACQUIRE new 0 1m a", "0 0 0 -1 0"),
        ("RL.RENEW k 2m id:1 id:2 nobody", "2"),
        ("RL.RELEASE missing a", "0"),
        ("RL.RELEASE k id:1 id:2", "2"),
    ] {
        assert_eq!(answer(&mut connection, 1, line), expected, "{line}");
    }
    assert_eq!(at(&mut connection, 1, "RL.ACQUIRE k 1000 1m id:3 COST 9")[0], 1);
    assert_eq!(at(&mut connection, 1, "RL.ACQUIRE k 1000 1m id:1")[0], 1, "in the room of another");
    assert_same_keys(&primary, &replica);
    // What has run out makes room, too.
    assert_eq!(at(&mut connection, 60_000_001, &acquire(1))[0], 1);
    assert!(bytes(&mut connection) < held, "and memory is given back");
    assert_eq!(answer(&mut connection, 60_000_002, "RL.RELEASE k id:1"), "1");
    assert_same_keys(&primary, &replica);
    fill(&mut connection, false);
    assert_eq!(at(&mut connection, 1, "RL.ACQUIRE new 9 1m a")[0], 1);
}

#[test]
fn several_limits_of_which_one_needs_memory_take_from_none() {
    let (primary, replica) = pair();
    let mut connection = primary.connection().unwrap();
    at(&mut connection, 0, "RL.TOKENBUCKET a 10 1/m");
    at(&mut connection, 0, "RL.SLIDING b 10 1m");
    fill(&mut connection, true);
    let before = standing(&mut connection);
    for line in [
        "RL.MULTI 3 a b new TOKENBUCKET 10 1/m SLIDING 10 1m FIXEDWINDOW 10 1m",
        "RL.MULTI 3 new a b FIXEDWINDOW 10 1m TOKENBUCKET 10 1/m SLIDING 10 1m",
        "RL.MULTI 3 a b new TOKENBUCKET 10 1/m SLIDING 10 1m FIXEDWINDOW 10 1m COST 99 FORCE",
    ] {
        assert_eq!(error_at(&mut connection, 0, line), OOM, "{line}");
        assert_eq!(standing(&mut connection), before, "{line}");
    }
    // Refused by a limit, nothing would have been created.
    let refused = "RL.MULTI 3 new a b FIXEDWINDOW 10 1m TOKENBUCKET 10 1/m COST 99 SLIDING 10 1m";
    let reply: Vec<redis::Value> = send(&mut connection, &format!("{refused} AT {T0}"));
    assert_eq!((&reply[0], &reply[2]), (&redis::Value::Int(0), &redis::Value::Int(1)));
    assert_eq!(standing(&mut connection), before);
    assert_same_keys(&primary, &replica);
}

#[test]
fn replicas_and_append_only_files_are_followed_whatever_memory_there_is() {
    let mut primary = Server::builder().virtual_clock().setting("appendonly yes").start().unwrap();
    // A replica that heeds its own `maxmemory`, unlike most.
    let replica = Server::builder()
        .virtual_clock()
        .replica_of(&primary)
        .setting("replica-ignore-maxmemory no")
        .setting("maxmemory 1")
        .start()
        .unwrap();
    replica.wait_for_sync(&primary).unwrap();
    let mut connection = primary.connection().unwrap();
    for number in 0..100 {
        for call in CALLS {
            at(&mut connection, number * 1_000_000, call);
        }
    }
    let several = "RL.MULTI 2 c d FIXEDWINDOW 10 1m SLIDING 10 1m";
    send::<redis::Value>(&mut connection, &format!("{several} AT {T0}"));
    at(&mut connection, 100_000_000, "RL.REFUND token 1");
    // Leases, and what is settled into a list that grows.
    for number in 0..100 {
        at(&mut connection, number, &format!("RL.ACQUIRE slots 1000 1h a-rather-long-id-{number}"));
        answer(&mut connection, number, "RL.SETTLE 2 d c 0 1");
    }
    answer(&mut connection, 100, "RL.RENEW slots 2h a-rather-long-id-7 a-rather-long-id-8");
    answer(&mut connection, 100, "RL.RELEASE slots a-rather-long-id-1 a-rather-long-id-8");
    assert_same_keys(&primary, &replica);

    let keys = CALLS.iter().map(|call| key(call)).chain(["c", "d", "slots"]);
    let digests = |connection: &mut Connection| -> Vec<String> {
        keys.clone().map(|key| digest(connection, key)).collect()
    };
    let before = digests(&mut connection);
    send::<()>(&mut connection, "CONFIG SET maxmemory 1");
    send::<()>(&mut connection, "CONFIG REWRITE");
    primary.kill();
    primary.start_again().unwrap();
    assert_eq!(digests(&mut primary.connection().unwrap()), before);
}

#[test]
fn limiters_are_evicted_like_any_key_and_the_server_goes_on_deciding() {
    for policy in ["allkeys-lru", "volatile-ttl", "volatile-lru", "allkeys-lfu", "volatile-random"]
    {
        let server =
            Server::builder().setting(format!("maxmemory-policy {policy}")).start().unwrap();
        let mut connection = server.connection().unwrap();
        let used = field(&info(&mut connection, "memory").unwrap(), "used_memory").unwrap();
        let most = used.parse::<u64>().unwrap() + (2 << 20);
        send::<()>(&mut connection, &format!("CONFIG SET maxmemory {most}"));
        let count = 30_000;
        let mut pipeline = redis::pipe();
        for number in 0..count {
            let call: &[&str] = [
                &["RL.TOKENBUCKET", "5", "5/h"][..],
                &["RL.SLIDING", "5", "1h"],
                &["RL.ACQUIRE", "5", "1h", "id"],
            ][number % 3];
            pipeline.cmd(call[0]).arg(format!("key:{number}")).arg(&call[1..]);
        }
        // No reply is an error.
        let replies: Vec<Vec<i64>> = pipeline.query(&mut connection).unwrap();
        assert!(replies.iter().all(|reply| reply[0] == 1), "{policy}");
        wait_for("keys to be evicted", || {
            let stats = info(&mut connection, "stats")?;
            Ok(field(&stats, "evicted_keys").unwrap().parse::<usize>()? > count / 10)
        })
        .unwrap();
        let kept: usize = send(&mut connection, "DBSIZE");
        assert!(kept < count && kept > 100, "{policy} keeps {kept}");
        let reply: Vec<i64> = send(&mut connection, "RL.SLIDING another 5 1m");
        assert_eq!(reply[..3], [1, 5, 4], "{policy}");
    }
}
