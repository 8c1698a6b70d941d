//! Caddy, with `gateway/examples/Caddyfile`.

use crate::limits;
use crate::page;
use crate::proxies::{CADDY, Site};

#[tokio::test]
async fn limits_hold_behind_caddy() {
    let Some(site) = Site::start(CADDY).await else { return };
    page::shows_what_clients_see(&site).await;
    limits::hold(&site).await;
}

#[tokio::test]
async fn caddy_without_redis_or_a_gateway() {
    limits::without(CADDY, 502).await;
}

#[tokio::test]
async fn caddy_closed_without_redis() {
    limits::closed_without_redis(CADDY).await;
}
