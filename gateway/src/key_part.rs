//! Parts of keys: a text as it may stand between the `:` of a key.
//!
//! | value | part |
//! | --- | --- |
//! | up to 64 bytes | itself; all but letters, digits and `- . _ ~ @ +` is escaped, like `%3A` |
//! | longer, or a secret | `sha256-` and the first 128 bits in hexadecimal, so that a key is short and shows no secret |
//! | begins like such a hash | hashed as well, so that it is not taken for the hash of another value |
//! | hashed, with a pepper | `hmac-`: values that can be guessed cannot be found out by trying |
//!
//! So nobody can write another one's key, and none splits a hash tag. `clients/vectors.json` has the cases that the clients
//! share.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use sha2::{Digest as _, Sha256};

const LONGEST: usize = 64;
const HASHED_BYTES: usize = 16;
const SHA256: &str = "sha256-";
const HMAC: &str = "hmac-";
const ESCAPED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'@').remove(b'+');

/// A part of a key. It is made as it is written.
#[derive(Clone, Copy)]
pub struct KeyPart<'a> {
    value: &'a [u8],
    form: Form<'a>,
}

#[derive(Clone, Copy)]
enum Form<'a> {
    Escaped,
    Hashed,
    Peppered(&'a [u8]),
}

impl<'a> KeyPart<'a> {
    /// The part of a value that comes from outside: escaped, or hashed if it is a secret, long, or reads like a hash.
    pub fn new(
        value: &'a (impl AsRef<[u8]> + ?Sized),
        secret: bool,
        pepper: Option<&'a [u8]>,
    ) -> Self {
        let value = value.as_ref();
        let form = match pepper {
            _ if !secret && value.len() <= LONGEST && !reads_like_a_hash(value) => Form::Escaped,
            None => Form::Hashed,
            Some(pepper) => Form::Peppered(pepper),
        };
        Self { value, form }
    }

    /// The part of a name from the configuration: escaped, however long it is.
    pub fn plain(name: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self { value: name.as_ref(), form: Form::Escaped }
    }
}

impl fmt::Display for KeyPart<'_> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.form {
            Form::Escaped => percent_encode(self.value, ESCAPED).fmt(to),
            Form::Hashed => hashed(to, SHA256, &Sha256::digest(self.value)),
            Form::Peppered(pepper) => {
                // HMAC takes a key of any length.
                let mut hmac = Hmac::<Sha256>::new_from_slice(pepper).map_err(|_| fmt::Error)?;
                hmac.update(self.value);
                hashed(to, HMAC, &hmac.finalize().into_bytes())
            }
        }
    }
}

fn reads_like_a_hash(value: &[u8]) -> bool {
    [SHA256, HMAC].iter().any(|prefix| value.starts_with(prefix.as_bytes()))
}

fn hashed(to: &mut fmt::Formatter<'_>, prefix: &str, hash: &[u8]) -> fmt::Result {
    to.write_str(prefix)?;
    hash.iter().take(HASHED_BYTES).try_for_each(|byte| write!(to, "{byte:02x}"))
}
