//! Short words for what tests do most: sending a command, and reading its reply.

use redis::{Connection, ErrorKind, FromRedisValue, RedisError, Value};

/// A moment that every server's present is before: virtual clocks start here.
pub const T0: u64 = 4_000_000_000_000_000;

/// Sends words and reads the reply.
pub fn try_send<T: FromRedisValue>(
    connection: &mut Connection,
    words: &[&[u8]],
) -> Result<T, RedisError> {
    let (name, args) = words.split_first().expect("a command has a name");
    let mut command = redis::cmd(std::str::from_utf8(name).expect("a name is text"));
    for arg in args {
        command.arg(*arg);
    }
    command.query(connection)
}

/// Sends a line of words, and reads the reply, which is no error.
pub fn send<T: FromRedisValue>(connection: &mut Connection, line: &str) -> T {
    let words: Vec<_> = line.split_whitespace().map(str::as_bytes).collect();
    try_send(connection, &words).unwrap_or_else(|error| panic!("{line}: {error}"))
}

/// Sends a line of words at a moment (microseconds after [`T0`]), and reads the integers of the reply.
pub fn at(connection: &mut Connection, micros: u64, line: &str) -> Vec<i64> {
    send(connection, &format!("{line} AT {}", T0 + micros))
}

/// Sends words, and reads the error's whole text: code and message.
pub fn error(connection: &mut Connection, words: &[&[u8]]) -> String {
    match try_send::<Value>(connection, words) {
        Ok(reply) => panic!(
            "{:?}: {reply:?} is no error",
            words.iter().map(|w| String::from_utf8_lossy(w)).collect::<Vec<_>>()
        ),
        Err(error) => text(&error),
    }
}

/// An error as the server sent it.
pub fn text(error: &RedisError) -> String {
    let code = match error.kind() {
        ErrorKind::Io => panic!("the connection broke: {error}"),
        _ => error.code().unwrap_or("ERR"),
    };
    format!("{code} {}", error.detail().unwrap_or_default())
}

/// `DEBUG DIGEST-VALUE` of a key.
pub fn digest(connection: &mut Connection, key: &str) -> String {
    let digests: Vec<String> = send(connection, &format!("DEBUG DIGEST-VALUE {key}"));
    digests.concat()
}
