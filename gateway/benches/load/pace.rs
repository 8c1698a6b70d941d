//! Latency at a given rate. A request's time begins when it is due, whether it could be sent then or not: one that has to wait for
//! others has been slow.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::Value;
use redis::aio::MultiplexedConnection;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::load::Load;
use crate::server::Server;

/// Requests are due together, a few at a time: to wake up for each would keep the server's core busy.
const TICK: Duration = Duration::from_micros(200);

/// Latencies of a run, sorted.
#[derive(Clone, Debug)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    pub fn percentile(&self, percent: usize) -> Duration {
        let at = (self.0.len() * percent / 100).min(self.0.len().saturating_sub(1));
        self.0.get(at).copied().unwrap_or_default()
    }
}

/// Of the gateway.
pub async fn gateway(load: &Load<'_>, rate: f64, time: Duration) -> Result<Latencies> {
    paced(rate, time, |number| load.ask(number)).await
}

/// Of the server, asked what the gateway asks of it.
pub async fn server(server: &Server, rate: f64, time: Duration, users: usize) -> Result<Latencies> {
    let client = redis::Client::open(("127.0.0.1", server.port()))?;
    let connection = client.get_multiplexed_async_connection().await?;
    paced(rate, time, |number| ask(connection.clone(), number % users)).await
}

async fn ask(mut connection: MultiplexedConnection, user: usize) -> Result<()> {
    let mut command = redis::cmd("RL.MULTI");
    command
        .arg(1)
        .arg(format!("rl:tb:direct:user={user}"))
        .arg("TOKENBUCKET")
        .arg(1_000_000)
        .arg("1000000/1s");
    let reply: Vec<Value> = command.query_async(&mut connection).await?;
    ensure!(reply.first() == Some(&Value::Int(1)), "the server says {reply:?}");
    Ok(())
}

async fn paced<F: Future<Output = Result<()>>>(
    rate: f64,
    time: Duration,
    ask: impl Fn(usize) -> F,
) -> Result<Latencies> {
    let mut clock = clock(rate, time);
    let mut under_way = FuturesUnordered::new();
    let mut latencies = Vec::new();
    let (mut number, mut ticks) = (0, true);
    while ticks || !under_way.is_empty() {
        tokio::select! {
            biased;
            due = clock.recv(), if ticks => match due {
                Some(due) => {
                    let answer = ask(number);
                    under_way.push(async move { answer.await.map(|()| due.elapsed()) });
                    number += 1;
                }
                None => ticks = false,
            },
            Some(latency) = under_way.next(), if !under_way.is_empty() => latencies.push(latency?),
        }
    }
    latencies.sort();
    ensure!(!latencies.is_empty(), "too little time to measure anything");
    Ok(Latencies(latencies))
}

/// Says when requests are due. A thread of its own, since the runtime's timer counts milliseconds.
fn clock(rate: f64, time: Duration) -> UnboundedReceiver<Instant> {
    let (sender, receiver) = unbounded_channel();
    std::thread::spawn(move || {
        let start = Instant::now();
        let mut sent = 0.0;
        while start.elapsed() < time {
            std::thread::sleep(TICK);
            let now = Instant::now();
            while sent < (now - start).as_secs_f64() * rate {
                if sender.send(now).is_err() {
                    return;
                }
                sent += 1.0;
            }
        }
    });
    receiver
}
