//! A rate limit service in front of an API: Envoy's gRPC service, and HTTP for Traefik, Caddy and nginx. It decides all rules of
//! a request in one RL.MULTI of the redis-rl module.
//!
//! Layers, dependencies point downwards only:
//!
//! - [`grpc`], [`http`], [`redis`], [`files`], [`metrics`], [`cli`]: the edges, which do input and output.
//! - [`service`]: one request from question to answer.
//! - [`rules`], [`plan`], [`identity`], [`answer`]: pure. Configuration and request in, commands out; replies in, answers out.

#![forbid(unsafe_code)]

pub mod answer;
pub mod decision;
pub mod denials;
pub mod http;
pub mod identity;
pub mod key_part;
pub mod local;
pub mod redis;
pub mod request;
pub mod rules;

#[cfg(test)]
mod tests;
