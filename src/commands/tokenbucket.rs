//! `RL.TOKENBUCKET key capacity rate [COST n] [PARTIAL | FORCE] [AT microseconds]`

use super::decide;
use super::errors::Error;
use super::options::Word;
use crate::limiter::Algorithm;
use crate::redis::Call;

/// The options.
pub const WORDS: &[Word] = &[Word::Cost, Word::Partial, Word::Force, Word::At];

/// Takes units from a bucket that is refilled at a rate.
pub fn run(call: &Call<'_>) -> Result<(), Error> {
    decide::run(call, Algorithm::TokenBucket, WORDS)
}
