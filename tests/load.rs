//! Many clients at once get exactly what the limit allows.

use std::thread;

use crate::client::send;
use crate::server::Server;

#[test]
fn a_hundred_clients_at_once_on_one_key_get_exactly_the_limit() {
    let server = Server::start().unwrap();
    for limits in [
        "TOKENBUCKET k 1000 1/d",
        "SLIDING l 1000 1d",
        "SLIDINGLOG m 1000 1d",
        "FIXEDWINDOW n 1000 1d",
        "CONCURRENCY o 1000 1d",
    ] {
        let granted: i64 = thread::scope(|scope| {
            let clients: Vec<_> = (0..100)
                .map(|client| {
                    let server = &server;
                    scope.spawn(move || {
                        let mut connection = server.connection().unwrap();
                        let line = |call| match limits.strip_prefix("CONCURRENCY") {
                            Some(limits) => format!("RL.ACQUIRE{limits} id:{client}:{call}"),
                            None => format!("RL.{limits}"),
                        };
                        let ask = |call| send::<Vec<i64>>(&mut connection, &line(call))[0];
                        (0..20).map(ask).sum::<i64>()
                    })
                })
                .collect();
            clients.into_iter().map(|client| client.join().unwrap()).sum()
        });
        assert_eq!(granted, 1_000, "{limits}");
    }
}
