//! A call of a command: its context and its arguments, as the server holds them.
//!
//! Arguments are borrowed, not copied: the server keeps them until the command returns, and a [`Call`] does
//! not live longer.

use std::marker::PhantomData;

use redis_module::raw;

use super::api;

/// One call of one command.
pub struct Call<'a> {
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
    #[must_use]
    pub fn args(&self) -> Args<'a> {
        Args { rest: self.arguments.get(1..).unwrap_or_default() }
    }
}

/// The arguments that are still to be read.
#[derive(Clone)]
pub struct Args<'a> {
    rest: &'a [*mut raw::RedisModuleString],
}

impl<'a> Args<'a> {
    /// The next argument, which stays unread.
    #[must_use]
    pub fn peek(&self) -> Option<&'a [u8]> {
        self.clone().next().map(|arg| arg.bytes())
    }
}

impl<'a> Iterator for Args<'a> {
    type Item = Arg<'a>;

    fn next(&mut self) -> Option<Arg<'a>> {
        let (&string, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(Arg { string, call: PhantomData })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.rest.len(), Some(self.rest.len()))
    }
}

impl ExactSizeIterator for Args<'_> {}

/// One argument: any bytes, perhaps the name of a key.
#[derive(Clone, Copy)]
pub struct Arg<'a> {
    pub(super) string: *mut raw::RedisModuleString,
    call: PhantomData<&'a ()>,
}

impl<'a> Arg<'a> {
    /// Its bytes.
    #[must_use]
    pub fn bytes(self) -> &'a [u8] {
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
