//! Replies.

use std::ffi::{CStr, c_char, c_long};

use super::{Call, api};

impl Call<'_> {
    pub(crate) fn reply_integer(&self, value: i64) {
        // SAFETY: the context is that of a call that has not returned.
        unsafe { api::reply_with_long_long(self.ctx, value) };
    }

    /// An array's head; as many elements must follow.
    pub(crate) fn reply_array(&self, length: usize) {
        let length = c_long::try_from(length).unwrap_or(c_long::MAX);
        // SAFETY: the context is that of a call that has not returned.
        unsafe { api::reply_with_array(self.ctx, length) };
    }

    /// A map's head (in RESP2 a flat array's); as many pairs must follow.
    pub(crate) fn reply_map(&self, pairs: usize) {
        let pairs = c_long::try_from(pairs).unwrap_or(c_long::MAX);
        // SAFETY: the context is that of a call that has not returned.
        unsafe { api::reply_with_map(self.ctx, pairs) };
    }

    pub(crate) fn reply_integers(&self, values: &[i64]) {
        self.reply_array(values.len());
        for &value in values {
            self.reply_integer(value);
        }
    }

    /// A string of any bytes.
    pub(crate) fn reply_text(&self, text: &str) {
        let bytes = text.as_ptr().cast::<c_char>();
        // SAFETY: the context is that of a call that has not returned, and the text is readable.
        unsafe { api::reply_with_string_buffer(self.ctx, bytes, text.len()) };
    }

    pub(crate) fn reply_null(&self) {
        // SAFETY: the context is that of a call that has not returned.
        unsafe { api::reply_with_null(self.ctx) };
    }

    pub(crate) fn reply_ok(&self) {
        // SAFETY: the context is that of a call that has not returned.
        unsafe { api::reply_with_simple_string(self.ctx, c"OK".as_ptr()) };
    }

    /// An error: a code, a space and what is wrong.
    pub(crate) fn reply_error(&self, message: &CStr) {
        // SAFETY: the context is that of a call that has not returned; the server copies the text.
        unsafe { api::reply_with_error(self.ctx, message.as_ptr()) };
    }
}
