//! RL.TOP: who is denied most often lately, as this server saw it; and the events that say so as it happens.

use std::time::Duration;

use redis::{Connection, Value};

use crate::client::{T0, answer, check_answers, error, send, send_all, try_send};
use crate::replication::{connect, wait_for_link};
use crate::server::{Server, field, info};

fn server() -> (Server, Connection) {
    let server = Server::builder().virtual_clock().start().unwrap();
    let connection = server.connection().unwrap();
    (server, connection)
}

/// Has a key denied so many times, at a moment.
fn deny(connection: &mut Connection, micros: u64, key: &str, times: usize) {
    let line = format!("RL.SLIDING {key} 0 1m AT {}", T0 + micros);
    send_all(connection, std::iter::repeat_n(line, times));
}

#[test]
fn the_keys_denied_most_often_come_first_and_equals_by_name() {
    let (_server, mut connection) = server();
    assert_eq!(answer(&mut connection, 0, "RL.TOP"), "");
    for (key, times) in [("b", 3), ("a", 3), ("c", 5), ("d", 1)] {
        deny(&mut connection, 0, key, times);
    }
    check_answers(
        &mut connection,
        &[
            (0, "RL.TOP", "[0 c 5] [0 a 3] [0 b 3] [0 d 1]"),
            (0, "RL.TOP COUNT 2", "[0 c 5] [0 a 3]"),
            (0, "rl.top count 1000", "[0 c 5] [0 a 3] [0 b 3] [0 d 1]"),
            // Halved each minute.
            (60_000_000, "RL.TOP", "[0 c 2] [0 a 1] [0 b 1]"),
            (120_000_000, "RL.TOP", "[0 c 1]"),
            (180_000_000, "RL.TOP", ""),
        ],
    );
    for number in 0..20 {
        deny(&mut connection, 0, &format!("many:{number}"), 1);
    }
    let rows: Vec<Value> = send(&mut connection, "RL.TOP");
    assert_eq!(rows.len(), 10, "unless the call says another number");
    assert_eq!(send::<String>(&mut connection, "RL.TOP RESET"), "OK");
    assert_eq!(answer(&mut connection, 0, "RL.TOP"), "");
}

#[test]
fn every_command_that_decides_counts_its_denials_and_nothing_else() {
    let (_server, mut connection) = server();
    for line in [
        "RL.TOKENBUCKET token 0 1",
        "RL.LEAKYBUCKET leaky 0 1",
        "RL.FIXEDWINDOW fixed 0 1m",
        "RL.SLIDING slide 0 1m",
        "RL.SLIDINGLOG log 0 1m",
        "RL.ACQUIRE slots 0 1m id",
        "CL.THROTTLE cell 0 1 1 2",
        // No denials: grants, looks, refunds, and what asks for nothing.
        "RL.SLIDING granted 5 1m",
        "RL.SLIDING granted 0 1m COST 0",
        "RL.SLIDING granted 0 1m FORCE",
        "RL.PEEK granted COST 9",
        "RL.REFUND granted 9",
        "RL.SLIDING granted x 1m",
        // Each limit that refuses, and not the one that another's refusal stops.
        "RL.MULTI 3 {m}a {m}b {m}c SLIDING 0 1m SLIDING 9 1m SLIDING 0 1m",
        "RL.MULTI 2 {m}d {m}e SLIDING 9 1m SLIDING 9 1m",
    ] {
        answer(&mut connection, 0, line);
    }
    let script = format!("return redis.call('RL.SLIDING', KEYS[1], 0, '1m', 'AT', {T0})");
    let words: [&[u8]; 4] = [b"EVAL", script.as_bytes(), b"1", b"script"];
    try_send::<Value>(&mut connection, &words).unwrap();
    let expected =
        ["cell", "fixed", "leaky", "log", "script", "slide", "slots", "token", "{m}a", "{m}c"]
            .map(|key| format!("[0 {key} 1]"));
    assert_eq!(answer(&mut connection, 0, "RL.TOP COUNT 100"), expected.join(" "));
}

#[test]
fn what_a_block_denies_counts_as_well() {
    let (_server, mut connection) = server();
    answer(&mut connection, 0, "RL.SLIDING k 1 1m");
    for _ in 0..5 {
        answer(&mut connection, 0, "RL.SLIDING k 1 1m BLOCK 1h");
    }
    assert_eq!(answer(&mut connection, 0, "RL.TOP"), "[0 k 5]");
}

#[test]
fn a_flood_of_new_keys_pushes_out_none_of_the_first_ten() {
    let (_server, mut connection) = server();
    let mut lines = Vec::new();
    // One of a hundred denials is of each of the ten, and they come more often the lower their number is.
    for number in 0..30_000_u64 {
        lines.push(format!("RL.SLIDING flood:{number} 0 1m AT {T0}"));
        if number % 10 == 0 {
            let known = number / 10 % 55;
            // 10 times of 55 the first, 9 times the second, and so on.
            let (mut first, mut left) = (10, known);
            while left >= first {
                left -= first;
                first -= 1;
            }
            lines.push(format!("RL.SLIDING known:{} 0 1m AT {T0}", 10 - first));
        }
    }
    send_all(&mut connection, lines);
    let rows: Vec<(u64, String, u64)> = send(&mut connection, &format!("RL.TOP COUNT 4 AT {T0}"));
    let names: Vec<_> = rows.iter().map(|row| row.1.as_str()).collect();
    // Those four have more than a 128th of all 33,000 denials, and differ by more than their counts may be too high.
    assert_eq!(names, ["known:0", "known:1", "known:2", "known:3"]);
    for (place, (db, _, denials)) in rows.iter().enumerate() {
        let exact = (10 - place as u64) * 3_000 / 55;
        let most = exact + 10 + 33_000 / 128;
        assert!(*db == 0 && (exact..=most).contains(denials), "{rows:?}");
    }
}

#[test]
fn the_first_ten_of_a_flood_by_zipf_s_law_are_the_true_ones() {
    let (_server, mut connection) = server();
    // Key n is denied 20,000/n times, in a random order: 30 times as many keys as can be told apart.
    let mut calls: Vec<_> = (1..=4_000).flat_map(|key| vec![key; 20_000 / key]).collect();
    let mut seed = 1_u64;
    for place in (1..calls.len()).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        calls.swap(place, (seed >> 33) as usize % (place + 1));
    }
    let share = calls.len() / 128;
    send_all(&mut connection, calls.iter().map(|key| format!("RL.SLIDING {key} 0 1m AT {T0}")));
    let rows: Vec<(u64, usize, usize)> = send(&mut connection, &format!("RL.TOP AT {T0}"));
    let keys: Vec<_> = rows.iter().map(|row| row.1).collect();
    assert_eq!(keys, (1..=10).collect::<Vec<_>>(), "{rows:?}");
    for (_, key, denials) in rows {
        let exact = 20_000 / key;
        assert!((exact..=exact + share).contains(&denials), "{key}: {denials}");
    }
}

#[test]
fn it_works_in_scripts_and_transactions() {
    let (_server, mut connection) = server();
    deny(&mut connection, 0, "k", 2);
    let list = b"return redis.call('RL.TOP', 'COUNT', 1)";
    for eval in [&b"EVAL"[..], b"EVAL_RO"] {
        let rows: Vec<(u64, String, u64)> = try_send(&mut connection, &[eval, list, b"0"]).unwrap();
        assert_eq!(rows, [(0, "k".to_owned(), 2)]);
    }
    let (rows, reset): (Vec<(u64, String, u64)>, String) = redis::pipe()
        .atomic()
        .cmd("RL.SLIDING")
        .arg(&["k", "0", "1m", "AT", &T0.to_string()])
        .ignore()
        .cmd("RL.TOP")
        .cmd("RL.TOP")
        .arg("RESET")
        .query(&mut connection)
        .unwrap();
    assert_eq!((rows, reset.as_str()), (vec![(0, "k".to_owned(), 3)], "OK"));
}

#[test]
fn a_server_without_memory_counts_denials() {
    let (_server, mut connection) = server();
    deny(&mut connection, 0, "k", 1);
    send::<()>(&mut connection, "RL.TOP RESET");
    send::<()>(&mut connection, "CONFIG SET maxmemory 1");
    deny(&mut connection, 0, "k", 2);
    assert_eq!(answer(&mut connection, 0, "RL.TOP"), "[0 k 2]");
}

#[test]
fn names_may_be_any_bytes() {
    let (_server, mut connection) = server();
    let at = T0.to_string();
    for name in [&b""[..], b"\xff\0\r\n"] {
        let words = [b"RL.SLIDING", name, b"0", b"1m", b"AT", at.as_bytes()];
        try_send::<Vec<i64>>(&mut connection, &words).unwrap();
    }
    assert_eq!(answer(&mut connection, 0, "RL.TOP"), "[0  1] [0 \\xff\\x00\\r\\n 1]");
}

#[test]
fn databases_are_told_apart_swapped_and_forgotten() {
    let (_server, mut connection) = server();
    deny(&mut connection, 0, "k", 3);
    send::<()>(&mut connection, "SELECT 1");
    deny(&mut connection, 0, "k", 2);
    assert_eq!(answer(&mut connection, 0, "RL.TOP"), "[0 k 3] [1 k 2]");
    send::<()>(&mut connection, "SWAPDB 0 1");
    assert_eq!(answer(&mut connection, 0, "RL.TOP"), "[1 k 3] [0 k 2]");
    deny(&mut connection, 0, "k", 1);
    assert_eq!(answer(&mut connection, 0, "RL.TOP"), "[1 k 4] [0 k 2]");
    send::<()>(&mut connection, "FLUSHDB");
    assert_eq!(answer(&mut connection, 0, "RL.TOP"), "[0 k 2]");
    send::<()>(&mut connection, "FLUSHALL");
    assert_eq!(answer(&mut connection, 0, "RL.TOP"), "");
}

#[test]
fn the_setting_says_how_many_keys_are_told_apart_and_a_change_forgets_them() {
    let (server, mut connection) = server();
    deny(&mut connection, 0, "k", 3);
    send::<()>(&mut connection, "CONFIG SET rl.top-entries 128");
    assert_eq!(answer(&mut connection, 0, "RL.TOP"), "[0 k 3]", "it is the same");
    send::<()>(&mut connection, "CONFIG SET rl.top-entries 2");
    assert_eq!(answer(&mut connection, 0, "RL.TOP"), "");
    for (key, times) in [("a", 3), ("b", 2), ("c", 1)] {
        deny(&mut connection, 0, key, times);
    }
    assert_eq!(answer(&mut connection, 0, "RL.TOP"), "[0 a 3] [0 c 3]");
    send::<()>(&mut connection, "CONFIG SET rl.top-entries 0");
    deny(&mut connection, 0, "k", 3);
    assert_eq!(answer(&mut connection, 0, "RL.TOP"), "");
    send::<()>(&mut connection, "CONFIG SET rl.top-entries 2");
    deny(&mut connection, 0, "k", 3);
    let refused: [&[u8]; 6] =
        [b"CONFIG", b"SET", b"rl.top-entries", b"9", b"maxmemory-policy", b"none"];
    assert!(try_send::<()>(&mut connection, &refused).is_err());
    assert_eq!(answer(&mut connection, 0, "RL.TOP"), "[0 k 3]", "nothing was changed");
    for wrong in ["-1", "10001", "many"] {
        let words: [&[u8]; 4] = [b"CONFIG", b"SET", b"rl.top-entries", wrong.as_bytes()];
        assert!(try_send::<()>(&mut connection, &words).is_err(), "{wrong}");
    }
    // A name that is too long to be kept is not counted.
    send::<()>(&mut connection, "CONFIG SET rl.top-entries 10000");
    let long = "x".repeat(257);
    deny(&mut connection, 0, &long, 3);
    deny(&mut connection, 0, &long[1..], 1);
    let rows: Vec<(u64, String, u64)> = send(&mut connection, &format!("RL.TOP AT {T0}"));
    assert_eq!(rows, [(0, long[1..].to_owned(), 1)]);

    // Its memory is the server's, bounded, and given back.
    let used = || -> i64 {
        let memory = info(&mut connect(&server), "memory").unwrap();
        field(&memory, "used_memory").unwrap().parse().unwrap()
    };
    send::<()>(&mut connection, "CONFIG SET rl.top-entries 0");
    let before = used();
    send::<()>(&mut connection, "CONFIG SET rl.top-entries 10000");
    for number in 0..15_000 {
        deny(&mut connection, 0, &format!("{number:0256}"), 1);
    }
    let taken = used() - before;
    assert!((10_000 * 256..10_000 * 500).contains(&taken), "{taken} bytes");
    send::<()>(&mut connection, "CONFIG SET rl.top-entries 0");
    let left = used() - before;
    assert!(left < 200_000, "{left} bytes are left");
}

#[test]
fn bad_input_is_an_error() {
    let server = Server::start().unwrap();
    let mut connection = server.connection().unwrap();
    for (line, expected) in [
        ("RL.TOP COUNT 0", "ERR COUNT must be an integer from 1 to 1000"),
        ("RL.TOP COUNT 1001", "ERR COUNT must be an integer from 1 to 1000"),
        ("RL.TOP COUNT x", "ERR COUNT must be an integer from 1 to 1000"),
        ("RL.TOP COUNT", "ERR COUNT must be followed by a value"),
        ("RL.TOP COUNT 1 COUNT 1", "ERR COUNT must be given only once"),
        ("RL.TOP what", "ERR unknown option; expected one of COUNT, AT, or RESET"),
        ("RL.TOP COUNT 1 RESET", "ERR unknown option; expected one of COUNT, AT, or RESET"),
        ("RL.TOP RESET now", "ERR RESET must be the only argument"),
        ("RL.TOP AT 1", "ERR AT is for tests only"),
    ] {
        let words: Vec<_> = line.split(' ').map(str::as_bytes).collect();
        let found = error(&mut connection, &words);
        assert!(found.starts_with(expected), "{line}: {found}");
    }
}

#[test]
fn it_is_the_deciding_server_s_own_view() {
    let primary = Server::builder().virtual_clock().start().unwrap();
    let replica = Server::builder().virtual_clock().replica_of(&primary).start().unwrap();
    wait_for_link(&replica);
    let mut connection = connect(&primary);
    answer(&mut connection, 0, "RL.SLIDING k 1 1m");
    answer(&mut connection, 0, "RL.SLIDING k 1 1m BLOCK 1h AFTER 2");
    answer(&mut connection, 0, "RL.SLIDING k 1 1m BLOCK 1h AFTER 2");
    replica.wait_for_sync(&primary).unwrap();
    assert_eq!(answer(&mut connection, 0, "RL.TOP"), "[0 k 2]");
    assert_eq!(answer(&mut connect(&replica), 0, "RL.TOP"), "", "though it applied two effects");
    send::<()>(&mut connection, "DEBUG RELOAD");
    let offset = |server: &Server| {
        let replication = info(&mut connect(server), "replication").unwrap();
        field(&replication, "master_repl_offset").unwrap()
    };
    let before = offset(&primary);
    send::<String>(&mut connection, "RL.TOP RESET");
    assert_eq!(offset(&primary), before, "it is not sent to anybody");
}

#[test]
fn a_user_who_is_no_administrator_may_not_see_the_names() {
    let server = Server::start().unwrap();
    let mut admin = server.connection().unwrap();
    let version = info(&mut admin, "server").unwrap();
    let has_categories = !field(&version, "redis_version").unwrap().starts_with("7.0.");
    for (rules, may) in [
        ("~* +@all", true),
        ("+rl.top", true),
        ("~* -@all", false),
        ("~* +@all -@admin", false),
        ("~* +@all -@dangerous", false),
        ("~* +@read +@write", false),
    ] {
        // Redis 7.0 puts no command of a module into a category.
        if !has_categories && rules.contains("+@all -") {
            continue;
        }
        send::<()>(&mut admin, &format!("ACL SETUSER user reset on nopass {rules}"));
        let mut connection = server.connection().unwrap();
        send::<()>(&mut connection, "AUTH user any");
        for line in ["RL.TOP", "RL.TOP RESET"] {
            let words: Vec<_> = line.split(' ').map(str::as_bytes).collect();
            let reply = try_send::<Value>(&mut connection, &words);
            let refused =
                reply.is_err_and(|error| crate::client::text(&error).starts_with("NOPERM "));
            assert_eq!(refused, !may, "{rules}: {line}");
        }
    }
}

/// What a subscriber is sent until the server publishes `end` to it.
fn events(server: &Server, something: impl FnOnce(&mut Connection)) -> Vec<String> {
    let mut subscriber = server.connection().unwrap();
    subscriber.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut subscriber = subscriber.as_pubsub();
    subscriber.psubscribe("__key*__:*").unwrap();
    subscriber.subscribe("end").unwrap();
    let mut connection = server.connection().unwrap();
    something(&mut connection);
    send::<()>(&mut connection, "PUBLISH end now");
    let mut events = Vec::new();
    loop {
        let message = subscriber.get_message().unwrap();
        let (channel, text): (String, String) =
            (message.get_channel_name().into(), message.get_payload().unwrap());
        if channel == "end" {
            return events;
        }
        events.push(format!("{channel} {text}"));
    }
}

/// Denies in each way: what is to be published of it.
fn deny_in_each_way(connection: &mut Connection) {
    for line in [
        "RL.SLIDING k 1 1m",
        "RL.SLIDING k 1 1m BLOCK 1h AFTER 2",
        "RL.SLIDING k 1 1m COST 0",
        "RL.PEEK k",
        "RL.SLIDING k 1 1m BLOCK 1h AFTER 2",
        "RL.SLIDING k 1 1m",
        "RL.MULTI 3 {m}a {m}b {m}c SLIDING 0 1m SLIDING 9 1m SLIDING 0 1m",
        "CL.THROTTLE cell 0 1 1 2",
        "RL.ACQUIRE slots 0 1m id",
    ] {
        answer(connection, 0, line);
    }
    send::<()>(connection, "SELECT 3");
    answer(connection, 0, "RL.SLIDING other 0 1m");
}

#[test]
fn denials_and_blocks_are_published_to_those_who_subscribe_and_replicas_publish_none() {
    let primary =
        Server::builder().virtual_clock().setting("notify-keyspace-events Ed").start().unwrap();
    let replica = Server::builder()
        .virtual_clock()
        .setting("notify-keyspace-events KEd")
        .replica_of(&primary)
        .start()
        .unwrap();
    wait_for_link(&replica);
    let on_replica = events(&replica, |_| {
        let found = events(&primary, deny_in_each_way);
        let expected = [
            ("rl.denied", "k", 0),
            ("rl.denied", "k", 0),
            ("rl.blocked", "k", 0),
            ("rl.denied", "k", 0),
            ("rl.denied", "{m}a", 0),
            ("rl.denied", "{m}c", 0),
            ("rl.denied", "cell", 0),
            ("rl.denied", "slots", 0),
            ("rl.denied", "other", 3),
        ]
        .map(|(event, key, db)| format!("__keyevent@{db}__:{event} {key}"));
        assert_eq!(found, expected);
        replica.wait_for_sync(&primary).unwrap();
    });
    assert_eq!(on_replica, [""; 0]);
}

#[test]
fn nothing_is_published_unless_the_setting_asks_for_it() {
    for (setting, count) in [("\"\"", 0), ("KEg", 0), ("Kd", 9), ("KEd", 18)] {
        let server = Server::builder()
            .virtual_clock()
            .setting(format!("notify-keyspace-events {setting}"))
            .start()
            .unwrap();
        assert_eq!(events(&server, deny_in_each_way).len(), count, "{setting}");
    }
}

#[test]
fn events_are_of_the_database_that_a_script_chose() {
    let server = Server::builder().setting("notify-keyspace-events Ed").start().unwrap();
    let found = events(&server, |connection| {
        let script = b"redis.call('SELECT', 2) return redis.call('RL.SLIDING', KEYS[1], 0, '1m')";
        try_send::<Vec<i64>>(connection, &[b"EVAL", script, b"1", b"k"]).unwrap();
    });
    assert_eq!(found, ["__keyevent@2__:rl.denied k"]);
}

#[test]
fn a_client_that_subscribed_itself_reads_its_replies_whole() {
    let server = Server::builder().setting("notify-keyspace-events Ed").start().unwrap();
    let url = format!("redis://127.0.0.1:{}/?protocol=resp3", server.port());
    let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let (sender, events) = std::sync::mpsc::channel();
    connection.set_push_sender(sender);
    connection.psubscribe_resp3("__keyevent@*__:rl.*").unwrap();
    let reply: Vec<i64> = send(&mut connection, "RL.SLIDING k 0 1m");
    assert_eq!(reply, [0, 0, 0, -1, 0]);
    let reply: Vec<Value> = send(&mut connection, "RL.MULTI 2 a b SLIDING 0 1m SLIDING 0 1m");
    assert_eq!(reply.len(), 5);
    send::<String>(&mut connection, "PING");
    let events = events.try_iter().filter(|push| push.kind == redis::PushKind::PMessage);
    assert_eq!(events.count(), 3);
}
