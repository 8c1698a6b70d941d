//! The watch over the configuration: a change holds soon, and a broken one changes nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use metrics_exporter_prometheus::PrometheusBuilder;
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

/// Writes a file again and again until it is dropped.
struct Writer(Arc<AtomicBool>, Option<std::thread::JoinHandle<()>>);

impl Writer {
    fn start(path: PathBuf, text: String) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Relaxed) {
                fs::write(&path, &text).unwrap();
                std::thread::sleep(Duration::from_millis(3));
            }
        });
        Self(stop, Some(thread))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
        self.1.take().map(std::thread::JoinHandle::join);
    }
}

/// Whoever writes in the folder, rules or something else, delays a change and does not prevent it.
#[tokio::test]
async fn a_change_holds_in_a_folder_that_is_busy() {
    for (busy, written) in [("log.txt", "a line"), ("b.yaml", "domain: b\n")] {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        for name in ["a", "b"] {
            fs::write(file(&format!("{name}.yaml")), text(name)).unwrap();
        }
        let of_folder = Watched::start(folder.path());
        let of_file = Watched::start(&file("a.yaml"));
        let _writer = Writer::start(file(busy), written.to_owned());
        for domain in ["c", "d"] {
            fs::write(file("a.yaml"), text(domain)).unwrap();
            of_file.become_soon(&[domain]).await;
            of_folder.become_soon(&["b", domain]).await;
        }
    }
}

/// As on a file system that hangs: the file is a pipe that nobody writes to. There is only this thread to serve requests.
#[cfg(unix)]
#[tokio::test]
async fn a_file_that_cannot_be_read_for_a_while_holds_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rules.yaml");
    fs::write(&path, text("a")).unwrap();
    let watched = Watched::start(&path);
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    fs::rename(&pipe, &path).unwrap();
    let (opened, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (is_opened, is_served) = (Arc::clone(&opened), Arc::clone(&served));
    let writer = std::thread::spawn(move || {
        // Waits for the reader, who then waits for the text.
        let mut pipe = fs::OpenOptions::new().write(true).open(&path).unwrap();
        is_opened.store(true, Relaxed);
        let began = Instant::now();
        while !is_served.load(Relaxed) && began.elapsed() < SOON {
            std::thread::sleep(Duration::from_millis(5));
        }
        let in_time = is_served.load(Relaxed);
        std::io::Write::write_all(&mut pipe, text("b").as_bytes()).unwrap();
        // Another look would wait for another writer.
        fs::write(path.with_extension("new"), text("b")).unwrap();
        fs::rename(path.with_extension("new"), &path).unwrap();
        in_time
    });
    while !opened.load(Relaxed) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    served.store(true, Relaxed);
    watched.become_soon(&["b"]).await;
    assert!(writer.join().unwrap(), "nobody was served while the file was read");
}

#[tokio::test]
async fn a_broken_file_keeps_the_old_rules_until_it_is_mended() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    fs::write(file("a.yaml"), text("a")).unwrap();
    let recorder = PrometheusBuilder::new().build_recorder();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let errors = || {
        let text = recorder.handle().render();
        let series = "rl_gateway_config_loads_total{result=\"error\"} ";
        text.lines().find_map(|line| line.strip_prefix(series)?.parse().ok()).unwrap_or(0_u64)
    };
    let one_more_error = async |before: u64| {
        let began = Instant::now();
        while errors() <= before {
            assert!(began.elapsed() < SOON, "no error is counted");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let watched = Watched::start(folder.path());
    fs::write(file("b.yaml"), "domain: [").unwrap();
    one_more_error(0).await;
    assert_eq!(watched.domains(), ["a"]);
    let before = errors();
    // Nothing of a configuration holds of which a part is broken.
    fs::write(file("a.yaml"), text("c")).unwrap();
    one_more_error(before).await;
    assert_eq!(watched.domains(), ["a"]);
    fs::write(file("b.yaml"), text("b")).unwrap();
    watched.become_soon(&["b", "c"]).await;
    // Without any file the old rules hold as well.
    let before = errors();
    fs::remove_file(file("a.yaml")).unwrap();
    fs::remove_file(file("b.yaml")).unwrap();
    one_more_error(before).await;
    assert!(!watched.domains().is_empty(), "the rules are gone with the files");
    fs::write(file("d.yaml"), text("d")).unwrap();
    watched.become_soon(&["d"]).await;
}
