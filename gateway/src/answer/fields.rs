//! RateLimit header fields, in the forms that clients know.
//!
//! | form | fields |
//! | --- | --- |
//! | `draft-11` | `RateLimit-Policy: "burst";q=100;w=60` and `RateLimit: "burst";r=0;t=30`, an item for each limit |
//! | `draft-6` | `RateLimit-Policy: 100;w=60`, `RateLimit-Limit`, `-Remaining`, `-Reset` |
//! | `draft-7` | `RateLimit-Policy: 100;w=60` and `RateLimit: limit=100, remaining=0, reset=30` |
//! | `x-ratelimit` | `X-RateLimit-Limit`, `-Remaining`, and `-Reset` as a time since 1970 |
//!
//! draft-11 is draft-ietf-httpapi-ratelimit-headers-11. After a denial its `t` is Retry-After: the time within which no more
//! than `r` units can be used. It comes from the wait and not from the reset, which is when all units are back.
//! `clients/vectors.json` has the cases that the clients share.

use std::cmp::Reverse;
use std::fmt::Write as _;
use std::str::FromStr;

use thiserror::Error;

use crate::decision::Verdict;

const MS: u64 = 1_000;
const US: u64 = 1_000_000;

/// A form of the fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Form {
    Draft11,
    Draft6,
    Draft7,
    XRateLimit,
}

impl Form {
    /// Each with its name.
    pub const NAMES: [(&'static str, Self); 4] = [
        ("draft-11", Self::Draft11),
        ("draft-6", Self::Draft6),
        ("draft-7", Self::Draft7),
        ("x-ratelimit", Self::XRateLimit),
    ];
}

impl FromStr for Form {
    type Err = FieldError;

    fn from_str(name: &str) -> Result<Self, FieldError> {
        let known = Self::NAMES.iter().find(|(known, _)| *known == name);
        known.map(|&(_, form)| form).ok_or_else(|| FieldError::BadForm(name.to_owned()))
    }
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum QuotaUnit {
    Requests,
    ContentBytes,
    ConcurrentRequests,
}

impl QuotaUnit {
    /// Each with its name in the fields.
    pub const NAMES: [(&'static str, Self); 3] = [
        ("requests", Self::Requests),
        ("content-bytes", Self::ContentBytes),
        ("concurrent-requests", Self::ConcurrentRequests),
    ];

    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|&&(_, unit)| unit == self).map_or("", |&(name, _)| name)
    }
}

/// A limit as it was decided, under the name of its policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named<'a> {
    /// Its name: printable ASCII.
    pub name: &'a str,
    /// What the server said.
    pub verdict: Verdict,
    /// Units of each window; the verdict's limit if not said.
    pub quota: Option<u64>,
    /// The window in microseconds, if there is one.
    pub window_us: Option<u64>,
    /// What it counts.
    pub unit: QuotaUnit,
}

impl Named<'_> {
    fn quota(&self) -> u64 {
        self.quota.unwrap_or(self.verdict.limit)
    }

    /// The parameter of the window. One that is not whole seconds cannot be written, and is left out.
    fn window(&self) -> String {
        let seconds = self
            .window_us
            .filter(|&window| window > 0 && window % US == 0)
            .map(|window| window / US);
        seconds.map_or_else(String::new, |seconds| format!(";w={seconds}"))
    }

    /// Milliseconds until a request like it is granted. A limit that never grants comes after all others.
    fn wait(&self) -> u64 {
        self.verdict.wait_ms.unwrap_or(u64::MAX)
    }
}

/// What cannot be written as header fields.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FieldError {
    /// No field can hold the name of a limit.
    #[error("the name of a limit in header fields is printable ASCII, not {0:?}")]
    BadName(String),
    /// There is no such form.
    #[error("the form of header fields is draft-11, draft-6, draft-7 or x-ratelimit, not {0:?}")]
    BadForm(String),
}

impl FieldError {
    /// The code that all clients of redis-rl give it.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::BadName(_) => "bad-name",
            Self::BadForm(_) => "bad-form",
        }
    }
}

/// The fields for the limits of one decision, in their order. `now` is the time since 1970 in milliseconds.
///
/// # Errors
/// A name that a configuration should not have been let have: see [`check_name`].
pub fn fields(
    limits: &[Named<'_>],
    form: Form,
    now: u64,
) -> Result<Vec<(&'static str, String)>, FieldError> {
    let Some(tightest) = tightest(limits) else { return Ok(Vec::new()) };
    let Tightest { limit, remaining, reset_ms } = tightest;
    let mut fields = match form {
        Form::Draft11 => draft_11(limits)?,
        Form::Draft6 => vec![
            ("RateLimit-Policy", policies(limits)),
            ("RateLimit-Limit", limit.to_string()),
            ("RateLimit-Remaining", remaining.to_string()),
            ("RateLimit-Reset", reset_ms.div_ceil(MS).to_string()),
        ],
        Form::Draft7 => vec![
            ("RateLimit-Policy", policies(limits)),
            (
                "RateLimit",
                format!("limit={limit}, remaining={remaining}, reset={}", reset_ms.div_ceil(MS)),
            ),
        ],
        Form::XRateLimit => vec![
            ("X-RateLimit-Limit", limit.to_string()),
            ("X-RateLimit-Remaining", remaining.to_string()),
            ("X-RateLimit-Reset", now.saturating_add(reset_ms).div_ceil(MS).to_string()),
        ],
    };
    fields.extend(retry_after(limits).map(|seconds| ("Retry-After", seconds.to_string())));
    Ok(fields)
}

/// Whether a field can hold the name.
///
/// # Errors
/// It cannot.
pub fn check_name(name: &str) -> Result<(), FieldError> {
    let printable = name.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if printable { Ok(()) } else { Err(FieldError::BadName(name.to_owned())) }
}

/// The longest wait of the limits that refuse, in seconds. `None` if none refuses, or one of them never grants.
pub fn retry_after(limits: &[Named<'_>]) -> Option<u64> {
    let longest = refusing(limits).map(Named::wait).max()?;
    (longest < u64::MAX).then(|| longest.div_ceil(MS))
}

fn refusing<'a, 'b>(limits: &'a [Named<'b>]) -> impl Iterator<Item = &'a Named<'b>> {
    limits.iter().filter(|limit| !limit.verdict.allowed)
}

fn draft_11(limits: &[Named<'_>]) -> Result<Vec<(&'static str, String)>, FieldError> {
    let (mut policies, mut states) = (String::new(), String::new());
    for limit in limits {
        check_name(limit.name)?;
        let name = limit.name.replace('\\', r"\\").replace('"', "\\\"");
        let separator = if policies.is_empty() { "" } else { ", " };
        let _ = write!(policies, "{separator}\"{name}\";q={}{}", limit.quota(), limit.window());
        if limit.unit != QuotaUnit::Requests {
            let _ = write!(policies, ";qu=\"{}\"", limit.unit.name());
        }
        let _ = write!(states, "{separator}\"{name}\";r={}", limit.verdict.remaining);
        if let (false, Some(wait)) = (limit.verdict.allowed, limit.verdict.wait_ms) {
            let _ = write!(states, ";t={}", wait.div_ceil(MS));
        }
    }
    Ok(vec![("RateLimit-Policy", policies), ("RateLimit", states)])
}

/// The policies of the older drafts, which have no names.
fn policies(limits: &[Named<'_>]) -> String {
    let all: Vec<_> =
        limits.iter().map(|limit| format!("{}{}", limit.quota(), limit.window())).collect();
    all.join(", ")
}

struct Tightest {
    limit: u64,
    remaining: u64,
    reset_ms: u64,
}

/// Forms with one set of numbers show the limit with the longest wait, or else the one with least left; of equals the first.
fn tightest(limits: &[Named<'_>]) -> Option<Tightest> {
    let worst = refusing(limits).min_by_key(|limit| Reverse(limit.wait()));
    let Verdict { limit, remaining, reset_ms, .. } =
        worst.or_else(|| limits.iter().min_by_key(|limit| limit.verdict.remaining))?.verdict;
    let wait = worst.and_then(|worst| worst.verdict.wait_ms);
    Some(Tightest { limit, remaining, reset_ms: wait.unwrap_or(reset_ms) })
}
