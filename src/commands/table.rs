//! The table of all commands: registration, COMMAND INFO, DOCS and GETKEYS come from it, and docs/commands.md is tested
//! against it.

use std::ffi::CStr;

use super::{
    acquire, fixedwindow, info, internal, leakybucket, leases, multi, peek, refund, release, renew,
    reset, rl_settle, settle, sliding, slidinglog, throttle, tokenbucket, top,
};
use crate::handler;
use crate::redis::config;
use crate::redis::register::{Access, Argument, Command, Handler, Keys, Kind, Presence, VERSION};

const KEY: Argument = Argument::required(c"key", Kind::Key);
const CAPACITY: Argument = Argument::required(c"capacity", Kind::Integer);
const RATE: Argument = Argument::required(c"rate", Kind::Text);
const LIMIT: Argument = Argument::required(c"limit", Kind::Integer);
const WINDOW: Argument = Argument::required(c"window", Kind::Text);
const COST: Argument = Argument::option(c"COST", c"n", Kind::Integer);
const ALIGN: Argument = Argument::option(c"ALIGN", c"offset", Kind::Text);
const BUCKETS: Argument = Argument::option(c"BUCKETS", c"n", Kind::Integer);
const TTL: Argument = Argument::required(c"ttl", Kind::Text);
const ID: Argument = Argument::required(c"id", Kind::Text);
const AT: Argument = Argument::option(c"AT", c"microseconds", Kind::Integer);
const BLOCK: Argument = Argument::required(
    c"block",
    Kind::Block(&[
        Argument { optional: false, ..Argument::option(c"BLOCK", c"duration", Kind::Text) },
        Argument::option(c"AFTER", c"n", Kind::Integer),
    ]),
)
.or_nothing();
const MODE: Argument = Argument::required(
    c"mode",
    Kind::OneOf(&[Argument::word(c"PARTIAL", c"partial"), Argument::word(c"FORCE", c"force")]),
)
.or_nothing();

/// What redis-cell's command takes.
const THROTTLE_ARGS: &[Argument] = &[
    KEY,
    Argument::required(c"max_burst", Kind::Integer),
    Argument::required(c"count", Kind::Integer),
    Argument::required(c"period", Kind::Integer),
    Argument::required(c"quantity", Kind::Integer).or_nothing(),
    AT,
];

/// What the internal command is sent for each key.
const EFFECT: &[Argument] = &[KEY, Argument::required(c"effect", Kind::Text)];

/// A command that decides on one key.
const fn deciding(
    name: &'static CStr,
    args: &'static [Argument],
    summary: &'static CStr,
    complexity: &'static CStr,
    handler: Handler,
) -> Command {
    Command {
        name,
        arity: -4,
        flags: c"write fast",
        acl: c"write fast",
        keys: Keys::First,
        access: Access::Update,
        args,
        summary,
        complexity,
        since: VERSION,
        presence: Presence::Always,
        handler,
    }
}

/// A command that looks at one key.
const LOOKING: Command = Command {
    name: c"",
    arity: -2,
    flags: c"readonly fast",
    acl: c"read fast",
    keys: Keys::First,
    access: Access::Look,
    args: &[],
    summary: c"",
    complexity: c"O(1); O(log entries) for sliding windows and leases",
    since: VERSION,
    presence: Presence::Always,
    handler: handler!(peek::run),
};

/// A command for replicas, the append-only file and migrating slots, not for users.
const INTERNAL: Command = Command {
    name: c"",
    arity: 3,
    flags: c"write admin",
    acl: c"admin dangerous",
    keys: Keys::First,
    access: Access::Update,
    args: &[],
    summary: c"",
    complexity: c"O(1)",
    since: VERSION,
    presence: Presence::Always,
    handler: handler!(internal::run_add),
};

/// All commands.
pub(crate) const TABLE: &[Command] = &[
    deciding(
        c"RL.TOKENBUCKET",
        &[KEY, CAPACITY, RATE, COST, MODE, BLOCK, AT],
        c"Takes units from a bucket that is refilled at a rate",
        c"O(1)",
        handler!(tokenbucket::run),
    ),
    deciding(
        c"RL.LEAKYBUCKET",
        &[KEY, CAPACITY, RATE, COST, MODE, BLOCK, AT],
        c"Queues units that drain at a rate, and replies how long to wait",
        c"O(1)",
        handler!(leakybucket::run),
    ),
    deciding(
        c"RL.FIXEDWINDOW",
        &[KEY, LIMIT, WINDOW, ALIGN, COST, MODE, BLOCK, AT],
        c"Counts units per window",
        c"O(1)",
        handler!(fixedwindow::run),
    ),
    deciding(
        c"RL.SLIDING",
        &[KEY, LIMIT, WINDOW, BUCKETS, COST, MODE, BLOCK, AT],
        c"Counts units in a sliding window, in a bounded number of entries",
        c"O(1) amortised for a grant, O(log buckets) for a denial",
        handler!(sliding::run),
    ),
    deciding(
        c"RL.SLIDINGLOG",
        &[KEY, LIMIT, WINDOW, COST, MODE, BLOCK, AT],
        c"Counts units in a sliding window, with an entry for every hit",
        c"O(1) amortised for a grant, O(log entries) for a denial",
        handler!(slidinglog::run),
    ),
    Command {
        arity: -5,
        ..deciding(
            c"RL.ACQUIRE",
            &[KEY, LIMIT, TTL, ID, COST, AT],
            c"Acquires a lease, unless too much is held at the same time",
            c"O(log leases)",
            handler!(acquire::run),
        )
    },
    Command {
        arity: -4,
        ..deciding(
            c"RL.RENEW",
            &[KEY, TTL, ID.repeated(), AT],
            c"Renews leases that are still held",
            c"O(log leases) for each id",
            handler!(renew::run),
        )
    },
    Command {
        arity: -3,
        ..deciding(
            c"RL.RELEASE",
            &[KEY, ID.repeated(), AT],
            c"Gives leases back",
            c"O(log leases) for each id",
            handler!(release::run),
        )
    },
    Command {
        name: c"RL.LEASES",
        args: &[KEY, Argument::option(c"COUNT", c"n", Kind::Integer), AT],
        summary: c"Lists the leases that are held, the soonest to run out first",
        complexity: c"O(n + log leases) for n leases listed",
        handler: handler!(leases::run),
        ..LOOKING
    },
    Command {
        name: c"RL.PEEK",
        args: &[KEY, COST, AT],
        summary: c"Shows what a request would get, and takes nothing",
        handler: handler!(peek::run),
        ..LOOKING
    },
    Command {
        name: c"RL.INFO",
        args: &[KEY, AT],
        summary: c"Describes a limiter",
        handler: handler!(info::run),
        ..LOOKING
    },
    Command {
        name: c"RL.REFUND",
        arity: -3,
        flags: c"write fast",
        acl: c"write fast",
        keys: Keys::First,
        access: Access::Update,
        args: &[KEY, Argument::required(c"units", Kind::Integer), AT],
        summary: c"Gives units back, the newest first",
        complexity: c"O(1); O(entries given back) for the sliding windows",
        since: VERSION,
        presence: Presence::Always,
        handler: handler!(refund::run),
    },
    Command {
        name: c"RL.RESET",
        arity: -2,
        flags: c"write",
        acl: c"write slow",
        keys: Keys::All,
        access: Access::Remove,
        args: &[KEY.repeated()],
        summary: c"Deletes limiters",
        complexity: c"O(keys)",
        since: VERSION,
        presence: Presence::Always,
        handler: handler!(reset::run),
    },
    Command {
        name: c"RL.MULTI",
        arity: -4,
        // A cluster routes a command of a module by what this flag makes it ask, not by a key spec that counts.
        flags: c"write getkeys-api",
        acl: c"write slow",
        keys: Keys::Counted,
        access: Access::Update,
        args: &[
            Argument::required(c"numkeys", Kind::Integer),
            KEY.repeated(),
            Argument::required(c"limit", Kind::Text).repeated(),
            Argument::word(c"FORCE", c"force").or_nothing(),
            AT,
        ],
        summary: c"Decides several limits at once: all grant, or nothing is taken from any",
        complexity: c"O(keys)",
        since: VERSION,
        presence: Presence::Always,
        handler: handler!(multi::run),
    },
    Command {
        name: c"RL.SETTLE",
        arity: -5,
        flags: c"write getkeys-api",
        acl: c"write slow",
        keys: Keys::Counted,
        access: Access::Update,
        args: &[
            Argument::required(c"numkeys", Kind::Integer),
            KEY.repeated(),
            Argument::required(c"reserved", Kind::Integer),
            Argument::required(c"used", Kind::Integer),
            AT,
        ],
        summary:
            c"Settles what work really cost: gives back or charges the difference on every key",
        complexity: c"O(keys); O(entries given back) for the sliding windows",
        since: VERSION,
        presence: Presence::Always,
        handler: handler!(rl_settle::run),
    },
    Command {
        name: c"RL.TOP",
        arity: -1,
        // It shows names whatever a user's key patterns are.
        flags: c"readonly admin",
        acl: c"admin dangerous",
        keys: Keys::None,
        args: &[Argument::required(
            c"what",
            Kind::OneOf(&[
                Argument::required(
                    c"list",
                    Kind::Block(&[Argument::option(c"COUNT", c"n", Kind::Integer), AT]),
                ),
                Argument::word(c"RESET", c"reset"),
            ]),
        )
        .or_nothing()],
        summary: c"Lists the keys that are denied most often lately, or forgets them",
        complexity: c"O(e * log e) for the e keys that rl.top-entries says",
        handler: handler!(top::run),
        ..LOOKING
    },
    Command {
        name: c"RL.THROTTLE",
        arity: -5,
        args: THROTTLE_ARGS,
        summary: c"RL.TOKENBUCKET with the arguments and the reply of redis-cell",
        ..deciding(c"", &[], c"", c"O(1)", handler!(throttle::run))
    },
    Command {
        name: c"CL.THROTTLE",
        arity: -5,
        args: THROTTLE_ARGS,
        summary: c"RL.TOKENBUCKET with the arguments and the reply of redis-cell",
        presence: Presence::IfFree(config::cl_throttle),
        ..deciding(c"", &[], c"", c"O(1)", handler!(throttle::run))
    },
    Command {
        name: settle::ADD_COMMAND,
        arity: -3,
        keys: Keys::Pairs,
        args: &[Argument::required(c"effects", Kind::Block(EFFECT)).repeated()],
        summary: c"Internal: applies what was decided on the primary",
        complexity: c"O(keys)",
        handler: handler!(internal::run_add),
        ..INTERNAL
    },
    Command {
        name: crate::redis::datatype::RESTORE_COMMAND,
        args: &[KEY, Argument::required(c"state", Kind::Text)],
        summary: c"Internal: makes a key of the bytes of a limiter",
        complexity: c"O(entries)",
        handler: handler!(internal::run_restore),
        ..INTERNAL
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes arguments as a syntax line does.
    fn syntax(args: &[Argument], between: &str) -> String {
        let words: Vec<_> = args.iter().map(word).collect();
        words.join(between)
    }

    fn word(argument: &Argument) -> String {
        let name = argument.name.to_str().unwrap();
        let token = argument.token.map(|token| token.to_str().unwrap());
        let mut word = match (&argument.kind, token) {
            (Kind::OneOf(choices), _) => syntax(choices, " | "),
            (Kind::Block(parts), _) => syntax(parts, " "),
            (Kind::Token, Some(token)) => token.into(),
            (_, Some(token)) => format!("{token} {name}"),
            (_, None) => name.into(),
        };
        if argument.multiple {
            word = format!("{word} [{word} ...]");
        }
        if argument.optional { format!("[{word}]") } else { word }
    }

    #[test]
    fn the_page_of_commands_has_syntax_summary_and_complexity_of_every_command_of_users() {
        let page = include_str!("../../docs/commands.md");
        for command in TABLE {
            let text = |text: &CStr| text.to_str().unwrap().to_owned();
            let (name, summary) = (text(command.name), text(command.summary));
            let section = format!(
                "\n### {name} {}\n\n{summary}.\n\nComplexity: {}\n",
                syntax(command.args, " "),
                text(command.complexity)
            );
            assert_eq!(page.contains(&section), !name.starts_with("RL._"), "{section}");
        }
    }

    #[test]
    fn the_arity_of_every_command_is_what_its_arguments_say() {
        for command in TABLE {
            let words = |argument: &Argument| match argument.kind {
                _ if argument.optional => 0,
                Kind::Block(parts) => parts.len(),
                _ => 1,
            };
            let required = command.args.iter().map(words).sum::<usize>() + 1;
            let open = command.args.iter().any(|argument| argument.optional || argument.multiple);
            let arity = i32::try_from(required).unwrap() * if open { -1 } else { 1 };
            assert_eq!(command.arity, arity, "{:?}", command.name);
        }
    }
}
