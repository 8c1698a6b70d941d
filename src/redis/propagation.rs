//! Whether effects are propagated: not while nobody follows this server.
//!
//! To replicate an effect costs a quarter of a grant, most of it before the server looks whether anybody follows. So a
//! grant asks here first ([`is_followed`]). If nobody does, it only has itself replicated as it came, which counts as a change (for
//! `save` rules) and goes nowhere. INFO shows which of the two it is: `rl_propagation:effects` or `none`.
//!
//! ```text
//!   effects  -- a look once a second finds no follower -->  none
//!      ^ at load                                              |
//!      '-- a fork, a replica, a role, a loading, a setting <--'   the server reports it as it happens
//! ```
//!
//! The server drops what is replicated unless the append-only file is on, there is a replica, or there is a backlog
//! (`shouldPropagate` in server.c; `alsoPropagate` asks it at the time of the call). The look reads these very three, so at
//! that moment it is exact. Afterwards a follower can come in these ways alone:
//!
//! | how | why it is sent no public command |
//! | --- | --- |
//! | a replica asks for all (`syncCommand`, replication.c) | it gets a snapshot, and the stream from there on. A snapshot is a fork, and `redisFork` reports it at once. Until then the stream goes into a new backlog alone, from which nobody can read: only a replica that got that snapshot knows its new replication id, and asks for what came later |
//! | a replica asks for the rest (`masterTryPartialResynchronization`) | there must have been a backlog, which the look would have seen; one that comes with a role (`replicationUnsetMaster`) or a file (`loadDataFromDisk`) comes with that event |
//! | the file is switched on (`startAppendOnly`, aof.c) | it begins with a rewrite, which is a fork, or, on a replica after a full sync, with the very file it has just loaded, which is reported as a loading. While another child still runs it waits for that, and writes nothing before (`feedAppendOnlyFile`) |
//! | a slot migrates as a whole (Valkey 9, Redis 8.4) | that is possible in a cluster only, and there effects are always propagated |
//!
//! SAVE, a snapshot without a fork from which a server may be started elsewhere, is reported, too. A server that sent replicas
//! snapshots without a fork would have to be asked in another way.
//!
//! Read in Redis 7.0 and 8.0 and in Valkey 8.0; held against Redis 7.0.15 and 8.2.3 and Valkey 9.1.2 by
//! `tests/propagation.rs`. Were it ever wrong, followers would be sent the public command and decide by their own
//! clock: a drift, not a loss.

use std::ffi::{CStr, c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::Relaxed};

use redis_module::raw;

use super::api;

/// Everything here happens on the server's main thread, so no ordering is asked of the atomics.
static FOLLOWED: AtomicBool = AtomicBool::new(true);

/// Cron ticks until the next look.
static UNTIL_LOOK: AtomicI32 = AtomicI32::new(0);

/// Whether somebody may follow this server. If not, what is replicated certainly goes nowhere.
pub(super) fn is_followed() -> bool {
    FOLLOWED.load(Relaxed)
}

/// Has the server report what may bring followers. If it cannot report all of it, nobody looks, and effects are always
/// propagated.
///
/// # Safety
///
/// `ctx` is the context with which the server loads the module.
pub(super) unsafe fn watch(ctx: *mut raw::RedisModuleCtx) {
    const MAY_BRING_FOLLOWERS: [u64; 6] = [
        raw::REDISMODULE_EVENT_FORK_CHILD,
        // SAVE is a snapshot without a fork.
        raw::REDISMODULE_EVENT_PERSISTENCE,
        raw::REDISMODULE_EVENT_REPLICA_CHANGE,
        raw::REDISMODULE_EVENT_REPLICATION_ROLE_CHANGED,
        raw::REDISMODULE_EVENT_LOADING,
        raw::REDISMODULE_EVENT_CONFIG,
    ];
    // A library that stayed mapped after a load that failed knows nothing of what came since.
    FOLLOWED.store(true, Relaxed);
    let subscribe = |id, callback| {
        let event = raw::RedisModuleEvent { id, dataver: 1 };
        // SAFETY: the context is the one the caller vouches for, and the callback lives as long as the module.
        unsafe { api::subscribe_to_server_event(ctx, event, Some(callback)) == api::OK }
    };
    if MAY_BRING_FOLLOWERS.into_iter().all(|id| subscribe(id, propagate)) {
        subscribe(raw::REDISMODULE_EVENT_CRON_LOOP, look_once_a_second);
    }
}

unsafe extern "C" fn propagate(
    _ctx: *mut raw::RedisModuleCtx,
    _event: raw::RedisModuleEvent,
    _what: u64,
    _data: *mut c_void,
) {
    FOLLOWED.store(true, Relaxed);
}

unsafe extern "C" fn look_once_a_second(
    ctx: *mut raw::RedisModuleCtx,
    _event: raw::RedisModuleEvent,
    _what: u64,
    data: *mut c_void,
) {
    // SAFETY: with this event the server hands over how often a second it comes, which may change.
    let info = unsafe { &*data.cast::<raw::RedisModuleCronLoopInfo>() };
    let ticks = UNTIL_LOOK.load(Relaxed).min(info.hz);
    if ticks > 0 {
        UNTIL_LOOK.store(ticks.saturating_sub(1), Relaxed);
        return;
    }
    UNTIL_LOOK.store(info.hz.saturating_sub(1), Relaxed);
    // SAFETY: the context is the one with which the server calls.
    FOLLOWED.store(!unsafe { drops_all(ctx) }, Relaxed);
}

/// Whether the server would now drop whatever is replicated.
///
/// # Safety
///
/// `ctx` is one with which the server calls, on its main thread.
unsafe fn drops_all(ctx: *mut raw::RedisModuleCtx) -> bool {
    const FOLLOWED: u32 = raw::REDISMODULE_CTX_FLAGS_AOF | raw::REDISMODULE_CTX_FLAGS_CLUSTER;
    // SAFETY: the caller vouches for the context.
    let flags = unsafe { api::get_context_flags(ctx) }.cast_unsigned();
    if flags & FOLLOWED != 0 {
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
    let drops_all = is_zero(c"connected_slaves") && is_zero(c"repl_backlog_active");
    // SAFETY: as above; nothing refers to it any more.
    unsafe { api::free_server_info(ctx, info) };
    drops_all
}
