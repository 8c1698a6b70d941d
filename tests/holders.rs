//! Real holders of leases, on the real clock: they die, are stopped, lose their connections, and come by the hundred.
//!
//! What is held is counted outside, so that the count is never too high: it goes up after the reply that grants a lease, and down
//! before the command that gives it back. Whatever the machine does to the threads, a count above the limit is then a fault.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Lines, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::SeqCst};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use redis::{Connection, RedisResult};

use crate::client::{Finally, send, try_send};
use crate::random::Random;
use crate::server::{Server, slowness, wait_for};

/// A lease as RL.LEASES lists it.
type Lease = (String, i64, i64);

fn leases(connection: &mut Connection, key: &str) -> Vec<Lease> {
    send(connection, &format!("RL.LEASES {key}"))
}

// ---- processes that hold leases

/// A process of its own that holds a lease: this very program, running [`hold`].
struct Holder {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Holder {
    /// Starts it, and waits until it holds its lease.
    fn start(server: &Server, key: &str, limit: u64, ttl_ms: u64, id: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "holders::hold", "--ignored", "--nocapture"])
            .env("RL_HOLD", format!("{} {key} {limit} {ttl_ms} {id}", server.port()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut holder = Self { child, lines };
        assert_eq!(holder.next("acquired"), 1, "{id}");
        holder
    }

    /// The number that it says next under this name.
    fn next(&mut self, name: &str) -> i64 {
        for line in self.lines.by_ref() {
            if let Some((_, number)) = line.unwrap().split_once(&format!("{name}: ")) {
                return number.parse().unwrap();
            }
        }
        panic!("it ended before it said {name}");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What such a process does: it acquires a lease, renews it while it works, stops when it is lost, and gives it back.
#[test]
#[ignore = "other tests run it, as a process of its own"]
fn hold() {
    let Ok(orders) = std::env::var("RL_HOLD") else { return };
    let orders: Vec<_> = orders.split(' ').collect();
    let [port, key, limit, ttl, id] = orders[..] else { panic!("{orders:?}") };
    let client = redis::Client::open(("127.0.0.1", port.parse::<u16>().unwrap())).unwrap();
    let mut connection = client.get_connection().unwrap();
    let granted: Vec<i64> =
        send(&mut connection, &format!("RL.ACQUIRE {key} {limit} {ttl}ms {id}"));
    println!("\nacquired: {}", granted[0]);
    loop {
        sleep(Duration::from_millis(ttl.parse::<u64>().unwrap() / 5));
        let held: i64 = send(&mut connection, &format!("RL.RENEW {key} {ttl}ms {id}"));
        println!("\nrenewed: {held}");
        if held == 0 {
            let released: i64 = send(&mut connection, &format!("RL.RELEASE {key} {id}"));
            println!("\nreleased: {released}");
            return;
        }
    }
}

#[test]
fn holders_that_are_killed_lose_their_slots_at_their_ttl() {
    const HOLDERS: usize = 4;
    let ttl_ms = 1_500 * u64::from(slowness());
    let server = Server::start().unwrap();
    let mut connection = server.connection().unwrap();
    let mut holders: Vec<_> = (0..HOLDERS)
        .map(|number| Holder::start(&server, "k", HOLDERS as u64, ttl_ms, &format!("h{number}")))
        .collect();
    // While they live they renew.
    holders.iter_mut().for_each(|holder| assert_eq!(holder.next("renewed"), 1));
    assert_eq!(leases(&mut connection, "k").len(), HOLDERS);
    for holder in &holders {
        holder.signal("-KILL");
    }
    holders.iter_mut().for_each(|holder| _ = holder.child.wait().unwrap());
    // A command of theirs that was on its way may have come after this.
    send::<String>(&mut connection, "PING");
    let before = Instant::now();
    let left = leases(&mut connection, "k");
    let after = Instant::now();
    assert_eq!(left.len(), HOLDERS, "none has run out yet");
    let (first, last) = (left[0].2.unsigned_abs(), left[HOLDERS - 1].2.unsigned_abs());
    assert!(last <= ttl_ms, "{left:?}");
    let span = |from: Instant, millis: u64| from + Duration::from_millis(millis);
    // Milliseconds are rounded up, and a server may look at its clock once in a tick: that is the most it is late.
    let tick = 10;

    // A slot is free when the first has run out, and all are when the last has.
    for (cost, ends) in [(1, first), (HOLDERS, last)] {
        let mut denied = 0;
        loop {
            let asked = Instant::now();
            let line = format!("RL.ACQUIRE k {HOLDERS} 1h heir COST {cost}");
            let granted = send::<Vec<i64>>(&mut connection, &line)[0] == 1;
            if granted {
                let now = Instant::now();
                assert!(now >= span(before, ends - 1), "{cost}: before its time");
                break;
            }
            assert!(asked <= span(after, ends + tick), "{cost}: denied too late");
            denied += 1;
            sleep(Duration::from_millis(1));
        }
        assert!(denied > 0, "{cost}");
    }
    assert_eq!(leases(&mut connection, "k").len(), 1);
}

#[test]
fn a_holder_that_was_stopped_past_its_ttl_finds_its_lease_lost_and_frees_nobody_s() {
    let ttl_ms = 600 * u64::from(slowness());
    let server = Server::start().unwrap();
    let mut connection = server.connection().unwrap();
    let mut holder = Holder::start(&server, "k", 1, ttl_ms, "stopped");
    assert_eq!(holder.next("renewed"), 1);
    holder.signal("-STOP");
    // Another takes over when the time is up.
    wait_for("the slot to be free", || {
        Ok(send::<Vec<i64>>(&mut connection, "RL.ACQUIRE k 1 1h heir")[0] == 1)
    })
    .unwrap();
    holder.signal("-CONT");
    // It may have renewed some times more before it was stopped.
    assert!((0..20).any(|_| holder.next("renewed") == 0), "it finds that it has lost its lease");
    assert_eq!(holder.next("released"), 0);
    assert!(holder.child.wait().unwrap().success());
    let left = leases(&mut connection, "k");
    assert_eq!((left.len(), left[0].0.as_str()), (1, "heir"), "{left:?}");
}

// ---- connections that break

/// A client whose connection breaks again and again: half of the calls are sent and never answered.
struct Shaky<'a> {
    server: &'a Server,
    connection: Option<Connection>,
    random: Random,
    cuts: usize,
}

impl Shaky<'_> {
    /// Sends a line until it is answered.
    fn send<T: redis::FromRedisValue>(&mut self, line: &str) -> T {
        while self.random.percent(50) {
            self.connection = None;
            self.cuts += 1;
            let mut stream = TcpStream::connect(("127.0.0.1", self.server.port())).unwrap();
            // It may be run or not, and nobody reads what is replied.
            stream.write_all(format!("{line}\r\n").as_bytes()).unwrap();
        }
        let connection = self.connection.get_or_insert_with(|| self.server.connection().unwrap());
        send(connection, line)
    }
}

#[test]
fn clients_that_retry_every_call_after_a_cut_connection_never_hold_two() {
    const LIMIT: usize = 3;
    const CLIENTS: usize = 6;
    let server = Server::start().unwrap();
    let (held, cuts) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let done = AtomicBool::new(false);
    let rounds = 60 / slowness() as usize;
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (server, held, cuts) = (&server, &held, &cuts);
                scope.spawn(move || {
                    let random = Random::new(number as u64);
                    let mut client = Shaky { server, connection: None, random, cuts: 0 };
                    for round in 0..rounds {
                        let id = format!("{number}:{round}");
                        let acquire = format!("RL.ACQUIRE k {LIMIT} 20s {id}");
                        while client.send::<Vec<i64>>(&acquire)[0] == 0 {
                            let held: Vec<Lease> = client.send("RL.LEASES k");
                            let own = held.iter().find(|lease| lease.0 == id);
                            assert_eq!(own, None, "what it holds is no reason to deny it");
                            sleep(Duration::from_millis(1));
                        }
                        let now = held.fetch_add(1, SeqCst) + 1;
                        assert!(now <= LIMIT, "{now} hold a slot");
                        assert_eq!(client.send::<i64>(&format!("RL.RENEW k 20s {id}")), 1);
                        held.fetch_sub(1, SeqCst);
                        // 0 where one that was not answered has done it.
                        assert!(client.send::<i64>(&format!("RL.RELEASE k {id}")) <= 1);
                    }
                    cuts.fetch_add(client.cuts, SeqCst);
                })
            })
            .collect();
        let observer = scope.spawn(|| {
            let mut connection = server.connection().unwrap();
            let mut most = 0;
            while !done.load(SeqCst) {
                let found = leases(&mut connection, "k");
                assert!(
                    found.len() <= LIMIT && found.iter().all(|lease| lease.1 == 1),
                    "{found:?}"
                );
                let of = |lease: &Lease| lease.0.split(':').next().unwrap().to_owned();
                let clients: HashSet<_> = found.iter().map(of).collect();
                assert_eq!(clients.len(), found.len(), "one client holds two: {found:?}");
                most = most.max(found.len());
            }
            most
        });
        let _end = Finally(&done);
        clients.into_iter().for_each(|client| client.join().unwrap());
        done.store(true, SeqCst);
        assert_eq!(observer.join().unwrap(), LIMIT, "they were all in use");
    });
    assert!(cuts.load(SeqCst) > rounds, "{cuts:?} cuts");
    // An acquisition that came late, after its own retry was given back, is the only thing that can be left: for its ttl.
    let mut connection = server.connection().unwrap();
    wait_for("all slots to be free", || Ok(send::<i64>(&mut connection, "EXISTS k") == 0)).unwrap();
}

// ---- many at once

#[test]
fn a_hundred_clients_at_once_never_hold_more_than_ten_slots() {
    const LIMIT: i64 = 10;
    let server = Server::start().unwrap();
    let (held, most, work) = (AtomicI64::new(0), AtomicI64::new(0), AtomicI64::new(0));
    let end = Instant::now() + Duration::from_secs(2);
    thread::scope(|scope| {
        for number in 0..100 {
            let (server, held, most, work) = (&server, &held, &most, &work);
            scope.spawn(move || {
                let mut connection = server.connection().unwrap();
                let mut random = Random::new(number);
                let mut round = 0;
                while Instant::now() < end {
                    let id = format!("{number}-{round}");
                    round += 1;
                    let cost = 1 + random.below(3).cast_signed();
                    let line = format!("RL.ACQUIRE k {LIMIT} 10m {id} COST {cost}");
                    let reply: Vec<i64> = send(&mut connection, &line);
                    if reply[0] == 0 {
                        sleep(Duration::from_millis(1 + random.below(5)));
                        continue;
                    }
                    let now = held.fetch_add(cost, SeqCst) + cost;
                    assert!(now <= LIMIT, "{now} units are held");
                    most.fetch_max(now, SeqCst);
                    if random.percent(30) {
                        assert_eq!(
                            send::<i64>(&mut connection, &format!("RL.RENEW k 10m {id}")),
                            1
                        );
                    }
                    sleep(Duration::from_micros(random.below(500)));
                    held.fetch_sub(cost, SeqCst);
                    assert_eq!(send::<i64>(&mut connection, &format!("RL.RELEASE k {id}")), 1);
                    work.fetch_add(1, SeqCst);
                }
            });
        }
    });
    println!("{work:?} pieces of work, at most {most:?} units at once");
    assert!(work.load(SeqCst) > 200 / i64::from(slowness()), "{work:?}");
    assert_eq!(most.load(SeqCst), LIMIT, "all of it was in use");
    assert_eq!(send::<i64>(&mut server.connection().unwrap(), "EXISTS k"), 0);
}

// ---- failover

/// A lease that a client held: from the reply that granted it to the command that gave it back, or to when it may have run out.
struct Held {
    id: String,
    /// 0: the first primary granted it, 1: the replica after it was promoted.
    by: usize,
    from: Instant,
    to: Instant,
}

/// The most of these that were held at one moment.
fn most_at_once<'a>(held: impl Iterator<Item = &'a Held>) -> i64 {
    let mut steps: Vec<_> = held.flat_map(|held| [(held.from, 1), (held.to, -1)]).collect();
    steps.sort();
    let mut now = 0;
    steps
        .into_iter()
        .map(|(_, step)| {
            now += step;
            now
        })
        .max()
        .unwrap_or(0)
}

#[test]
fn a_failover_under_load_gives_away_no_more_than_what_the_replica_was_not_sent() {
    const LIMIT: i64 = 5;
    const TTL: Duration = Duration::from_secs(1);
    let mut primary = Server::start().unwrap();
    let replica = Server::builder().replica_of(&primary).start().unwrap();
    replica.wait_for_sync(&primary).unwrap();
    send::<()>(&mut primary.connection().unwrap(), "SET any thing");
    replica.wait_for_sync(&primary).unwrap();
    let (stop, all) = (AtomicBool::new(false), Mutex::new(Vec::<Held>::new()));
    let done = [AtomicI64::new(0), AtomicI64::new(0)];
    let ports = [primary.port(), replica.port()];
    let mut known = HashMap::new();
    thread::scope(|scope| {
        let _end = Finally(&stop);
        for number in 0..12 {
            let (stop, all, done) = (&stop, &all, &done);
            scope.spawn(move || {
                let mut random = Random::new(number);
                let connect = |place: usize| {
                    let client = redis::Client::open(("127.0.0.1", ports[place])).unwrap();
                    client.get_connection().unwrap()
                };
                let (mut place, mut connection) = (0, connect(0));
                let mut round = 0;
                while !stop.load(SeqCst) {
                    round += 1;
                    let id = format!("{number}-{round}");
                    // What the replica still knows of a lease that was given back to the old primary stands in the way for so long.
                    let line = format!("RL.ACQUIRE k {LIMIT} {}ms {id}", TTL.as_millis());
                    let asked = Instant::now();
                    let words: Vec<_> = line.split(' ').map(str::as_bytes).collect();
                    let reply: RedisResult<Vec<i64>> = try_send(&mut connection, &words);
                    let Ok(reply) = reply else {
                        // The primary is lost.
                        assert_eq!(place, 0, "{reply:?}");
                        (place, connection) = (1, connect(1));
                        continue;
                    };
                    if reply[0] == 0 {
                        sleep(Duration::from_millis(1));
                        continue;
                    }
                    let by = place;
                    let from = Instant::now();
                    sleep(Duration::from_micros(random.below(2_000)));
                    let to = Instant::now().min(asked + TTL).max(from);
                    let release = [&b"RL.RELEASE"[..], b"k", id.as_bytes()];
                    if try_send::<i64>(&mut connection, &release).is_err() {
                        assert_eq!(place, 0);
                        (place, connection) = (1, connect(1));
                        let released: i64 = try_send(&mut connection, &release).unwrap();
                        assert!(released <= 1, "it knew of it or not");
                    }
                    all.lock().unwrap().push(Held { id, by, from, to });
                    done[by].fetch_add(1, SeqCst);
                }
            });
        }
        let go_on = |place: usize| {
            let before = done[place].load(SeqCst);
            wait_for("leases", || Ok(done[place].load(SeqCst) > before + 200)).unwrap();
        };
        go_on(0);
        // One that the replica was sent for sure.
        let mut connection = primary.connection().unwrap();
        let line = format!("RL.ACQUIRE k {LIMIT} 1m sent");
        wait_for("a slot", || Ok(send::<Vec<i64>>(&mut connection, &line)[0] == 1)).unwrap();
        assert_eq!(send::<i64>(&mut connection, "WAIT 1 0"), 1);
        let mut connection = replica.connection().unwrap();
        // At one moment: it is promoted, and this is what it knows.
        let mut pipe = redis::pipe();
        pipe.atomic().cmd("REPLICAOF").arg(&["NO", "ONE"]).ignore().cmd("RL.LEASES").arg("k");
        let (found,): (Vec<Lease>,) = pipe.query(&mut connection).unwrap();
        known = found.into_iter().map(|lease| (lease.0, lease.1)).collect();
        // The old primary goes on granting for a while, and nobody is sent it.
        go_on(0);
        primary.kill();
        go_on(1);
    });
    let all = all.into_inner().unwrap();
    assert!(known.contains_key("sent"), "{known:?}");
    let is_known = |held: &Held| known.contains_key(&held.id);
    assert!(known.len() as i64 <= LIMIT, "{known:?}");
    assert!(most_at_once(all.iter().filter(|held| held.by == 0)) <= LIMIT);
    // Of those slots one is left to what was sent for sure.
    let all_after = all.iter().filter(|held| held.by == 1);
    assert!(most_at_once(all_after) < LIMIT, "it counts on the new primary");
    // What the new primary granted, and what it knew of the old one's, is never more than the limit.
    let after = all.iter().filter(|held| held.by == 1 || is_known(held));
    let most = most_at_once(after);
    assert!(most <= LIMIT, "{most}");
    // All together are at most the lost ones more.
    let first = all.iter().filter(|held| held.by == 1).map(|held| held.from).min().unwrap();
    let lost = all.iter().filter(|held| held.by == 0 && !is_known(held) && held.to > first).count();
    let most = most_at_once(all.iter());
    assert!(most <= LIMIT + lost as i64, "{most} with {lost} lost");
    println!("{} known, {lost} lost, at most {most} at once", known.len());
}
