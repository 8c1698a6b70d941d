//! The commands that a request becomes, and what their replies mean; then any requests against a simple model of the server.

use redis::Value;

use super::{hold, load, request, style, typed};
use crate::decision::Verdict;
use crate::plan::{Action, Invalid, MOST_DESCRIPTORS, MOST_ENTRIES, Plan, Wrong};
use crate::redis::slot;
use crate::request::{Descriptor, Entry, Override, Request, Unit};
use crate::rules::Rules;

mod model;

const RULES: &str = "domain: d
hash_tag: [t]
descriptors:
  - key: a
    rate_limit: {unit: second, requests_per_unit: 5}
    descriptors:
      - {key: t, rate_limit: {unit: second, requests_per_unit: 5}}
  - {key: b, rate_limit: {unit: minute, requests_per_unit: 50, cost: 10}}
  - {key: t, rate_limit: {unit: hour, requests_per_unit: 5, algorithm: token_bucket, burst: 9, block: 1m}}
  - {key: never, rate_limit: {unit: second, requests_per_unit: 0}}
  - {key: free, rate_limit: {unlimited: true}}
  - {key: shadow, shadow_mode: true, rate_limit: {unit: second, requests_per_unit: 5}}
  - {key: quota, quota_mode: true, rate_limit: {unit: second, requests_per_unit: 5}}
  - {key: tokens, rate_limit: {unit: second, requests_per_unit: 5, force: true}}
  - {key: leases, rate_limit: {concurrency: 3, ttl: 60s, cost: 2}}
  - {key: jobs, rate_limit: {concurrency: 3, ttl: 60s}}
  - {key: new, rate_limit: {unit: second, requests_per_unit: 5, replaces: [{name: old}]}}
  - {key: old, rate_limit: {unit: second, requests_per_unit: 5, name: old}}
";

/// Descriptors, separated by `+`, with `!3` for hits, `!-` for negative hits, `!5/minute` for a limit that it brings along.
fn read(text: &str) -> Request {
    let mut all = Request { descriptors: Vec::new(), ..request("") };
    for text in text.split('+') {
        let (marks, entries): (Vec<_>, Vec<_>) =
            text.split(' ').filter(|word| !word.is_empty()).partition(|word| word.starts_with('!'));
        let mut descriptor = super::descriptor(&entries.join(" "));
        for mark in marks.into_iter().map(|mark| mark.trim_start_matches('!')) {
            if mark == "-" {
                descriptor.negative = true;
            } else if let Some((requests, unit)) = mark.split_once('/') {
                let requests_per_unit = requests.parse().unwrap();
                descriptor.limit =
                    Some(Override { requests_per_unit, unit: Unit::parse(unit).unwrap() });
            } else {
                descriptor.hits = Some(mark.parse().unwrap());
            }
        }
        all.descriptors.push(descriptor);
    }
    all
}

fn rules() -> Rules {
    load(RULES).unwrap()
}

fn plan_of(request: &Request, cluster: bool) -> Result<Plan, Invalid> {
    Plan::new(request, Some(rules().only().unwrap()), &style(cluster))
}

fn plan(text: &str, cluster: bool) -> Plan {
    plan_of(&read(text), cluster).unwrap()
}

/// The commands of the next round.
fn round(plan: &Plan) -> Vec<String> {
    plan.next().iter().map(|ask| typed(&ask.command)).collect()
}

fn five(numbers: [i64; 5]) -> Value {
    Value::Array(numbers.map(Value::Int).to_vec())
}

/// What RL.MULTI replies if these are its limits' rows.
fn multi(rows: &[[i64; 5]]) -> Value {
    let refused = rows.iter().position(|row| row[0] == 0);
    let head = [
        i64::from(refused.is_none()),
        rows.iter().map(|row| row[3]).max().unwrap_or(0),
        refused.map_or(-1, |at| at.try_into().unwrap()),
    ];
    Value::Array(
        head.map(Value::Int).into_iter().chain(rows.iter().map(|row| five(*row))).collect(),
    )
}

const YES: [i64; 5] = [1, 5, 4, 0, 1000];
const NO: [i64; 5] = [0, 5, 0, 700, 1000];

fn verdict([allowed, limit, remaining, wait, reset]: [i64; 5]) -> Option<Verdict> {
    Some(Verdict {
        allowed: allowed == 1,
        limit: limit.try_into().unwrap(),
        remaining: remaining.try_into().unwrap(),
        wait_ms: wait.try_into().ok(),
        reset_ms: reset.try_into().unwrap(),
    })
}

fn answer(plan: &mut Plan, replies: Vec<Value>) {
    plan.read(replies.into_iter().map(Ok).collect()).unwrap();
}

#[test]
fn each_kind_of_row_has_its_commands() {
    let rows: &[(&str, &[&str])] = &[
        ("a=1", &["RL.MULTI 1 rl:fw:d:a=1 FIXEDWINDOW 5 1s ALIGN 0"]),
        ("a=1 !3", &["RL.MULTI 1 rl:fw:d:a=1 FIXEDWINDOW 5 1s ALIGN 0 COST 3"]),
        ("b=1 !3", &["RL.MULTI 1 rl:fw:d:b=1 FIXEDWINDOW 50 1m ALIGN 0 COST 30"]),
        // All that may refuse is one decision, and what is the same limiter is asked once.
        (
            "a=1 + t=1 + never=1",
            &["RL.MULTI 3 rl:fw:d:a=1 rl:tb:d:{t=1}:t=1 rl:fw:d:never=1 FIXEDWINDOW 5 1s ALIGN 0 \
               TOKENBUCKET 9 5/1h BLOCK 60000000us AFTER 1 FIXEDWINDOW 0 1s ALIGN 0"],
        ),
        (
            "a=1 + a=2 + a=1 !2",
            &[
                "RL.MULTI 2 rl:fw:d:a=1 rl:fw:d:a=2 FIXEDWINDOW 5 1s ALIGN 0 COST 3 FIXEDWINDOW 5 1s ALIGN 0",
            ],
        ),
        // What meets no limit asks nothing.
        ("free=1 + unknown=1 + a=1 b=1", &[]),
        ("new=1 + old=1", &["RL.MULTI 1 rl:fw:d:new=1 FIXEDWINDOW 5 1s ALIGN 0"]),
        // Beside it, in the same round: what decides nothing for others.
        (
            "shadow=1 + a=1 + quota=1 + tokens=1 !9",
            &[
                "RL.MULTI 1 rl:fw:d:a=1 FIXEDWINDOW 5 1s ALIGN 0",
                "RL.MULTI 1 rl:fw:d:shadow=1 FIXEDWINDOW 5 1s ALIGN 0",
                "RL.MULTI 1 rl:fw:d:quota=1 FIXEDWINDOW 5 1s ALIGN 0",
                "RL.MULTI 1 rl:fw:d:tokens=1 FIXEDWINDOW 5 1s ALIGN 0 COST 9 FORCE",
            ],
        ),
        // Looks: a hit of b takes 10 units.
        (
            "a=1 !0",
            &["RL.MULTI 1 rl:fw:d:a=1 FIXEDWINDOW 5 1s ALIGN 0 COST 0", "RL.PEEK rl:fw:d:a=1"],
        ),
        (
            "b=1 !0",
            &[
                "RL.MULTI 1 rl:fw:d:b=1 FIXEDWINDOW 50 1m ALIGN 0 COST 0",
                "RL.PEEK rl:fw:d:b=1 COST 10",
            ],
        ),
        (
            "tokens=1 !0",
            &[
                "RL.MULTI 1 rl:fw:d:tokens=1 FIXEDWINDOW 5 1s ALIGN 0 COST 0",
                "RL.PEEK rl:fw:d:tokens=1",
            ],
        ),
        ("leases=1 !0", &["RL.PEEK rl:cc:d:leases COST 2"]),
        // What is given back.
        ("a=1 !-", &["RL.REFUND rl:fw:d:a=1 1"]),
        ("b=1 !- !3", &["RL.REFUND rl:fw:d:b=1 30"]),
        ("shadow=1 !-", &["RL.REFUND rl:fw:d:shadow=1 1"]),
        ("leases=id !-", &["RL.RELEASE rl:cc:d:leases id", "RL.PEEK rl:cc:d:leases COST 2"]),
        // Leases: the value is the id.
        ("leases=id", &["RL.MULTI 1 rl:cc:d:leases CONCURRENCY 3 60000000us id COST 2"]),
        // Limits that a request brings along.
        ("a=1 !7/minute", &["RL.MULTI 1 rl:fw:d:a=1 FIXEDWINDOW 7 1m ALIGN 0"]),
        ("b=1 !7/minute", &["RL.MULTI 1 rl:fw:d:b=1 FIXEDWINDOW 7 1m ALIGN 0 COST 10"]),
        (
            "t=1 !7/day",
            &["RL.MULTI 1 rl:tb:d:{t=1}:t=1 TOKENBUCKET 7 7/1d BLOCK 60000000us AFTER 1"],
        ),
        ("unknown=1 !7/month", &["RL.MULTI 1 rl:fw:d:unknown=1 FIXEDWINDOW 7 30d ALIGN 0"]),
        ("free=1 !7/year", &["RL.MULTI 1 rl:fw:d:free=1 FIXEDWINDOW 7 365d ALIGN 0"]),
        ("tokens=1 !7/week", &["RL.MULTI 1 rl:fw:d:tokens=1 FIXEDWINDOW 7 7d ALIGN 0"]),
        ("shadow=1 !7/second", &["RL.MULTI 1 rl:fw:d:shadow=1 FIXEDWINDOW 7 1s ALIGN 0"]),
    ];
    let rows = rows.iter().map(|(text, expected)| (text, expected, round(&plan(text, false))));
    hold(
        rows.filter(|(_, expected, found)| found != *expected)
            .map(|(text, expected, found)| format!("{text}:\n  {found:#?}, not\n  {expected:#?}"))
            .collect(),
    );
}

#[test]
fn hits_of_a_request_are_those_of_each_descriptor_that_says_none() {
    let request = Request { hits: Some(4), ..read("a=1 + a=2 !2") };
    assert_eq!(
        round(&plan_of(&request, false).unwrap()),
        [
            "RL.MULTI 2 rl:fw:d:a=1 rl:fw:d:a=2 FIXEDWINDOW 5 1s ALIGN 0 COST 4 FIXEDWINDOW 5 1s ALIGN 0 COST 2"
        ]
    );
}

#[test]
fn a_long_name_of_a_lease_is_hashed() {
    let long = "x".repeat(65);
    assert_eq!(
        round(&plan(&format!("leases={long}"), false)),
        [
            "RL.MULTI 1 rl:cc:d:leases CONCURRENCY 3 60000000us sha256-9537c5fdf120482f7d58d25e9ed583f5 COST 2"
        ]
    );
}

#[test]
fn an_unknown_domain_limits_nothing() {
    let plan = Plan::new(&read("a=1"), None, &style(false)).unwrap();
    assert!(plan.next().is_empty() && !plan.refused());
    assert_eq!(plan.rows[0].action, Action::Pass);
}

#[test]
fn a_request_that_is_malformed_or_too_large_is_refused_with_the_reason() {
    let many = vec!["a=1"; MOST_DESCRIPTORS + 1].join(" + ");
    let deep = vec!["a=1"; MOST_ENTRIES + 1].join(" ");
    for (text, sentence) in [
        (&*many, "there are 129 descriptors, and at most 128"),
        (&*format!("a=1 + {deep}"), "descriptor 1 has 33 entries, and at most 32"),
        ("a=1 + =1", "descriptor 1 has an entry without a key"),
        ("leases=", "descriptor 0: the value of the last entry names a lease, and is empty"),
        (
            "a=1 + leases=x !2",
            "descriptor 1: a lease has no hits of its own: the rule's cost says how many units it holds",
        ),
        ("leases=x + a=1 + leases=y", "descriptors 0 and 2 ask for leases of the same limit"),
        ("a=1 !1000000000001", "descriptor 0: hits times cost are above 1000000000000"),
        ("b=1 !100000000001", "descriptor 0: hits times cost are above 1000000000000"),
        ("b=1 !18446744073709551615", "descriptor 0: hits times cost are above 1000000000000"),
        (
            "a=1 !600000000000 + a=1 !600000000000",
            "descriptor 1: hits times cost are above 1000000000000",
        ),
        ("t=1 !4294967295/second", "descriptor 0: a bucket refills by at most 1000000000 a second"),
    ] {
        let found = plan_of(&read(text), false).map(|plan| round(&plan)).unwrap_err();
        assert_eq!(found.to_string(), sentence, "{text}");
    }
    let nameless = Request { domain: String::new(), ..read("a=1") };
    assert_eq!(plan_of(&nameless, false).unwrap_err().to_string(), "the domain is empty");
    let empty = Request { descriptors: Vec::new(), ..read("a=1") };
    assert_eq!(plan_of(&empty, false).unwrap_err().to_string(), "there is no descriptor");
    for text in [vec!["a=1"; MOST_DESCRIPTORS].join(" + "), vec!["a=1"; MOST_ENTRIES].join(" ")] {
        assert!(plan_of(&read(&text), false).is_ok(), "as many as there may be");
    }
}

#[test]
fn replies_become_verdicts_and_refuse_as_their_modes_say() {
    /// Asked, replies, refused, and a verdict for each descriptor.
    type Case<'a> = (&'a str, Vec<Value>, bool, &'a [[i64; 5]]);
    let looked = |remaining| multi(&[[1, 5, remaining, 0, 900]]);
    let cases: Vec<Case<'_>> = vec![
        ("a=1", vec![multi(&[YES])], false, &[YES]),
        ("a=1", vec![multi(&[NO])], true, &[NO]),
        ("a=1 + t=1", vec![multi(&[YES, NO])], true, &[YES, NO]),
        ("a=1 + a=1", vec![multi(&[NO])], true, &[NO, NO]),
        ("never=1", vec![multi(&[[0, 0, 0, -1, 0]])], true, &[[0, 0, 0, -1, 0]]),
        ("shadow=1", vec![multi(&[NO])], false, &[NO]),
        ("tokens=1", vec![multi(&[YES])], false, &[YES]),
        // Quotas refuse if all of them do.
        ("quota=1", vec![multi(&[NO])], true, &[NO]),
        ("quota=1 + quota=2", vec![multi(&[NO]), multi(&[YES])], false, &[NO, YES]),
        ("quota=1 + quota=2", vec![multi(&[NO]), multi(&[NO])], true, &[NO, NO]),
        ("quota=1 !0", vec![looked(0), five(NO)], true, &[[0, 5, 0, 700, 900]]),
        // Looks have the wait of a hit, from RL.PEEK.
        ("a=1 !0", vec![looked(2), five(YES)], false, &[[1, 5, 2, 0, 900]]),
        ("a=1 !0", vec![looked(0), five(NO)], true, &[[0, 5, 0, 700, 900]]),
        ("a=1 !0", vec![looked(5), Value::Nil], false, &[[1, 5, 5, 0, 900]]),
        (
            "b=1 !0",
            vec![multi(&[[1, 50, 9, 0, 900]]), five([0, 50, 9, 100, 900])],
            true,
            &[[0, 50, 9, 100, 900]],
        ),
        (
            "b=1 !0",
            vec![multi(&[[1, 50, 10, 0, 900]]), five([1, 50, 10, 0, 900])],
            false,
            &[[1, 50, 10, 0, 900]],
        ),
        ("shadow=1 !0", vec![looked(0), five(NO)], false, &[[0, 5, 0, 700, 900]]),
        ("leases=x !0", vec![Value::Nil], false, &[[1, 3, 3, 0, 0]]),
        ("leases=x !0", vec![five([0, 3, 1, 50, 60])], true, &[[0, 3, 1, 50, 60]]),
        // Nothing refuses what is given back.
        ("a=1 !-", vec![five(NO)], false, &[[1, 5, 0, 0, 1000]]),
        ("a=1 !-", vec![Value::Nil], false, &[[1, 5, 5, 0, 0]]),
        ("leases=x !-", vec![Value::Int(1), five([1, 3, 2, 0, 60])], false, &[[1, 3, 2, 0, 60]]),
        ("never=1 !-", vec![Value::Nil], false, &[[1, 0, 0, 0, 0]]),
    ];
    for (text, replies, refused, verdicts) in cases {
        let mut plan = plan(text, false);
        answer(&mut plan, replies);
        assert_eq!(plan.refused(), refused, "{text}");
        let found: Vec<_> = plan.rows.iter().map(|row| row.verdict).collect();
        let verdicts: Vec<_> = verdicts.iter().map(|row| verdict(*row)).collect();
        assert_eq!(found, verdicts, "{text}");
    }
}

#[test]
fn replies_of_another_form_are_none_of_ours() {
    let short = |count: usize| Value::Array(vec![Value::Int(1); count]);
    let with = |row: Value| Value::Array(vec![Value::Int(1), Value::Int(0), Value::Int(-1), row]);
    for (text, replies) in [
        ("a=1", vec![]),
        ("a=1", vec![Value::Nil]),
        ("a=1", vec![Value::Okay]),
        ("a=1", vec![Value::Int(1)]),
        ("a=1", vec![short(2)]),
        ("a=1", vec![Value::Array(vec![Value::SimpleString("1".into()); 4])]),
        ("a=1", vec![with(Value::Nil)]),
        ("a=1", vec![with(short(4))]),
        ("a=1", vec![with(short(6))]),
        ("a=1", vec![with(five([1, -5, 4, 0, 0]))]),
        ("a=1", vec![with(five([1, 5, -4, 0, 0]))]),
        ("a=1", vec![with(five([1, 5, 4, 0, -1]))]),
        // A row is missing, or one too many.
        ("a=1", vec![multi(&[])]),
        ("a=1", vec![multi(&[YES, YES])]),
        ("a=1 + a=2", vec![multi(&[YES])]),
        ("shadow=1", vec![multi(&[])]),
        ("shadow=1", vec![multi(&[YES, YES])]),
        ("a=1 + shadow=1", vec![multi(&[YES])]),
        ("a=1 !0", vec![multi(&[YES])]),
        ("a=1 !0", vec![multi(&[YES]), Value::Int(1)]),
        ("a=1 !-", vec![Value::Int(1)]),
        ("leases=x !-", vec![Value::Int(1), Value::Okay]),
    ] {
        let mut plan = plan(text, false);
        let found = plan.read(replies.iter().cloned().map(Ok).collect());
        assert!(matches!(found, Err(Wrong::Form)), "{text} and {replies:?}: {found:?}");
    }
}

#[test]
fn an_error_of_the_server_is_told() {
    let mut plan = plan("a=1", false);
    let error = redis::RedisError::from((redis::ErrorKind::UnexpectedReturnType, "what it says"));
    let found = plan.read(vec![Err(error)]).unwrap_err();
    assert!(
        matches!(found, Wrong::Server(_)) && found.to_string().contains("what it says"),
        "{found}"
    );
}

#[test]
fn a_failure_decides_nothing_for_other_limits() {
    let error = || Err(redis::RedisError::from((redis::ErrorKind::UnexpectedReturnType, "no")));
    let ok = |reply: Value| Ok(reply);
    for (text, replies, undecided, refused) in [
        ("a=1", vec![error()], true, false),
        ("a=1 + shadow=1", vec![ok(multi(&[YES])), error()], false, false),
        ("a=1 + shadow=1", vec![ok(multi(&[NO])), error()], false, true),
        ("a=1 + shadow=1", vec![error(), ok(multi(&[NO]))], true, false),
        ("a=1 + quota=1", vec![ok(multi(&[YES])), error()], true, false),
        ("a=1 + quota=1", vec![error(), ok(multi(&[NO]))], false, true),
        ("a=1 + b=1 !0", vec![error(), ok(multi(&[[1, 50, 9, 0, 0]])), ok(five(NO))], false, true),
        ("b=1 !0 + quota=1", vec![error(), ok(five(NO)), ok(multi(&[NO]))], false, true),
        ("leases=x !- + quota=1", vec![error(), ok(Value::Nil), ok(multi(&[NO]))], false, true),
        ("tokens=1", vec![error()], true, false),
    ] {
        let mut plan = plan(text, false);
        plan.read(replies).unwrap_err();
        assert_eq!((plan.is_undecided(), plan.refused()), (undecided, refused), "{text}");
        assert!(plan.next().is_empty(), "{text}");
    }
}

#[test]
fn what_gives_back_changes_no_decision() {
    let mut plan = plan(SLOTS, true);
    answer(&mut plan, vec![multi(&[YES]), multi(&[YES])]);
    assert_eq!(plan.given().count(), 0);
    answer(&mut plan, vec![multi(&[NO, YES])]);
    assert!(plan.is_undoing());
    assert_eq!(plan.given().collect::<Vec<_>>(), [b"rl:fw:d:a=1"]);
    let error = redis::RedisError::from((redis::ErrorKind::UnexpectedReturnType, "no"));
    plan.read(vec![Err(error)]).unwrap_err();
    assert!(plan.refused() && !plan.is_undecided() && plan.next().is_empty());
    assert_eq!(plan.given().collect::<Vec<_>>(), [b"rl:fw:d:a=1"], "it may have been");
}

#[test]
fn leases_wait_for_what_stands_alone_and_can_refuse() {
    for (text, refusal) in [
        ("leases=id + b=1 !0", vec![multi(&[[1, 50, 9, 0, 0]]), five(NO)]),
        ("leases=id + quota=1", vec![multi(&[NO])]),
    ] {
        let mut refused = plan(text, false);
        answer(&mut refused, refusal);
        assert!(refused.refused() && refused.next().is_empty(), "{text}: nothing was taken");
        let mut granted = plan(text, false);
        let replies = granted.next().len();
        answer(
            &mut granted,
            [vec![multi(&[[1, 50, 50, 0, 0]]), five(YES)][..replies].to_vec()].concat(),
        );
        assert_eq!(
            round(&granted),
            ["RL.MULTI 1 rl:cc:d:leases CONCURRENCY 3 60000000us id COST 2"]
        );
        answer(&mut granted, vec![multi(&[YES])]);
        assert!(granted.next().is_empty() && !granted.refused(), "{text}");
    }
    let shadow = plan("leases=id + shadow=1", false);
    assert_eq!(shadow.next().len(), 2, "it cannot refuse, and so they are asked at once");
}

#[test]
fn a_remembered_denial_asks_nothing() {
    let mut plan = plan("a=1 + a=2 + shadow=1", false);
    let takes: Vec<_> = plan.takes().map(|(row, cost)| (row.key.clone(), cost)).collect();
    assert_eq!(takes, [("rl:fw:d:a=1".to_owned(), 1), ("rl:fw:d:a=2".to_owned(), 1)]);
    plan.deny("rl:fw:d:a=2", verdict(NO).unwrap());
    assert!(plan.refused() && plan.next().is_empty());
    let rows: Vec<_> = plan.rows.iter().map(|row| (row.verdict, row.remembered)).collect();
    assert_eq!(rows, [(None, false), (verdict(NO), true), (None, false)]);
}

/// A request whose limits lie in three slots: those of `a=1` and `t=1` with `a=2`, and `b=1`.
const SLOTS: &str = "a=1 + t=1 + b=1 + a=2 t=1 + shadow=1";
const FIRST: &str = "RL.MULTI 1 rl:fw:d:a=1 FIXEDWINDOW 5 1s ALIGN 0";
const SHADOW: &str = "RL.MULTI 1 rl:fw:d:shadow=1 FIXEDWINDOW 5 1s ALIGN 0";
const SECOND: &str = "RL.MULTI 2 rl:tb:d:{t=1}:t=1 rl:fw:d:{t=1}:a=2:t=1 TOKENBUCKET 9 5/1h BLOCK 60000000us AFTER 1 FIXEDWINDOW 5 1s ALIGN 0";
const THIRD: &str = "RL.MULTI 1 rl:fw:d:b=1 FIXEDWINDOW 50 1m ALIGN 0 COST 10";

#[test]
fn in_a_cluster_slots_are_asked_in_turn() {
    let mut plan = plan(SLOTS, true);
    assert_eq!(round(&plan), [FIRST, SHADOW]);
    let slots: Vec<_> = plan.next().iter().map(|ask| ask.slot).collect();
    assert_eq!(slots, [slot(b"rl:fw:d:a=1"), slot(b"rl:fw:d:shadow=1")]);
    answer(&mut plan, vec![multi(&[YES]), multi(&[YES])]);
    assert_eq!(round(&plan), [SECOND]);
    answer(&mut plan, vec![multi(&[YES, YES])]);
    assert_eq!(round(&plan), [THIRD]);
    answer(&mut plan, vec![multi(&[YES])]);
    assert!(plan.next().is_empty() && !plan.refused());
    assert!(plan.rows.iter().all(|row| row.verdict == verdict(YES)));
}

#[test]
fn a_refusal_gives_back_what_the_slots_before_it_took() {
    let mut plan = plan(SLOTS, true);
    answer(&mut plan, vec![multi(&[YES]), multi(&[YES])]);
    answer(&mut plan, vec![multi(&[YES, YES])]);
    answer(&mut plan, vec![multi(&[NO])]);
    assert_eq!(
        round(&plan),
        [
            "RL.REFUND rl:fw:d:a=1 1",
            "RL.REFUND rl:tb:d:{t=1}:t=1 1",
            "RL.REFUND rl:fw:d:{t=1}:a=2:t=1 1"
        ]
    );
    // Whether that succeeds or not, the request is refused.
    plan.read(Vec::new()).unwrap();
    assert!(plan.next().is_empty() && plan.refused());
}

#[test]
fn a_refusal_of_the_first_slot_asks_nothing_more() {
    let mut plan = plan(SLOTS, true);
    answer(&mut plan, vec![multi(&[NO]), multi(&[YES])]);
    assert!(plan.next().is_empty() && plan.refused());
    assert_eq!(plan.rows[1].verdict, None, "it was not asked");
}

#[test]
fn what_stands_beside_the_decision_and_refuses_gives_back_what_was_taken() {
    for (text, beside, undone) in [
        ("a=1 + b=1 !0", vec![multi(&[[1, 50, 9, 0, 0]]), five(NO)], true),
        ("a=1 + quota=1", vec![multi(&[NO])], true),
        ("a=1 + quota=1 + quota=2", vec![multi(&[NO]), multi(&[YES])], false),
        ("a=1 + shadow=1 !0", vec![multi(&[[1, 5, 0, 0, 0]]), five(NO)], false),
        ("a=1 + shadow=1", vec![multi(&[NO])], false),
    ] {
        let mut plan = plan(text, false);
        answer(&mut plan, [vec![multi(&[YES])], beside].concat());
        assert_eq!(plan.refused(), undone, "{text}");
        let expected: &[&str] = if undone { &["RL.REFUND rl:fw:d:a=1 1"] } else { &[] };
        assert_eq!(round(&plan), expected, "{text}");
    }
}

#[test]
fn leases_are_asked_for_last_and_given_back_by_their_names() {
    let mut plan = plan("leases=id + a=1 + jobs=7", true);
    assert_eq!(round(&plan), [FIRST]);
    answer(&mut plan, vec![multi(&[YES])]);
    answer(&mut plan, vec![multi(&[[1, 3, 1, 0, 60_000]])]);
    answer(&mut plan, vec![multi(&[NO])]);
    assert_eq!(round(&plan), ["RL.REFUND rl:fw:d:a=1 1", "RL.RELEASE rl:cc:d:leases id"]);
}

#[test]
fn any_request_becomes_commands_or_a_sentence() {
    use proptest::prelude::*;
    let entry = ("\\PC{0,3}|a|b|t|leases|quota", "\\PC{0,80}")
        .prop_map(|(key, value)| Entry { key, value });
    let limit = (any::<u32>(), prop::sample::select(Unit::NAMES.to_vec()))
        .prop_map(|(requests_per_unit, (_, unit))| Override { requests_per_unit, unit });
    let descriptor = (
        prop::collection::vec(entry, 0..4),
        prop::option::of(limit),
        prop::option::of(prop_oneof![0..3_u64, any::<u64>()]),
        any::<bool>(),
    );
    let request = (prop::collection::vec(descriptor, 0..6), prop::option::of(any::<u64>()));
    let rules = rules();
    super::random(512, &(request, any::<bool>()), |((descriptors, hits), cluster)| {
        let descriptors = descriptors
            .into_iter()
            .map(|(entries, limit, hits, negative)| Descriptor { entries, limit, hits, negative })
            .collect();
        let request = Request { domain: "d".into(), descriptors, hits };
        match Plan::new(&request, Some(rules.only().unwrap()), &style(cluster)) {
            Ok(plan) => assert_eq!(plan.rows.len(), request.descriptors.len()),
            Err(invalid) => assert!(!invalid.to_string().is_empty()),
        }
    });
}
