//! A cluster of three primaries with a replica each: keys are routed as those of any command, and a slot may
//! move to another server while it is in use, with no unit granted twice and none forgotten.
//! Some primaries have no replica, so that nobody follows them until a slot leaves them.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use redis::cluster::ClusterClient;
use redis::{Connection, FromRedisValue, Value};

use crate::client::{digest, send, text, try_send};
use crate::propagation::assert_propagates;
use crate::server::{Server, free_port, patience, wait_for};

/// A server of the cluster.
struct Node {
    server: Server,
    bus_port: u16,
    id: String,
}

impl Node {
    fn start(settings: &[&str]) -> Self {
        let mut tries = 0;
        loop {
            // Asked of the system and freed again, like the server's own port.
            let bus_port = free_port().unwrap();
            let mut builder = Server::builder()
                .setting("cluster-enabled yes")
                .setting(format!("cluster-port {bus_port}"))
                .setting("cluster-announce-ip 127.0.0.1");
            for setting in settings {
                builder = builder.setting(*setting);
            }
            match builder.start() {
                Ok(server) => {
                    let id = send(&mut server.connection().unwrap(), "CLUSTER MYID");
                    return Self { server, bus_port, id };
                }
                Err(error) if tries == 3 => panic!("{error}"),
                Err(_) => tries += 1,
            }
        }
    }

    fn connection(&self) -> Connection {
        self.server.connection().unwrap()
    }

    fn send<T: FromRedisValue>(&self, line: &str) -> T {
        send(&mut self.connection(), line)
    }
}

/// The first three servers are primaries and share the slots, each of the others is a replica of one of them.
struct Cluster(Vec<Node>);

const PRIMARIES: usize = 3;
const SLOTS: usize = 16_384;

impl Cluster {
    fn start(settings: &[&str]) -> Self {
        Self::of(2 * PRIMARIES, settings)
    }

    fn of(servers: usize, settings: &[&str]) -> Self {
        let cluster = Self((0..servers).map(|_| Node::start(settings)).collect());
        for (index, node) in cluster.0.iter().enumerate() {
            node.send::<()>(&format!("CLUSTER SET-CONFIG-EPOCH {}", index + 1));
            if index < PRIMARIES {
                let (first, end) = (index * SLOTS / PRIMARIES, (index + 1) * SLOTS / PRIMARIES);
                node.send::<()>(&format!("CLUSTER ADDSLOTSRANGE {first} {}", end - 1));
            }
            for other in &cluster.0[..index] {
                let (port, bus_port) = (other.server.port(), other.bus_port);
                node.send::<()>(&format!("CLUSTER MEET 127.0.0.1 {port} {bus_port}"));
            }
        }
        cluster.wait_for_all("to know each other", |node| {
            node.send::<String>("CLUSTER INFO")
                .contains(&format!("cluster_known_nodes:{servers}\r\n"))
                && !node.send::<String>("CLUSTER NODES").contains("handshake")
        });
        for (primary, replica) in cluster.pairs() {
            replica.send::<()>(&format!("CLUSTER REPLICATE {}", primary.id));
        }
        cluster.wait_for_all("to be a cluster", |node| {
            node.send::<String>("CLUSTER INFO").contains("cluster_state:ok\r\n")
                && node.send::<String>("CLUSTER NODES").matches("slave").count()
                    == servers - PRIMARIES
        });
        cluster.wait_for_replicas();
        cluster
    }

    fn wait_for_all(&self, what: &str, is_so: impl Fn(&Node) -> bool) {
        wait_for(&format!("the servers {what}"), || Ok(self.0.iter().all(&is_so))).unwrap();
    }

    fn wait_for_replicas(&self) {
        for (primary, replica) in self.pairs() {
            replica.server.wait_for_sync(&primary.server).unwrap();
        }
    }

    /// Each primary with its replica.
    fn pairs(&self) -> impl Iterator<Item = (&Node, &Node)> {
        self.0[..PRIMARIES].iter().zip(&self.0[PRIMARIES..])
    }

    /// Sets as whom the servers move slots, and what that user may do.
    fn set_mover(&self, rules: &str) {
        for node in &self.0 {
            node.send::<()>(&format!("ACL SETUSER mover reset {rules}"));
            node.send::<()>("CONFIG SET primaryuser mover primaryauth secret");
        }
    }

    fn slot(&self, key: &str) -> usize {
        self.0[0].send(&format!("CLUSTER KEYSLOT {key}"))
    }

    /// The primary that a slot belongs to at first.
    fn first_owner(slot: usize) -> usize {
        (0..PRIMARIES).find(|index| slot < (index + 1) * SLOTS / PRIMARIES).unwrap()
    }

    /// A client that follows redirections and counts them, and knows one server at first.
    fn client<'a>(&self, knows: usize, seen: &'a Redirections) -> Client<'a> {
        Client { connections: HashMap::new(), port: self.0[knows].server.port(), seen }
    }

    /// The keys that a server holds, each with its digest.
    fn digests(node: &Node) -> BTreeMap<String, String> {
        let mut connection = node.connection();
        let keys: Vec<String> = send(&mut connection, "KEYS *");
        keys.into_iter()
            .map(|key| {
                let digest = digest(&mut connection, &key);
                (key, digest)
            })
            .collect()
    }

    /// Asserts that every replica holds what its primary holds; how many keys there are in all.
    fn assert_replicas_agree(&self) -> usize {
        self.wait_for_replicas();
        let counts = self.pairs().map(|(primary, replica)| {
            let digests = Self::digests(primary);
            assert_eq!(Self::digests(replica), digests, "of the replica of {}", primary.id);
            digests.len()
        });
        counts.sum()
    }
}

/// How often clients were sent elsewhere.
#[derive(Debug, Default)]
struct Redirections {
    moved: AtomicU64,
    ask: AtomicU64,
    try_again: AtomicU64,
}

/// A client of the cluster for keys of one slot.
struct Client<'a> {
    connections: HashMap<u16, Connection>,
    port: u16,
    seen: &'a Redirections,
}

impl Client<'_> {
    /// Sends a line to the server that the slot is at, wherever that is by now.
    fn send<T: FromRedisValue>(&mut self, line: &str) -> T {
        let words: Vec<_> = line.split_whitespace().map(str::as_bytes).collect();
        let mut asked = None;
        let start = Instant::now();
        while start.elapsed() < patience() {
            let port = asked.unwrap_or(self.port);
            let connection = self.connections.entry(port).or_insert_with(|| {
                let client = redis::Client::open(("127.0.0.1", port)).unwrap();
                client.get_connection().unwrap()
            });
            if asked.take().is_some() {
                send::<()>(connection, "ASKING");
            }
            let error = match try_send(connection, &words) {
                Ok(reply) => return reply,
                Err(error) => text(&error),
            };
            let target = || error.rsplit(':').next().unwrap().parse().unwrap();
            match error.split(' ').next().unwrap() {
                "MOVED" => {
                    self.seen.moved.fetch_add(1, Relaxed);
                    self.port = target();
                }
                "ASK" => {
                    self.seen.ask.fetch_add(1, Relaxed);
                    asked = Some(target());
                }
                "TRYAGAIN" => {
                    self.seen.try_again.fetch_add(1, Relaxed);
                    sleep(Duration::from_millis(1));
                }
                _ => panic!("{line}: {error}"),
            }
        }
        panic!("{line}: sent from server to server without end: {:?}", self.seen);
    }
}

/// A key in use while its slot moves.
struct Used {
    key: &'static str,
    limits: &'static str,
    limit: i64,
}

const USED: &[Used] = &[
    Used { key: "{m}sliding", limits: "SLIDING 1000000000 1h", limit: 1_000_000_000 },
    Used { key: "{m}token", limits: "TOKENBUCKET 1000000000 1/3650d", limit: 1_000_000_000 },
    Used { key: "{m}leaky", limits: "LEAKYBUCKET 1000000000 1/3650d", limit: 1_000_000_000 },
    Used { key: "{m}log", limits: "SLIDINGLOG 100000 1h", limit: 100_000 },
    Used { key: "{m}few", limits: "TOKENBUCKET 100 1/3650d", limit: 100 },
    Used { key: "{m}few-sliding", limits: "SLIDING 100 30d BUCKETS 1000", limit: 100 },
];

/// Denied in a row, and closed by that: both go along with the slot.
const PENALIZED: [(&str, usize); 2] = [("{m}row", 2), ("{m}closed", 3)];
const BLOCK: &str = "1 1d BLOCK 1d AFTER 3";
const DAY_MS: i64 = 86_400_000;

impl Used {
    fn line(&self) -> String {
        let (algorithm, limits) = self.limits.split_once(' ').unwrap();
        format!("RL.{algorithm} {} {limits}", self.key)
    }
}

/// Several clients that use the keys of a slot all the while, and what they were granted.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    rounds: AtomicU64,
    seen: Redirections,
    /// How many clients hold a slot: never too high, since it goes up after the reply and down before the command.
    held: AtomicU64,
}

impl Load {
    const CLIENTS: usize = 4;
    const SLOTS: u64 = 2;

    /// Runs `work` while clients use the keys, and then asserts of each key that exactly its limit was granted in all, and that
    /// what was closed is still closed.
    fn run(cluster: &Cluster, work: impl FnOnce(&Self)) {
        let load = Self::default();
        let mut client = cluster.client(0, &load.seen);
        for (key, denials) in PENALIZED {
            for _ in 0..=denials {
                client.send::<Value>(&format!("RL.SLIDING {key} {BLOCK}"));
            }
        }
        let granted = thread::scope(|scope| {
            // Should the work fail, the clients end all the same.
            let _stopped = Stop(&load.stop);
            let clients: Vec<_> = (0..Self::CLIENTS)
                .map(|index| {
                    scope.spawn({
                        let load = &load;
                        move || load.use_keys(index, cluster.client(index % PRIMARIES, &load.seen))
                    })
                })
                .collect();
            work(&load);
            load.stop.store(true, Relaxed);
            let mut granted = vec![0; USED.len()];
            for client in clients {
                for (sum, own) in granted.iter_mut().zip(client.join().unwrap()) {
                    *sum += own;
                }
            }
            granted
        });
        println!("{granted:?} were granted while the slot moved, {:?}", load.seen);
        let mut client = cluster.client(0, &load.seen);
        for (used, granted) in USED.iter().zip(granted) {
            let rest: Vec<i64> =
                client.send(&format!("{} COST {} PARTIAL", used.line(), used.limit));
            assert_eq!(granted + rest[5], used.limit, "{} grants its limit", used.key);
            let denied: Vec<i64> = client.send(&used.line());
            assert_eq!(denied[0], 0, "{} grants no more", used.key);
        }
        let third: Vec<i64> = client.send(&format!("RL.SLIDING {{m}}row {BLOCK}"));
        assert_eq!((third[0], third[3]), (0, DAY_MS), "the denials in a row came along");
    }

    /// Uses all keys, alone and together, until it is told to stop; the units that were granted of each.
    fn use_keys(&self, index: usize, mut client: Client) -> Vec<i64> {
        let lines: Vec<_> = USED.iter().map(Used::line).collect();
        let (first, second) = (&USED[0], &USED[1]);
        let both =
            format!("RL.MULTI 2 {} {} {} {}", first.key, second.key, first.limits, second.limits);
        let forgotten = ["RL.SLIDING {m}forgotten 5 1h", "RL.RESET {m}forgotten"];
        let mut granted = vec![0; USED.len()];
        while !self.stop.load(Relaxed) {
            for line in forgotten {
                client.send::<Value>(line);
            }
            self.hold_slot(index, &mut client);
            let closed: Vec<i64> = client.send("RL.SLIDING {m}closed 9 1d");
            assert!(closed[0] == 0 && closed[3] > DAY_MS / 2, "the block came along: {closed:?}");
            for (line, granted) in lines.iter().zip(&mut granted) {
                *granted += client.send::<Vec<i64>>(line)[0];
            }
            let reply: Vec<Value> = client.send(&both);
            if reply[0] == Value::Int(1) {
                granted[0] += 1;
                granted[1] += 1;
            }
            self.rounds.fetch_add(1, Relaxed);
        }
        granted
    }

    /// Acquires a slot if one is free, renews it and gives it back.
    fn hold_slot(&self, index: usize, client: &mut Client) {
        let (slots, rpm) = (Self::SLOTS, "{m}sliding SLIDING 1000000000 1h COST 0");
        let (key, limits) = rpm.split_once(' ').unwrap();
        let acquire =
            format!("RL.MULTI 2 {{m}}slots {key} CONCURRENCY {slots} 1h {index} {limits}");
        let acquire = match index % 2 {
            0 => format!("RL.ACQUIRE {{m}}slots {slots} 1h {index}"),
            _ => acquire,
        };
        if client.send::<Vec<Value>>(&acquire)[0] == Value::Int(0) {
            return;
        }
        let held = self.held.fetch_add(1, Relaxed) + 1;
        assert!(held <= slots, "{held} hold one of {slots} slots");
        assert_eq!(client.send::<i64>(&format!("RL.RENEW {{m}}slots 1h {index}")), 1);
        self.held.fetch_sub(1, Relaxed);
        assert_eq!(client.send::<i64>(&format!("RL.RELEASE {{m}}slots {index}")), 1);
    }

    /// Waits until a count has grown by this many.
    fn wait_for_more(what: &str, count: &AtomicU64, more: u64) {
        let before = count.load(Relaxed);
        wait_for(what, || Ok(count.load(Relaxed) >= before + more)).unwrap();
    }

    fn wait_for_rounds(&self) {
        Self::wait_for_more("the clients to use the keys", &self.rounds, 40);
    }
}

/// Tells clients to stop when it goes.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// The servers that a slot moves to, one after the other: to both others and back, from where it is at first.
fn journey(slot: usize) -> Vec<(usize, usize)> {
    let start = Cluster::first_owner(slot);
    let stops = [0, 1, 2, 0, 2].map(|step| (start + step) % PRIMARIES);
    stops.windows(2).map(|pair| (pair[0], pair[1])).collect()
}

#[test]
fn keys_are_routed_by_their_slot_and_hash_tag() {
    let cluster = Cluster::start(&[]);
    let (tagged, other) = ("{u42}:s", "u43");
    let owner = Cluster::first_owner(cluster.slot(tagged));
    for (line, key) in [
        ("RL.TOKENBUCKET {u42}:s 10 1/d", tagged),
        ("RL.LEAKYBUCKET {u42}:l 10 1/d", tagged),
        ("RL.FIXEDWINDOW {u42}:f 10 1d", tagged),
        ("RL.SLIDING {u42}:w 10 1d", tagged),
        ("RL.SLIDINGLOG {u42}:g 10 1d", tagged),
        ("RL.THROTTLE {u42}:t 9 1 86400", tagged),
        ("CL.THROTTLE {u42}:c 9 1 86400", tagged),
        ("RL.PEEK {u42}:s", tagged),
        ("RL.INFO {u42}:s", tagged),
        ("RL.REFUND {u42}:w 1", tagged),
        ("RL.MULTI 2 {u42}:s {u42}:f TOKENBUCKET 10 1/d FIXEDWINDOW 10 1d", tagged),
        ("RL.ACQUIRE {u42}:a 10 1d id", tagged),
        ("RL.RENEW {u42}:a 1d id u43", tagged),
        ("RL.LEASES {u42}:a", tagged),
        ("RL.SETTLE 2 {u42}:w {u42}:g 2 1", tagged),
        ("RL.MULTI 2 {u42}:a {u42}:s CONCURRENCY 10 1d u43 TOKENBUCKET 10 1/d COST 0", tagged),
        ("RL.RELEASE {u42}:a id u43", tagged),
        ("RL.RESET {u42}:l {u42}:w {u42}:g {u42}:t {u42}:c", tagged),
        ("RL.TOKENBUCKET u43 10 1/d", other),
        ("RL.PEEK u43", other),
    ] {
        let slot = cluster.slot(key);
        let owner = Cluster::first_owner(slot);
        let words: Vec<_> = line.split(' ').map(str::as_bytes).collect();
        for (index, node) in cluster.0.iter().enumerate() {
            let reply = try_send::<Value>(&mut node.connection(), &words);
            match reply {
                Ok(_) => assert_eq!(index, owner, "{line}"),
                Err(error) => {
                    let moved =
                        format!("MOVED {slot} 127.0.0.1:{}", cluster.0[owner].server.port());
                    assert_eq!(text(&error), moved, "{line} to server {index}");
                    assert_ne!(index, owner, "{line}");
                }
            }
        }
    }
    // Each was granted once and by one server, and what a tag joins is in one place.
    let peek: Vec<i64> = cluster.0[owner].send("RL.PEEK {u42}:s");
    assert_eq!(peek[2], 8);
    let keys: Vec<String> =
        cluster.0[owner].send(&format!("CLUSTER GETKEYSINSLOT {} 10", cluster.slot(tagged)));
    assert_eq!(keys.len(), 2, "{keys:?}");

    for line in [
        "RL.MULTI 2 u42 u43 SLIDING 10 1d SLIDING 10 1d",
        "RL.MULTI 3 {u42}a {u42}b u43 SLIDING 10 1d SLIDING 10 1d SLIDING 10 1d",
        "RL.SETTLE 2 u42 u43 2 1",
        "RL.RESET u42 u43",
        "RL.RESET {u42}:s {u42}:f u43",
    ] {
        let words: Vec<_> = line.split(' ').map(str::as_bytes).collect();
        for node in &cluster.0 {
            let error = crate::client::error(&mut node.connection(), &words);
            assert!(error.starts_with("CROSSSLOT "), "{line}: {error}");
        }
    }
    assert_eq!(cluster.assert_replicas_agree(), 3);

    // A replica answers those who look and say that old news will do.
    let mut replica = cluster.0[PRIMARIES + owner].connection();
    send::<()>(&mut replica, "READONLY");
    assert_eq!(send::<Vec<i64>>(&mut replica, "RL.PEEK {u42}:s")[2], 8);
    let error = crate::client::error(&mut replica, &[b"RL.SLIDING", b"{u42}:s", b"1", b"1m"]);
    assert!(error.starts_with("MOVED "), "{error}");
}

#[test]
fn a_cluster_client_needs_to_know_nothing_of_the_commands() {
    let cluster = Cluster::start(&[]);
    let address = format!("redis://127.0.0.1:{}/", cluster.0[0].server.port());
    let client = ClusterClient::new([address]).unwrap();
    let mut connection = client.get_connection().unwrap();
    for number in 0..200 {
        for expected in [2, 1, 0] {
            let reply: Vec<i64> = redis::cmd("RL.SLIDING")
                .arg(format!("user:{number}"))
                .arg(&["3", "1d"])
                .query(&mut connection)
                .unwrap();
            assert_eq!((reply[0], reply[2]), (1, expected));
        }
        let reply: Vec<Value> = redis::cmd("RL.MULTI")
            .arg(2)
            .arg(&[format!("{{{number}}}s"), format!("{{{number}}}d")])
            .arg(&["SLIDING", "3", "1d", "TOKENBUCKET", "3", "1/d"])
            .query(&mut connection)
            .unwrap();
        assert_eq!(reply[0], Value::Int(1), "routed by its keys, not by numkeys");
        let settled: Vec<Vec<i64>> = redis::cmd("RL.SETTLE")
            .arg(2)
            .arg(&[format!("{{{number}}}s"), format!("{{{number}}}d")])
            .arg(&[1, 2])
            .query(&mut connection)
            .unwrap();
        assert_eq!([settled[0][2], settled[1][2]], [1, 1]);
    }
    assert!(cluster.pairs().all(|(primary, _)| primary.send::<i64>("DBSIZE") > 100));
    assert_eq!(cluster.assert_replicas_agree(), 600);
}

#[test]
fn a_slot_that_moves_key_by_key_under_load_grants_no_unit_twice_and_forgets_none() {
    let cluster = Cluster::start(&[]);
    let slot = cluster.slot(USED[0].key);
    Load::run(&cluster, |load| {
        for (from, to) in journey(slot) {
            load.wait_for_rounds();
            let (source, target) = (&cluster.0[from], &cluster.0[to]);
            target.send::<()>(&format!("CLUSTER SETSLOT {slot} IMPORTING {}", source.id));
            source.send::<()>(&format!("CLUSTER SETSLOT {slot} MIGRATING {}", target.id));
            load.wait_for_rounds();
            let migrate = format!("MIGRATE 127.0.0.1 {} \"\" 0 10000 KEYS", target.server.port());
            let words: Vec<_> = migrate.split(' ').map(|word| word.trim_matches('"')).collect();
            let move_keys = |keys: &[String]| {
                let mut words: Vec<_> = words.iter().map(|word| word.as_bytes()).collect();
                words.extend(keys.iter().map(String::as_bytes));
                let moved: String = try_send(&mut source.connection(), &words).unwrap();
                // What RL.RESET has removed meanwhile is no key to move.
                assert!(["OK", "NOKEY"].contains(&moved.as_str()), "{moved}");
            };
            // One key of RL.MULTI is there already, the other is not yet.
            move_keys(&[USED[0].key.to_owned()]);
            Load::wait_for_more("a TRYAGAIN", &load.seen.try_again, 1);
            loop {
                let keys: Vec<String> = source.send(&format!("CLUSTER GETKEYSINSLOT {slot} 2"));
                if keys.is_empty() {
                    break;
                }
                move_keys(&keys);
            }
            Load::wait_for_more("an ASK", &load.seen.ask, 1);
            load.wait_for_rounds();
            for node in [target, source].into_iter().chain(&cluster.0[..PRIMARIES]) {
                node.send::<()>(&format!("CLUSTER SETSLOT {slot} NODE {}", target.id));
            }
        }
        load.wait_for_rounds();
    });
    assert_eq!(cluster.assert_replicas_agree(), USED.len() + PENALIZED.len());
}

/// What the user must be allowed as whom servers move slots (the setting `primaryuser`): what the servers' own commands ask
/// for, and our internal ones.
const MOVER: &str = "on >secret allkeys allchannels +ping +psync +replconf +cluster|syncslots \
                     +select +multi +exec +pexpireat +del +rl._restore +rl._add";

#[test]
fn a_slot_that_moves_at_once_under_load_grants_no_unit_twice_and_forgets_none() {
    if !moves_slots_at_once() {
        return;
    }
    let cluster = Cluster::start(&[]);
    let slot = cluster.slot(USED[0].key);
    let with_user = |rules: &str| cluster.set_mover(rules);
    Load::run(&cluster, |load| {
        for (step, (from, to)) in journey(slot).into_iter().enumerate() {
            load.wait_for_rounds();
            let (source, target) = (&cluster.0[from], &cluster.0[to]);
            if step == 1 {
                with_user(&MOVER.replace("+rl._restore", ""));
                let ended = migrate(source, target, slot);
                assert_eq!(
                    ended.0, "failed",
                    "a user who may not restore moves nothing: {ended:?}"
                );
                load.wait_for_rounds();
                with_user(MOVER);
            }
            let ended = migrate(source, target, slot);
            assert_eq!(ended.0, "success", "{from} to {to}: {ended:?}\n{}", target.server.log());
        }
        load.wait_for_rounds();
    });
    assert_eq!(cluster.assert_replicas_agree(), USED.len() + PENALIZED.len());
}

#[test]
fn a_slot_that_leaves_a_primary_without_replicas_takes_effects_alone_with_it() {
    if !moves_slots_at_once() {
        return;
    }
    let cluster = Cluster::of(PRIMARIES, &[]);
    // Whoever moves slots may not run the public commands: were one sent, the slot would not arrive.
    cluster.set_mover(MOVER);
    let slot = cluster.slot(USED[0].key);
    let times = if std::env::var_os("RL_LONG").is_some() { 100 } else { 10 };
    Load::run(&cluster, |load| {
        let start = Cluster::first_owner(slot);
        for step in start..start + times {
            let (source, target) =
                (&cluster.0[step % PRIMARIES], &cluster.0[(step + 1) % PRIMARIES]);
            load.wait_for_rounds();
            // Now and then it takes so long that the source looks for followers meanwhile.
            let keep_going =
                |yes| source.send::<()>(&format!("DEBUG SLOTMIGRATION PREVENT-PAUSE {yes}"));
            let is_long = step % PRIMARIES == 0;
            keep_going(u8::from(is_long));
            let ended = migrate_while(source, target, slot, || {
                if is_long {
                    assert_propagates(&source.server);
                    load.wait_for_rounds();
                    keep_going(0);
                }
            });
            assert_eq!(ended.0, "success", "step {step}: {ended:?}\n{}", target.server.log());
        }
        load.wait_for_rounds();
    });
}

fn moves_slots_at_once() -> bool {
    let server = Server::start().unwrap();
    let mut connection = server.connection().unwrap();
    let known: Vec<Value> = send(&mut connection, "COMMAND INFO CLUSTER|MIGRATESLOTS");
    if known == [Value::Nil] {
        println!("skipped: this server has no CLUSTER MIGRATESLOTS");
    }
    known != [Value::Nil]
}

/// Moves a slot by CLUSTER MIGRATESLOTS, and waits until that has ended: in which state, and what the server says of it.
fn migrate(source: &Node, target: &Node, slot: usize) -> (String, String) {
    migrate_while(source, target, slot, || {})
}

/// The same, but something is done after it has begun.
fn migrate_while(
    source: &Node,
    target: &Node,
    slot: usize,
    something: impl FnOnce(),
) -> (String, String) {
    let jobs = || -> HashMap<String, (String, String)> {
        let jobs: Vec<HashMap<String, Value>> = source.send("CLUSTER GETSLOTMIGRATIONS");
        let text = |job: &HashMap<String, Value>, field| {
            redis::from_redis_value::<String>(job[field].clone()).unwrap()
        };
        let entries =
            jobs.iter().map(|job| (text(job, "name"), (text(job, "state"), text(job, "message"))));
        entries.collect()
    };
    let before = jobs();
    let id = &target.id;
    source.send::<()>(&format!("CLUSTER MIGRATESLOTS SLOTSRANGE {slot} {slot} NODE {id}"));
    something();
    let mut ended = None;
    wait_for("the slot to have moved", || {
        let new = jobs().into_iter().find(|(name, _)| !before.contains_key(name));
        ended = new.map(|(_, job)| job);
        let state = ended.as_ref().map(|(state, _)| state.as_str());
        Ok(matches!(state, Some("success" | "failed" | "cancelled")))
    })
    .unwrap();
    ended.unwrap()
}
