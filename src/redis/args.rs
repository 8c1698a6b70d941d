//! A call of a command: its context and its arguments, as the server holds them.
//!
//! Arguments are borrowed, not copied: the server keeps them until the command returns, and a [`Call`] does
//! not live longer.

use std::marker::PhantomData;

use redis_module::raw;

use super::api;

/// One call of one command.
pub(crate) struct Call<'a> {
    pub(super) ctx: *mut raw::RedisModuleCtx,
    arguments: &'a [*mut raw::RedisModuleString],
}

impl<'a> Call<'a> {
    /// # Safety
    ///
    /// `ctx` and `arguments` are those with which the server called a command that has not returned.
    pub(super) unsafe fn new(
        ctx: *mut raw::RedisModuleCtx,
        arguments: &'a [*mut raw::RedisModuleString],
    ) -> Self {
        Self { ctx, arguments }
    }

    /// The arguments, the command's name aside.
    pub(crate) fn args(&self) -> Args<'a> {
        Args { rest: self.arguments.get(1..).unwrap_or_default() }
    }
}

/// The arguments that are still to be read.
#[derive(Clone)]
pub(crate) struct Args<'a> {
    rest: &'a [*mut raw::RedisModuleString],
}

impl<'a> Args<'a> {
    /// The next argument, which stays unread.
    pub(crate) fn peek(&self) -> Option<&'a [u8]> {
        self.clone().next()
    }

    /// The next argument as the name of a key.
    pub(crate) fn key(&mut self) -> Option<Arg<'a>> {
        let (&string, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(Arg { string, call: PhantomData })
    }
}

/// The bytes of one argument after the other.
impl<'a> Iterator for Args<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.key().map(Arg::bytes)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.rest.len(), Some(self.rest.len()))
    }
}

impl ExactSizeIterator for Args<'_> {}

/// One argument: any bytes, perhaps the name of a key.
#[derive(Clone, Copy)]
pub(crate) struct Arg<'a> {
    pub(super) string: *mut raw::RedisModuleString,
    call: PhantomData<&'a ()>,
}

impl<'a> Arg<'a> {
    /// Its bytes.
    pub(crate) fn bytes(self) -> &'a [u8] {
        let mut length = 0;
        // SAFETY: the string is an argument of a call that has not returned.
        let bytes = unsafe { api::string_ptr_len(self.string, &raw mut length) };
        if bytes.is_null() {
            return &[];
        }
        // SAFETY: the server answers as many readable bytes, and keeps them until the call returns.
        unsafe { std::slice::from_raw_parts(bytes.cast(), length) }
    }
}
