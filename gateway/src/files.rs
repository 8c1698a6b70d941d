//! The configuration's files: read, and read again when they change.
//!
//! What is watched is the folder, so that a file that an editor or Kubernetes replaces is noticed as well. Since a watch can
//! miss a change (on network file systems, or where a folder further up is swapped), the files are also compared every
//! [`LOOK`]. Only a changed text is loaded. A configuration that is broken, or cannot be read, leaves the old rules in place.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecursiveMode, Watcher as _};
use tokio::sync::Notify;

use crate::rules::{Options, Problem, Rules};
use crate::service::Service;

/// A change is read once nothing has changed for so long, since an editor writes in several steps.
const QUIET: Duration = Duration::from_millis(50);
/// How long a change waits for that at most.
const BUSY: Duration = Duration::from_secs(1);
/// How often the files are compared if nothing seems to change.
const LOOK: Duration = Duration::from_secs(5);

/// The name and the text of each file.
pub type Texts = Vec<(String, String)>;

/// Reads a file, or all files of a folder whose names end in `.yaml` or `.yml`, by name.
///
/// # Errors
/// One cannot be read, is not UTF-8, or there is none.
pub fn read(path: &Path) -> io::Result<Texts> {
    let named = |error: io::Error, path: &Path| {
        io::Error::new(error.kind(), format!("{}: {error}", path.display()))
    };
    let text = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).map_err(|error| named(error, &path))?;
        Ok((path.display().to_string(), text))
    };
    if !path.is_dir() {
        return Ok(vec![text(path.to_owned())?]);
    }
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(path).map_err(|error| named(error, path))? {
        let path = entry.map_err(|error| named(error, path))?.path();
        if is_rules(&path) {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("{}: no file ends in .yaml or .yml", path.display()),
        ));
    }
    paths.sort();
    paths.into_iter().map(text).collect()
}

/// Whether a file of a folder has rules, by its name.
fn is_rules(path: &Path) -> bool {
    let ending = path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml");
    ending && !begins(path, ".")
}

fn begins(path: &Path, text: &str) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(text.as_bytes()))
}

/// Reads and compiles a configuration.
///
/// # Errors
/// All that is wrong, with places.
pub fn load(path: &Path, options: &Options) -> Result<(Texts, Rules), Vec<Problem>> {
    let texts = read(path).map_err(unreadable)?;
    let rules = Rules::load(&texts, options)?;
    Ok((texts, rules))
}

fn unreadable(error: io::Error) -> Vec<Problem> {
    vec![Problem { place: "configuration".into(), message: error.to_string() }]
}

/// Gives the service new rules whenever the files change. Runs until it is dropped.
pub async fn watch(path: PathBuf, options: Options, mut known: Texts, service: Arc<Service>) {
    let changed = Arc::new(Notify::new());
    // Watches as long as it lives.
    let _watcher = start(&path, changed.clone())
        .inspect_err(|error| tracing::warn!(%error, "changes of the configuration are noticed only within {LOOK:?}"));
    // What changed before that is read at once.
    changed.notify_one();
    loop {
        if tokio::time::timeout(LOOK, changed.notified()).await.is_ok() {
            let quiet =
                async { while tokio::time::timeout(QUIET, changed.notified()).await.is_ok() {} };
            let _ = tokio::time::timeout(BUSY, quiet).await;
        }
        let (path, options, old) = (path.clone(), options.clone(), known);
        let look = move || look(&path, &options, old);
        // A file system that hangs holds up this task alone, and no thread that serves.
        let Ok((texts, change)) = tokio::task::spawn_blocking(look).await else { return };
        known = texts;
        match change {
            None => {}
            Some(Ok(rules)) => {
                tracing::info!(domains = ?rules.names(), "the configuration changed, and holds from now on");
                service.meters().register(&rules);
                service.set_rules(rules);
                service.meters().loaded(true);
            }
            Some(Err(problems)) => broken(&problems, &service),
        }
    }
}

/// The texts as they are now, and what they say if they are no longer the known ones. What cannot be read has none.
fn look(
    path: &Path,
    options: &Options,
    known: Texts,
) -> (Texts, Option<Result<Rules, Vec<Problem>>>) {
    match read(path) {
        Ok(texts) if texts == known => (known, None),
        Ok(texts) => {
            let rules = Rules::load(&texts, options);
            (texts, Some(rules))
        }
        Err(_) if known.is_empty() => (known, None),
        Err(error) => (Texts::new(), Some(Err(unreadable(error)))),
    }
}

fn broken(problems: &[Problem], service: &Service) {
    for problem in problems {
        tracing::error!(
            place = problem.place,
            "the configuration is broken, the old rules hold: {}",
            problem.message
        );
    }
    service.meters().loaded(false);
}

fn start(path: &Path, changed: Arc<Notify>) -> notify::Result<notify::RecommendedWatcher> {
    let (config, folder) = (path.to_owned(), path.is_dir());
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access() && may_be_ours(&event, &config, folder))
        {
            changed.notify_one();
        }
    })?;
    let parent =
        path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    watcher.watch(parent, RecursiveMode::NonRecursive)?;
    if folder {
        watcher.watch(path, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

/// Whether something may have changed in the configuration: in the folder there can be other files, which change all the time.
fn may_be_ours(event: &notify::Event, config: &Path, folder: bool) -> bool {
    let ours = |path: &PathBuf| {
        path.file_name() == config.file_name()
            || (folder && is_rules(path))
            // What the links of a ConfigMap lead through.
            || begins(path, "..")
    };
    // Without a path, events were lost.
    event.paths.is_empty() || event.paths.iter().any(ours)
}
