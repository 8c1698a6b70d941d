//! Questions to a running gateway, as Envoy, a proxy and Prometheus ask them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use envoy_types::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::{
    Entry, RateLimitOverride,
};
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::{Code, DescriptorStatus};
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_service_client::RateLimitServiceClient;
use envoy_types::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use envoy_types::pb::envoy::r#type::v3::RateLimitUnit;
use envoy_types::pb::google::protobuf::UInt64Value;
use tempfile::TempDir;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::program::Gateway;
use crate::server::{Server, patience};

/// A file with rules, in a folder of its own.
pub struct Rules(TempDir);

impl Rules {
    pub fn new(text: &str) -> Self {
        let rules = Self(tempfile::tempdir().unwrap());
        rules.change(text);
        rules
    }

    pub fn folder(&self) -> &Path {
        self.0.path()
    }

    pub fn path(&self) -> PathBuf {
        self.folder().join("rules.yaml")
    }

    /// Writes them anew, in place.
    pub fn change(&self, text: &str) {
        fs::write(self.path(), text).unwrap();
    }
}

/// A gateway with rules and a server of its own, and a client of it.
pub struct Site {
    pub client: Client,
    pub gateway: Gateway,
    pub server: Server,
    pub rules: Rules,
}

impl Site {
    pub async fn start(rules: &str) -> Self {
        Self::with(rules, &[]).await
    }

    pub async fn with(rules: &str, arguments: &[&str]) -> Self {
        let (server, rules) = (Server::start().unwrap(), Rules::new(rules));
        let gateway = Gateway::start(&server, &rules.path(), arguments);
        let client = Client::connect(&gateway).await;
        Self { client, gateway, server, rules }
    }
}

/// Envoy, with a connection.
#[derive(Clone)]
pub struct Client {
    grpc: RateLimitServiceClient<Channel>,
    domain: &'static str,
}

/// A connection to the gateway's gRPC.
pub async fn channel(gateway: &Gateway) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{}", gateway.grpc)).unwrap();
    endpoint.timeout(patience()).connect().await.unwrap()
}

impl Client {
    /// Asks in the domain `d`.
    pub async fn connect(gateway: &Gateway) -> Self {
        Self { grpc: RateLimitServiceClient::new(channel(gateway).await), domain: "d" }
    }

    pub fn domain(&self, domain: &'static str) -> Self {
        Self { domain, ..self.clone() }
    }

    pub async fn try_ask(
        &self,
        descriptors: &[RateLimitDescriptor],
        hits: u32,
    ) -> Result<Answer, Status> {
        let request = RateLimitRequest {
            domain: self.domain.to_owned(),
            descriptors: descriptors.to_vec(),
            hits_addend: hits,
        };
        self.grpc.clone().should_rate_limit(request).await.map(|answer| Answer(answer.into_inner()))
    }

    pub async fn ask(&self, descriptors: &[RateLimitDescriptor]) -> Answer {
        self.try_ask(descriptors, 0).await.unwrap()
    }

    /// Whether each of as many requests for this descriptor passes.
    pub async fn granted(&self, entries: &str, requests: usize) -> Vec<bool> {
        let mut granted = Vec::new();
        for _ in 0..requests {
            granted.push(self.ask(&[descriptor(entries)]).await.passes());
        }
        granted
    }
}

/// Of entries like `user=42 path=/login`.
pub fn descriptor(entries: &str) -> RateLimitDescriptor {
    let entries = entries.split_whitespace().map(|entry| {
        let (key, value) = entry.split_once('=').unwrap();
        Entry { key: key.to_owned(), value: value.to_owned() }
    });
    RateLimitDescriptor { entries: entries.collect(), ..RateLimitDescriptor::default() }
}

/// The same with hits of its own.
pub fn hits(entries: &str, hits: u64) -> RateLimitDescriptor {
    RateLimitDescriptor { hits_addend: Some(UInt64Value { value: hits }), ..descriptor(entries) }
}

/// The same, given back.
pub fn given_back(entries: &str, units: u64) -> RateLimitDescriptor {
    RateLimitDescriptor { is_negative_hits: true, ..hits(entries, units) }
}

/// The same with a limit that the request brings along.
pub fn limited(entries: &str, requests_per_unit: u32, unit: RateLimitUnit) -> RateLimitDescriptor {
    let limit = Some(RateLimitOverride { requests_per_unit, unit: unit.into() });
    RateLimitDescriptor { limit, ..descriptor(entries) }
}

/// What the gateway answered.
#[derive(Debug)]
pub struct Answer(pub RateLimitResponse);

impl Answer {
    pub fn passes(&self) -> bool {
        self.0.overall_code() == Code::Ok
    }

    pub fn status(&self, at: usize) -> &DescriptorStatus {
        &self.0.statuses[at]
    }

    /// Of each descriptor, whether it is within its limit and what remains.
    pub fn rows(&self) -> Vec<(bool, u32)> {
        let row = |status: &DescriptorStatus| (status.code() == Code::Ok, status.limit_remaining);
        self.0.statuses.iter().map(row).collect()
    }

    /// The limit of the first descriptor: requests for each unit.
    pub fn limit(&self) -> u32 {
        self.status(0).current_limit.as_ref().unwrap().requests_per_unit
    }

    pub fn until_reset(&self, at: usize) -> Duration {
        let time = self.status(at).duration_until_reset.unwrap();
        Duration::new(time.seconds.try_into().unwrap(), time.nanos.try_into().unwrap())
    }

    /// A header field for the client; empty without one.
    pub fn field(&self, name: &str) -> &str {
        let mut fields = self.0.response_headers_to_add.iter();
        fields
            .find(|field| field.key.eq_ignore_ascii_case(name))
            .map_or("", |field| field.value.as_str())
    }

    /// The body for the client.
    pub fn body(&self) -> serde_json::Value {
        serde_json::from_slice(&self.0.raw_body).unwrap()
    }
}

/// The text that Prometheus gets.
pub async fn metrics(gateway: &Gateway) -> String {
    let url = format!("http://127.0.0.1:{}/metrics", gateway.metrics);
    reqwest::get(url).await.unwrap().text().await.unwrap()
}

/// The sum of the series with this name and these labels.
pub fn metric(text: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let fits = |series: &&str| {
        series.strip_prefix(name).is_some_and(|rest| {
            (rest.is_empty() || rest.starts_with('{'))
                && labels
                    .iter()
                    .all(|(label, value)| rest.contains(&format!("{label}=\"{value}\"")))
        })
    };
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .filter(|(series, _)| fits(series))
        .map(|(_, value)| value.parse::<f64>().unwrap())
        .sum()
}

/// Waits until something is so of the metrics.
pub async fn until_metrics(gateway: &Gateway, what: &str, is_so: impl Fn(&str) -> bool) {
    crate::store::until(what, async || is_so(&metrics(gateway).await)).await;
}

/// Calls of a command that a server has counted.
pub fn calls(server: &Server, command: &str) -> u64 {
    let mut connection = server.connection().unwrap();
    let stats = crate::server::info(&mut connection, "commandstats").unwrap().to_lowercase();
    let calls = crate::server::field(&stats, &format!("cmdstat_{}", command.to_lowercase()));
    calls.map_or(0, |calls| {
        let calls = calls.strip_prefix("calls=").unwrap().to_owned();
        calls.split(',').next().unwrap().parse().unwrap()
    })
}

/// Units that are used of a limiter: none without a key.
pub fn used(server: &Server, key: &str) -> u64 {
    let mut connection = server.connection().unwrap();
    let peeked: Option<[u64; 3]> = redis::cmd("RL.PEEK")
        .arg(key)
        .query::<Option<Vec<i64>>>(&mut connection)
        .unwrap()
        .map(|peeked| [0, 1, 2].map(|at| u64::try_from(peeked[at]).unwrap()));
    peeked.map_or(0, |[_, limit, remaining]| limit - remaining)
}
