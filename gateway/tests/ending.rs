//! The program is asked to end: what was begun is finished, and nothing that was accepted is lost.

use std::fs::OpenOptions;
use std::process::Command;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::asks::{Client, Site, calls, channel, descriptor, used};
use crate::program::Gateway;
use crate::server::patience;
use crate::store::until;

const RULES: &str = "
domain: d
check: {user: {header: x-user}}
descriptors:
  - key: user
    rate_limit: {unit: year, requests_per_unit: 100000000}
  - key: slow
    rate_limit: {algorithm: leaky_bucket, unit: minute, requests_per_unit: 15, burst: 100}
  - key: method
    value: PUT
    rate_limit: {algorithm: leaky_bucket, unit: minute, requests_per_unit: 15, burst: 100}
";

async fn until_ended(gateway: &mut Gateway) -> Option<i32> {
    let mut ended = None;
    until("the program to end", async || {
        ended = gateway.ended();
        ended.is_some()
    })
    .await;
    ended.unwrap().code()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_that_was_accepted_is_lost() {
    for name in ["-TERM", "-INT"] {
        let mut site = Site::with(RULES, &["--longest-turn", "100s"]).await;
        let mut tasks = JoinSet::new();
        for task in 0..20 {
            let client = Client::connect(&site.gateway).await;
            let url = format!("http://127.0.0.1:{}/check", site.gateway.http);
            // Until there is nobody any more. What the server counted is what was told to pass.
            tasks.spawn(async move {
                let mut passed = 0;
                let http = reqwest::Client::new();
                loop {
                    let passes = if task % 2 == 0 {
                        let answer = client.try_ask(&[descriptor("user=a")], 0).await;
                        answer.map(|answer| answer.passes()).ok()
                    } else {
                        let answer = http.get(&url).header("x-user", "a").send().await;
                        answer.map(|answer| answer.status() == 200).ok()
                    };
                    match passes {
                        Some(passes) => passed += u64::from(passes),
                        None => return passed,
                    }
                }
            });
        }
        until("some requests", async || used(&site.server, "rl:fw:d:user=a") > 1000).await;
        site.gateway.signal(name);
        let mut passed = 0;
        while let Some(task) = tasks.join_next().await {
            passed += task.unwrap();
        }
        assert_eq!(until_ended(&mut site.gateway).await, Some(0), "{}", site.gateway.log());
        let counted = used(&site.server, "rl:fw:d:user=a");
        println!("{counted} counted, {passed} told so, after {name}");
        assert_eq!(passed, counted, "of those that the server counted, some were not told");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_its_turn_is_answered_and_health_turns_first() {
    let mut site = Site::with(RULES, &["--longest-turn", "100s", "--drain", "10m"]).await;
    let mut health = HealthClient::new(channel(&site.gateway).await);
    let service = "envoy.service.ratelimit.v3.RateLimitService".into();
    let service = health.watch(HealthCheckRequest { service }).await;
    let mut service = service.unwrap().into_inner();
    assert_eq!(service.next().await.unwrap().unwrap().status(), ServingStatus::Serving);
    // The third comes after eight seconds, by gRPC and by HTTP.
    let mut tasks = JoinSet::new();
    for _ in 0..3 {
        let client = site.client.clone();
        tasks.spawn(async move { client.ask(&[descriptor("slow=a")]).await.passes() });
        let url = format!("http://127.0.0.1:{}/check", site.gateway.http);
        tasks.spawn(async move {
            reqwest::Client::new().put(url).send().await.unwrap().status() == 200
        });
    }
    until("them to be asked", async || calls(&site.server, "rl.multi") == 6).await;
    site.gateway.signal("-TERM");
    let turned = timeout(patience(), service.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(turned.status(), ServingStatus::NotServing);
    drop(service);
    assert!(site.gateway.ended().is_none(), "it waits for the others");
    // Nobody new is let in.
    until("the listener to close", async || {
        tokio::net::TcpStream::connect(("127.0.0.1", site.gateway.http)).await.is_err()
    })
    .await;
    while let Some(passed) = tasks.join_next().await {
        assert!(passed.unwrap());
    }
    // Long before the drain is over.
    assert_eq!(until_ended(&mut site.gateway).await, Some(0), "{}", site.gateway.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_that_cannot_be_read_just_now_holds_no_end_up() {
    let mut site = Site::start(RULES).await;
    let pipe = site.rules.folder().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    std::fs::rename(&pipe, site.rules.path()).unwrap();
    let path = site.rules.path();
    // Comes when the gateway reads, which then waits for a text.
    let opened =
        tokio::task::spawn_blocking(move || OpenOptions::new().write(true).open(path)).await;
    site.gateway.signal("-TERM");
    assert_eq!(until_ended(&mut site.gateway).await, Some(0), "{}", site.gateway.log());
    drop(opened);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_takes_too_long_is_cut_off() {
    let mut site = Site::with(RULES, &["--longest-turn", "100s", "--drain", "500ms"]).await;
    let (client, held) = (site.client.clone(), 20);
    let mut tasks = JoinSet::new();
    for _ in 0..held {
        let client = client.clone();
        tasks.spawn(async move { client.try_ask(&[descriptor("slow=a")], 0).await.is_ok() });
    }
    until("them to be asked", async || calls(&site.server, "rl.multi") == held).await;
    let start = Instant::now();
    site.gateway.signal("-TERM");
    assert_eq!(until_ended(&mut site.gateway).await, Some(0));
    assert!(start.elapsed() >= Duration::from_millis(490), "{:?}", start.elapsed());
    assert!(site.gateway.log().contains("cut off"), "{}", site.gateway.log());
}
