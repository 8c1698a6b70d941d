//! A module that takes the names of commands: those that it is given as arguments, CL.THROTTLE if there are none. Each is
//! replicated as it came, as redis-cell's is. For the tests that redis-rl is loaded beside such a module or refused,
//! and replaces it under load.

#![allow(missing_docs, reason = "the macro's functions have none")]

use std::ffi::{CString, c_int};

use redis_module::alloc::RedisAlloc;
use redis_module::{Context, RedisString, Status, raw, redis_module};

unsafe extern "C" fn theirs(
    ctx: *mut raw::RedisModuleCtx,
    _argv: *mut *mut raw::RedisModuleString,
    _argc: c_int,
) -> c_int {
    Context::new(ctx).replicate_verbatim();
    raw::reply_with_simple_string(ctx, c"theirs".as_ptr()) as c_int
}

fn take_names(ctx: &Context, names: &[RedisString]) -> Status {
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    let names = if names.is_empty() { vec!["cl.throttle".into()] } else { names };
    let taken = names.into_iter().all(|name| {
        // SAFETY: the server's function, called while the module is loaded.
        let (Some(create), Ok(name)) =
            (unsafe { raw::RedisModule_CreateCommand }, CString::new(name))
        else {
            return false;
        };
        // SAFETY: the context is the server's, and the texts are C strings.
        let created =
            unsafe { create(ctx.ctx, name.as_ptr(), Some(theirs), c"write".as_ptr(), 1, 1, 1) };
        created == Status::Ok as c_int
    });
    if taken { Status::Ok } else { Status::Err }
}

redis_module! {
    name: "name-taken",
    version: 1,
    allocator: (RedisAlloc, RedisAlloc),
    data_types: [],
    init: take_names,
}
