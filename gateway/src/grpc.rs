//! Envoy's interface: `envoy.service.ratelimit.v3.RateLimitService`, with health checks and reflection beside it.

mod wire;

use std::sync::Arc;
use std::time::Instant;

use envoy_types::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use tonic::Status;

use crate::answer::envoy;
use crate::answer::fields::Form;
use crate::metrics::{self, Via, now_ms};
use crate::plan::Invalid;
use crate::service::{Service, Unanswered};

pub use wire::Server;

/// The largest message that is read, in bytes. A larger one is an error of the call, and Envoy lets a request pass whose
/// question failed: so it is more than a client can make up, whose headers may be 60 KiB and stand in many descriptors.
pub const LARGEST_MESSAGE: usize = 16 << 20;

/// The descriptors of the services, for reflection: a `FileDescriptorSet` of `rls.proto` and what it imports. A test makes
/// it from the files of envoy-types and compares.
pub const DESCRIPTORS: &[u8] = include_bytes!("grpc/rls.binpb");

/// The gRPC service.
pub struct RateLimits {
    service: Arc<Service>,
    form: Option<Form>,
}

impl RateLimits {
    /// A server of it, for tonic's router.
    pub fn server(service: Arc<Service>, form: Option<Form>) -> Server {
        Server(Arc::new(Self { service, form }))
    }

    async fn answer(&self, request: RateLimitRequest) -> Result<RateLimitResponse, Status> {
        let began = Instant::now();
        let request = envoy::request(request).map_err(invalid);
        let answer = match request {
            Ok(request) => self.service.decide(&request).await.map_err(status),
            Err(status) => Err(status),
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
    metrics::malformed();
    Status::invalid_argument(reason.to_string())
}
