//! A cluster of three: each command goes to the server of its slot, wherever that is just now.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use redis::{FromRedisValue, Value};
use redis_rl_gateway::redis::{Reason, Store, Unasked, slot};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::server::{Server, field, free_port, info};
use crate::store::{TIMEOUT, ask, command, integers, signal, store, until, until_closed};

const SLOTS: usize = 16_384;

/// Three masters that share the slots evenly.
pub struct Cluster(pub Vec<Server>);

impl Cluster {
    pub async fn start() -> Self {
        let cluster = Self((0..3).map(|_| node()).collect());
        for (index, server) in cluster.0.iter().enumerate() {
            let (first, end) = (index * SLOTS / 3, (index + 1) * SLOTS / 3);
            send::<()>(server, &format!("CLUSTER ADDSLOTSRANGE {first} {}", end - 1));
            send::<()>(server, &format!("CLUSTER SET-CONFIG-EPOCH {}", index + 1));
            for other in &cluster.0[..index] {
                let bus = bus_port(other);
                send::<()>(server, &format!("CLUSTER MEET 127.0.0.1 {} {bus}", other.port()));
            }
        }
        until("a cluster", async || {
            cluster.0.iter().all(|server| {
                let info: String = send(server, "CLUSTER INFO");
                info.contains("cluster_state:ok\r\n") && info.contains("cluster_known_nodes:3\r\n")
            })
        })
        .await;
        cluster
    }

    /// One server is enough to find the others, and need not be the first.
    pub fn url(&self) -> String {
        format!("redis+cluster://127.0.0.1:1,127.0.0.1:{}", self.0[2].port())
    }

    async fn store(&self, timeout: Duration) -> Store {
        let store = store(&self.url(), timeout);
        until_closed(&store).await;
        store
    }

    pub fn owner(key: &str) -> usize {
        let slot = usize::from(slot(key.as_bytes()));
        (0..3).find(|index| slot < (index + 1) * SLOTS / 3).unwrap()
    }

    /// A key of each server.
    fn keys() -> [String; 3] {
        [0, 1, 2].map(|index| {
            (0..).map(|key| format!("k{key}")).find(|key| Self::owner(key) == index).unwrap()
        })
    }
}

fn node() -> Server {
    let mut tries = 0;
    loop {
        let bus_port = free_port().unwrap();
        let started = Server::builder()
            .setting("cluster-enabled yes")
            .setting(format!("cluster-port {bus_port}"))
            .setting("cluster-announce-ip 127.0.0.1")
            // A master that is away takes nothing from the others.
            .setting("cluster-require-full-coverage no")
            .setting("cluster-node-timeout 2000")
            .start();
        match started {
            Ok(server) => return server,
            Err(error) if tries == 3 => panic!("{error}"),
            Err(_) => tries += 1,
        }
    }
}

fn send<T: FromRedisValue>(server: &Server, line: &str) -> T {
    command(line).command.query(&mut server.connection().unwrap()).unwrap()
}

fn bus_port(server: &Server) -> u16 {
    let settings: HashMap<String, u16> = send(server, "CONFIG GET cluster-port");
    settings["cluster-port"]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_of_all_slots_are_asked_at_once_and_answered_in_their_order() {
    let cluster = Cluster::start().await;
    let store = cluster.store(TIMEOUT).await;
    assert!(store.is_cluster());
    let lines = (1..=100).map(|limit| format!("RL.MULTI 1 key{limit} TOKENBUCKET {limit} 1"));
    let replies = store.ask(lines.map(|line| command(&line)).collect()).await.unwrap();
    for (limit, reply) in (1..=100).zip(replies) {
        let Ok(Value::Array(reply)) = reply else { panic!("{reply:?}") };
        assert_eq!(integers(Ok(reply[3].clone()))[..2], [1, limit]);
    }
    // Errors that are no redirections stay where they belong.
    let [first, second, ..] = Cluster::keys();
    let lines = [format!("RL.PEEK {first}"), format!("RL.TOKENBUCKET {second} x 1")];
    let replies = store.ask(lines.iter().map(|line| command(line)).collect()).await.unwrap();
    assert!(replies[0].is_ok() && replies[1].is_err(), "{replies:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_is_moved_under_load_grants_exactly_the_limit() {
    const LIMIT: i64 = 20_000;
    let cluster = Cluster::start().await;
    let store = cluster.store(TIMEOUT).await;
    let [key, ..] = Cluster::keys();
    let slot = slot(key.as_bytes());
    let (granted, asked) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
    // How many may ask: so the limit lasts until the last move.
    let gate = Arc::new(Semaphore::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..20 {
        let (store, key, gate) = (store.clone(), key.clone(), Arc::clone(&gate));
        let (granted, asked) = (Arc::clone(&granted), Arc::clone(&asked));
        tasks.spawn(async move {
            let line = format!("RL.FIXEDWINDOW {key} {LIMIT} 1h");
            while let Ok(permit) = gate.acquire().await {
                permit.forget();
                granted.fetch_add(integers(ask(&store, &line).await.unwrap())[0], Relaxed);
                asked.fetch_add(1, Relaxed);
            }
        });
    }
    let (mut at, mut moved) = (0, 0);
    for to in [1, 2, 0, 1] {
        let before = asked.load(Relaxed);
        gate.add_permits(1000);
        until("requests under way", async || asked.load(Relaxed) > before + 100).await;
        let (from, to_server) = (&cluster.0[at], &cluster.0[to]);
        let ids = [from, to_server].map(|server| send::<String>(server, "CLUSTER MYID"));
        send::<()>(to_server, &format!("CLUSTER SETSLOT {slot} IMPORTING {}", ids[0]));
        send::<()>(from, &format!("CLUSTER SETSLOT {slot} MIGRATING {}", ids[1]));
        let redirected = |error: &str| {
            let stats = info(&mut from.connection().unwrap(), "errorstats").unwrap();
            let count = field(&stats, &format!("errorstat_{error}"));
            count.map_or(0, |count| count.strip_prefix("count=").unwrap().parse::<u64>().unwrap())
        };
        let port = to_server.port();
        send::<Value>(from, &format!("MIGRATE 127.0.0.1 {port} {key} 0 5000"));
        // Now the old server sends to the new one whoever asks for the key.
        let before = redirected("ASK");
        until("the key to be asked for elsewhere", async || {
            gate.add_permits(20);
            redirected("ASK") > before
        })
        .await;
        // And now whoever asks for the slot.
        let before = redirected("MOVED");
        for server in [to_server, from] {
            send::<()>(server, &format!("CLUSTER SETSLOT {slot} NODE {}", ids[1]));
        }
        // The map may have been read meanwhile, and then nobody has to be sent.
        gate.add_permits(500);
        until("them to have asked", async || gate.available_permits() == 0).await;
        moved += redirected("MOVED") - before;
        at = to;
    }
    assert!(moved > 0, "nobody had to be sent to where a slot is now");
    assert!(granted.load(Relaxed) < LIMIT, "there was a limit to keep until the end");
    // With those before, more than the limit allows.
    gate.add_permits(LIMIT as usize);
    until("all to have asked", async || gate.available_permits() == 0).await;
    gate.close();
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    assert_eq!(granted.load(Relaxed), LIMIT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_takes_nothing_from_the_slots_of_the_others() {
    let cluster = Cluster::start().await;
    let store = cluster.store(Duration::from_millis(500)).await;
    let [away, others @ ..] = Cluster::keys();
    let peek = |key: &str| format!("RL.PEEK {key}");
    signal(&cluster.0[0], "-STOP");
    until("the breaker to open", async || {
        let reply = ask(&store, &peek(&away)).await;
        reply == Err(Unasked { reason: Reason::Open })
    })
    .await;
    assert!(store.is_open());
    for key in &others {
        ask(&store, &peek(key)).await.unwrap().unwrap();
    }
    // Nothing of a request is sent if not all can be.
    let take = format!("RL.TOKENBUCKET {} 10 1", others[0]);
    let both = vec![command(&take), command(&peek(&away))];
    assert_eq!(store.ask(both).await.unwrap_err(), Unasked { reason: Reason::Open });
    assert_eq!(ask(&store, &peek(&others[0])).await, Ok(Ok(Value::Nil)));

    signal(&cluster.0[0], "-CONT");
    until_closed(&store).await;
    ask(&store, &peek(&away)).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_takes_over_is_asked_and_knows_what_was_used() {
    let cluster = Cluster::start().await;
    let replica = node();
    let lost = &cluster.0[0];
    let id: String = send(lost, "CLUSTER MYID");
    send::<()>(&replica, &format!("CLUSTER MEET 127.0.0.1 {} {}", lost.port(), bus_port(lost)));
    // Those who do not know it yet would not vote for it.
    until("all to know the replica", async || {
        cluster.0.iter().chain([&replica]).all(|server| {
            send::<String>(server, "CLUSTER INFO").contains("cluster_known_nodes:4\r\n")
        })
    })
    .await;
    send::<()>(&replica, &format!("CLUSTER REPLICATE {id}"));
    until("the replica to be in step", async || {
        send::<String>(&replica, "INFO replication").contains("master_link_status:up")
    })
    .await;
    let store = cluster.store(TIMEOUT).await;
    let [key, other, ..] = Cluster::keys();
    let take = format!("RL.FIXEDWINDOW {key} 5 1h");
    for remaining in [4, 3] {
        assert_eq!(integers(ask(&store, &take).await.unwrap())[2], remaining);
    }
    let mut there = replica.connection().unwrap();
    redis::cmd("READONLY").exec(&mut there).unwrap();
    until("the replica to know of it", async || {
        let state: Vec<i64> = redis::cmd("RL.PEEK").arg(&key).query(&mut there).unwrap_or_default();
        state.get(2) == Some(&3)
    })
    .await;

    let mut servers = cluster.0.into_iter();
    drop(servers.next());
    until("the replica's answer", async || {
        let untouched = ask(&store, &format!("RL.PEEK {other}")).await;
        assert!(matches!(untouched, Ok(Ok(_))), "other slots are served meanwhile: {untouched:?}");
        matches!(ask(&store, &format!("RL.PEEK {key}")).await, Ok(Ok(_)))
    })
    .await;
    for remaining in [2, 1, 0] {
        assert_eq!(integers(ask(&store, &take).await.unwrap())[2], remaining);
    }
    assert_eq!(integers(ask(&store, &take).await.unwrap())[0], 0, "exactly the limit");
    until_closed(&store).await;
}
