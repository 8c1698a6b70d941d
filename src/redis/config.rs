//! The configuration: `rl.*` in the server's own configuration file and in `CONFIG GET` and `SET`.

use std::ffi::{CStr, c_char, c_int, c_longlong, c_void};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};

use redis_module::raw;

use super::api;
use crate::limiter::limits::MAX_LOG_ENTRIES;

const DEFAULT_LOG_ENTRIES: i64 = 100_000;

static LOG_ENTRIES: AtomicI64 = AtomicI64::new(DEFAULT_LOG_ENTRIES);
static CL_THROTTLE: AtomicBool = AtomicBool::new(true);
static CLIENT_CLOCK: AtomicBool = AtomicBool::new(false);

/// `rl.max-log-entries`: the largest limit of RL.SLIDINGLOG, 1 to 10^7.
pub(crate) fn max_log_entries() -> u64 {
    LOG_ENTRIES.load(Relaxed).unsigned_abs()
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
    let max = c_longlong::try_from(MAX_LOG_ENTRIES).unwrap_or(c_longlong::MAX);
    // SAFETY: the name is a C string, and the functions match the setting's type and data.
    let numeric = unsafe {
        api::register_numeric_config(
            ctx,
            c"max-log-entries".as_ptr(),
            DEFAULT_LOG_ENTRIES,
            raw::REDISMODULE_CONFIG_DEFAULT,
            1,
            max,
            Some(get_number),
            Some(set_number),
            None,
            (&raw const LOG_ENTRIES).cast_mut().cast(),
        )
    };
    // SAFETY: `ctx` is the one the caller vouches for.
    let cl_throttle = unsafe { register_start_flag(ctx, c"cl-throttle", true, &CL_THROTTLE) };
    // SAFETY: as above.
    let client_clock = unsafe { register_start_flag(ctx, c"client-clock", false, &CLIENT_CLOCK) };
    let registered = [numeric, cl_throttle, client_clock] == [api::OK; 3];
    // SAFETY: as above, and all settings are registered.
    registered && unsafe { api::load_configs(ctx) } == api::OK
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
