//! What was promised beforehand, beside what was measured: the least, and what was aimed at.
//!
//! Promises were made for each of three servers, since theirs is the yardstick and differs. One that was made for some of
//! them only has gaps for the others; of any other server nothing was promised.

use crate::page::{grouped, table};

/// Something for each server: Redis 7.0, Redis 8.2, Valkey 9.1.
pub type ByServer<T> = [Option<T>; 3];

/// A promise for Redis 7.0 alone.
pub const fn on_redis_7<T: Copy>(promised: T) -> ByServer<T> {
    [Some(promised), None, None]
}

/// Which side of what was promised is the good one.
#[derive(Clone, Copy)]
pub enum Good {
    Higher,
    Lower,
}

/// A promise: what was promised and what was measured, in the same unit.
pub struct Promise {
    pub what: String,
    pub least: f64,
    pub aim: f64,
    pub good: Good,
    /// `x` for a ratio, empty for a count.
    pub unit: &'static str,
    pub measured: f64,
}

/// What was promised for this server, if anything.
pub fn for_server<T: Copy>(server: &str, [redis_7, redis_8, valkey_9]: ByServer<T>) -> Option<T> {
    match server {
        _ if server.starts_with("Redis 7.0.") => redis_7,
        _ if server.starts_with("Redis 8.2.") => redis_8,
        _ if server.starts_with("Valkey 9.1.") => valkey_9,
        _ => None,
    }
}

/// A table of promises, nothing where there are none.
pub fn render(promises: &[Promise]) -> String {
    if promises.is_empty() {
        return String::new();
    }
    let rows = promises.iter().map(|promise| {
        let number = |number: f64| show(number, promise.unit);
        let verdict = promise.verdict().to_owned();
        [
            promise.what.clone(),
            number(promise.least),
            number(promise.aim),
            number(promise.measured),
            verdict,
        ]
    });
    let least = "at least, or at most";
    format!("What was promised:\n\n{}\n", table(["what", least, "aim", "measured", "kept"], rows))
}

impl Promise {
    fn verdict(&self) -> &'static str {
        let reaches = |bound: f64| match self.good {
            Good::Higher => self.measured >= bound,
            Good::Lower => self.measured <= bound,
        };
        match (reaches(self.least), reaches(self.aim)) {
            (false, _) => "no",
            (true, false) => "yes",
            (true, true) => "yes, and the aim",
        }
    }
}

fn show(number: f64, unit: &str) -> String {
    match unit {
        "x" => format!("{number:.2}x"),
        "" => grouped(number),
        unit => format!("{number:.0} {unit}"),
    }
}
