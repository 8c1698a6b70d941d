//! What holds for a site whatever its proxy: the rules of `gateway/examples/ratelimit.yaml`, as clients see them. Each part has
//! addresses of its own, since every address is limited, too.

use crate::proxies::{Client, Kind, Site};

/// Limits by header, by address, by path, and several at once; what reaches the application; and fields that clients forge.
pub async fn hold(site: &Site) {
    by_header(site).await;
    by_any_bytes(site).await;
    by_address(site).await;
    by_path(site).await;
    several_at_once(site).await;
    refusals_stay_with_the_proxy(site).await;
    other_answers_are_the_applications(site).await;
}

fn granted(times: usize) -> Vec<u16> {
    vec![200; times]
}

/// Refused, with the seconds after which it is worth another try.
async fn refused(client: &Client, path: &str, policy: &str) -> u64 {
    let answer = client.get(path).await;
    assert_eq!(answer.status, 429, "{answer:?}");
    let retry_after = answer.field("retry-after").parse().unwrap();
    assert_eq!(answer.remaining(policy), Some(0), "{answer:?}");
    assert_eq!(answer.of(policy, "t"), Some(retry_after), "{answer:?}");
    assert!(answer.field("ratelimit-policy").contains(&format!("\"{policy}\";q=")), "{answer:?}");
    let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(answer.field("content-type"), "application/problem+json", "{answer:?}");
    assert_eq!(body["status"], 429, "{answer:?}");
    retry_after
}

/// A bucket of ten for each user, with one more a minute.
async fn by_header(site: &Site) {
    let client = site.client("127.0.1.1");
    let alice = client.with("x-user", "alice");
    assert_eq!(alice.statuses("/", 10).await, granted(10), "{}", site.log());
    assert!((1..=60).contains(&refused(&alice, "/", "user").await));
    let other = client.with("x-user", "bob").get("/").await;
    assert_eq!((other.status, site.remaining(&other, "user")), (200, Some(9)), "{other:?}");
    assert_eq!(client.get("/").await.status, 200, "without a name");
}

/// A header of any bytes names a user: no proxy lets a client off because of them.
async fn by_any_bytes(site: &Site) {
    let odd = site.client("127.0.7.1").with("x-user", b"caf\xe9 \xff\xfe");
    assert_eq!(odd.statuses("/", 10).await, granted(10), "{}", site.log());
    refused(&odd, "/", "user").await;
}

/// Twenty a minute. What clients say of their address is not believed.
async fn by_address(site: &Site) {
    let client = site.client("127.0.2.1");
    assert_eq!(client.statuses("/", 20).await, granted(20));
    assert!((1..=60).contains(&refused(&client, "/", "address").await));
    for name in ["x-forwarded-for", "x-real-ip", "forwarded", "x-envoy-external-address"] {
        let forged = if name == "forwarded" { "for=203.0.113.9" } else { "203.0.113.9" };
        refused(&client.with(name, forged), "/", "address").await;
    }
    assert_eq!(site.client("127.0.2.2").get("/").await.status, 200);
}

/// Five logins an hour for each address, whatever follows the path.
async fn by_path(site: &Site) {
    let client = site.client("127.0.3.1");
    assert_eq!(client.statuses("/login?try=1&domain=other&deny=200", 5).await, granted(5));
    assert!((3000..=3600).contains(&refused(&client, "/login", "login").await));
    for (name, value) in [
        ("x-forwarded-uri", "/"),
        ("x-original-uri", "/"),
        ("x-original-url", "/"),
        ("x-envoy-original-path", "/"),
        ("x-forwarded-method", "PUT"),
        ("x-forwarded-host", "other"),
    ] {
        refused(&client.with(name, value), "/login?domain=other", "login").await;
    }
    for spelling in ["//login", "/%6cogin", "/login?"] {
        refused(&client, spelling, "login").await;
    }
    assert_eq!(client.get("/logins").await.status, 200, "another path");
    assert_eq!(site.client("127.0.3.2").get("/login").await.status, 200, "another address");
}

/// A request that one limit refuses is charged by none: five logins are five of the user's ten and of the address's twenty,
/// however often the sixth is tried.
async fn several_at_once(site: &Site) {
    let carol = site.client("127.0.4.1").with("x-user", "carol");
    assert_eq!(carol.statuses("/login", 8).await, [200, 200, 200, 200, 200, 429, 429, 429]);
    let next = carol.get("/").await;
    assert_eq!(site.remaining(&next, "user"), Some(4), "{next:?}");
    assert_eq!(site.remaining(&next, "address"), Some(14), "{next:?}");
}

async fn refusals_stay_with_the_proxy(site: &Site) {
    let dave = site.client("127.0.5.1").with("x-user", "dave");
    site.application.seen();
    for _ in 0..12 {
        dave.post("/notes?a=1&b=%20", "a body").await;
    }
    let seen = site.application.seen();
    assert_eq!(seen.len(), 10);
    for seen in seen {
        assert_eq!(
            (&*seen.method, &*seen.uri, &*seen.body),
            ("POST", "/notes?a=1&b=%20", "a body")
        );
    }
}

/// Not every 4xx or 5xx is a limit's.
async fn other_answers_are_the_applications(site: &Site) {
    let client = site.client("127.0.6.1");
    for status in ["401", "403", "404", "429", "500", "503"] {
        let answer =
            client.with("x-status", status).with("x-answer-retry-after", "77").get("/").await;
        let seen = (answer.status.to_string(), answer.field("retry-after"), answer.body.clone());
        assert_eq!(
            seen,
            (status.into(), "77".into(), "the application's answer".into()),
            "{answer:?}"
        );
    }
}

/// What clients get while Redis is away, and while the gateway is. Requests pass without Redis, unless it is said otherwise.
pub async fn without(kind: Kind, gateway: u16) {
    let Some(mut site) = Site::start(kind).await else { return };
    site.server.kill();
    let answer = site.client("127.0.0.1").get("/").await;
    assert_eq!(answer.status, 200, "{answer:?} {}", site.log());
    site.gateway.kill();
    let answer = site.client("127.0.0.1").get("/").await;
    assert_eq!(answer.status, gateway, "without a gateway: {answer:?} {}", site.log());
}

/// What clients get while Redis is away, if then nothing is to pass.
pub async fn closed_without_redis(kind: Kind) {
    let Some(mut site) = Site::with(kind, &["--on-outage", "closed"]).await else { return };
    site.server.kill();
    let answer = site.client("127.0.0.1").get("/").await;
    assert_eq!(
        (answer.status, answer.field("ratelimit")),
        (503, String::new()),
        "{answer:?} {}",
        site.log()
    );
    assert!(site.application.seen().is_empty(), "it reached the application");
}
