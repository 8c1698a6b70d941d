//! Short words for what tests do most: sending a command, and reading its reply.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use crate::server::{Server, slowness};
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

/// Sends a line of words at a moment (microseconds after [`T0`]), and writes what is replied in a line: the array
/// `1 2 [three 4]`, `nil`, or an error's whole text.
pub fn answer(connection: &mut Connection, micros: u64, line: &str) -> String {
    let line = format!("{line} AT {}", T0 + micros);
    let words: Vec<_> = line.split_whitespace().map(str::as_bytes).collect();
    match try_send::<Value>(connection, &words) {
        Ok(Value::Array(values)) => in_a_line(&values),
        Ok(value) => in_a_line(&[value]),
        Err(error) => text(&error),
    }
}

fn in_a_line(values: &[Value]) -> String {
    let words: Vec<_> = values
        .iter()
        .map(|value| match value {
            Value::Int(integer) => integer.to_string(),
            Value::BulkString(bytes) => bytes.escape_ascii().to_string(),
            Value::SimpleString(text) => text.clone(),
            Value::Okay => "OK".into(),
            Value::Nil => "nil".into(),
            Value::Array(values) => format!("[{}]", in_a_line(values)),
            other => panic!("{other:?}"),
        })
        .collect();
    words.join(" ")
}

/// Asserts rows of a moment (microseconds after [`T0`]), a line of words, and the reply in a line.
pub fn check_answers(connection: &mut Connection, rows: &[(u64, &str, &str)]) {
    for (micros, line, expected) in rows {
        let found = answer(connection, *micros, line);
        assert_eq!(&found, expected, "{line} at {micros} us");
    }
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

/// What a database holds: each key with its digest and when it expires, in milliseconds since 1970 (-1: never).
pub fn keyspace(connection: &mut Connection) -> BTreeMap<String, (String, i64)> {
    let keys: Vec<String> = send(connection, "KEYS *");
    if keys.is_empty() {
        return BTreeMap::new();
    }
    let digests: Vec<String> = send(connection, &format!("DEBUG DIGEST-VALUE {}", keys.join(" ")));
    let mut pipe = redis::pipe();
    for key in &keys {
        pipe.cmd("PEXPIRETIME").arg(key);
    }
    let expires: Vec<i64> = pipe.query(connection).expect("no errors");
    keys.into_iter().zip(digests.into_iter().zip(expires)).collect()
}

/// The commands that a server has appended to its append-only file since that began or was last rewritten.
pub fn appended(server: &Server) -> Vec<Vec<String>> {
    let files = fs::read_dir(server.dir().join("appendonlydir")).expect("append-only files");
    let mut files: Vec<_> = files
        .map(|file| file.expect("a file").path())
        .filter(|file| file.to_string_lossy().contains(".incr."))
        .collect();
    files.sort();
    let mut commands = Vec::new();
    // One that a rewrite has made useless may be removed meanwhile.
    for bytes in files.iter().filter_map(|file| fs::read(file).ok()) {
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let words = length(&mut rest, b'*');
            let word = |_| {
                let end = length(&mut rest, b'$');
                let word = String::from_utf8_lossy(&rest[..end]).into_owned();
                rest = &rest[end + 2..];
                word
            };
            commands.push((0..words).map(word).collect());
        }
    }
    commands
}

/// Reads a line of a sign and a number.
fn length(bytes: &mut &[u8], sign: u8) -> usize {
    let end = bytes.iter().position(|byte| *byte == b'\r').expect("an end of the line");
    assert_eq!(bytes[0], sign);
    let length = std::str::from_utf8(&bytes[1..end]).expect("a number is text");
    *bytes = &bytes[end + 2..];
    length.parse().expect("a number")
}

/// The units of a key that RL.INFO says are used; none if there is no key.
pub fn used(connection: &mut Connection, key: &str, options: &str) -> i64 {
    let fields: Vec<Value> = send(connection, &format!("RL.INFO {key} {options}"));
    if fields.is_empty() {
        return 0;
    }
    let named = |name: &[u8]| {
        let place = fields.iter().position(|field| *field == Value::BulkString(name.to_vec()));
        fields[place.expect("a field of that name") + 1].clone()
    };
    match named(b"used") {
        Value::Int(units) => units,
        other => panic!("{other:?} is no number"),
    }
}

/// Sends many lines of words, none of which may be answered by an error.
pub fn send_all(connection: &mut Connection, lines: impl IntoIterator<Item = String>) {
    let mut lines = lines.into_iter().peekable();
    while lines.peek().is_some() {
        let mut pipe = redis::pipe();
        for line in lines.by_ref().take(10_000) {
            let mut words = line.split_whitespace();
            let command = pipe.cmd(words.next().expect("a command has a name"));
            for word in words {
                command.arg(word);
            }
            pipe.ignore();
        }
        pipe.exec(connection).expect("no errors");
    }
}

/// How many random cases a property is tried in: fewer on a server that RL_SLOW says is slow.
pub fn cases() -> u32 {
    let cases = if std::env::var_os("RL_LONG").is_some() { 100_000 } else { 5_000 };
    cases / slowness()
}

/// Sets a flag at the end, that of a panic included: threads that wait for it would else never end.
pub struct Finally<'a>(pub &'a AtomicBool);

impl Drop for Finally<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}
