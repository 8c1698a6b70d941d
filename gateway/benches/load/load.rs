//! Requests to the gateway, as Envoy sends them: gRPC, many at once on each connection. They are encoded beforehand, so that this
//! program leaves the core that it shares with the server to that one.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use envoy_types::pb::envoy::extensions::common::ratelimit::v3::{
    RateLimitDescriptor, rate_limit_descriptor::Entry,
};
use envoy_types::pb::envoy::service::ratelimit::v3::{
    RateLimitRequest, RateLimitResponse, rate_limit_response::Code,
};
use futures_util::future::try_join_all;
use h2::client::{Builder, SendRequest};
use http::{HeaderMap, HeaderValue, Request};
use prost::Message;
use prost::bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::net::TcpStream;

use crate::Options;
use crate::gateway::Gateway;

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One limit, of many users, none of whom is over.
    OneLimit,
    /// The same with two more limits in the same decision.
    ThreeLimits,
    /// One user, who is over.
    Denied,
}

impl Shape {
    fn request(self, user: usize) -> RateLimitRequest {
        let entry = |key: &str, value: String| RateLimitDescriptor {
            entries: vec![Entry { key: key.into(), value }],
            ..Default::default()
        };
        let descriptors = match self {
            Shape::Denied => vec![entry("denied", "somebody".into())],
            Shape::OneLimit => vec![entry("user", user.to_string())],
            Shape::ThreeLimits => vec![
                entry("user", user.to_string()),
                entry("tenant", (user % 100).to_string()),
                entry("address", format!("10.0.{}.{}", user / 256 % 256, user % 256)),
            ],
        };
        RateLimitRequest { domain: "load".into(), descriptors, ..Default::default() }
    }

    fn expected(self) -> Code {
        if self == Shape::Denied { Code::OverLimit } else { Code::Ok }
    }
}

/// What came out of a run.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    pub decisions: u64,
    pub time: Duration,
    /// Of the gateway, on its processor.
    pub busy: Duration,
}

impl Rate {
    pub fn rate(&self) -> f64 {
        self.decisions as f64 / self.time.as_secs_f64()
    }

    /// Decisions for each second that the gateway was on its processor.
    pub fn of_processor(&self) -> f64 {
        self.decisions as f64 / self.busy.as_secs_f64()
    }
}

/// Connections to the gateway, and what is asked on them.
pub struct Load<'a> {
    gateway: &'a Gateway,
    connections: Vec<Connection>,
    bodies: Vec<Bytes>,
    expected: Code,
    streams: usize,
}

impl<'a> Load<'a> {
    pub async fn new(gateway: &'a Gateway, shape: Shape, options: &Options) -> Result<Load<'a>> {
        let mut connections = Vec::new();
        for _ in 0..options.connections {
            connections.push(Connection::open(gateway.grpc).await?);
        }
        let bodies = (0..options.users).map(|user| framed(&shape.request(user))).collect();
        let load = Self {
            gateway,
            connections,
            bodies,
            expected: shape.expected(),
            streams: options.streams,
        };
        if shape == Shape::Denied {
            // The one hit there is: whether it is still there does not matter.
            load.connection(0)?.ask(load.body(0)?).await?;
        }
        Ok(load)
    }

    /// Asks as fast as answers come, on all streams, for some time.
    pub async fn run(&self, time: Duration) -> Result<Rate> {
        let (start, busy) = (Instant::now(), self.gateway.processor_time());
        let streams = self.connections.len() * self.streams;
        let loops = (0..streams).map(|stream| async move {
            let connection = self.connection(stream)?;
            let mut decisions = 0_u64;
            // Each begins elsewhere, so that not all of them ask for the same users.
            let mut number = stream * (self.bodies.len() / streams).max(1);
            while start.elapsed() < time {
                self.check(connection.ask(self.body(number)?).await?)?;
                decisions += 1;
                number += 1;
            }
            Ok::<_, anyhow::Error>(decisions)
        });
        let decisions = try_join_all(loops).await?.into_iter().sum();
        Ok(Rate { decisions, time: start.elapsed(), busy: self.gateway.processor_time() - busy })
    }

    /// One request.
    pub async fn ask(&self, number: usize) -> Result<()> {
        self.check(self.connection(number)?.ask(self.body(number)?).await?)
    }

    fn check(&self, code: Code) -> Result<()> {
        ensure!(code == self.expected, "the gateway says {code:?} and not {:?}", self.expected);
        Ok(())
    }

    fn connection(&self, number: usize) -> Result<&Connection> {
        self.connections.get(number % self.connections.len()).context("no connection")
    }

    fn body(&self, number: usize) -> Result<Bytes> {
        self.bodies.get(number % self.bodies.len()).cloned().context("no request")
    }
}

/// A message of gRPC: not compressed, its length, and its bytes.
fn framed(request: &RateLimitRequest) -> Bytes {
    let message = request.encode_to_vec();
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(&message);
    frame.freeze()
}

struct Connection {
    send: SendRequest<Bytes>,
    request: Request<()>,
}

impl Connection {
    async fn open(port: u16) -> Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        let mut builder = Builder::new();
        builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 30);
        let (send, connection) = builder.handshake(stream).await?;
        tokio::spawn(connection);
        let uri = format!(
            "http://127.0.0.1:{port}/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
        );
        let request = Request::post(uri)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        Ok(Self { send, request })
    }

    async fn ask(&self, message: Bytes) -> Result<Code> {
        let mut send = self.send.clone().ready().await?;
        let (response, mut body) = send.send_request(self.request.clone(), false)?;
        body.send_data(message, true)?;
        let (head, mut body) = response.await?.into_parts();
        let mut answer = BytesMut::new();
        while let Some(part) = body.data().await {
            let part = part?;
            body.flow_control().release_capacity(part.len())?;
            answer.extend_from_slice(&part);
        }
        let trailers = body.trailers().await?.unwrap_or_default();
        let status = |headers: &HeaderMap| {
            headers.get("grpc-status").map(HeaderValue::as_bytes).map(<[u8]>::to_vec)
        };
        let status = status(&trailers).or_else(|| status(&head.headers));
        ensure!(
            status.as_deref() == Some(b"0"),
            "the gateway answers {:?} {trailers:?}",
            head.headers
        );
        ensure!(answer.len() >= 5, "the gateway answers without a message");
        answer.advance(5);
        Ok(RateLimitResponse::decode(answer)?.overall_code())
    }
}
