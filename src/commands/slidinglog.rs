//! `RL.SLIDINGLOG key limit window [COST n] [PARTIAL | FORCE] [AT microseconds]`

use super::decide;
use super::errors::Error;
use super::options::Word;
use crate::limiter::Algorithm;
use crate::redis::Call;

/// The options.
pub const WORDS: &[Word] = &[Word::Cost, Word::Partial, Word::Force, Word::At];

/// Counts units in a window that slides, with an entry for every hit.
pub fn run(call: &Call<'_>) -> Result<(), Error> {
    decide::run(call, Algorithm::SlidingLog, WORDS)
}
