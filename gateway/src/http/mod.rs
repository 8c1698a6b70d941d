//! HTTP: what Traefik, Caddy and nginx ask, and who has no gRPC.

pub mod json;
pub mod original;
