//! `RL.SLIDING key limit window [BUCKETS n] [COST n] [PARTIAL | FORCE] [AT microseconds]`

use super::decide;
use super::errors::Error;
use crate::limiter::Algorithm;
use crate::redis::Call;

/// Counts units in a window that slides, in a bounded number of entries.
pub(super) fn run(call: &Call<'_>) -> Result<(), Error> {
    decide::run(call, Algorithm::Sliding)
}
