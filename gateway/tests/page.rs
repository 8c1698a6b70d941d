//! `docs/gateway.md` says what is so: the configurations that the tests run, what clients saw, all flags, all metrics.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use crate::program::Gateway;
use crate::proxies::{Site, file};
use crate::server::Server;

fn docs(name: &str) -> String {
    fs::read_to_string(file("docs").join(name)).unwrap()
}

fn page() -> String {
    docs("gateway.md")
}

/// The table's row of this proxy: a client's first login, and its sixth within an hour.
pub async fn shows_what_clients_see(site: &Site) {
    let client = site.client("127.0.0.1").with("x-user", "ivan");
    let granted = client.get("/login").await;
    client.statuses("/login", 4).await;
    let refused = client.get("/login").await;
    let name = site.kind.name;
    let row = format!("| {name} | {} | {} |", granted.shown(), refused.shown());
    assert!(
        without_times(&page()).contains(&without_times(&row)),
        "docs/gateway.md has no row like this one:\n{row}"
    );
}

/// The same without the numbers that are times.
fn without_times(text: &str) -> String {
    let mut text = text.to_owned();
    for time in [";t=", "Retry-After: ", "-Reset: "] {
        let mut parts = text.split(time);
        let first = parts.next().unwrap_or_default().to_owned();
        let rest = parts.map(|part| part.trim_start_matches(|c: char| c.is_ascii_digit()));
        text = rest.fold(first, |text, part| text + time + part);
    }
    text
}

#[test]
fn the_configurations_stand_in_the_page() {
    let page = page();
    for entry in fs::read_dir(file("gateway/examples")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            page.contains(&format!("\n{text}```\n")),
            "docs/gateway.md has another {}",
            path.display()
        );
    }
}

/// Every block of YAML that names a domain is a configuration.
#[test]
fn the_pages_rules_can_be_read() {
    let page = page();
    let blocks = page.split("```yaml\n").skip(1).map(|block| block.split_once("```\n").unwrap().0);
    let rules: Vec<_> = blocks.filter(|block| block.contains("\ndescriptors:")).collect();
    assert!(rules.len() > 2, "{}", rules.len());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yaml");
    for rules in rules {
        fs::write(&file, rules).unwrap();
        let output = program(&["check", file.to_str().unwrap()]);
        assert!(output.contains("1 file, domains: "), "{output}{rules}");
    }
}

fn program(arguments: &[&str]) -> String {
    let output =
        Command::new(env!("CARGO_BIN_EXE_redis-rl-gateway")).args(arguments).output().unwrap();
    [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat()
}

/// The words of a text that begin like this.
fn words<'a>(text: &'a str, prefix: &str) -> BTreeSet<&'a str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    let words = text.split(move |c| !is_part(c));
    words
        .filter(|word| {
            word.starts_with(prefix) && word.ends_with(|c: char| c.is_ascii_alphanumeric())
        })
        .collect()
}

#[test]
fn the_page_has_all_flags_and_no_others() {
    let help = program(&["serve", "--help"]);
    let page = page();
    let table = page.split("## Flags").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut flags = words(&help, "--");
    flags.remove("--help");
    // Of a feature that is not built by default.
    flags.insert("--otlp");
    assert_eq!(words(table, "--"), flags);
    let mut variables = words(&help, "RL_GATEWAY_");
    variables.insert("RL_GATEWAY_OTLP");
    let unknown: Vec<_> = words(&page, "RL_GATEWAY_").difference(&variables).copied().collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

/// All metrics that a gateway shows once everything has happened to it, and no others, stand in the page; and the dashboard asks
/// for all of them.
#[tokio::test]
async fn the_page_and_the_dashboard_have_all_metrics_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yaml");
    fs::write(
        &file,
        "domain: d\ndescriptors: [{key: k, rate_limit: {unit: day, requests_per_unit: 1}}]\n",
    )
    .unwrap();
    let mut server = Server::start().unwrap();
    let gateway = Gateway::start(&server, &file, &[]);
    let client = reqwest::Client::new();
    let ask = async |body: &'static str| {
        let url = format!("http://127.0.0.1:{}/json", gateway.http);
        client.post(url).body(body).send().await.unwrap().status().as_u16()
    };
    let request = r#"{"domain": "d", "descriptors": [{"entries": [{"key": "k", "value": "v"}]}]}"#;
    let another = r#"{"domain": "d", "descriptors": [{"entries": [{"key": "k", "value": "w"}]}]}"#;
    assert_eq!([ask(request).await, ask(request).await, ask("{").await], [200, 429, 400]);
    server.kill();
    assert_eq!(ask(another).await, 200);
    let text = client
        .get(format!("http://127.0.0.1:{}/metrics", gateway.metrics))
        .send()
        .await
        .unwrap()
        .text()
        .await;
    let text = text.unwrap();

    let shown: BTreeSet<_> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let page = page();
    assert_eq!(words(&page, "rl_gateway_"), shown, "docs/gateway.md");
    let dashboard = docs("gateway-dashboard.json");
    let parsed: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    assert!(parsed["panels"].as_array().is_some_and(|panels| !panels.is_empty()));
    let asked: BTreeSet<_> = words(&dashboard, "rl_gateway_")
        .into_iter()
        .map(|name| name.trim_end_matches("_bucket"))
        .collect();
    assert_eq!(asked, shown, "docs/gateway-dashboard.json");
}
