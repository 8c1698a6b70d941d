//! The service on the wire: Envoy's question in, its answer out.
//!
//! A header may hold any bytes, and Envoy sends them as they are, in fields that are meant to be UTF-8. Whoever reads such a
//! message strictly fails, and Envoy lets a request pass whose question failed: with one byte a client would escape all its
//! limits. So text is read as bytes here, and what is not UTF-8 becomes U+FFFD.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use envoy_types::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::{
    Entry as EnvoyEntry, RateLimitOverride,
};
use envoy_types::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use envoy_types::pb::google::protobuf::UInt64Value;
use prost::Message;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{Body, BoxFuture, Service, StdError, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};

use super::{LARGEST_MESSAGE, RateLimits};
use crate::metrics;

const METHOD: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

/// The service, for tonic's router.
#[derive(Clone)]
pub struct Server(pub(super) Arc<RateLimits>);

impl NamedService for Server {
    const NAME: &'static str = "envoy.service.ratelimit.v3.RateLimitService";
}

impl<B> Service<http::Request<B>> for Server
where
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            if request.uri().path() != METHOD {
                return Ok(Status::unimplemented("the method is ShouldRateLimit").into_http());
            }
            let mut grpc =
                Grpc::new(Wire).apply_max_message_size_config(Some(LARGEST_MESSAGE), None);
            Ok(grpc.unary(this, request).await)
        })
    }
}

impl UnaryService<RateLimitRequest> for Server {
    type Response = RateLimitResponse;
    type Future = BoxFuture<Response<RateLimitResponse>, Status>;

    fn call(&mut self, request: Request<RateLimitRequest>) -> Self::Future {
        let limits = Arc::clone(&self.0);
        Box::pin(async move { limits.answer(request.into_inner()).await.map(Response::new) })
    }
}

struct Wire;

impl Codec for Wire {
    type Encode = RateLimitResponse;
    type Decode = RateLimitRequest;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Wire {
    type Item = RateLimitResponse;
    type Error = Status;

    fn encode(
        &mut self,
        response: RateLimitResponse,
        to: &mut EncodeBuf<'_>,
    ) -> Result<(), Status> {
        response.encode(to).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for Wire {
    type Item = RateLimitRequest;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<RateLimitRequest>, Status> {
        match Question::decode(from) {
            Ok(question) => Ok(Some(question.into())),
            Err(error) => {
                metrics::malformed();
                Err(Status::invalid_argument(format!("no RateLimitRequest: {error}")))
            }
        }
    }
}

/// A `RateLimitRequest` with bytes for text.
#[derive(Clone, PartialEq, Message)]
struct Question {
    #[prost(bytes = "vec", tag = "1")]
    domain: Vec<u8>,
    #[prost(message, repeated, tag = "2")]
    descriptors: Vec<Descriptor>,
    #[prost(uint32, tag = "3")]
    hits_addend: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Descriptor {
    #[prost(message, repeated, tag = "1")]
    entries: Vec<Entry>,
    #[prost(message, optional, tag = "2")]
    limit: Option<RateLimitOverride>,
    #[prost(message, optional, tag = "3")]
    hits_addend: Option<UInt64Value>,
    #[prost(bool, tag = "4")]
    is_negative_hits: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

impl From<Question> for RateLimitRequest {
    fn from(question: Question) -> Self {
        Self {
            domain: text(question.domain),
            descriptors: question.descriptors.into_iter().map(Into::into).collect(),
            hits_addend: question.hits_addend,
        }
    }
}

impl From<Descriptor> for RateLimitDescriptor {
    fn from(descriptor: Descriptor) -> Self {
        let entry = |entry: Entry| EnvoyEntry { key: text(entry.key), value: text(entry.value) };
        Self {
            entries: descriptor.entries.into_iter().map(entry).collect(),
            limit: descriptor.limit,
            hits_addend: descriptor.hits_addend,
            is_negative_hits: descriptor.is_negative_hits,
        }
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}
