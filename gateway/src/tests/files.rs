//! The watch over the configuration: a change holds soon, and a broken one changes nothing.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::style;
use crate::files::{load, watch};
use crate::metrics::Meters;
use crate::redis::{self, Store};
use crate::rules::Options;
use crate::service::{Outage, Service, Settings};

/// Longer than the watch needs on any machine: it looks by itself every 5 seconds.
const SOON: Duration = Duration::from_secs(20);

fn text(domain: &str) -> String {
    format!("domain: {domain}\n")
}

/// A service whose rules are watched, as the program runs it.
struct Watched {
    service: Arc<Service>,
    task: JoinHandle<()>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watched {
    fn start(path: &Path) -> Self {
        let (texts, rules) = load(path, &Options::default()).unwrap();
        // Nobody is asked.
        let url = "redis://127.0.0.1:1".parse().unwrap();
        let store = Store::start(redis::Settings { url, timeout: Duration::from_millis(50) });
        let settings = Settings {
            style: style(false),
            on_outage: Outage::Open,
            shadow: false,
            near_limit: 80,
            remember: 0,
            remember_for: Duration::ZERO,
            instances: 1,
        };
        let service = Arc::new(Service::new(rules, store, settings, Meters::default()));
        let task = tokio::spawn(watch(path.to_owned(), Options::default(), texts, service.clone()));
        Self { service, task }
    }

    fn domains(&self) -> Vec<String> {
        self.service.rules().names().into_iter().map(str::to_owned).collect()
    }

    async fn become_soon(&self, expected: &[&str]) {
        let began = Instant::now();
        while self.domains() != expected {
            assert!(began.elapsed() < SOON, "{:?}, not {expected:?}", self.domains());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn a_file_that_is_written_anew_holds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rules.yaml");
    fs::write(&path, text("a")).unwrap();
    let watched = Watched::start(&path);
    assert_eq!(watched.domains(), ["a"]);
    for domain in ["b", "c"] {
        fs::write(&path, text(domain)).unwrap();
        watched.become_soon(&[domain]).await;
    }
}

#[tokio::test]
async fn a_file_that_an_editor_replaces_holds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rules.yaml");
    fs::write(&path, text("a")).unwrap();
    let watched = Watched::start(&path);
    for domain in ["b", "c"] {
        let draft = folder.path().join(".rules.yaml.swp");
        fs::write(&draft, text(domain)).unwrap();
        fs::rename(&draft, &path).unwrap();
        watched.become_soon(&[domain]).await;
    }
}

#[tokio::test]
async fn files_come_and_go_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    fs::write(file("a.yaml"), text("a")).unwrap();
    let watched = Watched::start(folder.path());
    fs::write(file("b.yml"), text("b")).unwrap();
    watched.become_soon(&["a", "b"]).await;
    fs::write(file("b.yml"), text("c")).unwrap();
    watched.become_soon(&["a", "c"]).await;
    fs::remove_file(file("a.yaml")).unwrap();
    watched.become_soon(&["c"]).await;
}

/// As Kubernetes mounts a ConfigMap: `rules.yaml -> ..data/rules.yaml`, and `..data -> ..1`, which is swapped.
#[cfg(unix)]
#[tokio::test]
async fn a_folder_that_kubernetes_swaps_holds() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let put = |version: &str| {
        let data = folder.path().join(version);
        fs::create_dir(&data).unwrap();
        fs::write(data.join("rules.yaml"), text(version.trim_start_matches('.'))).unwrap();
        symlink(version, folder.path().join("..new")).unwrap();
        fs::rename(folder.path().join("..new"), folder.path().join("..data")).unwrap();
    };
    put("..v1");
    symlink("..data/rules.yaml", folder.path().join("rules.yaml")).unwrap();
    let (of_folder, of_file) =
        (Watched::start(folder.path()), Watched::start(&folder.path().join("rules.yaml")));
    for version in ["v2", "v3"] {
        put(&format!("..{version}"));
        of_folder.become_soon(&[version]).await;
        of_file.become_soon(&[version]).await;
    }
}

#[tokio::test]
async fn a_broken_file_keeps_the_old_rules_until_it_is_mended() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    fs::write(file("a.yaml"), text("a")).unwrap();
    let watched = Watched::start(folder.path());
    fs::write(file("b.yaml"), "domain: [").unwrap();
    // The next change that holds is of the mended file: nothing of the broken configuration held before.
    fs::write(file("a.yaml"), text("c")).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(watched.domains(), ["a"]);
    fs::write(file("b.yaml"), text("b")).unwrap();
    watched.become_soon(&["b", "c"]).await;
    // Without any file the old rules hold as well.
    fs::remove_file(file("a.yaml")).unwrap();
    fs::remove_file(file("b.yaml")).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!watched.domains().is_empty(), "the rules are gone with the files");
    fs::write(file("d.yaml"), text("d")).unwrap();
    watched.become_soon(&["d"]).await;
}
