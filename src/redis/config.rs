//! The configuration: `rl.*` in the server's own configuration file and in `CONFIG GET` and `SET`.

use std::ffi::{CStr, c_char, c_int, c_longlong, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};

use redis_module::raw;

use super::{api, top};
use crate::limiter::limits::{MAX_LEASES, MAX_LOG_ENTRIES};

const DEFAULT_LOG_ENTRIES: i64 = 100_000;
const DEFAULT_LEASES: i64 = 100_000;
const DEFAULT_TOP_ENTRIES: c_longlong = 128;
const MAX_TOP_ENTRIES: c_longlong = 10_000;

static LOG_ENTRIES: AtomicI64 = AtomicI64::new(DEFAULT_LOG_ENTRIES);
static LEASES: AtomicI64 = AtomicI64::new(DEFAULT_LEASES);
static CL_THROTTLE: AtomicBool = AtomicBool::new(true);
static CLIENT_CLOCK: AtomicBool = AtomicBool::new(false);

/// `rl.max-log-entries`: the largest limit of RL.SLIDINGLOG, 1 to 10^7.
pub(crate) fn max_log_entries() -> u64 {
    LOG_ENTRIES.load(Relaxed).unsigned_abs()
}

/// `rl.max-leases`: the most leases of one key, 1 to 10^6.
pub(crate) fn max_leases() -> usize {
    usize::try_from(LEASES.load(Relaxed)).unwrap_or_default()
}

/// `rl.cl-throttle`: whether CL.THROTTLE is registered.
pub(crate) fn cl_throttle() -> bool {
    CL_THROTTLE.load(Relaxed)
}

/// `rl.client-clock`: whether clients may give the time.
pub(crate) fn client_clock() -> bool {
    CLIENT_CLOCK.load(Relaxed)
}

/// Registers all settings and reads them from the server's configuration; false if the server refuses one.
///
/// # Safety
///
/// `ctx` is the context with which the server loads the module.
pub(super) unsafe fn load(ctx: *mut raw::RedisModuleCtx) -> bool {
    let (name, default) = (c"max-log-entries", DEFAULT_LOG_ENTRIES);
    // SAFETY: `ctx` is the one the caller vouches for.
    let entries = unsafe { register_number(ctx, name, default, MAX_LOG_ENTRIES, &LOG_ENTRIES) };
    let (name, default) = (c"max-leases", DEFAULT_LEASES);
    // SAFETY: as above.
    let leases = unsafe { register_number(ctx, name, default, MAX_LEASES as u64, &LEASES) };
    // SAFETY: as above.
    let top = unsafe { register_top_entries(ctx) };
    // SAFETY: as above.
    let cl_throttle = unsafe { register_start_flag(ctx, c"cl-throttle", true, &CL_THROTTLE) };
    // SAFETY: as above.
    let client_clock = unsafe { register_start_flag(ctx, c"client-clock", false, &CLIENT_CLOCK) };
    let registered = [entries, leases, top, cl_throttle, client_clock] == [api::OK; 5];
    // SAFETY: as above, and all settings are registered.
    registered && unsafe { api::load_configs(ctx) } == api::OK
}

/// Registers a number from 1 to `max` that may change at run time.
unsafe fn register_number(
    ctx: *mut raw::RedisModuleCtx,
    name: &CStr,
    default: c_longlong,
    max: u64,
    number: &'static AtomicI64,
) -> c_int {
    // SAFETY: the name is a C string, and the functions match the setting's type and data.
    unsafe {
        api::register_numeric_config(
            ctx,
            name.as_ptr(),
            default,
            raw::REDISMODULE_CONFIG_DEFAULT,
            1,
            c_longlong::try_from(max).unwrap_or(c_longlong::MAX),
            Some(get_number),
            Some(set_number),
            None,
            (&raw const *number).cast_mut().cast(),
        )
    }
}

/// Registers `rl.top-entries`: how many keys RL.TOP can tell apart, 0 (none) to 10^4. [`top`] keeps the number.
unsafe fn register_top_entries(ctx: *mut raw::RedisModuleCtx) -> c_int {
    // SAFETY: the name is a C string, and the functions match the setting's type.
    unsafe {
        api::register_numeric_config(
            ctx,
            c"top-entries".as_ptr(),
            DEFAULT_TOP_ENTRIES,
            raw::REDISMODULE_CONFIG_DEFAULT,
            0,
            MAX_TOP_ENTRIES,
            Some(get_top_entries),
            Some(set_top_entries),
            Some(apply_top_entries),
            null_mut(),
        )
    }
}

/// Registers a yes-or-no that can only be set before the server starts. The default is not what the flag holds: a library that
/// stays mapped after a load that failed (musl unmaps none) still has that one's value.
unsafe fn register_start_flag(
    ctx: *mut raw::RedisModuleCtx,
    name: &CStr,
    default: bool,
    flag: &'static AtomicBool,
) -> c_int {
    // SAFETY: the name is a C string, and the functions match the setting's type and data.
    unsafe {
        api::register_bool_config(
            ctx,
            name.as_ptr(),
            c_int::from(default),
            raw::REDISMODULE_CONFIG_IMMUTABLE,
            Some(get_flag),
            Some(set_flag),
            None,
            (&raw const *flag).cast_mut().cast(),
        )
    }
}

unsafe extern "C" fn get_number(_name: *const c_char, data: *mut c_void) -> c_longlong {
    // SAFETY: registered with this static as its data.
    let number = unsafe { &*data.cast::<AtomicI64>() };
    number.load(Relaxed)
}

unsafe extern "C" fn set_number(
    _name: *const c_char,
    value: c_longlong,
    data: *mut c_void,
    _error: *mut *mut raw::RedisModuleString,
) -> c_int {
    // SAFETY: registered with this static as its data. The server has checked the bounds.
    let number = unsafe { &*data.cast::<AtomicI64>() };
    number.store(value, Relaxed);
    api::OK
}

unsafe extern "C" fn get_top_entries(_name: *const c_char, _data: *mut c_void) -> c_longlong {
    top::entries().into()
}

unsafe extern "C" fn set_top_entries(
    _name: *const c_char,
    value: c_longlong,
    _data: *mut c_void,
    _error: *mut *mut raw::RedisModuleString,
) -> c_int {
    top::set_entries(u32::try_from(value).unwrap_or_default());
    api::OK
}

unsafe extern "C" fn apply_top_entries(
    _ctx: *mut raw::RedisModuleCtx,
    _data: *mut c_void,
    _error: *mut *mut raw::RedisModuleString,
) -> c_int {
    top::apply_entries();
    api::OK
}

unsafe extern "C" fn get_flag(_name: *const c_char, data: *mut c_void) -> c_int {
    // SAFETY: registered with this static as its data.
    let flag = unsafe { &*data.cast::<AtomicBool>() };
    c_int::from(flag.load(Relaxed))
}

unsafe extern "C" fn set_flag(
    _name: *const c_char,
    value: c_int,
    data: *mut c_void,
    _error: *mut *mut raw::RedisModuleString,
) -> c_int {
    // SAFETY: registered with this static as its data.
    let flag = unsafe { &*data.cast::<AtomicBool>() };
    flag.store(value != 0, Relaxed);
    api::OK
}
