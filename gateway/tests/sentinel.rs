//! Sentinels name another master, and requests go there.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::server::{Server, binary, free_port};
use crate::store::{Load, signal, store, until, until_closed};

struct Sentinel {
    port: u16,
    child: Child,
    _folder: TempDir,
}

impl Sentinel {
    fn start(primary: &Server) -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port().unwrap());
        let file = folder.path().join("sentinel.conf");
        let lines = format!(
            "port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {} 2\n\
             sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 5000\n",
            primary.port()
        );
        std::fs::write(&file, lines).unwrap();
        let child = Command::new(binary())
            .arg(&file)
            .arg("--sentinel")
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { port, child, _folder: folder }
    }

    /// Whether it knows the replica and the other sentinels.
    fn is_ready(&self) -> bool {
        let asked = redis::Client::open(("127.0.0.1", self.port))
            .and_then(|client| client.get_connection())
            .and_then(|mut connection| {
                redis::cmd("SENTINEL")
                    .arg("MASTER")
                    .arg("main")
                    .query::<Vec<String>>(&mut connection)
            });
        asked.is_ok_and(|state| {
            let state: Vec<_> = state.chunks(2).collect();
            let is = |name: &str, value: &str| state.iter().any(|pair| *pair == [name, value]);
            is("num-slaves", "1") && is("num-other-sentinels", "2")
        })
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A primary with a replica, and three sentinels that watch over them.
pub struct Watched {
    pub primary: Server,
    pub replica: Server,
    sentinels: Vec<Sentinel>,
}

impl Watched {
    pub async fn start() -> Self {
        let primary = Server::start().unwrap();
        let replica = Server::builder().replica_of(&primary).start().unwrap();
        replica.wait_for_sync(&primary).unwrap();
        let sentinels: Vec<_> = (0..3).map(|_| Sentinel::start(&primary)).collect();
        until("the sentinels", async || sentinels.iter().all(Sentinel::is_ready)).await;
        Self { primary, replica, sentinels }
    }

    /// The first sentinel that it names is gone: the others are asked.
    pub fn url(&self) -> String {
        let ports = [1].into_iter().chain(self.sentinels.iter().map(|sentinel| sentinel.port));
        let hosts: Vec<_> = ports.map(|port| format!("127.0.0.1:{port}")).collect();
        format!("redis+sentinel://{}/main", hosts.join(","))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_under_load_needs_no_restart() {
    let watched = Watched::start().await;
    let store = store(&watched.url(), Duration::from_millis(500));
    let Watched { mut primary, replica, sentinels: _sentinels } = watched;
    until_closed(&store).await;
    let load = Load::start(&store);
    load.outcomes.more_answers().await;

    // The master stands still first, so that only the sentinels can tell; the replica takes its place.
    signal(&primary, "-STOP");
    until("the breaker to open", async || store.is_open()).await;
    until_closed(&store).await;
    load.outcomes.more_answers().await;
    let commands = crate::server::info(&mut replica.connection().unwrap(), "commandstats").unwrap();
    assert!(commands.to_lowercase().contains("cmdstat_rl.tokenbucket"), "the replica is asked");

    // It comes back, and is made a replica. Nobody is sent there.
    signal(&primary, "-CONT");
    load.outcomes.more_answers().await;
    primary.kill();
    load.outcomes.more_answers().await;
    assert!(!store.is_open());
    load.end().await;
}
