//! CL.THROTTLE is what clients of redis-cell expect, and better where no caller can depend on the worse.

use std::time::Duration;

use redis::{Connection, Value};
use redis_cell_rs::{Cmd, Policy, Verdict};

use crate::client::{T0, at, error, send};
use crate::module_load::other_module;
use crate::server::Server;

fn server() -> (Server, Connection) {
    let server = Server::builder().virtual_clock().start().unwrap();
    let connection = server.connection().unwrap();
    (server, connection)
}

/// Rows of a moment in milliseconds, the arguments, and the reply; under both names.
fn check(rows: &[(u64, &str, [i64; 5])]) {
    let (_server, mut connection) = server();
    for name in ["CL.THROTTLE", "RL.THROTTLE", "cl.throttle"] {
        for (millis, arguments, expected) in rows {
            let reply = at(&mut connection, millis * 1_000, &format!("{name} {arguments}"));
            assert_eq!(&reply, expected, "{name} {arguments} at {millis} ms");
        }
        send::<()>(&mut connection, "FLUSHALL");
    }
}

#[test]
fn it_limits_as_redis_cell_does() {
    check(&[
        (0, "k 2 1 1", [0, 3, 2, -1, 1]),
        (0, "k 2 1 1", [0, 3, 1, -1, 2]),
        (0, "k 2 1 1", [0, 3, 0, -1, 3]),
        (0, "k 2 1 1", [1, 3, 0, 1, 3]),
        (999, "k 2 1 1", [1, 3, 0, 1, 3]),
        (1_000, "k 2 1 1", [0, 3, 0, -1, 3]),
        (9_000, "k 2 1 1", [0, 3, 2, -1, 1]),
    ]);
}

#[test]
fn every_edge_has_its_row() {
    check(&[
        // Burst 0: one at a time.
        (0, "burst0 0 1 10", [0, 1, 0, -1, 10]),
        (0, "burst0 0 1 10", [1, 1, 0, 10, 10]),
        (10_000, "burst0 0 1 10", [0, 1, 0, -1, 10]),
        // Quantity 0 looks without writing.
        (0, "look 4 1 1 0", [0, 5, 5, -1, 0]),
        (0, "look 4 1 1 3", [0, 5, 2, -1, 3]),
        (0, "look 4 1 1 0", [0, 5, 2, -1, 3]),
        // A quantity above the limit can never be.
        (0, "never 4 1 1 6", [1, 5, 5, -1, 0]),
        (0, "never 4 1 1 5", [0, 5, 0, -1, 5]),
        // A raised limit helps at once, a lowered one is paid back.
        (0, "raised 0 1 3600", [0, 1, 0, -1, 3_600]),
        (0, "raised 9 10 60", [0, 10, 8, -1, 12]),
        (0, "lowered 9 1 1 10", [0, 10, 0, -1, 10]),
        (0, "lowered 0 1 1", [1, 1, 0, 10, 10]),
        // A million a second, and one a year.
        (0, "million 999999 1000000 1 1000000", [0, 1_000_000, 0, -1, 1]),
        (1, "million 999999 1000000 1 1000", [0, 1_000_000, 0, -1, 1]),
        (1, "million 999999 1000000 1 1", [1, 1_000_000, 0, 1, 1]),
        (0, "year 0 1 31536000", [0, 1, 0, -1, 31_536_000]),
        (31_535_999_999, "year 0 1 31536000", [1, 1, 0, 1, 1]),
        (31_536_000_000, "year 0 1 31536000", [0, 1, 0, -1, 31_536_000]),
    ]);
}

#[test]
fn one_limiter_may_be_used_through_either_command() {
    let (_server, mut connection) = server();
    assert_eq!(at(&mut connection, 0, "CL.THROTTLE k 9 1 2 4"), [0, 10, 6, -1, 8]);
    assert_eq!(at(&mut connection, 0, "RL.TOKENBUCKET k 10 1/2 COST 4"), [1, 10, 2, 0, 16_000]);
    assert_eq!(at(&mut connection, 1, "RL.THROTTLE k 9 1 2 3"), [1, 10, 2, 2, 16]);
    assert_eq!(at(&mut connection, 0, "RL.PEEK k"), [1, 10, 2, 0, 16_000]);
}

#[test]
fn bad_input_gets_an_error_with_a_code() {
    let (_server, mut connection) = server();
    send::<()>(&mut connection, "SET text hello");
    send::<()>(&mut connection, "SET digits 1234567890123456789");
    for (line, expected) in [
        ("CL.THROTTLE k -1 1 1", "ERR max_burst must be an integer from 0 to 999999999999"),
        ("CL.THROTTLE k 1000000000000 1 1", "ERR max_burst must be"),
        ("CL.THROTTLE k 1 0 1", "ERR count must be an integer from 1 to"),
        ("CL.THROTTLE k 1 -1 1", "ERR count must be"),
        ("CL.THROTTLE k 1 1 0", "ERR period must be an integer from 1 to"),
        ("CL.THROTTLE k 1 1 -1", "ERR period must be an integer from 1 to"),
        ("CL.THROTTLE k 1 1 315360001", "ERR period must be an integer from 1 to"),
        ("CL.THROTTLE k 1 1000000001 1", "ERR count must be at most 1000000000 per second"),
        ("CL.THROTTLE k 1 1 1 -1", "ERR quantity must be an integer from 0 to 1000000000000"),
        ("CL.THROTTLE k 1 1 1 x", "ERR quantity must be"),
        ("CL.THROTTLE k 1 1 1 1 1", "ERR unknown option; expected one of AT"),
        ("CL.THROTTLE k 1 1", "ERR wrong number of arguments"),
        ("CL.THROTTLE text 1 1 1", "WRONGTYPE "),
        ("CL.THROTTLE digits 1 1 1", "WRONGTYPE "),
    ] {
        let words: Vec<_> = line.split(' ').map(str::as_bytes).collect();
        let found = error(&mut connection, &words);
        assert!(found.starts_with(expected), "{line}\n found {found}\n wants {expected}");
    }
    assert_eq!(send::<i64>(&mut connection, "DBSIZE"), 2);
}

#[test]
fn a_key_that_redis_cell_wrote_is_taken_over_where_it_stands() {
    let (_server, mut connection) = server();
    // Ten seconds of one unit a second are used: its theoretical arrival time is in nanoseconds.
    let arrival = (T0 + 10_000_000) * 1_000;
    let plant = |connection: &mut Connection| {
        send::<()>(connection, &format!("SET k {arrival} PXAT {}", T0 / 1_000 + 10_000));
    };
    plant(&mut connection);
    assert_eq!(at(&mut connection, 0, "CL.THROTTLE k 14 1 1 0"), [0, 15, 5, -1, 10]);
    assert_eq!(at(&mut connection, 0, "CL.THROTTLE k 14 1 1 6"), [1, 15, 5, 1, 10]);
    let text: String = send(&mut connection, "GET k");
    assert_eq!(text, arrival.to_string(), "neither a look nor a denial changes it");
    for line in ["RL.TOKENBUCKET k 15 1", "RL.PEEK k", "RL.REFUND k 1", "RL.RESET k", "RL.INFO k"] {
        let words: Vec<_> = line.split(' ').map(str::as_bytes).collect();
        assert!(error(&mut connection, &words).starts_with("WRONGTYPE "), "{line}");
    }
    assert_eq!(at(&mut connection, 0, "RL.THROTTLE k 14 1 1 5"), [0, 15, 0, -1, 15]);
    assert_eq!(send::<String>(&mut connection, "TYPE k"), "ratelimit");
    assert_eq!(at(&mut connection, 0, "RL.PEEK k"), [0, 15, 0, 1_000, 15_000]);
    // A nanosecond of use is a unit in part: used is rounded up.
    send::<()>(&mut connection, &format!("SET k {} EX 100", T0 * 1_000 + 1));
    assert_eq!(at(&mut connection, 0, "CL.THROTTLE k 0 1 1"), [1, 1, 0, 1, 1]);
    // What is over counts as nothing.
    plant(&mut connection);
    assert_eq!(at(&mut connection, 10_000_000, "CL.THROTTLE k 14 1 1"), [0, 15, 14, -1, 1]);
    assert_eq!(send::<String>(&mut connection, "TYPE k"), "ratelimit");
}

#[test]
fn the_sustained_rate_is_true_from_one_a_second_to_a_million() {
    let (_server, mut connection) = server();
    for rate in [1u64, 7, 60, 1_000, 999_983, 1_000_000] {
        // As many calls as fit ten thousand grants, each asking at twice the rate.
        let mut granted = 0;
        let step = |call: u64| call * 500_000 / rate;
        for batch in (0..20_000u64).collect::<Vec<_>>().chunks(1_000) {
            let mut pipeline = redis::pipe();
            for &call in batch {
                let moment = T0 + step(call);
                pipeline.cmd("CL.THROTTLE").arg(format!("rate:{rate}")).arg(1).arg(rate).arg(1);
                pipeline.arg(1).arg("AT").arg(moment);
            }
            let replies: Vec<Vec<i64>> = pipeline.query(&mut connection).unwrap();
            granted += replies.iter().filter(|reply| reply[0] == 0).count() as u64;
        }
        let possible = step(19_999) * rate / 1_000_000 + 2;
        assert!(granted <= possible, "{rate}/s: {granted} of {possible}");
        assert!(granted * 1_000 >= possible * 999, "{rate}/s: {granted} of {possible}");
    }
}

#[test]
fn clients_that_speak_cl_throttle_understand_the_replies() {
    let server = Server::start().unwrap();
    let mut connection = server.connection().unwrap();
    let policy = Policy::from_tokens_per_period(1, Duration::from_secs(86_400)).max_burst(1);
    let key = redis_cell_rs::Key::from("user123");
    let mut ask = || -> Verdict {
        let command: redis::Cmd = Cmd::new(&key, &policy).into();
        command.query(&mut connection).unwrap()
    };
    for remaining in [1, 0] {
        match ask() {
            Verdict::Allowed(details) => {
                assert_eq!((details.total, details.remaining), (2, remaining));
            }
            Verdict::Blocked(details) => panic!("{details:?}"),
        }
    }
    match ask() {
        Verdict::Blocked(details) => assert!((86_000..=86_400).contains(&details.retry_after)),
        Verdict::Allowed(details) => panic!("{details:?}"),
    }
}

#[tokio::test]
async fn the_tower_layer_for_redis_cell_works_unchanged() {
    use tower::{Service, ServiceBuilder, ServiceExt};
    use tower_redis_cell::redis_cell::Policy;
    use tower_redis_cell::{ProvideRule, ProvideRuleResult, RateLimitConfig, RateLimitLayer, Rule};

    #[derive(Clone)]
    struct PerUser;

    impl ProvideRule<&'static str> for PerUser {
        fn provide<'a>(&self, user: &'a &'static str) -> ProvideRuleResult<'a> {
            Ok(Some(Rule::new(*user, Policy::from_tokens_per_hour(1).max_burst(1))))
        }
    }

    let server = Server::start().unwrap();
    let client = redis::Client::open(("127.0.0.1", server.port())).unwrap();
    let connection = redis::aio::ConnectionManager::new(client).await.unwrap();
    let config = RateLimitConfig::new(PerUser, |_error, _request| "denied");
    let mut service = ServiceBuilder::new()
        .layer(RateLimitLayer::new(config, connection))
        .service_fn(|_user: &'static str| async { Ok::<_, std::convert::Infallible>("granted") });
    for (user, expected) in [("a", "granted"), ("a", "granted"), ("a", "denied"), ("b", "granted")]
    {
        assert_eq!(service.ready().await.unwrap().call(user).await.unwrap(), expected);
    }
}

#[test]
fn the_name_is_given_up_where_the_setting_says_so() {
    let server = Server::builder().setting("rl.cl-throttle no").start().unwrap();
    let mut connection = server.connection().unwrap();
    assert!(
        error(&mut connection, &[b"CL.THROTTLE", b"k", b"1", b"1", b"1"])
            .contains("unknown command")
    );
    assert_eq!(send::<Vec<i64>>(&mut connection, "RL.THROTTLE k 1 1 1")[0], 0);
}

#[test]
fn a_replica_that_is_swapped_first_decides_what_a_redis_cell_primary_sends() {
    let primary = Server::builder().without_module().module_before(other_module()).start().unwrap();
    let replica = Server::builder().replica_of(&primary).start().unwrap();
    replica.wait_for_sync(&primary).unwrap();
    let mut connection = primary.connection().unwrap();
    send::<Value>(&mut connection, "CL.THROTTLE k 9 1 60");
    send::<Value>(&mut connection, "CL.THROTTLE k 9 1 60 2");
    replica.wait_for_sync(&primary).unwrap();
    let seen: Vec<i64> = send(&mut replica.connection().unwrap(), "RL.PEEK k");
    assert_eq!(seen[..3], [1, 10, 7]);
}
