//! `RL.LEAKYBUCKET key capacity rate [COST n] [PARTIAL | FORCE] [AT microseconds]`

use super::decide;
use super::errors::Error;
use super::options::Word;
use crate::limiter::Algorithm;
use crate::redis::Call;

/// The options.
pub const WORDS: &[Word] = &[Word::Cost, Word::Partial, Word::Force, Word::At];

/// Puts units into a queue that is served at a rate, and tells the caller's turn.
pub fn run(call: &Call<'_>) -> Result<(), Error> {
    decide::run(call, Algorithm::LeakyBucket, WORDS)
}
