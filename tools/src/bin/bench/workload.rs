//! What is measured: each command once, in one table, with what must be there before and what must come out.
//!
//! ```text
//! call      the words that are sent, of several commands with a ; between them; __rand_int__ stands for twelve digits, which make a name of 16 bytes
//! prepare   what is sent once for every key beforehand: a call measured updates a key and does not create one
//! decides   whether the module must have granted or denied every call; its own counters are asked afterwards
//! ```
//!
//! What is granted has limits that are never reached; what is denied asks a limiter that is full and stays full for a day.
//! Windows are of an hour, and buckets are prepared by a hit of many units: else keys would be as if never used again before their
//! next hit, sooner on a slow machine, and be created anew.
//! Values are 16 bytes of text: 16 digits would be held as an integer.

use anyhow::{Context, Result, ensure};
use redis::Connection;

use crate::server::field;

/// What redis-benchmark puts a number of twelve digits for.
const NUMBER: &str = "__rand_int__";
/// What the digests of the workload's scripts are put for, in order.
const SCRIPTS: [&str; 2] = ["__script__", "__other_script__"];
/// How many commands are sent before their answers are read, where it is not measured.
const BATCH: u64 = 1_000;
/// How many are pipelined where it is.
pub const PIPELINE: u64 = 16;

/// Whose command it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    BuiltIn,
    Module,
    Lua,
    RedisCell,
}

/// What the module must have decided on every call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Decides {
    Granted,
    Denied,
    Nothing,
}

/// A command to measure.
#[derive(Clone, Copy)]
pub struct Workload {
    pub name: &'static str,
    pub origin: Origin,
    pub call: &'static str,
    pub prepare: &'static str,
    pub decides: Decides,
    pub scripts: &'static [&'static str],
}

const SET: &str = "SET key:__rand_int__ a-16-byte-string EX 60";
const TOKENBUCKET: &str = "RL.TOKENBUCKET key:__rand_int__ 1000000 100/60";
const TOKENBUCKET_USED: &str = "RL.TOKENBUCKET key:__rand_int__ 1000000 100/60 COST 100000";
const LEAKYBUCKET: &str = "RL.LEAKYBUCKET key:__rand_int__ 1000000 100/60";
const LEAKYBUCKET_USED: &str = "RL.LEAKYBUCKET key:__rand_int__ 1000000 100/60 COST 100000";
const FIXEDWINDOW: &str = "RL.FIXEDWINDOW key:__rand_int__ 1000000 1h";
const SLIDING: &str = "RL.SLIDING key:__rand_int__ 1000000 1h";
const SLIDINGLOG: &str = "RL.SLIDINGLOG key:__rand_int__ 100000 1h";
const MULTI: &str = "RL.MULTI 3 one:__rand_int__ two:__rand_int__ six:__rand_int__ \
                     TOKENBUCKET 1000000 100/60 FIXEDWINDOW 1000000 1h SLIDING 1000000 1h";
const MULTI_USED: &str = "RL.MULTI 3 one:__rand_int__ two:__rand_int__ six:__rand_int__ \
                          TOKENBUCKET 1000000 100/60 COST 100000 FIXEDWINDOW 1000000 1h SLIDING 1000000 1h";
const THROTTLE: &str = "CL.THROTTLE key:__rand_int__ 999999 100 60 1";
const THROTTLE_USED: &str = "CL.THROTTLE key:__rand_int__ 999999 100 60 100000";

const LUA_LOG: &str = "EVALSHA __script__ 1 key:__rand_int__ 100000 3600000";
const LUA_WINDOW: &str = "EVALSHA __script__ 1 key:__rand_int__ 1000000 3600";

const fn built_in(name: &'static str, call: &'static str, prepare: &'static str) -> Workload {
    let origin = Origin::BuiltIn;
    Workload { name, origin, call, prepare, decides: Decides::Nothing, scripts: &[] }
}

const fn granted(name: &'static str, call: &'static str, prepare: &'static str) -> Workload {
    let (origin, decides) = (Origin::Module, Decides::Granted);
    Workload { name, origin, call, prepare, decides, scripts: &[] }
}

const fn denied(name: &'static str, call: &'static str) -> Workload {
    Workload { decides: Decides::Denied, ..granted(name, call, call) }
}

const fn lua(
    name: &'static str,
    call: &'static str,
    prepare: &'static str,
    scripts: &'static [&'static str],
) -> Workload {
    Workload { origin: Origin::Lua, scripts, ..built_in(name, call, prepare) }
}

pub const SET_EX: Workload = built_in("SET EX 60", SET, SET);
/// Keys that stay, where they are not set again.
const SET_LONG: &str = "SET key:__rand_int__ a-16-byte-string EX 6000";
/// The same to keys of its own, which lie beside those of what it is compared with.
const SET_BESIDE: &str = "SET set:__rand_int__ a-16-byte-string EX 60";
const SET_BESIDE_LONG: &str = "SET set:__rand_int__ a-16-byte-string EX 6000";
/// What throughput is compared with.
pub const SET_YARDSTICK: Workload = built_in(SET_EX.name, SET_BESIDE, SET_BESIDE_LONG);
/// What latency is compared with.
pub const PING_YARDSTICK: Workload = built_in("PING", "PING", SET_BESIDE_LONG);
pub const TOKENBUCKET_GRANTED: Workload =
    granted("RL.TOKENBUCKET granted", TOKENBUCKET, TOKENBUCKET_USED);
pub const TOKENBUCKET_DENIED: Workload =
    denied("RL.TOKENBUCKET denied", "RL.TOKENBUCKET key:__rand_int__ 1 1/1d");
pub const FIXEDWINDOW_GRANTED: Workload =
    granted("RL.FIXEDWINDOW granted", FIXEDWINDOW, FIXEDWINDOW);
pub const SLIDING_GRANTED: Workload = granted("RL.SLIDING granted", SLIDING, SLIDING);
pub const SLIDINGLOG_GRANTED: Workload = granted("RL.SLIDINGLOG granted", SLIDINGLOG, SLIDINGLOG);

/// Every command, in the order of the tables.
pub const ALL: [Workload; 20] = [
    built_in("PING", "PING", SET),
    built_in("GET", "GET key:__rand_int__", SET_LONG),
    built_in("INCR", "INCR key:__rand_int__", "INCR key:__rand_int__"),
    SET_EX,
    TOKENBUCKET_GRANTED,
    TOKENBUCKET_DENIED,
    granted("RL.LEAKYBUCKET granted", LEAKYBUCKET, LEAKYBUCKET_USED),
    denied("RL.LEAKYBUCKET denied", "RL.LEAKYBUCKET key:__rand_int__ 1 1/1d"),
    FIXEDWINDOW_GRANTED,
    denied("RL.FIXEDWINDOW denied", "RL.FIXEDWINDOW key:__rand_int__ 1 1d"),
    SLIDING_GRANTED,
    denied("RL.SLIDING denied", "RL.SLIDING key:__rand_int__ 1 1d"),
    SLIDINGLOG_GRANTED,
    denied("RL.SLIDINGLOG denied", "RL.SLIDINGLOG key:__rand_int__ 1 1d"),
    granted("RL.MULTI of 3 granted", MULTI, MULTI_USED),
    Workload {
        decides: Decides::Nothing,
        ..granted("RL.PEEK", "RL.PEEK key:__rand_int__", TOKENBUCKET_USED)
    },
    granted("CL.THROTTLE granted", THROTTLE, THROTTLE_USED),
    lua(
        "Lua token bucket",
        "EVALSHA __script__ 1 key:__rand_int__ 1000000 100 60 1",
        "EVALSHA __script__ 1 key:__rand_int__ 1000000 100 60 100000",
        &[include_str!("lua/token_bucket.lua")],
    ),
    lua("Lua sliding log", LUA_LOG, LUA_LOG, &[include_str!("lua/sliding_log.lua")]),
    lua("Lua fixed window", LUA_WINDOW, LUA_WINDOW, &[include_str!("lua/fixed_window.lua")]),
];

/// Releases the oldest lease of a key and acquires it anew: so leases come and go in turn, and as many are held all the time.
pub const SLOT_PAIR: Workload = granted(
    "RL.ACQUIRE and RL.RELEASE",
    "RL.RELEASE leases job-__rand_int__ ; RL.ACQUIRE leases 1000000 1h job-__rand_int__",
    "RL.ACQUIRE leases 1000000 1h job-__rand_int__",
);
const LUA_ACQUIRE: &str = "EVALSHA __script__ 1 leases 1000000 3600000 job-__rand_int__";
/// The same in a sorted set, both in Lua.
pub const LUA_SLOT_PAIR: Workload = lua(
    "both in Lua on a sorted set",
    "EVALSHA __other_script__ 1 leases job-__rand_int__ ; \
     EVALSHA __script__ 1 leases 1000000 3600000 job-__rand_int__",
    LUA_ACQUIRE,
    &[include_str!("lua/acquire.lua"), include_str!("lua/release.lua")],
);
/// The same if a release is a plain ZREM.
pub const LUA_AND_ZREM_PAIR: Workload = lua(
    "acquired in Lua on a sorted set, released by ZREM",
    "ZREM leases job-__rand_int__ ; EVALSHA __script__ 1 leases 1000000 3600000 job-__rand_int__",
    LUA_ACQUIRE,
    &[include_str!("lua/acquire.lua")],
);

/// The three calls that decide what RL.MULTI of 3 does.
pub const OF_MULTI: [Workload; 3] = [TOKENBUCKET_GRANTED, FIXEDWINDOW_GRANTED, SLIDING_GRANTED];

/// The same command as redis-cell has it.
pub const REDIS_CELL: Workload = Workload {
    name: "redis-cell's CL.THROTTLE",
    origin: Origin::RedisCell,
    decides: Decides::Nothing,
    ..granted("", THROTTLE, THROTTLE_USED)
};

/// A workload whose keys are there and whose script is loaded: ready to be sent.
pub struct Ready {
    commands: Vec<Vec<String>>,
}

impl Workload {
    /// Prepares this many keys, each of them so often.
    pub fn prepare(&self, connection: &mut Connection, keys: u64, times: u64) -> Result<Ready> {
        let mut digests: Vec<(&str, String)> = Vec::new();
        for (placeholder, script) in SCRIPTS.into_iter().zip(self.scripts) {
            let digest = redis::cmd("SCRIPT").arg("LOAD").arg(script).query(connection)?;
            digests.push((placeholder, digest));
        }
        let word = |word: &str| {
            let digest = digests.iter().find(|(placeholder, _)| *placeholder == word);
            digest.map_or_else(|| word.to_owned(), |(_, digest)| digest.clone())
        };
        let commands = |calls: &str| {
            let words = |call: &str| call.split_whitespace().map(word).collect();
            calls.split(" ; ").map(words).collect()
        };
        let fill = Ready { commands: commands(self.prepare) };
        fill.send(connection, keys, keys * times, BATCH)
            .with_context(|| format!("before {}", self.name))?;
        Ok(Ready { commands: commands(self.call) })
    }

    /// Fails where the module has not decided as it should have, between these two looks at its counters.
    pub fn check(&self, before: Decisions, after: Decisions, calls: u64) -> Result<()> {
        let granted = after.granted - before.granted;
        let denied = after.denied - before.denied;
        let as_it_should = match self.decides {
            Decides::Granted => granted >= calls && denied == 0,
            Decides::Denied => granted == 0 && denied >= calls,
            Decides::Nothing => granted == 0 && denied == 0,
        };
        ensure!(
            as_it_should,
            "{}: of {calls} calls {granted} were granted and {denied} denied",
            self.name
        );
        Ok(())
    }
}

impl Ready {
    /// The words of the one command, as redis-benchmark takes them.
    pub fn words(&self) -> &[String] {
        self.commands.first().map_or(&[], Vec::as_slice)
    }

    /// Sends this many calls in pipelines, to these keys in turn. An error among the answers is one.
    pub fn send(
        &self,
        connection: &mut Connection,
        keys: u64,
        calls: u64,
        batch: u64,
    ) -> Result<()> {
        let mut sent = 0;
        while sent < calls {
            let count = batch.min(calls - sent);
            let mut pipeline = redis::pipe();
            for number in sent..sent + count {
                let digits = format!("{:012}", number % keys);
                for words in &self.commands {
                    let mut command = redis::Cmd::new();
                    for word in words {
                        command.arg(word.replace(NUMBER, &digits));
                    }
                    pipeline.add_command(command).ignore();
                }
            }
            pipeline.query::<()>(connection)?;
            sent += count;
        }
        Ok(())
    }
}

/// Empties the server.
pub fn empty(connection: &mut Connection) -> Result<()> {
    Ok(redis::cmd("FLUSHALL").arg("SYNC").query(connection)?)
}

/// How often the module has granted and denied.
#[derive(Clone, Copy)]
pub struct Decisions {
    granted: u64,
    denied: u64,
}

impl Decisions {
    /// As this output of INFO has them, of all algorithms. A server without the module has made none.
    pub fn of(info: &str) -> Self {
        let sum = |end: &str| {
            let lines = info.lines().filter(|line| line.starts_with("rl_"));
            let counts = lines.filter_map(|line| line.split_once(':'));
            let counts = counts.filter(|(name, _)| name.ends_with(end));
            counts.filter_map(|(_, count)| count.trim().parse::<u64>().ok()).sum()
        };
        Self { granted: sum("_granted"), denied: sum("_denied") }
    }
}

/// The seconds that the server's main thread was on a processor; all its threads, where the system does not tell them apart.
pub fn processor_seconds(info: &str) -> Result<f64> {
    let seconds = |name: &str| -> Result<f64> {
        let value = field(info, &format!("{name}_main_thread")).or_else(|| field(info, name));
        Ok(value.with_context(|| format!("INFO has no {name}"))?.trim().parse()?)
    };
    Ok(seconds("used_cpu_user")? + seconds("used_cpu_sys")?)
}
