//! `/json` and `/check`, as clients and proxies see them.

use std::time::{Duration, Instant};

use reqwest::{Client, Response};
use serde_json::{Value, json};

use crate::asks::{Rules, Site, metric, metrics};
use crate::program::Gateway;
use crate::server::patience;

const RULES: &str = "
domain: d
check:
  user: {header: x-user}
  plan: {query: plan}
  session: {cookie: sid}
descriptors:
  - key: user
    rate_limit: {unit: year, requests_per_unit: 2}
  - key: plan
    rate_limit: {unit: year, requests_per_unit: 3}
  - key: session
    rate_limit: {unit: year, requests_per_unit: 3}
  - key: method
    value: DELETE
    rate_limit: {unit: year, requests_per_unit: 1}
  - key: path
    value: /slow
    rate_limit: {algorithm: leaky_bucket, unit: second, requests_per_unit: 2, burst: 10}
";

struct Asks {
    http: Client,
    base: String,
}

impl Asks {
    fn new(gateway: &Gateway) -> Self {
        let http = Client::builder().timeout(patience()).build().unwrap();
        Self { http, base: format!("http://127.0.0.1:{}", gateway.http) }
    }

    async fn json(&self, body: impl ToString) -> (u16, Value) {
        let request = self.http.post(format!("{}/json", self.base)).body(body.to_string());
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_str(&response.text().await.unwrap()).unwrap())
    }

    async fn check(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        let mut request = self.http.get(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }
}

fn field<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn json_is_answered_like_grpc() {
    let site = Site::start(RULES).await;
    let asks = Asks::new(&site.gateway);
    let question = |hits: u64| {
        json!({"domain": "d", "descriptors": [
            {"entries": [{"key": "user", "value": "a"}], "hitsAddend": hits}
        ]})
    };
    let (status, answer) = asks.json(question(2)).await;
    assert_eq!((status, &answer["overallCode"]), (200, &json!("OK")), "{answer}");
    assert_eq!(answer["statuses"][0]["limitRemaining"], 0);
    assert_eq!(
        answer["statuses"][0]["currentLimit"],
        json!({"requestsPerUnit": 2, "unit": "YEAR"})
    );
    let (status, answer) = asks.json(question(1)).await;
    assert_eq!((status, &answer["overallCode"]), (429, &json!("OVER_LIMIT")), "{answer}");
    let until = answer["statuses"][0]["durationUntilReset"].as_str().unwrap();
    assert!(until.ends_with('s') && until.trim_end_matches('s').parse::<f64>().unwrap() > 0.0);
    // gRPC has the same limit.
    assert_eq!(site.client.granted("user=a", 1).await, [false]);

    for (body, sentence) in [
        ("", "EOF"),
        ("[]", "a RateLimitRequest: an object"),
        (r#"{"domain": "d"}"#, "there is no descriptor"),
        (r#"{"descriptors": [{"entries": [{"key": "user", "value": "a"}]}]}"#, "domain is empty"),
        (r#"{"domain": "d", "descriptor": []}"#, "unknown field `descriptor`"),
        (r#"{"domain": "d", "descriptors": [{"hitsAddend": -1}]}"#, "a whole number from 0"),
    ] {
        let (status, answer) = asks.json(body).await;
        assert_eq!(status, 400, "{body}: {answer}");
        assert!(answer["detail"].as_str().unwrap().contains(sentence), "{body}: {answer}");
    }
    let (status, answer) = asks.json("x".repeat(65 * 1024)).await;
    assert_eq!((status, &answer["title"]), (413, &json!("Content Too Large")), "{answer}");
    assert_eq!(asks.check("/json", &[]).await.status(), 405);
    assert_eq!(asks.check("/elsewhere", &[]).await.status(), 404);
}

#[tokio::test]
async fn check_asks_about_what_the_rules_name() {
    let site = Site::start(RULES).await;
    let asks = Asks::new(&site.gateway);
    let alice = [("x-user", "alice")];
    for remaining in [1, 0] {
        let answer = asks.check("/check", &alice).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(field(&answer, "ratelimit"), format!("\"user\";r={remaining}"));
        assert_eq!(field(&answer, "ratelimit-policy"), "\"user\";q=2;w=31536000");
        assert_eq!(answer.text().await.unwrap(), "");
    }
    let answer = asks.check("/check/any/path", &alice).await;
    assert_eq!(answer.status(), 429);
    let retry_after: u64 = field(&answer, "retry-after").parse().unwrap();
    assert_eq!(field(&answer, "ratelimit"), format!("\"user\";r=0;t={retry_after}"));
    assert_eq!(field(&answer, "content-type"), "application/problem+json");
    let body: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    assert_eq!((&body["status"], &body["violated-policies"]), (&json!(429), &json!(["user"])));

    // For nginx, which passes on no other refusal.
    let answer = asks.check("/check?deny=403", &alice).await;
    assert_eq!((answer.status().as_u16(), field(&answer, "x-refused")), (403, "429"));

    // From the query, a cookie and the method of the original request.
    let original = [
        ("x-forwarded-uri", "/notes?plan=free"),
        ("cookie", "a=b; sid=s1"),
        ("x-forwarded-method", "DELETE"),
    ];
    let answer = asks.check("/check", &original).await;
    assert_eq!(answer.status(), 200);
    let mut shown: Vec<_> = field(&answer, "ratelimit").split(", ").collect();
    shown.sort_unstable();
    assert_eq!(shown, ["\"method_DELETE\";r=0", "\"plan\";r=2", "\"session\";r=2"]);
    assert_eq!(asks.check("/check", &original).await.status(), 429);
    let read = [&original[..2], &[("x-forwarded-method", "GET")]].concat();
    let answer = asks.check("/check", &read).await;
    assert_eq!(answer.status(), 200, "no rule for GET, and the refusal took nothing");
    assert!(field(&answer, "ratelimit").contains("\"plan\";r=1"), "{answer:?}");
    let nothing = asks.check("/check", &[]).await;
    assert_eq!((nothing.status().as_u16(), field(&nothing, "ratelimit")), (200, ""));
}

#[tokio::test]
async fn check_holds_an_answer_back_until_its_turn() {
    let site = Site::with(RULES, &["--longest-turn", "10s"]).await;
    let asks = Asks::new(&site.gateway);
    let start = Instant::now();
    let slow = [("x-forwarded-uri", "/slow")];
    for _ in 0..3 {
        assert_eq!(asks.check("/check", &slow).await.status(), 200);
    }
    assert!(start.elapsed() >= Duration::from_millis(990), "{:?}", start.elapsed());
}

#[tokio::test]
async fn check_names_a_domain_where_there_are_several() {
    let site = Site::start(RULES).await;
    let second = RULES
        .replace("domain: d", "domain: e")
        .replace("requests_per_unit: 2", "requests_per_unit: 7");
    std::fs::write(site.rules.folder().join("second.yaml"), second).unwrap();
    let gateway = Gateway::start(&site.server, site.rules.folder(), &[]);
    let asks = Asks::new(&gateway);
    let alice = [("x-user", "alice")];
    let answer = asks.check("/check", &alice).await;
    assert_eq!(answer.status(), 400);
    let body = answer.text().await.unwrap();
    assert!(body.contains("name a domain") && body.contains("d, e"), "{body}");
    for (domain, remaining) in [("d", 1), ("e", 6)] {
        let answer = asks.check(&format!("/check?domain={domain}"), &alice).await;
        assert_eq!(field(&answer, "ratelimit"), format!("\"user\";r={remaining}"));
    }
    let answer = asks.check("/check?domain=f", &alice).await;
    assert_eq!(answer.status(), 400);
    assert!(answer.text().await.unwrap().contains("there is no domain"));
}

#[tokio::test]
async fn without_redis_closed_is_a_503() {
    let mut site = Site::with(RULES, &["--on-outage", "closed"]).await;
    let asks = Asks::new(&site.gateway);
    assert_eq!(asks.check("/check", &[("x-user", "a")]).await.status(), 200);
    site.server.kill();
    let answer = asks.check("/check", &[("x-user", "a")]).await;
    assert_eq!((answer.status().as_u16(), field(&answer, "ratelimit")), (503, ""));
    assert_eq!(field(&answer, "content-type"), "application/problem+json");
    let body: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    assert!(body["type"].as_str().unwrap().ends_with("#temporary-reduced-capacity"), "{body}");
    let nginx = asks.check("/check?deny=403", &[("x-user", "a")]).await;
    assert_eq!((nginx.status().as_u16(), field(&nginx, "x-refused")), (403, "503"));
    let question =
        json!({"domain": "d", "descriptors": [{"entries": [{"key": "user", "value": "a"}]}]});
    assert_eq!(asks.json(&question).await.0, 503);
    assert_eq!(asks.json("{").await.0, 400, "it is still said what is wrong");
    assert_eq!(asks.check("/check", &[]).await.status(), 200, "what no rule limits passes");
    let text = metrics(&site.gateway).await;
    assert!(metric(&text, "rl_gateway_unasked_total", &[("domain", "d")]) >= 3.0, "{text}");
}

#[tokio::test]
async fn the_fields_are_of_the_form_that_was_chosen() {
    let site = Site::start(RULES).await;
    let rules = Rules::new(RULES);
    for (form, names) in [
        ("draft-6", &["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"][..]),
        ("draft-7", &["ratelimit-policy", "ratelimit"]),
        ("x-ratelimit", &["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"]),
        ("none", &[]),
    ] {
        let gateway = Gateway::start(&site.server, &rules.path(), &["--fields", form]);
        let answer = Asks::new(&gateway).check("/check", &[("x-user", form)]).await;
        for name in names {
            assert!(!field(&answer, name).is_empty(), "{form}: {answer:?}");
        }
        let shown = answer.headers().keys().filter(|name| name.as_str().contains("ratelimit"));
        assert_eq!(shown.count() >= 1, !names.is_empty(), "{form}: {answer:?}");
    }
}
