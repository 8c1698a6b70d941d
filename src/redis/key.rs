//! An open key: what it holds, storing a limiter, and its expiry.
//!
//! There are two handles. A [`ReadKey`] lends what the key holds, and can change nothing. A [`WriteKey`] is one that can
//! also change it.
//!
//! The module's options tell the server not to take a key that was opened for writing for a changed one: WATCH and
//! client-side caches are notified by [`WriteKey::changed`] alone, so a denied request disturbs nobody.

use std::ffi::{CStr, c_int, c_void};
use std::ops::Deref;

use redis_module::raw;

use super::{Arg, Call, api, datatype};
use crate::limiter::Limiter;
use crate::limiter::limits::parse_integer;

/// A key that is open to look at it. It is closed when dropped.
pub(crate) struct ReadKey<'a> {
    ctx: *mut raw::RedisModuleCtx,
    key: *mut raw::RedisModuleKey,
    name: Arg<'a>,
    /// What was found when it was opened, or put there since.
    content: Content,
}

/// A key that is open to change it.
pub(crate) struct WriteKey<'a>(ReadKey<'a>);

/// What a key holds, as the server has it.
#[derive(Clone, Copy)]
enum Content {
    Nothing,
    Limiter(*mut c_void),
    Foreign,
}

/// What a key holds.
pub(crate) enum Held<'k> {
    /// There is no such key.
    Nothing,
    Limiter(&'k Limiter),
    /// A value that is not a limiter.
    Foreign,
}

impl<'a> ReadKey<'a> {
    pub(crate) fn open(call: &Call<'a>, name: Arg<'a>) -> Self {
        Self::open_for(call, name, raw::REDISMODULE_READ)
    }

    fn open_for(call: &Call<'a>, name: Arg<'a>, mode: u32) -> Self {
        // SAFETY: the context and the name are those of a call that has not returned.
        let key = unsafe { api::open_key(call.ctx, name.string, mode.cast_signed()) };
        let mut key = Self { ctx: call.ctx, key, name, content: Content::Nothing };
        key.content = key.find_content();
        key
    }

    fn find_content(&self) -> Content {
        // SAFETY: the key is open, or null: the server takes that for an empty one. Only a module's value has such a type.
        if unsafe { api::module_type_get_type(self.key) } == datatype::module_type() {
            // SAFETY: the key is open, and holds a value of ours.
            return Content::Limiter(unsafe { api::module_type_get_value(self.key) });
        }
        // SAFETY: the key is open, or null: the server takes that for an empty one.
        match unsafe { api::key_type(self.key) } as isize {
            raw::REDISMODULE_KEYTYPE_EMPTY => Content::Nothing,
            _ => Content::Foreign,
        }
    }

    pub(crate) const fn name(&self) -> Arg<'a> {
        self.name
    }

    pub(crate) fn held(&self) -> Held<'_> {
        match self.content {
            Content::Nothing => Held::Nothing,
            // SAFETY: the value is ours, and lent no longer than the key.
            Content::Limiter(value) => Held::Limiter(unsafe { datatype::value_ref(value) }),
            Content::Foreign => Held::Foreign,
        }
    }

    /// The limiter that the key holds, if it holds one.
    pub(crate) fn limiter(&self) -> Option<&Limiter> {
        match self.held() {
            Held::Limiter(limiter) => Some(limiter),
            Held::Nothing | Held::Foreign => None,
        }
    }

    /// The bytes that the limiter takes, as MEMORY USAGE counts a value; 0 if there is none.
    pub(crate) fn limiter_bytes(&self) -> usize {
        match self.content {
            // SAFETY: the value is ours.
            Content::Limiter(value) => unsafe { datatype::allocated(value) },
            Content::Nothing | Content::Foreign => 0,
        }
    }

    /// What redis-cell keeps in a string of 19 digits with an expiry: a theoretical arrival time, in nanoseconds since 1970.
    ///
    /// Ask only if such a string counts as a limiter: the server turns what it lets us read into a plain string, whatever
    /// its encoding was. So the length is looked at first.
    pub(crate) fn arrival_time(&self) -> Option<u64> {
        const DIGITS: usize = 19;
        // SAFETY: the key is open.
        let is_string = matches!(self.content, Content::Foreign)
            && unsafe { api::key_type(self.key) } as isize == raw::REDISMODULE_KEYTYPE_STRING;
        // SAFETY: the key is open.
        if !is_string || unsafe { api::value_length(self.key) } != DIGITS {
            return None;
        }
        if self.expiry() < 0 {
            return None;
        }
        let (mut length, read) = (0, raw::REDISMODULE_READ.cast_signed());
        // SAFETY: the key is open and holds a string; it is only read.
        let digits = unsafe { api::string_dma(self.key, &raw mut length, read) };
        if digits.is_null() {
            return None;
        }
        // SAFETY: the server answers this many readable bytes, which stay until the key is changed.
        let digits = unsafe { std::slice::from_raw_parts(digits.cast::<u8>(), length) };
        parse_integer(digits, u64::MAX)
    }

    /// When the key expires, in milliseconds since 1970; negative if it does not.
    pub(crate) fn expiry(&self) -> i64 {
        // SAFETY: the key is open.
        unsafe { api::get_abs_expire(self.key) }
    }
}

impl<'a> WriteKey<'a> {
    /// Opens a key to change it. If it has expired, the server deletes it first.
    pub(crate) fn open(call: &Call<'a>, name: Arg<'a>) -> Self {
        Self(ReadKey::open_for(call, name, raw::REDISMODULE_READ | raw::REDISMODULE_WRITE))
    }

    /// The limiter that the key holds, to change it in place.
    pub(crate) fn limiter_mut(&mut self) -> Option<&mut Limiter> {
        match self.0.content {
            // SAFETY: the value is ours, and lent no longer than the key, which is lent mutably.
            Content::Limiter(value) => Some(unsafe { datatype::value_mut(value) }),
            Content::Nothing | Content::Foreign => None,
        }
    }

    /// Makes the key hold a limiter, in place of what it held; it has no expiry then.
    pub(crate) fn set(&mut self, limiter: Limiter) {
        let value = datatype::into_value(limiter);
        // SAFETY: the key is open for writing, and the value is of the type.
        let status =
            unsafe { api::module_type_set_value(self.0.key, datatype::module_type(), value) };
        assert_done(status);
        self.0.content = Content::Limiter(value);
    }

    /// Deletes the key, as DEL does.
    pub(crate) fn delete(&mut self) {
        // SAFETY: the key is open for writing.
        assert_done(unsafe { api::delete_key(self.0.key) });
        self.0.content = Content::Nothing;
        self.notify(c"del");
    }

    /// Has the key expire at a moment, in milliseconds since 1970.
    pub(crate) fn set_expiry(&mut self, at: i64) {
        // SAFETY: the key is open for writing.
        assert_done(unsafe { api::set_abs_expire(self.0.key, at) });
    }

    /// Notifies those who watch the key that it was changed.
    pub(crate) fn changed(&self) {
        // SAFETY: the context and the name are those of a call that has not returned.
        assert_done(unsafe { api::signal_modified_key(self.0.ctx, self.0.name.string) });
    }

    fn notify(&self, event: &CStr) {
        let (ctx, class, name) = (self.0.ctx, raw::REDISMODULE_NOTIFY_GENERIC, self.0.name.string);
        // SAFETY: the context and the name are those of a call that has not returned.
        assert_done(unsafe { api::notify_keyspace_event(ctx, class, event.as_ptr(), name) });
    }
}

/// The server refuses none of this for a key that is open for writing.
fn assert_done(status: c_int) {
    debug_assert_eq!(status, api::OK);
}

impl<'a> Deref for WriteKey<'a> {
    type Target = ReadKey<'a>;

    fn deref(&self) -> &ReadKey<'a> {
        &self.0
    }
}

impl Drop for ReadKey<'_> {
    fn drop(&mut self) {
        // SAFETY: the key was opened once and is closed once; null is allowed.
        unsafe { api::close_key(self.key) };
    }
}

impl Call<'_> {
    /// Whether the server holds as much as it may and evicts nothing. No memory must be asked for
    /// then. With an eviction policy the server makes room itself, from keys like ours too.
    pub(crate) fn is_out_of_memory(&self) -> bool {
        // SAFETY: the context is that of a call that has not returned.
        let flags = unsafe { api::get_context_flags(self.ctx) }.cast_unsigned();
        flags & (raw::REDISMODULE_CTX_FLAGS_OOM | raw::REDISMODULE_CTX_FLAGS_EVICT)
            == raw::REDISMODULE_CTX_FLAGS_OOM
    }
}
