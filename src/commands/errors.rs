//! Every message that a client can see: a code, the parameter, and its bounds.
//!
//! None repeats what the client sent: its bytes may be of any kind, and end up in logs.

use std::ffi::CString;

use crate::limiter::Algorithm;
use crate::limiter::block::MAX_AFTER;
use crate::limiter::limits::{MAX_BUCKETS, MAX_LEASES, MAX_UNITS};
use crate::limiter::rule::{self, MAX_RULES, Word};

/// The most keys that RL.TOP lists.
pub(super) const MAX_TOP: usize = 1_000;

/// Why a command changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Error {
    /// A limit or an option.
    Rule(rule::Error),
    /// The units that are given back.
    Units,
    /// The units that were charged when work began.
    Reserved,
    /// The units that the work took.
    Used,
    NumKeys,
    /// A key named twice.
    SameKey,
    /// There are not as many limits as keys.
    LimitsAndKeys,
    /// redis-cell's arguments.
    MaxBurst,
    Count,
    Period,
    CountPerPeriod,
    Quantity,
    /// A moment, although the server's own clock decides.
    AtRefused,
    /// A word that is none of the options.
    Unknown(&'static [Word]),
    /// Too few arguments.
    TooFew,
    /// A key that holds something else.
    NotALimiter,
    /// A key that holds a limiter of another algorithm.
    OtherAlgorithm {
        held: Algorithm,
        called: Algorithm,
    },
    /// Leases are given back by id alone.
    LeasesAreReleased,
    /// A key has as many leases as the setting given allows.
    TooManyLeases(usize),
    ForceAndConcurrency,
    /// How many keys RL.TOP is to list.
    TopCount,
    /// A word that is none of RL.TOP's.
    TopUnknown,
    /// RESET stands alone.
    AfterReset,
    /// The server holds as much as it may.
    OutOfMemory,
    /// The bytes of an effect.
    Effect,
    /// The bytes of a state.
    State,
}

impl From<rule::Error> for Error {
    fn from(error: rule::Error) -> Self {
        Self::Rule(error)
    }
}

impl Error {
    fn message(self) -> String {
        match self {
            Self::Rule(error) => rule_message(error),
            Self::Units => format!("ERR units must be an integer from 0 to {MAX_UNITS}"),
            Self::Reserved => format!("ERR reserved must be an integer from 0 to {MAX_UNITS}"),
            Self::Used => format!("ERR used must be an integer from 0 to {MAX_UNITS}"),
            Self::NumKeys => format!(
                "ERR numkeys must be an integer from 1 to {MAX_RULES}, followed by that many keys"
            ),
            Self::SameKey => "ERR each key must be named only once".into(),
            Self::LimitsAndKeys => "ERR there must be one limit for each key".into(),
            Self::MaxBurst => {
                format!("ERR max_burst must be an integer from 0 to {}", MAX_UNITS - 1)
            }
            Self::Count => format!("ERR count must be an integer from 1 to {MAX_UNITS}"),
            Self::Period => "ERR period must be an integer from 1 to 315360000, in seconds".into(),
            Self::CountPerPeriod => "ERR count must be at most 1000000000 per second".into(),
            Self::Quantity => format!("ERR quantity must be an integer from 0 to {MAX_UNITS}"),
            Self::AtRefused => "ERR AT is for tests only: start the server with the setting \
                                rl.client-clock yes to use it"
                .into(),
            Self::Unknown(words) => {
                let names: Vec<_> = words.iter().map(|word| word.name()).collect();
                format!("ERR unknown option; expected one of {}", names.join(", "))
            }
            Self::TooFew => "ERR wrong number of arguments".into(),
            Self::NotALimiter => {
                "WRONGTYPE the key holds a value that is not a rate limiter".into()
            }
            Self::OtherAlgorithm { held, called } => format!(
                "WRONGTYPE the key holds a {} limiter, not {}; delete it with RL.RESET first",
                held.name(),
                called.name()
            ),
            Self::LeasesAreReleased => {
                "WRONGTYPE the key holds a CONCURRENCY limiter; give leases back with RL.RELEASE"
                    .into()
            }
            Self::TooManyLeases(max) => format!(
                "ERR the key has too many leases: at most {max} (the setting rl.max-leases)"
            ),
            Self::ForceAndConcurrency => "ERR FORCE cannot be used with CONCURRENCY".into(),
            Self::TopCount => format!("ERR COUNT must be an integer from 1 to {MAX_TOP}"),
            Self::TopUnknown => "ERR unknown option; expected one of COUNT, AT, or RESET".into(),
            Self::AfterReset => "ERR RESET must be the only argument".into(),
            Self::OutOfMemory => {
                "OOM a new limiter needs memory, but used memory exceeds 'maxmemory'".into()
            }
            Self::Effect => "ERR effect must be 42 to 106 bytes, as a grant replicates them".into(),
            Self::State => "ERR state must be the bytes of a limiter, as DUMP contains them".into(),
        }
    }
}

fn rule_message(error: rule::Error) -> String {
    const DURATION: &str = "a duration like 60, 0.5, 250ms, 1m, 12h or 7d";
    match error {
        rule::Error::Algorithm => {
            let names: Vec<_> = Algorithm::ALL.iter().map(|one| one.name()).collect();
            format!("ERR a limit must begin with one of {}", names.join(", "))
        }
        rule::Error::Capacity => format!("ERR capacity must be an integer from 0 to {MAX_UNITS}"),
        rule::Error::Limit => format!("ERR limit must be an integer from 0 to {MAX_UNITS}"),
        rule::Error::LogLimit(max) => format!(
            "ERR limit must be an integer from 0 to {max} (the setting rl.max-log-entries); \
             use RL.SLIDING for larger ones"
        ),
        rule::Error::Rate => "ERR rate must be units per second like 10 or 0.5, or units per \
                              duration like 100/60 or 100/1m, from 1/3650d to 1000000000"
            .into(),
        rule::Error::Window => format!("ERR window must be {DURATION}, from 1ms to 3650d"),
        rule::Error::FixedWindow => format!(
            "ERR window must be {DURATION}, from 1ms to 3650d, or one of day, week, month, year"
        ),
        rule::Error::Align => format!("ERR ALIGN must be {DURATION}, from -3650d to 3650d"),
        rule::Error::CalendarAlign => {
            format!("ERR ALIGN must be {DURATION}, from -1d to 1d for a calendar window")
        }
        rule::Error::Buckets => format!("ERR BUCKETS must be an integer from 1 to {MAX_BUCKETS}"),
        rule::Error::Cost => format!("ERR COST must be an integer from 0 to {MAX_UNITS}"),
        rule::Error::LeaseCost => {
            format!("ERR COST must be an integer from 1 to {MAX_UNITS} for a lease")
        }
        rule::Error::Ttl => format!("ERR ttl must be {DURATION}, from 1ms to 3650d"),
        rule::Error::Id => "ERR id must be 1 to 64 bytes".into(),
        rule::Error::Block => format!("ERR BLOCK must be {DURATION}, from 1ms to 3650d"),
        rule::Error::After => format!("ERR AFTER must be an integer from 1 to {MAX_AFTER}"),
        rule::Error::AfterWithoutBlock => "ERR AFTER needs BLOCK, which says for how long".into(),
        rule::Error::Count => format!("ERR COUNT must be an integer from 1 to {MAX_LEASES}"),
        rule::Error::At => {
            "ERR AT must be microseconds since 1970, from 0 to 9007199254740991".into()
        }
        rule::Error::TooFew => Error::TooFew.message(),
        rule::Error::NoValue(word) => format!("ERR {} must be followed by a value", word.name()),
        rule::Error::Twice(word) => format!("ERR {} must be given only once", word.name()),
        rule::Error::PartialAndForce => "ERR PARTIAL and FORCE are mutually exclusive".into(),
    }
}

impl From<Error> for CString {
    fn from(error: Error) -> Self {
        // No message holds a NUL byte.
        Self::new(error.message()).unwrap_or_default()
    }
}
