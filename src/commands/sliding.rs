//! `RL.SLIDING key limit window [BUCKETS n] [COST n] [PARTIAL | FORCE] [AT microseconds]`

use super::decide;
use super::errors::Error;
use super::options::Word;
use crate::limiter::Algorithm;
use crate::redis::Call;

/// The options.
pub const WORDS: &[Word] = &[Word::Buckets, Word::Cost, Word::Partial, Word::Force, Word::At];

/// Counts units in a window that slides, in a bounded number of entries.
pub fn run(call: &Call<'_>) -> Result<(), Error> {
    decide::run(call, Algorithm::Sliding, WORDS)
}
