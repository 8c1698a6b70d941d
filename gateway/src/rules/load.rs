//! From YAML to a tree. Whatever is wrong is found here, with its place, so that no request meets it.

use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_saphyr::{Error, Location, Spanned, UserMessageFormatter};

use super::file::{BlockText, File, Node as Written, RateLimit};
use super::limit::{self, Algorithm, Block, LONGEST_TURN, Limit};
use super::tree::{Domain, Level, Mode, Node, Pattern, Rule};
use crate::answer::fields;
use crate::key_part::KeyPart;
use crate::plan::MOST_DESCRIPTORS;
use crate::request::Unit;

/// What holds for rules that do not say so themselves.
#[derive(Clone, Debug)]
pub struct Options {
    /// The algorithm of rules that name none.
    pub algorithm: Algorithm,
    /// Fixed windows of a day or longer are the calendar's.
    pub calendar: bool,
    /// Several files may have rules of one domain.
    pub merge_domains: bool,
    /// For how long a leaky bucket lets a request wait for its turn at most.
    pub longest_turn: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::FixedWindow,
            calendar: false,
            merge_domains: false,
            longest_turn: LONGEST_TURN,
        }
    }
}

/// Something wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// File, line and column, as far as they are known: `rules.yaml:3:5`.
    pub place: String,
    /// What is wrong, and what is allowed.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

pub(super) fn load(
    files: &[(String, String)],
    options: &Options,
) -> Result<Vec<Domain>, Vec<Problem>> {
    let mut domains: Vec<Domain> = Vec::new();
    let mut problems = Vec::new();
    for (file, text) in files {
        let mut reader = Reader { file, options, problems: &mut problems, templates: Vec::new() };
        if let Some(read) = reader.parse(text) {
            reader.domain(read, &mut domains);
        }
    }
    if problems.is_empty() { Ok(domains) } else { Err(problems) }
}

struct Reader<'a> {
    file: &'a str,
    options: &'a Options,
    problems: &'a mut Vec<Problem>,
    templates: Vec<Vec<String>>,
}

/// Where a node stands, for labels and messages.
#[derive(Clone, Default)]
struct Above {
    label: String,
    keys: Vec<String>,
    detailed: bool,
}

impl Reader<'_> {
    fn parse(&mut self, text: &str) -> Option<File> {
        match serde_saphyr::from_str(text) {
            Ok(file) => Some(file),
            Err(error) => {
                let message = sentence(error.without_snippet());
                match error.location() {
                    None => self.problems.push(Problem { place: self.file.to_owned(), message }),
                    Some(at) => {
                        // The place is told once, and before the message.
                        let place = format!(" at line {}, column {}", at.line(), at.column());
                        self.wrong(at, message.strip_suffix(&place).unwrap_or(&message));
                    }
                }
                None
            }
        }
    }

    fn place(&self, at: Location) -> String {
        format!("{}:{}:{}", self.file, at.line(), at.column())
    }

    fn wrong(&mut self, at: Location, message: impl Into<String>) {
        let place = self.place(at);
        self.problems.push(Problem { place, message: message.into() });
    }

    fn domain(&mut self, file: File, domains: &mut Vec<Domain>) {
        let at = file.domain.defined;
        let name = file.domain.value;
        if name.is_empty() {
            return self.wrong(at, "the domain has no name");
        }
        let known = domains.iter().position(|domain| domain.name == name);
        if known.is_some() && !self.options.merge_domains {
            return self.wrong(at, format!("the domain {name:?} stands in another file already; --merge-domains allows that"));
        }
        let mut domain = known.map(|at| domains.swap_remove(at)).unwrap_or_default();
        domain.name = name;
        for key in file.hash_tag {
            if !domain.hash_tag.contains(&key.value) {
                domain.hash_tag.push(key.value);
            }
        }
        domain.check.extend(file.check);
        self.level(&mut domain.root, file.descriptors.unwrap_or_default(), &Above::default());
        for template in std::mem::take(&mut self.templates) {
            if !domain.templates.contains(&template) {
                domain.templates.push(template);
            }
        }
        let paths = domain.templates.len();
        // Who asks by gRPC says itself about what.
        if paths > MOST_DESCRIPTORS && !domain.check.is_empty() {
            self.wrong(at, format!("rules stand at the ends of {paths} paths of keys, and of a domain with `check` at most {MOST_DESCRIPTORS}: /check asks about each"));
        }
        domains.push(domain);
    }

    fn level(&mut self, level: &mut Level, nodes: Vec<Written>, above: &Above) {
        for written in nodes {
            let at = written.key.defined;
            if written.key.value.is_empty() {
                self.wrong(at, "a descriptor needs a key");
                continue;
            }
            let key = written.key.value.clone();
            let text = written
                .value
                .as_ref()
                .map(|value| value.value.clone())
                .filter(|value| !value.is_empty());
            let shown = text.as_deref().map(|text| shown(text, written.secret));
            let here = self.here(above, &written, shown.as_deref());
            let node = self.node(written, shown, &here);
            let values = level.keys.entry(key).or_default();
            let taken = match text {
                None => values.any.replace(Box::new(node)).is_some(),
                Some(text) => match Pattern::parse(&text) {
                    Some(pattern) => {
                        let twice = values
                            .patterns
                            .iter()
                            .any(|(_, other)| other.value.as_deref() == Some(&*text));
                        values.patterns.push((pattern, node));
                        twice
                    }
                    None => match values.exact.entry(text) {
                        Entry::Occupied(_) => true,
                        Entry::Vacant(free) => {
                            free.insert(node);
                            false
                        }
                    },
                },
            };
            if taken {
                self.wrong(at, format!("{} stands here for the second time", here.label));
            }
        }
    }

    fn here(&self, above: &Above, written: &Written, value: Option<&str>) -> Above {
        let mut here = above.clone();
        if !here.label.is_empty() {
            here.label.push('.');
        }
        here.label.push_str(&written.key.value);
        if let Some(value) = value {
            here.label.push('_');
            here.label.push_str(value);
        }
        here.keys.push(written.key.value.clone());
        here.detailed |= written.value_to_metric;
        here
    }

    fn node(&mut self, written: Written, value: Option<String>, here: &Above) -> Node {
        let at = written.key.defined;
        let pattern = value.as_deref().is_some_and(|value| value.contains('*'));
        if written.share_threshold && !pattern {
            self.wrong(at, "share_threshold goes with a value that holds *");
        }
        if written.shadow_mode && written.quota_mode {
            self.wrong(at, "a rule has shadow_mode or quota_mode, not both");
        }
        let mode = match (written.shadow_mode, written.quota_mode) {
            (true, _) => Mode::Shadow,
            (_, true) => Mode::Quota,
            _ => Mode::Enforced,
        };
        let rule = written
            .rate_limit
            .and_then(|limit| self.rule(limit, mode, written.detailed_metric, here));
        let mut below = Level::default();
        self.level(&mut below, written.descriptors.unwrap_or_default(), here);
        Node {
            rule: rule.map(Arc::new),
            below,
            shared: value.clone().filter(|_| written.share_threshold),
            secret: written.secret,
            value_to_metric: written.value_to_metric,
            detailed_metric: written.detailed_metric,
            value,
        }
    }

    fn rule(
        &mut self,
        written: Spanned<RateLimit>,
        mode: Mode,
        detailed: bool,
        here: &Above,
    ) -> Option<Rule> {
        let at = written.defined;
        let written = written.value;
        let name = written.name.clone().filter(|name| !name.is_empty());
        if written.replaces.iter().any(|other| other.name.is_empty()) {
            self.wrong(at, "replaces has an entry without a name");
        }
        if written.replaces.iter().any(|other| Some(&other.name) == name.as_ref()) {
            self.wrong(at, "a rule cannot replace itself");
        }
        if let Some(name) = name.as_deref().filter(|name| fields::check_name(name).is_err()) {
            self.wrong(
                at,
                format!("the name stands in header fields: printable ASCII alone, not {name:?}"),
            );
        }
        let limit = match self.limit(&written) {
            Ok(limit) => limit,
            Err(message) => {
                self.wrong(at, message);
                return None;
            }
        };
        let concurrent =
            limit.as_ref().is_some_and(|limit| limit.algorithm == Algorithm::Concurrency);
        if written.force && (concurrent || limit.is_none()) {
            self.wrong(at, "force goes with a limit that counts over time");
        }
        if written.force && mode != Mode::Enforced {
            self.wrong(at, "force does not go with shadow_mode or quota_mode");
        }
        if !self.templates.contains(&here.keys) {
            self.templates.push(here.keys.clone());
        }
        Some(Rule {
            policy: name.clone().unwrap_or_else(|| printable(&here.label)),
            label: here.label.clone(),
            detailed: detailed || here.detailed,
            name,
            replaces: written.replaces.into_iter().map(|other| other.name).collect(),
            limit,
            mode,
            force: written.force,
            place: self.place(at),
        })
    }

    /// The limit, or `None` if nothing is limited.
    fn limit(&self, written: &RateLimit) -> Result<Option<Limit>, String> {
        let leases =
            written.concurrency.is_some() || written.algorithm == Some(Algorithm::Concurrency);
        let unit = written.unit.as_deref().map(|name| {
            Unit::parse(name).ok_or_else(|| {
                format!("unit is second, minute, hour, day, week, month or year, not {name:?}")
            })
        });
        let unit = unit.transpose()?;
        if written.unlimited {
            if unit.is_some() {
                return Err("an unlimited rule has no unit".into());
            }
            if written.counts() {
                return Err(
                    "an unlimited rule has no limit: it goes only with name and replaces".into()
                );
            }
            return Ok(None);
        }
        let limit = if leases { self.leases(written)? } else { self.rate(written, unit)? };
        limit.check()?;
        Ok(Some(limit))
    }

    fn leases(&self, written: &RateLimit) -> Result<Limit, String> {
        if !matches!(written.algorithm, None | Some(Algorithm::Concurrency)) {
            return Err("a rule has concurrency, or an algorithm that counts over time".into());
        }
        if written.unit.is_some() || written.requests_per_unit.is_some() {
            return Err("leases have no unit: say concurrency, the most that are held at the same time, and ttl".into());
        }
        let most = written
            .concurrency
            .ok_or("the algorithm concurrency needs concurrency: the most leases")?;
        let ttl = written
            .ttl
            .as_deref()
            .ok_or("concurrency needs ttl: how long a lease lasts if nobody gives it back")?;
        Ok(Limit {
            ttl: limit::duration(ttl)?,
            ..self.common(written, Limit::new(Algorithm::Concurrency, most, Unit::Second))?
        })
    }

    fn rate(&self, written: &RateLimit, unit: Option<Unit>) -> Result<Limit, String> {
        let requests = written.requests_per_unit.unwrap_or(0);
        let unit =
            unit.ok_or("a limit needs a unit: second, minute, hour, day, week, month or year")?;
        if written.ttl.is_some() {
            return Err("ttl goes only with concurrency".into());
        }
        let algorithm = written.algorithm.unwrap_or(self.options.algorithm);
        self.common(
            written,
            Limit {
                calendar: self.options.calendar,
                longest_turn: self.options.longest_turn,
                ..Limit::new(algorithm, requests, unit)
            },
        )
    }

    /// The keys that all limits may have. A number that its type does not hold is out of bounds in any case:
    /// [`Limit::check`] says so.
    fn common(&self, written: &RateLimit, limit: Limit) -> Result<Limit, String> {
        let block = match &written.block {
            None => None,
            Some(BlockText::Duration(text)) => {
                Some(Block { duration: limit::duration(text)?, after: 1 })
            }
            Some(BlockText::Map(map)) => Some(Block {
                duration: limit::duration(&map.duration)?,
                after: map.after.map_or(1, |after| u32::try_from(after).unwrap_or(u32::MAX)),
            }),
        };
        let offset = written.offset.as_deref().map_or(Ok(0), signed_seconds)?;
        Ok(Limit {
            burst: written.burst,
            cost: written.cost.unwrap_or(1),
            block,
            offset,
            buckets: written.buckets.map(|count| u16::try_from(count).unwrap_or(u16::MAX)),
            ..limit
        })
    }
}

/// A value as labels show it. They are seen in metrics and header fields: so of a secret they have the hash.
fn shown(value: &str, secret: bool) -> String {
    if secret && !value.contains('*') {
        KeyPart::new(value, true, None).to_string()
    } else {
        value.to_owned()
    }
}

/// What is wrong with the YAML, in words that need no Rust.
fn sentence(error: &Error) -> String {
    match error {
        Error::InvalidScalar { ty: "boolean", .. } => "true or false is expected".to_owned(),
        Error::InvalidScalar { ty, .. } if ty.starts_with('u') => {
            "a whole number from 0 on is expected".to_owned()
        }
        _ => error.render_with_formatter(&UserMessageFormatter),
    }
}

/// Seconds of a duration that may be negative.
fn signed_seconds(text: &str) -> Result<i64, String> {
    let (sign, rest) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let time = limit::duration(rest)?;
    if time.subsec_nanos() != 0 || time > Duration::from_secs(86_400) {
        return Err("offset is whole seconds from -1d to 1d".into());
    }
    i64::try_from(time.as_secs())
        .map(|seconds| sign * seconds)
        .map_err(|_| "offset is from -1d to 1d".into())
}

/// With a question mark for each character that no header field can hold.
fn printable(text: &str) -> String {
    text.chars().map(|c| if (' '..='~').contains(&c) { c } else { '?' }).collect()
}
