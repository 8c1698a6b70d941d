//! Any requests, decided by a plan and a server that counts, whatever the slots: a refused request leaves nothing charged, and
//! a granted one charges everything once.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::select;
use redis::Value;

use super::super::{load, random, style, typed};
use crate::plan::Plan;
use crate::redis::slot;
use crate::request::{Descriptor, Entry, Request};

/// Limits of each mode and kind. In a cluster those of a tenant lie in one slot.
const RULES: &str = "domain: d
hash_tag: [tenant]
descriptors:
  - {key: take, rate_limit: {unit: second, requests_per_unit: 4}}
  - {key: costly, rate_limit: {unit: second, requests_per_unit: 9, cost: 2}}
  - key: tenant
    rate_limit: {unit: second, requests_per_unit: 5}
    descriptors: [{key: take, rate_limit: {unit: second, requests_per_unit: 3}}]
  - {key: look, rate_limit: {unit: second, requests_per_unit: 5, cost: 2}}
  - {key: held, rate_limit: {concurrency: 3, ttl: 60s}}
  - {key: shadow, shadow_mode: true, rate_limit: {unit: second, requests_per_unit: 2}}
  - {key: quota, quota_mode: true, rate_limit: {unit: second, requests_per_unit: 2}}
  - {key: force, rate_limit: {unit: second, requests_per_unit: 2, force: true}}
";

/// What is used of each limiter; of leases, by each. A window that never ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Server {
    used: BTreeMap<String, BTreeMap<String, u64>>,
}

/// One rule of RL.MULTI.
struct Limit {
    key: String,
    most: u64,
    holder: String,
    cost: u64,
}

impl Server {
    fn used(&self, key: &str) -> u64 {
        self.used.get(key).map_or(0, |held| held.values().sum())
    }

    fn take(&mut self, key: &str, holder: &str, cost: u64) {
        *self.used.entry(key.to_owned()).or_default().entry(holder.to_owned()).or_default() += cost;
    }

    fn give(&mut self, key: &str, holder: &str, cost: u64) {
        let left = self
            .used
            .get(key)
            .and_then(|held| held.get(holder))
            .map_or(0, |used| used.saturating_sub(cost));
        if let Some(held) = self.used.get_mut(key) {
            held.insert(holder.to_owned(), left);
            held.retain(|_, used| *used > 0);
        }
        self.used.retain(|_, held| !held.is_empty());
    }

    fn five(&self, key: &str, most: u64, cost: u64) -> Value {
        let remaining = most.saturating_sub(self.used(key));
        super::five([i64::from(cost <= remaining), most as i64, remaining as i64, 0, 0])
    }

    /// Runs a command as the module would, and checks that a cluster would run it.
    fn run(&mut self, command: &str, at: u16) -> Value {
        let words: Vec<_> = command.split(' ').collect();
        match words.as_slice() {
            ["RL.MULTI", count, rest @ ..] => self.multi(count.parse().unwrap(), rest, at),
            ["RL.REFUND", key, units] => {
                self.give(key, "", units.parse().unwrap());
                Value::Nil
            }
            ["RL.RELEASE", key, id] => {
                self.give(key, id, u64::MAX);
                Value::Int(1)
            }
            // The limit of `look`, which alone is looked at.
            ["RL.PEEK", key, "COST", cost] => self.five(key, 5, cost.parse().unwrap()),
            other => panic!("{other:?}"),
        }
    }

    fn multi(&mut self, count: usize, rest: &[&str], at: u16) -> Value {
        let (keys, words) = rest.split_at(count);
        let mut words = words.iter().copied().peekable();
        let mut limits: Vec<Limit> = Vec::new();
        for key in keys {
            assert!(
                count == 1 || at == 0 || slot(key.as_bytes()) == at,
                "{key} is not in slot {at}"
            );
            assert!(limits.iter().all(|other| other.key != **key), "{key} is named twice");
            let algorithm = words.next().unwrap();
            let most = words.next().unwrap().parse().unwrap();
            let (_window, third) = (words.next(), words.next().unwrap());
            let holder = if algorithm == "CONCURRENCY" { third } else { "" };
            let _offset = words.next_if(|_| algorithm == "FIXEDWINDOW");
            let cost =
                words.next_if_eq(&"COST").map_or(1, |_| words.next().unwrap().parse().unwrap());
            limits.push(Limit { key: (*key).into(), most, holder: holder.into(), cost });
        }
        let force = words.next() == Some("FORCE");
        let fits =
            |limit: &Limit| limit.cost == 0 || self.used(&limit.key) + limit.cost <= limit.most;
        let refused = limits.iter().position(|limit| !force && !fits(limit));
        if refused.is_none() {
            for limit in &limits {
                if limit.cost > 0 {
                    self.take(&limit.key, &limit.holder, limit.cost);
                }
            }
        }
        let head = [i64::from(refused.is_none()), 0, refused.map_or(-1, |at| at as i64)];
        let rows = limits.iter().map(|limit| {
            let fits = refused.is_none() || self.used(&limit.key) + limit.cost <= limit.most;
            let remaining = limit.most.saturating_sub(self.used(&limit.key));
            super::five([i64::from(fits), limit.most as i64, remaining as i64, 0, 0])
        });
        Value::Array(head.map(Value::Int).into_iter().chain(rows).collect())
    }
}

/// A request: descriptors as a rule's name, a value and hits, and whether `look` is looked at, `take` given back.
#[derive(Clone, Debug)]
struct Asked {
    rows: Vec<(&'static str, u8, u64)>,
    look: bool,
    give: bool,
}

fn asked() -> impl Strategy<Value = Asked> {
    let names =
        vec!["take", "costly", "tenant", "tenant take", "look", "held", "shadow", "quota", "force"];
    let row = (select(names), 0..3_u8, 1..4_u64);
    (prop::collection::vec(row, 1..8), any::<bool>(), prop::bool::weighted(0.2))
        .prop_map(|(rows, look, give)| Asked { rows, look, give })
}

impl Asked {
    fn request(&self, at: usize) -> Request {
        let descriptor = |&(names, value, hits): &(&str, u8, u64)| {
            let value = if names == "held" { format!("request{at}") } else { value.to_string() };
            let entries =
                names.split(' ').map(|key| Entry { key: key.into(), value: value.clone() });
            Descriptor {
                entries: entries.collect(),
                limit: None,
                hits: match names {
                    "look" if self.look => Some(0),
                    "held" => None,
                    _ => Some(hits),
                },
                negative: self.give && names == "take",
            }
        };
        let mut rows = self.rows.clone();
        let mut leases = 0;
        rows.retain(|row| {
            row.0 != "held" || {
                leases += 1;
                leases == 1
            }
        });
        Request {
            domain: "d".into(),
            descriptors: rows.iter().map(descriptor).collect(),
            hits: None,
        }
    }

    /// What becomes of the request, said again without slots and rounds: whether it is refused, and what is used then.
    fn expected(&self, plan: &Plan, request: &Request, before: &Server) -> (bool, Server) {
        let mut after = before.clone();
        let (mut takes, mut quotas, mut refused) = (Vec::new(), Vec::new(), false);
        for (row, descriptor) in plan.rows.iter().zip(&request.descriptors) {
            let (limit, key, cost) = (row.limit.as_ref().unwrap(), &*row.key, row.cost);
            let fits = after.used(key) + cost <= limit.requests;
            let first = &descriptor.entries[0];
            match &*first.key {
                "shadow" | "quota" | "force" => {
                    if fits || first.key == "force" {
                        after.take(key, "", cost);
                    }
                    if first.key == "quota" {
                        quotas.push(fits);
                    }
                }
                "look" if self.look => refused |= after.used(key) + limit.cost > limit.requests,
                "take" if self.give => after.give(key, "", cost),
                "held" => takes.push((key, &*first.value, cost, limit.requests)),
                _ => takes.push((key, "", cost, limit.requests)),
            }
        }
        let mut taken = after.clone();
        for (key, holder, cost, _) in &takes {
            taken.take(key, holder, *cost);
        }
        refused |= takes.iter().any(|(key, _, _, most)| taken.used(key) > *most);
        refused |= quotas.contains(&false) && !quotas.contains(&true);
        (refused, if refused { after } else { taken })
    }
}

#[test]
fn a_refused_request_leaves_nothing_charged_and_a_granted_one_charges_everything_once() {
    let rules = load(RULES).unwrap();
    let requests = prop::collection::vec(asked(), 1..8);
    random(1024, &(requests, any::<bool>()), |(all, cluster)| {
        let mut server = Server::default();
        for (at, asked) in all.iter().enumerate() {
            let request = asked.request(at);
            let mut plan =
                Plan::new(&request, Some(rules.only().unwrap()), &style(cluster)).unwrap();
            let (refused, after) = asked.expected(&plan, &request, &server);
            let mut rounds = 0;
            loop {
                let asks = plan.next();
                if asks.is_empty() {
                    break;
                }
                let run = |ask: &crate::redis::Ask| {
                    Ok(server.run(&typed(&ask.command), if cluster { ask.slot } else { 0 }))
                };
                let replies: Vec<_> = asks.iter().map(run).collect();
                plan.read(replies).unwrap();
                rounds += 1;
            }
            assert_eq!(plan.refused(), refused, "request {at}");
            assert_eq!(server, after, "after request {at}");
            assert!(cluster || rounds <= 2, "{rounds} rounds on one server");
        }
    });
}
