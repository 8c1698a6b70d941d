//! What replicas and the append-only file are sent.
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
    pub(crate) fn replicate<B: AsRef<[u8]>>(
        &self,
        command: &CStr,
        key: Arg<'_>,
        bytes: impl FnOnce() -> B,
    ) {
        if !propagation::is_followed() {
            return self.replicate_as_is();
        }
        let bytes = bytes();
        let bytes = bytes.as_ref();
        let (start, length) = (bytes.as_ptr().cast::<c_char>(), bytes.len());
        // SAFETY: the context and the key's name are those of a call that has not returned.
        let status =
            unsafe { api::replicate(self.ctx, command.as_ptr(), key.string, start, length) };
        debug_assert_eq!(status, api::OK, "the server knows {command:?}");
    }

    /// Replicates this call as it came.
    pub(crate) fn replicate_as_is(&self) {
        // SAFETY: the context is that of a call that has not returned.
        let status = unsafe { api::replicate_verbatim(self.ctx) };
        debug_assert_eq!(status, api::OK, "nothing is asked of it");
    }

    /// Replicates the deletion of these keys in place of this call; nothing, if there are none.
    pub(crate) fn replicate_deletion(&self, keys: &[Arg<'_>]) {
        if keys.is_empty() {
            return;
        }
        if propagation::is_followed() {
            let mut names: Vec<_> = keys.iter().map(|key| key.string).collect();
            if self.replicate_strings(c"DEL", &mut names) {
                return;
            }
            // `rename-command` has taken DEL away. The call as it came does, too: it asks no clock.
        }
        self.replicate_as_is();
    }

    /// Replicates a command with these arguments; false if the server does not know it.
    fn replicate_strings(
        &self,
        command: &CStr,
        strings: &mut [*mut raw::RedisModuleString],
    ) -> bool {
        let (start, count) = (strings.as_mut_ptr(), strings.len());
        // SAFETY: the context is that of a call that has not returned, the strings are the call's or the caller's, and the
        // server holds on to those it needs.
        let status = unsafe { api::replicate_strings(self.ctx, command.as_ptr(), start, count) };
        status == api::OK
    }

    /// A batch for several keys.
    pub(crate) fn batch(&self) -> Batch<'_, 'a> {
        let is_followed = propagation::is_followed();
        Batch { call: self, is_followed, is_empty: true, strings: Vec::new() }
    }
}

/// What is to be replicated for several keys: as one command, so followers have all of it or nothing.
pub(crate) struct Batch<'c, 'a> {
    call: &'c Call<'a>,
    /// As it was when the batch began: half a batch would be worse than none.
    is_followed: bool,
    is_empty: bool,
    /// A key's name, which is the call's, and a string, which is ours; and so on. None while nobody follows.
    strings: Vec<*mut raw::RedisModuleString>,
}

impl<'a> Batch<'_, 'a> {
    /// Adds `key bytes`.
    pub(crate) fn push<B: AsRef<[u8]>>(&mut self, key: Arg<'a>, bytes: impl FnOnce() -> B) {
        self.is_empty = false;
        if !self.is_followed {
            return;
        }
        let bytes = bytes();
        let bytes = bytes.as_ref();
        let start = bytes.as_ptr().cast::<c_char>();
        // SAFETY: without a context the string is ours alone; the server copies the bytes.
        let string = unsafe { api::create_string(null_mut(), start, bytes.len()) };
        self.strings.extend([key.string, string]);
    }

    /// Replicates `command key bytes [key bytes ...]` in place of the call; nothing, if there are none.
    pub(crate) fn replicate(mut self, command: &CStr) {
        if !self.strings.is_empty() {
            let replicated = self.call.replicate_strings(command, &mut self.strings);
            debug_assert!(replicated, "the server knows {command:?}");
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
