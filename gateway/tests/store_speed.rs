//! How fast the way to the server is. Run by hand, on an optimized build:
//!
//! ```text
//! RL_MODULE=target/release/libredis_rl.so taskset -c 0 cargo test --release -p redis-rl-gateway --test gateway -- --ignored --nocapture store_speed
//! ```

use std::time::{Duration, Instant};

use redis_rl_gateway::redis::Ask;
use tokio::task::JoinSet;

use crate::server::Server;
use crate::store::{ask, store, url};

const SPAN: Duration = Duration::from_secs(4);

#[test]
#[ignore = "a measurement, for an optimized build"]
fn decisions_a_second() {
    let server = Server::builder().under(["taskset", "-c", "1"]).start().unwrap();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.unwrap().block_on(async {
        let store = store(&url(&server), Duration::from_secs(1));
        ask(&store, "RL.PEEK k").await.unwrap().unwrap();
        for tasks in [1, 10, 100, 1000] {
            let start = Instant::now();
            let mut load = JoinSet::new();
            for task in 0..tasks {
                let store = store.clone();
                load.spawn(async move {
                    let (mut count, mut longest) = (0_u64, vec![]);
                    while start.elapsed() < SPAN {
                        let mut command = redis::cmd("RL.MULTI");
                        command
                            .arg(1)
                            .arg(format!("rl:tb:domain:user={}", (task * 31 + count) % 10_000));
                        command.arg("TOKENBUCKET").arg(100).arg("100/1m");
                        let asked = Instant::now();
                        let replies = store.ask(vec![Ask { command, slot: 0 }]).await.unwrap();
                        longest.push(asked.elapsed());
                        assert!(replies.iter().all(Result::is_ok));
                        count += 1;
                    }
                    (count, longest)
                });
            }
            let (mut all, mut times) = (0, vec![]);
            while let Some(task) = load.join_next().await {
                let (count, longest) = task.unwrap();
                all += count;
                times.extend(longest);
            }
            let a_second = u128::from(all) * 1000 / start.elapsed().as_millis();
            times.sort_unstable();
            let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
            println!("{tasks:5} tasks: {a_second:7} decisions a second, p50 {p50:?}, p99 {p99:?}");
        }
    });
}
