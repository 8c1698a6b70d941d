//! Who may do what: categories where the server has them for modules, patterns of keys for every command, and internal
//! commands for nobody but the servers themselves.

use redis::{Connection, Value};

use crate::client::{digest, error, send, try_send};
use crate::server::{Server, wait_for};

/// A call of every command of users that names one key, and of those that name several.
const CALLS: &[(&str, Kind)] = &[
    ("RL.TOKENBUCKET k 10 1/d", Kind::Decides),
    ("RL.LEAKYBUCKET k 10 1/d", Kind::Decides),
    ("RL.FIXEDWINDOW k 10 1d", Kind::Decides),
    ("RL.SLIDING k 10 1d", Kind::Decides),
    ("RL.SLIDINGLOG k 10 1d", Kind::Decides),
    ("RL.THROTTLE k 9 1 86400", Kind::Decides),
    ("CL.THROTTLE k 9 1 86400", Kind::Decides),
    ("RL.ACQUIRE k 10 1d id", Kind::Decides),
    ("RL.RENEW k 1d id", Kind::Decides),
    ("RL.RELEASE k id", Kind::Decides),
    ("RL.REFUND k 1", Kind::Decides),
    ("RL.MULTI 1 k SLIDING 10 1d", Kind::Several),
    ("RL.SETTLE 1 k 2 1", Kind::Several),
    ("RL.RESET k", Kind::Several),
    ("RL.PEEK k", Kind::Looks),
    ("RL.INFO k", Kind::Looks),
    ("RL.LEASES k", Kind::Looks),
];

/// Which shows names of keys, whatever patterns a user has.
const TOP: &str = "RL.TOP";

const INTERNAL: &[&str] = &["RL._ADD k effect", "RL._RESTORE k state"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// On one key, in constant time.
    Decides,
    /// On any number of keys.
    Several,
    /// Without changing anything.
    Looks,
}

fn name(call: &str) -> &str {
    call.split(' ').next().unwrap()
}

/// A connection as a user with these rules.
fn user(server: &Server, rules: &str) -> Connection {
    let mut connection = server.connection().unwrap();
    send::<()>(&mut connection, &format!("ACL SETUSER user reset on nopass {rules}"));
    send::<()>(&mut connection, "AUTH user any");
    connection
}

/// Whether a call is refused for lack of a permission; any other answer is none of this file's business.
fn is_denied(connection: &mut Connection, call: &str) -> bool {
    let words: Vec<_> = call.split(' ').map(str::as_bytes).collect();
    match try_send::<Value>(connection, &words) {
        Ok(_) => false,
        Err(error) => crate::client::text(&error).starts_with("NOPERM "),
    }
}

/// The commands in an ACL category; `None` where the server has no categories for commands of modules.
fn category(connection: &mut Connection, name: &str) -> Option<Vec<String>> {
    let version = crate::server::info(connection, "server").unwrap();
    let version = crate::server::field(&version, "redis_version").unwrap();
    // ACL CAT itself leaves modules out.
    let commands: Vec<String> = send(connection, &format!("COMMAND LIST FILTERBY ACLCAT {name}"));
    let commands = commands.into_iter().map(|name| name.to_lowercase());
    let ours = commands.filter(|name| name.contains("l.")).collect::<Vec<_>>();
    if version.starts_with("7.0.") {
        println!("skipped: Redis {version} has no categories for the commands of modules");
        assert_eq!(ours, [""; 0]);
        return None;
    }
    Some(ours)
}

#[test]
fn commands_are_in_the_categories_that_their_flags_say() {
    let server = Server::start().unwrap();
    let mut connection = server.connection().unwrap();
    let mut expect = |name: &str, is_in: fn(Kind) -> bool, internal: bool| {
        let Some(mut found) = category(&mut connection, name) else {
            return;
        };
        let users = CALLS.iter().filter(|(_, kind)| is_in(*kind)).map(|(call, _)| *call);
        let internal = INTERNAL.iter().chain([&TOP]).filter(|_| internal).copied();
        let mut expected: Vec<_> =
            users.chain(internal).map(|call| self::name(call).to_lowercase()).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "@{name}");
    };
    expect("write", |kind| kind != Kind::Looks, false);
    expect("read", |kind| kind == Kind::Looks, false);
    expect("fast", |kind| kind != Kind::Several, false);
    expect("slow", |kind| kind == Kind::Several, false);
    expect("admin", |_| false, true);
    expect("dangerous", |_| false, true);
}

#[test]
fn a_user_may_do_what_the_categories_say() {
    let server = Server::start().unwrap();
    let mut connection = server.connection().unwrap();
    if category(&mut connection, "write").is_none() {
        return;
    }
    type May = fn(Kind) -> bool;
    let rows: &[(&str, May, bool)] = &[
        ("~* +@write", |kind| kind != Kind::Looks, false),
        ("~* +@read", |kind| kind == Kind::Looks, false),
        ("~* +@fast", |kind| kind != Kind::Several, false),
        ("~* +@write +@read", |_| true, false),
        ("~* +@all -@slow", |kind| kind != Kind::Several, true),
        ("~* +@all -@dangerous", |_| true, false),
        ("~* +@all -@admin", |_| true, false),
        ("~* +@admin", |_| false, true),
        ("~* +@all", |_| true, true),
        ("~* +@write -rl.refund", |kind| kind != Kind::Looks, false),
        ("~* -@all", |_| false, false),
    ];
    for (rules, may, may_internal) in rows {
        let mut connection = user(&server, rules);
        for (call, kind) in CALLS {
            let allowed = may(*kind) && !(rules.contains("-rl.refund") && call.contains("REFUND"));
            assert_eq!(is_denied(&mut connection, call), !allowed, "{rules}: {call}");
        }
        for call in INTERNAL {
            assert_eq!(is_denied(&mut connection, call), !may_internal, "{rules}: {call}");
        }
    }
}

#[test]
fn a_user_may_be_given_single_commands_on_every_server() {
    let server = Server::start().unwrap();
    let mut connection = user(&server, "~* +rl.sliding +rl.peek");
    for (call, _) in CALLS {
        let allowed = ["RL.SLIDING", "RL.PEEK"].contains(&name(call));
        assert_eq!(is_denied(&mut connection, call), !allowed, "{call}");
    }
    for call in INTERNAL {
        assert!(is_denied(&mut connection, call), "{call}");
    }
}

#[test]
fn patterns_of_keys_hold_for_every_command() {
    let server = Server::start().unwrap();
    let mut connection = user(&server, "~mine:* +@all");
    let with = |call: &str, key: &str| call.replace(" k", &format!(" {key}"));
    for call in CALLS.iter().map(|(call, _)| call).chain(INTERNAL) {
        assert!(is_denied(&mut connection, &with(call, "theirs:1")), "{call}");
        assert!(is_denied(&mut connection, call), "{call}");
        assert!(!is_denied(&mut connection, &with(call, "mine:1")), "{call}");
    }
    // Of several keys each is to be the user's.
    for keys in ["theirs:1 mine:1 mine:2", "mine:1 theirs:1 mine:2", "mine:1 mine:2 theirs:1"] {
        let multi = format!("RL.MULTI 3 {keys} SLIDING 9 1d SLIDING 9 1d SLIDING 9 1d");
        assert!(is_denied(&mut connection, &multi), "{multi}");
        assert!(is_denied(&mut connection, &format!("RL.SETTLE 3 {keys} 2 1")), "{keys}");
        assert!(is_denied(&mut connection, &format!("RL.RESET {keys}")), "{keys}");
        let effects: Vec<_> = keys.split(' ').map(|key| format!("{key} effect")).collect();
        assert!(is_denied(&mut connection, &format!("RL._ADD {}", effects.join(" "))), "{keys}");
    }
    // The words after the keys are none, whatever they look like.
    let multi = "RL.MULTI 2 mine:1 mine:2 SLIDING 9 1d TOKENBUCKET 9 9 COST 2";
    assert!(!is_denied(&mut connection, multi));
    assert!(!is_denied(&mut connection, "RL.SETTLE 2 mine:1 mine:2 2 1"));
    assert!(!is_denied(&mut connection, "RL.RELEASE mine:1 theirs:1 theirs:2"));
    assert!(!is_denied(&mut connection, "RL.RESET mine:1 mine:2 mine:3"));
    assert!(!is_denied(&mut connection, "RL._ADD mine:1 theirs:1"));
    let mut all = server.connection().unwrap();
    assert_eq!(send::<Vec<String>>(&mut all, "KEYS theirs:*"), [""; 0], "nothing was taken");
}

#[test]
fn who_may_only_read_a_key_may_look_and_not_take() {
    let server = Server::start().unwrap();
    let mut owner = server.connection().unwrap();
    send::<Vec<i64>>(&mut owner, "RL.SLIDING k 10 1d");
    let before = digest(&mut owner, "k");
    let mut reader = user(&server, "%R~k +@all");
    for (call, kind) in CALLS {
        assert_eq!(is_denied(&mut reader, call), *kind != Kind::Looks, "{call}");
    }
    for call in INTERNAL {
        assert!(is_denied(&mut reader, call), "{call}");
    }
    assert_eq!(digest(&mut owner, "k"), before);
    // Deciding tells what is used and changes it, so writing alone is not enough; forgetting tells nothing.
    let mut writer = user(&server, "%W~k +@all");
    for (call, _) in CALLS {
        let allowed = name(call) == "RL.RESET";
        assert_eq!(is_denied(&mut writer, call), !allowed, "{call}");
    }
    // A key to write beside one that may only be read.
    let mut both = user(&server, "%R~k ~mine +@all");
    assert!(is_denied(&mut both, "RL.MULTI 2 mine k SLIDING 9 1d SLIDING 9 1d"));
    assert!(is_denied(&mut both, "RL.RESET mine k"));
    assert!(!is_denied(&mut both, "RL.PEEK k"));
}

#[test]
fn the_server_finds_the_keys_of_every_command_and_what_is_done_to_them() {
    let server = Server::start().unwrap();
    let mut connection = server.connection().unwrap();
    let mut listed: Vec<String> = send(&mut connection, "COMMAND LIST FILTERBY MODULE rl");
    let update = "RW access update";
    let mut seen: Vec<String> = Vec::new();
    for (call, keys, flags) in [
        ("RL.TOKENBUCKET a 1 1", "a", update),
        ("RL.LEAKYBUCKET a 1 1 COST 2", "a", update),
        ("RL.FIXEDWINDOW a 1 1 ALIGN 2", "a", update),
        ("RL.SLIDING a 1 1 BUCKETS 2 FORCE", "a", update),
        ("RL.SLIDINGLOG a 1 1", "a", update),
        ("RL.ACQUIRE a 1 1 id COST 2", "a", update),
        ("RL.RENEW a 1 b c", "a", update),
        ("RL.RELEASE a b c", "a", update),
        ("RL.LEASES a COUNT 2", "a", "RO access"),
        ("RL.PEEK a COST 2", "a", "RO access"),
        ("RL.INFO a", "a", "RO access"),
        ("RL.REFUND a 1", "a", update),
        ("RL.RESET a", "a", "RM delete"),
        ("RL.RESET a b c", "a b c", "RM delete"),
        ("RL.MULTI 1 a SLIDING 1 1", "a", update),
        ("RL.MULTI 2 a b SLIDING 1 1 SLIDING 1 1 COST 2 FORCE", "a b", update),
        ("RL.MULTI 2 a b CONCURRENCY 1 1 c COST 2 SLIDING 1 1", "a b", update),
        ("RL.SETTLE 1 a 2 1", "a", update),
        ("RL.SETTLE 2 a b 2 1", "a b", update),
        ("RL.THROTTLE a 1 1 1 1", "a", update),
        ("CL.THROTTLE a 1 1 1", "a", update),
        ("RL._ADD a x", "a", update),
        ("RL._ADD a x b y c z", "a b c", update),
        ("RL._RESTORE a x", "a", update),
    ] {
        let keys: Vec<_> = keys.split(' ').map(str::to_owned).collect();
        let found: Vec<String> = send(&mut connection, &format!("COMMAND GETKEYS {call}"));
        assert_eq!(found, keys, "{call}");
        let found: Vec<(String, Vec<String>)> =
            send(&mut connection, &format!("COMMAND GETKEYSANDFLAGS {call}"));
        let flags: Vec<_> = flags.split(' ').map(str::to_owned).collect();
        for (found, key) in found.into_iter().zip(keys) {
            assert_eq!(found, (key, flags.clone()), "{call}");
        }
        seen.push(name(call).to_lowercase());
    }
    // One has none.
    let words: [&[u8]; 4] = [b"COMMAND", b"GETKEYS", TOP.as_bytes(), b"RESET"];
    let none = error(&mut connection, &words);
    assert!(none.contains("no key arguments"), "{none}");
    seen.push(TOP.to_lowercase());
    seen.dedup();
    seen.sort();
    listed.iter_mut().for_each(|name| *name = name.to_lowercase());
    listed.sort();
    assert_eq!(listed, seen, "every command is in the rows above");

    // Where the number of keys is wrong, none is found, and the error is the command's own.
    for count in ["0", "-1", "x", "129", "9"] {
        for call in ["RL.MULTI {count} a SLIDING 1 1", "RL.SETTLE {count} a 2 1"] {
            let call = call.replace("{count}", count);
            let words: Vec<_> = call.split(' ').map(str::as_bytes).collect();
            assert!(error(&mut connection, &words).starts_with("ERR numkeys must be"), "{call}");
        }
    }
}

#[test]
fn commands_have_the_flags_that_they_are_to_have() {
    let server = Server::start().unwrap();
    let mut connection = server.connection().unwrap();
    let mut flags = |call: &str| {
        let infos: Vec<Vec<Value>> = send(&mut connection, &format!("COMMAND INFO {}", name(call)));
        let flags: Vec<String> = redis::from_redis_value(infos[0][2].clone()).unwrap();
        // Which module a command is of is said by a flag, too.
        let mut flags: Vec<_> = flags.into_iter().filter(|flag| flag != "module").collect();
        flags.sort();
        flags
    };
    for (call, kind) in CALLS {
        let expected = match kind {
            Kind::Decides => vec!["fast", "write"],
            Kind::Looks => vec!["fast", "readonly"],
            // Clients must ask or count to know its keys.
            Kind::Several if call.contains("MULTI") || call.contains("SETTLE") => {
                vec!["movablekeys", "write"]
            }
            Kind::Several => vec!["write"],
        };
        assert_eq!(flags(call), expected, "{call}");
    }
    for call in INTERNAL {
        assert_eq!(flags(call), ["admin", "write"], "{call}");
    }
}

#[test]
fn internal_commands_reach_a_replica_and_an_append_only_file_whatever_users_may() {
    // The replica's user may follow the primary, and on either server nobody may call an internal command.
    let follower = "user follower on >secret +psync +replconf +ping";
    let mut primary =
        Server::builder().setting(follower).setting("appendonly yes").start().unwrap();
    let replica = Server::builder()
        .setting(follower)
        .setting("masteruser follower")
        .setting("masterauth secret")
        .setting("appendonly yes")
        .replica_of(&primary)
        .start()
        .unwrap();
    replica.wait_for_sync(&primary).unwrap();
    let no_internals = "ACL SETUSER default -rl._add -rl._restore";
    for server in [&primary, &replica] {
        send::<()>(&mut server.connection().unwrap(), no_internals);
    }
    let mut connection = primary.connection().unwrap();
    for (call, kind) in CALLS {
        if *kind != Kind::Looks && name(call) != "RL.RESET" {
            let call = call.replace(" k", &format!(" {}", name(call)));
            for _ in 0..3 {
                send::<Option<Value>>(&mut connection, &call);
            }
        }
    }
    for call in INTERNAL {
        assert!(is_denied(&mut connection, call), "{call}");
    }
    let digests = |server: &Server| -> Vec<(String, String)> {
        let mut connection = server.connection().unwrap();
        let mut keys: Vec<String> = send(&mut connection, "KEYS *");
        keys.sort();
        keys.into_iter().map(|key| (digest(&mut connection, &key), key)).collect()
    };
    replica.wait_for_sync(&primary).unwrap();
    let before = digests(&primary);
    assert_eq!(before.len(), 9, "{before:?}");
    assert_eq!(digests(&replica), before);

    // Both forms of the file: effects as they came, and whole states after it was rewritten.
    for rewrite in [false, true] {
        let mut connection = primary.connection().unwrap();
        if rewrite {
            send::<()>(&mut connection, "CONFIG SET aof-use-rdb-preamble no");
            send::<()>(&mut connection, "BGREWRITEAOF");
            wait_for("the file to be rewritten", || {
                let info = crate::server::info(&mut connection, "persistence")?;
                Ok(info.contains("aof_rewrite_in_progress:0")
                    && info.contains("aof_rewrite_scheduled:0"))
            })
            .unwrap();
        }
        primary.kill();
        primary.start_again().unwrap();
        assert_eq!(digests(&primary), before, "rewritten: {rewrite}");
    }
}
