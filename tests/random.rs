//! Random commands of every kind from a seeded generator: for servers that are to be kept busy.
//!
//! The keys are few and the limits small and changing, so that grants, denials, debts, expired keys and keys of the
//! wrong kind all occur, alone, in transactions, in scripts and in functions. A test that fails prints the seed;
//! RL_SEED=seed repeats it, and RL_LONG=1 tries more of them.

use std::env;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use redis::{Connection, ErrorKind, RedisError, Value};

use crate::client::{T0, send, try_send};

/// The seeds to try.
pub fn seeds() -> Vec<u64> {
    match env::var("RL_SEED") {
        Ok(seed) => vec![seed.parse().expect("RL_SEED is a number")],
        Err(_) if env::var_os("RL_LONG").is_some() => (1..=20).collect(),
        Err(_) => vec![1],
    }
}

/// A seeded generator (SplitMix64). It tells its seed if the test fails.
pub struct Random {
    seed: u64,
    state: u64,
}

impl Random {
    pub fn new(seed: u64) -> Self {
        Self { seed, state: seed }
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % end
    }

    /// True so many times of a hundred.
    pub fn percent(&mut self, times: u64) -> bool {
        self.below(100) < times
    }

    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

impl Drop for Random {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("RL_SEED={} repeats it", self.seed);
        }
    }
}

/// Whose clock decides.
#[derive(Clone, Copy)]
pub enum Clock {
    /// The server's.
    Real,
    /// The commands': it goes on by little, and now and then steps far in either direction.
    Virtual {
        /// Microseconds since 1970.
        now: u64,
    },
}

impl Clock {
    /// A virtual clock that has room to step to both sides.
    pub fn stepping() -> Self {
        Self::Virtual { now: T0 + 1_000_000_000_000_000 }
    }
}

/// The keys' names; the algorithm that is mostly used on one is given by its number.
pub fn keys() -> impl Iterator<Item = String> {
    (0..KEYS).map(|number| format!("k{number}"))
}

const KEYS: u64 = 30;
const KINDS: u64 = ALGORITHMS.len() as u64;
const ALGORITHMS: [&str; 6] =
    ["TOKENBUCKET", "LEAKYBUCKET", "FIXEDWINDOW", "SLIDING", "SLIDINGLOG", "CONCURRENCY"];

/// A function and a script that call each command they are given, its words after their number.
const CALL_ALL: &str = "local i, replies = 1, 0
    while i <= #args do
        redis.pcall(unpack(args, i + 1, i + args[i]))
        i, replies = i + args[i] + 1, replies + 1
    end
    return replies";

/// Random commands.
pub struct Load {
    pub random: Random,
    clock: Clock,
}

impl Load {
    pub fn new(seed: u64, clock: Clock) -> Self {
        Self { random: Random::new(seed), clock }
    }

    /// Loads the function that random commands call.
    pub fn load_function(connection: &mut Connection) {
        let library = format!(
            "#!lua name=load\nredis.register_function('call_all', function(keys, args) {CALL_ALL} end)"
        );
        let words: [&[u8]; 4] = [b"FUNCTION", b"LOAD", b"REPLACE", library.as_bytes()];
        try_send::<()>(connection, &words).expect("the function is loaded");
    }

    /// Sends random commands, alone and several as one. Most errors are answers like others.
    pub fn run(&mut self, connection: &mut Connection, rounds: u64) {
        for _ in 0..rounds {
            let several = 1 + self.random.below(5);
            match self.random.below(20) {
                0 => {
                    send::<()>(connection, "MULTI");
                    for _ in 0..several {
                        let line = self.line();
                        check(&line, try_send(connection, &words(&line)));
                    }
                    check("EXEC", try_send(connection, &[b"EXEC"]));
                }
                1 => {
                    let script = format!("local args = ARGV {CALL_ALL}");
                    self.call_all(connection, &[b"EVAL", script.as_bytes(), b"0"], several);
                }
                2 => self.call_all(connection, &[b"FCALL", b"call_all", b"0"], several),
                3 if self.random.percent(30) => {
                    let database = self.random.below(2);
                    send::<()>(connection, &format!("SELECT {database}"));
                }
                _ => {
                    let line = self.line();
                    check(&line, try_send(connection, &words(&line)));
                }
            }
        }
    }

    fn call_all(&mut self, connection: &mut Connection, call: &[&[u8]], several: u64) {
        let mut args = Vec::new();
        for _ in 0..several {
            let line = self.line();
            args.push(words(&line).len().to_string());
            args.extend(line.split_whitespace().map(str::to_owned));
        }
        let args: Vec<_> = args.iter().map(String::as_bytes).collect();
        match try_send::<u64>(connection, &[call, &args].concat()) {
            Ok(replies) => assert_eq!(replies, several),
            Err(error) => panic!("{args:?}: {error}"),
        }
    }

    /// A random command.
    fn line(&mut self) -> String {
        let at = self.at();
        let (key, algorithm) = self.key();
        match self.random.below(100) {
            0..55 => {
                let limits = self.limits(algorithm);
                if algorithm == "CONCURRENCY" {
                    return format!("RL.ACQUIRE {key} {limits} {at}");
                }
                let options = self.random.one_of(&["", "", "", "", "", "PARTIAL", "FORCE"]);
                format!("RL.{algorithm} {key} {limits} {options} {} {at}", self.block())
            }
            55..59 => {
                let several = self.random.one_of(&["", "", "b", "c b d"]);
                format!("RL.RELEASE {} {} {several} {at}", self.leased(), self.id())
            }
            59..62 => {
                let window = self.random.one_of(&["5ms", "300ms", "1", "1m"]);
                let several = self.random.one_of(&["", "", "b", "c b d"]);
                format!("RL.RENEW {} {window} {} {several} {at}", self.leased(), self.id())
            }
            62..66 => {
                let [reserved, used] = [0, 1].map(|_| self.random.one_of(&[0, 1, 2, 5, 1_000]));
                let (other, _) = self.key();
                format!("RL.SETTLE 2 {key} {other} {reserved} {used} {at}")
            }
            66..72 => {
                let units = self.random.one_of(&[0, 1, 1, 2, 5, 1_000]);
                format!("RL.REFUND {key} {units} {at}")
            }
            72..75 => format!("RL.RESET {key} {}", self.key().0),
            75..82 => {
                let count = 1 + self.random.below(4);
                let first = self.random.below(KEYS);
                let (mut keys, mut limits) = (String::new(), String::new());
                for number in first..first + count {
                    let algorithm = ALGORITHMS[number as usize % ALGORITHMS.len()];
                    keys += &format!(" k{}", number % KEYS);
                    limits += &format!(" {algorithm} {}", self.limits(algorithm));
                    if algorithm != "CONCURRENCY" {
                        limits += &format!(" {}", self.block());
                    }
                }
                let force = self.random.one_of(&["", "", "", "FORCE"]);
                format!("RL.MULTI {count}{keys}{limits} {force} {at}")
            }
            82..87 => {
                let name = self.random.one_of(&["CL", "RL"]);
                let burst = self.random.below(10);
                let rate = self.random.one_of(&["1 1", "10 1", "3 2", "1000 7", "1 60"]);
                let quantity = self.random.below(4);
                format!("{name}.THROTTLE {} {burst} {rate} {quantity} {at}", self.bucket())
            }
            87..90 => self.planted(),
            90..92 => format!("PEXPIRE {key} {}", 1 + self.random.below(3_000)),
            92 => format!("PERSIST {key}"),
            93 => format!("COPY {} {} REPLACE", self.bucket(), self.bucket()),
            94 => format!("RENAME {} {}", self.bucket(), self.bucket()),
            95..97 => format!("RL.PEEK {key} {at}"),
            97 => format!("RL.INFO {key} {at}"),
            98 => format!("RL.{algorithm} {key} 1 0 {at}"),
            _ => format!("UNLINK {key}"),
        }
    }

    /// A key and an algorithm, mostly its own.
    fn key(&mut self) -> (String, &'static str) {
        let number = self.random.below(KEYS);
        let other = if self.random.percent(5) { self.random.below(6) } else { 0 };
        (format!("k{number}"), ALGORITHMS[(number + other) as usize % ALGORITHMS.len()])
    }

    /// A token bucket's key.
    fn bucket(&mut self) -> String {
        format!("k{}", self.random.below(KEYS / KINDS) * KINDS)
    }

    /// A concurrency limit's key.
    fn leased(&mut self) -> String {
        format!("k{}", self.random.below(KEYS / KINDS) * KINDS + KINDS - 1)
    }

    /// The id of a holder: of any length, and few enough that they come again.
    fn id(&mut self) -> String {
        let long = "a-holder-whose-id-is-as-long-as-an-id-may-be-and-not-a-byte-more";
        let id = self.random.one_of(&["a", "b", "c", "d", "e", "f", "16-bytes-of-an-id", long]);
        id.to_owned()
    }

    /// What is done about those who ask on.
    fn block(&mut self) -> &'static str {
        self.random.one_of(&["", "", "", "BLOCK 5ms", "BLOCK 300ms AFTER 2", "BLOCK 2s AFTER 4"])
    }

    /// A limit, a rate or a window, and options that only this algorithm has, or all have.
    fn limits(&mut self, algorithm: &str) -> String {
        let limit = self.random.one_of(&[0, 1, 2, 3, 5, 10, 20, 1_000]);
        let cost = self.random.one_of(&["", "", "", "COST 0", "COST 2", "COST 3", "COST 9"]);
        let window = self.random.one_of(&["5ms", "30ms", "300ms", "1", "2.5", "1m"]);
        let rate = self.random.one_of(&["0.5", "1", "10", "3/7", "1000", "7/1m", "1000000"]);
        let percent = self.random.below(100);
        match algorithm {
            "TOKENBUCKET" | "LEAKYBUCKET" => format!("{limit} {rate} {cost}"),
            "CONCURRENCY" => format!("{limit} {window} {} {cost}", self.id()),
            "FIXEDWINDOW" if percent < 50 => format!("{limit} {window} ALIGN -{percent}ms {cost}"),
            "SLIDING" if percent < 80 => format!("{limit} {window} BUCKETS {} {cost}", percent + 1),
            _ => format!("{limit} {window} {cost}"),
        }
    }

    /// A string as redis-cell leaves it.
    fn planted(&mut self) -> String {
        let key = self.bucket();
        let ahead = self.random.below(3_000);
        match self.clock {
            Clock::Real => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
                let arrival = now.as_nanos() + u128::from(ahead) * 1_000_000;
                format!("SET {key} {arrival} PX {}", ahead + 1)
            }
            Clock::Virtual { now } => {
                let arrival = now * 1_000 + ahead * 1_000_000;
                format!("SET {key} {arrival} PXAT {}", now / 1_000 + ahead + 1)
            }
        }
    }

    /// The option that gives the time, if it is to be given.
    fn at(&mut self) -> String {
        let Clock::Virtual { now } = &mut self.clock else {
            return String::new();
        };
        *now += match self.random.below(4) {
            0 => 0,
            1 => self.random.below(1_000),
            _ => self.random.below(100_000),
        };
        // From a millisecond to ten days.
        let step = 10u64.pow(3 + self.random.below(10) as u32);
        match self.random.below(200) {
            0 => *now += step,
            1 => *now -= step.min(*now - T0),
            _ => {}
        }
        format!("AT {now}")
    }
}

fn words(line: &str) -> Vec<&[u8]> {
    line.split_whitespace().map(str::as_bytes).collect()
}

fn check(line: &str, reply: Result<Value, RedisError>) {
    if let Err(error) = reply {
        assert!(error.kind() != ErrorKind::Io, "{line}: {error}");
        assert!(!error.to_string().contains("internal error"), "{line}: {error}");
    }
}
