//! The border to the server: every `unsafe` line, every raw call of the module API.
//!
//! Above it, nothing is unsafe: a command sees a [`Call`] with its arguments, keys open to read ([`ReadKey`]) or to write ([`WriteKey`]), a clock and replies.
//! The crate redis-module offers wrappers of its own, but they cost a vector of retained strings a
//! call, panic on bytes that clients can send, and cannot be used on Redis 7.0 for what is newer. So only its raw
//! bindings serve here, through one list of what we call (`api`).
//!
//! | file | what is in it |
//! | --- | --- |
//! | `api` | the server's functions that we use, checked once at load |
//! | `register` | loading: what is asked of the server in which order, commands and their descriptions |
//! | `args` | a call and its arguments |
//! | `key` | an open key: what it holds, storing, expiry |
//! | `datatype` | the native type `ratelimit`: what the server does with a value |
//! | `replicate`, `propagation` | what replicas and the append-only file are sent, and whether there are any |
//! | `top`, `events` | which keys are denied most often; what is published as it happens |
//! | `clock`, `reply`, `config`, `stats` | as their names say |

mod api;
mod args;
pub(crate) mod clock;
pub(crate) mod config;
pub(crate) mod datatype;
mod events;
mod key;
mod propagation;
pub(crate) mod register;
mod replicate;
mod reply;
pub(crate) mod stats;
pub(crate) mod top;

pub(crate) use args::{Arg, Args, Call};
pub(crate) use events::Event;
pub(crate) use key::{Held, ReadKey, WriteKey};
