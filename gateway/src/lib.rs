//! A rate limit service in front of an API: Envoy's gRPC service, and HTTP for Traefik, Caddy and nginx. It decides all rules of
//! a request in one RL.MULTI of the redis-rl module.
//!
//! Layers, dependencies point downwards only:
//!
//! - [`cli`], [`serve`]: the program.
//! - [`grpc`], [`http`], [`files`], [`telemetry`]: the edges towards gateways, files and the log.
//! - [`service`]: one request from question to answer, with [`redis`], [`denials`], [`local`] and [`metrics`].
//! - [`rules`], [`plan`], [`identity`], [`key_part`], [`answer`]: pure. Configuration and request in, commands out; replies in,
//!   answers out. Commands and replies are those of the `redis` crate, as data.

#![forbid(unsafe_code)]

pub mod answer;
pub mod cli;
pub mod decision;
pub mod denials;
pub mod files;
pub mod grpc;
pub mod http;
pub mod identity;
pub mod key_part;
pub mod listen;
pub mod local;
pub mod metrics;
pub mod plan;
pub mod redis;
pub mod request;
pub mod rules;
pub mod serve;
pub mod service;
pub mod telemetry;

#[cfg(test)]
mod tests;
