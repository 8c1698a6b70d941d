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
use tokio::time::timeout;
use tonic::Status;

use super::{LARGEST_MESSAGE, invalid, malformed};
use crate::listen::PATIENCE;
use crate::plan::{Invalid, MOST_DESCRIPTORS, MOST_ENTRIES};

/// What comes before a message.
const PREFIX: usize = 5;

/// Reads the question of a call.
///
/// # Errors
/// It is too large, too slow, compressed, or none; or the client has gone.
pub(super) async fn read(body: Incoming) -> Result<RateLimitRequest, Status> {
    let body = timeout(PATIENCE, Limited::new(body, LARGEST_MESSAGE + PREFIX).collect()).await;
    let body = body.map_err(|_| Status::deadline_exceeded("the message did not come"))?;
    let body = body.map_err(|error| {
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
    check(message)?;
    let question = Question::decode(message);
    question
        .map(RateLimitRequest::from)
        .map_err(|error| malformed(format!("no RateLimitRequest: {error}")))
}

/// Counts what takes two bytes in a message and a hundred in memory, before it is there.
fn check(message: &[u8]) -> Result<(), Status> {
    let unclear = |()| malformed("no RateLimitRequest: its fields cannot be told apart".into());
    let (mut descriptors, mut too_many) = (0, None);
    for field in Fields(message) {
        let (DESCRIPTORS, descriptor) = field.map_err(unclear)? else { continue };
        let mut entries = 0;
        for field in Fields(descriptor) {
            let (number, _) = field.map_err(unclear)?;
            entries += usize::from(number == ENTRIES);
        }
        if entries > MOST_ENTRIES {
            too_many.get_or_insert(Invalid::Entries(descriptors, entries));
        }
        descriptors += 1;
    }
    if descriptors > MOST_DESCRIPTORS {
        return Err(invalid(Invalid::Descriptors(descriptors)));
    }
    too_many.map_or(Ok(()), |reason| Err(invalid(reason)))
}

/// The numbers of the descriptors in a request and of the entries in a descriptor.
const DESCRIPTORS: usize = 2;
const ENTRIES: usize = 1;

/// The fields of a message: the number of each, and the content of those that can hold others. An error is the last.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(usize, &'a [u8]), ()>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field().ok_or(());
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(usize, &'a [u8])> {
        let key = self.number()?;
        let length = match key & 7 {
            0 => {
                self.number()?;
                0
            }
            1 => 8,
            2 => self.number()?,
            5 => 4,
            // Groups, which nobody has sent since they were given up: what is in them could not be counted.
            _ => return None,
        };
        let (field, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some((key >> 3, if key & 7 == 2 { field } else { &[] }))
    }

    /// All numbers have the form of a length.
    fn number(&mut self) -> Option<usize> {
        prost::decode_length_delimiter(&mut self.0).ok()
    }
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
