//! The examples of envoyproxy/ratelimit's documentation, as they are: which request is limited, after how many.

use crate::asks::{Client, Site, descriptor, hits, metric, metrics};
use crate::store::until;

macro_rules! example {
    ($name:literal, $domain:literal) => {{
        let site = Site::start(include_str!(concat!("envoy/", $name, ".yaml"))).await;
        let client = site.client.domain($domain);
        (site, client)
    }};
}

/// So many pass in one window, and one more does not. Windows are those of the clock: if one ends in between, the next is tried.
async fn allows(client: &Client, entries: &str, limit: u64) {
    until("a request above the limit", async || {
        client.ask(&[hits(entries, limit)]).await.passes()
            && !client.ask(&[descriptor(entries)]).await.passes()
    })
    .await;
    // Whatever the time, no window has room for one more.
    assert!(!client.ask(&[hits(entries, limit + 1)]).await.passes(), "{entries}");
}

async fn allows_any_number(client: &Client, entries: &str) {
    let answer = client.ask(&[hits(entries, 1_000_000)]).await;
    assert!(answer.passes() && answer.status(0).current_limit.is_none(), "{entries}: {answer:?}");
}

#[tokio::test]
async fn databases_have_500_requests_a_second_each() {
    let (_site, client) = example!("databases", "mongo_cps");
    allows(&client, "database=users", 500).await;
    allows(&client, "database=default", 500).await;
    allows_any_number(&client, "database=other").await;
}

#[tokio::test]
async fn a_number_gets_five_marketing_messages_a_day_and_a_hundred_of_all_kinds() {
    let (_site, client) = example!("messages", "messaging");
    allows(&client, "message_type=marketing to_number=2061111111", 5).await;
    allows(&client, "to_number=2061111111", 100).await;
    allows(&client, "message_type=marketing to_number=2062222222", 5).await;
    allows_any_number(&client, "message_type=marketing").await;
    // As the proxy asks: both limits must grant.
    let both = |number: &str| {
        ["message_type=marketing to_number=", "to_number="]
            .map(|entries| descriptor(&format!("{entries}{number}")))
    };
    for at in 0..6 {
        assert_eq!(client.ask(&both("2063333333")).await.passes(), at < 5, "{at}");
    }
    assert!(client.ask(&[hits("to_number=2063333333", 95)]).await.passes());
}

#[tokio::test]
async fn an_address_has_ten_requests_a_second_and_one_has_none() {
    let (_site, client) = example!("addresses", "edge_proxy_per_ip");
    allows(&client, "remote_address=50.0.0.1", 10).await;
    assert_eq!(client.granted("remote_address=50.0.0.5", 2).await, [false; 2]);
}

#[tokio::test]
async fn a_rule_limits_descriptors_of_its_own_depth_only() {
    let (_site, client) = example!("depth", "example4");
    allows(&client, "key=value", 300).await;
    allows(&client, "key=nested subkey=subvalue", 300).await;
    for other in ["key=value subkey=subvalue", "key=nested", "key=nested subkey=subvalue a=b"] {
        allows_any_number(&client, other).await;
    }
}

#[tokio::test]
async fn ldap_is_unlimited_and_azure_has_a_hundred_requests_a_minute() {
    let (_site, client) = example!("unlimited", "internal");
    allows(&client, "azure=any", 100).await;
    allows_any_number(&client, "ldap=any").await;
}

#[tokio::test]
async fn user_b_has_twenty_requests_a_second_and_user_a_passes_above_ten() {
    let (site, client) = example!("shadow_mode", "example6");
    allows(&client, "service=auth-service user=user-b", 20).await;
    let above = client.ask(&[hits("service=auth-service user=user-a", 11)]).await;
    assert!(above.passes());
    let text = metrics(&site.gateway).await;
    let shadow = |rule| metric(&text, "rl_gateway_shadow_total", &[("rule", rule)]) as u64;
    assert_eq!(shadow("service.user_user-a"), 11, "{text}");
    assert_eq!(shadow("service.user_user-b"), 0);
    allows_any_number(&client, "service=auth-service user=user-c").await;
}

#[tokio::test]
async fn of_two_rules_the_one_that_replaces_the_other_holds() {
    let (_site, client) = example!("replaces", "example7");
    let (first, second) = ("key_1=value_1 user=bkthomps", "key_2=value_2 user=bkthomps");
    allows(&client, first, 5).await;
    allows(&client, second, 10).await;
    // Ten of both are more than the first alone allows.
    until("ten requests in one second", async || {
        client.ask(&[hits(first, 10), hits(second, 10)]).await.passes()
    })
    .await;
    assert!(!client.ask(&[hits(first, 11), hits(second, 11)]).await.passes());
}

#[tokio::test]
async fn detailed_metrics_show_each_value_and_limits_hold_for_each() {
    let (site, client) = example!("detailed_metric", "example8");
    allows(&client, "key1=unspecified_value", 10).await;
    allows(&client, "key1=unspecified_value2", 10).await;
    allows(&client, "key1=value1", 20).await;
    let text = metrics(&site.gateway).await;
    for rule in ["key1_unspecified_value", "key1_unspecified_value2", "key1_value1"] {
        assert!(metric(&text, "rl_gateway_over_limit_total", &[("rule", rule)]) > 0.0, "{text}");
    }
}

#[tokio::test]
async fn each_value_that_a_wildcard_matches_has_twenty_requests_a_minute() {
    let (_site, client) = example!("wildcards", "example9");
    for entries in [
        "key1=value1",
        "key1=value2",
        "path=/api/123/action",
        "path=/api/456/action",
        "route=/api/v1/resource/123/action",
    ] {
        allows(&client, entries, 20).await;
    }
    for other in ["key1=valu", "path=/api/123/other", "route=/api/v1/resources/123/action"] {
        allows_any_number(&client, other).await;
    }
}

#[tokio::test]
async fn values_become_metrics_where_the_entry_says_so() {
    let (site, client) = example!("value_to_metric", "example10");
    allows(&client, "route=api http_method=GET subject_id=123", 60).await;
    allows(&client, "route=api http_method=GET subject_id=456", 60).await;
    allows(&client, "user=alice action=readfile resource=documents", 100).await;
    let text = metrics(&site.gateway).await;
    let rules = ["route_api.http_method_GET.subject_id", "user_alice.action_readfile.resource"];
    for rule in rules {
        assert!(metric(&text, "rl_gateway_over_limit_total", &[("rule", rule)]) > 0.0, "{text}");
    }
}

#[tokio::test]
async fn files_share_ten_requests_an_hour_if_their_rule_says_so() {
    let (_site, client) = example!("share_threshold", "example11");
    let at_once = [hits("files=files/a.pdf", 6), hits("files=files/b.csv", 4)];
    until("ten of all files", async || client.ask(&at_once).await.passes()).await;
    allows_any_number(&client, "files=other/c.txt").await;
    let above = [hits("files=files/c.txt", 6), hits("files=files/d.txt", 5)];
    assert!(!client.ask(&above).await.passes());
    allows(&client, "files_no_share=files_no_share/a.pdf", 10).await;
    allows(&client, "files_no_share=files_no_share/b.pdf", 10).await;
    allows(&client, "route=api/v1 method=GET", 60).await;
    let above = [hits("route=api/v1 method=PUT", 30), hits("route=api/v2 method=PUT", 31)];
    assert!(!client.ask(&above).await.passes());
    allows(&client, "route=api/v2 method=PUT", 60).await;
}
