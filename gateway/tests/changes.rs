//! The configuration while it is changed: nobody notices but by the new limits.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use tokio::task::JoinSet;

use crate::asks::{Client, Rules, Site, descriptor, metric, until_metrics};
use crate::program::Gateway;
use crate::server::Server;
use crate::store::until;

fn rules(limit: u32) -> String {
    format!(
        "domain: d\ndescriptors:\n  - key: user\n    rate_limit: {{unit: year, requests_per_unit: {limit}}}\n"
    )
}

async fn until_limit(client: &Client, limit: u32) {
    until("the new limit", async || client.ask(&[descriptor("user=x")]).await.limit() == limit)
        .await;
}

/// Clients that ask as long as the rules are changed. None may be refused, and none fail.
struct Load {
    tasks: JoinSet<()>,
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
}

impl Load {
    fn start(client: &Client) -> Self {
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = JoinSet::new();
        for task in 0..10 {
            let (client, stop, answers) = (client.clone(), Arc::clone(&stop), Arc::clone(&answers));
            tasks.spawn(async move {
                while !stop.load(Relaxed) {
                    let answer = client.ask(&[descriptor(&format!("user={task}"))]).await;
                    assert!(answer.passes() && answer.limit() > 1_000_000, "{answer:?}");
                    answers.fetch_add(1, Relaxed);
                }
            });
        }
        Self { tasks, stop, answers }
    }

    async fn end(mut self) {
        self.stop.store(true, Relaxed);
        while let Some(task) = self.tasks.join_next().await {
            task.unwrap();
        }
        let answers = self.answers.load(Relaxed);
        println!("{answers} answers while the rules were changed");
        assert!(answers > 100);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_under_load_loses_nothing_and_holds_from_the_next_request_on() {
    let site = Site::start(&rules(2_000_000)).await;
    let load = Load::start(&site.client);
    for round in 0..6 {
        let limit = 3_000_000 + round;
        if round % 2 == 0 {
            site.rules.change(&rules(limit));
        } else {
            // As editors do it.
            let new = site.rules.folder().join("new~");
            fs::write(&new, rules(limit)).unwrap();
            fs::rename(&new, site.rules.path()).unwrap();
        }
        until_metrics(&site.gateway, "the rules to be loaded", |text| {
            metric(text, "rl_gateway_config_loads_total", &[("result", "ok")])
                >= f64::from(round + 2)
        })
        .await;
        // No request from now on is decided by the old ones.
        for _ in 0..10 {
            assert_eq!(site.client.ask(&[descriptor("user=x")]).await.limit(), limit);
        }
    }
    load.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_file_keeps_the_old_rules_and_is_told() {
    let site = Site::start(&rules(2_000_000)).await;
    let load = Load::start(&site.client);
    let path = site.rules.path().display().to_string();
    let ok = |text: &str| metric(text, "rl_gateway_config_ok", &[]) > 0.5;
    until_metrics(&site.gateway, "a good configuration", ok).await;

    site.rules.change(&rules(7).replace("year", "fortnight"));
    until_metrics(&site.gateway, "the metric", |text| !ok(text)).await;
    let log = site.gateway.log();
    assert!(log.contains(&format!("{path}:4:17")) && log.contains("not \"fortnight\""), "{log}");
    assert_eq!(site.client.ask(&[descriptor("user=x")]).await.limit(), 2_000_000);

    site.rules.change("domain: d\n  descriptors: [");
    until("the log", async || site.gateway.log().contains(&format!("{path}:2:"))).await;
    fs::remove_file(site.rules.path()).unwrap();
    until("the log", async || site.gateway.log().contains("No such file")).await;
    assert_eq!(site.client.ask(&[descriptor("user=x")]).await.limit(), 2_000_000);

    site.rules.change(&rules(4_000_000));
    until_limit(&site.client, 4_000_000).await;
    until_metrics(&site.gateway, "a good configuration again", ok).await;
    // Back to what holds already, after a broken one.
    site.rules.change("{");
    until_metrics(&site.gateway, "the metric", |text| !ok(text)).await;
    site.rules.change(&rules(4_000_000));
    until_metrics(&site.gateway, "a good configuration again", ok).await;
    load.end().await;
}

#[tokio::test]
async fn files_come_to_a_folder_and_go() {
    let site = Site::start(&rules(5)).await;
    let gateway = Gateway::start(&site.server, site.rules.folder(), &[]);
    let client = Client::connect(&gateway).await;
    until_limit(&client, 5).await;
    let second = site.rules.folder().join("second.yml");
    fs::write(&second, rules(6).replace("domain: d", "domain: e")).unwrap();
    let other = client.domain("e");
    let has_rule =
        async || other.ask(&[descriptor("user=y")]).await.status(0).current_limit.is_some();
    until("the second domain", has_rule).await;
    until_limit(&client, 5).await;
    // What is no configuration is not read.
    fs::write(site.rules.folder().join("notes.txt"), "x: [").unwrap();
    fs::write(site.rules.folder().join(".hidden.yaml"), "x: [").unwrap();
    fs::remove_file(&second).unwrap();
    until("the domain to go", async || !has_rule().await).await;
    until_metrics(&gateway, "no error", |text| {
        metric(text, "rl_gateway_config_loads_total", &[("result", "error")]) == 0.0
    })
    .await;
}

/// As Kubernetes mounts a ConfigMap: files are links into `..data`, itself a link that is swapped.
#[tokio::test]
async fn links_that_are_swapped_are_noticed() {
    let (server, folder) = (Server::start().unwrap(), Rules::new(""));
    let folder = folder.folder();
    fs::remove_file(folder.join("rules.yaml")).unwrap();
    let version = |number: u32| {
        let name = format!("..version{number}");
        fs::create_dir(folder.join(&name)).unwrap();
        fs::write(folder.join(&name).join("rules.yaml"), rules(number)).unwrap();
        symlink(&name, folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    };
    version(5);
    symlink(Path::new("..data").join("rules.yaml"), folder.join("rules.yaml")).unwrap();
    for config in [folder.to_owned(), folder.join("rules.yaml")] {
        let gateway = Gateway::start(&server, &config, &[]);
        let client = Client::connect(&gateway).await;
        let before = client.ask(&[descriptor("user=x")]).await.limit();
        version(before + 1);
        until_limit(&client, before + 1).await;
        fs::remove_dir_all(folder.join(format!("..version{before}"))).unwrap();
        version(before + 2);
        until_limit(&client, before + 2).await;
    }
}
