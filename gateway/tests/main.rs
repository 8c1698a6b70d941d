//! Tests of the gateway as its users have it: the built program, real proxies, real servers.
