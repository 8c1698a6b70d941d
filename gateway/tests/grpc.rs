//! Envoy's interface: decisions of every kind, what is wrong with a request, health and reflection.

use std::time::{Duration, Instant};

use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::Code as RateLimitCode;
use envoy_types::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use envoy_types::pb::envoy::r#type::v3::RateLimitUnit;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use prost::Message as _;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::asks::{
    Site, calls, channel, descriptor, given_back, hits, limited, metric, metrics, used,
};
use crate::program::Gateway;

const RULES: &str = "
domain: d
descriptors:
  - key: token_bucket
    rate_limit: {algorithm: token_bucket, unit: year, requests_per_unit: 3}
  - key: burst
    rate_limit: {algorithm: token_bucket, unit: year, requests_per_unit: 3, burst: 5, cost: 2}
  - key: fixed_window
    rate_limit: {algorithm: fixed_window, unit: year, requests_per_unit: 3}
  - key: sliding_window
    rate_limit: {algorithm: sliding_window, unit: year, requests_per_unit: 3}
  - key: sliding_log
    rate_limit: {algorithm: sliding_log, unit: year, requests_per_unit: 3}
  - key: leaky_bucket
    rate_limit: {algorithm: leaky_bucket, unit: second, requests_per_unit: 10, burst: 4}
  - key: pool
    descriptors:
      - key: lease
        rate_limit: {concurrency: 2, ttl: 60s}
  - key: user
    rate_limit: {unit: year, requests_per_unit: 10}
    descriptors:
      - key: path
        rate_limit: {unit: year, requests_per_unit: 3, name: path}
  - key: shadowed
    shadow_mode: true
    rate_limit: {unit: year, requests_per_unit: 1}
  - key: quota
    quota_mode: true
    rate_limit: {unit: year, requests_per_unit: 1}
  - key: forced
    rate_limit: {unit: year, requests_per_unit: 3, force: true}
  - key: blocked
    rate_limit: {algorithm: token_bucket, unit: second, requests_per_unit: 1, burst: 1, block: {duration: 10h, after: 2}}
  - key: free
    rate_limit: {unlimited: true}
  - key: closed
    rate_limit: {unit: day, requests_per_unit: 0}
";

#[tokio::test]
async fn each_algorithm_grants_its_limit_and_tells_what_remains() {
    let site = Site::start(RULES).await;
    for algorithm in ["token_bucket", "fixed_window", "sliding_window", "sliding_log"] {
        let asked = [descriptor(&format!("{algorithm}=x"))];
        for remaining in [2, 1, 0] {
            let answer = site.client.ask(&asked).await;
            assert!(answer.passes(), "{algorithm} {answer:?}");
            assert_eq!(answer.rows(), [(true, remaining)], "{algorithm}");
            assert_eq!(answer.limit(), 3);
            let state = format!("\"{algorithm}\";r={remaining}");
            assert_eq!(answer.field("RateLimit"), state);
            let policy = format!("\"{algorithm}\";q=3;w=31536000");
            assert_eq!(answer.field("RateLimit-Policy"), policy);
        }
        for _ in 0..2 {
            let answer = site.client.ask(&asked).await;
            assert!(!answer.passes(), "{algorithm}");
            assert_eq!(answer.rows(), [(false, 0)], "{algorithm}");
            assert!(answer.until_reset(0) > Duration::ZERO, "{algorithm}");
            let retry_after: u64 = answer.field("Retry-After").parse().unwrap();
            assert!((1..=31_536_000).contains(&retry_after), "{algorithm} {retry_after}");
            assert_eq!(answer.field("content-type"), "application/problem+json");
            assert_eq!(answer.body()["violated-policies"], serde_json::json!([algorithm]));
        }
    }
    let burst = [descriptor("burst=x")];
    assert_eq!(site.client.ask(&burst).await.rows(), [(true, 3)], "two for each hit");
    assert_eq!(site.client.ask(&burst).await.rows(), [(true, 1)]);
    assert_eq!(site.client.ask(&burst).await.rows(), [(false, 1)]);
    assert_eq!(site.client.granted("free=x", 5).await, [true; 5]);
    assert_eq!(site.client.ask(&[descriptor("free=x")]).await.rows(), [(true, u32::MAX)]);
    assert_eq!(site.client.granted("closed=x", 1).await, [false]);
    assert_eq!(site.client.granted("unknown=x", 5).await, [true; 5]);
    assert!(site.client.domain("unknown").ask(&burst).await.passes());
}

#[tokio::test]
async fn a_leaky_bucket_holds_answers_back_until_their_turn() {
    let site = Site::with(RULES, &["--longest-turn", "1s"]).await;
    let start = Instant::now();
    let asked = (0..40).map(|_| async {
        let answer = site.client.ask(&[descriptor("leaky_bucket=x")]).await;
        (start.elapsed(), answer.passes())
    });
    let mut answers = join_all(asked).await;
    answers.sort();
    let granted: Vec<_> = answers.iter().filter(|(_, passes)| *passes).collect();
    assert!((4..40).contains(&granted.len()), "{answers:?}");
    for (at, (took, _)) in (0..).zip(granted) {
        assert!(*took + Duration::from_millis(2) >= Duration::from_millis(100) * at, "{answers:?}");
    }
}

/// Unless it is said, as long as the proxies wait.
#[tokio::test]
async fn a_turn_that_would_come_too_late_is_a_refusal() {
    let site = Site::start(RULES).await;
    let start = Instant::now();
    let asked = (0..40).map(|_| async { site.client.ask(&[descriptor("leaky_bucket=x")]).await });
    let answers = join_all(asked).await;
    let passed = answers.iter().filter(|answer| answer.passes()).count();
    // At once, after 100 ms, and what has drained meanwhile.
    let most = 2 + start.elapsed().as_millis() / 100;
    assert!((2..=most).contains(&(passed as u128)), "{passed} passed, and at most {most} may");
    let refused = answers.iter().find(|answer| !answer.passes()).unwrap();
    assert_eq!(refused.field("Retry-After"), "1");
}

#[tokio::test]
async fn hits_are_for_all_descriptors_or_for_each() {
    let site = Site::start(RULES).await;
    let client = &site.client;
    let both = [descriptor("user=a"), descriptor("user=b")];
    assert_eq!(client.try_ask(&both, 3).await.unwrap().rows(), [(true, 7), (true, 7)]);
    let each = [hits("user=a", 2), descriptor("user=b")];
    assert_eq!(client.try_ask(&each, 4).await.unwrap().rows(), [(true, 5), (true, 3)]);
    // More than remains takes nothing, from nobody.
    let answer = client.try_ask(&[hits("user=a", 1), hits("user=b", 4)], 0).await.unwrap();
    assert_eq!(answer.rows(), [(true, 5), (false, 3)]);
    assert!(!answer.passes());
    // 0 looks.
    assert_eq!(client.ask(&[hits("user=a", 0)]).await.rows(), [(true, 5)]);
    assert_eq!(client.ask(&[hits("user=new", 0)]).await.rows(), [(true, 10)]);
    assert_eq!(client.ask(&[hits("user=a", 5)]).await.rows(), [(true, 0)]);
    let empty = client.ask(&[hits("user=a", 0)]).await;
    assert_eq!((empty.passes(), empty.rows()), (false, vec![(false, 0)]));
    // Equal descriptors are hits of one limit.
    let twice = client.ask(&[descriptor("user=twice"), descriptor("user=twice")]).await;
    assert_eq!(twice.rows(), [(true, 8), (true, 8)]);
}

#[tokio::test]
async fn negative_hits_give_back_and_what_was_given_back_is_granted_at_once() {
    let site = Site::start(RULES).await;
    let client = &site.client;
    let all = [hits("user=a", 10)];
    assert!(client.ask(&all).await.passes());
    assert_eq!(client.granted("user=a", 2).await, [false; 2], "now it is remembered");
    let back = client.ask(&[given_back("user=a", 3)]).await;
    assert_eq!((back.passes(), back.rows()), (true, vec![(true, 3)]));
    assert_eq!(client.granted("user=a", 4).await, [true, true, true, false]);
    // Never more than was taken.
    assert_eq!(client.ask(&[given_back("user=a", 1000)]).await.rows(), [(true, 10)]);
    assert_eq!(client.ask(&[given_back("user=nobody", 1)]).await.rows(), [(true, 10)]);
    // What is given back of one limit does not undo another's refusal.
    assert!(client.ask(&[hits("user=b", 9)]).await.passes());
    let mixed = [given_back("user=b", 2), hits("user=c", 11)];
    let answer = client.ask(&mixed).await;
    assert_eq!((answer.passes(), answer.rows()), (false, vec![(true, 3), (false, 10)]));
}

#[tokio::test]
async fn leases_are_held_until_they_are_given_back() {
    let site = Site::start(RULES).await;
    let client = &site.client;
    let lease = |id: &str| [descriptor(&format!("pool=p lease={id}"))];
    assert_eq!(client.ask(&lease("a")).await.rows(), [(true, 1)]);
    assert_eq!(client.ask(&lease("b")).await.rows(), [(true, 0)]);
    let answer = client.ask(&lease("c")).await;
    assert_eq!((answer.passes(), answer.rows()), (false, vec![(false, 0)]));
    assert!(answer.field("RateLimit-Policy").contains("qu=\"concurrent-requests\""));
    assert!(answer.until_reset(0) <= Duration::from_secs(60));
    assert!(client.ask(&lease("a")).await.passes(), "its own lease, anew");
    assert!(!client.ask(&[hits("pool=p lease=z", 0)]).await.passes(), "a look");
    assert!(client.ask(&[descriptor("pool=q lease=a")]).await.passes(), "another pool");
    assert_eq!(client.ask(&[given_back("pool=p lease=a", 1)]).await.rows(), [(true, 1)]);
    assert_eq!(client.ask(&[given_back("pool=p lease=a", 1)]).await.rows(), [(true, 1)], "twice");
    assert_eq!(client.ask(&lease("c")).await.rows(), [(true, 0)]);
    let long = "x".repeat(1000);
    assert!(client.ask(&[descriptor(&format!("pool=r lease={long}"))]).await.passes());
}

#[tokio::test]
async fn a_request_may_bring_its_limit_along() {
    let site = Site::start(RULES).await;
    let client = &site.client;
    let answer = client.ask(&[limited("user=a", 2, RateLimitUnit::Day)]).await;
    assert_eq!((answer.limit(), answer.rows()), (2, vec![(true, 1)]));
    assert_eq!(answer.field("RateLimit-Policy"), "\"user\";q=2;w=86400");
    let without_rule = [limited("nothing=a", 1, RateLimitUnit::Hour)];
    assert_eq!(client.ask(&without_rule).await.rows(), [(true, 0)]);
    let answer = client.ask(&without_rule).await;
    assert_eq!((answer.passes(), answer.rows()), (false, vec![(false, 0)]));
    assert_eq!(answer.field("RateLimit-Policy"), "\"override\";q=1;w=3600");
    let none = [limited("user=none", 0, RateLimitUnit::Day)];
    assert!(!client.ask(&none).await.passes());
}

#[tokio::test]
async fn several_rules_are_one_command_and_a_refusal_charges_none() {
    let site = Site::start(RULES).await;
    let both = [descriptor("user=a"), descriptor("user=a path=/x")];
    assert_eq!(site.client.ask(&both).await.rows(), [(true, 9), (true, 2)]);
    assert_eq!(calls(&site.server, "rl.multi"), 1);
    for _ in 0..2 {
        assert!(site.client.ask(&both).await.passes());
    }
    for _ in 0..3 {
        let answer = site.client.ask(&both).await;
        assert!(!answer.passes());
        let [user, path] = answer.rows().try_into().unwrap();
        assert_eq!(path, (false, 0));
        assert!(user.0);
        assert_eq!(answer.body()["violated-policies"], serde_json::json!(["path"]));
    }
    assert_eq!(used(&site.server, "rl:fw:d:user=a"), 3);
    assert_eq!(used(&site.server, "rl:fw:d:user=a:path=%2Fx"), 3);
    assert_eq!(site.client.ask(&[descriptor("user=a")]).await.rows(), [(true, 6)]);
}

#[tokio::test]
async fn rules_in_shadow_mode_quota_mode_and_by_force() {
    let site = Site::start(RULES).await;
    let client = &site.client;
    // In shadow mode: counted, told in the metrics, and not enforced.
    assert_eq!(client.granted("shadowed=a", 3).await, [true; 3]);
    let text = metrics(&site.gateway).await;
    let shadowed = [("rule", "shadowed")];
    assert!(metric(&text, "rl_gateway_shadow_total", &shadowed) == 2.0, "{text}");
    let beside = client.ask(&[descriptor("shadowed=a"), descriptor("user=s")]).await;
    assert_eq!((beside.passes(), beside.rows()[1]), (true, (true, 9)), "it stops nobody else");

    // In quota mode: refused once all of them are over.
    assert!(client.ask(&[descriptor("quota=a")]).await.passes());
    let one_left = [descriptor("quota=a"), descriptor("quota=b")];
    assert!(client.ask(&one_left).await.passes());
    assert!(!client.ask(&one_left).await.passes());

    // By force: granted above the limit, and a look says that nothing remains.
    assert_eq!(client.ask(&[hits("forced=a", 2)]).await.rows(), [(true, 1)]);
    assert!(client.ask(&[hits("forced=a", 0)]).await.passes());
    let answer = client.ask(&[hits("forced=a", 20)]).await;
    assert_eq!((answer.passes(), answer.rows()), (true, vec![(true, 0)]));
    assert!(!client.ask(&[hits("forced=a", 0)]).await.passes());
}

#[tokio::test]
async fn who_does_not_heed_denials_is_blocked() {
    let site = Site::start(RULES).await;
    // The second denial in a row begins the block, however long the machine takes.
    let blocked = [descriptor("blocked=a")];
    let mut answer = site.client.ask(&blocked).await;
    crate::store::until("the block", async || {
        answer = site.client.ask(&blocked).await;
        !answer.passes() && answer.until_reset(0) > Duration::from_secs(9 * 3600)
    })
    .await;
    assert!(answer.body()["type"].as_str().unwrap().ends_with("#abnormal-usage-detected"));
    assert!(answer.field("Retry-After").parse::<u64>().unwrap() > 9 * 3600);
}

#[tokio::test]
async fn in_shadow_nothing_is_refused_and_all_is_told() {
    let site = Site::with(RULES, &["--shadow"]).await;
    assert_eq!(site.client.granted("fixed_window=a", 4).await, [true; 4]);
    let answer = site.client.ask(&[descriptor("fixed_window=a")]).await;
    assert_eq!((answer.passes(), answer.rows()), (true, vec![(true, 0)]));
    assert_eq!(answer.field("Retry-After"), "", "who passes has nothing to wait for");
    assert!(answer.field("RateLimit").contains(";r=0"), "{answer:?}");
    let text = metrics(&site.gateway).await;
    for name in ["rl_gateway_over_limit_total", "rl_gateway_shadow_total"] {
        assert!(metric(&text, name, &[("rule", "fixed_window")]) == 2.0, "{name}");
    }
    assert_eq!(used(&site.server, "rl:fw:d:fixed_window=a"), 3);
}

#[tokio::test]
async fn a_malformed_request_gets_a_sentence() {
    let site = Site::start(RULES).await;
    let client = &site.client;
    let many = vec![descriptor("user=a"); 129];
    let deep = descriptor(&"user=a ".repeat(33));
    let cases = [
        ("", vec![descriptor("user=a")], 0, "the domain is empty"),
        ("d", vec![], 0, "there is no descriptor"),
        ("d", many, 0, "there are 129 descriptors, and at most 128"),
        ("d", vec![deep], 0, "descriptor 0 has 33 entries, and at most 32"),
        ("d", vec![descriptor("=a")], 0, "descriptor 0 has an entry without a key"),
        ("d", vec![hits("user=a", u64::MAX)], 0, "descriptor 0: hits times cost are above"),
        ("d", vec![descriptor("pool=p lease=")], 0, "the value of the last entry names a lease"),
        ("d", vec![descriptor("pool=p lease=a")], 2, "a lease has no hits of its own"),
        ("d", vec![descriptor("pool=p lease=a"); 2], 0, "ask for leases of the same limit"),
        ("d", vec![limited("user=a", 1, RateLimitUnit::Unknown)], 0, "a unit of time is second"),
    ];
    for (domain, descriptors, hits, sentence) in cases {
        let error = client.domain(domain).try_ask(&descriptors, hits).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{sentence}: {error}");
        assert!(error.message().contains(sentence), "{sentence}: {error}");
    }
    // What is small on the wire may not be large here.
    let (before, many) = (memory(&site.gateway), [0x12_u8, 0].repeat(8 << 20));
    let length = u32::try_from(many.len()).unwrap().to_be_bytes();
    let status = post(&site, "ShouldRateLimit", [&[0], &length[..], &many].concat()).await;
    assert_eq!(status, Err("3".into()));
    let grown = memory(&site.gateway).saturating_sub(before);
    assert!(grown < 100 << 20, "{grown} bytes for 16 MiB");
    let huge = descriptor(&format!("user={}", "x".repeat(17 << 20)));
    let error = client.try_ask(&[huge], 0).await.unwrap_err();
    assert_eq!(error.code(), Code::OutOfRange, "{error}");
    assert!(error.message().contains("too large"), "{error}");
    // As large as Envoy lets headers be, in as many descriptors as there may be; and any character.
    let large = vec![descriptor(&format!("user={}", "x".repeat(60 << 10))); 128];
    let answer = client.ask(&large).await;
    assert!(!answer.passes() && answer.rows() == [(false, 10); 128], "{answer:?}");
    let mut odd = descriptor("user=a");
    odd.entries[0].value = "\0\r\n{}:% \u{1F600}".into();
    assert_eq!(client.ask(&[odd]).await.rows(), [(true, 9)]);
}

/// The most memory that the program has had, in bytes.
fn memory(gateway: &Gateway) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.map_or(0, |peak| 1024 * peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap())
}

/// Sends these bytes as the body of a call. What comes back is the body, or the number of an error.
async fn post(site: &Site, method: &str, body: Vec<u8>) -> Result<Vec<u8>, String> {
    let http = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let service = "envoy.service.ratelimit.v3.RateLimitService";
    let request = http.post(format!("http://127.0.0.1:{}/{service}/{method}", site.gateway.grpc));
    let request = request.header("content-type", "application/grpc").header("te", "trailers");
    let response = request.body(body).send().await.unwrap();
    // An error stands among the fields before the body.
    match response.headers().get("grpc-status") {
        Some(status) => Err(status.to_str().unwrap().to_owned()),
        None => Ok(response.bytes().await.unwrap().to_vec()),
    }
}

#[tokio::test]
async fn what_is_no_message_gets_an_error_of_its_kind() {
    const INVALID_ARGUMENT: &str = "3";
    const UNIMPLEMENTED: &str = "12";
    let site = Site::start(RULES).await;
    for (method, body, status) in [
        ("ShouldRateLimit", &b""[..], INVALID_ARGUMENT),
        ("ShouldRateLimit", b"\0\0\0", INVALID_ARGUMENT),
        ("ShouldRateLimit", b"\0\0\0\0\x02\x0a", INVALID_ARGUMENT),
        ("ShouldRateLimit", b"\0\0\0\0\0\x0a", INVALID_ARGUMENT),
        ("ShouldRateLimit", b"\0\xff\xff\xff\xff\x0a", INVALID_ARGUMENT),
        ("ShouldRateLimit", b"\0\0\0\0\x02\x0a\xff", INVALID_ARGUMENT),
        // A varint without an end; a group, in which anything could hide.
        ("ShouldRateLimit", b"\0\0\0\0\x02\x18\xff", INVALID_ARGUMENT),
        ("ShouldRateLimit", b"\0\0\0\0\x02\x1b\x1c", INVALID_ARGUMENT),
        // No bytes are a message: it names no domain.
        ("ShouldRateLimit", b"\0\0\0\0\0", INVALID_ARGUMENT),
        ("ShouldRateLimit", b"\x01\0\0\0\x01x", UNIMPLEMENTED),
        ("MustRateLimit", b"\0\0\0\0\0", UNIMPLEMENTED),
    ] {
        assert_eq!(post(&site, method, body.to_vec()).await, Err(status.into()), "{body:?}");
    }
}

/// As Envoy sends a header that is no UTF-8. It lets a request pass whose question fails.
#[tokio::test]
async fn text_of_any_bytes_is_limited() {
    let site = Site::start(RULES).await;
    let mut odd = RateLimitRequest {
        domain: "d".into(),
        descriptors: vec![hits("user=??", 6)],
        hits_addend: 0,
    }
    .encode_to_vec();
    let at = odd.windows(2).position(|bytes| bytes == b"??").unwrap();
    odd[at..at + 2].copy_from_slice(b"\xff\xe9");
    for code in [RateLimitCode::Ok, RateLimitCode::OverLimit] {
        let length = u32::try_from(odd.len()).unwrap().to_be_bytes();
        let body = [&[0], &length[..], &odd].concat();
        let answer = post(&site, "ShouldRateLimit", body).await.unwrap();
        let answer = RateLimitResponse::decode(&answer[5..]).unwrap();
        assert_eq!(answer.overall_code(), code, "{answer:?}");
        assert_eq!(answer.statuses[0].limit_remaining, 4);
    }
}

#[tokio::test]
async fn health_is_told_by_grpc_and_by_http() {
    let site = Site::start(RULES).await;
    let mut health = HealthClient::new(channel(&site.gateway).await);
    for service in ["", "envoy.service.ratelimit.v3.RateLimitService"] {
        let request = HealthCheckRequest { service: service.into() };
        let answer = health.check(request).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
    }
    let unknown = HealthCheckRequest { service: "unknown".into() };
    assert_eq!(health.check(unknown).await.unwrap_err().code(), Code::NotFound);
    let url = format!("http://127.0.0.1:{}/healthz", site.gateway.http);
    let answer = reqwest::get(url).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.text().await.unwrap(), "ok\n");
}

/// Both versions have messages of the same names.
macro_rules! reflects {
    ($gateway:expr, $version:ident) => {{
        use tonic_reflection::pb::$version::ServerReflectionRequest;
        use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
        use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
        use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;
        let mut client = ServerReflectionClient::new(channel($gateway).await);
        let requests = [
            MessageRequest::ListServices(String::new()),
            MessageRequest::FileContainingSymbol(
                "envoy.service.ratelimit.v3.RateLimitService".into(),
            ),
            MessageRequest::FileContainingSymbol("no.such.Thing".into()),
        ];
        let requests = requests.map(|request| ServerReflectionRequest {
            host: String::new(),
            message_request: Some(request),
        });
        let answers = client.server_reflection_info(futures_util::stream::iter(requests)).await;
        let answers: Vec<_> = answers.unwrap().into_inner().collect().await;
        let Some(MessageResponse::ListServicesResponse(services)) =
            &answers[0].as_ref().unwrap().message_response
        else {
            panic!("{answers:?}")
        };
        let names: Vec<_> = services.service.iter().map(|service| &*service.name).collect();
        assert!(names.contains(&"envoy.service.ratelimit.v3.RateLimitService"), "{names:?}");
        assert!(names.contains(&"grpc.health.v1.Health"), "{names:?}");
        let Some(MessageResponse::FileDescriptorResponse(file)) =
            &answers[1].as_ref().unwrap().message_response
        else {
            panic!("{answers:?}")
        };
        let file = String::from_utf8_lossy(&file.file_descriptor_proto[0]);
        assert!(file.contains("ShouldRateLimit"), "{file}");
        assert!(answers[2].is_err(), "{answers:?}");
    }};
}

#[tokio::test]
async fn reflection_shows_the_services() {
    let site = Site::start(RULES).await;
    reflects!(&site.gateway, v1);
    reflects!(&site.gateway, v1alpha);
}
