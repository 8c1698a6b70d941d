//! `RL.FIXEDWINDOW key limit window [ALIGN offset] [COST n] [PARTIAL | FORCE] [AT microseconds]`

use super::decide;
use super::errors::Error;
use crate::limiter::Algorithm;
use crate::redis::Call;

/// Counts units in one window after the other.
pub(super) fn run(call: &Call<'_>) -> Result<(), Error> {
    decide::run(call, Algorithm::FixedWindow)
}
