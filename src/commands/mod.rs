//! The commands, one file each, and the one table that declares them.
//!
//! A command is a recipe: parse, open, decide, settle, reply.
//!
//! | file | what several commands share |
//! | --- | --- |
//! | `table` | the declaration of every command |
//! | `decide` | the recipe of the five that decide on one key |
//! | `attempt` | a request on one key, and the decision |
//! | `settle` | what follows a decision: memory, effect, replication, counting, events |
//! | `keys`, `holders` | the keys of a command on several; the holders of leases |
//! | `options`, `reply`, `errors` | the moment, the five integers, every message |

#![forbid(unsafe_code)]

mod acquire;
mod attempt;
mod decide;
mod errors;
mod fixedwindow;
mod holders;
mod info;
mod internal;
mod keys;
mod leakybucket;
mod leases;
mod multi;
mod options;
mod peek;
mod refund;
mod release;
mod renew;
mod reply;
mod reset;
mod rl_settle;
mod settle;
mod sliding;
mod slidinglog;
mod table;
mod throttle;
mod tokenbucket;
mod top;

pub(crate) use table::TABLE;
