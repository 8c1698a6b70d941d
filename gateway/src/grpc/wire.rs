//! The messages of a unary call: Envoy's question in, its answer out.
//!
//! ```text
//! 0 | length, 4 bytes | message        0: not compressed
//! ```
//!
//! A header may hold any bytes, and Envoy sends them as they are, in fields that are meant to be UTF-8. Whoever reads such a
//! message strictly fails, and Envoy lets a request pass whose question failed: with one byte a client would escape all its
//! limits. So text is read as bytes here, and what is not UTF-8 becomes U+FFFD.

use envoy_types::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::{
    Entry as EnvoyEntry, RateLimitOverride,
};
use envoy_types::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use envoy_types::pb::google::protobuf::UInt64Value;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use prost::Message;
use prost::bytes::{BufMut as _, Bytes, BytesMut};
use tonic::Status;

use super::{LARGEST_MESSAGE, malformed};

/// What comes before a message.
const PREFIX: usize = 5;

/// Reads the question of a call.
///
/// # Errors
/// It is too large, compressed, or none; or the client has gone.
pub(super) async fn read(body: Incoming) -> Result<RateLimitRequest, Status> {
    let body = Limited::new(body, LARGEST_MESSAGE + PREFIX).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            Status::out_of_range(format!(
                "the message is too large: it may have {LARGEST_MESSAGE} bytes"
            ))
        } else {
            Status::cancelled(error.to_string())
        }
    })?;
    let body = body.to_bytes();
    let [compressed, length @ ..] = body.get(..PREFIX).unwrap_or_default() else {
        return Err(malformed("there is no message".into()));
    };
    if *compressed != 0 {
        return Err(Status::unimplemented("compressed messages are not read"));
    }
    let message = body.get(PREFIX..).unwrap_or_default();
    let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    if message.len() != length {
        let has = message.len();
        return Err(malformed(format!("a message of {length} bytes has {has}")));
    }
    let question = Question::decode(message);
    question
        .map(RateLimitRequest::from)
        .map_err(|error| malformed(format!("no RateLimitRequest: {error}")))
}

/// The message of an answer, with what comes before it.
pub(super) fn write(answer: &RateLimitResponse) -> Bytes {
    let length = answer.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX + length);
    bytes.put_u8(0);
    // Answers have a few hundred bytes for each descriptor.
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    answer.encode_raw(&mut bytes);
    bytes.freeze()
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
