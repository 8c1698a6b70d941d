//! HTTP: what Traefik, Caddy and nginx ask, and who has no gRPC.
//!
//! | | answers |
//! | --- | --- |
//! | any method, `/check` or below it | 200 or 429 with header fields; 503 if nobody can say and nothing passes then |
//! | the same, `/check?deny=403` | 200 or 403, with 429 or 503 in `X-Refused`: for nginx's auth_request |
//! | `POST /json` | the same to Envoy's request as JSON, with Envoy's response as JSON |
//! | `GET /healthz` | 200, and 503 once the program is asked to end |
//!
//! A request that is malformed or too large gets a 4xx with the reason. All bodies but Envoy's responses are
//! `application/problem+json`.

pub mod json;
pub mod original;

use std::future::Future;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Request as HttpRequest, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use envoy_types::pb::envoy::service::ratelimit::v3::RateLimitResponse;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::Code;
use governor::{DefaultDirectRateLimiter, Quota};
use tokio::sync::watch;

use crate::answer::envoy;
use crate::answer::fields::Form;
use crate::answer::problem::{self, Problem};
use crate::identity::Identity;
use crate::metrics::{self, Via, now_ms};
use crate::request::Request;
use crate::rules::Domain;
use crate::service::{Service, Unanswered};
use original::{Original, Unclear};

/// The largest body of `/json`, in bytes.
pub const LARGEST_BODY: usize = 64 * 1024;

/// Why there is no decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undecided {
    /// The request is malformed: the reason.
    Invalid(String),
    /// Nobody can say, and so nothing passes.
    Closed,
}

/// What decides: the service, and in tests what a test wants decided.
pub trait Decides: Send + Sync + 'static {
    /// The domain of this name; the only one there is if none is named.
    ///
    /// # Errors
    /// There is no such domain: a sentence with those that there are.
    fn domain(&self, name: Option<&str>) -> Result<Arc<Domain>, String>;

    /// Decides a request, which came with these headers.
    fn decide(
        &self,
        request: &Request,
        headers: &HeaderMap,
    ) -> impl Future<Output = Result<RateLimitResponse, Undecided>> + Send;
}

/// The service, as HTTP asks it.
pub struct Asked {
    service: Arc<Service>,
    form: Option<Form>,
}

impl Asked {
    /// The service, with the form of the header fields that it answers.
    pub fn new(service: Arc<Service>, form: Option<Form>) -> Self {
        Self { service, form }
    }
}

impl Decides for Asked {
    fn domain(&self, name: Option<&str>) -> Result<Arc<Domain>, String> {
        let rules = self.service.rules();
        let found = name.map_or_else(|| rules.only(), |name| rules.domain(name));
        found.cloned().ok_or_else(|| {
            let names = rules.names().join(", ");
            match name {
                Some(name) => format!("there is no domain {name:?}; there are: {names}"),
                None => format!("name a domain, as in /check?domain=NAME; there are: {names}"),
            }
        })
    }

    async fn decide(
        &self,
        request: &Request,
        headers: &HeaderMap,
    ) -> Result<RateLimitResponse, Undecided> {
        let began = Instant::now();
        let answer = self.service.decide(request, headers).await;
        self.service.meters().answered(Via::Http, began.elapsed(), answer.is_err());
        match answer {
            Ok(outcome) => Ok(envoy::response(&outcome, self.form, now_ms())),
            Err(Unanswered::Invalid(reason)) => Err(Undecided::Invalid(reason.to_string())),
            Err(Unanswered::Closed(_)) => Err(Undecided::Closed),
        }
    }
}

/// The routes. `ended` turns true once the program is asked to end.
pub fn router<D: Decides>(
    decides: Arc<D>,
    identity: Identity,
    ended: watch::Receiver<bool>,
) -> Router {
    let edge = Arc::new(Edge {
        decides,
        identity,
        complaints: DefaultDirectRateLimiter::direct(Quota::per_second(NonZeroU32::MIN)),
    });
    Router::new()
        .route("/json", post(answer_json::<D>).layer(DefaultBodyLimit::max(LARGEST_BODY)))
        .route("/check", any(answer_check::<D>))
        .route("/check/", any(answer_check::<D>))
        .route("/check/{*path}", any(answer_check::<D>))
        .with_state(edge)
        .merge(Router::new().route("/healthz", get(health)).with_state(ended))
}

struct Edge<D> {
    decides: Arc<D>,
    identity: Identity,
    /// One line a second: a flood of requests must not become a flood of lines.
    complaints: DefaultDirectRateLimiter,
}

async fn health(State(ended): State<watch::Receiver<bool>>) -> (StatusCode, &'static str) {
    if *ended.borrow() {
        (StatusCode::SERVICE_UNAVAILABLE, "ending\n")
    } else {
        (StatusCode::OK, "ok\n")
    }
}

async fn answer_json<D: Decides>(
    State(edge): State<Arc<Edge<D>>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = body.map_err(|rejection| unreadable(rejection.status(), &rejection.body_text()))?;
    let request = json::read(&body).map_err(|error| bad_request(&error))?;
    let response = edge.decides.decide(&request, &headers).await?;
    let body = json::write(&response).map_err(|error| bad_request(&error))?;
    Ok((status(&response), [(header::CONTENT_TYPE, "application/json")], body).into_response())
}

async fn answer_check<D: Decides>(
    State(edge): State<Arc<Edge<D>>>,
    request: HttpRequest,
) -> Response {
    let (parts, _) = request.into_parts();
    let response = checked(&edge, &parts).await.into_response();
    if original::denies_by_403(&parts.uri) { as_403(response) } else { response }
}

/// A refusal as nginx's auth_request passes it on: it knows 2xx, 401 and 403 alone. `X-Refused` has the status that is meant.
fn as_403(mut response: Response) -> Response {
    let meant = response.status();
    if matches!(meant, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        *response.status_mut() = StatusCode::FORBIDDEN;
        response.headers_mut().insert("x-refused", HeaderValue::from(meant.as_u16()));
    }
    response
}

async fn checked<D: Decides>(edge: &Edge<D>, parts: &Parts) -> Result<Response, Problem> {
    let request = edge.question(parts)?;
    if request.descriptors.is_empty() {
        return Ok(StatusCode::OK.into_response());
    }
    let response = edge.decides.decide(&request, &parts.headers).await?;
    let headers = response.response_headers_to_add.iter().filter_map(|field| {
        Some((HeaderName::try_from(&field.key).ok()?, HeaderValue::try_from(&field.value).ok()?))
    });
    Ok((status(&response), HeaderMap::from_iter(headers), response.raw_body).into_response())
}

impl<D: Decides> Edge<D> {
    /// What the original request is asked about.
    fn question(&self, parts: &Parts) -> Result<Request, Problem> {
        let named = original::domain(&parts.uri);
        let domain =
            self.decides.domain(named.as_deref()).map_err(|reason| bad_request(&reason))?;
        let peer =
            parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
        let original = Original::read(&parts.method, &parts.uri, &parts.headers, peer);
        let descriptors = original
            .and_then(|original| {
                original.descriptors(&domain.templates, &domain.check, &self.identity)
            })
            .map_err(|unclear| self.complain(&unclear))?;
        Ok(Request { domain: domain.name.clone(), descriptors, hits: None })
    }

    /// The setup is wrong, and whoever can mend it may never see the answer: nginx shows its clients a 500.
    fn complain(&self, unclear: &Unclear) -> Problem {
        if self.complaints.check().is_ok() {
            tracing::warn!("/check: {unclear}");
        }
        bad_request(unclear)
    }
}

fn status(response: &RateLimitResponse) -> StatusCode {
    match response.overall_code() {
        Code::OverLimit => StatusCode::TOO_MANY_REQUESTS,
        Code::Ok | Code::Unknown => StatusCode::OK,
    }
}

fn bad_request(reason: &impl ToString) -> Problem {
    unreadable(StatusCode::BAD_REQUEST, &reason.to_string())
}

fn unreadable(status: StatusCode, reason: &str) -> Problem {
    metrics::malformed();
    problem::unreadable(status.as_u16(), reason)
}

impl From<Undecided> for Problem {
    fn from(undecided: Undecided) -> Self {
        match undecided {
            Undecided::Invalid(reason) => bad_request(&reason),
            Undecided::Closed => problem::problem(problem::Kind::ReducedCapacity, &[]),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, [(header::CONTENT_TYPE, self.content_type)], self.body).into_response()
    }
}
