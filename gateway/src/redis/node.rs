//! One server: the connection that all requests share, and the circuit breaker.
//!
//! ```text
//!            connected, and the probe was answered
//!   open  ─────────────────────────────────────────>  closed
//!   no request is sent  <───────────────────────────  requests are sent, the probe asks once a second
//!            no answer in time, the connection ended, or the server says that it cannot serve
//! ```
//!
//! The breaker is closed while there is a connection in use: to open it is to put the connection away. So what comes late
//! comes on a connection that nobody asks on any more. Those who wait on it already may still be answered there.
//!
//! The probe is `RL.REFUND key 0`: it writes nothing, and yet shows that the server is there, has the module, has loaded
//! its data and takes writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::{Cmd, RedisResult, ServerError, Value};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{info, warn};

use super::Reason;
use super::batch::Batches;
use super::connect::{NAME, PATIENCE, Target};

/// Most commands that wait for their answers: what the fastest server answers in a quarter of a second or so.
pub(super) const QUEUE: usize = 16_384;

const PROBE_KEY: &str = "redis-rl-gateway:probe";
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// The pause after a connection failed: twice as long after each that fails at once.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A server. It is connected to in the background for as long as the node lives.
pub(super) struct Node {
    state: Arc<State>,
    keeper: JoinHandle<()>,
}

struct State {
    target: Target,
    timeout: Duration,
    /// The connection in use. None: the breaker is open.
    live: ArcSwapOption<Live>,
    /// Commands that wait for their answers.
    waiting: AtomicUsize,
    /// Whether it has been tried to connect.
    tried: watch::Sender<bool>,
    /// Something may be wrong with the connection in use.
    opened: Notify,
}

struct Live {
    batches: Batches,
    /// Notified when the server or the network ends the connection.
    gone: Arc<Notify>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Node {
    pub(super) fn start(target: Target, timeout: Duration) -> Self {
        let state = Arc::new(State {
            target,
            timeout,
            live: ArcSwapOption::empty(),
            waiting: AtomicUsize::new(0),
            tried: watch::Sender::new(false),
            opened: Notify::new(),
        });
        let keeper = tokio::spawn(Arc::clone(&state).keep());
        Self { state, keeper }
    }

    pub(super) fn is_open(&self) -> bool {
        self.state.live.load().is_none()
    }

    /// Whether a request goes unasked now. Before it was tried to connect, a request waits for that.
    pub(super) fn refuses(&self) -> bool {
        self.is_open() && *self.state.tried.borrow()
    }

    pub(super) fn target(&self) -> &Target {
        &self.state.target
    }

    /// Sends commands together and waits for the replies of all.
    pub(super) async fn ask(
        &self,
        commands: Vec<Cmd>,
        deadline: Instant,
    ) -> Result<Vec<RedisResult<Value>>, Reason> {
        if commands.is_empty() {
            return Ok(vec![]);
        }
        let state = &*self.state;
        let live = match state.live.load_full() {
            Some(live) => live,
            None => state.first_connection(deadline).await.ok_or(Reason::Open)?,
        };
        let _place = state.queue(commands.len()).ok_or(Reason::Busy)?;
        let sent = Instant::now();
        match timeout_at(deadline, live.batches.send(commands)).await {
            Ok(Ok(values)) => state.judge(&live, values),
            Ok(Err(error)) => {
                state.open(&live, &error.to_string());
                Err(Reason::Connection)
            }
            Err(_) => {
                // What began late, as after a redirection, says nothing about the server.
                if sent.elapsed() >= state.timeout / 2 {
                    state.open(&live, &format!("no answer within {:?}", state.timeout));
                }
                Err(Reason::Timeout)
            }
        }
    }
}

impl State {
    /// What the first attempt to connect led to: only then a request waits for it.
    async fn first_connection(&self, deadline: Instant) -> Option<Arc<Live>> {
        if *self.tried.borrow() {
            return None;
        }
        let mut tried = self.tried.subscribe();
        if timeout_at(deadline, tried.wait_for(|tried| *tried)).await.is_err() {
            // Others do not wait for it once more.
            self.tried.send_replace(true);
        }
        self.live.load_full()
    }

    fn queue(&self, count: usize) -> Option<Place<'_>> {
        let place = Place { waiting: &self.waiting, count };
        (self.waiting.fetch_add(count, Ordering::Relaxed) + count <= QUEUE).then_some(place)
    }

    /// Sorts replies. Some errors say that the server cannot serve now: these open the breaker, and if there is nothing else
    /// then nothing was answered.
    fn judge(
        &self,
        live: &Arc<Live>,
        values: Vec<Value>,
    ) -> Result<Vec<RedisResult<Value>>, Reason> {
        let (all, mut unserved) = (values.len(), 0);
        let replies = values.into_iter().map(|value| match value {
            Value::ServerError(error) => {
                if let Some(trouble) = self.trouble(&error) {
                    self.open(live, &trouble);
                    unserved += 1;
                }
                Err(error.into())
            }
            value => Ok(value),
        });
        let replies = replies.collect();
        if unserved == all { Err(Reason::Connection) } else { Ok(replies) }
    }

    /// Whether an error says that the server cannot serve any request now, and why. All of these were not executed.
    fn trouble(&self, error: &ServerError) -> Option<String> {
        let details = error.details().unwrap_or_default();
        match error.code() {
            "LOADING" | "READONLY" | "MASTERDOWN" | "CLUSTERDOWN" | "NOREPLICAS" | "MISCONF"
            | "BUSY" | "NOAUTH" => Some(format!("{} {details}", error.code())),
            "MOVED" if self.target.as_node().is_none() => {
                Some("it belongs to a cluster: its address begins with redis+cluster://".into())
            }
            "ERR" if is_unknown_command(details) => {
                Some(format!("the module redis-rl is not loaded there: {details}"))
            }
            _ => None,
        }
    }

    /// Opens the breaker, unless the connection is another by now.
    fn open(&self, live: &Arc<Live>, why: &str) {
        let expected = Some(Arc::clone(live));
        let found = self.live.compare_and_swap(&expected, None);
        if found.as_ref().is_some_and(|found| Arc::ptr_eq(found, live)) {
            warn!(server = %self.target, "Redis is away: {why}");
            self.opened.notify_one();
        }
    }

    fn is_in_use(&self, live: &Arc<Live>) -> bool {
        self.live.load().as_ref().is_some_and(|used| Arc::ptr_eq(used, live))
    }

    /// Connects, again and again.
    async fn keep(self: Arc<Self>) {
        let mut pause = SHORTEST_PAUSE;
        let mut told = String::new();
        loop {
            match self.connect().await {
                Ok(live) => {
                    let since = Instant::now();
                    info!(server = %self.target, "connected to Redis");
                    self.live.store(Some(Arc::clone(&live)));
                    self.tried.send_replace(true);
                    told.clear();
                    self.watch(&live).await;
                    if since.elapsed() > LONGEST_PAUSE {
                        pause = SHORTEST_PAUSE;
                    }
                }
                Err(why) => {
                    self.tried.send_replace(true);
                    if told != why {
                        warn!(server = %self.target, "cannot use Redis: {why}");
                        told = why;
                    }
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// A connection that has been tested.
    async fn connect(&self) -> Result<Arc<Live>, String> {
        let gone = Arc::new(Notify::new());
        let connection = timeout(PATIENCE, self.target.connect(Arc::clone(&gone)))
            .await
            .map_err(|_| format!("no connection within {PATIENCE:?}"))?
            .map_err(|error| error.to_string())?;
        let live = Arc::new(Live { batches: Batches::start(connection), gone });
        // Those who may not give themselves a name have none.
        let mut name = redis::cmd("CLIENT");
        name.arg("SETNAME").arg(NAME);
        timeout(PATIENCE, live.batches.send(vec![name]))
            .await
            .map_err(|_| format!("no answer within {PATIENCE:?}"))?
            .map_err(|error| error.to_string())?;
        self.probe(&live).await?;
        Ok(live)
    }

    /// Asks once a second, and returns when the connection is out of use.
    async fn watch(&self, live: &Arc<Live>) {
        while self.is_in_use(live) {
            tokio::select! {
                () = live.gone.notified() => self.open(live, "the connection was closed"),
                () = self.opened.notified() => {}
                () = sleep(PROBE_INTERVAL) => {
                    if let Err(why) = self.probe(live).await {
                        self.open(live, &why);
                    }
                }
            }
        }
    }

    async fn probe(&self, live: &Live) -> Result<(), String> {
        let mut command = redis::cmd("RL.REFUND");
        command.arg(PROBE_KEY).arg(0);
        let replies = timeout(self.timeout, live.batches.send(vec![command]))
            .await
            .map_err(|_| format!("no answer within {:?}", self.timeout))?
            .map_err(|error| error.to_string())?;
        match replies.as_slice() {
            [Value::ServerError(error)] => self.trouble(error).map_or(Ok(()), Err),
            _ => Ok(()),
        }
    }
}

/// A place in the queue, given back however the waiting ends.
struct Place<'a> {
    waiting: &'a AtomicUsize,
    count: usize,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.count, Ordering::Relaxed);
    }
}

/// Whether an error says that there is no such command, of those that the module brings.
fn is_unknown_command(details: &str) -> bool {
    let details = details.to_ascii_lowercase();
    details.contains("unknown command") && details.contains("rl.")
}
