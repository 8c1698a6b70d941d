//! A replica takes the place of a lost primary, as Sentinel would have it, and its clock is another.
//!
//! ```text
//! primary -> first -> second          each is promoted when the one before is lost
//! ```
//!
//! Whatever the clocks are apart: no key is locked for longer than two windows (a bucket: than what it had used
//! takes to drain twice; leases, of which each counts for at most two ttls by itself: three), and at most what was used is granted once more. Where they agree, nothing is granted twice but
//! what the replica had not been sent yet.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use std::thread::{self, sleep};
use std::time::Duration;

use redis::Connection;

use crate::client::{Finally, T0, send, try_send, used};
use crate::random::{Random, seeds};
use crate::server::{Server, wait_for};

/// How fast a limit gives back what was used.
#[derive(Clone, Copy, Debug)]
enum Pace {
    /// All at once, at the end of a window that began with the first unit.
    Fixed { window: u64 },
    /// Each unit by itself, so long after it was taken.
    Sliding { window: u64 },
    /// One unit in so many microseconds.
    Draining { unit: u64 },
}

/// What has happened to a key.
struct History {
    key: String,
    limits: String,
    limit: u64,
    pace: Pace,
    forces: bool,
    /// The time that passes outside, in microseconds.
    now: u64,
    /// What the server's clock adds to it.
    clock: i64,
    /// What the clock showed at the last grant that the server knows of.
    last: u64,
    /// Units and when they were granted.
    grants: Vec<(u64, u64)>,
    /// How many grants there were when a replica took over, and how much it may have granted twice.
    steps: Vec<(usize, u64)>,
}

impl History {
    fn new(number: usize, random: &mut Random) -> Self {
        let limit = random.one_of(&[1, 2, 3, 10, 50]);
        let window = random.one_of(&[10_000, 300_000, 1_000_000, 60_000_000, 86_400_000_000]);
        let unit = random.one_of(&[10, 7_000, 1_000_000, 77_777_777]);
        let buckets = random.one_of(&[1, 2, 7, 16, 1_024]);
        let align = random.one_of(&["", "ALIGN 0", "ALIGN -8h"]);
        let (limits, pace) = match number % 6 {
            0 => (format!("TOKENBUCKET {limit} 1/{unit}us"), Pace::Draining { unit }),
            1 => (format!("LEAKYBUCKET {limit} 1/{unit}us"), Pace::Draining { unit }),
            2 => (format!("FIXEDWINDOW {limit} {window}us {align}"), Pace::Fixed { window }),
            3 => {
                (format!("SLIDING {limit} {window}us BUCKETS {buckets}"), Pace::Sliding { window })
            }
            4 => (format!("SLIDINGLOG {limit} {window}us"), Pace::Sliding { window }),
            // Of leases that nobody gives back each runs out by itself.
            _ => (format!("CONCURRENCY {limit} {window}us"), Pace::Sliding { window }),
        };
        let key = format!("k{number}");
        let forces = !limits.starts_with("CONCURRENCY") && random.percent(20);
        let (now, clock) = (random.below(1 << 40), 0);
        Self {
            key,
            limits,
            limit,
            pace,
            forces,
            now,
            clock,
            last: T0,
            grants: vec![],
            steps: vec![],
        }
    }

    fn is_of_leases(&self) -> bool {
        self.limits.starts_with("CONCURRENCY")
    }

    /// How long it takes until nothing of `units` is used any more.
    fn span(&self, units: u64) -> u64 {
        match self.pace {
            Pace::Fixed { window } | Pace::Sliding { window } => window,
            Pace::Draining { unit } => unit * units,
        }
    }

    /// What the server's clock shows, far enough from both ends.
    fn at(&self) -> u64 {
        (T0 + 2_000_000_000_000_000 + self.now).checked_add_signed(self.clock).unwrap()
    }

    /// Asks for units of the key, or of a copy of it.
    fn ask(&self, connection: &mut Connection, key: &str, options: &str) -> Vec<i64> {
        let limits = self.limits.replacen(' ', &format!(" {key} "), 1);
        if let Some(limits) = limits.strip_prefix("CONCURRENCY") {
            // Another holder each time.
            let holder = format!("{}-{}", self.now, self.grants.len());
            let line = format!("RL.ACQUIRE{limits} {holder} {options} AT {}", self.at());
            return send(connection, &line);
        }
        send(connection, &format!("RL.{limits} {options} AT {}", self.at()))
    }

    /// The units in use at a moment of the server's clock.
    fn used(&self, connection: &mut Connection, at: u64) -> u64 {
        let at = format!("AT {at}");
        used(connection, &self.key, &at).unsigned_abs()
    }

    /// Lets time pass and asks for units, again and again; how many were granted.
    fn load(&mut self, connection: &mut Connection, random: &mut Random, requests: u64) -> u64 {
        let mut granted = 0;
        for _ in 0..requests {
            self.now += match random.below(4) {
                0 | 1 => 0,
                2 => random.below(self.span(1) + 1),
                _ => random.below(self.span(self.limit) + 1),
            };
            let cost = 1 + random.below(self.limit + 1);
            let option = match random.below(4) {
                0 if self.forces => "FORCE",
                1 if self.is_of_leases() => "",
                1 => "PARTIAL",
                _ => "",
            };
            let reply = self.ask(connection, &self.key, &format!("COST {cost} {option}"));
            let units =
                reply.get(5).map_or(reply[0].unsigned_abs() * cost, |units| units.unsigned_abs());
            if units > 0 {
                self.grants.push((self.now, units));
                self.last = self.at();
                granted += units;
            }
        }
        granted
    }

    /// Asserts that all units can be had within a time, exactly when it is said.
    fn assert_unlocks_within(&mut self, connection: &mut Connection, micros: u64) {
        send::<()>(connection, "DEL copy");
        send::<i64>(connection, &format!("COPY {} copy", self.key));
        let (now, all) = (self.now, format!("COST {}", self.limit));
        let first = self.ask(connection, "copy", &all);
        if first[0] == 0 {
            let wait = first[3].unsigned_abs() * 1_000;
            let bound = micros.next_multiple_of(1_000);
            assert!(wait <= bound, "{self:?} is locked for {wait} us, not {bound}");
            self.now = now + wait - 1_000;
            assert_eq!(self.ask(connection, "copy", &all)[0], 0, "{self:?} too early");
            self.now = now + wait;
            assert_eq!(self.ask(connection, "copy", &all)[0], 1, "{self:?} as promised");
            self.now = now;
        }
    }

    /// Asserts that in no span more was granted than the limit allows, and what clocks that step may add.
    fn assert_limit_held(&self) {
        for (first, (start, _)) in self.grants.iter().enumerate() {
            let mut granted = 0;
            for (index, (time, units)) in self.grants.iter().enumerate().skip(first) {
                granted += units;
                let between =
                    self.steps.iter().filter(|(step, _)| (first + 1..=index).contains(step));
                let twice: u64 = between.map(|(_, twice)| twice).sum();
                let span = time - start;
                let allowed = match self.pace {
                    Pace::Fixed { window } if span < window => 2 * self.limit,
                    Pace::Sliding { window } if span < window => self.limit,
                    Pace::Draining { unit } => self.limit + span / unit,
                    _ => break,
                };
                assert!(granted <= allowed + twice, "{self:?}: {granted} from {first} to {index}");
            }
        }
    }
}

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { key, limits, clock, grants, steps, now, .. } = self;
        write!(f, "{key} of {limits} at {now} with a clock {clock} us apart, {grants:?}, {steps:?}")
    }
}

fn promote(replica: &Server) -> Connection {
    let mut connection = replica.connection().unwrap();
    send::<()>(&mut connection, "REPLICAOF NO ONE");
    connection
}

/// Takes over from a lost primary, each key by a clock of its own.
fn fail_over(
    histories: &mut [History],
    random: &mut Random,
    lost: &mut Server,
    heir: &Server,
) -> Connection {
    heir.wait_for_sync(lost).unwrap();
    let mut old = lost.connection().unwrap();
    let mut new = promote(heir);
    for history in histories {
        let (last, known) = (history.last, history.used(&mut new, history.last));
        // What the old primary grants before it ends is lost.
        let unsent = if random.percent(30) { history.load(&mut old, random, 3) } else { 0 };
        history.last = last;
        let span = history.span(known);
        let apart = match random.below(8) {
            0 => 0,
            1 => random.below(1_000),
            2 => random.below(span + 1),
            3 => span,
            4 => span + 1,
            5 => 2 * span,
            6 => random.below(20 * span + 1),
            _ => random.below(1_000_000_000_000_000),
        } as i64;
        let apart = if random.percent(50) { -apart } else { apart };
        let twice = if apart == 0 {
            unsent
        } else if history.limits.contains("ALIGN") {
            // The edges of its windows move, too, and around each the limit may pass twice.
            history.used(&mut old, history.at()) + history.limit
        } else {
            history.used(&mut old, history.at())
        };
        history.steps.push((history.grants.len(), twice));
        history.clock += apart;
        if random.percent(70) {
            // Each lease goes by its own moment: one counts again when the clock gets within its ttl, while others still count.
            let windows = if history.is_of_leases() { 3 } else { 2 };
            let micros = windows * history.span(known.max(1));
            history.assert_unlocks_within(&mut new, micros);
        }
    }
    lost.kill();
    new
}

#[test]
fn nothing_is_locked_and_no_limit_granted_more_than_once_more_when_clocks_are_apart() {
    let keys = if std::env::var_os("RL_LONG").is_some() { 2_000 } else { 400 };
    for seed in seeds() {
        let mut random = Random::new(seed);
        let mut histories: Vec<_> = (0..keys).map(|key| History::new(key, &mut random)).collect();
        let start = || Server::builder().virtual_clock();
        let mut primary = start().start().unwrap();
        let mut first = start().replica_of(&primary).start().unwrap();
        let second = start().replica_of(&first).start().unwrap();
        let mut connection = primary.connection().unwrap();
        let load = |connection: &mut Connection, histories: &mut [History], random: &mut Random| {
            for history in histories {
                history.load(connection, random, 8);
            }
        };
        load(&mut connection, &mut histories, &mut random);
        first.wait_for_sync(&primary).unwrap();
        second.wait_for_sync(&first).unwrap();
        let mut connection = fail_over(&mut histories, &mut random, &mut primary, &first);
        load(&mut connection, &mut histories, &mut random);
        let mut connection = fail_over(&mut histories, &mut random, &mut first, &second);
        load(&mut connection, &mut histories, &mut random);

        let unforced: Vec<_> = histories.iter().filter(|history| !history.forces).collect();
        unforced.iter().for_each(|history| history.assert_limit_held());
        // The clocks were in the way of some, and some profited from it.
        let twice = unforced.iter().filter(|history| history.steps.iter().any(|step| step.1 > 0));
        assert!(twice.count() > keys / 10);
    }
}

#[test]
fn clients_that_fail_over_under_load_get_at_most_what_was_lost_once_more() {
    const LIMIT: i64 = 1_500;
    const CLIENTS: i64 = 3;
    let commands = [
        ("token", format!("RL.TOKENBUCKET token {LIMIT} 1/3650d")),
        ("leaky", format!("RL.LEAKYBUCKET leaky {LIMIT} 1/3650d")),
        ("fixed", format!("RL.FIXEDWINDOW fixed {LIMIT} 1d")),
        ("sliding", format!("RL.SLIDING sliding {LIMIT} 1d")),
        ("log", format!("RL.SLIDINGLOG log {LIMIT} 1d")),
        ("slots", format!("RL.ACQUIRE slots {LIMIT} 1d #")),
        ("multi", format!("RL.MULTI 1 multi SLIDING {LIMIT} 1d")),
    ];
    let mut primary = Server::start().unwrap();
    let replica = Server::builder().replica_of(&primary).start().unwrap();
    replica.wait_for_sync(&primary).unwrap();
    // A fresh link may stand idle for a second before the first write goes through it.
    send::<()>(&mut primary.connection().unwrap(), "SET any thing");
    replica.wait_for_sync(&primary).unwrap();
    let answered: BTreeMap<_, _> =
        commands.iter().map(|(key, _)| (*key, [AtomicI64::new(0), AtomicI64::new(0)])).collect();
    let promoted = AtomicBool::new(false);
    let mut known = BTreeMap::new();
    thread::scope(|scope| {
        // Whatever happens, the clients come to an end.
        let _end = Finally(&promoted);
        for client in 0..CLIENTS as usize {
            let mut connections = [&primary, &replica].map(|server| server.connection().unwrap());
            let (commands, answered, promoted) = (&commands, &answered, &promoted);
            scope.spawn(move || {
                for (place, connection) in connections.iter_mut().enumerate() {
                    // The primary until it is lost, then the replica until it denies all.
                    let mut denied = 0;
                    let calls = commands.iter().cycle().skip(client);
                    for (call, (key, line)) in calls.enumerate() {
                        let line = line.replace('#', &format!("{client}:{place}:{call}"));
                        let words: Vec<_> = line.split(' ').map(str::as_bytes).collect();
                        let Ok(reply) = try_send::<Vec<redis::Value>>(connection, &words) else {
                            break;
                        };
                        let granted = reply[0] == redis::Value::Int(1);
                        answered[key][place].fetch_add(granted.into(), SeqCst);
                        denied = if granted { 0 } else { denied + 1 };
                        if denied == commands.len() {
                            break;
                        }
                    }
                    while !promoted.load(SeqCst) {
                        sleep(Duration::from_millis(1));
                    }
                }
            });
        }
        let reach = |goal| {
            let least = || answered.values().map(|answered| answered[0].load(SeqCst)).min();
            wait_for("grants", || Ok(least() >= Some(goal))).unwrap();
        };
        reach(LIMIT / 4);
        let mut connection = promote(&replica);
        for (key, _) in &commands {
            known.insert(*key, used(&mut connection, key, ""));
        }
        // It goes on for a while, and the promoted replica is not sent it.
        reach(LIMIT / 2);
        primary.kill();
    });
    let mut connection = replica.connection().unwrap();
    for (key, answered) in &answered {
        let [before, after] = [answered[0].load(SeqCst), answered[1].load(SeqCst)];
        let known = known[key];
        assert!(known >= 1 && known <= before + CLIENTS, "{key}: {known} of {before} known");
        assert_eq!(after, LIMIT - known, "{key}: all that was left, and nothing else");
        assert!(before + after <= LIMIT + (before - known).max(0), "{key}");
        assert_eq!(used(&mut connection, key, ""), LIMIT, "{key}");
    }
}
