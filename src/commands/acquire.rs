//! `RL.ACQUIRE key limit ttl id [COST n] [AT microseconds]`

use super::decide;
use super::errors::Error;
use crate::limiter::Algorithm;
use crate::redis::Call;

/// Acquires a lease of units under an id, if they are not all held.
pub(super) fn run(call: &Call<'_>) -> Result<(), Error> {
    decide::run(call, Algorithm::Concurrency)
}
