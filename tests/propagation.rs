//! Whoever begins to follow a server, at whatever moment, is sent effects and nothing else.
//!
//! ```text
//! nobody follows -> a replica comes, a file is switched on, ... -> it is sent what comes after its snapshot
//!      `--------------------- grants all the while ---------------------'
//! ```
//!
//! A server that nobody follows need not propagate what it grants, and INFO's `rl_propagation` says so. Should it be late to
//! notice a follower, that one would be sent the command as the client sent it, and decide by its own clock. So clients
//! keep servers busy without a pause while followers come, go and come again, and then
//! a follower has run none of the public commands, its file and its primary's have none, and it holds the same keys.
//! Nothing expires meanwhile, so that is to the byte. Each scenario is gone through ten times, with RL_LONG=1 a hundred times.

use std::collections::BTreeMap;
use std::env;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::SeqCst};
use std::thread::{self, sleep};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::{Connection, ErrorKind, Pipeline, RedisError, Value};

use crate::client::{Finally, appended, keyspace, send, try_send};
use crate::random::Random;
use crate::replication::{connect, follow, number, tell, wait_for_file, wait_for_link};
use crate::server::{Builder, Server, field, info, module, slowness, wait_for};

/// What may be sent of ours: effects and whole states. What RL.RESET removes is sent as DEL.
const SENT: [&str; 2] = ["rl._add", "rl._restore"];

/// Goes through a scenario ten times, several times at once, since it is mostly waited: each on servers of its own.
fn ten_times<T>(start: impl Fn(usize) -> T + Sync, round: impl Fn(&mut T) + Sync) {
    let rounds = if env::var_os("RL_LONG").is_some() { 100 } else { 10 };
    let lanes = (5 / slowness() as usize).max(1);
    let rounds = (rounds / slowness() as usize / lanes).max(1);
    thread::scope(|scope| {
        for lane in 0..lanes {
            let (start, round) = (&start, &round);
            scope.spawn(move || {
                let mut servers = start(lane);
                (0..rounds).for_each(|_| round(&mut servers));
            });
        }
    });
}

/// A server whose children are noticed soon, and whose backlog goes soon after the last replica.
fn server() -> Builder {
    Server::builder()
        .setting("hz 100")
        .setting("repl-backlog-size 64mb")
        .setting("repl-backlog-ttl 1")
        .setting("repl-timeout 600")
}

/// Clients that are granted as much as they can get.
struct Clients {
    port: AtomicU16,
    stop: AtomicBool,
    rounds: [AtomicU64; 2],
}

impl Clients {
    /// Does something while clients keep a server busy.
    fn run<T>(port: u16, work: impl FnOnce(&Self) -> T) -> T {
        let clients =
            Self { port: port.into(), stop: false.into(), rounds: [0, 0].map(AtomicU64::new) };
        thread::scope(|scope| {
            let _end = Finally(&clients.stop);
            for number in 0..clients.rounds.len() {
                let clients = &clients;
                scope.spawn(move || clients.client(number));
            }
            work(&clients)
        })
    }

    /// Waits until each client was answered several times more.
    fn go_on(&self) {
        let before = self.rounds.each_ref().map(|rounds| rounds.load(SeqCst));
        wait_for("clients to be answered", || {
            Ok(self.rounds.iter().zip(before).all(|(now, before)| now.load(SeqCst) > before + 5))
        })
        .unwrap();
    }

    /// The clients use another server from now on.
    fn move_to(&self, server: &Server) {
        self.port.store(server.port(), SeqCst);
    }

    fn client(&self, number: usize) {
        let mut random = Random::new(number as u64);
        while !self.stop.load(SeqCst) {
            let port = self.port.load(SeqCst);
            let client = redis::Client::open(("127.0.0.1", port)).unwrap();
            let Ok(mut connection) = client.get_connection_with_timeout(Duration::from_secs(1))
            else {
                // It starts again just now.
                sleep(Duration::from_millis(20));
                continue;
            };
            while !self.stop.load(SeqCst) && self.port.load(SeqCst) == port {
                match requests(&mut random).query::<Vec<Value>>(&mut connection) {
                    Ok(_) => _ = self.rounds[number].fetch_add(1, SeqCst),
                    Err(error) if error.kind() == ErrorKind::Io => break,
                    Err(error) => {
                        assert!(is_not_now(&error), "{error}");
                        sleep(Duration::from_millis(1));
                    }
                }
            }
        }
    }
}

/// Whether a server is another's replica just now, has still to load its data, or has no module yet.
fn is_not_now(error: &RedisError) -> bool {
    let text = error.to_string().to_lowercase();
    ["readonly", "read only replica", "loading", "execabort", "unknown", "redirect"]
        .iter()
        .any(|reason| text.contains(reason))
}

/// Requests for one pipeline: alone, in transactions and in scripts.
fn requests(random: &mut Random) -> Pipeline {
    let mut pipe = redis::pipe();
    let push = |pipe: &mut Pipeline, before: &[&str], line: &str| {
        let mut words = before.iter().copied().chain(line.split(' '));
        let command = pipe.cmd(words.next().unwrap());
        words.for_each(|word| _ = command.arg(word));
    };
    for _ in 0..20 {
        match random.below(10) {
            0 => {
                push(&mut pipe, &[], "MULTI");
                for _ in 0..3 {
                    push(&mut pipe, &[], &request(random));
                }
                push(&mut pipe, &[], "EXEC");
            }
            1 => {
                let script = "redis.call(unpack(ARGV)) return redis.call(unpack(ARGV))";
                push(&mut pipe, &["EVAL", script, "0"], &request(random));
            }
            _ => push(&mut pipe, &[], &request(random)),
        }
    }
    pipe
}

/// A request of any kind; the key says of which.
fn request(random: &mut Random) -> String {
    let key = |kind: u64, number: u64| format!("k{}", number * KINDS + kind);
    let (kind, number) = (random.below(KINDS), random.below(40));
    let name = key(kind, number);
    let cost = random.one_of(&["", "", " COST 3", " PARTIAL COST 2", " FORCE"]);
    match (random.below(20), kind) {
        (0, 0..=4) => format!("RL.REFUND {name} 1"),
        (1, 0..=2) => {
            format!(
                "RL.SETTLE 2 {} {} {}",
                key(0, number),
                key(3, number),
                ["2 1", "1 2"][number as usize % 2]
            )
        }
        (1, _) => format!(
            "RL.MULTI 4 {} {} {} {} TOKENBUCKET 1000000000 1/1h SLIDING 1000000000 1d COST 2 SLIDINGLOG 200 1d CONCURRENCY 100 1d {}",
            key(0, number),
            key(3, number),
            key(4, number),
            key(6, number),
            random.below(200),
        ),
        // So that there is room in it again.
        (2, 4) => format!("RL.RESET {name}"),
        // As redis-cell leaves it.
        (2, 5) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            format!("SET {name} {} PX 7200000", now.as_nanos() + 3_600_000_000_000)
        }
        (_, 0) => format!("RL.TOKENBUCKET {name} 1000000000 1/1h{cost}"),
        (_, 1) => format!("RL.LEAKYBUCKET {name} 1000000000 1/1h{cost}"),
        (_, 2) => format!("RL.FIXEDWINDOW {name} 1000000000 1d{cost}"),
        (_, 3) => format!("RL.SLIDING {name} 1000000000 1d{cost}"),
        (_, 4) => format!("RL.SLIDINGLOG {name} 200 1d"),
        (0..=4, 6) => format!("RL.RELEASE {name} {} {}", random.below(200), random.below(200)),
        (5..=8, 6) => format!("RL.RENEW {name} 1d {} {}", random.below(200), random.below(200)),
        (_, 6) => format!("RL.ACQUIRE {name} 100 1d {}", random.below(200)),
        _ => format!("CL.THROTTLE {name} 1000000 1 3600"),
    }
}

/// The five algorithms of rates, CL.THROTTLE, and the concurrency limit.
const KINDS: u64 = 7;

/// What a server holds in both databases.
fn held(server: &Server) -> Vec<BTreeMap<String, (String, i64)>> {
    let mut connection = connect(server);
    let database = |number| {
        send::<()>(&mut connection, &format!("SELECT {number}"));
        keyspace(&mut connection)
    };
    [0, 1].map(database).into()
}

/// Asserts that others hold what the server holds that they follow, and that nobody was sent a public command.
fn assert_agree(primary: &Server, followers: &[&Server]) {
    let expected = held(primary);
    assert!(expected.iter().any(|keys| keys.len() > 20), "there are keys to compare");
    for follower in followers {
        follower.wait_for_sync(primary).unwrap();
        assert_ran_no_public_command(follower);
        assert_same(&held(follower), &expected);
    }
    for server in followers.iter().chain([&primary]) {
        assert_file_has_no_public_command(server);
    }
}

fn assert_same(
    found: &[BTreeMap<String, (String, i64)>],
    expected: &[BTreeMap<String, (String, i64)>],
) {
    for (found, expected) in found.iter().zip(expected) {
        for (key, value) in expected {
            assert_eq!(found.get(key), Some(value), "{key}");
        }
        assert_eq!(found.len(), expected.len());
    }
}

/// Asserts that a server whom no client has asked for anything was sent no public command.
fn assert_ran_no_public_command(follower: &Server) {
    let stats = info(&mut connect(follower), "commandstats").unwrap().to_lowercase();
    let calls = |line: &str| -> Option<(String, u64)> {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse().unwrap()))
    };
    let calls: BTreeMap<_, _> = stats.lines().filter_map(calls).collect();
    let public: Vec<_> =
        calls.iter().filter(|(name, calls)| **calls > 0 && is_public(name)).collect();
    assert!(public.is_empty(), "it was sent {public:?}");
    assert!(calls["rl._add"] > 0, "it was sent something");
}

/// Waits until all that was appended is written: it is put off while the disk is busy.
fn wait_for_write(server: &Server) {
    let mut connection = connect(server);
    wait_for("the file to be written", || {
        Ok(number(&mut connection, "persistence", "aof_buffer_length") == 0)
    })
    .unwrap();
}

fn assert_file_has_no_public_command(server: &Server) {
    if number(&mut connect(server), "persistence", "aof_enabled") == 1 {
        wait_for_write(server);
        for command in appended(server) {
            assert!(!is_public(&command[0].to_lowercase()), "{command:?}");
        }
    }
}

fn is_public(name: &str) -> bool {
    (name.starts_with("rl.") || name.starts_with("cl.")) && !SENT.contains(&name)
}

/// What a server does with what it grants: `effects`, or `none`.
fn propagation(connection: &mut Connection) -> String {
    field(&info(connection, "modules").unwrap(), "rl_propagation").unwrap()
}

/// Waits until a server has noticed that nobody follows it.
fn wait_until_unfollowed(server: &Server) {
    let mut connection = connect(server);
    wait_for("the server to propagate nothing", || Ok(propagation(&mut connection) == "none"))
        .unwrap();
}

/// Whether somebody follows a server, as it says itself; if so, asserts that it propagates effects. A link that is up may break
/// again, if the replica's disk is busy for a long time and the server gives the replica up.
fn is_followed(connection: &mut Connection) -> bool {
    let info = info(connection, "everything").unwrap();
    let is_followed = ["state=online", "aof_enabled:1", "cluster_enabled:1"]
        .iter()
        .any(|follower| info.contains(follower));
    let propagation = field(&info, "rl_propagation").unwrap();
    assert!(!is_followed || propagation == "effects", "{propagation}: {info}");
    is_followed
}

/// Asserts that a server that is followed propagates effects, and goes on when it has looked again: it does once a second.
pub fn assert_propagates(server: &Server) {
    let mut connection = connect(server);
    let uptime = |connection: &mut Connection| number(connection, "server", "uptime_in_seconds");
    let since = uptime(&mut connection);
    wait_for("two seconds to go by", || {
        Ok(is_followed(&mut connection) && uptime(&mut connection) >= since + 2)
    })
    .unwrap();
}

/// A server follows no other any more, and the other has noticed.
fn leave(follower: &Server, primary: &Server) {
    tell(follower, "REPLICAOF NO ONE");
    let mut connection = connect(primary);
    wait_for("the replica to have gone", || {
        Ok(number(&mut connection, "replication", "connected_slaves") == 0)
    })
    .unwrap();
}

/// A server that clients used follows another, and counts anew what it is sent.
fn follow_after_use(server: &Server, primary: &Server) {
    let mut connection = connect(server);
    send::<()>(&mut connection, "MULTI");
    send::<()>(&mut connection, &format!("REPLICAOF 127.0.0.1 {}", primary.port()));
    send::<()>(&mut connection, "CONFIG RESETSTAT");
    send::<Value>(&mut connection, "EXEC");
}

/// Sets how a server sends its replicas a snapshot: by a file, directly, or, where it can, beside the commands.
fn set_way_of_syncing(servers: &[&Server], lane: usize) {
    for server in servers {
        let mut connection = connect(server);
        let diskless = ["yes", "no", "yes"][lane % 3];
        send::<()>(&mut connection, &format!("CONFIG SET repl-diskless-sync {diskless}"));
        let beside = ["no", "no", "yes"][lane % 3].as_bytes();
        for setting in [&b"repl-rdb-channel"[..], b"dual-channel-replication-enabled"] {
            // Neither is known to all servers.
            let _ = try_send::<()>(&mut connection, &[b"CONFIG", b"SET", setting, beside]);
        }
    }
}

/// A server, and another that follows it on and off, with a file of its own.
fn pair(lane: usize) -> (Server, Server) {
    let primary = server().start().unwrap();
    let replica = server().setting("appendonly yes").start().unwrap();
    set_way_of_syncing(&[&primary, &replica], lane);
    (primary, replica)
}

/// A replica comes while clients are served.
fn join(clients: &Clients, replica: &Server, primary: &Server) {
    follow(replica, primary);
    wait_for_link(replica);
    wait_for("the replica to be online", || Ok(is_followed(&mut connect(primary)))).unwrap();
    clients.go_on();
}

#[test]
fn a_server_propagates_effects_from_the_moment_on_at_which_somebody_may_come() {
    let server = self::server().start().unwrap();
    let mut connection = connect(&server);
    for event in [
        "CONFIG SET maxmemory 0",
        "BGSAVE",
        "SAVE",
        "DEBUG RELOAD",
        "BGREWRITEAOF",
        "CONFIG SET appendonly yes",
        "REPLICAOF 127.0.0.1 1",
        "REPLICAOF NO ONE",
    ] {
        tell(&server, "CONFIG SET appendonly no");
        wait_for("the children to end", || {
            let info = info(&mut connection, "persistence")?;
            Ok(["rdb_bgsave_in_progress:0", "aof_rewrite_in_progress:0", "aof_rewrite_scheduled:0"]
                .iter()
                .all(|field| info.contains(field)))
        })
        .unwrap();
        wait_until_unfollowed(&server);
        // Sent at once, both are answered before the server looks again.
        let mut pipe = redis::pipe();
        for word in event.split(' ').enumerate() {
            _ = match word {
                (0, name) => pipe.cmd(name),
                (_, word) => pipe.arg(word),
            };
        }
        pipe.ignore().cmd("INFO").arg("modules");
        let (modules,): (String,) = pipe.query(&mut connection).unwrap();
        assert_eq!(field(&modules, "rl_propagation").unwrap(), "effects", "{event}");
    }
}

#[test]
fn a_server_propagates_effects_while_somebody_follows_it_and_nothing_afterwards() {
    let (primary, replica) = pair(0);
    wait_until_unfollowed(&primary);
    assert_propagates(&replica); // to its file
    follow(&replica, &primary);
    wait_for_link(&replica);
    assert_propagates(&primary);
    leave(&replica, &primary);
    wait_until_unfollowed(&primary);
    tell(&replica, "CONFIG SET appendonly no");
    wait_until_unfollowed(&replica);
    // A slot may leave a server of a cluster at any time.
    assert_propagates(&self::server().setting("cluster-enabled yes").start().unwrap());
}

#[test]
fn a_replica_that_comes_and_goes_under_load_is_sent_effects_alone() {
    ten_times(pair, |(primary, replica)| {
        wait_until_unfollowed(primary);
        Clients::run(primary.port(), |clients| {
            clients.go_on();
            join(clients, replica, primary);
        });
        assert_agree(primary, &[replica]);
        // The backlog is still there when it comes again.
        Clients::run(primary.port(), |clients| {
            leave(replica, primary);
            clients.go_on();
            join(clients, replica, primary);
            assert_propagates(primary);
            clients.go_on();
        });
        assert_agree(primary, &[replica]);
        leave(replica, primary);
    });
}

#[test]
fn a_replica_that_comes_while_a_child_saves_is_sent_effects_alone() {
    ten_times(pair, |(primary, replica)| {
        wait_until_unfollowed(primary);
        let mut connection = connect(primary);
        let is_saving = |connection: &mut Connection| {
            number(connection, "persistence", "rdb_bgsave_in_progress") == 1
        };
        Clients::run(primary.port(), |clients| {
            // A child, and nobody follows.
            clients.go_on();
            send::<Value>(&mut connection, "BGSAVE");
            wait_for("the save to end", || Ok(!is_saving(&mut connection))).unwrap();
            clients.go_on();
            // A slow one, and a replica comes.
            send::<()>(&mut connection, "CONFIG SET rdb-key-save-delay 1000");
            send::<Value>(&mut connection, "BGSAVE");
            clients.go_on();
            join(clients, replica, primary);
            send::<()>(&mut connection, "CONFIG SET rdb-key-save-delay 0");
        });
        assert_agree(primary, &[replica]);
        leave(replica, primary);
    });
}

#[test]
fn links_that_break_under_load_go_on_with_effects_alone() {
    let start = |lane| {
        // However long a server takes to come back, it is not too late to go on.
        let server = || {
            let patient = server().setting("repl-backlog-ttl 3600").setting("shutdown-timeout 25");
            patient.setting("repl-backlog-size 1gb")
        };
        let primary = server().start().unwrap();
        let first = server().replica_of(&primary).start().unwrap();
        let below = server().setting("appendonly yes").replica_of(&first).start().unwrap();
        set_way_of_syncing(&[&primary, &first, &below], lane);
        [&first, &below].into_iter().for_each(wait_for_link);
        (primary, first, below)
    };
    ten_times(start, |(primary, first, below)| {
        let full = |server: &Server| number(&mut connect(server), "stats", "sync_full");
        let before = full(primary);
        Clients::run(primary.port(), |clients| {
            clients.go_on();
            tell(primary, "CLIENT KILL TYPE replica");
            clients.go_on();
            tell(first, "CLIENT KILL TYPE replica");
            tell(first, "CLIENT KILL TYPE master");
            clients.go_on();
            [&*first, &*below].into_iter().for_each(wait_for_link);
            clients.go_on();
        });
        assert_agree(primary, &[first, below]);
        // One starts again from what it saved, while the other is served.
        Clients::run(primary.port(), |clients| {
            first.shutdown(true).unwrap();
            clients.go_on();
            first.start_again().unwrap();
            [&*first, &*below].into_iter().for_each(wait_for_link);
            clients.go_on();
        });
        assert_agree(primary, &[first, below]);
        assert_eq!(full(primary), before, "it went on where it stopped");
        // So does the primary: clients may use it before its replica is back.
        Clients::run(primary.port(), |clients| {
            clients.go_on();
            primary.shutdown(true).unwrap();
            primary.start_again().unwrap();
            clients.go_on();
            [&*first, &*below].into_iter().for_each(wait_for_link);
            clients.go_on();
        });
        assert_agree(primary, &[first, below]);
        assert_eq!(full(primary), 0, "it went on where it stopped");
    });
}

#[test]
fn a_file_that_is_switched_on_and_off_under_load_has_effects_alone() {
    let start = |lane| {
        let yes_or_no = ["yes", "no"][lane % 2];
        server()
            .setting("appendonly yes")
            .setting(format!("aof-use-rdb-preamble {yes_or_no}"))
            .setting(format!("appendfsync {}", ["always", "no", "everysec"][lane % 3]))
            .start()
            .unwrap()
    };
    ten_times(start, |server| {
        let switch = |value| tell(server, &format!("CONFIG SET appendonly {value}"));
        Clients::run(server.port(), |clients| {
            for value in ["no", "yes", "no"] {
                switch(value);
                clients.go_on();
            }
        });
        wait_until_unfollowed(server);
        Clients::run(server.port(), |clients| {
            clients.go_on();
            // A child that saves puts the first rewrite off.
            for line in
                ["CONFIG SET rdb-key-save-delay 1000", "BGSAVE", "CONFIG SET rdb-key-save-delay 0"]
            {
                tell(server, line);
            }
            switch("yes");
            clients.go_on();
            wait_for_file(server);
            assert_propagates(server);
            clients.go_on();
        });
        let before = held(server);
        assert_agree(server, &[]);
        wait_for_write(server);
        server.kill();
        server.start_again().unwrap();
        assert_same(&held(server), &before);
    });
}

#[test]
fn a_failover_under_load_sends_effects_alone() {
    let start = |lane| {
        // Without files, so that nobody at all follows the one that is alone.
        let [first, second] = [(); 2].map(|()| server().start().unwrap());
        set_way_of_syncing(&[&first, &second], lane);
        follow(&second, &first);
        wait_for_link(&second);
        (first, second)
    };
    ten_times(start, |(first, second)| {
        // The replica is promoted, and then the other one follows.
        Clients::run(first.port(), |clients| {
            clients.go_on();
            tell(second, "REPLICAOF NO ONE");
            clients.move_to(second);
            clients.go_on();
            follow_after_use(first, second);
            wait_for_link(first);
            clients.go_on();
        });
        assert_agree(second, &[first]);
        // In order, and at once.
        Clients::run(second.port(), |clients| {
            clients.go_on();
            tell(second, "CONFIG RESETSTAT");
            tell(second, &format!("FAILOVER TO 127.0.0.1 {} TIMEOUT 60000", first.port()));
            let mut connection = connect(second);
            wait_for("the failover", || {
                Ok(info(&mut connection, "replication")?.contains("role:slave"))
            })
            .unwrap();
            tell(second, "CONFIG RESETSTAT");
            clients.move_to(first);
            wait_for_link(second);
            clients.go_on();
        });
        assert_agree(first, &[second]);
        // One that nobody ever followed is promoted, used, and followed long afterwards.
        leave(second, first);
        wait_until_unfollowed(second);
        Clients::run(second.port(), |clients| {
            clients.go_on();
            follow_after_use(first, second);
            wait_for_link(first);
            clients.go_on();
        });
        assert_agree(second, &[first]);
        std::mem::swap(first, second);
    });
}

#[test]
fn a_module_that_is_loaded_into_servers_in_use_sends_effects_alone() {
    let load = |server: &Server| {
        let library = module().unwrap();
        let path = library.to_str().unwrap().as_bytes();
        try_send::<()>(&mut connect(server), &[b"MODULE", b"LOAD", path]).unwrap();
    };
    ten_times(
        |lane| lane,
        |lane| {
            let bare = || server().without_module();
            let file = if *lane % 2 == 0 { "appendonly yes" } else { "appendonly no" };
            let primary = bare().setting(file).start().unwrap();
            let replica = bare().setting("appendonly yes").replica_of(&primary).start().unwrap();
            wait_for_link(&replica);
            if *lane == 4 {
                // The file alone follows.
                leave(&replica, &primary);
            }
            load(&replica);
            Clients::run(primary.port(), |clients| {
                load(&primary);
                clients.go_on();
            });
            let followers: &[&Server] = if *lane == 4 { &[] } else { &[&replica] };
            assert_agree(&primary, followers);
        },
    );
}

#[test]
fn other_events_under_load_change_nothing_of_what_is_sent() {
    let start = |lane| {
        let (primary, replica) = pair(lane);
        follow(&replica, &primary);
        wait_for_link(&replica);
        (primary, replica)
    };
    ten_times(start, |(primary, replica)| {
        Clients::run(primary.port(), |clients| {
            for line in [
                "CONFIG SET hz 50",
                "CONFIG SET maxmemory 1gb",
                "DEBUG RELOAD",
                "SWAPDB 0 1",
                "CONFIG SET maxmemory 0",
                "CONFIG SET hz 100",
                "FLUSHALL",
                "CONFIG RESETSTAT",
                "BGSAVE",
                "FLUSHALL ASYNC",
            ] {
                tell(primary, line);
                clients.go_on();
            }
        });
        assert_agree(primary, &[replica]);
    });
}
