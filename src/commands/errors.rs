//! Every message that a client can see: a code, the parameter, and its bounds.
//!
//! None repeats what the client sent: its bytes may be of any kind, and end up in logs.

use std::ffi::CString;

use super::multi::MAX_KEYS;
use super::options::Word;
use crate::limiter::Algorithm;
use crate::limiter::limits::{MAX_BUCKETS, MAX_UNITS};

/// Why a command changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The capacity of a bucket.
    Capacity,
    /// The limit of a window.
    Limit,
    /// The limit of a log: it is above the setting given.
    LogLimit(u64),
    /// The rate of a bucket.
    Rate,
    /// The length of a window.
    Window,
    /// Where aligned windows begin.
    Align,
    /// The buckets of a sliding window.
    Buckets,
    /// The units that a request takes.
    Cost,
    /// The units that are given back.
    Units,
    /// The number of keys.
    NumKeys,
    /// A key named twice.
    SameKey,
    /// As many limits as keys.
    LimitsAndKeys,
    /// The name of an algorithm.
    Algorithm,
    /// redis-cell's burst.
    MaxBurst,
    /// redis-cell's count.
    Count,
    /// redis-cell's period.
    Period,
    /// redis-cell's rate.
    CountPerPeriod,
    /// redis-cell's cost.
    Quantity,
    /// The moment of a virtual clock.
    At,
    /// A moment where the server's own clock decides.
    AtRefused,
    /// An option without its value.
    NoValue(Word),
    /// An option given twice.
    Twice(Word),
    /// Two options that exclude each other.
    PartialAndForce,
    /// A word that is none of the options.
    Unknown(&'static [Word]),
    /// Too few arguments.
    TooFew,
    /// A key that holds something else than a limiter.
    NotALimiter,
    /// A key that holds a limiter of another algorithm.
    OtherAlgorithm {
        /// What it holds.
        held: Algorithm,
        /// What the command is for.
        called: Algorithm,
    },
    /// The server holds as much as it may.
    OutOfMemory,
    /// An effect that is none.
    Effect,
    /// A state that is none.
    State,
}

impl Error {
    fn message(self) -> String {
        let duration = "a duration like 60, 0.5, 250ms, 1m, 12h or 7d";
        match self {
            Self::Capacity => format!("ERR capacity must be an integer from 0 to {MAX_UNITS}"),
            Self::Limit => format!("ERR limit must be an integer from 0 to {MAX_UNITS}"),
            Self::LogLimit(max) => format!(
                "ERR limit must be an integer from 0 to {max} (the setting rl.max-log-entries); \
                 RL.SLIDING takes larger ones"
            ),
            Self::Rate => "ERR rate must be units per second like 10 or 0.5, or units per \
                           duration like 100/60 or 100/1m, from 1/3650d to 1000000000"
                .into(),
            Self::Window => format!("ERR window must be {duration}, from 1ms to 3650d"),
            Self::Align => format!("ERR ALIGN must be {duration}, from -3650d to 3650d"),
            Self::Buckets => format!("ERR BUCKETS must be an integer from 1 to {MAX_BUCKETS}"),
            Self::Cost => format!("ERR COST must be an integer from 0 to {MAX_UNITS}"),
            Self::Units => format!("ERR units must be an integer from 0 to {MAX_UNITS}"),
            Self::NumKeys => format!(
                "ERR numkeys must be an integer from 1 to {MAX_KEYS}, and as many keys must follow"
            ),
            Self::SameKey => "ERR each key must be named once".into(),
            Self::LimitsAndKeys => "ERR there must be as many limits as keys".into(),
            Self::Algorithm => {
                let names: Vec<_> = Algorithm::ALL.iter().map(|one| one.name()).collect();
                format!("ERR a limit must begin with one of {}", names.join(", "))
            }
            Self::MaxBurst => {
                format!("ERR max_burst must be an integer from 0 to {}", MAX_UNITS - 1)
            }
            Self::Count => format!("ERR count must be an integer from 1 to {MAX_UNITS}"),
            Self::Period => "ERR period must be seconds, an integer from 1 to 315360000".into(),
            Self::CountPerPeriod => "ERR count must be at most 1000000000 a second".into(),
            Self::Quantity => format!("ERR quantity must be an integer from 0 to {MAX_UNITS}"),
            Self::At => "ERR AT must be microseconds since 1970, from 0 to 9007199254740991".into(),
            Self::AtRefused => "ERR AT is for tests: it needs a server started with the setting \
                                rl.client-clock yes"
                .into(),
            Self::NoValue(word) => format!("ERR {} must be followed by its value", word.name()),
            Self::Twice(word) => format!("ERR {} must be given once", word.name()),
            Self::PartialAndForce => "ERR PARTIAL and FORCE exclude each other".into(),
            Self::Unknown(words) => {
                let names: Vec<_> = words.iter().map(|word| word.name()).collect();
                format!("ERR unknown option, it must be one of {}", names.join(", "))
            }
            Self::TooFew => "ERR wrong number of arguments".into(),
            Self::NotALimiter => {
                "WRONGTYPE the key holds something else than a rate limiter".into()
            }
            Self::OtherAlgorithm { held, called } => format!(
                "WRONGTYPE the key holds a limiter of RL.{}, not of RL.{}; RL.RESET forgets it",
                held.name(),
                called.name()
            ),
            Self::OutOfMemory => {
                "OOM a new limiter needs memory, and used memory exceeds 'maxmemory'".into()
            }
            Self::Effect => "ERR effect must be 42 bytes as a grant replicates them".into(),
            Self::State => "ERR state must be the bytes of a limiter, as DUMP holds them".into(),
        }
    }
}

impl From<Error> for CString {
    fn from(error: Error) -> Self {
        // No message holds a NUL byte.
        Self::new(error.message()).unwrap_or_default()
    }
}
