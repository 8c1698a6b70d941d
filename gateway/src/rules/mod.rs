//! The rules of a configuration: files in, a tree for each domain out. Pure: who reads the files is [`crate::files`].

pub mod file;
pub mod limit;
mod load;
mod tree;

pub use load::{Options, Problem};
pub use tree::{Domain, Found, KeyStyle, Mode, Rule};

use std::collections::HashMap;
use std::sync::Arc;

/// All rules that hold at a time.
#[derive(Debug, Default)]
pub struct Rules {
    domains: HashMap<String, Arc<Domain>>,
}

impl Rules {
    /// Reads a configuration: pairs of a file's name and its text. An empty one has no rules, and so limits nothing.
    ///
    /// # Errors
    /// All that is wrong, with places. Then nothing holds: half a configuration would be worse than the old one.
    pub fn load(files: &[(String, String)], options: &Options) -> Result<Self, Vec<Problem>> {
        load::load(files, options).map(|domains| Self {
            domains: domains
                .into_iter()
                .map(|domain| (domain.name.clone(), Arc::new(domain)))
                .collect(),
        })
    }

    /// The domain of this name.
    pub fn domain(&self, name: &str) -> Option<&Arc<Domain>> {
        self.domains.get(name)
    }

    /// The only domain, if there is but one.
    pub fn only(&self) -> Option<&Arc<Domain>> {
        let mut all = self.domains.values();
        all.next().filter(|_| all.next().is_none())
    }

    /// All domains, in no order.
    pub fn domains(&self) -> impl Iterator<Item = &Domain> {
        self.domains.values().map(|domain| &**domain)
    }

    /// The names of all domains, sorted.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.domains.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }
}
