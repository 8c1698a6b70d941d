//! What a rule allows, as the words of a rule of RL.MULTI: `TOKENBUCKET 100 100/1m COST 2`.
//!
//! | `algorithm` | words | in a span of t it grants at most |
//! | --- | --- | --- |
//! | `token_bucket` | `TOKENBUCKET burst requests/unit` | burst + rate × t |
//! | `leaky_bucket` | `LEAKYBUCKET burst requests/unit` | one each unit/requests, the rest waits its turn |
//! | `fixed_window` | `FIXEDWINDOW requests unit ALIGN 0` | requests in each window since 1970, so twice that around an edge |
//! | `sliding_window` | `SLIDING requests unit` | requests in every span of one unit |
//! | `sliding_log` | `SLIDINGLOG requests unit` | the same, exactly on time |
//! | `concurrency` | `CONCURRENCY leases ttl id` | leases held at the same time |

use std::time::Duration;

use redis::Cmd;
use serde::Deserialize;

use crate::request::{Override, Unit};

/// The most units of any limit, and of any cost: the module's bound.
pub const MOST_UNITS: u64 = 1_000_000_000_000;
/// The longest time of any limit: the module's bound.
pub const LONGEST: Duration = Duration::from_secs(3650 * 86_400);
/// For how long a request waits for its turn unless another time is said: less than the proxies wait for an answer.
pub const LONGEST_TURN: Duration = Duration::from_millis(100);
const SHORTEST: Duration = Duration::from_millis(1);

/// How a rule counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Algorithm {
    TokenBucket,
    LeakyBucket,
    FixedWindow,
    SlidingWindow,
    SlidingLog,
    /// Of leases, which a rule asks for by itself: it is no default for others.
    #[value(skip)]
    Concurrency,
}

impl Algorithm {
    /// Stands in the key: so a rule whose algorithm changes begins anew instead of meeting another algorithm's state.
    pub fn letters(self) -> &'static str {
        match self {
            Self::TokenBucket => "tb",
            Self::LeakyBucket => "lb",
            Self::FixedWindow => "fw",
            Self::SlidingWindow => "sw",
            Self::SlidingLog => "sl",
            Self::Concurrency => "cc",
        }
    }

    fn is_bucket(self) -> bool {
        matches!(self, Self::TokenBucket | Self::LeakyBucket)
    }
}

impl Unit {
    /// As Envoy and the configuration name it.
    pub const NAMES: [(&'static str, Unit); 7] = [
        ("second", Unit::Second),
        ("minute", Unit::Minute),
        ("hour", Unit::Hour),
        ("day", Unit::Day),
        ("week", Unit::Week),
        ("month", Unit::Month),
        ("year", Unit::Year),
    ];

    /// Reads a name in any case, as envoyproxy/ratelimit does.
    pub fn parse(name: &str) -> Option<Unit> {
        Self::NAMES
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|&(_, unit)| unit)
    }

    /// A month is 30 days and a year 365, as in envoyproxy/ratelimit. Calendar windows have their real length.
    pub fn seconds(self) -> u64 {
        match self {
            Unit::Second => 1,
            Unit::Minute => 60,
            Unit::Hour => 3_600,
            Unit::Day => 86_400,
            Unit::Week => 7 * 86_400,
            Unit::Month => 30 * 86_400,
            Unit::Year => 365 * 86_400,
        }
    }

    /// A window's length, as the module reads it.
    fn word(self) -> &'static str {
        match self {
            Unit::Second => "1s",
            Unit::Minute => "1m",
            Unit::Hour => "1h",
            Unit::Day => "1d",
            Unit::Week => "7d",
            Unit::Month => "30d",
            Unit::Year => "365d",
        }
    }

    /// The calendar's window of this name, if there is one. Shorter units are calendar windows anyway.
    fn calendar(self) -> Option<&'static str> {
        match self {
            Unit::Second | Unit::Minute | Unit::Hour => None,
            Unit::Day => Some("day"),
            Unit::Week => Some("week"),
            Unit::Month => Some("month"),
            Unit::Year => Some("year"),
        }
    }
}

/// A penalty for those who do not heed a denial: closed for `duration` after `after` denials in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// For how long.
    pub duration: Duration,
    /// Denials in a row, from 1.
    pub after: u32,
}

/// A limit, checked: whatever it holds, the module accepts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// How it counts.
    pub algorithm: Algorithm,
    /// Requests for each unit of time, or leases held at the same time.
    pub requests: u64,
    /// The unit of time. Leases have none; theirs says `Second` and is not read.
    pub unit: Unit,
    /// What a bucket holds; the requests of one unit unless said.
    pub burst: Option<u64>,
    /// Units of each hit.
    pub cost: u64,
    /// What follows denials in a row.
    pub block: Option<Block>,
    /// How long a lease lasts if nobody gives it back.
    pub ttl: Duration,
    /// Moves fixed windows: seconds, may be negative.
    pub offset: i64,
    /// Entries of a sliding window.
    pub buckets: Option<u16>,
    /// Days, weeks, months and years are the calendar's.
    pub calendar: bool,
    /// For how long a leaky bucket lets a request wait for its turn at most.
    pub longest_turn: Duration,
}

impl Limit {
    /// Requests for each unit of time, with nothing else said.
    pub fn new(algorithm: Algorithm, requests: u64, unit: Unit) -> Self {
        Self {
            algorithm,
            requests,
            unit,
            burst: None,
            cost: 1,
            block: None,
            ttl: Duration::from_secs(60),
            offset: 0,
            buckets: None,
            calendar: false,
            longest_turn: LONGEST_TURN,
        }
    }

    /// What is wrong with it, as a sentence.
    ///
    /// # Errors
    /// A number is out of the module's bounds, or does not go with the algorithm.
    pub fn check(&self) -> Result<(), String> {
        let at_most = |what: &str, value: u64, most: u64| {
            if value > most {
                Err(format!("{what} is {value}, and at most {most}"))
            } else {
                Ok(())
            }
        };
        let lasts = |what: &str, time: Duration| {
            if (SHORTEST..=LONGEST).contains(&time) {
                Ok(())
            } else {
                Err(format!("{what} is from 1ms to 3650d"))
            }
        };
        let only = |given: bool, what: &str, fits: bool, algorithms: &str| {
            if given && !fits { Err(format!("{what} goes only with {algorithms}")) } else { Ok(()) }
        };
        let fixed = self.algorithm == Algorithm::FixedWindow;
        at_most("requests_per_unit", self.requests, MOST_UNITS)?;
        at_most("burst", self.burst.unwrap_or(0), MOST_UNITS)?;
        at_most("cost", self.cost, MOST_UNITS)?;
        if self.cost == 0 {
            return Err("cost is from 1: a rule that takes nothing limits nothing".into());
        }
        only(
            self.burst.is_some(),
            "burst",
            self.algorithm.is_bucket(),
            "token_bucket and leaky_bucket",
        )?;
        only(self.offset != 0, "offset", fixed, "fixed_window")?;
        only(
            self.buckets.is_some(),
            "buckets",
            self.algorithm == Algorithm::SlidingWindow,
            "sliding_window",
        )?;
        if !(1..=1024).contains(&self.buckets.unwrap_or(1)) {
            return Err("buckets is from 1 to 1024".into());
        }
        if self.offset.unsigned_abs() > 86_400 {
            return Err("offset is from -1d to 1d".into());
        }
        if self.algorithm == Algorithm::Concurrency {
            lasts("ttl", self.ttl)?;
        }
        if let Some(block) = self.block {
            let fits = self.algorithm != Algorithm::Concurrency;
            only(true, "block", fits, "the algorithms that count over time")?;
            lasts("block's duration", block.duration)?;
            if !(1..=1_000_000).contains(&block.after) {
                return Err("block's after is from 1 to 1000000".into());
            }
        }
        // The module's bound: at most 10^9 units a second.
        if self.algorithm.is_bucket() && self.requests > 1_000_000_000 * self.unit.seconds() {
            return Err("a bucket refills by at most 1000000000 a second".into());
        }
        if self.algorithm == Algorithm::SlidingLog {
            at_most("requests_per_unit of a sliding_log", self.requests, 10_000_000)?;
        }
        Ok(())
    }

    /// The same with the numbers that a request brought along.
    pub fn overridden(&self, by: Override, default: Algorithm) -> Self {
        let mut limit = self.clone();
        if limit.algorithm == Algorithm::Concurrency {
            limit = Self::new(default, 0, by.unit);
        }
        limit.requests = by.requests_per_unit.into();
        limit.unit = by.unit;
        limit.burst = None;
        limit
    }

    /// Units that can be taken at once from a limiter that is idle.
    pub fn capacity(&self) -> u64 {
        // A bucket that never refills is closed, whatever it could hold: the module knows no rate of 0.
        if self.requests == 0 {
            return 0;
        }
        let holds = self.burst.unwrap_or(self.requests);
        if self.algorithm == Algorithm::LeakyBucket { holds.min(self.in_time()) } else { holds }
    }

    /// What a leaky bucket holds if nobody's turn is to come too late: a request waits until what is before it has drained.
    fn in_time(&self) -> u64 {
        let drained = self.longest_turn.as_micros() * u128::from(self.requests)
            / (u128::from(self.unit.seconds()) * 1_000_000);
        u64::try_from(drained).unwrap_or(u64::MAX).saturating_add(self.cost)
    }

    /// Microseconds of the window of its policy. Leases have none.
    pub fn window_us(&self) -> Option<u64> {
        (self.algorithm != Algorithm::Concurrency)
            .then(|| self.unit.seconds().saturating_mul(1_000_000))
    }

    /// The time in which all of what it holds comes back, and so the longest wait that it makes anybody wait who is not blocked.
    pub fn refill(&self) -> Duration {
        let whole = u128::from(self.capacity()) * u128::from(self.unit.seconds()) * 1000;
        let millis = whole.checked_div(u128::from(self.requests)).unwrap_or(0);
        Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)).min(LONGEST)
    }

    /// Appends this limit's words, with the cost. `id` names a lease.
    pub fn words(&self, command: &mut Cmd, cost: u64, id: &[u8]) {
        match self.algorithm {
            Algorithm::TokenBucket => self.bucket(command, "TOKENBUCKET"),
            Algorithm::LeakyBucket => self.bucket(command, "LEAKYBUCKET"),
            Algorithm::SlidingWindow => {
                command.arg("SLIDING").arg(self.requests).arg(self.unit.word());
                if let Some(buckets) = self.buckets {
                    command.arg("BUCKETS").arg(buckets);
                }
            }
            Algorithm::SlidingLog => {
                command.arg("SLIDINGLOG").arg(self.requests).arg(self.unit.word());
            }
            Algorithm::FixedWindow => {
                let window =
                    self.unit.calendar().filter(|_| self.calendar).unwrap_or(self.unit.word());
                command.arg("FIXEDWINDOW").arg(self.requests).arg(window);
                command.arg("ALIGN").arg(self.offset);
            }
            Algorithm::Concurrency => {
                command.arg("CONCURRENCY").arg(self.requests).arg(word_of(self.ttl)).arg(id);
            }
        }
        if cost != 1 {
            command.arg("COST").arg(cost);
        }
        if let Some(block) = self.block {
            command.arg("BLOCK").arg(word_of(block.duration)).arg("AFTER").arg(block.after);
        }
    }

    fn bucket(&self, command: &mut Cmd, algorithm: &str) {
        let rate = self.requests.max(1);
        command.arg(algorithm).arg(self.capacity()).arg(format!("{rate}/{}", self.unit.word()));
    }
}

/// A duration, as the module reads it.
fn word_of(time: Duration) -> String {
    format!("{}us", time.as_micros())
}

/// Reads a duration as the module writes it: `60` or a number with a unit, `250us`, `500ms`, `60s`, `1m`, `12h`, `7d`.
///
/// # Errors
/// It is no such duration, or above 3650d.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!(
            "a duration is a whole number with a unit, like 500ms, 60s, 10m, 12h or 7d, at most 3650d, not {text:?}"
        )
    };
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at_checked(digits).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let micros = match unit {
        "us" => 1,
        "ms" => 1_000,
        "" | "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ => return Err(wrong()),
    };
    let time = Duration::from_micros(number.checked_mul(micros).ok_or_else(wrong)?);
    if time > LONGEST { Err(wrong()) } else { Ok(time) }
}
