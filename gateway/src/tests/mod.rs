//! Unit tests that are more than a file's own.

#![allow(
    missing_docs,
    clippy::float_arithmetic,
    clippy::cast_possible_truncation,
    reason = "a test fails by a panic"
)]

mod answer;
mod explain;
mod files;
mod http;
mod identity;
mod json;
mod keys;
mod metrics;
mod original;
mod plan;
mod rules;
mod statuses;
mod vectors;
mod yaml;

use proptest::prelude::{ProptestConfig, Strategy};
use proptest::test_runner::TestRunner;

use crate::plan::Style;
use crate::request::{Descriptor, Entry, Request};
use crate::rules::limit::{Algorithm, LONGEST_TURN};
use crate::rules::{KeyStyle, Options, Rules};

/// The rules of a file `rules.yaml` with this text.
fn load(text: &str) -> Result<Rules, String> {
    load_with(text, &Options::default())
}

fn load_with(text: &str, options: &Options) -> Result<Rules, String> {
    Rules::load(&[("rules.yaml".to_owned(), text.to_owned())], options)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

/// A descriptor of entries, like `user=42 path=/login`.
fn descriptor(entries: &str) -> Descriptor {
    let entry = |text: &str| {
        let (key, value) = text.split_once('=').unwrap();
        Entry { key: key.to_owned(), value: value.to_owned() }
    };
    Descriptor {
        entries: entries.split(' ').filter(|text| !text.is_empty()).map(entry).collect(),
        ..Descriptor::default()
    }
}

/// A request of one hit on these descriptors, separated by `+`.
fn request(descriptors: &str) -> Request {
    Request {
        domain: "d".to_owned(),
        descriptors: descriptors.split('+').map(|entries| descriptor(entries.trim())).collect(),
        hits: None,
    }
}

fn style(cluster: bool) -> Style {
    let keys = KeyStyle { prefix: "rl".to_owned(), pepper: None };
    Style { keys, algorithm: Algorithm::FixedWindow, longest_turn: LONGEST_TURN, cluster }
}

/// A command as one would type it.
fn typed(command: &redis::Cmd) -> String {
    let args = command.args_iter().filter_map(|arg| match arg {
        redis::Arg::Simple(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        _ => None,
    });
    args.collect::<Vec<_>>().join(" ")
}

/// Fails with all rows that do not hold.
fn hold(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Tries a promise on random cases: so many, or a hundred times as many if `RL_LONG=1` asks for it.
fn random<S: Strategy>(usual: u32, strategy: &S, promise: impl Fn(S::Value))
where
    S::Value: Clone,
{
    let long = std::env::var("RL_LONG").is_ok_and(|value| value == "1");
    let config = ProptestConfig {
        cases: if long { usual.saturating_mul(100) } else { usual },
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let result = TestRunner::new(config).run(strategy, |value| {
        promise(value);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}
