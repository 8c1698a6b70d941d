//! The labels of rules in metrics: what values of requests can make of them.

use metrics_exporter_prometheus::PrometheusBuilder;

use super::{request, style};
use crate::metrics::{MOST_DETAILED, Meters};
use crate::plan::Plan;
use crate::rules::{Options, Rules};
use crate::service::Outcome;

const RULES: &str = "domain: DOMAIN
descriptors:
  - {key: user, detailed_metric: true, rate_limit: {unit: second, requests_per_unit: 5}}
  - {key: path, rate_limit: {unit: second, requests_per_unit: 5}, descriptors: [{key: late, rate_limit: {unlimited: true}}]}
";

fn count(meters: &Meters, rules: &Rules, domain: &str, descriptor: &str) {
    let found = rules.domain(domain).map(|domain| &**domain);
    let rows = Plan::new(&request(descriptor), found, &style(false)).unwrap().rows;
    meters.decided(domain, &Outcome { refused: false, shadowed: false, rows }, 80);
}

fn hits(text: &str, domain: &str, rule: &str) -> Option<u64> {
    let series = format!("rl_gateway_hits_total{{domain=\"{domain}\",rule=\"{rule}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok())
}

#[test]
fn values_that_are_made_up_push_no_rule_out() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let meters = Meters::default();
    let files = ["d", "e"].map(|name| (name.to_owned(), RULES.replace("DOMAIN", name)));
    let rules = Rules::load(&files, &Options::default()).unwrap();
    meters.register(&rules);
    let text = || recorder.handle().render();
    assert_eq!(
        hits(&text(), "d", "path.late"),
        Some(0),
        "a rule is there before a request meets it"
    );

    for value in 0..MOST_DETAILED {
        count(&meters, &rules, "d", &format!("user={value}"));
    }
    assert_eq!(hits(&text(), "d", "other"), None);
    count(&meters, &rules, "d", "user=one-more");
    count(&meters, &rules, "d", "user=0");
    // The bound is that of all domains together.
    count(&meters, &rules, "e", "user=0");
    count(&meters, &rules, "e", "user=1");
    count(&meters, &rules, "d", "path=/x late=y");
    count(&meters, &rules, "e", "path=/x");
    let text = text();
    for (domain, rule, expected) in [
        ("d", "user_0", Some(2)),
        ("d", "user_1", Some(1)),
        ("d", "other", Some(1)),
        ("d", "user_one-more", None),
        ("d", "path.late", Some(1)),
        ("e", "user_0", None),
        ("e", "other", Some(2)),
        ("e", "path", Some(1)),
    ] {
        assert_eq!(hits(&text, domain, rule), expected, "{domain} {rule}");
    }
}
