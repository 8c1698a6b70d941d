//! Envoy's interface: `envoy.service.ratelimit.v3.RateLimitService`, with health checks and reflection beside it.
//!
//! ```text
//! connection ─ hyper ─┬ ShouldRateLimit ─ wire ─ the service     what Envoy asks for every request
//!                     └ all else ─ tonic                          health checks, reflection
//! ```
//!
//! A unary call is two messages and a trailer. Read and written here, without tonic's layers, streams and codecs around it, a
//! decision takes a fifth less of the processor's time.

mod calls;
mod wire;

use std::sync::Arc;
use std::time::Instant;

use axum::http::{HeaderMap, Request};
use envoy_types::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use hyper::body::Incoming;
use prost::bytes::Bytes;
use tonic::Status;

use crate::answer::envoy;
use crate::answer::fields::Form;
use crate::metrics::{self, Via, now_ms};
use crate::plan::Invalid;
use crate::service::{Service, Unanswered};

pub use calls::serve;

/// The largest message that is read, in bytes. A larger one is an error of the call, and Envoy lets a request pass whose
/// question failed: so it is more than a client can make up, whose headers may be 60 KiB and stand in many descriptors.
pub const LARGEST_MESSAGE: usize = 16 << 20;

/// The name of the service, for health checks.
pub const NAME: &str = "envoy.service.ratelimit.v3.RateLimitService";

/// Its only method.
const METHOD: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

/// The descriptors of the services, for reflection: a `FileDescriptorSet` of `rls.proto` and what it imports. A test makes
/// it from the files of envoy-types and compares.
pub const DESCRIPTORS: &[u8] = include_bytes!("grpc/rls.binpb");

/// The gRPC service.
pub struct RateLimits {
    service: Arc<Service>,
    form: Option<Form>,
}

impl RateLimits {
    /// What decides, and the form of the header fields that it answers.
    pub fn new(service: Arc<Service>, form: Option<Form>) -> Self {
        Self { service, form }
    }

    async fn call(&self, request: Request<Incoming>) -> Result<Bytes, Status> {
        let (head, body) = request.into_parts();
        let question = wire::read(body).await?;
        let answer = self.answer(question, &head.headers).await?;
        Ok(wire::write(&answer))
    }

    async fn answer(
        &self,
        question: RateLimitRequest,
        headers: &HeaderMap,
    ) -> Result<RateLimitResponse, Status> {
        let began = Instant::now();
        let answer = match envoy::request(question) {
            Ok(request) => self.service.decide(&request, headers).await.map_err(status),
            Err(reason) => Err(invalid(reason)),
        };
        self.service.meters().answered(Via::Grpc, began.elapsed(), answer.is_err());
        answer.map(|outcome| envoy::response(&outcome, self.form, now_ms()))
    }
}

fn status(unanswered: Unanswered) -> Status {
    match unanswered {
        Unanswered::Invalid(reason) => invalid(reason),
        // Envoy's failure_mode_deny decides what becomes of the request.
        closed @ Unanswered::Closed(_) => Status::unavailable(closed.to_string()),
    }
}

fn invalid(reason: Invalid) -> Status {
    malformed(reason.to_string())
}

fn malformed(reason: String) -> Status {
    metrics::malformed();
    Status::invalid_argument(reason)
}
