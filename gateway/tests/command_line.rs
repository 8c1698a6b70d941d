//! The program by its flags and by its environment, `check` and `explain`.

use std::process::{Command, Stdio};

use crate::asks::Rules;

const RULES: &str = "domain: d
descriptors:
  - key: user
    rate_limit: {unit: minute, requests_per_unit: 10, algorithm: token_bucket, burst: 20, cost: 2}
    descriptors:
      - key: path
        value: /login
        rate_limit: {unit: hour, requests_per_unit: 5, name: login, replaces: [{name: address}], block: 10m}
  - key: remote_address
    rate_limit: {unit: second, requests_per_unit: 100, name: address}
  - key: free
    rate_limit: {unlimited: true}
  - key: tried
    shadow_mode: true
    rate_limit: {unit: day, requests_per_unit: 1}
";

struct Ended {
    code: i32,
    stdout: String,
    stderr: String,
}

fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
    let output = Command::new(env!("CARGO_BIN_EXE_redis-rl-gateway"))
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Ended {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn check_says_what_is_wrong_and_where() {
    let rules = Rules::new(RULES);
    let path = rules.path().display().to_string();
    let good = run(&["check", &path], &[]);
    assert_eq!((good.code, &*good.stdout, &*good.stderr), (0, "1 file, domains: d\n", ""));

    rules.change(&RULES.replace("hour", "fortnight").replace("unlimited", "unlimitd"));
    let bad = run(&["check", &path], &[]);
    assert_eq!((bad.code, &*bad.stdout), (1, ""));
    assert!(bad.stderr.contains(&format!("{path}:12:")), "{}", bad.stderr);
    assert!(bad.stderr.contains("unlimitd"), "{}", bad.stderr);
    rules.change(&RULES.replace("hour", "fortnight").replace("burst: 20", "burst: -1"));
    assert!(run(&["check", &path], &[]).stderr.contains(&format!("{path}:4:")));
    // All that is wrong, not just the first of it.
    rules.change(&RULES.replace("hour", "fortnight").replace("second", "eon"));
    let bad = run(&["check", &path], &[]);
    assert!(bad.stderr.contains(&format!("{path}:8:")), "{}", bad.stderr);
    assert!(bad.stderr.contains(&format!("{path}:10:")), "{}", bad.stderr);
    assert!(bad.stderr.contains("not \"fortnight\"") && bad.stderr.contains("not \"eon\""));

    let folder = rules.folder().display().to_string();
    rules.change(RULES);
    std::fs::write(rules.folder().join("more.yml"), RULES).unwrap();
    let twice = run(&["check", &folder], &[]);
    assert_eq!(twice.code, 1);
    assert!(twice.stderr.contains("--merge-domains"), "{}", twice.stderr);
    let merged = RULES.replace("key: ", "key: other_").replace("name: ", "name: other_");
    std::fs::write(rules.folder().join("more.yml"), merged).unwrap();
    let merged = run(&["check", &folder, "--merge-domains"], &[]);
    assert_eq!(merged.stdout, "2 files, domains: d\n", "{}", merged.stderr);
    let missing = run(&["check", "/nowhere.yaml"], &[]);
    assert_eq!(missing.code, 1);
    assert!(missing.stderr.contains("/nowhere.yaml: No such file"), "{}", missing.stderr);
}

#[test]
fn explain_prints_the_rules_that_a_request_meets() {
    let rules = Rules::new(RULES);
    let path = rules.path().display().to_string();
    let explain = |entries: &[&str]| {
        let entries = [&["explain", &path, "--domain", "d"], entries].concat();
        run(&entries, &[])
    };
    let all = explain(&[
        "user=42",
        "path=/login",
        "+",
        "user=42",
        "+",
        "remote_address=10.0.0.7",
        "+",
        "free=x",
        "+",
        "tried=x",
        "+",
        "user=42",
        "path=/other",
    ]);
    assert_eq!((all.code, &*all.stderr), (0, ""));
    let expected = [
        format!(
            "(user, 42), (path, /login): user.path_/login, FIXEDWINDOW 5 1h ALIGN 0 BLOCK 600000000us AFTER 1 ({path}:8:21)"
        ),
        format!("(user, 42): user, TOKENBUCKET 20 10/1m COST 2 ({path}:4:17)"),
        "(remote_address, 10.0.0.7): remote_address, which another rule replaces, so it passes"
            .into(),
        format!("(free, x): free, unlimited ({path}:12:17)"),
        format!("(tried, x): tried, FIXEDWINDOW 1 1d ALIGN 0, in shadow mode ({path}:15:17)"),
        "(user, 42), (path, /other): no rule, so it passes".into(),
    ];
    assert_eq!(all.stdout.lines().collect::<Vec<_>>(), expected);

    let wrong = run(&["explain", &path, "--domain", "x", "a=b"], &[]);
    assert_eq!((wrong.code, &*wrong.stderr), (1, "there is no domain \"x\"; there are: d\n"));
    let wrong = explain(&["user"]);
    assert_eq!((wrong.code, &*wrong.stderr), (1, "an entry is key=value, not \"user\"\n"));
    assert_eq!(explain(&[]).code, 2);
    rules.change("domain: [");
    assert_eq!(explain(&["a=b"]).code, 1);
}

#[test]
fn every_flag_can_be_given_by_the_environment() {
    let help = run(&["serve", "--help"], &[]);
    assert_eq!(help.code, 0);
    let flags: Vec<_> = help
        .stdout
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("--"))
        .map(|line| line.split([' ', '=']).next().unwrap())
        .collect();
    assert!(flags.len() >= 23, "{flags:?}");
    for flag in flags {
        let variable = format!("RL_GATEWAY_{}", flag.to_uppercase().replace('-', "_"));
        assert!(help.stdout.contains(&format!("[env: {variable}")), "--{flag}: {variable}");
    }
    // Of each, a value that it does not take: so it is read.
    for (variable, told) in [
        ("REDIS", "begins with redis://"),
        ("GRPC", "--grpc"),
        ("HTTP", "--http"),
        ("METRICS", "--metrics"),
        ("TIMEOUT", "a duration is"),
        ("ON_OUTAGE", "open, closed, local"),
        ("INSTANCES", "--instances"),
        ("REMEMBER", "--remember"),
        ("REMEMBER_FOR", "a duration is"),
        ("LONGEST_TURN", "a duration is"),
        ("SHADOW", "--shadow"),
        ("ALGORITHM", "token_bucket"),
        ("CALENDAR", "--calendar"),
        ("MERGE_DOMAINS", "--merge-domains"),
        ("FIELDS", "draft-11"),
        ("TRUSTED_PROXIES", "--trusted-proxies"),
        ("FORWARDED_HEADER", "x-forwarded-for"),
        ("PREFIX4", "--prefix4"),
        ("PREFIX6", "--prefix6"),
        ("NEAR_LIMIT", "--near-limit"),
        ("THREADS", "--threads"),
        ("LOG_FORMAT", "json"),
        ("DRAIN", "a duration is"),
    ] {
        let environment =
            [("RL_GATEWAY_CONFIG", "/nowhere"), (&*format!("RL_GATEWAY_{variable}"), "?")];
        let ended = run(&["serve"], &environment);
        assert_eq!(ended.code, 2, "{variable}: {}", ended.stderr);
        assert!(ended.stderr.contains(told), "{variable}: {}", ended.stderr);
    }
}

#[test]
fn it_does_not_start_without_what_it_needs() {
    let missing = run(&["serve", "--config", "/nowhere.yaml"], &[]);
    assert_eq!(missing.code, 1);
    assert!(missing.stderr.contains("/nowhere.yaml: No such file"), "{}", missing.stderr);
    let rules = Rules::new("domain: d\nrules: []\n");
    let path = rules.path().display().to_string();
    let broken = run(&["serve"], &[("RL_GATEWAY_CONFIG", &path)]);
    assert_eq!(broken.code, 1);
    assert!(broken.stderr.contains(&format!("{path}:2:1: ")), "{}", broken.stderr);
    rules.change(RULES);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let taken = run(&["serve", "--config", &path, "--grpc", &address], &[]);
    assert_eq!(taken.code, 1);
    assert!(taken.stderr.contains(&format!("--grpc {address}")), "{}", taken.stderr);
    assert_eq!(run(&["serve"], &[]).code, 2, "without a configuration");
}
