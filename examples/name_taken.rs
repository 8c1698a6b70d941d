//! A module with a CL.THROTTLE of its own, which replicates itself as it came, as redis-cell's does: for the tests that
//! redis-rl is loaded beside such a module all the same, and replaces it under load.

#![allow(missing_docs, reason = "the macro's functions have none")]

use redis_module::alloc::RedisAlloc;
use redis_module::{Context, RedisResult, RedisString, RedisValue, redis_module};

fn throttle(ctx: &Context, _args: Vec<RedisString>) -> RedisResult {
    ctx.replicate_verbatim();
    Ok(RedisValue::SimpleStringStatic("theirs"))
}

redis_module! {
    name: "name-taken",
    version: 1,
    allocator: (RedisAlloc, RedisAlloc),
    data_types: [],
    commands: [
        ["cl.throttle", throttle, "write", 1, 1, 1, ""],
    ],
}
