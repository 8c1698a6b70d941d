//! The native type `ratelimit`: what the server does with a value of ours.
//!
//! ```text
//! key -> server's object -> module value -> Box<Limiter> (-> Box<[Entry]>, for lists; -> Box<LargeBucket>, for large ones)
//! ```
//!
//! A value is a boxed [`Limiter`]. It is saved as the bytes of [`codec`], in RDB files, in DUMP payloads and, as
//! the internal command [`RESTORE_COMMAND`], in an append-only file that is rewritten or a slot
//! that migrates; expiry travels beside it, by the server.
//!
//! Threads: `free` may run on the server's lazy-free thread, and saving in a forked child. Both touch
//! nothing but the value.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use redis_module::raw;

use super::api;
use crate::limiter::{Block, BlockMut, Limiter, codec};

/// The type's name: exactly nine characters, as the server requires.
const NAME: &CStr = c"ratelimit";

/// The internal command `key bytes` that makes a key of a state's bytes.
pub(crate) const RESTORE_COMMAND: &CStr = c"RL._RESTORE";

static TYPE: AtomicPtr<raw::RedisModuleType> = AtomicPtr::new(null_mut());

/// The type as the server knows it.
pub(super) fn module_type() -> *mut raw::RedisModuleType {
    TYPE.load(Relaxed)
}

/// Creates the type; false if the server refuses.
///
/// # Safety
///
/// `ctx` is the context with which the server loads the module.
pub(super) unsafe fn create(ctx: *mut raw::RedisModuleCtx) -> bool {
    let mut methods = raw::RedisModuleTypeMethods {
        version: u64::from(raw::REDISMODULE_TYPE_METHOD_VERSION),
        rdb_load: Some(rdb_load),
        rdb_save: Some(rdb_save),
        aof_rewrite: Some(aof_rewrite),
        mem_usage: Some(mem_usage),
        digest: Some(digest),
        free: Some(free),
        copy: Some(copy),
        defrag: Some(defrag),
        aux_load: None,
        aux_save: None,
        aux_save_triggers: 0,
        free_effort: None,
        unlink: None,
        mem_usage2: None,
        free_effort2: None,
        unlink2: None,
        copy2: None,
        aux_save2: None,
    };
    let version = c_int::from(codec::VERSION);
    // SAFETY: the name is a C string; the server copies the methods.
    let created = unsafe { api::create_data_type(ctx, NAME.as_ptr(), version, &raw mut methods) };
    TYPE.store(created, Relaxed);
    !created.is_null()
}

/// A limiter as the server is to hold it.
pub(super) fn into_value(limiter: Limiter) -> *mut c_void {
    Box::into_raw(Box::new(limiter)).cast()
}

/// A limiter that the server holds.
///
/// # Safety
///
/// `value` came from [`into_value`], has not been freed, and nobody else uses it meanwhile.
pub(super) unsafe fn value_mut<'a>(value: *mut c_void) -> &'a mut Limiter {
    // SAFETY: the caller vouches for it.
    unsafe { &mut *value.cast::<Limiter>() }
}

/// A limiter that the server holds, to read.
///
/// # Safety
///
/// `value` came from [`into_value`], has not been freed, and nobody changes it meanwhile.
pub(super) unsafe fn value_ref<'a>(value: *const c_void) -> &'a Limiter {
    // SAFETY: the caller vouches for it.
    unsafe { &*value.cast::<Limiter>() }
}

/// The bytes that a value takes, as its allocator counts them.
///
/// # Safety
///
/// As for [`value_mut`].
pub(super) unsafe fn allocated(value: *const c_void) -> usize {
    // SAFETY: the value is one allocation of the server's allocator.
    let own = unsafe { api::malloc_size(value.cast_mut()) };
    // SAFETY: the caller vouches for it.
    let limiter = unsafe { value_ref(value) };
    let start: *const c_void = match limiter.block() {
        None => return own,
        Some(Block::Entries(entries)) => entries.as_ptr().cast(),
        Some(Block::Bucket(bucket)) => (&raw const *bucket).cast(),
    };
    // SAFETY: a block is one allocation of the server's allocator.
    own.saturating_add(unsafe { api::malloc_size(start.cast_mut()) })
}

unsafe extern "C" fn rdb_load(io: *mut raw::RedisModuleIO, version: c_int) -> *mut c_void {
    if version != c_int::from(codec::VERSION) {
        return null_mut();
    }
    let mut length = 0;
    // SAFETY: the server calls with the file it reads. On an error it answers null, since the
    // module's options say that it handles such errors.
    let bytes = unsafe { api::load_string_buffer(io, &raw mut length) };
    if bytes.is_null() {
        return null_mut();
    }
    // SAFETY: the server answers this many bytes, ours to free.
    let state = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), length) };
    let value = codec::decode_state(state).map_or(null_mut(), into_value);
    // SAFETY: the buffer is ours and nothing refers to it any more.
    unsafe { api::free(bytes.cast()) };
    value
}

unsafe extern "C" fn rdb_save(io: *mut raw::RedisModuleIO, value: *mut c_void) {
    // SAFETY: the server calls with a value of ours.
    let bytes = codec::encode_state(unsafe { value_ref(value) });
    // SAFETY: the server calls with the file it writes; it copies the bytes.
    unsafe { api::save_string_buffer(io, bytes.as_ptr().cast::<c_char>(), bytes.len()) };
}

unsafe extern "C" fn aof_rewrite(
    io: *mut raw::RedisModuleIO,
    key: *mut raw::RedisModuleString,
    value: *mut c_void,
) {
    // SAFETY: the server calls with a value of ours.
    let bytes = codec::encode_state(unsafe { value_ref(value) });
    let (start, length) = (bytes.as_ptr().cast::<c_char>(), bytes.len());
    // SAFETY: the server calls with the file it writes and the key's name; it copies the bytes.
    unsafe { api::emit_aof(io, RESTORE_COMMAND.as_ptr(), key, start, length) };
}

unsafe extern "C" fn mem_usage(value: *const c_void) -> usize {
    // SAFETY: the server calls with a value of ours.
    unsafe { allocated(value) }
}

unsafe extern "C" fn digest(digest: *mut raw::RedisModuleDigest, value: *mut c_void) {
    // SAFETY: the server calls with a value of ours.
    let bytes = codec::encode_state(unsafe { value_ref(value) });
    let (start, length) = (bytes.as_ptr().cast::<c_char>(), bytes.len());
    // SAFETY: the server calls with the digest it makes; it reads the bytes at once.
    unsafe { api::digest_add_string_buffer(digest, start, length) };
    // SAFETY: as above.
    unsafe { api::digest_end_sequence(digest) };
}

unsafe extern "C" fn free(value: *mut c_void) {
    // SAFETY: the server gives up a value that came from `into_value`, once.
    drop(unsafe { Box::from_raw(value.cast::<Limiter>()) });
}

unsafe extern "C" fn copy(
    _from: *mut raw::RedisModuleString,
    _to: *mut raw::RedisModuleString,
    value: *const c_void,
) -> *mut c_void {
    // SAFETY: the server calls with a value of ours.
    into_value(unsafe { value_ref(value) }.clone())
}

unsafe extern "C" fn defrag(
    ctx: *mut raw::RedisModuleDefragCtx,
    _key: *mut raw::RedisModuleString,
    value: *mut *mut c_void,
) -> c_int {
    // SAFETY: the server calls with the place where it holds a value of ours.
    let old = unsafe { *value };
    // SAFETY: the value is one allocation; if the server moves it, the old one is gone.
    let moved = unsafe { api::defrag_alloc(ctx, old) };
    let current = if moved.is_null() { old } else { moved };
    // SAFETY: as above; this is where the server looks for the value from now on.
    unsafe { *value = current };
    // SAFETY: a moved value is a copy of a value of ours, bit by bit.
    let limiter = unsafe { value_mut(current) };
    // SAFETY: the server calls with the context of its defragmentation.
    let elsewhere = |block| unsafe { api::defrag_alloc(ctx, block) };
    match limiter.block_mut() {
        None => {}
        // SAFETY: a block is one allocation; if the server moves it, what it answers is the copy.
        Some(BlockMut::Entries(entries)) => unsafe { relocate(entries, elsewhere) },
        // SAFETY: as above.
        Some(BlockMut::Bucket(bucket)) => unsafe { relocate(bucket, elsewhere) },
    }
    0
}

/// What a box holds can be looked for at another address.
trait Movable {
    /// The same, at another address.
    fn at(old: *mut Self, start: *mut c_void) -> *mut Self;
}

impl<T> Movable for T {
    fn at(_old: *mut Self, start: *mut c_void) -> *mut Self {
        start.cast()
    }
}

impl<T> Movable for [T] {
    fn at(old: *mut Self, start: *mut c_void) -> *mut Self {
        std::ptr::slice_from_raw_parts_mut(start.cast(), old.len())
    }
}

/// Has a box's memory moved elsewhere. No box ever refers to memory that is gone: while it moves there is none.
///
/// # Safety
///
/// `elsewhere` is given the box's allocation. It answers null and leaves it alone, or frees it and answers another one that holds
/// the same bytes, as the box's allocator would have made it. It does not panic.
unsafe fn relocate<T: Movable + ?Sized>(
    place: &mut Box<T>,
    elsewhere: impl FnOnce(*mut c_void) -> *mut c_void,
) {
    let place: *mut Box<T> = place;
    // SAFETY: the place holds a box, and gets one again below before anybody looks.
    let old = Box::into_raw(unsafe { place.read() });
    let moved = elsewhere(old.cast());
    let current = if moved.is_null() { old } else { T::at(old, moved) };
    // SAFETY: it is a box's allocation, which nobody else holds.
    let block = unsafe { Box::from_raw(current) };
    // SAFETY: what the place held before is not dropped: it is in the new box.
    unsafe { place.write(block) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::alloc::{Layout, alloc, dealloc};

    /// Moves an allocation, as the server does.
    fn moved(old: *mut c_void, layout: Layout) -> *mut c_void {
        // SAFETY: the layout is not of size 0.
        let new = unsafe { alloc(layout) };
        // SAFETY: both are allocations of this layout.
        unsafe { new.copy_from_nonoverlapping(old.cast(), layout.size()) };
        // SAFETY: the old one was allocated with this layout.
        unsafe { dealloc(old.cast(), layout) };
        new.cast()
    }

    fn check<T: Movable + PartialEq + std::fmt::Debug + ?Sized>(mut block: Box<T>)
    where
        Box<T>: Clone,
    {
        let before = block.clone();
        let layout = Layout::for_value(&*block);
        // SAFETY: it answers the allocation that holds the same bytes.
        unsafe { relocate(&mut block, |old| moved(old, layout)) };
        assert_eq!(block, before);
        // SAFETY: it leaves the allocation alone.
        unsafe { relocate(&mut block, |_| null_mut()) };
        assert_eq!(block, before);
    }

    #[test]
    fn a_block_that_is_moved_or_not_holds_what_it_held() {
        check(Box::new([7_u64; 11]));
        check(vec![(1_u64, 2_u32), (3, 4), (5, 6)].into_boxed_slice());
    }
}
