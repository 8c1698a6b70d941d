//! What a gateway asks: the descriptors of one request, whatever it came by.

/// One question: may this request pass?
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The set of rules that it is asked under.
    pub domain: String,
    /// What is known of the request. Each descriptor meets at most one rule.
    pub descriptors: Vec<Descriptor>,
    /// Hits of each descriptor that does not say so itself; 1 if `None`.
    pub hits: Option<u64>,
}

/// A path of entries, like `(user, 42), (path, /login)`: it meets the rule at the same path of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// From the outermost to the innermost.
    pub entries: Vec<Entry>,
    /// A limit that the request brings along. It takes the place of the rule's numbers.
    pub limit: Option<Override>,
    /// Hits of this descriptor alone. 0 looks without taking.
    pub hits: Option<u64>,
    /// Gives the hits back instead of taking them.
    pub negative: bool,
}

/// One step of a descriptor's path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The kind, like `user`.
    pub key: String,
    /// Which one, like `42`.
    pub value: String,
}

/// A limit that a request brings along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Override {
    /// Requests for each unit of time.
    pub requests_per_unit: u32,
    /// The unit of time.
    pub unit: Unit,
}

/// A unit of time of Envoy's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Unit {
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
}
