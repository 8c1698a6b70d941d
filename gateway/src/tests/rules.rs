//! Which rule a descriptor meets: envoyproxy/ratelimit's own examples, and what its documentation says of each.

use super::{descriptor, hold, load, request, style, typed};
use crate::plan::{Action, Plan};
use crate::rules::{Mode, Rule, Rules};

/// A file's text, and pairs of a descriptor and the rule that it meets, as its label and its limit.
type Example = (&'static str, &'static [(&'static str, &'static str)]);

macro_rules! example {
    ($name:literal) => {
        include_str!(concat!("../../tests/envoy/", $name, ".yaml"))
    };
}

const NONE: &str = "no rule";

const EXAMPLES: &[Example] = &[
    (
        example!("databases"),
        &[
            ("database=users", "database_users: FIXEDWINDOW 500 1s ALIGN 0"),
            ("database=default", "database_default: FIXEDWINDOW 500 1s ALIGN 0"),
            ("database=other", NONE),
            ("database=Users", NONE),
            ("databases=users", NONE),
        ],
    ),
    (
        example!("messages"),
        &[
            (
                "message_type=marketing to_number=2061111111",
                "message_type_marketing.to_number: FIXEDWINDOW 5 1d ALIGN 0",
            ),
            ("to_number=2061111111", "to_number: FIXEDWINDOW 100 1d ALIGN 0"),
            ("message_type=marketing", NONE),
            ("message_type=other to_number=2061111111", NONE),
        ],
    ),
    (
        example!("addresses"),
        &[
            ("remote_address=50.0.0.1", "remote_address: FIXEDWINDOW 10 1s ALIGN 0"),
            ("remote_address=50.0.0.5", "remote_address_50.0.0.5: FIXEDWINDOW 0 1s ALIGN 0"),
        ],
    ),
    (
        example!("depth"),
        &[
            ("key=value", "key_value: FIXEDWINDOW 300 1s ALIGN 0"),
            ("key=value subkey=subvalue", NONE),
            ("key=nested subkey=subvalue", "key_nested.subkey: FIXEDWINDOW 300 1s ALIGN 0"),
            ("key=nested", NONE),
            ("key=nested subkey=subvalue subsubkey=x", NONE),
            ("", NONE),
        ],
    ),
    (
        example!("unlimited"),
        &[
            ("ldap=any", "ldap: unlimited"),
            ("azure=any", "azure: FIXEDWINDOW 100 1m ALIGN 0"),
            ("other=any", NONE),
        ],
    ),
    (
        example!("shadow_mode"),
        &[
            (
                "service=auth-service user=user-a",
                "service.user_user-a: FIXEDWINDOW 10 1s ALIGN 0, Shadow",
            ),
            ("service=auth-service user=user-b", "service.user_user-b: FIXEDWINDOW 20 1s ALIGN 0"),
            ("service=auth-service user=user-c", NONE),
        ],
    ),
    (
        example!("detailed_metric"),
        &[
            ("key1=unspecified_value", "key1_unspecified_value: FIXEDWINDOW 10 1m ALIGN 0"),
            ("key1=unspecified_value2", "key1_unspecified_value2: FIXEDWINDOW 10 1m ALIGN 0"),
            ("key1=value1", "key1_value1: FIXEDWINDOW 20 1m ALIGN 0"),
        ],
    ),
    (
        example!("wildcards"),
        &[
            ("key1=value1", "key1_value*: FIXEDWINDOW 20 1m ALIGN 0"),
            ("key1=valueXYZ", "key1_value*: FIXEDWINDOW 20 1m ALIGN 0"),
            ("key1=value", "key1_value*: FIXEDWINDOW 20 1m ALIGN 0"),
            ("key1=valu", NONE),
            ("path=/api/123/action", "path_/api/*/action: FIXEDWINDOW 20 1m ALIGN 0"),
            ("path=/api/user-id/action", "path_/api/*/action: FIXEDWINDOW 20 1m ALIGN 0"),
            ("path=/api/123/other", NONE),
            ("path=/api/action", NONE),
            (
                "route=/api/v1/resource/123/action",
                "route_/api/*/resource/*/action: FIXEDWINDOW 20 1m ALIGN 0",
            ),
            ("route=/api/v1/resource/action", NONE),
            ("route=/api/v1/resources/123/action", NONE),
        ],
    ),
    (
        example!("value_to_metric"),
        &[
            (
                "route=api http_method=GET subject_id=123",
                "route_api.http_method_GET.subject_id: FIXEDWINDOW 60 1m ALIGN 0",
            ),
            (
                "route=web http_method=POST subject_id=456",
                "route_web.http_method_POST.subject_id: FIXEDWINDOW 60 1m ALIGN 0",
            ),
            (
                "user=alice action=readfile resource=documents",
                "user_alice.action_readfile.resource: FIXEDWINDOW 100 1m ALIGN 0",
            ),
        ],
    ),
    (
        example!("share_threshold"),
        &[
            ("files=files/a.pdf", "files_files/*: FIXEDWINDOW 10 1h ALIGN 0"),
            (
                "files_no_share=files_no_share/a.pdf",
                "files_no_share_files_no_share/*: FIXEDWINDOW 10 1h ALIGN 0",
            ),
            // Not the values of the request: they are one limiter.
            ("route=api/v1 method=GET", "route_api/*.method: FIXEDWINDOW 60 1m ALIGN 0"),
        ],
    ),
];

/// The label and the limit of the rule that this descriptor meets.
fn met(rules: &Rules, entries: &str) -> String {
    let descriptor = descriptor(entries);
    rules.only().unwrap().find(&descriptor).map_or_else(
        || NONE.to_owned(),
        |found| format!("{}: {}", found.label(&descriptor), told(found.rule)),
    )
}

fn told(rule: &Rule) -> String {
    let mut text = rule.limit.as_ref().map_or_else(
        || "unlimited".to_owned(),
        |limit| {
            let mut command = redis::Cmd::new();
            limit.words(&mut command, limit.cost, b"LEASE");
            typed(&command)
        },
    );
    if rule.mode != Mode::Enforced {
        text.push_str(&format!(", {:?}", rule.mode));
    }
    if rule.force {
        text.push_str(", force");
    }
    text
}

fn meet(rules: &Rules, rows: &[(&str, &str)]) {
    let rows = rows.iter().map(|&(entries, expected)| (entries, expected, met(rules, entries)));
    hold(
        rows.filter(|(_, expected, found)| found != expected)
            .map(|(entries, expected, found)| format!("{entries}: {found}, not {expected}"))
            .collect(),
    );
}

#[test]
fn examples_of_envoyproxy_ratelimit_match_as_its_documentation_says() {
    for (text, rows) in EXAMPLES {
        meet(&load(text).unwrap(), rows);
    }
}

/// What each descriptor of a request asks for, and under which key.
fn asked(rules: &Rules, descriptors: &str) -> Vec<(Action, String)> {
    let plan = Plan::new(&request(descriptors), Some(rules.only().unwrap()), &style(false));
    plan.unwrap().rows.into_iter().map(|row| (row.action, row.key)).collect()
}

#[test]
fn a_rule_that_replaces_another_one_takes_its_place_in_a_request_that_meets_both() {
    let rules = load(example!("replaces")).unwrap();
    let (first, second) =
        ("key_1=value_1 user=bkthomps".to_owned(), "key_2=value_2 user=bkthomps".to_owned());
    let actions = |descriptors: &str| -> Vec<Action> {
        asked(&rules, descriptors).into_iter().map(|(action, _)| action).collect()
    };
    assert_eq!(actions(&first), [Action::Take], "alone the specific limit holds");
    assert_eq!(actions(&second), [Action::Take]);
    assert_eq!(actions(&format!("{first} + {second}")), [Action::Pass, Action::Take]);
    assert_eq!(actions(&format!("{second} + {first}")), [Action::Take, Action::Pass]);
}

#[test]
fn values_that_share_a_threshold_are_one_limiter() {
    let rules = load(example!("share_threshold")).unwrap();
    for (one, other, shared) in [
        ("files=files/a.pdf", "files=files/b.csv", true),
        ("files_no_share=files_no_share/a.pdf", "files_no_share=files_no_share/b.pdf", false),
        ("route=api/v1 method=GET", "route=api/v2 method=GET", true),
        ("route=api/v1 method=GET", "route=api/v1 method=PUT", false),
    ] {
        let equal = asked(&rules, one) == asked(&rules, other);
        assert_eq!(equal, shared, "{one} and {other}");
    }
}

#[test]
fn the_exact_value_goes_before_patterns_and_these_before_any_value() {
    let rules = load(
        "domain: d
descriptors:
  - {key: k, rate_limit: {unit: second, requests_per_unit: 1}}
  - {key: k, value: 'a*', rate_limit: {unit: second, requests_per_unit: 2}}
  - {key: k, value: 'ab*', rate_limit: {unit: second, requests_per_unit: 3}}
  - {key: k, value: '*z', rate_limit: {unit: second, requests_per_unit: 4}}
  - {key: k, value: abc, rate_limit: {unit: second, requests_per_unit: 5}}
  - {key: k, value: x, descriptors: [{key: l, rate_limit: {unit: hour, requests_per_unit: 6}}]}
",
    )
    .unwrap();
    meet(
        &rules,
        &[
            ("k=abc", "k_abc: FIXEDWINDOW 5 1s ALIGN 0"),
            // Among patterns the first of the file.
            ("k=abd", "k_a*: FIXEDWINDOW 2 1s ALIGN 0"),
            ("k=az", "k_a*: FIXEDWINDOW 2 1s ALIGN 0"),
            ("k=bz", "k_*z: FIXEDWINDOW 4 1s ALIGN 0"),
            ("k=b", "k: FIXEDWINDOW 1 1s ALIGN 0"),
            ("k=", "k: FIXEDWINDOW 1 1s ALIGN 0"),
            // There is no way back from what was taken.
            ("k=x", NONE),
            ("k=x l=1", "k_x.l: FIXEDWINDOW 6 1h ALIGN 0"),
            ("k=abc l=1", NONE),
        ],
    );
}

#[test]
fn a_star_stands_for_any_number_of_characters() {
    for (pattern, value, matches) in [
        ("*", "", true),
        ("*", "anything", true),
        ("**", "", true),
        ("a*", "a", true),
        ("a*", "ba", false),
        ("*a", "ba", true),
        ("*a", "ab", false),
        ("a*a", "a", false),
        ("a*a", "aa", true),
        ("ab*ba", "aba", false),
        ("a*b*c", "abc", true),
        ("a*b*c", "a1b2c", true),
        ("a*b*c", "acb", false),
        ("a**c", "abc", true),
        ("*b*", "abc", true),
        ("*b*", "ac", false),
        ("*ab*ab*", "abab", true),
        ("*ab*ab*", "aab", false),
        ("*aab*", "aaab", true),
        ("*é*", "cafés", true),
        ("a*", "A", false),
        ("a.c*", "abc", false),
    ] {
        let text = format!(
            "{{domain: d, descriptors: [{{key: k, value: '{pattern}', rate_limit: {{unlimited: true}}}}]}}"
        );
        let found =
            load(&text).unwrap().only().unwrap().find(&descriptor(&format!("k={value}"))).is_some();
        assert_eq!(found, matches, "{pattern} and {value:?}");
    }
}

/// Labels are seen in metrics, and in header fields as the names of policies.
#[test]
fn a_secret_stands_in_no_label() {
    let rules = load(
        "domain: d
descriptors:
  - key: token
    secret: true
    detailed_metric: true
    value_to_metric: true
    rate_limit: {unit: second, requests_per_unit: 1}
    descriptors:
      - {key: path, detailed_metric: true, rate_limit: {unit: second, requests_per_unit: 2}}
  - {key: token, value: a, secret: true, rate_limit: {unit: second, requests_per_unit: 3}}
  - {key: token, value: 'sk-*', secret: true, detailed_metric: true, rate_limit: {unit: second, requests_per_unit: 4}}
",
    )
    .unwrap();
    let of_a = "token_sha256-ca978112ca1bbdcafac231b39a23dc4d: FIXEDWINDOW 3 1s ALIGN 0";
    meet(
        &rules,
        &[
            ("token=123", "token: FIXEDWINDOW 1 1s ALIGN 0"),
            ("token=123 path=/x", "token.path_/x: FIXEDWINDOW 2 1s ALIGN 0"),
            ("token=a", of_a),
            ("token=sk-live-1", "token_sk-*: FIXEDWINDOW 4 1s ALIGN 0"),
        ],
    );
    let found = descriptor("token=a");
    let policy = rules.only().unwrap().find(&found).unwrap().rule.policy.clone();
    assert_eq!(policy, "token_sha256-ca978112ca1bbdcafac231b39a23dc4d");
}

#[test]
fn a_label_has_the_beginning_of_a_long_value() {
    let rules = load(
        "{domain: d, descriptors: [{key: k, detailed_metric: true, rate_limit: {unlimited: true}}]}",
    )
    .unwrap();
    let [exact, long, short] = ["x".repeat(64), "x".repeat(60_000), "x".repeat(63)];
    for (value, shown) in [
        (exact.clone(), &exact),
        (long, &exact),
        (format!("{short}é"), &short),
        (format!("{}é", &short[1..]), &format!("{}é", &short[1..])),
    ] {
        let descriptor = descriptor(&format!("k={value}"));
        let label = rules.only().unwrap().find(&descriptor).unwrap().label(&descriptor);
        assert_eq!(label, format!("k_{shown}"));
    }
}

/// The limit of a rule with these keys in its `rate_limit`, and these beside its key.
fn rule(limit: &str, beside: &str) -> String {
    let text = format!("domain: d\ndescriptors:\n  - key: k\n{beside}    rate_limit: {limit}\n");
    load(&text).map_or_else(
        |problem| problem,
        |rules| told(rules.only().unwrap().find(&descriptor("k=v")).unwrap().rule),
    )
}

#[test]
fn keys_of_ours_become_the_modules_words() {
    let rows = [
        ("{unit: minute, requests_per_unit: 5}", "FIXEDWINDOW 5 1m ALIGN 0"),
        ("{unit: MINUTE, requests_per_unit: 5}", "FIXEDWINDOW 5 1m ALIGN 0"),
        ("{unit: week, requests_per_unit: 5}", "FIXEDWINDOW 5 7d ALIGN 0"),
        ("{unit: month, requests_per_unit: 5}", "FIXEDWINDOW 5 30d ALIGN 0"),
        ("{unit: year, requests_per_unit: 5}", "FIXEDWINDOW 5 365d ALIGN 0"),
        ("{unit: minute}", "FIXEDWINDOW 0 1m ALIGN 0"),
        ("{unit: day, requests_per_unit: 5, offset: -8h}", "FIXEDWINDOW 5 1d ALIGN -28800"),
        ("{unit: day, requests_per_unit: 5, offset: 1d}", "FIXEDWINDOW 5 1d ALIGN 86400"),
        ("{unit: day, requests_per_unit: 5, offset: 30}", "FIXEDWINDOW 5 1d ALIGN 30"),
        ("{unit: hour, requests_per_unit: 5, algorithm: token_bucket}", "TOKENBUCKET 5 5/1h"),
        (
            "{unit: hour, requests_per_unit: 5, algorithm: token_bucket, burst: 9}",
            "TOKENBUCKET 9 5/1h",
        ),
        (
            "{unit: hour, requests_per_unit: 0, algorithm: token_bucket, burst: 9}",
            "TOKENBUCKET 0 1/1h",
        ),
        (
            "{unit: second, requests_per_unit: 1000000000, algorithm: token_bucket}",
            "TOKENBUCKET 1000000000 1000000000/1s",
        ),
        (
            "{unit: second, requests_per_unit: 500, algorithm: leaky_bucket, burst: 2}",
            "LEAKYBUCKET 2 500/1s",
        ),
        ("{unit: hour, requests_per_unit: 5, algorithm: sliding_window}", "SLIDING 5 1h"),
        (
            "{unit: hour, requests_per_unit: 5, algorithm: sliding_window, buckets: 1024}",
            "SLIDING 5 1h BUCKETS 1024",
        ),
        ("{unit: hour, requests_per_unit: 5, algorithm: sliding_log}", "SLIDINGLOG 5 1h"),
        ("{unit: hour, requests_per_unit: 5, algorithm: fixed_window}", "FIXEDWINDOW 5 1h ALIGN 0"),
        ("{unit: hour, requests_per_unit: 50, cost: 10}", "FIXEDWINDOW 50 1h ALIGN 0 COST 10"),
        (
            "{unit: hour, requests_per_unit: 5, block: 10m}",
            "FIXEDWINDOW 5 1h ALIGN 0 BLOCK 600000000us AFTER 1",
        ),
        (
            "{unit: hour, requests_per_unit: 5, block: 600}",
            "FIXEDWINDOW 5 1h ALIGN 0 BLOCK 600000000us AFTER 1",
        ),
        (
            "{unit: hour, requests_per_unit: 5, block: {duration: 1ms}}",
            "FIXEDWINDOW 5 1h ALIGN 0 BLOCK 1000us AFTER 1",
        ),
        (
            "{unit: hour, requests_per_unit: 5, block: {duration: 600, after: 5}}",
            "FIXEDWINDOW 5 1h ALIGN 0 BLOCK 600000000us AFTER 5",
        ),
        ("{unit: hour, requests_per_unit: 5, force: true}", "FIXEDWINDOW 5 1h ALIGN 0, force"),
        ("{concurrency: 3, ttl: 60s}", "CONCURRENCY 3 60000000us LEASE"),
        (
            "{concurrency: 3, ttl: 60, cost: 2, algorithm: concurrency}",
            "CONCURRENCY 3 60000000us LEASE COST 2",
        ),
        ("{concurrency: 0, ttl: 3650d}", "CONCURRENCY 0 315360000000000us LEASE"),
        ("{unlimited: true}", "unlimited"),
        ("{unlimited: true, requests_per_unit: 5, name: n}", "unlimited"),
    ];
    hold(
        rows.iter()
            .map(|&(limit, expected)| (limit, expected, rule(limit, "")))
            .filter(|(_, expected, found)| found != expected)
            .map(|(limit, expected, found)| format!("{limit}: {found}, not {expected}"))
            .collect(),
    );
    assert_eq!(
        rule("{unit: day, requests_per_unit: 5}", "    quota_mode: true\n"),
        "FIXEDWINDOW 5 1d ALIGN 0, Quota"
    );
}

#[test]
fn what_does_not_go_together_is_refused_with_its_place_and_a_reason() {
    let rows = [
        (
            "{unit: fortnight, requests_per_unit: 5}",
            "unit is second, minute, hour, day, week, month or year, not \"fortnight\"",
        ),
        (
            "{unit: unknown, requests_per_unit: 5}",
            "unit is second, minute, hour, day, week, month or year, not \"unknown\"",
        ),
        (
            "{requests_per_unit: 5}",
            "a limit needs a unit: second, minute, hour, day, week, month or year",
        ),
        ("{}", "a limit needs a unit: second, minute, hour, day, week, month or year"),
        ("{unlimited: true, unit: second}", "an unlimited rule has no unit"),
        (
            "{unlimited: true, burst: 5}",
            "an unlimited rule has no limit: it goes only with name and replaces",
        ),
        (
            "{unlimited: true, concurrency: 5, ttl: 1s}",
            "an unlimited rule has no limit: it goes only with name and replaces",
        ),
        (
            "{unlimited: true, block: 1s}",
            "an unlimited rule has no limit: it goes only with name and replaces",
        ),
        ("{unlimited: true, force: true}", "force goes with a limit that counts over time"),
        (
            "{unit: second, requests_per_unit: 1000000000001}",
            "requests_per_unit is 1000000000001, and at most 1000000000000",
        ),
        (
            "{unit: second, requests_per_unit: 5, burst: 5}",
            "burst goes only with token_bucket and leaky_bucket",
        ),
        (
            "{unit: second, requests_per_unit: 5, algorithm: sliding_log, burst: 5}",
            "burst goes only with token_bucket and leaky_bucket",
        ),
        (
            "{unit: second, requests_per_unit: 5, algorithm: token_bucket, burst: 1000000000001}",
            "burst is 1000000000001, and at most 1000000000000",
        ),
        (
            "{unit: second, requests_per_unit: 1000000001, algorithm: token_bucket}",
            "a bucket refills by at most 1000000000 a second",
        ),
        (
            "{unit: minute, requests_per_unit: 60000000001, algorithm: leaky_bucket}",
            "a bucket refills by at most 1000000000 a second",
        ),
        (
            "{unit: second, requests_per_unit: 5, cost: 0}",
            "cost is from 1: a rule that takes nothing limits nothing",
        ),
        (
            "{unit: second, requests_per_unit: 5, cost: 1000000000001}",
            "cost is 1000000000001, and at most 1000000000000",
        ),
        (
            "{unit: second, requests_per_unit: 5, algorithm: token_bucket, offset: 1h}",
            "offset goes only with fixed_window",
        ),
        (
            "{unit: second, requests_per_unit: 5, offset: 25h}",
            "offset is whole seconds from -1d to 1d",
        ),
        (
            "{unit: second, requests_per_unit: 5, offset: 500ms}",
            "offset is whole seconds from -1d to 1d",
        ),
        (
            "{unit: second, requests_per_unit: 5, offset: --1h}",
            "a duration is a whole number with a unit, like 500ms, 60s, 10m, 12h or 7d, at most 3650d, not \"-1h\"",
        ),
        (
            "{unit: second, requests_per_unit: 5, buckets: 5}",
            "buckets goes only with sliding_window",
        ),
        (
            "{unit: second, requests_per_unit: 5, algorithm: sliding_window, buckets: 0}",
            "buckets is from 1 to 1024",
        ),
        (
            "{unit: second, requests_per_unit: 5, algorithm: sliding_window, buckets: 70000}",
            "buckets is from 1 to 1024",
        ),
        (
            "{unit: second, requests_per_unit: 10000001, algorithm: sliding_log}",
            "requests_per_unit of a sliding_log is 10000001, and at most 10000000",
        ),
        (
            "{unit: second, requests_per_unit: 5, block: soon}",
            "a duration is a whole number with a unit, like 500ms, 60s, 10m, 12h or 7d, at most 3650d, not \"soon\"",
        ),
        (
            "{unit: second, requests_per_unit: 5, block: ''}",
            "a duration is a whole number with a unit, like 500ms, 60s, 10m, 12h or 7d, at most 3650d, not \"\"",
        ),
        (
            "{unit: second, requests_per_unit: 5, block: 1.5s}",
            "a duration is a whole number with a unit, like 500ms, 60s, 10m, 12h or 7d, at most 3650d, not \"1.5s\"",
        ),
        (
            "{unit: second, requests_per_unit: 5, block: 3651d}",
            "a duration is a whole number with a unit, like 500ms, 60s, 10m, 12h or 7d, at most 3650d, not \"3651d\"",
        ),
        (
            "{unit: second, requests_per_unit: 5, block: 99999999999999999999d}",
            "a duration is a whole number with a unit, like 500ms, 60s, 10m, 12h or 7d, at most 3650d, not \"99999999999999999999d\"",
        ),
        (
            "{unit: second, requests_per_unit: 5, block: 0s}",
            "block's duration is from 1ms to 3650d",
        ),
        (
            "{unit: second, requests_per_unit: 5, block: {duration: 1s, after: 0}}",
            "block's after is from 1 to 1000000",
        ),
        (
            "{unit: second, requests_per_unit: 5, block: {duration: 1s, after: 5000000000}}",
            "block's after is from 1 to 1000000",
        ),
        ("{unit: second, requests_per_unit: 5, ttl: 1s}", "ttl goes only with concurrency"),
        (
            "{concurrency: 5}",
            "concurrency needs ttl: how long a lease lasts if nobody gives it back",
        ),
        ("{concurrency: 5, ttl: 0}", "ttl is from 1ms to 3650d"),
        (
            "{algorithm: concurrency, ttl: 1s}",
            "the algorithm concurrency needs concurrency: the most leases",
        ),
        (
            "{concurrency: 5, ttl: 1s, unit: second}",
            "leases have no unit: say concurrency, the most that are held at the same time, and ttl",
        ),
        (
            "{concurrency: 5, ttl: 1s, requests_per_unit: 5}",
            "leases have no unit: say concurrency, the most that are held at the same time, and ttl",
        ),
        (
            "{concurrency: 5, ttl: 1s, algorithm: token_bucket}",
            "a rule has concurrency, or an algorithm that counts over time",
        ),
        (
            "{concurrency: 5, ttl: 1s, burst: 5}",
            "burst goes only with token_bucket and leaky_bucket",
        ),
        (
            "{concurrency: 5, ttl: 1s, block: 5s}",
            "block goes only with the algorithms that count over time",
        ),
        ("{concurrency: 5, ttl: 1s, force: true}", "force goes with a limit that counts over time"),
        ("{unit: second, name: a, replaces: [{name: a}]}", "a rule cannot replace itself"),
        ("{unit: second, replaces: [{name: ''}]}", "replaces has an entry without a name"),
        (
            "{unit: second, name: 'ä'}",
            "the name stands in header fields: printable ASCII alone, not \"ä\"",
        ),
    ];
    hold(
        rows.iter()
            .map(|&(limit, reason)| (limit, format!("rules.yaml:4:17: {reason}"), rule(limit, "")))
            .filter(|(_, expected, found)| found != expected)
            .map(|(limit, expected, found)| format!("{limit}: {found}\n    not {expected}"))
            .collect(),
    );
}

#[test]
fn what_stands_beside_a_rule_is_checked_too() {
    let limit = "{unit: second, requests_per_unit: 5}";
    for (limit, beside, reason) in [
        (
            limit,
            "    share_threshold: true\n",
            "rules.yaml:3:10: share_threshold goes with a value that holds *",
        ),
        (
            limit,
            "    value: v\n    share_threshold: true\n",
            "rules.yaml:3:10: share_threshold goes with a value that holds *",
        ),
        (
            limit,
            "    shadow_mode: true\n    quota_mode: true\n",
            "rules.yaml:3:10: a rule has shadow_mode or quota_mode, not both",
        ),
        (
            "{unit: second, force: true}",
            "    shadow_mode: true\n",
            "rules.yaml:5:17: force does not go with shadow_mode or quota_mode",
        ),
        (
            "{unit: second, force: true}",
            "    quota_mode: true\n",
            "rules.yaml:5:17: force does not go with shadow_mode or quota_mode",
        ),
    ] {
        assert_eq!(rule(limit, beside), reason);
    }
}
