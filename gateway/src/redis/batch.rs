//! Batches: whatever waits at the same time is sent as one pipeline, in one write.
//!
//! ```text
//! requests ──> queue ──> [one batch] [one batch] ... ──> the connection ──> replies to each
//! ```
//!
//! Nobody waits for a batch to fill up. It takes in what the tasks ask for that are ready to run at that moment, and leaves:
//! with nobody else there, after a microsecond. The next batch does not wait for the replies to the last.

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, Pipeline, RedisResult, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinSet, yield_now};

/// Most requests of one batch, so that its first reply does not come too late.
const LARGEST: usize = 256;

/// A connection that takes batches. It ends with this.
pub(super) struct Batches {
    queue: mpsc::UnboundedSender<Request>,
}

struct Request {
    commands: Vec<Cmd>,
    replies: oneshot::Sender<RedisResult<Vec<Value>>>,
}

impl Batches {
    pub(super) fn start(connection: MultiplexedConnection) -> Self {
        let (queue, requests) = mpsc::unbounded_channel();
        tokio::spawn(send_all(requests, connection));
        Self { queue }
    }

    /// Sends commands one after the other, and waits for the reply of each.
    pub(super) async fn send(&self, commands: Vec<Cmd>) -> RedisResult<Vec<Value>> {
        let (replies, reply) = oneshot::channel();
        self.queue.send(Request { commands, replies }).map_err(|_| ended())?;
        reply.await.map_err(|_| ended())?
    }
}

async fn send_all(mut queue: mpsc::UnboundedReceiver<Request>, connection: MultiplexedConnection) {
    // When nobody waits any more, what is still under way ends with this task, and so does the connection.
    let mut under_way = JoinSet::new();
    let mut batch = Vec::with_capacity(LARGEST);
    while queue.recv_many(&mut batch, LARGEST).await > 0 {
        yield_now().await;
        while batch.len() < LARGEST
            && let Ok(request) = queue.try_recv()
        {
            batch.push(request);
        }
        let requests = std::mem::replace(&mut batch, Vec::with_capacity(LARGEST));
        under_way.spawn(send(requests, connection.clone()));
        while under_way.try_join_next().is_some() {}
    }
}

async fn send(requests: Vec<Request>, mut connection: MultiplexedConnection) {
    let mut pipeline = Pipeline::with_capacity(requests.len());
    let mut waiting = Vec::with_capacity(requests.len());
    // Those who have given up while they waited ask no more.
    for request in requests.into_iter().filter(|request| !request.replies.is_closed()) {
        waiting.push((request.commands.len(), request.replies));
        for command in request.commands {
            pipeline.add_command(command);
        }
    }
    let count = pipeline.len();
    match connection.send_packed_commands(&pipeline, 0, count).await {
        Ok(values) => {
            let mut values = values.into_iter();
            for (count, replies) in waiting {
                let _ = replies.send(Ok(values.by_ref().take(count).collect()));
            }
        }
        Err(error) => {
            for (_, replies) in waiting {
                let _ = replies.send(Err(error.clone()));
            }
        }
    }
}

fn ended() -> redis::RedisError {
    (ErrorKind::Io, "the connection has ended").into()
}
