//! The rules of one domain as a tree, and the way of a descriptor through it.
//!
//! A descriptor meets the rule at the end of its own path, and no rule above it: `(user, 42), (path, /login)` needs a rule for
//! `path` below `user`. Among entries of one key the exact value is taken first, then the patterns in their order in the file,
//! then the entry without a value. There is no way back: what was taken at one level decides what can follow. All of this
//! is as envoyproxy/ratelimit does it.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;

use super::file::Source;
use super::limit::Limit;
use crate::key_part::KeyPart;
use crate::request::Descriptor;

/// The most bytes of a request's value in a label.
const LONGEST_SHOWN: usize = 64;

/// What a rule does with its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It refuses.
    Enforced,
    /// It is decided by itself, counted and reported, and refuses nobody.
    Shadow,
    /// It is decided by itself, and a request is refused if all rules of this mode refuse: envoyproxy/ratelimit's quota mode.
    Quota,
}

/// A rule of the configuration.
#[derive(Debug)]
pub struct Rule {
    /// Its path, like `message_type_marketing.to_number`: unique in its domain.
    pub label: String,
    /// The label holds values of the request, for metrics: what stands there depends on the descriptor.
    pub detailed: bool,
    /// The name of its policy in header fields: the rule's own, or its path.
    pub policy: String,
    /// Its own name, by which others replace it.
    pub name: Option<String>,
    /// The names of the rules that it takes the place of.
    pub replaces: Vec<String>,
    /// What it allows; nothing is limited if there is none.
    pub limit: Option<Limit>,
    /// What it does with that.
    pub mode: Mode,
    /// Takes what is asked even above the limit: for costs that are known when the work is done.
    pub force: bool,
    /// Where it stands: file, line and column.
    pub place: String,
}

/// A domain: the rules, and how keys and questions of `/check` are made.
#[derive(Debug, Default)]
pub struct Domain {
    /// Its name.
    pub name: String,
    pub(super) root: Level,
    pub(super) hash_tag: Vec<String>,
    /// What `/check` reads the values of descriptors from, beside what every request has.
    pub check: BTreeMap<String, Source>,
    /// The paths of keys at whose ends rules stand: `/check` asks about each that the request has values for.
    pub templates: Vec<Vec<String>>,
}

#[derive(Debug, Default)]
pub(super) struct Level {
    pub keys: HashMap<String, Values>,
}

#[derive(Debug, Default)]
pub(super) struct Values {
    pub exact: HashMap<String, Node>,
    pub patterns: Vec<(Pattern, Node)>,
    pub any: Option<Box<Node>>,
}

#[derive(Debug)]
pub(super) struct Node {
    pub rule: Option<Arc<Rule>>,
    pub below: Level,
    /// All values that match the pattern share one limiter.
    pub shared: Option<String>,
    pub secret: bool,
    pub value_to_metric: bool,
    pub detailed_metric: bool,
    /// The value as configured, for labels: of a secret only its hash.
    pub value: Option<String>,
}

/// A value with `*` in it, each for any number of characters.
#[derive(Debug)]
pub(super) struct Pattern {
    first: String,
    middle: Vec<String>,
    last: String,
}

impl Pattern {
    /// The pattern of a text that holds `*`; `None` for a text that is just a value.
    pub fn parse(text: &str) -> Option<Self> {
        let (first, rest) = text.split_once('*')?;
        let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
        let middle = middle.split('*').filter(|part| !part.is_empty()).map(String::from).collect();
        Some(Self { first: first.into(), middle, last: last.into() })
    }

    /// Each middle part is taken as early as it can be, which never prevents a match.
    pub fn matches(&self, value: &str) -> bool {
        let inner =
            value.strip_prefix(&*self.first).and_then(|rest| rest.strip_suffix(&*self.last));
        let found =
            |rest: &str, part: &String| rest.split_once(&**part).map(|(_, after)| after.len());
        inner.is_some_and(|inner| {
            let mut left = Some(inner);
            for part in &self.middle {
                left = left.and_then(|rest| {
                    found(rest, part).and_then(|length| rest.get(rest.len() - length..))
                });
            }
            left.is_some()
        })
    }
}

impl Level {
    fn collect<'a>(&'a self, rules: &mut Vec<&'a Rule>) {
        for values in self.keys.values() {
            let patterns = values.patterns.iter().map(|(_, node)| node);
            for node in values.exact.values().chain(patterns).chain(values.any.as_deref()) {
                rules.extend(node.rule.as_deref());
                node.below.collect(rules);
            }
        }
    }
}

impl Values {
    fn find(&self, value: &str) -> Option<&Node> {
        self.exact
            .get(value)
            .or_else(|| {
                self.patterns
                    .iter()
                    .find(|(pattern, _)| pattern.matches(value))
                    .map(|(_, node)| node)
            })
            .or(self.any.as_deref())
    }
}

/// A descriptor's way through the tree, to the rule at its end.
pub struct Found<'a> {
    /// The rule.
    pub rule: &'a Arc<Rule>,
    path: Vec<&'a Node>,
}

impl Domain {
    /// The rule that the descriptor meets, if there is one.
    pub fn find<'a>(&'a self, descriptor: &Descriptor) -> Option<Found<'a>> {
        let path = self.walk(descriptor);
        let rule = path.last()?.rule.as_ref().filter(|_| path.len() == descriptor.entries.len())?;
        Some(Found { rule, path })
    }

    /// The nodes of the descriptor's entries, as far as the tree has them.
    fn walk(&self, descriptor: &Descriptor) -> Vec<&Node> {
        let mut level = &self.root;
        let mut path = Vec::with_capacity(descriptor.entries.len());
        for entry in &descriptor.entries {
            let Some(node) =
                level.keys.get(&entry.key).and_then(|values| values.find(&entry.value))
            else {
                break;
            };
            path.push(node);
            level = &node.below;
        }
        path
    }

    /// All its rules.
    pub fn rules(&self) -> Vec<&Rule> {
        let mut rules = Vec::new();
        self.root.collect(&mut rules);
        rules
    }

    /// The key of a limiter: `prefix:algorithm:domain:key=value:key=value`, with a hash tag before the entries if the domain
    /// names one and the descriptor has it.
    ///
    /// `leaf` is false for leases: the last entry names the lease, not the limiter. Without a rule, for a limit that the
    /// request brought along, the nodes before it still say which values are secret or shared.
    pub fn key(
        &self,
        style: &KeyStyle,
        limit: &Limit,
        descriptor: &Descriptor,
        found: Option<&Found<'_>>,
        leaf: bool,
    ) -> String {
        let mut parts = String::with_capacity(64);
        let mut tag = String::new();
        let last = descriptor.entries.len().saturating_sub(1);
        let walked = if found.is_none() { self.walk(descriptor) } else { Vec::new() };
        let path = found.map_or(&walked, |found| &found.path);
        for (at, entry) in descriptor.entries.iter().enumerate() {
            if at == last && !leaf {
                let _ = write!(parts, ":{}", KeyPart::plain(&entry.key));
                continue;
            }
            let node = path.get(at);
            let shared = node.and_then(|node| node.shared.as_deref());
            let secret = node.is_some_and(|node| node.secret);
            let value =
                KeyPart::new(shared.unwrap_or(&entry.value), secret, style.pepper.as_deref());
            let from = parts.len();
            let _ = write!(parts, ":{}={value}", KeyPart::plain(&entry.key));
            if self.hash_tag.contains(&entry.key) {
                tag.push_str(parts.get(from + usize::from(tag.is_empty())..).unwrap_or_default());
            }
        }
        let tag = if tag.is_empty() { tag } else { format!(":{{{tag}}}") };
        format!(
            "{}:{}:{}{tag}{parts}",
            style.prefix,
            limit.algorithm.letters(),
            KeyPart::plain(&self.name)
        )
    }
}

/// What all keys have in common.
#[derive(Clone, Debug)]
pub struct KeyStyle {
    /// What they begin with.
    pub prefix: String,
    /// With one, values are hashed by HMAC.
    pub pepper: Option<Vec<u8>>,
}

impl Found<'_> {
    /// The rule's label in metrics: its path, with the values of the request where the configuration asks for that and
    /// does not call them secret.
    pub fn label(&self, descriptor: &Descriptor) -> String {
        if !self.rule.detailed {
            return self.rule.label.clone();
        }
        let all = self.path.last().is_some_and(|node| node.detailed_metric);
        let mut label = String::new();
        for (entry, node) in descriptor.entries.iter().zip(&self.path) {
            if !label.is_empty() {
                label.push('.');
            }
            label.push_str(&entry.key);
            let shown = (all || node.value_to_metric) && !node.secret;
            let seen = shown.then(|| start(&entry.value));
            let value = node.shared.as_deref().or(seen).or(node.value.as_deref());
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                label.push('_');
                label.push_str(value);
            }
        }
        label
    }
}

/// As much of a value as a label has: the first [`LONGEST_SHOWN`] bytes, or a few less where a character would be cut.
fn start(value: &str) -> &str {
    let mut ends = (0..=LONGEST_SHOWN).rev();
    if value.len() <= LONGEST_SHOWN {
        value
    } else {
        ends.find_map(|end| value.get(..end)).unwrap_or_default()
    }
}
