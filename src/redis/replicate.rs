//! What replicas and the append-only file are told.
//!
//! A command that decides is not replicated as it is, since another server would decide at
//! another time: its *effect* is, as a call of an internal command. What a replica applies must call
//! [`Call::replicate_as_is`] itself, or the replica's own append-only file and its sub-replicas would miss it.

use std::ffi::{CStr, c_char};

use super::{Arg, Call, api};

impl Call<'_> {
    /// Replicates `command key bytes` in place of this call.
    pub fn replicate(&self, command: &CStr, key: Arg<'_>, bytes: &[u8]) {
        let (start, length) = (bytes.as_ptr().cast::<c_char>(), bytes.len());
        // SAFETY: the context and the key's name are those of a call that has not returned.
        unsafe { api::replicate(self.ctx, command.as_ptr(), key.string, start, length) };
    }

    /// Replicates this call as it came.
    pub fn replicate_as_is(&self) {
        // SAFETY: the context is that of a call that has not returned.
        unsafe { api::replicate_verbatim(self.ctx) };
    }
}
