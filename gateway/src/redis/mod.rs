//! The server: where it is, connections, batches, the circuit breaker.
//!
//! ```text
//! Store ─ Node                one server, or the master that the sentinels name
//!       └ Cluster ─ Node ...  one for each master, found by the slot
//! ```
//!
//! - [`url`]: where the server is, as users write it.
//! - `connect`: one connection, to whoever is the right server now.
//! - `batch`: what waits at the same time is sent together.
//! - `node`: the connection that all requests share, and whether it can be used: the circuit breaker.
//! - `cluster`: which slot is whose, and redirections.
//!
//! A command is sent once. It is sent again only if the server said that it did not run it.

mod batch;
mod cluster;
mod connect;
mod node;
pub mod url;

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, RedisResult, Value};
use tokio::time::Instant;

use self::cluster::Cluster;
use self::connect::Target;
use self::node::Node;
pub use self::url::Url;

/// What a store is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the server is.
    pub url: Url,
    /// How long each question waits for its answer.
    pub timeout: Duration,
}

/// One command, and where it belongs in a cluster.
pub struct Ask {
    /// The command. It needs no reply but one.
    pub command: Cmd,
    /// The slot of its keys. See [`slot`].
    pub slot: u16,
}

/// Nothing was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server was not asked, or did not answer: {reason:?}")]
pub struct Unasked {
    /// Why.
    pub reason: Reason,
}

/// Why nothing was answered. After `Open` and `Busy` nothing was sent; after the others a command may have been executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No answer came in time.
    Timeout,
    /// The server did not answer a moment ago, and is not asked until it does.
    Open,
    /// The connection broke, or the server says that it cannot serve now.
    Connection,
    /// Too many wait already.
    Busy,
}

impl Reason {
    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Open => "open",
            Self::Connection => "connection",
            Self::Busy => "busy",
        }
    }
}

/// The way to the server. Clones share it; with the last of them it ends.
#[derive(Clone)]
pub struct Store(Kind);

#[derive(Clone)]
enum Kind {
    One(Arc<Node>, Duration),
    Cluster(Arc<Cluster>, Duration),
}

impl Store {
    /// Begins to connect, in tasks of the tokio runtime that it is called in. A server that is away is no failure: it is
    /// tried again until it is there.
    pub fn start(settings: Settings) -> Self {
        let Settings { url, timeout } = settings;
        Self(if url.is_cluster() {
            Kind::Cluster(Arc::new(Cluster::start(url, timeout)), timeout)
        } else {
            Kind::One(Arc::new(Node::start(Target::new(url), timeout)), timeout)
        })
    }

    /// Whether keys belong to slots, which different servers may serve.
    pub fn is_cluster(&self) -> bool {
        matches!(self.0, Kind::Cluster(..))
    }

    /// Whether requests go unasked for now: all, or in a cluster those of some slots.
    pub fn is_open(&self) -> bool {
        match &self.0 {
            Kind::One(node, _) => node.is_open(),
            Kind::Cluster(cluster, _) => cluster.is_open(),
        }
    }

    /// Until when a question waits for its answer that is asked now.
    pub fn deadline(&self) -> Instant {
        let (Kind::One(_, timeout) | Kind::Cluster(_, timeout)) = &self.0;
        Instant::now() + *timeout
    }

    /// Sends commands, all at the same time, and gives the reply of each in their order.
    ///
    /// Nothing is sent while the breaker of a server that any of them needs is open. If servers of a cluster failed one
    /// and others answered, the reply of what failed is an error that [`RedisError::is_io_error`] knows.
    ///
    /// [`RedisError::is_io_error`]: redis::RedisError::is_io_error
    pub async fn ask(&self, asks: Vec<Ask>) -> Result<Vec<RedisResult<Value>>, Unasked> {
        self.ask_by(asks, self.deadline()).await
    }

    /// The same, waiting for the answers until then.
    pub async fn ask_by(
        &self,
        asks: Vec<Ask>,
        deadline: Instant,
    ) -> Result<Vec<RedisResult<Value>>, Unasked> {
        let replies = match &self.0 {
            Kind::One(node, _) => {
                let commands = asks.into_iter().map(|ask| ask.command).collect();
                node.ask(commands, deadline).await
            }
            Kind::Cluster(cluster, _) => cluster.ask(asks, deadline).await,
        };
        replies.map_err(|reason| Unasked { reason })
    }
}

/// The slot of a key: that of its hash tag, if it has one.
pub fn slot(key: &[u8]) -> u16 {
    crc16::State::<crc16::XMODEM>::calculate(hash_tag(key).unwrap_or(key)) % SLOTS
}

/// The slots of a cluster.
const SLOTS: u16 = 16_384;

/// What is between the first `{` and the first `}` after it, if there is anything.
fn hash_tag(key: &[u8]) -> Option<&[u8]> {
    let open = key.iter().position(|byte| *byte == b'{')?;
    let rest = key.get(open + 1..)?;
    let close = rest.iter().position(|byte| *byte == b'}')?;
    rest.get(..close).filter(|tag| !tag.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_cluster_specification() {
        let rows: [(&[u8], u16); 9] = [
            (b"123456789", 12_739),
            (b"foo", 12_182),
            (b"{foo}.bar", 12_182),
            (b"x{foo}{bar}", 12_182),
            (b"foo{}{bar}", slot(b"foo{}{bar}")),
            (b"foo{{bar}}zap", slot(b"{bar")),
            (b"", 0),
            (b"{foo", slot(b"{foo")),
            (b"foo}{bar", slot(b"foo}{bar")),
        ];
        for (key, expected) in rows {
            assert_eq!(slot(key), expected, "{}", key.escape_ascii());
        }
        assert_ne!(slot(b"foo{}{bar}"), slot(b"bar"), "an empty first tag is none");
    }
}
