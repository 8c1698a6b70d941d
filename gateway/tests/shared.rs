//! Limits that many share, and floods.

use std::time::Instant;

use futures_util::future::join_all;

use crate::asks::{Client, Site, calls, descriptor, given_back, metric, metrics};
use crate::program::Gateway;

const RULES: &str = "
domain: d
descriptors:
  - key: user
    rate_limit: {algorithm: sliding_window, unit: year, requests_per_unit: 1000}
  - key: brief
    rate_limit: {algorithm: token_bucket, unit: second, requests_per_unit: 1, burst: 1}
  - key: path
    rate_limit: {algorithm: token_bucket, unit: year, requests_per_unit: 1000000}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gateways_with_a_hundred_connections_grant_exactly_the_limit() {
    let site = Site::start(RULES).await;
    let second = Gateway::start(&site.server, &site.rules.path(), &[]);
    let mut tasks = Vec::new();
    for connection in 0..100 {
        let gateway = if connection % 2 == 0 { &site.gateway } else { &second };
        let client = Client::connect(gateway).await;
        tasks.push(tokio::spawn(async move {
            let mut granted = 0;
            for _ in 0..20 {
                let asked = [descriptor("user=everybody"), descriptor("path=/")];
                granted += usize::from(client.ask(&asked).await.passes());
            }
            granted
        }));
    }
    let granted: usize = join_all(tasks).await.into_iter().map(Result::unwrap).sum();
    assert_eq!(granted, 1000);
    assert_eq!(crate::asks::used(&site.server, "rl:tb:d:path=%2F"), 1000, "refusals took nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_denials_reaches_the_server_once() {
    let site = Site::start(RULES).await;
    let client = &site.client;
    assert!(client.try_ask(&[descriptor("user=a")], 1000).await.unwrap().passes());
    assert!(!client.ask(&[descriptor("user=a")]).await.passes());
    let before = calls(&site.server, "rl.multi");
    let start = Instant::now();
    for _ in 0..100 {
        let asked = (0..100).map(|_| async {
            // What else the request asks about changes nothing.
            client.ask(&[descriptor("path=/"), descriptor("user=a")]).await
        });
        let answers = join_all(asked).await;
        assert!(answers.iter().all(|answer| !answer.passes() && answer.until_reset(1) > 360 * DAY));
    }
    println!("10000 denials from memory in {:?}", start.elapsed());
    assert_eq!(calls(&site.server, "rl.multi"), before, "the wait is not over");
    let text = metrics(&site.gateway).await;
    assert!(metric(&text, "rl_gateway_remembered_total", &[("rule", "user")]) == 10_000.0);
    assert!(metric(&text, "rl_gateway_over_limit_total", &[("rule", "user")]) == 10_001.0);

    // What is given back is granted at once.
    assert!(client.ask(&[given_back("user=a", 2)]).await.passes());
    assert_eq!(client.granted("user=a", 3).await, [true, true, false]);
}

const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);

#[tokio::test]
async fn each_wait_of_a_flood_costs_the_server_one_question() {
    let site = Site::start(RULES).await;
    let (start, mut denied, mut granted) = (Instant::now(), 0, 0);
    while granted < 4 {
        let passes = site.client.ask(&[descriptor("brief=a")]).await.passes();
        *if passes { &mut granted } else { &mut denied } += 1;
    }
    // For each second a grant and a denial; the machine may have slept through some.
    let seconds = start.elapsed().as_secs() + 1;
    let asked = calls(&site.server, "rl.multi");
    println!("{denied} denials in {seconds} s, {asked} questions");
    assert!(asked <= 2 * seconds + 2 && denied > asked, "{denied} denials, {asked} questions");
}

#[tokio::test]
async fn without_memory_the_server_is_asked_each_time() {
    let site = Site::with(RULES, &["--remember", "0"]).await;
    assert!(site.client.try_ask(&[descriptor("user=a")], 1000).await.unwrap().passes());
    assert_eq!(site.client.granted("user=a", 20).await, [false; 20]);
    assert_eq!(calls(&site.server, "rl.multi"), 21);
}
