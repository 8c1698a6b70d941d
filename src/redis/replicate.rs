//! What replicas and the append-only file are told.
//!
//! A command that decides is not replicated as it is, since another server would decide at
//! another time: its *effect* is, as a call of an internal command. What a replica applies must call
//! [`Call::replicate_as_is`] itself, or the replica's own append-only file and its sub-replicas would miss it.
//!
//! While nobody follows this server no effect is put together: see [`propagation`].

use std::ffi::{CStr, c_char};
use std::ptr::null_mut;

use redis_module::raw;

use super::{Arg, Call, api, propagation};

impl<'a> Call<'a> {
    /// Replicates `command key bytes` in place of this call.
    pub fn replicate<const N: usize>(
        &self,
        command: &CStr,
        key: Arg<'_>,
        bytes: impl FnOnce() -> [u8; N],
    ) {
        if !propagation::is_followed() {
            return self.replicate_as_is();
        }
        let bytes = bytes();
        let (start, length) = (bytes.as_ptr().cast::<c_char>(), bytes.len());
        // SAFETY: the context and the key's name are those of a call that has not returned.
        unsafe { api::replicate(self.ctx, command.as_ptr(), key.string, start, length) };
    }

    /// Replicates this call as it came.
    pub fn replicate_as_is(&self) {
        // SAFETY: the context is that of a call that has not returned.
        unsafe { api::replicate_verbatim(self.ctx) };
    }

    /// Replicates the deletion of these keys in place of this call: what RL.RESET removes needs no command of ours.
    pub fn replicate_deletion(&self, keys: &[Arg<'_>]) {
        if keys.is_empty() {
            return;
        }
        if !propagation::is_followed() {
            return self.replicate_as_is();
        }
        let mut names: Vec<_> = keys.iter().map(|key| key.string).collect();
        let (start, count) = (names.as_mut_ptr(), names.len());
        // SAFETY: the context and the names are those of a call that has not returned.
        unsafe { api::replicate_strings(self.ctx, c"DEL".as_ptr(), start, count) };
    }

    /// A batch for several keys.
    #[must_use]
    pub const fn batch(&self) -> Batch<'_, 'a> {
        Batch { call: self, is_empty: true, strings: Vec::new() }
    }
}

/// What is to be replicated for several keys: as one command, so those who follow have all of it or nothing.
pub struct Batch<'c, 'a> {
    call: &'c Call<'a>,
    is_empty: bool,
    /// A key's name, which is the call's, and a string, which is ours; and so on. None while nobody follows.
    strings: Vec<*mut raw::RedisModuleString>,
}

impl<'a> Batch<'_, 'a> {
    /// Adds `key bytes`.
    pub fn push<const N: usize>(&mut self, key: Arg<'a>, bytes: impl FnOnce() -> [u8; N]) {
        self.is_empty = false;
        if !propagation::is_followed() {
            return;
        }
        let bytes = bytes();
        let start = bytes.as_ptr().cast::<c_char>();
        // SAFETY: without a context the string is ours alone; the server copies the bytes.
        let string = unsafe { api::create_string(null_mut(), start, bytes.len()) };
        self.strings.extend([key.string, string]);
    }

    /// Replicates `command key bytes [key bytes ...]` in place of the call; nothing, if there are none.
    pub fn replicate(mut self, command: &CStr) {
        let (start, count) = (self.strings.as_mut_ptr(), self.strings.len());
        if count > 0 {
            // SAFETY: the names are those of a call that has not returned, the other strings are still ours, and
            // the server holds on to those it needs.
            unsafe { api::replicate_strings(self.call.ctx, command.as_ptr(), start, count) };
        } else if !self.is_empty {
            self.call.replicate_as_is();
        }
    }
}

impl Drop for Batch<'_, '_> {
    fn drop(&mut self) {
        for &string in self.strings.iter().skip(1).step_by(2) {
            // SAFETY: the string was made in `push`, without a context, and is freed once.
            unsafe { api::free_string(null_mut(), string) };
        }
    }
}
