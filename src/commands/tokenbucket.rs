//! `RL.TOKENBUCKET key capacity rate [COST n] [PARTIAL | FORCE] [AT microseconds]`

use super::decide;
use super::errors::Error;
use crate::limiter::Algorithm;
use crate::redis::Call;

/// Takes units from a bucket that is refilled at a rate.
pub(super) fn run(call: &Call<'_>) -> Result<(), Error> {
    decide::run(call, Algorithm::TokenBucket)
}
