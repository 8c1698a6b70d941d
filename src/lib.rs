//! redis-rl: rate limiting as native commands of Redis and Valkey.
//!
//! The house has three rooms, and arrows go downwards only:
//!
//! | room | what is in it |
//! | --- | --- |
//! | [`commands`] | one file a command, and the table that declares them all |
//! | [`redis`] | the border to the server: every `unsafe` line, every raw call |
//! | [`limiter`] | the limiting itself: pure, no server, no clock of its own |
//!
//! `commands` uses both others; `redis` knows `limiter` where state is saved, loaded and kept; `limiter` knows
//! nobody.

mod commands;
mod limiter;
mod redis;

use redis_module::{Context, RedisString, Status, redis_module};

/// Memory comes from the server, so that `used_memory` and `maxmemory` count it. Unit tests run
/// without a server.
#[cfg(not(test))]
type Allocator = redis_module::alloc::RedisAlloc;
#[cfg(not(test))]
const ALLOCATOR: Allocator = redis_module::alloc::RedisAlloc;
#[cfg(test)]
type Allocator = std::alloc::System;
#[cfg(test)]
const ALLOCATOR: Allocator = std::alloc::System;

/// The module's version as the server shows it: two digits a part, 1.2.3 being 10203.
const VERSION: i32 = 100;

fn load(ctx: &Context, args: &[RedisString]) -> Status {
    let loaded = if args.is_empty() {
        redis::register::load(ctx, commands::TABLE)
    } else {
        Err("the module takes no arguments; its settings are rl.* in the configuration".into())
    };
    match loaded {
        Ok(()) => Status::Ok,
        Err(reason) => {
            ctx.log_warning(&format!("redis-rl is not loaded: {reason}"));
            Status::Err
        }
    }
}

/// What the server calls when it loads the module.
mod entry {
    use super::{ALLOCATOR, Allocator, VERSION, load, redis_module};

    redis_module! {
        name: "rl",
        version: VERSION,
        allocator: (Allocator, ALLOCATOR),
        data_types: [],
        init: load,
    }
}
