//! Rules in a cluster: those of one slot are one command, those of several are all or nothing.

use crate::asks::{Answer, Client, Rules, calls, descriptor, hits};
use crate::cluster::Cluster;
use crate::program::Gateway;
use crate::server::Server;
use crate::store::until;

const RULES: &str = "
domain: d
hash_tag: [user]
descriptors:
  - key: user
    rate_limit: {unit: year, requests_per_unit: 10}
    descriptors:
      - key: path
        rate_limit: {unit: year, requests_per_unit: 3}
  - key: address
    rate_limit: {unit: year, requests_per_unit: 5}
  - key: pool
    descriptors:
      - key: lease
        rate_limit: {concurrency: 2, ttl: 60s}
";

struct Site {
    cluster: Cluster,
    gateway: Gateway,
    client: Client,
    _rules: Rules,
}

impl Site {
    async fn start() -> Self {
        let (cluster, rules) = (Cluster::start().await, Rules::new(RULES));
        let gateway = Gateway::at(&cluster.url(), &rules.path(), &["--on-outage", "closed"]);
        let client = Client::connect(&gateway).await;
        until("the cluster to be asked", async || {
            client.try_ask(&[hits("user=x", 0), hits("address=y", 0)], 0).await.is_ok()
        })
        .await;
        Self { cluster, gateway, client, _rules: rules }
    }

    fn owner(&self, key: &str) -> &Server {
        &self.cluster.0[Cluster::owner(key)]
    }

    fn used(&self, key: &str) -> u64 {
        crate::asks::used(self.owner(key), key)
    }

    fn calls(&self, command: &str) -> u64 {
        self.cluster.0.iter().map(|server| calls(server, command)).sum()
    }
}

/// A value of this key whose limiter another server has than that of `user=a`.
fn elsewhere(kind: &str, from: usize) -> String {
    let here = Cluster::owner("rl:fw:d:{user=a}:user=a");
    let mut values = (from..).map(|value| format!("v{value}"));
    values.find(|value| Cluster::owner(&format!("rl:{kind}={value}")) != here).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_of_one_slot_are_one_command() {
    let site = Site::start().await;
    let before = site.calls("rl.multi");
    let both = [descriptor("user=a"), descriptor("user=a path=/x")];
    for remaining in [2, 1, 0] {
        assert_eq!(site.client.ask(&both).await.rows()[1], (true, remaining));
    }
    assert!(!site.client.ask(&both).await.passes());
    assert_eq!(site.calls("rl.multi") - before, 4);
    assert_eq!(site.used("rl:fw:d:{user=a}:user=a"), 3, "the refusal took nothing");
    assert_eq!(site.used("rl:fw:d:{user=a}:user=a:path=%2Fx"), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_of_several_slots_are_all_or_nothing() {
    let site = Site::start().await;
    let address = elsewhere("fw:d:address", 0);
    let descriptors = |user: &str| {
        [descriptor(&format!("user={user}")), descriptor(&format!("address={address}"))]
    };
    let address_key = format!("rl:fw:d:address={address}");
    let user_key = "rl:fw:d:{user=a}:user=a";
    for round in 1..=5 {
        let answer: Answer = site.client.ask(&descriptors("a")).await;
        assert_eq!(answer.rows(), [(true, 10 - round), (true, 5 - round)]);
    }
    // The first slot grants, the second refuses, the first gets it back.
    let answer = site.client.ask(&descriptors("a")).await;
    assert_eq!((answer.passes(), answer.rows()[1]), (false, (false, 0)));
    assert_eq!((site.used(user_key), site.used(&address_key)), (5, 5));
    // Nor does the order matter, or what else is asked beside.
    let mut reversed = descriptors("a");
    reversed.reverse();
    assert!(!site.client.ask(&reversed).await.passes());
    assert!(!site.client.ask(&descriptors("fresh")).await.passes());
    assert_eq!(site.used("rl:fw:d:{user=fresh}:user=fresh"), 0);
    let looked = [descriptor("user=a"), hits(&format!("address={address}"), 0)];
    assert!(!site.client.ask(&looked).await.passes());
    assert_eq!((site.used(user_key), site.used(&address_key)), (5, 5));

    // A lease, too, is given back.
    let lease = [descriptor("pool=p lease=l"), descriptor(&format!("address={address}"))];
    assert!(!site.client.ask(&lease).await.passes());
    let both = [descriptor("pool=p lease=m"), descriptor("user=a")];
    let answer = site.client.ask(&both).await;
    assert_eq!((answer.passes(), answer.rows()), (true, vec![(true, 1), (true, 4)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_get_exactly_the_limit_of_several_slots() {
    let site = Site::start().await;
    let address = elsewhere("fw:d:address", 100);
    let tasks = (0..50).map(|_| {
        let client = site.client.clone();
        let all = [descriptor("user=a"), descriptor(&format!("address={address}"))];
        tokio::spawn(async move { client.ask(&all).await.passes() })
    });
    let tasks: Vec<_> = tasks.collect();
    let mut granted = 0;
    for task in tasks {
        granted += u64::from(task.await.unwrap());
    }
    // For a moment the first slot counts requests that the second refuses: so fewer may be granted, never more.
    assert!((1..=5).contains(&granted), "{granted}");
    assert_eq!(site.used(&format!("rl:fw:d:address={address}")), granted);
    assert_eq!(site.used("rl:fw:d:{user=a}:user=a"), granted, "nothing stays charged");
    assert!(site.gateway.log().contains("connected to Redis"));
}
