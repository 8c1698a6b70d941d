//! redis-rl: rate limiting as native commands of Redis and Valkey.
//!
//! Three layers; dependencies point downwards only:
//!
//! | layer | what is in it |
//! | --- | --- |
//! | [`commands`] | one file a command, and the table that declares them all |
//! | [`redis`] | the border to the server: every `unsafe` line, every raw call |
//! | [`limiter`] | rate limiting itself: pure, no server, no clock of its own |
//!
//! `commands` uses both others; `redis` knows `limiter` only to save, load and hold a state; `limiter` knows
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

/// The package's version as the server shows it: two digits a part, 1.2.3 being 10203.
const VERSION: i32 = {
    let major = number(env!("CARGO_PKG_VERSION_MAJOR"));
    let minor = number(env!("CARGO_PKG_VERSION_MINOR"));
    let patch = number(env!("CARGO_PKG_VERSION_PATCH"));
    assert!(major >= 0 && minor >= 0 && minor < 100 && patch >= 0 && patch < 100);
    major * 10_000 + minor * 100 + patch
};

const fn number(digits: &str) -> i32 {
    match i32::from_str_radix(digits, 10) {
        Ok(number) => number,
        Err(_) => -1,
    }
}

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
