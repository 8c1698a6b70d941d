//! Denials that are answered from memory, and what must not be answered from there.

use envoy_types::pb::envoy::r#type::v3::RateLimitUnit;
use futures_util::future::join;

use crate::asks::{Site, calls, descriptor, given_back, hits, limited};
use crate::store::until;

const RULES: &str = "
domain: d
descriptors:
  - key: user
    rate_limit: {unit: year, requests_per_unit: 1}
  - key: bucket
    rate_limit: {algorithm: token_bucket, unit: minute, requests_per_unit: 60, burst: 100}
  - key: closed
    rate_limit: {unit: year, requests_per_unit: 0}
";

#[tokio::test]
async fn a_limit_that_has_changed_is_asked_about() {
    let site = Site::start(RULES).await;
    assert_eq!(site.client.granted("user=a", 2).await, [true, false]);
    site.rules.change(&RULES.replacen("requests_per_unit: 1}", "requests_per_unit: 5}", 1));
    until("the new limit", async || site.client.ask(&[descriptor("user=b")]).await.limit() == 5)
        .await;
    assert_eq!(site.client.granted("user=a", 5).await, [true, true, true, true, false]);
    // Whoever has bought a larger plan need not wait for what the smaller one said.
    let plan = async |requests| {
        let descriptors = [limited("plan=a", requests, RateLimitUnit::Year)];
        site.client.ask(&descriptors).await.passes()
    };
    assert!(plan(1).await && !plan(1).await && plan(10).await);
}

#[tokio::test]
async fn the_wait_is_that_of_the_cost() {
    let site = Site::start(RULES).await;
    assert!(site.client.ask(&[hits("bucket=a", 90)]).await.passes());
    let wait = async |cost| {
        let answer = site.client.ask(&[hits("bucket=a", cost)]).await;
        assert!(!answer.passes());
        answer.field("Retry-After").parse::<u64>().unwrap()
    };
    let (cheap, dear) = (wait(20).await, wait(70).await);
    assert!(cheap <= 10 && (55..=60).contains(&dear), "{cheap} s for 20 units, {dear} s for 70");
    let before = calls(&site.server, "rl.multi");
    assert!(wait(70).await <= dear);
    assert_eq!(calls(&site.server, "rl.multi"), before, "the same cost is remembered");
}

#[tokio::test]
async fn it_is_asked_again_after_a_time() {
    let site = Site::with(RULES, &["--remember-for", "300ms"]).await;
    assert_eq!(site.client.granted("user=a", 2).await, [true, false]);
    let mut server = site.server.connection().unwrap();
    redis::cmd("RL.RESET").arg("rl:fw:d:user=a").exec(&mut server).unwrap();
    until("the reset to be seen", async || site.client.ask(&[descriptor("user=a")]).await.passes())
        .await;
}

/// The other request takes the one unit for a moment, is refused for its other limit, and gives it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denial_for_what_was_given_back_meanwhile_is_not_remembered() {
    let site = Site::start(RULES).await;
    let mut denied = 0;
    for user in 0..200 {
        let one = [descriptor(&format!("user={user}"))];
        let both = [one[0].clone(), hits("closed=x", 0)];
        let (refused, asked) = join(site.client.ask(&both), site.client.ask(&one)).await;
        assert!(!refused.passes());
        if !asked.passes() {
            denied += 1;
            assert!(site.client.ask(&one).await.passes(), "user {user}: nothing is used");
        }
    }
    println!("{denied} of 200 were denied for the moment");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denial_that_is_overtaken_by_a_refund_is_not_remembered() {
    let site = Site::start(RULES).await;
    let mut denied = 0;
    for user in 0..200 {
        let entries = format!("user={user}");
        let one = [descriptor(&entries)];
        assert!(site.client.ask(&one).await.passes());
        let refund = [given_back(&entries, 1)];
        let (_, asked) = join(site.client.ask(&refund), site.client.ask(&one)).await;
        if !asked.passes() {
            denied += 1;
            assert!(site.client.ask(&one).await.passes(), "user {user}: it was given back");
        }
    }
    println!("{denied} of 200 were denied before the refund");
}
