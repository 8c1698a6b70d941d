//! What a file may hold, whoever wrote it: what is wrong is told with its place, and nothing panics or hangs.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{descriptor, load, load_with};
use crate::rules::limit::Algorithm;
use crate::rules::{Options, Rules};

const LIMIT: &str = "rate_limit: {unit: second, requests_per_unit: 5}";

/// The problems of a text, all of them.
fn problem(text: &str) -> String {
    load(text).map_or_else(|problem| problem, |rules| format!("loads: {:?}", rules.names()))
}

#[test]
fn files_that_envoyproxy_ratelimit_refuses_are_refused_with_their_place() {
    for (text, expected) in [
        ("", "rules.yaml:1:1: unexpected end of file"),
        ("descriptors: []", "rules.yaml:1:1: missing field `domain`"),
        ("domain: ''", "rules.yaml:1:9: the domain has no name"),
        ("domain: d\ndescriptors:\n  - value: v\n", "rules.yaml:3:5: missing field `key`"),
        ("domain: d\ndescriptors:\n  - key: ''\n", "rules.yaml:3:10: a descriptor needs a key"),
        (
            "domain: d\ndescriptors:\n  - key: k\n    valu: v\n",
            "rules.yaml:4:5: unknown field `valu`",
        ),
        (
            "domain: d\ndescriptors:\n  - key: k\n    rate_limit: {units: second}\n",
            "rules.yaml:4:18: unknown field `units`",
        ),
        (
            "domain: d\ndescriptors:\n  - key: k\n    rate_limit:\n      unit: second\n      requests_per_unit: -1\n",
            "rules.yaml:6:26: a whole number from 0 on is expected",
        ),
        (
            "domain: d\ndescriptors:\n  - key: k\n    rate_limit:\n      unit: second\n      requests_per_unit: foo\n",
            "rules.yaml:6:26: a whole number from 0 on is expected",
        ),
        (
            "domain: d\ndescriptors:\n  - key: k\n  - key: k\n",
            "rules.yaml:4:10: k stands here for the second time",
        ),
        (
            "domain: d\ndescriptors:\n  - {key: k, value: v}\n  - {key: k, value: v}\n",
            "rules.yaml:4:11: k_v stands here for the second time",
        ),
        (
            "domain: d\ndescriptors:\n  - {key: k, value: v*}\n  - {key: k, value: v*}\n",
            "rules.yaml:4:11: k_v* stands here for the second time",
        ),
        (
            "domain: d\ndescriptors:\n  - key: a\n    descriptors: [{key: k}, {key: k}]\n",
            "rules.yaml:4:35: a.k stands here for the second time",
        ),
        (
            "domain: d\ndescriptors:\n  - key: k\n    shadow_mode: maybe\n",
            "rules.yaml:4:18: true or false is expected",
        ),
        (
            "domain: d\ndescriptors:\n  - {key: k, rate_limit: {unit: second, block: [1s]}}\n",
            "rules.yaml:3:41: invalid type: sequence, expected a duration like 10m, or {duration: 10m, after: 5}",
        ),
        ("domain: d\ndescriptors: {key: k}\n", "rules.yaml:2:14: expected sequence start"),
        ("domain: d\ndescriptors:\n  - key: k\n  - key", "rules.yaml:4:5: expected mapping start"),
        (
            "domain: d\ndomain: e\n",
            "rules.yaml:2:1: duplicate mapping key `domain` is not allowed here",
        ),
        ("domain: d\ndescriptors:\n\t- key: k\n", "rules.yaml:3:2: tabs disallowed"),
        ("domain: d\ncheck: {user: {body: x}}\n", "rules.yaml:2:16: unknown variant `body`"),
        ("domain: d\n---\ndomain: e\n", "rules.yaml:3:1: only single YAML document expected"),
    ] {
        let found = problem(text);
        assert!(found.starts_with(expected), "{text:?}: {found}, not {expected}");
    }
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let text = "domain: d
descriptors:
  - {key: a, rate_limit: {unit: x}}
  - {key: b, rate_limit: {unit: second, cost: 0}}
  - {key: b, descriptors: [{key: ''}]}
";
    let found = problem(text);
    let places: Vec<_> = found.lines().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(
        places,
        ["rules.yaml:3:26", "rules.yaml:4:26", "rules.yaml:5:34", "rules.yaml:5:11"],
        "{found}"
    );
}

#[test]
fn a_domain_stands_in_one_file_unless_merging_is_asked_for() {
    let file = |name: &str, key: &str| {
        (name.to_owned(), format!("domain: d\ndescriptors: [{{key: {key}, {LIMIT}}}]"))
    };
    let files = [file("a.yaml", "a"), file("b.yaml", "b")];
    let problems = Rules::load(&files, &Options::default()).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert_eq!(
        problems[0].to_string(),
        "b.yaml:1:9: the domain \"d\" stands in another file already; --merge-domains allows that"
    );
    let merge = Options { merge_domains: true, ..Options::default() };
    let rules = Rules::load(&files, &merge).unwrap();
    for entry in ["a=1", "b=1"] {
        assert!(rules.domain("d").unwrap().find(&descriptor(entry)).is_some(), "{entry}");
    }
    let twice = Rules::load(&[file("a.yaml", "a"), file("b.yaml", "a")], &merge).unwrap_err();
    assert_eq!(twice[0].to_string(), "b.yaml:2:21: a stands here for the second time");
}

#[test]
fn scalars_that_look_like_something_else_are_the_text_that_they_are() {
    for (written, value) in [
        ("404", "404"),
        ("yes", "yes"),
        ("true", "true"),
        ("1.50", "1.50"),
        ("0x1F", "0x1F"),
        ("007", "007"),
        ("2026-01-01", "2026-01-01"),
        ("10.0.0.1", "10.0.0.1"),
        ("'*literally'", "xliterally"),
        ("\"a\\tb\"", "a\tb"),
        ("\n      folded\n      lines", "folded lines"),
        ("|-\n      two\n      lines", "two\nlines"),
        (">-\n      one\n      line", "one line"),
        ("'null'", "null"),
    ] {
        let text = format!(
            "---\ndomain: 1\ndescriptors:\n  - key: 2 # a comment\n    value: {written}\n    {LIMIT}\n...\n"
        );
        let rules = load(&text).unwrap_or_else(|problem| panic!("{written:?}: {problem}"));
        let mut asked = descriptor("2=");
        asked.entries[0].value = value.to_owned();
        assert!(rules.domain("1").unwrap().find(&asked).is_some(), "{written:?} is not {value:?}");
        asked.entries[0].value = "another".to_owned();
        assert!(rules.domain("1").unwrap().find(&asked).is_none(), "{written:?} is anything");
    }
}

#[test]
fn an_empty_value_is_any_value() {
    for written in ["''", "", "~", "null"] {
        let text =
            format!("domain: d\ndescriptors:\n  - key: k\n    value: {written}\n    {LIMIT}\n");
        let rules = load(&text).unwrap_or_else(|problem| panic!("{written:?}: {problem}"));
        assert!(rules.domain("d").unwrap().find(&descriptor("k=v")).is_some(), "{written:?}");
    }
}

#[test]
fn anchors_and_metadata_are_read() {
    let text = "domain: d
descriptors:
  - key: a
    rate_limit: &limit {unit: second, requests_per_unit: 5}
    metadata: {any: [thing, 1]}
  - key: b
    rate_limit: *limit
";
    let rules = load(text).unwrap();
    let limit = |entry| rules.only().unwrap().find(&descriptor(entry)).unwrap().rule.limit.clone();
    assert_eq!(limit("a=1"), limit("b=1"));
    assert_eq!(limit("a=1").unwrap().requests, 5);
}

#[test]
fn a_configuration_may_have_no_rules() {
    for text in ["domain: d", "domain: d\ndescriptors:", "domain: d\ndescriptors: []"] {
        assert_eq!(load(text).unwrap().names(), ["d"], "{text:?}");
    }
    assert!(Rules::load(&[], &Options::default()).unwrap().names().is_empty());
}

#[test]
fn options_hold_for_rules_that_do_not_say_so_themselves() {
    let text = "domain: d
descriptors:
  - {key: a, rate_limit: {unit: month, requests_per_unit: 5}}
  - {key: b, rate_limit: {unit: month, requests_per_unit: 5, algorithm: fixed_window}}
  - {key: c, rate_limit: {unit: hour, requests_per_unit: 5, algorithm: fixed_window}}
";
    let options =
        Options { algorithm: Algorithm::SlidingWindow, calendar: true, ..Options::default() };
    let rules = load_with(text, &options).unwrap();
    for (entry, expected) in [
        ("a=1", "SLIDING 5 30d"),
        ("b=1", "FIXEDWINDOW 5 month ALIGN 0"),
        ("c=1", "FIXEDWINDOW 5 1h ALIGN 0"),
    ] {
        let domain = rules.only().unwrap();
        let mut command = redis::Cmd::new();
        domain.find(&descriptor(entry)).unwrap().rule.limit.as_ref().unwrap().words(
            &mut command,
            1,
            b"",
        );
        assert_eq!(super::typed(&command), expected, "{entry}");
    }
}

/// Aliases of aliases: a text of a few lines that stands for 10^9 rules.
fn bomb() -> String {
    let mut text = format!(
        "domain: d\ndescriptors:\n  - key: a0\n    descriptors: &a0 [{{key: k, {LIMIT}}}]\n"
    );
    for level in 1..10 {
        let alias = format!("*a{}", level - 1);
        let nodes: Vec<_> =
            (0..10).map(|at| format!("{{key: k{at}, descriptors: {alias}}}")).collect();
        text.push_str(&format!(
            "  - key: a{level}\n    descriptors: &a{level} [{}]\n",
            nodes.join(", ")
        ));
    }
    text
}

fn deep(levels: usize) -> String {
    format!(
        "domain: d\ndescriptors: {}{}",
        "[{key: k, descriptors: ".repeat(levels),
        "}]".repeat(levels)
    )
}

#[test]
fn hostile_files_end_in_an_error_soon() {
    let long = "a".repeat(1 << 20);
    for (what, text) in [
        ("deep descriptors", deep(10_000)),
        ("deep descriptors that never end", "[{key: k, descriptors: ".repeat(10_000)),
        ("deep brackets", format!("domain: d\nhash_tag: {}", "[".repeat(100_000))),
        (
            "deep metadata",
            format!(
                "domain: d\ndescriptors: [{{key: k, metadata: {}{}}}]",
                "[".repeat(10_000),
                "]".repeat(10_000)
            ),
        ),
        ("deep blocks", (0..1_000).map(|at| format!("{}-\n", " ".repeat(at))).collect()),
        ("an alias of itself", "domain: d\ndescriptors: &a [{key: k, descriptors: *a}]".to_owned()),
        ("aliases of aliases", bomb()),
        ("one long word", long.clone()),
        ("one long key", format!("{long}: 1")),
        ("spaces", " ".repeat(10 << 20)),
        ("unclosed text", format!("domain: '{long}")),
        ("zeros", "\0".repeat(1 << 20)),
        ("a byte order mark alone", "\u{feff}".to_owned()),
        ("a tag", "domain: !!binary '####'".to_owned()),
    ] {
        let began = Instant::now();
        let found = problem(&text);
        assert!(!found.starts_with("loads"), "{what} loads");
        assert!(found.len() < 1_000, "{what}: the message is {} bytes long", found.len());
        assert!(began.elapsed() < Duration::from_secs(10), "{what}: {:?}", began.elapsed());
    }
}

/// A request to `/check` has a descriptor for each.
#[test]
fn a_domain_with_check_has_at_most_as_many_paths_of_keys_as_a_request_has_descriptors() {
    let paths = |count: usize| {
        let rules: String = (0..count)
            .map(|at| {
                format!("  - {{key: k{at}, {LIMIT}}}\n  - {{key: k{at}, value: v, {LIMIT}}}\n")
            })
            .collect();
        let check = "check: {k0: {header: x-user}}\n";
        ["", check].map(|check| problem(&format!("domain: d\n{check}descriptors:\n{rules}")))
    };
    assert_eq!(paths(128), ["loads: [\"d\"]"; 2]);
    let told = "rules.yaml:1:9: rules stand at the ends of 129 paths of keys, and of a domain with `check` at most 128: /check asks about each";
    assert_eq!(paths(129), ["loads: [\"d\"]", told]);
}

#[test]
fn large_files_and_deep_ones_of_a_sane_size_load() {
    let many: String =
        (0..5_000).map(|at| format!("  - {{key: user, value: u{at}, {LIMIT}}}\n")).collect();
    let rules = load(&format!("domain: d\ndescriptors:\n{many}")).unwrap();
    assert!(rules.only().unwrap().find(&descriptor("user=u4999")).is_some());
    assert_eq!(load(&deep(16)).unwrap().names(), ["d"]);
}

/// Parts of files, right and wrong ones.
fn scraps() -> impl Strategy<Value = String> {
    let scrap = prop::sample::select(vec![
        "domain: d\n",
        "descriptors:\n",
        "  - key: k\n",
        "    value: v*\n",
        "    rate_limit:\n",
        "      unit: second\n",
        "      requests_per_unit: 5\n",
        "    descriptors: [{key: l}]\n",
        "  ",
        "\n",
        "- ",
        ": ",
        "{",
        "}",
        "[",
        "]",
        "&a ",
        "*a",
        "!!str ",
        "'",
        "\"",
        "|\n",
        "#",
        "---\n",
        "...\n",
        "\t",
        "é",
        "\u{85}",
        "block: {duration: 1s}\n",
        "check: {user: {header: x}}\n",
        "-1",
        "1e400",
    ]);
    prop::collection::vec(scrap, 0..40).prop_map(|scraps| scraps.concat())
}

#[test]
fn no_text_panics() {
    let bytes = prop::collection::vec(any::<u8>(), 0..200);
    super::random(500, &(scraps(), "\\PC*", bytes), |(scraps, any, bytes)| {
        let bytes = String::from_utf8_lossy(&bytes);
        for text in [&*scraps, &*any, &*bytes, &*format!("domain: d\ndescriptors:\n{scraps}")] {
            if let Err(problem) = load(text) {
                assert!(problem.starts_with("rules.yaml"), "{problem}");
            }
        }
    });
}
