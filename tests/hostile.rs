//! Bytes that no server of ours wrote, with a valid checksum: in RESTORE, in an RDB file, in the internal commands.
//!
//! ```text
//! what DUMP answers   | head: 7, type's id, opcode | length | state | 0 | 2: RDB version | 8: CRC |
//!                                                             ^ mutated, cut, lengthened
//!                       ^ and this, too: lengths that announce what does not follow
//! ```
//!
//! None stops the server. What is refused changes nothing and leaves no memory behind; what is taken is a
//! limiter like any other: it answers every command within its bounds, and is dumped as the bytes it came as.

use std::cell::RefCell;
use std::fs;
use std::path::Path;

use crc::{CRC_64_REDIS, Crc};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use redis::{Connection, Value};

use crate::client::{T0, at, cases, digest, send, text, try_send};
use crate::server::{Builder, Server, field, info, slowness};

/// Calls that make a state of every kind, one key each; the moments are microseconds after T0.
const SEEDS: &[&[(u64, &str)]] = &[
    &[(0, "RL.TOKENBUCKET k 10 100/60 COST 3"), (7, "RL.TOKENBUCKET k 10 100/60")],
    &[(0, "RL.TOKENBUCKET k 1000000000000 0.5 COST 1000000000000 FORCE")],
    &[(0, "RL.LEAKYBUCKET k 5 1/3650d COST 5")],
    &[(0, "RL.FIXEDWINDOW k 10 1m COST 2")],
    &[(0, "RL.FIXEDWINDOW k 10 1d ALIGN -8h COST 9")],
    &[(0, "RL.SLIDING k 10 1s BUCKETS 4")],
    &[
        (0, "RL.SLIDING k 10 1s BUCKETS 4"),
        (300_000, "RL.SLIDING k 10 1s BUCKETS 4 COST 3"),
        (400_000, "RL.SLIDING k 10 1s BUCKETS 4"),
        (900_000, "RL.SLIDING k 10 1s BUCKETS 4 COST 9 FORCE"),
    ],
    &[
        (0, "RL.SLIDINGLOG k 10 1s"),
        (1, "RL.SLIDINGLOG k 10 1s COST 2"),
        (2, "RL.SLIDINGLOG k 10 1s COST 3"),
        (999_999, "RL.SLIDINGLOG k 10 1s"),
    ],
    &[(0, "RL.SLIDINGLOG k 0 3650d COST 1000000000000 FORCE")],
    &[
        (0, "RL.SLIDING k 1 1m"),
        (1, "RL.SLIDING k 1 1m BLOCK 1m AFTER 3"),
        (2, "RL.SLIDING k 1 1m BLOCK 1m AFTER 3"),
    ],
    &[(0, "RL.TOKENBUCKET k 10 1/60 COST 10"), (1, "RL.TOKENBUCKET k 10 1/60 BLOCK 5m")],
    &[
        (0, "RL.FIXEDWINDOW k 2 1m COST 2"),
        (1, "RL.FIXEDWINDOW k 2 1m BLOCK 5m"),
        (2, "RL.REFUND k 2"),
    ],
    &[
        (0, "RL.ACQUIRE k 10 1m holder COST 3"),
        (7, "RL.ACQUIRE k 10 2m a"),
        (9, "RL.ACQUIRE k 10 1m b COST 2"),
    ],
    &[(0, "RL.ACQUIRE k 1000000000000 3650d 0123456789abcdef0123456789abcdef COST 1000000000000")],
];

/// Numbers at the edges of what a field may hold.
const EDGES: &[u64] = &[
    0,
    1,
    2,
    999,
    1_000,
    1_024,
    1_025,
    10_000_000,
    1_000_000_000_000,
    1_000_000_000_001,
    2_000_000_000_000,
    2_000_000_000_001,
    315_360_000_000_000,
    315_360_000_000_001,
    T0,
    (1 << 53) - 1,
    1 << 53,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
];

fn builder() -> Builder {
    let builder = Server::builder().virtual_clock().setting("rl.max-log-entries 10000000");
    // Compressed values would hide their bytes.
    builder.setting("rdbcompression no")
}

fn server() -> Server {
    builder().start().unwrap()
}

/// Tries a property in as many random cases as are asked for; in the same ones each time, or in new ones if many are.
fn try_all<S: Strategy>(strategy: &S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let long = std::env::var_os("RL_LONG").is_some();
    let config = Config { cases: cases(), failure_persistence: None, ..Config::default() };
    let mut runner = if long {
        TestRunner::new(config)
    } else {
        TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
    };
    runner.run(strategy, test).unwrap();
}

// ---- payloads

/// What is around a state in a payload, the same for all.
#[derive(Clone)]
struct Envelope {
    head: Vec<u8>,
    rdb_version: [u8; 2],
}

const HEAD_LEN: usize = 11;
const FOOTER_LEN: usize = 10;

impl Envelope {
    fn of(dump: &[u8]) -> Self {
        let envelope = Self {
            head: dump[..HEAD_LEN].to_vec(),
            rdb_version: dump[dump.len() - FOOTER_LEN..][..2].try_into().unwrap(),
        };
        assert_eq!(envelope.wrap(&Self::state(dump)), dump, "it is understood");
        envelope
    }

    /// The state's bytes in a payload.
    fn state(dump: &[u8]) -> Vec<u8> {
        // The two highest bits say how long the length is.
        let length_len = match dump[HEAD_LEN] >> 6 {
            0 => 1,
            1 => 2,
            _ => 5,
        };
        dump[HEAD_LEN + length_len..dump.len() - FOOTER_LEN - 1].to_vec()
    }

    /// A value: what an RDB file holds after the key's name, and a payload begins with.
    fn value(&self, state: &[u8]) -> Vec<u8> {
        let length = u32::try_from(state.len()).unwrap();
        let length = match length {
            0..64 => vec![state.len() as u8],
            64..16_384 => (0x4000 | length as u16).to_be_bytes().to_vec(),
            _ => [&[0x80][..], &length.to_be_bytes()].concat(),
        };
        [&self.head, &length, state, &[0]].concat()
    }

    fn wrap(&self, state: &[u8]) -> Vec<u8> {
        self.seal(&self.value(state))
    }

    /// Makes a payload of a value: the version and a valid checksum are added.
    fn seal(&self, value: &[u8]) -> Vec<u8> {
        with_checksum([value, &self.rdb_version].concat())
    }
}

fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    let checksum = Crc::<u64>::new(&CRC_64_REDIS).checksum(&bytes);
    bytes.extend(checksum.to_le_bytes());
    bytes
}

fn dump(connection: &mut Connection) -> Vec<u8> {
    send(connection, "DUMP k")
}

/// The states that [`SEEDS`] make, and the envelope they come in.
fn seeds(connection: &mut Connection) -> (Envelope, Vec<Vec<u8>>) {
    let states: Vec<_> = SEEDS
        .iter()
        .map(|calls| {
            for (micros, line) in *calls {
                let allowed = at(connection, *micros, line)[0];
                let is_granted = !line.contains("BLOCK") && !line.contains("REFUND");
                assert_eq!(allowed, i64::from(is_granted), "{line}");
            }
            let dump = dump(connection);
            send::<()>(connection, "DEL k");
            dump
        })
        .collect();
    (Envelope::of(&states[0]), states.iter().map(|dump| Envelope::state(dump)).collect())
}

// ---- mutations

/// Replaces the bytes from `offset` on.
fn with_bytes(bytes: &[u8], offset: usize, new: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (place, new) in bytes.iter_mut().skip(offset).zip(new) {
        *place = *new;
    }
    bytes
}

/// Whether a state or an effect is of a concurrency limit.
fn is_of_leases(bytes: &[u8]) -> bool {
    bytes.get(1) == Some(&5)
}

/// Whether a state or an effect has denials.
fn is_penalized(bytes: &[u8]) -> bool {
    bytes.first() == Some(&3)
}

/// Where the fields of a state or an effect begin: two bytes, and then eight bytes each. After three of them, each
/// lease has three, the length of its id, and its id.
fn fields(bytes: &[u8]) -> Vec<usize> {
    if !is_of_leases(bytes) {
        return (2..bytes.len()).step_by(8).collect();
    }
    let mut fields = vec![2, 10, 18, 26, 34];
    let mut lease = 26;
    while let Some(length) = bytes.get(lease + 24) {
        fields.extend([lease, lease + 8, lease + 16]);
        lease += 25 + usize::from(*length);
    }
    fields.sort_unstable();
    fields.dedup();
    fields.retain(|field| field + 8 <= bytes.len());
    fields
}

/// The leases in a state, each with its moment, ttl, units and id; `None` if that is not what is there.
fn leases(state: &[u8]) -> Option<Vec<([u64; 3], &[u8])>> {
    let (mut rest, mut leases) = (&state[26..], Vec::new());
    while !rest.is_empty() {
        let numbers = [0, 8, 16].map(|place| rest.get(place..place + 8));
        let numbers = numbers.map(|bytes| bytes.and_then(|bytes| bytes.try_into().ok()));
        let [Some(at), Some(ttl), Some(units)] = numbers.map(|bytes| bytes.map(u64::from_le_bytes))
        else {
            return None;
        };
        let end = 25 + usize::from(*rest.get(24)?);
        leases.push(([at, ttl, units], rest.get(25..end)?));
        rest = &rest[end..];
    }
    Some(leases)
}

/// Every field with every number at an edge, and with its neighbours; every cut, and some bytes too many.
fn all_mutations(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for offset in 0..2 {
        all.extend((0..=255).map(|byte| with_bytes(bytes, offset, &[byte])));
    }
    for offset in fields(bytes) {
        let mut field = [0; 8];
        field.copy_from_slice(&bytes[offset..offset + 8]);
        let field = u64::from_le_bytes(field);
        let near = [field.wrapping_sub(1), field.wrapping_add(1), field.wrapping_mul(2)];
        for value in EDGES.iter().chain(&near) {
            all.push(with_bytes(bytes, offset, &value.to_le_bytes()));
        }
    }
    if is_of_leases(bytes) {
        // The lengths of ids are among these.
        for offset in 42..bytes.len() {
            let byte = bytes[offset];
            let near = [0, 1, byte.wrapping_sub(1), byte.wrapping_add(1), 64, 65, 255];
            all.extend(near.map(|byte| with_bytes(bytes, offset, &[byte])));
        }
        let first = bytes.get(26..50).unwrap_or(&bytes[26..]);
        let last = |ids: &[u8]| [bytes, first, ids].concat();
        all.extend([last(b"\x01z"), last(b"\x01a"), last(&[64; 65]), last(&[65; 66]), last(&[0])]);
    }
    all.extend((0..bytes.len()).map(|length| bytes[..length].to_vec()));
    all.extend((1..=32).map(|more| [bytes, &vec![0; more]].concat()));
    all.push([bytes, &bytes[bytes.len() - 16..]].concat());
    all
}

/// A change of a state or an effect, its places taken modulo the length.
#[derive(Clone, Debug)]
enum Mutation {
    Byte(usize, u8),
    Field(usize, u64),
    Swap(usize, usize),
    Cut(usize),
    Append(Vec<u8>),
    /// Many entries, in order or not.
    Entries(Vec<(u64, u64)>),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let number = prop_oneof![
        prop::sample::select(EDGES),
        any::<u64>(),
        0..1u64 << 53,
        (0..3_000_000u64).prop_map(|micros| T0 + micros),
        0..20u64,
    ]
    .boxed();
    let entries = prop::collection::vec((number.clone(), 1..1_000u64), 1..200);
    let in_order = prop::collection::vec((1..1_000u64, 1..1_000u64), 1..200).prop_map(|steps| {
        let mut time = T0;
        steps
            .into_iter()
            .map(|(step, units)| {
                time += step;
                (time, units)
            })
            .collect()
    });
    prop_oneof![
        3 => (any::<usize>(), any::<u8>()).prop_map(|(place, byte)| Mutation::Byte(place, byte)),
        5 => (any::<usize>(), number).prop_map(|(place, value)| Mutation::Field(place, value)),
        1 => (any::<usize>(), any::<usize>()).prop_map(|(one, other)| Mutation::Swap(one, other)),
        1 => any::<usize>().prop_map(Mutation::Cut),
        1 => prop::collection::vec(any::<u8>(), 1..40).prop_map(Mutation::Append),
        1 => prop_oneof![entries, in_order].prop_map(Mutation::Entries),
    ]
}

impl Mutation {
    fn apply(&self, bytes: &[u8]) -> Vec<u8> {
        let length = bytes.len().max(1);
        let places = fields(bytes);
        let field = |place: usize| places.get(place % places.len().max(1)).copied();
        match self {
            Self::Byte(place, byte) => with_bytes(bytes, place % length, &[*byte]),
            Self::Field(place, value) => {
                with_bytes(bytes, field(*place).unwrap_or_default(), &value.to_le_bytes())
            }
            Self::Swap(one, other) => {
                let (Some(one), Some(other)) = (field(*one), field(*other)) else {
                    return bytes.to_vec();
                };
                let of = |place: usize| bytes[place..].iter().take(8).copied().collect::<Vec<_>>();
                with_bytes(&with_bytes(bytes, one, &of(other)), other, &of(one))
            }
            Self::Cut(place) => bytes[..place % length].to_vec(),
            Self::Append(more) => [bytes, more].concat(),
            Self::Entries(entries) => {
                let entries = entries.iter().flat_map(|(time, units)| [*time, *units]);
                let entries = entries.flat_map(u64::to_le_bytes);
                // A list's entries follow its limits and a moment.
                bytes.iter().take(34).copied().chain(entries).collect()
            }
        }
    }
}

/// One of these, mutated a few times, or random bytes.
fn mutated(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let near = (prop::sample::select(seeds), prop::collection::vec(mutation(), 1..4)).prop_map(
        |(seed, mutations)| mutations.iter().fold(seed, |bytes, mutation| mutation.apply(&bytes)),
    );
    let far = (0..4u8, 0..7u8, prop::collection::vec(any::<u8>(), 0..80))
        .prop_map(|(version, algorithm, rest)| [&[version, algorithm][..], &rest].concat());
    prop_oneof![9 => near, 1 => far]
}

// ---- what must hold

/// The limits of a state, as words of a call.
fn limits(state: &[u8]) -> (String, u64) {
    let number = |offset: usize| u64::from_le_bytes(state[offset..offset + 8].try_into().unwrap());
    let (limit, b, c) = (number(2), number(10), number(18));
    let limits = match state[1] {
        // A rate in plain units per second may have more units than one that is written as a fraction.
        kind @ (0 | 1) => {
            let rate = if b > 1_000_000_000_000 { "1".into() } else { format!("{b}/{c}us") };
            format!("RL.{} k {limit} {rate}", ["TOKENBUCKET", "LEAKYBUCKET"][usize::from(kind)])
        }
        2 if c == u64::MAX => format!("RL.FIXEDWINDOW k {limit} {b}us"),
        2 => format!("RL.FIXEDWINDOW k {limit} {b}us ALIGN {c}us"),
        3 => format!("RL.SLIDING k {limit} {b}us BUCKETS {c}"),
        5 => format!("RL.ACQUIRE k 1000000000000 {b}us another"),
        _ => format!("RL.SLIDINGLOG k {} {b}us", limit.min(10_000_000)),
    };
    (limits, limit)
}

/// Asserts of a state's fields, which `limiter/codec.rs` draws, that grants could have left them so.
fn check_state(state: &[u8]) -> Result<(), TestCaseError> {
    const MOST_USED: u64 = 2_000_000_000_000;
    const LATEST: u64 = (1 << 53) - 1;
    if is_of_leases(state) {
        return check_state_of_leases(state);
    }
    let numbers: Vec<_> = fields(state)
        .into_iter()
        .map(|offset| u64::from_le_bytes(state[offset..offset + 8].try_into().unwrap()))
        .collect();
    let mut numbers = numbers;
    if is_penalized(state) {
        let denials: Vec<_> = numbers.drain(3..5).collect();
        let is_block = denials[1] > 0;
        let is_valid = match denials[..] {
            [row, 0] => (1..1_000_000).contains(&row),
            [began, duration] => {
                began <= LATEST && (1_000..=315_360_000_000_000).contains(&duration)
            }
            _ => false,
        };
        prop_assert!(is_valid, "{:?}", state);
        if is_block && numbers.len() == 3 {
            // Nothing is used, and the block keeps it.
            return Ok(());
        }
    }
    prop_assert!(numbers.len() > 3, "{:?}", state);
    let (limit, third, moment) = (numbers[0], numbers[2], numbers[3]);
    let is_known = state[0] == 1 || is_penalized(state);
    prop_assert!(is_known && limit <= 1_000_000_000_000 && moment <= LATEST, "{:?}", state);
    let valid = match state[1] {
        0 | 1 => {
            let level = u128::from(numbers[4]) | u128::from(numbers[5]) << 64;
            numbers.len() == 6 && (1..=u128::from(MOST_USED) * u128::from(third)).contains(&level)
        }
        2 => numbers.len() == 5 && (1..=MOST_USED).contains(&numbers[4]),
        _ => {
            let entries = numbers[4..].chunks_exact(2).map(|entry| (entry[0], entry[1]));
            let most = if state[1] == 3 { third + 1 } else { 10_000_000 };
            entries.clone().is_sorted_by(|one, next| one.0 < next.0)
                && entries.clone().next_back().is_some_and(|entry| moment <= entry.0)
                && entries.clone().all(|(time, units)| time <= LATEST && units > 0)
                && entries.clone().map(|(_, units)| units).sum::<u64>() <= MOST_USED
                && entries.len() as u64 <= most
        }
    };
    prop_assert!(valid, "{:?}", state);
    Ok(())
}

/// The same of a concurrency limit: its leases are in the order of expiry and then of their ids, which differ.
fn check_state_of_leases(state: &[u8]) -> Result<(), TestCaseError> {
    let numbers: Vec<_> = [2, 10, 18]
        .map(|offset| u64::from_le_bytes(state[offset..offset + 8].try_into().unwrap()))
        .into();
    let span = 1_000..=315_360_000_000_000;
    let valid = state[0] == 2
        && numbers[0] <= 1_000_000_000_000
        && span.contains(&numbers[1])
        && numbers[2] == 0;
    prop_assert!(valid, "{:?}", state);
    let Some(leases) = leases(state) else { return Err(TestCaseError::fail("no leases")) };
    let order = |lease: &([u64; 3], &[u8])| (lease.0[0] + lease.0[1], lease.1.to_vec());
    let mut ids: Vec<_> = leases.iter().map(|lease| lease.1).collect();
    ids.sort();
    ids.dedup();
    let valid = !leases.is_empty()
        && ids.len() == leases.len()
        && leases.iter().all(|(_, id)| (1..=64).contains(&id.len()))
        && leases.iter().all(|([at, ttl, units], _)| {
            *at < 1 << 53 && span.contains(ttl) && (1..=1_000_000_000_000).contains(units)
        })
        && leases.is_sorted_by_key(order);
    prop_assert!(valid, "{:?}", state);
    Ok(())
}

/// Asserts that the key holds what a limiter may be, at moments before, at and after those in its state.
fn check_limiter(connection: &mut Connection, bytes: usize) -> Result<(), TestCaseError> {
    let state = Envelope::state(&dump(connection));
    check_state(&state)?;
    let (call, limit) = limits(&state);
    let memory: usize = send(connection, "MEMORY USAGE k");
    // At most 24 bytes for an entry, which is 16 in the state; the rest is the server's, and the limiter itself. A lease of
    // 26 bytes takes up to 88, and 48 more if another's id is long.
    let most = if is_of_leases(&state) { 600 + 6 * bytes } else { 400 + 2 * bytes };
    prop_assert!(memory <= most, "{} bytes for {}", memory, bytes);
    let before = digest(connection, "k");
    // What is used comes after the denials, if there are any; a row is no moment.
    let number = |offset| Some(u64::from_le_bytes(state.get(offset..offset + 8)?.try_into().ok()?));
    let begins = if is_penalized(&state) { [42, 26] } else { [26, 26] };
    let moment = begins.into_iter().find_map(number).unwrap();
    for now in [T0, T0 + 500_000, moment, moment.saturating_add(1_000), (1 << 53) - 1] {
        // The server expires keys by its own clock, which is before T0.
        let now = now.clamp(T0, (1 << 53) - 1);
        let peek: Option<Vec<i64>> = send(connection, &format!("RL.PEEK k AT {now}"));
        if let Some(peek) = &peek {
            check_row(peek, limit)?;
        }
        let info: Option<Vec<Value>> = send(connection, &format!("RL.INFO k AT {now}"));
        prop_assert_eq!(info.is_some(), peek.is_some());
        if let (Some(info), Some(peek)) = (info, peek) {
            check_info(&info, &peek, is_penalized(&state))?;
        }
    }
    prop_assert_eq!(digest(connection, "k"), before, "looking changes nothing");

    let now = moment.clamp(T0, (1 << 53) - 1);
    if is_of_leases(&state) {
        return check_leases(connection, &state, &call, now);
    }
    let grant = format!("{call} COST 1 FORCE AT {now}");
    let granted: Vec<i64> = send(connection, &grant);
    prop_assert_eq!(granted[0], 1, "{}", grant);
    check_state(&Envelope::state(&dump(connection)))?;
    let (_, limit) = limits(&Envelope::state(&dump(connection)));
    check_row(&granted, limit)?;
    let ttl: i64 = send(connection, "PTTL k");
    prop_assert!(ttl > 0, "it expires by itself: {}", ttl);
    check_same_when_restored(connection)?;
    let refunded: Option<Vec<i64>> = send(connection, &format!("RL.REFUND k 1 AT {now}"));
    prop_assert!(refunded.is_some());
    if send::<i64>(connection, "EXISTS k") == 1 {
        check_same_when_restored(connection)?;
    }
    Ok(())
}

/// Asserts that leases, however they came, can be looked at, added to, renewed and given back.
fn check_leases(
    connection: &mut Connection,
    state: &[u8],
    call: &str,
    now: u64,
) -> Result<(), TestCaseError> {
    let listed = |connection: &mut Connection| -> Vec<(Vec<u8>, u64, u64)> {
        send(connection, &format!("RL.LEASES k AT {now}"))
    };
    let counts = |lease: &&([u64; 3], &[u8])| {
        let [at, ttl, _] = lease.0;
        now < at + ttl && at <= now + ttl
    };
    let all = leases(state).unwrap_or_default();
    let expected: Vec<_> = all
        .iter()
        .filter(counts)
        .map(|([at, ttl, units], id)| (id.to_vec(), *units, (at + ttl - now).div_ceil(1_000)))
        .collect();
    prop_assert_eq!(&listed(connection), &expected);
    let reply: Vec<i64> = send(connection, &format!("{call} AT {now}"));
    check_row(&reply, 1_000_000_000_000)?;
    let held = expected.iter().map(|lease| lease.1).sum::<u64>();
    let is_again = expected.iter().any(|lease| lease.0 == b"another");
    prop_assert!(is_again || (reply[0] == 1) == (held < 1_000_000_000_000), "{:?}", reply);
    if reply[0] == 1 {
        check_state(&Envelope::state(&dump(connection)))?;
        let ttl: i64 = send(connection, "PTTL k");
        prop_assert!(ttl > 0, "it expires by itself: {}", ttl);
        check_same_when_restored(connection)?;
    }
    let now_held = listed(connection);
    for (how, ttl) in [(&b"RL.RENEW"[..], &b"1m"[..]), (b"RL.RELEASE", b"")] {
        let moment = now.to_string();
        let mut words = vec![how, b"k"];
        words.extend((!ttl.is_empty()).then_some(ttl));
        words.extend(now_held.iter().map(|lease| lease.0.as_slice()));
        words.extend([b"nobody", &b"AT"[..], moment.as_bytes()]);
        let changed: usize = try_send(connection, &words).unwrap();
        // Whoever is called so may be there, too.
        prop_assert_eq!(changed, now_held.len());
    }
    prop_assert!(now_held.is_empty() || send::<i64>(connection, "EXISTS k") == 0);
    Ok(())
}

/// Asserts the bounds of five integers.
fn check_row(row: &[i64], limit: u64) -> Result<(), TestCaseError> {
    let valid = row.len() == 5
        && (0..=1).contains(&row[0])
        && row[1] == limit.cast_signed()
        && (0..=row[1]).contains(&row[2])
        && row[3] >= -1
        && row[4] >= 0
        && row.iter().all(|&integer| integer < 1 << 53);
    prop_assert!(valid, "{:?}", row);
    Ok(())
}

/// Asserts that RL.INFO tells what RL.PEEK does, and no more used than there can be.
fn check_info(info: &[Value], peek: &[i64], is_penalized: bool) -> Result<(), TestCaseError> {
    let find = |name: &str| {
        let name = Value::BulkString(name.into());
        let position = info.iter().position(|word| *word == name)?;
        redis::from_redis_value::<i64>(info[position + 1].clone()).ok()
    };
    let used = find("used").unwrap();
    // Many leases may hold more than there can be of units elsewhere.
    let most = if find("leases").is_some() { 1 << 53 } else { 2_000_000_000_000 };
    let blocked = find("blocked_ms");
    prop_assert!(is_penalized || (blocked, find("denials")) == (None, None), "{:?}", info);
    let least = if blocked.is_some() { 0 } else { 1 };
    prop_assert!((least..=most).contains(&used), "{:?}", info);
    prop_assert_eq!(find("limit"), Some(peek[1]));
    prop_assert_eq!(find("remaining"), Some(peek[2]));
    let free = if blocked.is_some() { 0 } else { peek[1] - used };
    prop_assert_eq!(peek[2], free.max(0), "{:?}", info);
    prop_assert_eq!(find("reset_ms"), Some(peek[4]));
    Ok(())
}

/// Asserts that what DUMP answers makes the same limiter.
fn check_same_when_restored(connection: &mut Connection) -> Result<(), TestCaseError> {
    let dump = dump(connection);
    // Digests tell whether a key expires.
    let ttl: i64 = send(connection, "PTTL k");
    let ttl = ttl.to_string();
    try_send::<()>(connection, &[b"RESTORE", b"other", ttl.as_bytes(), &dump]).unwrap();
    let digests = [digest(connection, "k"), digest(connection, "other")];
    prop_assert_eq!(&digests[0], &digests[1]);
    let again: Vec<u8> = send(connection, "DUMP other");
    prop_assert_eq!(again, dump);
    send::<()>(connection, "DEL other");
    Ok(())
}

/// What a server's memory holds, and the most that its process ever did where the system tells that.
fn memory(server: &Server, connection: &mut Connection) -> [u64; 2] {
    let used = field(&info(connection, "memory").unwrap(), "used_memory").unwrap();
    let status = format!("/proc/{}/status", server.pid().unwrap());
    let status = fs::read_to_string(status).unwrap_or_default();
    let peak = field(&status, "VmHWM").unwrap_or_default();
    let peak = peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default() * 1_024;
    [used.parse().unwrap(), peak]
}

/// Asserts that memory is as it was before, but for the server's own buffers.
fn assert_no_memory_was_taken(server: &Server, connection: &mut Connection, before: [u64; 2]) {
    assert_eq!(send::<i64>(connection, "DBSIZE"), 0);
    let [used, peak] = memory(server, connection);
    assert!(used < before[0] + (2 << 20), "{used} bytes after {}", before[0]);
    // A program that runs the server takes memory of its own for it.
    let is_own = slowness() == 1;
    assert!(!is_own || peak < before[1] + (64 << 20), "{peak} bytes at most after {}", before[1]);
}

// ---- the tests

/// Restores a payload, and asserts that it is refused, or makes a limiter that is this state. Whether it was taken.
fn restore(
    connection: &mut Connection,
    payload: &[u8],
    state: Option<&[u8]>,
) -> Result<bool, TestCaseError> {
    match try_send::<()>(connection, &[b"RESTORE", b"k", b"0", payload, b"REPLACE"]) {
        Err(error) => {
            prop_assert_eq!(text(&error), "ERR Bad data format");
            Ok(false)
        }
        Ok(()) => {
            let found = Envelope::state(&dump(connection));
            if let Some(state) = state {
                prop_assert_eq!(&found, state, "a state is dumped as the bytes it came as");
            }
            check_limiter(connection, payload.len())?;
            send::<()>(connection, "DEL k");
            Ok(true)
        }
    }
}

#[test]
fn every_field_mutated_and_every_cut_of_a_payload_is_refused_or_a_limiter() {
    let server = server();
    let mut connection = server.connection().unwrap();
    let (envelope, states) = seeds(&mut connection);
    let before = memory(&server, &mut connection);
    let (mut taken, mut refused) = (0, 0);
    let mut count = |was_taken: bool| if was_taken { taken += 1 } else { refused += 1 };
    for state in &states {
        assert!(restore(&mut connection, &envelope.wrap(state), Some(state)).unwrap());
        for mutated in all_mutations(state) {
            let payload = envelope.wrap(&mutated);
            count(restore(&mut connection, &payload, Some(&mutated)).unwrap());
        }
        // What is around the state: the server refuses most itself, and we are to bear with the rest.
        let value = envelope.value(state);
        for length in 1..value.len() {
            count(restore(&mut connection, &envelope.seal(&value[..length]), None).unwrap());
        }
        for offset in 1..HEAD_LEN + 2 {
            for byte in 0..=255 {
                let mutated = with_bytes(&value, offset, &[byte]);
                count(restore(&mut connection, &envelope.seal(&mutated), None).unwrap());
            }
        }
    }
    println!("{taken} were taken, {refused} refused");
    assert!(taken > 300 && refused > 3_000, "{taken} and {refused}");
    assert_no_memory_was_taken(&server, &mut connection, before);
}

#[test]
fn a_length_that_announces_more_than_follows_takes_no_memory() {
    let server = server();
    let mut connection = server.connection().unwrap();
    let (envelope, states) = seeds(&mut connection);
    let before = memory(&server, &mut connection);
    for state in &states {
        for length in [1_000, 1 << 20, 1 << 31, 1 << 40, 1 << 62, u64::MAX] {
            let announced = [&[0x81][..], &length.to_be_bytes()].concat();
            // A string of that length; a compressed one; one that becomes so long when it is expanded.
            let strings = [
                [&announced, &state[..]].concat(),
                [&[0xc3][..], &announced, &[50], state].concat(),
                [&[0xc3, state.len() as u8][..], &announced, state].concat(),
            ];
            for string in strings {
                let value = [&envelope.head[..], &string, &[0]].concat();
                assert!(!restore(&mut connection, &envelope.seal(&value), None).unwrap());
                assert_no_memory_was_taken(&server, &mut connection, before);
            }
        }
    }
    // A list as long as it says takes what its entries need.
    let list = &states[6];
    let entries = (0..100_000u64).flat_map(|number| [T0 + number, 1]).flat_map(u64::to_le_bytes);
    let log = with_bytes(&with_bytes(list, 1, &[4]), 18, &[0; 8]);
    let log = with_bytes(&log, 26, &T0.to_le_bytes());
    let log: Vec<u8> = log[..34].iter().copied().chain(entries).collect();
    assert!(restore(&mut connection, &envelope.wrap(&log), Some(&log)).unwrap());
}

#[test]
fn random_payloads_are_refused_or_a_limiter() {
    let mut server = server();
    let mut connection = server.connection().unwrap();
    let (envelope, states) = seeds(&mut connection);
    let before = memory(&server, &mut connection);
    let connection = RefCell::new(connection);
    let taken = std::cell::Cell::new(0);
    try_all(&mutated(states), |state| {
        let connection = &mut *connection.borrow_mut();
        if restore(connection, &envelope.wrap(&state), Some(&state))? {
            taken.set(taken.get() + 1);
        }
        Ok(())
    });
    println!("{} of {} were taken", taken.get(), cases());
    assert!(taken.get() > cases() / 20 && taken.get() < cases());
    assert_no_memory_was_taken(&server, &mut connection.borrow_mut(), before);
    assert!(server.is_alive());
}

#[test]
fn random_states_of_the_internal_command_are_refused_or_a_limiter() {
    let mut server = server();
    let mut connection = server.connection().unwrap();
    let (_, states) = seeds(&mut connection);
    let before = memory(&server, &mut connection);
    let connection = RefCell::new(connection);
    try_all(&mutated(states), |state| {
        let connection = &mut *connection.borrow_mut();
        match try_send::<()>(connection, &[b"RL._RESTORE", b"k", &state]) {
            Err(error) => prop_assert_eq!(
                text(&error),
                "ERR state must be the bytes of a limiter, as DUMP contains them"
            ),
            Ok(()) => {
                prop_assert_eq!(&Envelope::state(&dump(connection)), &state);
                check_limiter(connection, state.len())?;
                send::<()>(connection, "DEL k");
            }
        }
        Ok(())
    });
    assert_no_memory_was_taken(&server, &mut connection.borrow_mut(), before);
    assert!(server.is_alive());
}

/// What undoes something of these calls.
fn undoing(calls: &[(u64, &str)]) -> Vec<String> {
    let words: Vec<_> = calls[0].1.split(' ').collect();
    match words[0] {
        _ if calls.iter().any(|(_, line)| line.contains("REFUND")) => Vec::new(),
        "RL.ACQUIRE" => {
            vec![format!("RL.RENEW k 5m {}", words[4]), format!("RL.RELEASE k {}", words[4])]
        }
        _ => vec!["RL.REFUND k 1".into()],
    }
}

/// The effects of the calls in [`SEEDS`], as a server writes them into its append-only file.
fn effects() -> Vec<Vec<u8>> {
    let server = Server::builder().virtual_clock().setting("appendonly yes").start().unwrap();
    let mut connection = server.connection().unwrap();
    for calls in SEEDS {
        for (micros, line) in *calls {
            at(&mut connection, *micros, line);
        }
        for line in undoing(calls) {
            send::<Value>(&mut connection, &format!("{line} AT {}", T0 + 10));
        }
        send::<()>(&mut connection, "DEL k");
    }
    let folder = fs::read_dir(server.dir().join("appendonlydir")).unwrap();
    let mut files = folder.map(|file| file.unwrap().path());
    let file = files.find(|file| file.to_string_lossy().ends_with(".incr.aof")).unwrap();
    let file = fs::read(file).unwrap();
    let (mut rest, mut effects) = (&file[..], Vec::new());
    while !rest.is_empty() {
        let words = next_command(&mut rest);
        if words[0] == b"RL._ADD" {
            effects.push(words[2].to_vec());
        }
    }
    let calls: usize = SEEDS.iter().map(|calls| calls.len() + undoing(calls).len()).sum();
    assert_eq!(
        effects.len(),
        calls,
        "one for each grant, refund and counted denial, and for each lease renewed and released"
    );
    effects
}

/// Reads a command from an append-only file: `*count`, and then for each word `$length` and the word, all in lines.
fn next_command<'a>(rest: &mut &'a [u8]) -> Vec<&'a [u8]> {
    fn number(rest: &mut &[u8]) -> usize {
        let end = rest.iter().position(|&byte| byte == b'\r').unwrap();
        let number = std::str::from_utf8(&rest[1..end]).unwrap().parse().unwrap();
        *rest = &rest[end + 2..];
        number
    }
    let count = number(rest);
    let words = (0..count).map(|_| {
        let length = number(rest);
        let word = &rest[..length];
        *rest = &rest[length + 2..];
        word
    });
    words.collect()
}

#[test]
fn random_effects_of_the_internal_command_are_refused_or_make_a_limiter() {
    let effects = effects();
    let mut server = server();
    let mut connection = server.connection().unwrap();
    let (_, states) = seeds(&mut connection);
    let before = memory(&server, &mut connection);
    for effect in &effects {
        for mutated in all_mutations(effect) {
            let state = if is_of_leases(effect) { &states[states.len() - 2] } else { &states[0] };
            apply(&mut connection, state, &mutated).unwrap();
        }
    }
    let connection = RefCell::new(connection);
    let call = (prop::sample::select(states), mutated(effects.clone()));
    try_all(&call, |(state, effect)| apply(&mut connection.borrow_mut(), &state, &effect));
    let connection = &mut *connection.borrow_mut();

    // One that is none among others: nothing is applied.
    let words: [&[u8]; 5] = [b"RL._ADD", b"a", &effects[0], b"b", &effects[0][1..]];
    assert!(try_send::<()>(connection, &words).is_err());
    assert!(try_send::<()>(connection, &words[..4]).is_err());
    assert_no_memory_was_taken(&server, connection, before);
    assert!(server.is_alive());
}

#[test]
fn effects_of_any_kind_on_one_key_in_one_command_leave_what_can_be_stored() {
    let effects = effects();
    let mut server = server();
    let connection = RefCell::new(server.connection().unwrap());
    let several = prop::collection::vec(prop::sample::select(effects), 2..6);
    try_all(&several, |several| {
        let connection = &mut *connection.borrow_mut();
        let mut words: Vec<&[u8]> = vec![b"RL._ADD"];
        several.iter().for_each(|effect| words.extend([b"k", &effect[..]]));
        try_send::<()>(connection, &words).map_err(|error| TestCaseError::fail(text(&error)))?;
        if send::<i64>(connection, "EXISTS k") == 1 {
            check_state(&Envelope::state(&dump(connection)))?;
            check_same_when_restored(connection)?;
        }
        send::<()>(connection, "DEL k");
        Ok(())
    });
    assert!(server.is_alive());
}

/// Applies an effect to nothing, and to a state. It is refused and changes nothing, or the key holds a limiter.
fn apply(connection: &mut Connection, state: &[u8], effect: &[u8]) -> Result<(), TestCaseError> {
    for held in [None, Some(state)] {
        if let Some(state) = held {
            try_send::<()>(connection, &[b"RL._RESTORE", b"k", state]).unwrap();
        }
        let before = digest(connection, "k");
        match try_send::<()>(connection, &[b"RL._ADD", b"k", effect]) {
            Err(error) => {
                let error = text(&error);
                let expected = error
                    == "ERR effect must be 42 to 106 bytes, as a grant replicates them"
                    || error.starts_with("WRONGTYPE the key holds a ");
                prop_assert!(expected, "{}", error);
                prop_assert_eq!(digest(connection, "k"), before);
            }
            Ok(()) if send::<i64>(connection, "EXISTS k") == 1 => {
                check_limiter(connection, state.len() + effect.len())?;
            }
            // All was given back, or the grant was long ago.
            Ok(()) => {}
        }
        send::<()>(connection, "DEL k");
    }
    Ok(())
}

/// Starts a server on an RDB file; what its log says if it refuses.
fn start_on(folder: &Path) -> Result<Server, String> {
    let folder = format!("dir \"{}\"", folder.display());
    builder().setting(folder).start().map_err(|error| error.to_string())
}

#[test]
fn a_server_refuses_a_file_with_a_hostile_value_and_says_why_or_loads_it() {
    let server = server();
    let mut connection = server.connection().unwrap();
    let (envelope, states) = seeds(&mut connection);
    let folder = tempfile::tempdir().unwrap();
    let (mut loaded, mut refused) = (0, 0);
    let long = std::env::var_os("RL_LONG").is_some();
    for (number, state) in states.iter().enumerate() {
        try_send::<()>(&mut connection, &[b"RL._RESTORE", b"k", state]).unwrap();
        send::<()>(&mut connection, "SAVE");
        send::<()>(&mut connection, "DEL k");
        let file = fs::read(server.dir().join("dump.rdb")).unwrap();
        // Without the type, which is before the key's name.
        let value = &envelope.value(state)[1..];
        let position = file.windows(value.len()).position(|bytes| bytes == value).unwrap();
        let (before, after) = (&file[..position], &file[position + value.len()..]);
        let mutations = all_mutations(state);
        let values = mutations.iter().map(|state| envelope.value(state)[1..].to_vec());
        let huge = [&value[..HEAD_LEN - 1], &[0x81, 0, 0, 1, 0, 0, 0, 0, 0]].concat();
        // A few of each kind, others of each state: each takes the start of a server. No value is cut short here: looking for
        // what is wrong with such a file, the servers themselves read on behind its end for ever.
        let step = 13 * slowness().min(4) as usize;
        let (first, step) = if long { (0, 3) } else { (508 + number, step) };
        let chosen = values.skip(first).step_by(step);
        for value in chosen.chain([huge]) {
            let mut file = [before, &value, after].concat();
            file.truncate(file.len() - 8);
            fs::write(folder.path().join("dump.rdb"), with_checksum(file)).unwrap();
            let payload = envelope.seal(&[&envelope.head[..1], &value].concat());
            let is_valid =
                try_send::<()>(&mut connection, &[b"RESTORE", b"k", b"0", &payload]).is_ok();
            match start_on(folder.path()) {
                Ok(server) => {
                    let mut theirs = server.connection().unwrap();
                    assert!(is_valid, "what RESTORE takes, a file may hold: {value:?}");
                    assert_eq!(digest(&mut theirs, "k"), digest(&mut connection, "k"));
                    check_limiter(&mut theirs, value.len()).unwrap();
                    loaded += 1;
                }
                Err(log) => {
                    assert!(!is_valid, "what RESTORE refuses, a file may not hold: {value:?}");
                    assert!(
                        log.contains("did not start (exit status: "),
                        "it ends in order: {log}"
                    );
                    assert!(log.to_lowercase().contains("rdb"), "it says why: {log}");
                    for crash in ["crashed by signal", "ASSERTION FAILED", "BUG REPORT", "panicked"]
                    {
                        assert!(!log.contains(crash), "{log}");
                    }
                    refused += 1;
                }
            }
            send::<()>(&mut connection, "DEL k");
        }
    }
    println!("{loaded} were loaded, {refused} refused");
    assert!(loaded > 3 && refused > 20, "{loaded} and {refused}");
}
