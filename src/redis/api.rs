//! The server's functions that we call, and nothing else of it.
//!
//! The server hands its functions over as pointers, by name, before it calls `RedisModule_OnLoad`; one that it
//! does not have stays `None`. `first_missing` is asked once, at load, so that on an old server the module is
//! refused with a reason instead of failing in a call.

use std::ffi::{c_char, c_int, c_longlong, c_uint, c_ulonglong, c_void};

use redis_module::raw;

/// What the server answers if all went well.
#[expect(clippy::cast_possible_truncation, reason = "it is 0")]
pub(super) const OK: c_int = raw::REDISMODULE_OK as c_int;

/// Declares a function for each of the server's, under its own name, and `first_missing` over all.
macro_rules! server_functions {
    ($( fn $name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)? = $raw:ident; )*) => {
        $(
            #[inline]
            #[allow(clippy::too_many_arguments, reason = "it is the server's function")]
            pub(super) unsafe fn $name($($arg: $type),*) $(-> $result)? {
                // SAFETY: the pointer is written before OnLoad, on the main thread, and never again.
                match unsafe { raw::$raw } {
                    // SAFETY: what the server asks of its caller is what we ask of ours.
                    Some(function) => unsafe { function($($arg),*) },
                    None => missing(),
                }
            }
        )*

        /// The first of the functions that this server does not have.
        pub(super) fn first_missing() -> Option<&'static str> {
            $(
                // SAFETY: the pointer is written before OnLoad, on the main thread, and never again.
                if unsafe { raw::$raw }.is_none() {
                    return Some(stringify!($raw));
                }
            )*
            None
        }
    };
}

server_functions! {
    fn open_key(ctx: *mut raw::RedisModuleCtx, name: *mut raw::RedisModuleString, mode: c_int)
        -> *mut raw::RedisModuleKey = RedisModule_OpenKey;
    fn close_key(key: *mut raw::RedisModuleKey) = RedisModule_CloseKey;
    fn key_type(key: *mut raw::RedisModuleKey) -> c_int = RedisModule_KeyType;
    fn delete_key(key: *mut raw::RedisModuleKey) -> c_int = RedisModule_DeleteKey;
    fn module_type_get_type(key: *mut raw::RedisModuleKey) -> *mut raw::RedisModuleType
        = RedisModule_ModuleTypeGetType;
    fn module_type_get_value(key: *mut raw::RedisModuleKey) -> *mut c_void
        = RedisModule_ModuleTypeGetValue;
    fn module_type_set_value(key: *mut raw::RedisModuleKey, module_type: *mut raw::RedisModuleType, value: *mut c_void)
        -> c_int = RedisModule_ModuleTypeSetValue;
    fn get_abs_expire(key: *mut raw::RedisModuleKey) -> c_longlong = RedisModule_GetAbsExpire;
    fn set_abs_expire(key: *mut raw::RedisModuleKey, at: c_longlong) -> c_int
        = RedisModule_SetAbsExpire;
    fn value_length(key: *mut raw::RedisModuleKey) -> usize = RedisModule_ValueLength;
    fn string_dma(key: *mut raw::RedisModuleKey, length: *mut usize, mode: c_int) -> *mut c_char
        = RedisModule_StringDMA;
    fn create_string(ctx: *mut raw::RedisModuleCtx, bytes: *const c_char, length: usize)
        -> *mut raw::RedisModuleString = RedisModule_CreateString;
    fn free_string(ctx: *mut raw::RedisModuleCtx, string: *mut raw::RedisModuleString)
        = RedisModule_FreeString;
    fn string_ptr_len(string: *const raw::RedisModuleString, length: *mut usize) -> *const c_char
        = RedisModule_StringPtrLen;
    fn signal_modified_key(ctx: *mut raw::RedisModuleCtx, name: *mut raw::RedisModuleString) -> c_int
        = RedisModule_SignalModifiedKey;
    fn notify_keyspace_event(ctx: *mut raw::RedisModuleCtx, class: c_int, event: *const c_char, name: *mut raw::RedisModuleString)
        -> c_int = RedisModule_NotifyKeyspaceEvent;
    fn is_keys_position_request(ctx: *mut raw::RedisModuleCtx) -> c_int
        = RedisModule_IsKeysPositionRequest;
    fn key_at_pos_with_flags(ctx: *mut raw::RedisModuleCtx, position: c_int, flags: c_int)
        = RedisModule_KeyAtPosWithFlags;
    fn get_selected_db(ctx: *mut raw::RedisModuleCtx) -> c_int = RedisModule_GetSelectedDb;
    fn get_context_flags(ctx: *mut raw::RedisModuleCtx) -> c_int = RedisModule_GetContextFlags;
    fn replicate_verbatim(ctx: *mut raw::RedisModuleCtx) -> c_int = RedisModule_ReplicateVerbatim;
    fn reply_with_long_long(ctx: *mut raw::RedisModuleCtx, value: c_longlong) -> c_int
        = RedisModule_ReplyWithLongLong;
    fn reply_with_array(ctx: *mut raw::RedisModuleCtx, length: std::ffi::c_long) -> c_int
        = RedisModule_ReplyWithArray;
    fn reply_with_map(ctx: *mut raw::RedisModuleCtx, length: std::ffi::c_long) -> c_int
        = RedisModule_ReplyWithMap;
    fn reply_with_null(ctx: *mut raw::RedisModuleCtx) -> c_int = RedisModule_ReplyWithNull;
    fn reply_with_simple_string(ctx: *mut raw::RedisModuleCtx, text: *const c_char) -> c_int
        = RedisModule_ReplyWithSimpleString;
    fn reply_with_string_buffer(ctx: *mut raw::RedisModuleCtx, text: *const c_char, length: usize) -> c_int
        = RedisModule_ReplyWithStringBuffer;
    fn reply_with_error(ctx: *mut raw::RedisModuleCtx, text: *const c_char) -> c_int
        = RedisModule_ReplyWithError;
    fn create_data_type(ctx: *mut raw::RedisModuleCtx, name: *const c_char, version: c_int, methods: *mut raw::RedisModuleTypeMethods)
        -> *mut raw::RedisModuleType = RedisModule_CreateDataType;
    fn set_module_options(ctx: *mut raw::RedisModuleCtx, options: c_int)
        = RedisModule_SetModuleOptions;
    fn save_string_buffer(io: *mut raw::RedisModuleIO, bytes: *const c_char, length: usize)
        = RedisModule_SaveStringBuffer;
    fn load_string_buffer(io: *mut raw::RedisModuleIO, length: *mut usize) -> *mut c_char
        = RedisModule_LoadStringBuffer;
    fn free(block: *mut c_void) = RedisModule_Free;
    fn malloc_size(block: *mut c_void) -> usize = RedisModule_MallocSize;
    fn defrag_alloc(ctx: *mut raw::RedisModuleDefragCtx, block: *mut c_void) -> *mut c_void
        = RedisModule_DefragAlloc;
    fn digest_add_string_buffer(digest: *mut raw::RedisModuleDigest, bytes: *const c_char, length: usize)
        = RedisModule_DigestAddStringBuffer;
    fn digest_end_sequence(digest: *mut raw::RedisModuleDigest) = RedisModule_DigestEndSequence;
    fn get_server_version() -> c_int = RedisModule_GetServerVersion;
    fn get_api(name: *const c_char, target: *mut c_void) -> c_int = RedisModule_GetApi;
    fn create_command(ctx: *mut raw::RedisModuleCtx, name: *const c_char, handler: raw::RedisModuleCmdFunc, flags: *const c_char, first_key: c_int, last_key: c_int, key_step: c_int)
        -> c_int = RedisModule_CreateCommand;
    fn get_command(ctx: *mut raw::RedisModuleCtx, name: *const c_char)
        -> *mut raw::RedisModuleCommand = RedisModule_GetCommand;
    fn set_command_info(command: *mut raw::RedisModuleCommand, info: *const raw::RedisModuleCommandInfo)
        -> c_int = RedisModule_SetCommandInfo;
    fn register_bool_config(ctx: *mut raw::RedisModuleCtx, name: *const c_char, default: c_int, flags: c_uint, get: raw::RedisModuleConfigGetBoolFunc, set: raw::RedisModuleConfigSetBoolFunc, apply: raw::RedisModuleConfigApplyFunc, data: *mut c_void)
        -> c_int = RedisModule_RegisterBoolConfig;
    fn register_numeric_config(ctx: *mut raw::RedisModuleCtx, name: *const c_char, default: c_longlong, flags: c_uint, min: c_longlong, max: c_longlong, get: raw::RedisModuleConfigGetNumericFunc, set: raw::RedisModuleConfigSetNumericFunc, apply: raw::RedisModuleConfigApplyFunc, data: *mut c_void)
        -> c_int = RedisModule_RegisterNumericConfig;
    fn subscribe_to_server_event(ctx: *mut raw::RedisModuleCtx, event: raw::RedisModuleEvent, callback: raw::RedisModuleEventCallback)
        -> c_int = RedisModule_SubscribeToServerEvent;
    fn get_server_info(ctx: *mut raw::RedisModuleCtx, section: *const c_char)
        -> *mut raw::RedisModuleServerInfoData = RedisModule_GetServerInfo;
    fn free_server_info(ctx: *mut raw::RedisModuleCtx, info: *mut raw::RedisModuleServerInfoData)
        = RedisModule_FreeServerInfo;
    fn server_info_unsigned(info: *mut raw::RedisModuleServerInfoData, field: *const c_char, error: *mut c_int)
        -> c_ulonglong = RedisModule_ServerInfoGetFieldUnsigned;
    fn load_configs(ctx: *mut raw::RedisModuleCtx) -> c_int = RedisModule_LoadConfigs;
}

/// Replicates `command key bytes`. The server's function is variadic, which no macro can wrap.
pub(super) unsafe fn replicate(
    ctx: *mut raw::RedisModuleCtx,
    command: *const c_char,
    key: *mut raw::RedisModuleString,
    bytes: *const c_char,
    length: usize,
) -> c_int {
    // SAFETY: the pointer is written before OnLoad, on the main thread, and never again.
    match unsafe { raw::RedisModule_Replicate } {
        // SAFETY: the format "sb" announces a string, and a buffer with its length.
        Some(replicate) => unsafe { replicate(ctx, command, c"sb".as_ptr(), key, bytes, length) },
        None => missing(),
    }
}

/// Replicates a command with a vector of strings as its arguments.
pub(super) unsafe fn replicate_strings(
    ctx: *mut raw::RedisModuleCtx,
    command: *const c_char,
    strings: *mut *mut raw::RedisModuleString,
    count: usize,
) -> c_int {
    // SAFETY: the pointer is written before OnLoad, on the main thread, and never again.
    match unsafe { raw::RedisModule_Replicate } {
        // SAFETY: the format "v" announces a vector of strings with its length.
        Some(replicate) => unsafe { replicate(ctx, command, c"v".as_ptr(), strings, count) },
        None => missing(),
    }
}

/// Writes `command key bytes` into the append-only file that is being written anew.
pub(super) unsafe fn emit_aof(
    io: *mut raw::RedisModuleIO,
    command: *const c_char,
    key: *mut raw::RedisModuleString,
    bytes: *const c_char,
    length: usize,
) {
    // SAFETY: the pointer is written before OnLoad, on the main thread, and never again.
    match unsafe { raw::RedisModule_EmitAOF } {
        // SAFETY: the format "sb" announces a string, and a buffer with its length.
        Some(emit) => unsafe { emit(io, command, c"sb".as_ptr(), key, bytes, length) },
        None => missing(),
    }
}

/// The server's clock as it stood when the command began: Redis 7.2 and later, Valkey.
pub(super) fn cached_microseconds() -> Option<c_longlong> {
    // SAFETY: the pointer is written before OnLoad, on the main thread, and never again.
    let cached = unsafe { raw::RedisModule_CachedMicroseconds }?;
    // SAFETY: the function takes nothing and reads one number of the server's.
    Some(unsafe { cached() })
}

/// Puts a command into ACL categories: Redis 7.2 and later, Valkey.
pub(super) unsafe fn set_command_acl_categories(
    command: *mut raw::RedisModuleCommand,
    categories: *const c_char,
) -> Option<c_int> {
    // SAFETY: the pointer is written before OnLoad, on the main thread, and never again.
    let set = unsafe { raw::RedisModule_SetCommandACLCategories }?;
    // SAFETY: what the server asks of its caller is what we ask of ours.
    Some(unsafe { set(command, categories) })
}

/// Not reached: the module is not loaded if a function is missing.
#[cold]
fn missing() -> ! {
    std::process::abort()
}
