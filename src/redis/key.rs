//! An open key: what it holds, storing a limiter, and its expiry.
//!
//! A key goes away by itself when its limiter is as if never used. Its expiry is set with some room to spare, and
//! left alone while it is still good, since setting it costs as much as a decision:
//!
//! ```text
//! last grant      idle                   set to                 reset = idle - last grant
//!     |------------|-----------------------|------------|
//!     now        needed        needed + reset/2 + 0.5 s   now + 2 * reset + 1 s
//!                  |<----------- left alone ----------->|
//! ```
//!
//! Primary and replicas compute the same expiry, since they hold the same one before.
//!
//! The module's options tell the server not to take a key that was opened for writing for a changed one: WATCH and
//! client-side caches are told by [`Key::changed`] alone, so a denied request disturbs nobody.

use std::ffi::{CStr, c_int, c_longlong, c_void};

use redis_module::raw;

use super::{Arg, Call, api, datatype};
use crate::limiter::limits::parse_integer;
use crate::limiter::{Limiter, Limits, Micros};

/// An open key. It is closed when dropped.
pub struct Key<'a> {
    ctx: *mut raw::RedisModuleCtx,
    key: *mut raw::RedisModuleKey,
    name: Arg<'a>,
    /// What was found when it was opened, or put there since.
    content: Content,
}

/// What a key holds, as the server has it.
#[derive(Clone, Copy)]
enum Content {
    Nothing,
    Limiter(*mut c_void),
    Foreign,
}

/// What a key holds.
pub enum Held<'k> {
    /// Nothing: there is no such key.
    Nothing,
    /// A limiter.
    Limiter(&'k mut Limiter),
    /// Something else.
    Foreign,
}

impl<'a> Key<'a> {
    /// The key's name.
    #[must_use]
    pub const fn name(&self) -> Arg<'a> {
        self.name
    }

    /// Opens a key to look at it.
    #[must_use]
    pub fn read(call: &Call<'a>, name: Arg<'a>) -> Self {
        Self::open(call, name, raw::REDISMODULE_READ)
    }

    /// Opens a key to change it. One whose time is up is deleted by the server.
    #[must_use]
    pub fn write(call: &Call<'a>, name: Arg<'a>) -> Self {
        Self::open(call, name, raw::REDISMODULE_READ | raw::REDISMODULE_WRITE)
    }

    fn open(call: &Call<'a>, name: Arg<'a>, mode: u32) -> Self {
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

    /// What the key holds.
    pub fn held(&mut self) -> Held<'_> {
        match self.content {
            Content::Nothing => Held::Nothing,
            // SAFETY: the value is ours, and lent no longer than the key, which is lent mutably.
            Content::Limiter(value) => Held::Limiter(unsafe { datatype::value_mut(value) }),
            Content::Foreign => Held::Foreign,
        }
    }

    /// What redis-cell keeps in a string of 19 digits with an expiry: a theoretical arrival time, in nanoseconds since 1970.
    ///
    /// To be asked only where such a string is a limiter: the server turns what it lets us read into a plain string, whatever
    /// its encoding was. So the length is looked at first.
    #[must_use]
    pub fn arrival_time(&self) -> Option<u64> {
        const DIGITS: usize = 19;
        // SAFETY: the key is open.
        let is_string = matches!(self.content, Content::Foreign)
            && unsafe { api::key_type(self.key) } as isize == raw::REDISMODULE_KEYTYPE_STRING;
        // SAFETY: the key is open.
        if !is_string || unsafe { api::value_length(self.key) } != DIGITS {
            return None;
        }
        // SAFETY: the key is open.
        if unsafe { api::get_abs_expire(self.key) } < 0 {
            return None;
        }
        let (mut length, read) = (0, raw::REDISMODULE_READ.cast_signed());
        // SAFETY: the key is open and holds a string; it is only read.
        let digits = unsafe { api::string_dma(self.key, &raw mut length, read) };
        if digits.is_null() {
            return None;
        }
        // SAFETY: the server answers as many readable bytes, which stay until the key is changed.
        let digits = unsafe { std::slice::from_raw_parts(digits.cast::<u8>(), length) };
        parse_integer(digits, u64::MAX)
    }

    /// The limiter that the key holds, if it holds one.
    pub fn limiter(&mut self) -> Option<&mut Limiter> {
        match self.held() {
            Held::Limiter(limiter) => Some(limiter),
            Held::Nothing | Held::Foreign => None,
        }
    }

    /// The bytes that the limiter takes, as MEMORY USAGE counts a value; 0 if there is none.
    #[must_use]
    pub fn limiter_bytes(&self) -> usize {
        match self.content {
            // SAFETY: the value is ours.
            Content::Limiter(value) => unsafe { datatype::allocated(value) },
            Content::Nothing | Content::Foreign => 0,
        }
    }

    /// Makes the key hold a limiter, in place of what it held; it has no expiry then.
    pub fn set(&mut self, limiter: Limiter) {
        let value = datatype::into_value(limiter);
        // SAFETY: the key is open for writing, and the value is of the type.
        unsafe { api::module_type_set_value(self.key, datatype::module_type(), value) };
        self.content = Content::Limiter(value);
    }

    /// Records a grant. What redis-cell kept under the key is taken over.
    pub fn grant(&mut self, limits: &Limits, now: Micros, units: u64) {
        let idle_at = if let Some(limiter) = self.limiter() {
            limiter.grant(limits, now, units);
            limiter.idle_at()
        } else {
            let time = self.arrival_time();
            let taken_over = time.and_then(|time| Limiter::from_arrival_time(limits, time, now));
            let limiter = Limiter::granted(taken_over, limits, now, units);
            let idle_at = limiter.idle_at();
            self.set(limiter);
            idle_at
        };
        self.keep_until(idle_at, now);
        self.changed();
    }

    /// Gives units back. A limiter of which nothing is used then is deleted.
    pub fn refund(&mut self, now: Micros, units: u64) {
        if self.limiter().is_some_and(|limiter| !limiter.refund(now, units)) {
            self.delete();
        }
        self.changed();
    }

    /// Deletes the key, as DEL does.
    pub fn delete(&mut self) {
        // SAFETY: the key is open for writing.
        unsafe { api::delete_key(self.key) };
        self.content = Content::Nothing;
        self.notify(c"del");
    }

    /// Tells those who watch the key that it was changed.
    pub fn changed(&self) {
        // SAFETY: the context and the name are those of a call that has not returned.
        unsafe { api::signal_modified_key(self.ctx, self.name.string) };
    }

    fn notify(&self, event: &CStr) {
        let class = raw::REDISMODULE_NOTIFY_GENERIC;
        // SAFETY: the context and the name are those of a call that has not returned.
        unsafe { api::notify_keyspace_event(self.ctx, class, event.as_ptr(), self.name.string) };
    }

    /// Sees to it that the key expires after `idle_at`, as the head of this file draws it.
    fn keep_until(&self, idle_at: Micros, now: Micros) {
        let needed = idle_at.millis_up();
        let reset = idle_at.since(now).millis_up();
        let latest = idle_at.after(idle_at.since(now)).after(Micros::SECOND).millis_up();
        // SAFETY: the key is open.
        let held: c_longlong = unsafe { api::get_abs_expire(self.key) };
        if (needed..latest).contains(&held) {
            return;
        }
        let expiry = needed.saturating_add(reset / 2).saturating_add(500);
        // SAFETY: the key is open for writing.
        let _: c_int = unsafe { api::set_abs_expire(self.key, expiry) };
    }
}

impl Drop for Key<'_> {
    fn drop(&mut self) {
        // SAFETY: the key was opened once and is closed once; null is allowed.
        unsafe { api::close_key(self.key) };
    }
}

impl Call<'_> {
    /// Whether the server holds as much as it may and evicts nothing. No memory is to be asked for
    /// then. With an eviction policy the server makes room itself, of keys like ours too.
    #[must_use]
    pub fn is_out_of_memory(&self) -> bool {
        // SAFETY: the context is that of a call that has not returned.
        let flags = unsafe { api::get_context_flags(self.ctx) }.cast_unsigned();
        flags & (raw::REDISMODULE_CTX_FLAGS_OOM | raw::REDISMODULE_CTX_FLAGS_EVICT)
            == raw::REDISMODULE_CTX_FLAGS_OOM
    }
}
