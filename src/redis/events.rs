//! What others may learn of as it happens: keyspace events of a module's own kind.
//!
//! The server publishes them if `notify-keyspace-events` has a `d` (or the `A` of all) and `K` or `E`, and notifies other
//! modules that subscribed. If nobody listens, that costs it a look at its setting.

use std::ffi::CStr;

use redis_module::raw;

use super::{Arg, Call, api};

/// What happened to a key.
#[derive(Clone, Copy)]
pub(crate) enum Event {
    /// A request was denied.
    Denied,
    /// A block began.
    Blocked,
}

impl Event {
    const fn name(self) -> &'static CStr {
        match self {
            Self::Denied => c"rl.denied",
            Self::Blocked => c"rl.blocked",
        }
    }
}

impl Call<'_> {
    /// Publishes what happened to a key. None may be open: another module that is notified may change it. And
    /// the reply must be complete, or a client that subscribed itself would read the event in its midst.
    pub(crate) fn publish(&self, event: Event, key: Arg<'_>) {
        let (class, name) = (raw::REDISMODULE_NOTIFY_MODULE, event.name().as_ptr());
        // SAFETY: the context and the key's name are those of a call that has not returned.
        unsafe { api::notify_keyspace_event(self.ctx, class, name, key.string) };
    }
}
