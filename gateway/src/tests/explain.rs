//! `check` and `explain`, as one types them.

use std::path::Path;

use clap::Parser as _;

use crate::cli::{self, Cli, Command};

const RULES: &str = "domain: api
descriptors:
  - key: user
    rate_limit: {unit: minute, requests_per_unit: 100, name: everybody}
    descriptors:
      - {key: path, value: '/slow/*', rate_limit: {concurrency: 3, ttl: 10s}}
  - key: user
    value: vip
    rate_limit: {unit: minute, requests_per_unit: 500, cost: 2, algorithm: token_bucket, replaces: [{name: everybody}]}
  - {key: tokens, rate_limit: {unit: hour, requests_per_unit: 9, force: true}}
  - {key: trial, shadow_mode: true, rate_limit: {unit: hour, requests_per_unit: 9}}
  - {key: quota, quota_mode: true, rate_limit: {unit: hour, requests_per_unit: 9}}
  - {key: health, rate_limit: {unlimited: true}}
";

/// What the program prints, with the folder's name left out.
fn run(folder: &Path, command: &str) -> Result<String, String> {
    let args = command.split(' ').map(|word| word.replace("FOLDER", folder.to_str().unwrap()));
    let cli = Cli::try_parse_from(std::iter::once("redis-rl-gateway".to_owned()).chain(args))
        .map_err(|error| error.to_string())?;
    let printed = match cli.command {
        Command::Check(check) => cli::check(&check.path, &check.reading.options()),
        Command::Explain(explain) => cli::explain(&explain),
        Command::Serve(_) => panic!("not in a test"),
    };
    let short = |text: String| text.replace(folder.to_str().unwrap(), "FOLDER");
    printed.map(short).map_err(short)
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

#[test]
fn explain_says_which_rules_a_request_meets() {
    let folder = folder(&[("rules.yaml", RULES)]);
    let place = |line: u32, column: u32| format!("(FOLDER/rules.yaml:{line}:{column})");
    for (entries, expected) in [
        ("user=42", format!("(user, 42): user, FIXEDWINDOW 100 1m ALIGN 0 {}\n", place(4, 17))),
        ("user=", format!("(user, ): user, FIXEDWINDOW 100 1m ALIGN 0 {}\n", place(4, 17))),
        (
            "user=42 path=/slow/a=b",
            format!(
                "(user, 42), (path, /slow/a=b): user.path_/slow/*, CONCURRENCY 3 10000000us <the lease> {}\n",
                place(6, 51)
            ),
        ),
        ("user=42 path=/", "(user, 42), (path, /): no rule, so it passes\n".to_owned()),
        (
            "user=vip + user=42 + nobody=1",
            format!(
                "(user, vip): user_vip, TOKENBUCKET 500 500/1m COST 2 {}\n(user, 42): user, which another rule replaces, so it passes\n(nobody, 1): no rule, so it passes\n",
                place(9, 17)
            ),
        ),
        (
            "tokens=1",
            format!(
                "(tokens, 1): tokens, FIXEDWINDOW 9 1h ALIGN 0, charged by force {}\n",
                place(10, 31)
            ),
        ),
        (
            "trial=1",
            format!(
                "(trial, 1): trial, FIXEDWINDOW 9 1h ALIGN 0, in shadow mode {}\n",
                place(11, 49)
            ),
        ),
        (
            "quota=1",
            format!(
                "(quota, 1): quota, FIXEDWINDOW 9 1h ALIGN 0, in quota mode {}\n",
                place(12, 48)
            ),
        ),
        ("health=1", format!("(health, 1): health, unlimited {}\n", place(13, 31))),
    ] {
        assert_eq!(
            run(folder.path(), &format!("explain FOLDER --domain api {entries}")),
            Ok(expected),
            "{entries}"
        );
    }
}

#[test]
fn explain_takes_the_options_of_serve() {
    let folder = folder(&[(
        "rules.yaml",
        "domain: d\ndescriptors: [{key: k, rate_limit: {unit: month, requests_per_unit: 5}}]",
    )]);
    for (options, words) in [
        ("", "FIXEDWINDOW 5 30d ALIGN 0"),
        (" --calendar", "FIXEDWINDOW 5 month ALIGN 0"),
        (" --algorithm sliding_window", "SLIDING 5 30d"),
    ] {
        let printed =
            run(folder.path(), &format!("explain FOLDER/rules.yaml --domain d k=1{options}"));
        assert_eq!(printed, Ok(format!("(k, 1): k, {words} (FOLDER/rules.yaml:2:36)\n")));
    }
    let refused =
        run(folder.path(), "explain FOLDER --domain d k=1 --algorithm concurrency").unwrap_err();
    assert!(refused.contains("[possible values: token_bucket, leaky_bucket, fixed_window, sliding_window, sliding_log]"), "{refused}");
}

#[test]
fn explain_says_what_it_does_not_understand() {
    let folder = folder(&[("rules.yaml", RULES)]);
    for (rest, expected) in [
        ("--domain other user=1", "there is no domain \"other\"; there are: api\n"),
        ("--domain api user", "an entry is key=value, not \"user\"\n"),
        ("--domain api user=1 +", "+ stands between two descriptors\n"),
        ("--domain api + user=1", "+ stands between two descriptors\n"),
    ] {
        assert_eq!(
            run(folder.path(), &format!("explain FOLDER {rest}")),
            Err(expected.to_owned()),
            "{rest}"
        );
    }
}

#[test]
fn check_says_what_there_is_or_what_is_wrong_with_its_place() {
    let broken = "domain: b\ndescriptors:\n  - {key: k, rate_limit: {unit: x}}\n  - {key: k}\n";
    let other = "domain: other\n";
    for (files, expected) in [
        (&[("rules.yaml", RULES)][..], Ok("1 file, domains: api\n")),
        (
            &[
                ("a.yml", RULES),
                ("b.yaml", other),
                ("notes.txt", "no: rules"),
                (".hidden.yaml", "{"),
            ],
            Ok("2 files, domains: api, other\n"),
        ),
        (
            &[("a.yaml", RULES), ("b.yaml", broken), ("c.yaml", "domain: [")],
            Err(
                "FOLDER/b.yaml:3:26: unit is second, minute, hour, day, week, month or year, not \"x\"\n\
                 FOLDER/b.yaml:4:11: k stands here for the second time\n\
                 FOLDER/c.yaml:1:9: ",
            ),
        ),
        (
            &[("a.yaml", other), ("b.yaml", other)],
            Err(
                "FOLDER/b.yaml:1:9: the domain \"other\" stands in another file already; --merge-domains allows that\n",
            ),
        ),
        (&[], Err("configuration: FOLDER: no file ends in .yaml or .yml\n")),
    ] {
        let folder = folder(files);
        match (run(folder.path(), "check FOLDER"), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(found), Err(expected)) => {
                assert!(found.starts_with(expected), "{found}, not {expected}")
            }
            (found, expected) => panic!("{found:?}, not {expected:?}"),
        }
    }
    let folder = folder(&[("a.yaml", other), ("b.yaml", other)]);
    assert_eq!(
        run(folder.path(), "check FOLDER --merge-domains"),
        Ok("2 files, domains: other\n".to_owned())
    );
    let missing = run(folder.path(), "check FOLDER/missing.yaml").unwrap_err();
    assert!(missing.starts_with("configuration: FOLDER/missing.yaml: No such file"), "{missing}");
    std::fs::write(folder.path().join("bytes.yaml"), b"\xff").unwrap();
    let bytes = run(folder.path(), "check FOLDER/bytes.yaml").unwrap_err();
    assert!(
        bytes.starts_with("configuration: FOLDER/bytes.yaml: stream did not contain valid UTF-8"),
        "{bytes}"
    );
}
