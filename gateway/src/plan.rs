//! What to ask the server about a request, and what its replies mean. Pure: [`Plan::next`] has the commands of a round,
//! [`Plan::read`] takes their replies, until there is no next round.
//!
//! All rules that may refuse are one RL.MULTI, so that a refusal takes nothing from any. Beside it, in the same round:
//!
//! - rules in shadow or quota mode, and costs that are charged by force: an RL.MULTI each, for they decide nothing for others;
//! - hits of 0: the limit with `COST 0` and RL.PEEK, which say whether a hit would pass;
//! - hits that are given back: RL.REFUND, or RL.RELEASE of a lease.
//!
//! In a cluster the rules whose keys lie in one slot are one RL.MULTI. Slots are asked in turn, a round each. If one refuses,
//! the next ones are not asked, and what was taken in those before it is given back in a last round. So for a moment the
//! first slots count a request that is refused in the end: others can be refused because of it, and nothing stays
//! charged while the server answers. The same round gives back if a look at hits of 0 refuses, or all rules
//! in quota mode.
//!
//! To give a lease back that was held before, and only renewed, would end it. So leases are asked for last: after the other slots,
//! and after what stands beside them and can refuse.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Value};

use crate::decision::Verdict;
use crate::key_part::KeyPart;
use crate::redis::{Ask, slot};
use crate::request::{Descriptor, Request};
use crate::rules::limit::{Algorithm, Limit, MOST_UNITS};
use crate::rules::{Domain, KeyStyle, Mode, Rule};

/// The most descriptors of a request: as many as RL.MULTI takes keys.
pub const MOST_DESCRIPTORS: usize = 128;
/// The most entries of a descriptor.
pub const MOST_ENTRIES: usize = 32;

/// How requests become commands, the same for all of them.
#[derive(Clone, Debug)]
pub struct Style {
    /// How keys are made.
    pub keys: KeyStyle,
    /// For limits that a request brings along without a rule.
    pub algorithm: Algorithm,
    /// For these, too: how long a leaky bucket lets a request wait for its turn.
    pub longest_turn: Duration,
    /// Keys lie in slots, and a command reaches those of one.
    pub cluster: bool,
}

/// What a descriptor wants of its rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing: it meets no rule, or another rule takes its place, or its rule limits nothing.
    Pass,
    /// Hits, if all others get theirs.
    Take,
    /// Hits, whatever the others get: shadow and quota mode.
    TakeAlone,
    /// Hits, even above the limit.
    Charge,
    /// To know whether a hit would pass.
    Look,
    /// To give hits back.
    Give,
}

/// A descriptor with the rule that it meets, and in the end with its verdict.
#[derive(Clone, Debug)]
pub struct Row {
    /// The rule, if it meets one.
    pub rule: Option<Arc<Rule>>,
    /// Its label in metrics.
    pub label: String,
    /// The limit that holds: the rule's, or with the numbers that the request brought along.
    pub limit: Option<Limit>,
    /// What it wants.
    pub action: Action,
    /// Its limiter, or nothing.
    pub key: String,
    /// Units.
    pub cost: u64,
    /// Hits as the request says them.
    pub hits: u64,
    /// What the server said.
    pub verdict: Option<Verdict>,
    /// The verdict was remembered, not asked for.
    pub remembered: bool,
    /// The name of a lease.
    id: Vec<u8>,
}

/// What is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Invalid {
    #[error("the domain is empty")]
    NoDomain,
    #[error("there is no descriptor")]
    NoDescriptor,
    #[error("there are {0} descriptors, and at most {MOST_DESCRIPTORS}")]
    Descriptors(usize),
    #[error("descriptor {0} has {1} entries, and at most {MOST_ENTRIES}")]
    Entries(usize, usize),
    #[error("descriptor {0} has an entry without a key")]
    NoKey(usize),
    #[error("descriptor {0}: the value of the last entry names a lease, and is empty")]
    NoLease(usize),
    #[error(
        "descriptor {0}: a lease has no hits of its own: the rule's cost says how many units it holds"
    )]
    LeaseHits(usize),
    #[error("descriptors {0} and {1} ask for leases of the same limit")]
    TwoLeases(usize, usize),
    #[error("descriptor {0}: hits times cost are above {MOST_UNITS}")]
    Cost(usize),
    #[error("descriptor {0}: {1}")]
    Limit(usize, String),
    #[error("a unit of time is second, minute, hour, day, week, month or year")]
    Unit,
}

/// A reply that is none of ours, or an error of the server.
#[derive(Debug, thiserror::Error)]
pub enum Wrong {
    /// The server refused the command.
    #[error("{0}")]
    Server(#[from] redis::RedisError),
    /// It replied what no redis-rl replies.
    #[error(
        "the server's reply has not the form that redis-rl gives it: is another module loaded?"
    )]
    Form,
}

/// A limiter that is asked, with the rows that want it: equal descriptors are one, with their costs added.
#[derive(Debug)]
struct Wanted {
    rows: Vec<usize>,
    cost: u64,
}

/// An RL.MULTI.
#[derive(Debug)]
struct Group {
    slot: u16,
    wanted: Vec<Wanted>,
    granted: bool,
}

impl Group {
    /// Its limiters among these rows, with what is asked of each.
    fn limiters<'a>(&self, rows: &'a [Row]) -> impl Iterator<Item = (&'a Row, u64)> {
        self.wanted.iter().filter_map(|wanted| Some((rows.get(first(wanted))?, wanted.cost)))
    }

    fn multi(&self, rows: &[Row]) -> Cmd {
        let mut command = redis::cmd("RL.MULTI");
        command.arg(self.wanted.len());
        for (row, _) in self.limiters(rows) {
            command.arg(&row.key);
        }
        for (row, cost) in self.limiters(rows) {
            row.words(&mut command, cost);
        }
        command
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Alone,
    Group(usize),
    Undo,
    Done,
}

/// A request under way.
#[derive(Debug)]
pub struct Plan {
    /// A row for each descriptor, in order.
    pub rows: Vec<Row>,
    groups: Vec<Group>,
    /// What stands beside the groups, until it is asked: in the first round.
    alone: Vec<usize>,
    stage: Stage,
    undecided: bool,
}

impl Plan {
    /// What to ask for this request. `domain` is its domain, if that has rules.
    ///
    /// # Errors
    /// The request is malformed or too large; the sentence says in what.
    pub fn new(request: &Request, domain: Option<&Domain>, style: &Style) -> Result<Self, Invalid> {
        check(request)?;
        let mut rows = Vec::with_capacity(request.descriptors.len());
        for (at, descriptor) in request.descriptors.iter().enumerate() {
            rows.push(Row::new(at, descriptor, request.hits, domain, style)?);
        }
        replace(&mut rows);
        let mut plan = Self {
            rows,
            groups: Vec::new(),
            alone: Vec::new(),
            stage: Stage::Done,
            undecided: false,
        };
        plan.group(style.cluster)?;
        plan.stage = plan.first_stage();
        Ok(plan)
    }

    fn group(&mut self, cluster: bool) -> Result<(), Invalid> {
        for (at, row) in self.rows.iter().enumerate() {
            match row.action {
                Action::Pass => {}
                Action::TakeAlone | Action::Charge | Action::Look | Action::Give => {
                    self.alone.push(at)
                }
                Action::Take => {
                    let slot = if cluster { slot(row.key.as_bytes()) } else { 0 };
                    let known = self.groups.iter().position(|group| group.slot == slot);
                    let fresh = Wanted { rows: vec![at], cost: row.cost };
                    let Some(group) = known.and_then(|known| self.groups.get_mut(known)) else {
                        self.groups.push(Group { slot, wanted: vec![fresh], granted: false });
                        continue;
                    };
                    let same = |wanted: &&mut Wanted| {
                        self.rows.get(first(wanted)).is_some_and(|other| other.key == row.key)
                    };
                    match group.wanted.iter_mut().find(same) {
                        None => group.wanted.push(fresh),
                        Some(wanted) if !row.id.is_empty() => {
                            return Err(Invalid::TwoLeases(first(wanted), at));
                        }
                        Some(wanted) => {
                            wanted.cost = wanted.cost.saturating_add(row.cost);
                            wanted.rows.push(at);
                            if wanted.cost > MOST_UNITS {
                                return Err(Invalid::Cost(at));
                            }
                        }
                    }
                }
            }
        }
        let rows = &self.rows;
        self.groups.sort_by_key(|group| group.limiters(rows).any(|(row, _)| row.is_lease()));
        Ok(())
    }

    fn first_stage(&self) -> Stage {
        let can_refuse = |row: &Row| match row.action {
            Action::Look => row.mode() != Mode::Shadow,
            _ => row.mode() == Mode::Quota,
        };
        let mut alone = self.alone.iter().filter_map(|&at| self.rows.get(at));
        if self.groups.is_empty() && self.alone.is_empty() {
            Stage::Done
        } else if self.takes().any(|(row, _)| row.is_lease()) && alone.any(can_refuse) {
            Stage::Alone
        } else {
            Stage::Group(0)
        }
    }

    /// The limiters that can refuse, with what is asked of each: a remembered denial of one answers the request.
    pub fn takes(&self) -> impl Iterator<Item = (&Row, u64)> {
        self.groups.iter().flat_map(|group| group.limiters(&self.rows))
    }

    /// Whether the server has to be asked whatever is remembered: something is given back, or charged by force.
    pub fn must_ask(&self) -> bool {
        self.rows.iter().any(|row| matches!(row.action, Action::Give | Action::Charge))
    }

    /// Denies from memory: the limiter of this key has said so, and nothing is asked.
    pub fn deny(&mut self, key: &str, verdict: Verdict) {
        for row in self.rows.iter_mut().filter(|row| row.action == Action::Take && row.key == key) {
            row.verdict = Some(verdict);
            row.remembered = true;
        }
        self.stage = Stage::Done;
    }

    /// The commands of the next round; none if all is said.
    pub fn next(&self) -> Vec<Ask> {
        let mut asks = Vec::with_capacity(1 + self.alone.len());
        match self.stage {
            Stage::Done => return asks,
            Stage::Undo => {
                for group in self.groups.iter().filter(|group| group.granted) {
                    asks.extend(
                        group
                            .limiters(&self.rows)
                            .map(|(row, cost)| Ask { command: row.give(cost), slot: group.slot }),
                    );
                }
                return asks;
            }
            Stage::Alone => {}
            Stage::Group(at) => {
                if let Some(group) = self.groups.get(at) {
                    asks.push(Ask { command: group.multi(&self.rows), slot: group.slot });
                }
            }
        }
        for row in self.alone.iter().filter_map(|&at| self.rows.get(at)) {
            let slot = slot(row.key.as_bytes());
            asks.extend(row.alone().into_iter().map(|command| Ask { command, slot }));
        }
        asks
    }

    /// Whether the next round gives back what a request took that is refused: whatever comes of it, the request stays refused.
    pub fn is_undoing(&self) -> bool {
        self.stage == Stage::Undo
    }

    /// Whether the server failed to decide, so that somebody else has to.
    pub fn is_undecided(&self) -> bool {
        self.undecided
    }

    /// The keys that something was given back to, or may have been.
    pub fn given(&self) -> impl Iterator<Item = &[u8]> {
        let undone = self.groups.iter().filter(|group| group.granted && self.refused());
        let undone = undone.flat_map(|group| group.limiters(&self.rows)).map(|(row, _)| row);
        let given = self.rows.iter().filter(|row| row.action == Action::Give);
        undone.chain(given).map(|row| row.key.as_bytes())
    }

    /// Takes the replies of the round that [`Self::next`] gave.
    ///
    /// # Errors
    /// The server refused a command, or its reply has another form. The rows that it was about have no verdict then. If that leaves
    /// the request undecided, the plan ends, and what was taken in earlier rounds stays taken. It does not if another limit
    /// refuses anyway, or if only rules in shadow mode failed: then the plan goes on.
    pub fn read(&mut self, replies: Vec<redis::RedisResult<Value>>) -> Result<(), Wrong> {
        if self.stage == Stage::Undo {
            self.stage = Stage::Done;
            return replies.into_iter().try_for_each(|reply| Ok(reply.map(drop)?));
        }
        let mut replies = replies.into_iter();
        let mut next = || replies.next().ok_or(Wrong::Form)?.map_err(Wrong::from);
        let (mut undecided, mut wrong) = (false, None);
        if let Stage::Group(at) = self.stage
            && let Some(group) = self.groups.get_mut(at)
        {
            let count = group.wanted.len();
            match next().and_then(|reply| multi_reply(reply, count).ok_or(Wrong::Form)) {
                Ok((granted, verdicts)) => {
                    group.granted = granted;
                    for (wanted, verdict) in group.wanted.iter().zip(verdicts) {
                        for &row in &wanted.rows {
                            if let Some(row) = self.rows.get_mut(row) {
                                row.verdict = Some(verdict);
                            }
                        }
                    }
                }
                Err(error) => {
                    undecided = true;
                    wrong = Some(error);
                }
            }
        }
        for at in std::mem::take(&mut self.alone) {
            let Some(row) = self.rows.get_mut(at) else { continue };
            match row.alone_reply(&mut next) {
                Ok(verdict) => row.verdict = Some(verdict),
                Err(error) => {
                    undecided |= row.mode() != Mode::Shadow;
                    wrong.get_or_insert(error);
                }
            }
        }
        self.undecided = undecided && !self.refused();
        self.stage = if self.undecided { Stage::Done } else { self.after() };
        wrong.map_or(Ok(()), Err)
    }

    fn after(&self) -> Stage {
        let next = match self.stage {
            Stage::Alone => 0,
            Stage::Group(at) => at + 1,
            Stage::Undo | Stage::Done => return Stage::Done,
        };
        let asked = self.groups.get(..next.min(self.groups.len())).unwrap_or_default();
        let refused = self.refused() || asked.iter().any(|group| !group.granted);
        match refused {
            true if asked.iter().any(|group| group.granted) => Stage::Undo,
            false if next < self.groups.len() => Stage::Group(next),
            _ => Stage::Done,
        }
    }

    /// Whether the request is refused, by what the rows say: a limit of its own, or all of those in quota mode.
    pub fn refused(&self) -> bool {
        let mut quotas = self
            .rows
            .iter()
            .filter(|row| {
                row.mode() == Mode::Quota && matches!(row.action, Action::TakeAlone | Action::Look)
            })
            .peekable();
        let enforced = |row: &Row| {
            matches!(row.action, Action::Take | Action::Look) && row.mode() == Mode::Enforced
        };
        self.rows.iter().any(|row| enforced(row) && row.is_refused())
            || (quotas.peek().is_some() && quotas.all(Row::is_refused))
    }
}

impl Row {
    fn new(
        at: usize,
        descriptor: &Descriptor,
        hits: Option<u64>,
        domain: Option<&Domain>,
        style: &Style,
    ) -> Result<Self, Invalid> {
        let hits = descriptor.hits.or(hits).unwrap_or(1);
        let mut row = Self {
            rule: None,
            label: String::new(),
            limit: None,
            action: Action::Pass,
            key: String::new(),
            cost: 0,
            hits,
            verdict: None,
            remembered: false,
            id: Vec::new(),
        };
        let Some(domain) = domain else { return Ok(row) };
        let found = domain.find(descriptor);
        if let Some(found) = &found {
            row.label = found.label(descriptor);
            row.rule = Some(found.rule.clone());
            row.limit = found.rule.limit.clone();
        }
        if let Some(by) = descriptor.limit {
            let base = row.limit.take().unwrap_or_else(|| Limit {
                longest_turn: style.longest_turn,
                ..Limit::new(style.algorithm, 0, by.unit)
            });
            let limit = base.overridden(by, style.algorithm);
            limit.check().map_err(|message| Invalid::Limit(at, message))?;
            row.limit = Some(limit);
        }
        let Some(limit) = &row.limit else { return Ok(row) };
        let leases = limit.algorithm == Algorithm::Concurrency;
        row.cost = hits
            .checked_mul(limit.cost)
            .filter(|&cost| cost <= MOST_UNITS)
            .ok_or(Invalid::Cost(at))?;
        row.key = domain.key(&style.keys, limit, descriptor, found.as_ref(), !leases);
        if leases {
            row.id = lease(at, descriptor)?;
            if hits > 1 {
                return Err(Invalid::LeaseHits(at));
            }
        }
        row.action = row.action(descriptor);
        Ok(row)
    }

    fn action(&self, descriptor: &Descriptor) -> Action {
        let force = self.rule.as_ref().is_some_and(|rule| rule.force);
        match self.mode() {
            _ if descriptor.negative => Action::Give,
            _ if self.hits == 0 => Action::Look,
            Mode::Shadow | Mode::Quota => Action::TakeAlone,
            Mode::Enforced if force && descriptor.limit.is_none() => Action::Charge,
            Mode::Enforced => Action::Take,
        }
    }

    /// What its rule does with its limit. Without a rule there is a limit only if the request brought it along.
    pub fn mode(&self) -> Mode {
        self.rule.as_ref().map_or(Mode::Enforced, |rule| rule.mode)
    }

    /// Whether its limit refuses, whatever follows from that.
    pub fn is_refused(&self) -> bool {
        self.verdict.is_some_and(|verdict| !verdict.allowed)
    }

    fn words(&self, command: &mut Cmd, cost: u64) {
        if let Some(limit) = &self.limit {
            limit.words(command, cost, &self.id);
        }
    }

    fn one(&self, cost: u64) -> Cmd {
        let mut command = redis::cmd("RL.MULTI");
        command.arg(1).arg(&self.key);
        self.words(&mut command, cost);
        command
    }

    fn peek(&self) -> Cmd {
        let mut command = redis::cmd("RL.PEEK");
        command.arg(&self.key);
        if self.hit() != 1 {
            command.arg("COST").arg(self.hit());
        }
        command
    }

    /// Units of one hit.
    fn hit(&self) -> u64 {
        self.limit.as_ref().map_or(1, |limit| limit.cost)
    }

    fn is_lease(&self) -> bool {
        !self.id.is_empty()
    }

    fn give(&self, units: u64) -> Cmd {
        let mut command = redis::cmd(if self.is_lease() { "RL.RELEASE" } else { "RL.REFUND" });
        command.arg(&self.key);
        if self.is_lease() {
            command.arg(&self.id)
        } else {
            command.arg(units)
        };
        command
    }

    fn alone(&self) -> Vec<Cmd> {
        match self.action {
            Action::Look if self.is_lease() => vec![self.peek()],
            Action::Look => vec![self.one(0), self.peek()],
            Action::Give if self.is_lease() => vec![self.give(0), self.peek()],
            Action::Give => vec![self.give(self.cost)],
            Action::Charge => {
                let mut command = self.one(self.cost);
                command.arg("FORCE");
                vec![command]
            }
            Action::Pass | Action::Take | Action::TakeAlone => vec![self.one(self.cost)],
        }
    }

    fn alone_reply(
        &self,
        next: &mut impl FnMut() -> Result<Value, Wrong>,
    ) -> Result<Verdict, Wrong> {
        match self.action {
            Action::Look if self.is_lease() => self.peeked(&next()?),
            Action::Look => {
                // Both are taken, whatever they are, for the next row's come after them.
                let (now, peeked) = (next(), next());
                let now = one_reply(now?)?;
                let peeked = self.peeked(&peeked?)?;
                let allowed = now.remaining >= self.hit();
                let wait_ms = if allowed { Some(0) } else { peeked.wait_ms };
                Ok(Verdict { allowed, wait_ms, ..now })
            }
            Action::Give => {
                let given = next();
                let peeked = if self.is_lease() {
                    next().and_then(|peeked| given.map(|_| peeked))
                } else {
                    given
                };
                // What is given back is never refused, however little remains afterwards.
                self.peeked(&peeked?).map(|verdict| Verdict {
                    allowed: true,
                    wait_ms: Some(0),
                    ..verdict
                })
            }
            Action::Pass | Action::Take | Action::TakeAlone | Action::Charge => one_reply(next()?),
        }
    }

    /// The five integers, or those of an idle limiter if there is no key.
    fn peeked(&self, reply: &Value) -> Result<Verdict, Wrong> {
        let limit = self.limit.as_ref().map_or(0, Limit::capacity);
        match reply {
            Value::Nil if limit == 0 => {
                Ok(Verdict { allowed: false, limit, remaining: 0, wait_ms: None, reset_ms: 0 })
            }
            Value::Nil => Ok(Verdict {
                allowed: true,
                limit,
                remaining: limit,
                wait_ms: Some(0),
                reset_ms: 0,
            }),
            reply => verdict(reply).ok_or(Wrong::Form),
        }
    }
}

fn first(wanted: &Wanted) -> usize {
    wanted.rows.first().copied().unwrap_or_default()
}

fn check(request: &Request) -> Result<(), Invalid> {
    let descriptors = &request.descriptors;
    if request.domain.is_empty() {
        return Err(Invalid::NoDomain);
    }
    if descriptors.is_empty() {
        return Err(Invalid::NoDescriptor);
    }
    if descriptors.len() > MOST_DESCRIPTORS {
        return Err(Invalid::Descriptors(descriptors.len()));
    }
    for (at, descriptor) in descriptors.iter().enumerate() {
        if descriptor.entries.len() > MOST_ENTRIES {
            return Err(Invalid::Entries(at, descriptor.entries.len()));
        }
        if descriptor.entries.iter().any(|entry| entry.key.is_empty()) {
            return Err(Invalid::NoKey(at));
        }
    }
    Ok(())
}

/// Rules whose name another rule of this request replaces let pass.
fn replace(rows: &mut [Row]) {
    let replaced: HashSet<String> = rows
        .iter()
        .filter_map(|row| row.rule.as_ref())
        .flat_map(|rule| rule.replaces.iter().cloned())
        .collect();
    if replaced.is_empty() {
        return;
    }
    for row in rows {
        let name = row.rule.as_ref().and_then(|rule| rule.name.as_ref());
        if name.is_some_and(|name| replaced.contains(name)) {
            row.rule = None;
            row.limit = None;
            row.action = Action::Pass;
        }
    }
}

/// The id of a lease: the value of the last entry, or its hash if that is longer than the module takes.
fn lease(at: usize, descriptor: &Descriptor) -> Result<Vec<u8>, Invalid> {
    let value = descriptor
        .entries
        .last()
        .map(|entry| entry.value.as_str())
        .filter(|value| !value.is_empty());
    let value = value.ok_or(Invalid::NoLease(at))?;
    if value.len() <= 64 {
        return Ok(value.as_bytes().to_vec());
    }
    Ok(KeyPart::new(value, true, None).to_string().into_bytes())
}

fn one_reply(reply: Value) -> Result<Verdict, Wrong> {
    let (_, verdicts) = multi_reply(reply, 1).ok_or(Wrong::Form)?;
    verdicts.first().copied().ok_or(Wrong::Form)
}

/// `[allowed, wait_ms, refused, [five integers] ...]`, with so many limits.
fn multi_reply(reply: Value, count: usize) -> Option<(bool, Vec<Verdict>)> {
    let Value::Array(parts) = reply else { return None };
    let [Value::Int(allowed), Value::Int(_), Value::Int(_), limits @ ..] = parts.as_slice() else {
        return None;
    };
    let verdicts = limits.iter().map(verdict).collect::<Option<Vec<_>>>()?;
    (verdicts.len() == count).then_some((*allowed == 1, verdicts))
}

/// `[allowed, limit, remaining, wait_ms, reset_ms]`
fn verdict(reply: &Value) -> Option<Verdict> {
    let Value::Array(parts) = reply else { return None };
    let [
        Value::Int(allowed),
        Value::Int(limit),
        Value::Int(remaining),
        Value::Int(wait),
        Value::Int(reset),
    ] = parts.as_slice()
    else {
        return None;
    };
    Some(Verdict {
        allowed: *allowed == 1,
        limit: u64::try_from(*limit).ok()?,
        remaining: u64::try_from(*remaining).ok()?,
        wait_ms: u64::try_from(*wait).ok(),
        reset_ms: u64::try_from(*reset).ok()?,
    })
}
