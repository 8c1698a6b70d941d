//! What Prometheus sees.

use crate::asks::{Site, descriptor, hits, metric, metrics};

const RULES: &str = "
domain: d
descriptors:
  - key: user
    detailed_metric: true
    rate_limit: {algorithm: token_bucket, unit: year, requests_per_unit: 10}
  - key: path
    rate_limit: {unit: year, requests_per_unit: 10}
    descriptors:
      - key: method
        value_to_metric: true
        rate_limit: {unit: year, requests_per_unit: 1000}
  - key: shared
    value: a*
    share_threshold: true
    detailed_metric: true
    rate_limit: {unit: year, requests_per_unit: 2}
";

#[tokio::test]
async fn hits_are_counted_by_domain_and_rule() {
    let site = Site::with(RULES, &["--near-limit", "50"]).await;
    let client = &site.client;
    // Six of ten: from the fifth on it is near the limit.
    for _ in 0..6 {
        assert!(client.ask(&[descriptor("path=/x")]).await.passes());
    }
    assert!(client.ask(&[hits("path=/x", 4)]).await.passes());
    assert!(!client.ask(&[hits("path=/x", 3)]).await.passes());
    assert!(client.ask(&[descriptor("path=/x method=GET")]).await.passes());
    assert!(client.ask(&[descriptor("shared=a1"), descriptor("shared=a2")]).await.passes());
    assert!(!client.ask(&[descriptor("shared=a3")]).await.passes());
    client.domain("").try_ask(&[descriptor("path=/x")], 0).await.unwrap_err();
    client.domain("made up").ask(&[descriptor("path=/x")]).await;
    let text = metrics(&site.gateway).await;
    let count = |name: &str, labels: &[(&str, &str)]| metric(&text, name, labels) as u64;
    let path = [("domain", "d"), ("rule", "path")];
    assert_eq!(count("rl_gateway_hits_total", &path), 13, "{text}");
    assert_eq!(count("rl_gateway_near_limit_total", &path), 2 + 4);
    assert_eq!(count("rl_gateway_over_limit_total", &path), 3);
    assert_eq!(count("rl_gateway_hits_total", &[("rule", "path.method_GET")]), 1);
    assert_eq!(count("rl_gateway_hits_total", &[("rule", "shared_a*")]), 3);
    let requests =
        |domain, code| count("rl_gateway_requests_total", &[("domain", domain), ("code", code)]);
    assert_eq!((requests("d", "ok"), requests("d", "over_limit")), (9, 2));
    assert_eq!((requests("", "error"), requests("", "ok")), (1, 1));
    assert!(!text.contains("made up"), "{text}");
    assert_eq!(count("rl_gateway_decision_seconds_count", &[("via", "grpc")]), 13);
    assert!(count("rl_gateway_decision_seconds_bucket", &[("via", "grpc"), ("le", "+Inf")]) == 13);
    assert_eq!(count("rl_gateway_redis_seconds_count", &[]), 11);
    assert_eq!(count("rl_gateway_config_ok", &[]), 1);
    assert_eq!(count("rl_gateway_config_loads_total", &[("result", "ok")]), 1);
    assert_eq!(count("rl_gateway_breaker_open", &[]), 0);
    for line in text.lines().filter(|line| line.starts_with("# TYPE rl_gateway_")) {
        let name = line.split(' ').nth(2).unwrap();
        assert!(text.contains(&format!("# HELP {name} ")), "{name} is not described");
    }
}

#[tokio::test]
async fn detailed_metrics_are_bounded() {
    const VALUES: usize = 10_500;
    let site = Site::start(RULES).await;
    let all: Vec<_> = (0..VALUES).map(|user| descriptor(&format!("user={user}"))).collect();
    for some in all.chunks(100) {
        assert!(site.client.ask(some).await.passes());
    }
    let text = metrics(&site.gateway).await;
    let series = text.lines().filter(|line| line.starts_with("rl_gateway_hits_total{"));
    assert_eq!(series.filter(|line| line.contains("rule=\"user_")).count(), 10_000);
    assert!(metric(&text, "rl_gateway_hits_total", &[("rule", "other")]) == 500.0);
    assert!(metric(&text, "rl_gateway_hits_total", &[("rule", "user_0")]) == 1.0);
    assert!(metric(&text, "rl_gateway_hits_total", &[]) == 10_500.0);
}
