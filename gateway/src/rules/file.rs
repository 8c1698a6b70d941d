//! The YAML of a configuration: envoyproxy/ratelimit's, and keys of ours. Unknown keys are errors, with line and column.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_saphyr::Spanned;

use super::limit::Algorithm;

/// A file: the rules of one domain.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// The name that requests give. Unique among all files.
    pub domain: Spanned<String>,
    /// The outermost level.
    #[serde(default)]
    pub descriptors: Option<Vec<Node>>,
    /// Ours: keys whose values are the hash tag of a rule's key, so that rules of one client lie in one slot of a cluster.
    #[serde(default)]
    pub hash_tag: Vec<Spanned<String>>,
    /// Ours: what `/check` reads the values of descriptors from.
    #[serde(default)]
    pub check: BTreeMap<String, Source>,
}

/// What `/check` reads a descriptor's value from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A header of the request, by its name in any case.
    Header(String),
    /// A parameter of the query.
    Query(String),
    /// A cookie.
    Cookie(String),
}

/// An entry of a descriptor, with its rule and what lies below it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// The kind of value, like `user`.
    pub key: Spanned<String>,
    /// Any value, if there is none. May hold `*`, each for any number of characters.
    #[serde(default)]
    pub value: Option<Spanned<String>>,
    /// The rule for descriptors that end here.
    #[serde(default)]
    pub rate_limit: Option<Spanned<RateLimit>>,
    /// The next level.
    #[serde(default)]
    pub descriptors: Option<Vec<Node>>,
    /// Decided, counted and reported, but refuses nobody.
    #[serde(default)]
    pub shadow_mode: bool,
    /// Refuses if all rules of this mode that a request meets refuse.
    #[serde(default)]
    pub quota_mode: bool,
    /// Metrics have the values of the whole path.
    #[serde(default)]
    pub detailed_metric: bool,
    /// Metrics have the value of this entry.
    #[serde(default)]
    pub value_to_metric: bool,
    /// All values that match `*` share one limiter.
    #[serde(default)]
    pub share_threshold: bool,
    /// Read and left alone: it is for envoyproxy/ratelimit's dynamic metadata.
    #[serde(default)]
    pub metadata: Option<IgnoredAny>,
    /// Ours: the value is hashed in keys.
    #[serde(default)]
    pub secret: bool,
}

/// A rule.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// second, minute, hour, day, week, month or year.
    #[serde(default)]
    pub unit: Option<String>,
    /// 0 if not said, as in envoyproxy/ratelimit: then nothing passes.
    #[serde(default)]
    pub requests_per_unit: Option<u64>,
    /// Limits nothing.
    #[serde(default)]
    pub unlimited: bool,
    /// Its name, for header fields and for `replaces`.
    #[serde(default)]
    pub name: Option<String>,
    /// Rules that let pass what this one meets.
    #[serde(default)]
    pub replaces: Vec<Replaces>,
    /// Ours: how it counts.
    #[serde(default)]
    pub algorithm: Option<Algorithm>,
    /// Ours: what a bucket holds.
    #[serde(default)]
    pub burst: Option<u64>,
    /// Ours: units of each hit.
    #[serde(default)]
    pub cost: Option<u64>,
    /// Ours: closes the limiter after denials in a row.
    #[serde(default)]
    pub block: Option<BlockText>,
    /// Ours: the most leases that are held at the same time.
    #[serde(default)]
    pub concurrency: Option<u64>,
    /// Ours: how long a lease lasts.
    #[serde(default)]
    pub ttl: Option<String>,
    /// Ours: moves fixed windows, like `-8h`.
    #[serde(default)]
    pub offset: Option<String>,
    /// Ours: entries of a sliding window.
    #[serde(default)]
    pub buckets: Option<u64>,
    /// Ours: hits are charged even above the limit.
    #[serde(default)]
    pub force: bool,
}

impl RateLimit {
    /// Whether one of our keys says how it counts.
    pub fn counts(&self) -> bool {
        let numbers = [self.burst, self.cost, self.concurrency];
        self.algorithm.is_some()
            || numbers.iter().any(Option::is_some)
            || self.block.is_some()
            || self.ttl.is_some()
            || self.offset.is_some()
            || self.buckets.is_some()
    }
}

/// The name of a rule that this one takes the place of.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replaces {
    /// That name.
    pub name: String,
}

/// `10m`, or `{duration: 10m, after: 5}`.
#[derive(Clone, Debug)]
pub enum BlockText {
    /// After one denial.
    Duration(String),
    /// After several.
    Map(BlockMap),
}

/// By hand, since an untagged enum takes no number for a text, and does not say which of its variants is wrong in what.
impl<'de> Deserialize<'de> for BlockText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BlockVisitor)
    }
}

struct BlockVisitor;

impl<'de> Visitor<'de> for BlockVisitor {
    type Value = BlockText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration like 10m, or {duration: 10m, after: 5}")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<BlockText, E> {
        Ok(BlockText::Duration(text.to_owned()))
    }

    fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<BlockText, E> {
        Ok(BlockText::Duration(seconds.to_string()))
    }

    fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<BlockText, E> {
        Ok(BlockText::Duration(seconds.to_string()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<BlockText, A::Error> {
        BlockMap::deserialize(MapAccessDeserializer::new(map)).map(BlockText::Map)
    }
}

/// A block with the number of denials before it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockMap {
    /// For how long.
    pub duration: String,
    /// Denials in a row; 1 if not said.
    #[serde(default)]
    pub after: Option<u64>,
}
