//! What the server says of one limit: the five integers that every limiter replies.

/// The decision of one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the request may pass.
    pub allowed: bool,
    /// The limit or capacity, in units.
    pub limit: u64,
    /// Units that could be taken right now.
    pub remaining: u64,
    /// Milliseconds: after a denial until the same request would be granted, or `None` if it never can be. After a grant
    /// until it may go ahead, which is 0 for every algorithm but a leaky bucket.
    pub wait_ms: Option<u64>,
    /// Milliseconds until the limiter is idle, if nothing more is taken.
    pub reset_ms: u64,
}
