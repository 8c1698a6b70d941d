//! Whether anybody hears what is replicated.
//!
//! To replicate an effect costs a quarter of a grant, most of it before the server looks whether anybody listens. So a
//! grant asks here first ([`nobody_listens`]), and where nobody does it only has itself replicated as it came, which counts
//! as a change (for `save` rules) and goes nowhere.
//!
//! ```text
//!   somebody may listen  -- a look once a second finds nobody -->  nobody listens
//!            ^ at load                                                  |
//!            '---- a fork, a replica, a role, a loading, a setting <----'   told by the server as it happens
//! ```
//!
//! The server drops what is replicated unless the append-only file is on, there is a replica, or there is a backlog
//! (`shouldPropagate` in server.c; `alsoPropagate` asks it at the time of the call). The look reads these very three, so at
//! that moment it is exact. Afterwards somebody can come to listen in these ways alone:
//!
//! | how | why no public command is heard |
//! | --- | --- |
//! | a replica asks for all (`syncCommand`, replication.c) | it gets a snapshot, and the stream from there on. A snapshot is a fork, and `redisFork` tells us in the same breath. Until then the stream goes into a new backlog alone, from which nobody can read: only one who got that snapshot knows its new replication id, and asks for what came later |
//! | a replica asks for the rest (`masterTryPartialResynchronization`) | there must have been a backlog, which the look would have seen; one that comes with a role (`replicationUnsetMaster`) or a file (`loadDataFromDisk`) comes with that event |
//! | the file is switched on (`startAppendOnly`, aof.c) | it begins with a rewrite, which is a fork, or, on a replica after a full sync, with the very file it has just loaded, which is told as a loading. Where another child still runs it waits for that, and writes nothing before (`feedAppendOnlyFile`) |
//! | a slot migrates as a whole (Valkey 9, Redis 8.4) | that is possible in a cluster only, where somebody is always taken to listen |
//!
//! SAVE, a snapshot without a fork from which a server may be started elsewhere, is told, too. A server that sent replicas
//! snapshots without a fork would have to be asked in another way.
//!
//! Read in Redis 7.0 and 8.0 and in Valkey 8.0; held against Redis 7.0.15 and 8.2.3 and Valkey 9.1.2 by
//! `tests/audience.rs`. Were it ever wrong, those who follow would be sent the public command and decide by their own
//! clock: a drift, not a loss.

use std::ffi::{CStr, c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::Relaxed};

use redis_module::raw;

use super::api;

/// Everything here happens on the server's main thread, so no ordering is asked of the atomics.
static NOBODY: AtomicBool = AtomicBool::new(false);

/// Turns of the server's cron until the next look.
static UNTIL_LOOK: AtomicI32 = AtomicI32::new(0);

/// Whether it is certain that nobody hears what is replicated.
pub(super) fn nobody_listens() -> bool {
    NOBODY.load(Relaxed)
}

/// Has the server tell of what may bring somebody to listen. Where it cannot tell all, nobody looks, and somebody is
/// always taken to listen.
///
/// # Safety
///
/// `ctx` is the context with which the server loads the module.
pub(super) unsafe fn watch(ctx: *mut raw::RedisModuleCtx) {
    const TELLING: [u64; 6] = [
        raw::REDISMODULE_EVENT_FORK_CHILD,
        // SAVE is a snapshot without a fork.
        raw::REDISMODULE_EVENT_PERSISTENCE,
        raw::REDISMODULE_EVENT_REPLICA_CHANGE,
        raw::REDISMODULE_EVENT_REPLICATION_ROLE_CHANGED,
        raw::REDISMODULE_EVENT_LOADING,
        raw::REDISMODULE_EVENT_CONFIG,
    ];
    // A library that stayed mapped after a load that failed knows nothing of what came since.
    NOBODY.store(false, Relaxed);
    let subscribe = |id, callback| {
        let event = raw::RedisModuleEvent { id, dataver: 1 };
        // SAFETY: the context is the one the caller vouches for, and the callback lives as long as the module.
        unsafe { api::subscribe_to_server_event(ctx, event, Some(callback)) == api::OK }
    };
    if TELLING.into_iter().all(|id| subscribe(id, somebody_may_listen)) {
        subscribe(raw::REDISMODULE_EVENT_CRON_LOOP, look_once_a_second);
    }
}

unsafe extern "C" fn somebody_may_listen(
    _ctx: *mut raw::RedisModuleCtx,
    _event: raw::RedisModuleEvent,
    _what: u64,
    _data: *mut c_void,
) {
    NOBODY.store(false, Relaxed);
}

unsafe extern "C" fn look_once_a_second(
    ctx: *mut raw::RedisModuleCtx,
    _event: raw::RedisModuleEvent,
    _what: u64,
    data: *mut c_void,
) {
    // SAFETY: with this event the server hands over how often a second it comes, which may change.
    let info = unsafe { &*data.cast::<raw::RedisModuleCronLoopInfo>() };
    let turns = UNTIL_LOOK.load(Relaxed).min(info.hz);
    if turns > 0 {
        UNTIL_LOOK.store(turns.saturating_sub(1), Relaxed);
        return;
    }
    UNTIL_LOOK.store(info.hz.saturating_sub(1), Relaxed);
    // SAFETY: the context is the one with which the server calls.
    NOBODY.store(unsafe { has_no_audience(ctx) }, Relaxed);
}

/// Whether the server would now drop whatever is replicated.
///
/// # Safety
///
/// `ctx` is one with which the server calls, on its main thread.
unsafe fn has_no_audience(ctx: *mut raw::RedisModuleCtx) -> bool {
    const LISTENING: u32 = raw::REDISMODULE_CTX_FLAGS_AOF | raw::REDISMODULE_CTX_FLAGS_CLUSTER;
    // SAFETY: the caller vouches for the context.
    let flags = unsafe { api::get_context_flags(ctx) }.cast_unsigned();
    if flags & LISTENING != 0 {
        return false;
    }
    // SAFETY: as above; the name is a C string.
    let info = unsafe { api::get_server_info(ctx, c"replication".as_ptr()) };
    let is_zero = |field: &CStr| {
        let mut error: c_int = 0;
        // SAFETY: the section was answered in the line above and is freed below; the name is a C string.
        let value = unsafe { api::server_info_unsigned(info, field.as_ptr(), &raw mut error) };
        error == api::OK && value == 0
    };
    let nobody = is_zero(c"connected_slaves") && is_zero(c"repl_backlog_active");
    // SAFETY: as above; nothing refers to it any more.
    unsafe { api::free_server_info(ctx, info) };
    nobody
}
