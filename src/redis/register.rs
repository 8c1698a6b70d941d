//! Loading the module: the server's version, the type, the settings, and the commands with their descriptions
//! (COMMAND INFO, DOCS and GETKEYS, ACL categories).
//!
//! A command is described by a [`Command`]; `commands::TABLE` lists them all.

use std::ffi::{CStr, CString, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{null, null_mut};

use redis_module::{Context, raw};

use super::{Call, api, config, datatype, propagation, top};

/// The package's version, as Cargo.toml has it. Until there has been a release it is every command's `since`.
pub(crate) const VERSION: &CStr =
    match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => c"",
    };

/// A command, as it is declared.
pub(crate) struct Command {
    /// With its prefix: `RL.PEEK`.
    pub(crate) name: &'static CStr,
    /// How many words a call has, the name included; if negative, at least this many.
    pub(crate) arity: c_int,
    /// The server's flags, separated by spaces.
    pub(crate) flags: &'static CStr,
    /// ACL categories, separated by spaces, for servers that have them for modules.
    pub(crate) acl: &'static CStr,
    pub(crate) keys: Keys,
    pub(crate) access: Access,
    /// For COMMAND DOCS, like the next three.
    pub(crate) args: &'static [Argument],
    pub(crate) summary: &'static CStr,
    pub(crate) complexity: &'static CStr,
    /// The version of redis-rl that had it first.
    pub(crate) since: &'static CStr,
    pub(crate) presence: Presence,
    /// Made by [`handler!`](crate::handler).
    pub(crate) handler: Handler,
}

/// A handler as the server calls it.
pub(crate) type Handler = unsafe extern "C" fn(
    *mut raw::RedisModuleCtx,
    *mut *mut raw::RedisModuleString,
    c_int,
) -> c_int;

/// Whether a command is there.
#[derive(Clone, Copy)]
pub(crate) enum Presence {
    /// It is, or the module is not loaded.
    Always,
    /// It is if this setting says so, unless another module has a command of that name.
    IfFree(fn() -> bool),
}

/// Which arguments of a command are keys.
#[derive(Clone, Copy)]
pub(crate) enum Keys {
    None,
    First,
    All,
    /// Every second argument, from the first on.
    Pairs,
    /// After the first argument, which says how many.
    Counted,
}

/// What a command does to its keys.
#[derive(Clone, Copy)]
pub(crate) enum Access {
    /// It reads them.
    Look,
    /// It reads and changes them.
    Update,
    /// It deletes them.
    Remove,
}

impl Access {
    const fn flags(self) -> u32 {
        match self {
            Self::Look => raw::REDISMODULE_CMD_KEY_RO | raw::REDISMODULE_CMD_KEY_ACCESS,
            Self::Update => {
                raw::REDISMODULE_CMD_KEY_RW
                    | raw::REDISMODULE_CMD_KEY_ACCESS
                    | raw::REDISMODULE_CMD_KEY_UPDATE
            }
            Self::Remove => raw::REDISMODULE_CMD_KEY_RM | raw::REDISMODULE_CMD_KEY_DELETE,
        }
    }
}

/// An argument, for COMMAND DOCS.
pub(crate) struct Argument {
    pub(crate) name: &'static CStr,
    /// The word before it, if there is one.
    pub(crate) token: Option<&'static CStr>,
    pub(crate) kind: Kind,
    pub(crate) optional: bool,
    pub(crate) multiple: bool,
}

/// What an argument is.
pub(crate) enum Kind {
    /// The name of a key.
    Key,
    Text,
    Integer,
    /// A word that stands for itself.
    Token,
    OneOf(&'static [Argument]),
    /// All of these, in order.
    Block(&'static [Argument]),
}

impl Argument {
    pub(crate) const fn required(name: &'static CStr, kind: Kind) -> Self {
        Self { name, token: None, kind, optional: false, multiple: false }
    }

    /// `[TOKEN value]`
    pub(crate) const fn option(token: &'static CStr, name: &'static CStr, kind: Kind) -> Self {
        Self { name, token: Some(token), kind, optional: true, multiple: false }
    }

    /// A word that stands for itself.
    pub(crate) const fn word(token: &'static CStr, name: &'static CStr) -> Self {
        Self { name, token: Some(token), kind: Kind::Token, optional: false, multiple: false }
    }

    pub(crate) const fn or_nothing(self) -> Self {
        Self { optional: true, ..self }
    }

    pub(crate) const fn repeated(self) -> Self {
        Self { multiple: true, ..self }
    }
}

/// What a command does. Implemented by [`handler!`](crate::handler).
pub(crate) trait Run {
    /// An error is the text of the reply.
    fn run(call: &Call<'_>) -> Result<(), CString>;
}

/// Makes a [`Handler`] of a function `fn(&Call) -> Result<(), E>`, where `E` is an error's text.
#[macro_export]
macro_rules! handler {
    ($run:path) => {{
        struct Command;
        impl $crate::redis::register::Run for Command {
            #[inline]
            fn run(call: &$crate::redis::Call<'_>) -> Result<(), std::ffi::CString> {
                $run(call).map_err(Into::into)
            }
        }
        $crate::redis::register::handler::<Command>()
    }};
}

/// The handler that runs a command.
pub(crate) const fn handler<R: Run>() -> Handler {
    run::<R>
}

/// Runs a command and replies its error, if it ends in one.
///
/// A panic would leave through the server's frames and abort it. There is none that input can reach; should one be
/// left, the request fails and the server stays.
///
/// # Safety
///
/// The arguments are those with which the server called a command.
unsafe extern "C" fn run<R: Run>(
    ctx: *mut raw::RedisModuleCtx,
    argv: *mut *mut raw::RedisModuleString,
    argc: c_int,
) -> c_int {
    let count = usize::try_from(argc).unwrap_or_default();
    // SAFETY: the server calls with an array of this many strings, which it keeps meanwhile.
    let arguments = unsafe { std::slice::from_raw_parts(argv, count) };
    // SAFETY: the same.
    let call = unsafe { Call::new(ctx, arguments) };
    match catch_unwind(AssertUnwindSafe(|| R::run(&call))) {
        Ok(Ok(())) => {}
        Ok(Err(message)) => call.reply_error(&message),
        Err(_) => call.reply_error(c"ERR internal error in redis-rl, please report it"),
    }
    api::OK
}

impl Call<'_> {
    /// Whether the server does not call the command but only asks which arguments are its keys, the command having the flag
    /// `getkeys-api`. The keys are to be reported with [`Call::report_keys`], and nothing is to be done.
    pub(crate) fn asks_for_keys(&self) -> bool {
        // SAFETY: the context is that of a call that has not returned.
        unsafe { api::is_keys_position_request(self.ctx) != 0 }
    }

    /// Reports that `count` arguments from `first` on are keys, and what is done to them. The command's name has position 0.
    pub(crate) fn report_keys(&self, first: c_int, count: usize, access: Access) {
        let flags = access.flags().cast_signed();
        for position in (first..).take(count) {
            // SAFETY: the context is that of a call that asks which arguments are keys.
            unsafe { api::key_at_pos_with_flags(self.ctx, position, flags) };
        }
    }
}

/// The oldest server that has all we call: Redis 7.0.5. Valkey says it is a Redis 7.2.4.
const OLDEST: (c_int, &str) = (0x0007_0005, "Redis 7.0.5 or Valkey 8.0");

/// Sets the module up in a server; an error says why that cannot be.
///
/// A server that refuses something gets back a module that failed to load: it takes away the commands and the settings, and unmaps
/// the library. Redis 7.0 and 7.2 leave the subscriptions to events there, and call into nothing at the next one. So what may
/// be refused comes first, then the settings, which say whether CL.THROTTLE is wanted, and events last, when nothing
/// can fail any more.
pub(crate) fn load(ctx: &Context, commands: &[Command]) -> Result<(), String> {
    let (log, ctx) = (ctx, ctx.ctx);
    check_server()?;
    // SAFETY: the context is the one with which the server loads the module.
    if !unsafe { datatype::create(ctx) } {
        return Err("the server refuses the data type ratelimit".into());
    }
    for command in commands.iter().filter(|command| matches!(command.presence, Presence::Always)) {
        // SAFETY: as above.
        if !unsafe { create(ctx, command)? } {
            return Err(name_taken(command));
        }
    }
    // SAFETY: as above.
    if !unsafe { config::load(ctx) } {
        return Err("the server refuses the settings rl.*".into());
    }
    for command in commands {
        if let Presence::IfFree(wanted) = command.presence
            && wanted()
            // SAFETY: as above.
            && !unsafe { create(ctx, command)? }
        {
            log.log_notice(&name_taken(command));
        }
    }
    // SAFETY: as above.
    unsafe { api::set_module_options(ctx, options()) };
    // SAFETY: as above.
    unsafe { propagation::watch(ctx) };
    // SAFETY: as above.
    unsafe { top::watch(ctx) };
    Ok(())
}

/// An error says what an older server lacks.
fn check_server() -> Result<(), String> {
    let too_old = |what: &str| format!("this server is too old: {what}. {} is needed", OLDEST.1);
    if let Some(function) = api::first_missing() {
        return Err(too_old(&format!("it has no {function}")));
    }
    // SAFETY: the function takes nothing and reads one number of the server's.
    let version = unsafe { api::get_server_version() };
    if version < OLDEST.0 {
        let [_, major, minor, patch] = version.to_be_bytes();
        return Err(too_old(&format!("it is {major}.{minor}.{patch}")));
    }
    Ok(())
}

/// The module's options. They are set in one call, since a second would overwrite the first.
fn options() -> c_int {
    let mut options = raw::REDISMODULE_OPTIONS_HANDLE_IO_ERRORS
        | raw::REDISMODULE_OPTION_NO_IMPLICIT_SIGNAL_MODIFIED
        | raw::REDISMODULE_OPTIONS_HANDLE_REPL_ASYNC_LOAD;
    if is_valkey() {
        // VALKEYMODULE_OPTIONS_HANDLE_ATOMIC_SLOT_MIGRATION: without it CLUSTER MIGRATESLOTS refuses.
        options |= 1 << 5;
    }
    options.cast_signed()
}

/// Whether the server is Valkey, which alone has functions under that name.
fn is_valkey() -> bool {
    let mut function = null_mut::<std::ffi::c_void>();
    // SAFETY: the name is a C string, and the server writes a pointer to the place given.
    let found = unsafe { api::get_api(c"ValkeyModule_Alloc".as_ptr(), (&raw mut function).cast()) };
    found == api::OK
}

fn name_taken(command: &Command) -> String {
    let name = command.name.to_string_lossy();
    format!("the server refuses the registration of {name}: the name is taken")
}

/// Registers one command, and describes it; false if its name is taken.
///
/// # Safety
///
/// `ctx` is the context with which the server loads the module.
unsafe fn create(ctx: *mut raw::RedisModuleCtx, command: &Command) -> Result<bool, String> {
    let (name, flags) = (command.name.as_ptr(), command.flags.as_ptr());
    // SAFETY: the context is the caller's, and the texts are C strings.
    let created = unsafe { api::create_command(ctx, name, Some(command.handler), flags, 0, 0, 0) };
    if created != api::OK {
        return Ok(false);
    }
    let refused =
        |what: &str| format!("the server refuses {what} of {}", command.name.to_string_lossy());
    // SAFETY: as above.
    let registered = unsafe { api::get_command(ctx, name) };
    let mut keys = key_specs(command);
    let mut args = Arguments::default();
    let info = raw::RedisModuleCommandInfo {
        version: &raw const INFO_VERSION,
        summary: command.summary.as_ptr(),
        complexity: command.complexity.as_ptr(),
        since: command.since.as_ptr(),
        history: null_mut(),
        tips: null(),
        arity: command.arity,
        key_specs: keys.as_mut_ptr(),
        args: args.list(command.args),
    };
    // SAFETY: the command is the one just made; the server copies what the description points to.
    if unsafe { api::set_command_info(registered, &raw const info) } != api::OK {
        return Err(refused("the description"));
    }
    // SAFETY: as above.
    match unsafe { api::set_command_acl_categories(registered, command.acl.as_ptr()) } {
        Some(status) if status != api::OK => Err(refused("the ACL categories")),
        Some(_) | None => Ok(true),
    }
}

/// The layout of the structures below, by which servers read those of other versions.
static INFO_VERSION: raw::RedisModuleCommandInfoVersion = raw::RedisModuleCommandInfoVersion {
    version: 1,
    sizeof_historyentry: size_of::<raw::RedisModuleCommandHistoryEntry>(),
    sizeof_keyspec: size_of::<raw::RedisModuleCommandKeySpec>(),
    sizeof_arg: size_of::<raw::RedisModuleCommandArg>(),
};

/// Which arguments are keys, and an empty element that ends the list.
fn key_specs(command: &Command) -> [raw::RedisModuleCommandKeySpec; 2] {
    use raw::RedisModuleKeySpecFindKeysType_REDISMODULE_KSPEC_FK_KEYNUM as KEYNUM;
    use raw::RedisModuleKeySpecFindKeysType_REDISMODULE_KSPEC_FK_RANGE as RANGE;
    type Range = raw::RedisModuleCommandKeySpec__bindgen_ty_2__bindgen_ty_1;
    type KeyNum = raw::RedisModuleCommandKeySpec__bindgen_ty_2__bindgen_ty_2;

    let range = |lastkey, keystep| raw::RedisModuleCommandKeySpec__bindgen_ty_2 {
        range: Range { lastkey, keystep, limit: 0 },
    };
    let index = raw::RedisModuleKeySpecBeginSearchType_REDISMODULE_KSPEC_BS_INDEX;
    let end = raw::RedisModuleKeySpecBeginSearchType_REDISMODULE_KSPEC_BS_INVALID;
    // Positions of a range count from where the search begins, -1 being the last argument.
    let (find_keys_type, fk) = match command.keys {
        Keys::None | Keys::First => (RANGE, range(0, 1)),
        Keys::All => (RANGE, range(-1, 1)),
        Keys::Pairs => (RANGE, range(-1, 2)),
        Keys::Counted => {
            let keynum = KeyNum { keynumidx: 0, firstkey: 1, keystep: 1 };
            (KEYNUM, raw::RedisModuleCommandKeySpec__bindgen_ty_2 { keynum })
        }
    };
    let spec = |flags, begin_search_type| raw::RedisModuleCommandKeySpec {
        notes: null(),
        flags,
        begin_search_type,
        bs: raw::RedisModuleCommandKeySpec__bindgen_ty_1 {
            index: raw::RedisModuleCommandKeySpec__bindgen_ty_1__bindgen_ty_1 { pos: 1 },
        },
        find_keys_type,
        fk,
    };
    let begin = if let Keys::None = command.keys { end } else { index };
    [spec(u64::from(command.access.flags()), begin), spec(0, end)]
}

/// The lists of arguments that a description points to, kept until the server has copied them.
#[derive(Default)]
struct Arguments(Vec<Vec<raw::RedisModuleCommandArg>>);

impl Arguments {
    /// A list in the server's form, ended by an empty element.
    fn list(&mut self, arguments: &[Argument]) -> *mut raw::RedisModuleCommandArg {
        let mut list: Vec<_> = arguments.iter().map(|argument| self.argument(argument)).collect();
        list.push(EMPTY_ARGUMENT);
        let start = list.as_mut_ptr();
        self.0.push(list); // moves the vector, not what it holds
        start
    }

    fn argument(&mut self, argument: &Argument) -> raw::RedisModuleCommandArg {
        use raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_BLOCK as BLOCK;
        use raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_INTEGER as INTEGER;
        use raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_KEY as KEY;
        use raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_ONEOF as ONE_OF;
        use raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_PURE_TOKEN as TOKEN;
        use raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_STRING as TEXT;

        let (type_, key_spec_index, subargs) = match argument.kind {
            Kind::Key => (KEY, 0, null_mut()),
            Kind::Text => (TEXT, -1, null_mut()),
            Kind::Integer => (INTEGER, -1, null_mut()),
            Kind::Token => (TOKEN, -1, null_mut()),
            Kind::OneOf(choices) => (ONE_OF, -1, self.list(choices)),
            Kind::Block(parts) => (BLOCK, -1, self.list(parts)),
        };
        let mut flags = raw::REDISMODULE_CMD_ARG_NONE;
        if argument.optional {
            flags |= raw::REDISMODULE_CMD_ARG_OPTIONAL;
        }
        if argument.multiple {
            flags |= raw::REDISMODULE_CMD_ARG_MULTIPLE;
        }
        raw::RedisModuleCommandArg {
            name: argument.name.as_ptr(),
            type_,
            key_spec_index,
            token: argument.token.map_or(null::<c_char>(), CStr::as_ptr),
            flags: flags.cast_signed(),
            subargs,
            ..EMPTY_ARGUMENT
        }
    }
}

const EMPTY_ARGUMENT: raw::RedisModuleCommandArg = raw::RedisModuleCommandArg {
    name: null(),
    type_: 0,
    key_spec_index: -1,
    token: null(),
    summary: null(),
    since: null(),
    flags: 0,
    deprecated_since: null(),
    subargs: null_mut(),
    display_text: null(),
};
