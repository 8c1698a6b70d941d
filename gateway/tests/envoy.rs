//! Envoy, with `gateway/examples/envoy.yaml`: the same limits by gRPC, and what Envoy alone can ask for.

use crate::limits;
use crate::page;
use crate::proxies::{ENVOY, ENVOY_DENIES, Site, eventually};

#[tokio::test]
async fn limits_hold_behind_envoy() {
    let Some(site) = Site::start(ENVOY).await else { return };
    page::shows_what_clients_see(&site).await;
    limits::hold(&site).await;
    a_request_brings_its_limit_along(&site).await;
    a_login_that_succeeds_is_given_back(&site).await;
    no_more_than_two_exports_run_at_once(&site).await;
    tokens_are_charged_when_the_response_says_them(&site).await;
}

#[tokio::test]
async fn envoy_without_redis_or_a_gateway() {
    limits::without(ENVOY, 200).await;
}

/// Whether requests pass when the gateway says that it does not know is Envoy's own decision.
#[tokio::test]
async fn envoy_closed_without_redis() {
    limits::closed_without_redis(ENVOY_DENIES).await;
}

#[tokio::test]
async fn envoy_that_denies_without_a_gateway() {
    limits::without(ENVOY_DENIES, 503).await;
}

/// The plan is an override of the user's limit: 100 an hour for gold, 60 in bursts of ten without one.
async fn a_request_brings_its_limit_along(site: &Site) {
    let user = site.client("127.0.11.1").with("x-user", "erin");
    let gold = user.with("x-plan", "gold").get("/").await;
    assert_eq!((gold.status, gold.remaining("user")), (200, Some(99)), "{gold:?}");
    let silver = user.with("x-plan", "silver").get("/").await;
    assert_eq!((silver.status, silver.remaining("user")), (200, Some(28)), "{silver:?}");
    let unknown = user.with("x-plan", "lead").get("/").await;
    assert_eq!((unknown.status, unknown.remaining("user")), (200, Some(7)), "{unknown:?}");
}

/// `x-refund: 1` of the application is a negative hit: so only five logins that fail are too many.
async fn a_login_that_succeeds_is_given_back(site: &Site) {
    let client = site.client("127.0.12.1");
    let succeeds = client.with("x-answer-x-refund", "1");
    for _ in 0..7 {
        assert_eq!(succeeds.get("/login").await.status, 200);
        // Given back after the response: so it may take a moment.
        eventually("the hit to be given back", || site.used(&["login", "127.0.12.1"]) == 0).await;
    }
    assert_eq!(client.statuses("/login", 6).await, [200, 200, 200, 200, 200, 429]);
}

/// The third waits for one of the first two to end.
async fn no_more_than_two_exports_run_at_once(site: &Site) {
    let user = site.client("127.0.13.1").with("x-user", "frank");
    site.application.seen();
    let held = user.with("x-hold", "1");
    let running = [0, 1].map(|_| {
        let held = held.clone();
        tokio::spawn(async move { held.get("/export").await.status })
    });
    site.application.holds(2).await;
    let third = user.get("/export").await;
    assert_eq!((third.status, third.remaining("exports")), (429, Some(0)), "{third:?}");
    assert!(
        third.field("ratelimit-policy").contains("\"exports\";q=2;qu=\"concurrent-requests\""),
        "{third:?}"
    );
    let other = site.client("127.0.13.2").with("x-user", "grace").get("/export").await;
    assert_eq!(other.status, 200, "another user: {other:?}");

    site.application.let_go();
    site.application.let_go();
    for running in running {
        assert_eq!(running.await.unwrap(), 200);
    }
    eventually("the leases to be given back", || site.used(&["export", "frank"]) == 0).await;
    assert_eq!(user.get("/export").await.status, 200);
}

/// 1000 an hour: a response that took 1500 is over, and the next has to wait until the debt is paid back.
async fn tokens_are_charged_when_the_response_says_them(site: &Site) {
    let user = site.client("127.0.14.1").with("x-user", "heidi");
    let first = user.with("x-answer-x-tokens", "400").get("/complete").await;
    assert_eq!((first.status, first.remaining("tokens")), (200, Some(1000)), "{first:?}");
    // A few drain meanwhile.
    let used = || site.used(&["complete", "heidi"]);
    eventually("400 tokens to be charged", || used() > 300).await;
    let second = user.with("x-answer-x-tokens", "1100").get("/complete").await;
    assert_eq!(second.status, 200, "{second:?}");
    eventually("1100 more to be charged", || used() > 1300).await;
    let third = user.get("/complete").await;
    assert_eq!((third.status, third.remaining("tokens")), (429, Some(0)), "{third:?}");
}
