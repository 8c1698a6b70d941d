//! `RL.SLIDINGLOG key limit window [COST n] [PARTIAL | FORCE] [AT microseconds]`

use super::decide;
use super::errors::Error;
use crate::limiter::Algorithm;
use crate::redis::Call;

/// Counts units in a window that slides, with an entry for every hit.
pub(super) fn run(call: &Call<'_>) -> Result<(), Error> {
    decide::run(call, Algorithm::SlidingLog)
}
