//! Traefik, with `gateway/examples/traefik.yaml`.

use crate::limits;
use crate::page;
use crate::proxies::{Site, TRAEFIK};

#[tokio::test]
async fn limits_hold_behind_traefik() {
    let Some(site) = Site::start(TRAEFIK).await else { return };
    page::shows_what_clients_see(&site).await;
    limits::hold(&site).await;
}

#[tokio::test]
async fn traefik_without_redis_or_a_gateway() {
    limits::without(TRAEFIK, 500).await;
}

#[tokio::test]
async fn traefik_closed_without_redis() {
    limits::closed_without_redis(TRAEFIK).await;
}
