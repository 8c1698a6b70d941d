//! The server's side: it reads limits and windows as it does for everybody, and decides on every request.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use redis::{Cmd, Connection, RedisError, Value};

use crate::log::{Request, Traffic};
use crate::server::{self, Server};

const WEEK: u64 = 7 * 24 * 60 * 60;
/// How far in the future the first request must lie: longer than a replay takes.
const MARGIN: u64 = 60 * 60;
/// How many requests are sent before their answers are read.
const BATCH: usize = 1_000;

/// A server of its own.
pub struct Limiter {
    connection: Connection,
    _server: Server,
}

/// A sliding window, as the server read it.
pub struct Window<'a> {
    /// As it was written.
    pub text: &'a str,
    pub micros: u64,
    /// In how many parts RL.SLIDING divides it.
    pub buckets: u64,
}

impl Limiter {
    pub fn start() -> Result<Self> {
        let builder = Server::builder().virtual_clock().setting("rl.max-log-entries 10000000");
        let server = builder.start()?;
        Ok(Self { connection: server.connection()?, _server: server })
    }

    /// Asks the server whether these are limits, before a long log is read.
    pub fn check(&mut self, limits: &[&str]) -> Result<()> {
        refuse_leases(limits)?;
        let text = limits.join("; ");
        match self.probe(&command(limits, "probe", probe_time()?)) {
            Ok(Value::Array(_)) => self.forget(),
            Ok(_) => bail!("'{text}' is no limit"),
            Err(reason) => bail!("'{text}' is no limit: {reason}"),
        }
    }

    /// Asks the server how long a window is.
    pub fn window<'a>(&mut self, text: &'a str) -> Result<Window<'a>> {
        let at = probe_time()?;
        let mut grant = redis::cmd("RL.SLIDING");
        grant.arg("probe").arg(1).arg(text).arg("AT").arg(at);
        if let Err(reason) = self.probe(&grant) {
            bail!("'{text}' is no window: {reason}");
        }
        let info: Vec<Value> =
            redis::cmd("RL.INFO").arg("probe").arg("AT").arg(at).query(&mut self.connection)?;
        let field = |name: &str| {
            let value = info.chunks(2).find_map(|pair| match pair {
                [Value::BulkString(key), Value::Int(value)] if key == name.as_bytes() => {
                    u64::try_from(*value).ok()
                }
                _ => None,
            });
            value.with_context(|| format!("RL.INFO has no {name}"))
        };
        let window = Window { text, micros: field("window_us")?, buckets: field("buckets")? };
        self.forget()?;
        Ok(window)
    }

    /// Sends all requests, each at its time, and reports each with whether it was granted.
    pub fn send(
        &mut self,
        limits: &[&str],
        traffic: &Traffic,
        mut report: impl FnMut(Request, bool),
    ) -> Result<()> {
        let first = u64::from(traffic.span().0);
        let weeks = (now()? + MARGIN).saturating_sub(first).div_ceil(WEEK);
        let style = "{wide_bar} {human_pos} of {human_len} requests, {eta} left";
        let progress = ProgressBar::new(traffic.requests.len() as u64) // hidden where there is no terminal
            .with_style(ProgressStyle::with_template(style)?);
        for batch in traffic.requests.chunks(BATCH) {
            let mut pipeline = redis::pipe();
            for &Request { time, client } in batch {
                let micros = (u64::from(time) + weeks * WEEK) * 1_000_000;
                pipeline.add_command(command(limits, traffic.client(client), micros));
            }
            let replies: Vec<Value> = pipeline.query(&mut self.connection)?;
            for (&request, reply) in batch.iter().zip(replies) {
                let granted =
                    matches!(&reply, Value::Array(items) if items.first() == Some(&Value::Int(1)));
                report(request, granted);
            }
            progress.inc(batch.len() as u64);
        }
        progress.finish_and_clear();
        Ok(())
    }

    /// What BLOCK did, if a limit has one: how many blocks began, and how many requests were denied by one.
    pub fn blocks(&mut self, limits: &[&str]) -> Result<Option<[u64; 2]>> {
        let words = limits.iter().flat_map(|limit| limit.split_whitespace());
        if !words.into_iter().any(|word| word.eq_ignore_ascii_case("BLOCK")) {
            return Ok(None);
        }
        let info = server::info(&mut self.connection, "rl_stats")?;
        let count = |name| -> Result<u64> {
            let value = server::field(&info, name);
            Ok(value.with_context(|| format!("INFO has no {name}"))?.parse()?)
        };
        Ok(Some([count("rl_blocks_begun")?, count("rl_denied_by_block")?]))
    }

    /// Sends what may be refused; the reason if it is.
    fn probe(&mut self, command: &Cmd) -> Result<Value, String> {
        let reason =
            |error: RedisError| error.detail().unwrap_or("the server does not answer").to_owned();
        command.query(&mut self.connection).map_err(reason)
    }

    fn forget(&mut self) -> Result<()> {
        Ok(redis::cmd("FLUSHALL").query(&mut self.connection)?)
    }
}

/// The command that decides on one request: the server reads the limits, as it does for everybody.
fn command(limits: &[&str], client: &str, micros: u64) -> Cmd {
    let mut command = redis::cmd("RL.MULTI");
    command.arg(limits.len());
    for number in 0..limits.len() {
        command.arg(format!("{{{client}}}:{number}"));
    }
    for word in limits.iter().flat_map(|limit| limit.split_whitespace()) {
        command.arg(word);
    }
    command.arg("AT").arg(micros);
    command
}

/// A lease lasts as long as its request, and a log does not say how long that was.
fn refuse_leases(limits: &[&str]) -> Result<()> {
    let is_leases = |limit: &&&str| limit.to_ascii_uppercase().starts_with("CONCURRENCY");
    if let Some(limit) = limits.iter().find(is_leases) {
        bail!(
            "'{limit}' cannot be replayed: a lease needs the duration of each request, and an access \
             log has none"
        );
    }
    Ok(())
}

fn probe_time() -> Result<u64> {
    Ok((now()? + MARGIN) * 1_000_000)
}

fn now() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}
