//! nginx, with `gateway/examples/nginx.conf`.

use crate::limits;
use crate::page;
use crate::proxies::{NGINX, NGINX_REFUSES, Site};

#[tokio::test]
async fn limits_hold_behind_nginx() {
    let Some(site) = Site::start(NGINX).await else { return };
    page::shows_what_clients_see(&site).await;
    limits::hold(&site).await;
}

#[tokio::test]
async fn nginx_without_redis_or_a_gateway() {
    limits::without(NGINX, 200).await;
}

#[tokio::test]
async fn nginx_closed_without_redis() {
    limits::closed_without_redis(NGINX).await;
}

/// Without the line for it nginx takes a gateway that is away for an error of its own.
#[tokio::test]
async fn nginx_that_refuses_without_a_gateway() {
    limits::without(NGINX_REFUSES, 500).await;
}
