//! The routes, with decisions that a test wants.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, HeaderValue, Request as HttpRequest, StatusCode, Version};
use envoy_types::pb::envoy::config::core::v3::HeaderValue as Field;
use envoy_types::pb::envoy::service::ratelimit::v3::RateLimitResponse;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::Code;
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::ServiceExt as _;

use crate::http::{Decides, LARGEST_BODY, Undecided, router};
use crate::identity::{Header, Identity, Trust};
use crate::request::{Descriptor, Entry, Request};
use crate::rules::Domain;
use crate::rules::file::Source;

/// Answers all requests alike, and keeps what was asked.
struct Fake {
    answer: Result<RateLimitResponse, Undecided>,
    asked: Mutex<Vec<Request>>,
}

impl Decides for Fake {
    fn domain(&self, name: Option<&str>) -> Result<Arc<Domain>, String> {
        if name.is_some_and(|name| name != "api") {
            return Err(format!("there is no domain {name:?}"));
        }
        let mut domain = Domain::default();
        domain.name = "api".into();
        domain.templates = vec![vec!["user".into()], vec!["remote_address".into(), "path".into()]];
        domain.check = [("user".to_owned(), Source::Header("x-user".into()))].into();
        Ok(Arc::new(domain))
    }

    async fn decide(
        &self,
        request: &Request,
        _: &HeaderMap,
    ) -> Result<RateLimitResponse, Undecided> {
        self.asked.lock().unwrap().push(request.clone());
        self.answer.clone()
    }
}

fn over_limit() -> RateLimitResponse {
    let field = |key: &str, value: &str| Field {
        key: key.into(),
        value: value.into(),
        raw_value: Vec::new(),
    };
    RateLimitResponse {
        overall_code: Code::OverLimit.into(),
        response_headers_to_add: vec![
            field("RateLimit", r#""user";r=0;t=7"#),
            field("Retry-After", "7"),
            field("content-type", "application/problem+json"),
        ],
        raw_body: br#"{"status":429}"#.to_vec(),
        ..RateLimitResponse::default()
    }
}

fn ok() -> RateLimitResponse {
    let field =
        Field { key: "RateLimit".into(), value: r#""user";r=4"#.into(), raw_value: Vec::new() };
    RateLimitResponse {
        overall_code: Code::Ok.into(),
        response_headers_to_add: vec![field],
        ..RateLimitResponse::default()
    }
}

struct Answer {
    status: u16,
    content_type: String,
    limit: String,
    body: String,
    asked: Vec<Request>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// A problem's body, after its type was looked at.
    fn problem(&self) -> Value {
        assert_eq!(self.content_type, "application/problem+json", "{}", self.body);
        let problem = self.json();
        assert_eq!(problem["status"], self.status);
        problem
    }
}

fn service(answer: Result<RateLimitResponse, Undecided>, ended: bool) -> (Arc<Fake>, axum::Router) {
    let fake = Arc::new(Fake { answer, asked: Mutex::default() });
    let identity = Identity::new(Trust::Nobody, Header::XForwardedFor, 32, 64).unwrap();
    (fake.clone(), router(fake, identity, watch::channel(ended).1))
}

async fn send(
    answer: Result<RateLimitResponse, Undecided>,
    mut request: HttpRequest<Body>,
) -> Answer {
    let (fake, router) = service(answer, false);
    request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([203, 0, 113, 9], 4711))));
    let response = router.oneshot(request).await.unwrap();
    let text = |name: &str| {
        response.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned()
    };
    let (status, content_type, limit) =
        (response.status().as_u16(), text("content-type"), text("ratelimit"));
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let asked = fake.asked.lock().unwrap().clone();
    Answer { status, content_type, limit, body: String::from_utf8(body.into()).unwrap(), asked }
}

fn get(uri: &str, headers: &[(&str, &str)]) -> HttpRequest<Body> {
    let mut request = HttpRequest::get(uri);
    for &(name, value) in headers {
        request = request.header(name, value);
    }
    request.body(Body::empty()).unwrap()
}

fn post(body: impl Into<Body>) -> HttpRequest<Body> {
    HttpRequest::post("/json").body(body.into()).unwrap()
}

fn asked(entries: &[&[(&str, &str)]]) -> Vec<Request> {
    let entry = |&(key, value): &(&str, &str)| Entry { key: key.into(), value: value.into() };
    let descriptor = |entries: &&[(&str, &str)]| Descriptor {
        entries: entries.iter().map(entry).collect(),
        ..Descriptor::default()
    };
    vec![Request {
        domain: "api".into(),
        descriptors: entries.iter().map(descriptor).collect(),
        hits: None,
    }]
}

#[tokio::test]
async fn check_asks_about_the_original_request_and_answers_with_header_fields() {
    for uri in ["/check", "/check?domain=api"] {
        let answer =
            send(Ok(ok()), get(uri, &[("x-user", "42"), ("x-forwarded-uri", "/login?a=b")])).await;
        assert_eq!((answer.status, &*answer.limit, &*answer.body), (200, r#""user";r=4"#, ""));
        assert_eq!(
            answer.asked,
            asked(&[&[("user", "42")], &[("remote_address", "203.0.113.9"), ("path", "/login")]])
        );
    }
    let answer = send(Ok(ok()), get("/check/login?a=b", &[])).await;
    assert_eq!(answer.asked, asked(&[&[("remote_address", "203.0.113.9"), ("path", "/login")]]));
}

#[tokio::test]
async fn check_is_asked_with_any_method() {
    for method in ["HEAD", "OPTIONS", "POST", "DELETE", "PURGE"] {
        let request = HttpRequest::builder()
            .method(method)
            .uri("/check/")
            .body(Body::from("a body"))
            .unwrap();
        let answer = send(Ok(ok()), request).await;
        assert_eq!((answer.status, answer.asked.len()), (200, 1), "{method}");
    }
}

#[tokio::test]
async fn check_refuses_with_429_and_the_reason() {
    let answer = send(Ok(over_limit()), get("/check", &[("x-user", "42")])).await;
    assert_eq!((answer.status, &*answer.limit), (429, r#""user";r=0;t=7"#));
    assert_eq!(answer.problem(), json!({"status": 429}));
}

#[tokio::test]
async fn a_request_without_any_value_passes_and_nobody_is_asked() {
    let answer = send(Ok(over_limit()), get("/check", &[])).await;
    assert_eq!((answer.status, &*answer.body), (200, ""));
    assert_eq!(answer.asked, []);
}

#[tokio::test]
async fn nobody_can_say_and_nothing_passes() {
    for request in [get("/check", &[("x-user", "42")]), post(r#"{"domain": "api"}"#)] {
        let answer = send(Err(Undecided::Closed), request).await;
        assert_eq!(answer.status, 503);
        assert_eq!(
            answer.problem()["type"],
            "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
        );
    }
}

#[tokio::test]
async fn what_is_malformed_is_answered_with_400_and_the_reason() {
    let disagree = [("x-forwarded-uri", "/a"), ("x-original-uri", "/b")];
    for (request, reason) in [
        (get("/check?domain=shop", &[]), "there is no domain"),
        (get("/check", &disagree), "x-forwarded-uri and x-original-uri say different things"),
        (post(""), "EOF while parsing"),
        (post(r#"{"domian": "api"}"#), "unknown field `domian`"),
        (post(vec![b'{', 0xff, 0xfe]), "key must be a string"),
    ] {
        let answer = send(Ok(ok()), request).await;
        assert_eq!(answer.status, 400);
        let problem = answer.problem();
        assert!(problem["detail"].as_str().unwrap().contains(reason), "{problem}");
        assert_eq!(answer.asked, [], "{reason}");
    }
    for request in [get("/check", &[("x-user", "42")]), post("{}")] {
        let answer = send(Err(Undecided::Invalid("the reason".into())), request).await;
        assert_eq!((answer.status, &answer.problem()["detail"]), (400, &json!("the reason")));
    }
}

#[tokio::test]
async fn json_is_envoys_request_and_response() {
    let body =
        r#"{"domain": "api", "descriptors": [{"entries": [{"key": "user", "value": "42"}]}]}"#;
    let answer = send(Ok(ok()), post(body)).await;
    assert_eq!((answer.status, &*answer.content_type), (200, "application/json"));
    assert_eq!(answer.json()["overallCode"], "OK");
    assert_eq!(answer.asked, asked(&[&[("user", "42")]]));
    let answer = send(Ok(over_limit()), post(body)).await;
    assert_eq!((answer.status, &*answer.content_type), (429, "application/json"));
    assert_eq!(answer.json()["overallCode"], "OVER_LIMIT");
    assert_eq!(send(Ok(ok()), get("/json", &[])).await.status, 405);
}

#[tokio::test]
async fn a_body_is_read_up_to_its_limit() {
    let largest = format!(r#"{{"domain": "{}"}}"#, "d".repeat(LARGEST_BODY - 14));
    assert_eq!(largest.len(), LARGEST_BODY);
    assert_eq!(send(Ok(ok()), post(largest.clone())).await.status, 200);
    let answer = send(Ok(ok()), post(largest + " ")).await;
    assert_eq!(answer.status, 413);
    assert_eq!(answer.problem()["title"], "Content Too Large");
}

#[tokio::test]
async fn header_values_of_any_bytes_are_asked_about() {
    for byte in (0x20..=0xff).filter(|&byte| byte != 0x7f) {
        let mut request = get("/check", &[]);
        for name in [
            "x-user",
            "x-forwarded-uri",
            "x-forwarded-host",
            "x-forwarded-method",
            "cookie",
            "forwarded",
        ] {
            request
                .headers_mut()
                .append(name, HeaderValue::from_bytes(&[b'a', byte, b'b']).unwrap());
        }
        assert_eq!(send(Ok(ok()), request).await.status, 200, "{byte:#x}");
    }
}

#[tokio::test]
async fn health_ends_before_the_program_does() {
    for (ended, status) in [(false, StatusCode::OK), (true, StatusCode::SERVICE_UNAVAILABLE)] {
        let (_, router) = service(Ok(ok()), ended);
        assert_eq!(router.oneshot(get("/healthz", &[])).await.unwrap().status(), status);
    }
}

#[tokio::test]
async fn http_1_and_2_are_spoken_on_the_same_port() {
    let (_, router) = service(Ok(ok()), false);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/check", listener.local_addr().unwrap());
    let server = axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>());
    tokio::spawn(server.into_future());
    let client = || reqwest::Client::builder().no_proxy();
    for (client, version) in [
        (client().http1_only().build().unwrap(), Version::HTTP_11),
        (client().http2_prior_knowledge().build().unwrap(), Version::HTTP_2),
    ] {
        let response = client.get(&url).header("x-user", "42").send().await.unwrap();
        assert_eq!((response.status(), response.version()), (StatusCode::OK, version));
        assert_eq!(response.headers()["ratelimit"], r#""user";r=4"#);
    }
}
