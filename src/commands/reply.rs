//! The five integers that every limiter answers.

use crate::limiter::{Decision, Limiter, Limits, Micros, Mode, Request, decide};
use crate::redis::Call;

/// The five integers of a decision.
pub(super) fn row(decision: &Decision) -> [i64; 5] {
    [
        i64::from(decision.allowed),
        decision.limit.cast_signed(),
        decision.remaining.cast_signed(),
        decision.wait.map_or(-1, Micros::millis_up),
        decision.reset.millis_up(),
    ]
}

/// The five integers of a decision that takes nothing: `remaining` and `reset_ms` are those of a look.
pub(super) fn row_as_it_stands(decision: &Decision, look: &Decision) -> [i64; 5] {
    row(&Decision { remaining: look.remaining, reset: look.reset, ..*decision })
}

/// Replies what RL.PEEK says of a limiter, or of none, under these limits.
pub(super) fn reply_peek(call: &Call<'_>, state: Option<&Limiter>, limits: &Limits, now: Micros) {
    let decision = decide(state, limits, now, Request { cost: 1, mode: Mode::Whole });
    let look = decide(state, limits, now, Request::LOOK);
    call.reply_integers(&row_as_it_stands(&decision, &look));
}
