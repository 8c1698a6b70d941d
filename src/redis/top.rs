//! Who is denied most often lately: this server's own sketch of it, which RL.TOP shows.
//!
//! It lives in the server's memory alone, and is fed by what is decided here. It is allocated at the first denial, and as many
//! slots as `rl.top-entries` says; 0 frees it. The server reports what makes it forget: a database that is
//! flushed, and databases that are swapped.
//!
//! There is no lock. The server runs one command at a time, those that other modules call from their threads included, and reports
//! events and settings between them. A `Mutex` would cost each denial a sixth of what may be spent on it here.

use std::cell::UnsafeCell;
use std::collections::hash_map::RandomState;
use std::ffi::{c_int, c_void};
use std::hash::BuildHasher;

use lazy_static::lazy_static;
use redis_module::raw;

use super::{Arg, Call, api};
use crate::limiter::Micros;
use crate::limiter::top::Sketch;

lazy_static! {
    static ref TOP: Alone<Top> =
        Alone(UnsafeCell::new(Top { entries: 0, random: RandomState::new(), sketch: None }));
}

/// What no two use at the same time.
struct Alone<T>(UnsafeCell<T>);

// SAFETY: only `with` uses it, while the server runs a command, or reports an event or a setting: one at a time.
unsafe impl<T> Sync for Alone<T> {}

struct Top {
    /// The setting `rl.top-entries`, which the server sets at load.
    entries: u32,
    /// Seeded by the system.
    random: RandomState,
    /// None until something is counted.
    sketch: Option<Sketch>,
}

/// What it is given must not lead back here.
#[inline(always)]
fn with<T>(work: impl FnOnce(&mut Top) -> T) -> T {
    // SAFETY: nobody else uses it meanwhile, as said above.
    work(unsafe { &mut *TOP.0.get() })
}

/// Counts a denial of a key.
#[inline(always)]
pub(crate) fn count(call: &Call<'_>, key: Arg<'_>, now: Micros) {
    // SAFETY: the context is that of a call that has not returned.
    let db = db(unsafe { api::get_selected_db(call.ctx) });
    let name = key.bytes();
    // SAFETY: as in `with`, whose closure the compiler does not inline here.
    let top = unsafe { &mut *TOP.0.get() };
    match &mut top.sketch {
        Some(sketch) => sketch.count(db, name, now),
        None => top.count_first(db, name, now),
    }
}

impl Top {
    #[cold]
    fn count_first(&mut self, db: u32, name: &[u8], now: Micros) {
        if self.entries > 0 {
            let mut sketch = Sketch::new(self.entries, |number| self.random.hash_one(number));
            sketch.count(db, name, now);
            self.sketch = Some(sketch);
        }
    }
}

/// Visits the sketch, if there is one.
pub(crate) fn visit<T>(visit: impl FnOnce(Option<&Sketch>) -> T) -> T {
    with(|top| visit(top.sketch.as_ref()))
}

/// Forgets everything, and frees the memory.
pub(crate) fn clear() {
    with(|top| top.sketch = None);
}

/// How many keys can be told apart.
pub(super) fn entries() -> u32 {
    with(|top| top.entries)
}

/// Changes how many keys can be told apart. The server may take it back, until [`apply_entries`] is called.
pub(super) fn set_entries(entries: u32) {
    with(|top| top.entries = entries);
}

/// Forgets all keys if another number of them can be told apart now.
pub(super) fn apply_entries() {
    with(|top| top.sketch.take_if(|sketch| sketch.slots() != top.entries));
}

fn with_sketch(work: impl FnOnce(&mut Sketch)) {
    with(|top| top.sketch.as_mut().map(work));
}

fn db(number: c_int) -> u32 {
    number.cast_unsigned() // it is none below 0
}

/// Has the server report what happens to its databases.
///
/// # Safety
///
/// `ctx` is the context with which the server loads the module.
pub(super) unsafe fn watch(ctx: *mut raw::RedisModuleCtx) {
    // A library that stayed mapped after it was unloaded has an old one.
    clear();
    let subscribe = |id, callback| {
        let event = raw::RedisModuleEvent { id, dataver: 1 };
        // SAFETY: the context is the one the caller vouches for, and the callback lives as long as the module.
        unsafe { api::subscribe_to_server_event(ctx, event, Some(callback)) };
    };
    subscribe(raw::REDISMODULE_EVENT_FLUSHDB, flushed);
    subscribe(raw::REDISMODULE_EVENT_SWAPDB, swapped);
}

unsafe extern "C" fn flushed(
    _ctx: *mut raw::RedisModuleCtx,
    _event: raw::RedisModuleEvent,
    what: u64,
    data: *mut c_void,
) {
    if what != raw::REDISMODULE_SUBEVENT_FLUSHDB_END {
        return;
    }
    // SAFETY: with this event the server hands over which database it is.
    let info = unsafe { &*data.cast::<raw::RedisModuleFlushInfo>() };
    match u32::try_from(info.dbnum) {
        Ok(db) => with_sketch(|sketch| sketch.forget(db)),
        Err(_) => clear(), // all of them
    }
}

unsafe extern "C" fn swapped(
    _ctx: *mut raw::RedisModuleCtx,
    _event: raw::RedisModuleEvent,
    _what: u64,
    data: *mut c_void,
) {
    // SAFETY: with this event the server hands over which databases they are.
    let info = unsafe { &*data.cast::<raw::RedisModuleSwapDbInfo>() };
    with_sketch(|sketch| sketch.swap(db(info.dbnum_first), db(info.dbnum_second)));
}
