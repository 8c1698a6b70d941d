//! `make release`: in a clone of this repository, so that it has every file in which a version stands.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by a panic")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

fn run(folder: &Path, program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder);
    for name in ["GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"] {
        command.env(name, "somebody");
    }
    for name in ["GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"] {
        command.env(name, "somebody@localhost");
    }
    command.output().unwrap()
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, "git", arguments);
    assert!(output.status.success(), "git {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A clone with what the work tree has, and with this beginning of CHANGELOG.md; none if this is no clone itself.
fn clone_of_this(changelog: &str) -> Option<TempDir> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    if !here.join(".git").exists() {
        println!("not tested: this is no clone");
        return None;
    }
    let clone = tempfile::tempdir().unwrap();
    let path = clone.path();
    git(here, &["clone", "--quiet", "--no-local", ".", path.to_str().unwrap()]);
    for file in git(here, &["ls-files", "--cached", "--others", "--exclude-standard"]).lines() {
        fs::create_dir_all(path.join(file).parent().unwrap()).unwrap();
        // What is deleted and not committed is in neither.
        let _ = fs::copy(here.join(file), path.join(file));
    }
    let text = fs::read_to_string(path.join("CHANGELOG.md")).unwrap();
    let (head, entries) = text.split_once("\n## ").unwrap();
    let text =
        format!("{head}\n{changelog}\n## {entries}").replacen(" - unreleased", " - 2026-01-01", 1);
    fs::write(path.join("CHANGELOG.md"), text).unwrap();
    git(path, &["add", "--all"]);
    git(path, &["commit", "--quiet", "--message", "as it is"]);
    Some(clone)
}

fn release(folder: &Path, version: &str) -> Result<(), String> {
    let output = run(folder, "scripts/release", &[version]);
    let said = String::from_utf8(output.stderr).unwrap();
    if output.status.success() { Ok(()) } else { Err(said) }
}

#[test]
fn a_release_sets_the_version_everywhere_and_tags_the_commit() {
    let Some(clone) = clone_of_this("## Unreleased\n\n- Something new.\n") else { return };
    let path = clone.path();
    release(path, "7.8.9").unwrap();

    assert_eq!(git(path, &["describe", "--exact-match"]), "v7.8.9");
    assert_eq!(git(path, &["status", "--porcelain"]), "");
    assert!(run(path, "scripts/version", &["check"]).status.success());
    for mode in [&[][..], &["package"]] {
        let version = run(path, "scripts/version", mode).stdout;
        assert_eq!(String::from_utf8(version).unwrap(), "7.8.9\n");
    }
    let changelog = fs::read_to_string(path.join("CHANGELOG.md")).unwrap();
    assert!(changelog.contains("\n## 7.8.9 - 2") && !changelog.contains("## Unreleased"));
    // A file more than these would be one that says its version in vain.
    let changed = git(path, &["show", "--format=", "--name-only", "HEAD"]);
    let expected = "CHANGELOG.md\nCargo.lock\nCargo.toml\nclients/node/README.md\nclients/node/package-lock.json\n\
                    clients/node/package.json\nclients/python/pyproject.toml";
    assert_eq!(changed, expected);

    // The packages of the next commit are newer than the release's.
    fs::write(path.join("new"), "").unwrap();
    git(path, &["add", "new"]);
    git(path, &["commit", "--quiet", "--message", "after it"]);
    let version = String::from_utf8(run(path, "scripts/version", &["package"]).stdout).unwrap();
    assert!(version.starts_with("7.8.9+git2"), "{version}");
}

#[test]
fn a_release_refuses_what_is_not_ready() {
    let Some(clone) = clone_of_this("## Unreleased\n\n- Something new.\n") else { return };
    let path = clone.path();
    let head = git(path, &["rev-parse", "HEAD"]);
    for (version, reason) in [
        ("", "usage"),
        ("1.2", "usage"),
        ("1.2.3-rc1", "usage"),
        ("01.2.3", "usage"),
        ("0.0.9", "later than 0.0.9"),
    ] {
        let said = release(path, version).unwrap_err();
        assert!(said.contains(reason), "{version}: {said}");
    }
    git(path, &["tag", "v7.8.9"]);
    assert!(release(path, "7.8.9").unwrap_err().contains("a tag v7.8.9 already"));
    fs::write(path.join("stray"), "").unwrap();
    assert!(release(path, "7.9.0").unwrap_err().contains("not committed"));
    fs::remove_file(path.join("stray")).unwrap();
    assert_eq!(git(path, &["rev-parse", "HEAD"]), head);
    assert_eq!(git(path, &["status", "--porcelain"]), "");
}

#[test]
fn a_release_needs_an_entry_in_the_changelog() {
    let Some(clone) = clone_of_this("## Unreleased\n") else { return };
    assert!(release(clone.path(), "7.8.9").unwrap_err().contains("says nothing"));
    let Some(clone) = clone_of_this("") else { return };
    assert!(release(clone.path(), "7.8.9").unwrap_err().contains("is to begin with"));
}

#[test]
fn versions_that_differ_are_found() {
    for (file, from, to) in [
        ("clients/node/package.json", "\n  \"version\": \"", "\n  \"version\": \"9"),
        ("clients/node/package-lock.json", "\n  \"version\": \"", "\n  \"version\": \"9"),
        ("clients/python/pyproject.toml", "\nversion = \"", "\nversion = \"9"),
        ("tools/Cargo.toml", "version.workspace = true", "version = \"9.9.9\""),
        ("CHANGELOG.md", "\n## 0", "\n## 90"),
    ] {
        let Some(clone) = clone_of_this("") else { return };
        let path = clone.path().join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{file}");
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let output = run(clone.path(), "scripts/version", &["check"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(file), "{file}: {said}");
    }
}
