//! A cluster: which server each slot belongs to, and where a server sends us instead.
//!
//! Every master is a [`Node`] with a breaker of its own: while one is away, the slots of the others are served.
//! The map of slots is read anew when a server redirects us, and once a second while any slot is not served.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use redis::{Cmd, RedisError, RedisResult, Value};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::warn;

use super::connect::{PATIENCE, Target};
use super::node::Node;
use super::url::{Address, Url};
use super::{Ask, Reason, SLOTS};

/// Most redirections of one command.
const REDIRECTIONS: usize = 16;
/// The pause before a command is sent again whose keys are just being moved.
const MOVING: Duration = Duration::from_millis(2);
/// How often the map is read: at most, while something is not served, and otherwise.
const OFTEN: Duration = Duration::from_millis(100);
const UNSERVED: Duration = Duration::from_secs(1);
const SELDOM: Duration = Duration::from_secs(60);

/// The servers of a cluster.
pub(super) struct Cluster {
    state: Arc<State>,
    keeper: JoinHandle<()>,
}

struct State {
    url: Url,
    timeout: Duration,
    map: ArcSwap<Map>,
    /// The servers that are connected to: those of the map, and those that redirections named since it was read.
    nodes: Mutex<HashMap<Address, Arc<Node>>>,
    /// Whether it has been tried to read the map.
    tried: watch::Sender<bool>,
    /// The map may be out of date.
    stale: Notify,
}

/// The server of each slot.
#[derive(Default)]
struct Map {
    owners: Vec<Option<Arc<Node>>>,
    nodes: Vec<Arc<Node>>,
}

impl Map {
    fn is_whole(&self) -> bool {
        self.owners.len() == usize::from(SLOTS) && self.owners.iter().all(Option::is_some)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Cluster {
    pub(super) fn start(url: Url, timeout: Duration) -> Self {
        let state = Arc::new(State {
            url,
            timeout,
            map: ArcSwap::default(),
            nodes: Mutex::default(),
            tried: watch::Sender::new(false),
            stale: Notify::new(),
        });
        let keeper = tokio::spawn(Arc::clone(&state).keep());
        Self { state, keeper }
    }

    /// Whether some slot is not served.
    pub(super) fn is_open(&self) -> bool {
        self.state.is_open()
    }

    /// Sends each command to the server of its slot, all at the same time.
    pub(super) async fn ask(
        &self,
        asks: Vec<Ask>,
        deadline: Instant,
    ) -> Result<Vec<RedisResult<Value>>, Reason> {
        let state = &*self.state;
        if !*state.tried.borrow() {
            let mut tried = state.tried.subscribe();
            let _ = timeout_at(deadline, tried.wait_for(|tried| *tried)).await;
        }
        let count = asks.len();
        let groups = state.groups(asks).ok_or_else(|| {
            state.stale.notify_one();
            Reason::Open
        })?;
        let asked = groups.into_iter().map(|group| state.ask_group(group, deadline));
        let mut replies = Vec::with_capacity(count);
        let mut failed = None;
        for (position, reply) in join_all(asked).await.into_iter().flatten() {
            if let Err(reason) = reply {
                failed = Some(reason);
            }
            replies.push((position, reply));
        }
        match failed {
            Some(reason) if replies.iter().all(|(_, reply)| reply.is_err()) => Err(reason),
            _ => {
                replies.sort_unstable_by_key(|(position, _)| *position);
                Ok(replies.into_iter().map(|(_, reply)| reply.unwrap_or_else(unanswered)).collect())
            }
        }
    }
}

/// The commands of one server, each with its position among those that were asked.
struct Group {
    node: Arc<Node>,
    positions: Vec<usize>,
    commands: Vec<Cmd>,
}

type Replies = Vec<(usize, Result<RedisResult<Value>, Reason>)>;

impl State {
    fn is_open(&self) -> bool {
        let map = self.map.load();
        !map.is_whole() || map.nodes.iter().any(|node| node.is_open())
    }

    /// The commands by servers, or `None` if one of the servers is not asked now.
    fn groups(&self, asks: Vec<Ask>) -> Option<Vec<Group>> {
        let map = self.map.load();
        let mut groups: Vec<Group> = Vec::with_capacity(1);
        for (position, Ask { command, slot }) in asks.into_iter().enumerate() {
            let node =
                map.owners.get(usize::from(slot))?.as_ref().filter(|node| !node.refuses())?;
            match groups.iter_mut().find(|group| Arc::ptr_eq(&group.node, node)) {
                Some(group) => {
                    group.positions.push(position);
                    group.commands.push(command);
                }
                None => groups.push(Group {
                    node: Arc::clone(node),
                    positions: vec![position],
                    commands: vec![command],
                }),
            }
        }
        Some(groups)
    }

    async fn ask_group(&self, group: Group, deadline: Instant) -> Replies {
        let Group { node, positions, commands } = group;
        match node.ask(commands.clone(), deadline).await {
            Err(reason) => {
                self.stale.notify_one();
                positions.into_iter().map(|position| (position, Err(reason))).collect()
            }
            Ok(replies) => {
                let mut answers = Vec::with_capacity(replies.len());
                for ((position, command), reply) in positions.into_iter().zip(commands).zip(replies)
                {
                    let answer = self.follow(&node, command, reply, deadline).await;
                    answers.push((position, answer));
                }
                answers
            }
        }
    }

    /// Goes where the servers send us. They executed nothing then.
    async fn follow(
        &self,
        node: &Arc<Node>,
        command: Cmd,
        reply: RedisResult<Value>,
        deadline: Instant,
    ) -> Result<RedisResult<Value>, Reason> {
        let (mut node, mut reply) = (Arc::clone(node), reply);
        for _ in 0..REDIRECTIONS {
            let Err(error) = &reply else { break };
            let mut commands = vec![command.clone()];
            match error.code() {
                Some("MOVED") => {
                    self.stale.notify_one();
                    node = self.redirected(&node, error)?;
                }
                Some("ASK") => {
                    node = self.redirected(&node, error)?;
                    commands.insert(0, redis::cmd("ASKING"));
                }
                Some("TRYAGAIN") if Instant::now() + MOVING < deadline => sleep(MOVING).await,
                _ => break,
            }
            reply = node.ask(commands, deadline).await?.pop().ok_or(Reason::Connection)?;
        }
        Ok(reply)
    }

    fn redirected(&self, from: &Node, error: &RedisError) -> Result<Arc<Node>, Reason> {
        let (address, _slot) = error.redirect_node().ok_or(Reason::Connection)?;
        let (host, port) = address.rsplit_once(':').ok_or(Reason::Connection)?;
        let port = port.parse().map_err(|_| Reason::Connection)?;
        // Without a host it is the one that we know.
        let known = || from.target().as_node().map(|(host, _)| host.clone()).unwrap_or_default();
        let host = if host.is_empty() { known() } else { host.to_owned() };
        Ok(self.node(&mut self.nodes.lock().unwrap_or_else(PoisonError::into_inner), (host, port)))
    }

    fn node(&self, nodes: &mut HashMap<Address, Arc<Node>>, address: Address) -> Arc<Node> {
        let start = |address| Arc::new(Node::start(Target::node(&self.url, address), self.timeout));
        Arc::clone(nodes.entry(address.clone()).or_insert_with(|| start(address)))
    }

    /// Keeps the map up to date.
    async fn keep(self: Arc<Self>) {
        let mut told = String::new();
        loop {
            match self.read().await {
                Ok(slots) => {
                    self.set(slots);
                    told.clear();
                }
                Err(why) if told != why => {
                    warn!(server = %self.url, "cannot read which server has which slot: {why}");
                    told = why;
                }
                Err(_) => {}
            }
            self.tried.send_replace(true);
            sleep(OFTEN).await;
            let pause = if self.is_open() { UNSERVED } else { SELDOM };
            let _ = timeout(pause, self.stale.notified()).await;
        }
    }

    /// Who has which slots, as the first server tells that answers.
    async fn read(&self) -> Result<Vec<Slots>, String> {
        let nodes: Vec<_> = self.map.load().nodes.iter().map(Arc::clone).collect();
        let mut command = redis::cmd("CLUSTER");
        command.arg("SLOTS");
        for node in nodes.iter().filter(|node| !node.is_open()) {
            let reply = node.ask(vec![command.clone()], Instant::now() + self.timeout).await;
            let host = node.target().as_node().map(|(host, _)| host.as_str()).unwrap_or_default();
            if let Some(slots) = reply
                .ok()
                .and_then(|mut replies| replies.pop()?.ok())
                .and_then(|reply| slots(&reply, host))
            {
                return Ok(slots);
            }
        }
        let mut why = String::new();
        for seed in self.url.seeds() {
            match timeout(PATIENCE, self.ask_seed(seed, &command)).await {
                Ok(Ok(reply)) => match slots(&reply, &seed.0) {
                    Some(slots) => return Ok(slots),
                    None => {
                        why = format!("{}:{} answers nothing that is understood", seed.0, seed.1)
                    }
                },
                Ok(Err(error)) => why = format!("{}:{}: {error}", seed.0, seed.1),
                Err(_) => why = format!("{}:{}: no answer within {PATIENCE:?}", seed.0, seed.1),
            }
        }
        Err(why)
    }

    async fn ask_seed(&self, seed: &Address, command: &Cmd) -> RedisResult<Value> {
        let target = Target::node(&self.url, seed.clone());
        let mut connection = target.connect(Arc::default()).await?;
        connection.send_packed_command(command).await?.extract_error()
    }

    /// Puts a map in use, and gives up the servers that are not in it.
    fn set(&self, slots: Vec<Slots>) {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut map = Map { owners: vec![None; usize::from(SLOTS)], nodes: vec![] };
        let mut kept = HashMap::new();
        for Slots { first, last, master } in slots {
            let node = self.node(&mut nodes, master.clone());
            let range = usize::from(first)..=usize::from(last);
            map.owners.get_mut(range).into_iter().flatten().for_each(|owner| {
                *owner = Some(Arc::clone(&node));
            });
            kept.insert(master, node);
        }
        map.nodes = kept.values().cloned().collect();
        *nodes = kept;
        self.map.store(Arc::new(map));
    }
}

/// Slots of one master, the last included.
#[derive(Debug, PartialEq, Eq)]
struct Slots {
    first: u16,
    last: u16,
    master: Address,
}

/// Reads the reply to CLUSTER SLOTS. Masters without a host have that of the server that was asked.
fn slots(reply: &Value, asked: &str) -> Option<Vec<Slots>> {
    let Value::Array(rows) = reply else { return None };
    rows.iter()
        .map(|row| {
            let Value::Array(row) = row else { return None };
            let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = row.as_slice()
            else {
                return None;
            };
            let [host, Value::Int(port), ..] = master.as_slice() else { return None };
            let host = match redis::from_redis_value_ref::<Option<String>>(host).ok()? {
                Some(host) if !host.is_empty() => host,
                _ => asked.to_owned(),
            };
            let (first, last) = ((*first).try_into().ok()?, (*last).try_into().ok()?);
            Some(Slots { first, last, master: (host, (*port).try_into().ok()?) })
        })
        .collect()
}

/// What stands for the reply of a server that failed, while others answered.
fn unanswered(reason: Reason) -> RedisResult<Value> {
    Err(std::io::Error::other(super::Unasked { reason }).into())
}

#[cfg(test)]
mod tests {
    use redis::parse_redis_value;

    use super::*;

    #[test]
    fn reads_the_map_of_slots() {
        let reply = b"*2\r\n*4\r\n:0\r\n:5460\r\n*4\r\n$9\r\n127.0.0.1\r\n:7000\r\n$2\r\nid\r\n*0\r\n*3\r\n$9\r\n127.0.0.1\r\n:7003\r\n$3\r\nid2\r\n\
            *3\r\n:5461\r\n:5461\r\n*3\r\n$-1\r\n:7001\r\n$2\r\nid\r\n";
        let reply = parse_redis_value(reply).unwrap();
        let expected = vec![
            Slots { first: 0, last: 5460, master: ("127.0.0.1".into(), 7000) },
            Slots { first: 5461, last: 5461, master: ("asked".into(), 7001) },
        ];
        assert_eq!(slots(&reply, "asked"), Some(expected));
        assert_eq!(slots(&Value::Okay, "asked"), None);
        let port =
            parse_redis_value(b"*1\r\n*3\r\n:0\r\n:5\r\n*2\r\n$1\r\nh\r\n:70000\r\n").unwrap();
        assert_eq!(slots(&port, "asked"), None);
    }
}
