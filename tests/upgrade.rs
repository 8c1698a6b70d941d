//! Replicas first: what an older module sends and saves, this one reads; what the older one does not know, it refuses and lives.
//!
//! The older module's library is the one that the variable RL_OLDER names (`make test-upgrade` builds it from the project's
//! history). Without it nothing is tested, and a line says so.

use std::env;
use std::path::PathBuf;

use redis::Connection;

use crate::client::{T0, at, keyspace, send, try_send};
use crate::replication::{connect, wait_for_link};
use crate::server::{Builder, Server, wait_for};

/// A server with the older module; none if there is no such library.
fn older() -> Option<Builder> {
    let library = env::var_os("RL_OLDER").map(PathBuf::from);
    if library.is_none() {
        println!("not tested: RL_OLDER names no older library (make test-upgrade)");
    }
    Some(Server::builder().without_module().module_before(library?).virtual_clock())
}

fn newer() -> Builder {
    Server::builder().virtual_clock()
}

/// What the older module knows: every algorithm, with refunds and several at once.
fn traffic(connection: &mut Connection, round: u64) {
    for line in [
        "RL.TOKENBUCKET t 100 100/60 COST 3",
        "RL.TOKENBUCKET large 1000000000000 1/7d COST 1000000000000",
        "RL.LEAKYBUCKET l 100 100/60",
        "RL.FIXEDWINDOW f 100 1d ALIGN -8h",
        "RL.FIXEDWINDOW month 100 month",
        "RL.SLIDING s 100 1h BUCKETS 4 COST 2",
        "RL.SLIDINGLOG g 100 1h COST 2",
        "RL.REFUND s 1",
    ] {
        at(connection, round * 700_000_000, line);
    }
    let line = "RL.MULTI 2 {m}a {m}b SLIDING 100 1h SLIDINGLOG 100 1h AT";
    send::<redis::Value>(connection, &format!("{line} {}", T0 + round * 700_000_000));
}

fn fill(server: &Server) {
    let mut connection = connect(server);
    (0..20).for_each(|round| traffic(&mut connection, round));
    assert_eq!(keyspace(&mut connection).len(), 9);
}

#[test]
fn a_newer_replica_follows_an_older_primary_and_takes_over() {
    let Some(older) = older() else { return };
    let mut primary = older.start().unwrap();
    fill(&primary);
    let replica = newer().replica_of(&primary).start().unwrap();
    wait_for_link(&replica);
    // Whole states first, then effects.
    fill(&primary);
    replica.wait_for_sync(&primary).unwrap();
    assert_eq!(keyspace(&mut connect(&replica)), keyspace(&mut connect(&primary)));
    primary.kill();
    let mut connection = connect(&replica);
    send::<()>(&mut connection, "REPLICAOF NO ONE");
    traffic(&mut connection, 20);
    assert_eq!(at(&mut connection, 0, "RL.ACQUIRE c 2 1d id")[0], 1, "and gives leases now");
}

#[test]
fn a_newer_module_loads_an_older_ones_files() {
    for settings in
        [&["save 900 1"][..], &["appendonly yes"], &["appendonly yes", "aof-use-rdb-preamble no"]]
    {
        let Some(older) = older() else { return };
        let with = |builder: Builder| {
            settings.iter().fold(builder, |builder, line| builder.setting(*line))
        };
        let mut server = with(older).start().unwrap();
        fill(&server);
        let held = keyspace(&mut connect(&server));
        if settings.len() == 2 {
            send::<()>(&mut connect(&server), "BGREWRITEAOF");
            wait_for("the file to be rewritten", || {
                let info = crate::server::info(&mut connect(&server), "persistence")?;
                Ok(info.contains("aof_rewrite_in_progress:0")
                    && info.contains("aof_rewrite_scheduled:0"))
            })
            .unwrap();
        }
        server.shutdown(true).unwrap();
        let folder = format!("dir \"{}\"", server.dir().display());
        let restarted = with(newer()).setting(folder).start().unwrap();
        assert_eq!(keyspace(&mut connect(&restarted)), held, "{settings:?}");
    }
}

#[test]
fn an_older_module_reads_what_it_knows_and_refuses_leases_and_blocks() {
    let Some(older) = older() else { return };
    let (older, newer) = (older.start().unwrap(), newer().start().unwrap());
    let (mut old, mut new) = (connect(&older), connect(&newer));
    fill(&newer);
    at(&mut new, 0, "RL.ACQUIRE c 2 1d id");
    for _ in 0..2 {
        at(&mut new, 0, "RL.SLIDING blocked 1 1d BLOCK 1d");
    }
    let keys: Vec<String> = send(&mut new, "KEYS *");
    for key in keys {
        let bytes: Vec<u8> = send(&mut new, &format!("DUMP {key}"));
        let restored = try_send::<()>(&mut old, &[b"RESTORE", key.as_bytes(), b"0", &bytes]);
        if ["c", "blocked"].contains(&key.as_str()) {
            assert!(restored.is_err(), "it knows neither leases nor blocks");
            assert_eq!(send::<i64>(&mut old, &format!("EXISTS {key}")), 0);
        } else {
            restored.unwrap();
            assert_eq!(send::<Vec<u8>>(&mut old, &format!("DUMP {key}")), bytes, "{key}");
        }
    }
    let lost: Vec<i64> = at(&mut old, 0, "RL.SLIDING alive 5 1m");
    assert_eq!(lost[0], 1, "it lives");
}
