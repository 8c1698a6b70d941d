//! `RL.RESET key [key ...]`

use super::errors::Error;
use crate::redis::{Call, Held, WriteKey};

/// Forgets limiters, idle ones included. A foreign key among them: nothing is removed.
pub(super) fn run(call: &Call<'_>) -> Result<(), Error> {
    let mut args = call.args();
    while let Some(name) = args.key() {
        if let Held::Foreign = WriteKey::open(call, name).held() {
            return Err(Error::NotALimiter);
        }
    }
    let mut removed = Vec::new();
    let mut args = call.args();
    while let Some(name) = args.key() {
        let mut key = WriteKey::open(call, name);
        if key.limiter().is_some() {
            key.delete();
            key.changed();
            removed.push(name);
        }
    }
    call.replicate_deletion(&removed);
    call.reply_integer(i64::try_from(removed.len()).unwrap_or(i64::MAX));
    Ok(())
}
