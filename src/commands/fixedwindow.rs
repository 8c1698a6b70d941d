//! `RL.FIXEDWINDOW key limit window [ALIGN offset] [COST n] [PARTIAL | FORCE] [AT microseconds]`

use super::decide;
use super::errors::Error;
use super::options::Word;
use crate::limiter::Algorithm;
use crate::redis::Call;

/// The options.
pub const WORDS: &[Word] = &[Word::Align, Word::Cost, Word::Partial, Word::Force, Word::At];

/// Counts units in one window after the other.
pub fn run(call: &Call<'_>) -> Result<(), Error> {
    decide::run(call, Algorithm::FixedWindow, WORDS)
}
