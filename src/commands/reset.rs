//! `RL.RESET key [key ...]`

use super::errors::Error;
use crate::redis::{Call, Held, Key};

/// Forgets limiters, those included that are as if never used. A foreign key among them: nothing is removed.
pub fn run(call: &Call<'_>) -> Result<(), Error> {
    for name in call.args() {
        if let Held::Foreign = Key::write(call, name).held() {
            return Err(Error::NotALimiter);
        }
    }
    let mut removed = 0;
    for name in call.args() {
        let mut key = Key::write(call, name);
        if key.limiter().is_some() {
            key.delete();
            key.changed();
            removed += 1;
        }
    }
    if removed > 0 {
        call.replicate_as_is();
    }
    call.reply_integer(removed);
    Ok(())
}
