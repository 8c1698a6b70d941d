//! A server that refuses the module lives on as if it had never been asked, and takes it once the reason is gone.

use std::path::PathBuf;

use redis::{Connection, Value};

use crate::client::{error, send, try_send};
use crate::replication::connect;
use crate::server::{Server, module, wait_for};

/// The example `name_taken`: a module with commands of the names given, by default CL.THROTTLE, as redis-cell has it.
pub fn other_module() -> PathBuf {
    let ours = module().unwrap();
    let name = ours.file_name().unwrap().to_string_lossy().replace("redis_rl", "name_taken");
    let other = ours.parent().unwrap().parent().unwrap().join("examples").join(name);
    assert!(other.is_file(), "first: cargo build --examples");
    other
}

/// `MODULE LOAD path ...` or `MODULE LOADEX path ...`
fn words<'a>(how: &'a str, library: &'a str, rest: &'a str) -> Vec<&'a [u8]> {
    let words = ["MODULE", how, library].into_iter().chain(rest.split_whitespace());
    words.map(str::as_bytes).collect()
}

/// A server without the module, whose cron comes every 10 ms.
struct Bare {
    server: Server,
    connection: Connection,
    library: String,
}

impl Bare {
    fn start() -> Self {
        let server = Server::builder().without_module().setting("hz 100").start().unwrap();
        let connection = connect(&server);
        let library = module().unwrap().to_str().unwrap().to_owned();
        Self { server, connection, library }
    }

    fn load(&mut self, how: &str, rest: &str) {
        let () = try_send(&mut self.connection, &words(how, &self.library, rest)).unwrap();
    }

    /// Asserts that the server refuses the module for a reason that its log has, and goes on without a trace of it.
    fn assert_refuses(&mut self, how: &str, rest: &str, reason: &str) {
        let reply = error(&mut self.connection, &words(how, &self.library, rest));
        assert!(reply.starts_with("ERR Error loading the extension"), "{reason}: {reply}");
        self.wait_for_cron();
        assert!(self.server.is_alive(), "{reason}: the server has died:\n{}", self.server.log());
        let log = self.server.log();
        assert!(log.contains(&format!("redis-rl is not loaded: {reason}")), "{reason}: {log}");
        let settings: Vec<String> = send(&mut self.connection, "CONFIG GET rl.*");
        assert_eq!(settings, [""; 0], "{reason}");
        assert_eq!(self.commands(), [""; 0], "{reason}");
    }

    fn commands(&mut self) -> Vec<String> {
        send(&mut self.connection, "COMMAND LIST FILTERBY MODULE rl")
    }

    /// Waits for several turns of the server's cron: one is due every 10 ms, and comes before the next reply.
    fn wait_for_cron(&mut self) {
        let mut now = || -> u64 {
            let [seconds, micros]: [u64; 2] = send(&mut self.connection, "TIME");
            seconds * 1_000_000 + micros
        };
        let since = now();
        wait_for("the server's cron", || Ok(now() > since + 50_000)).unwrap();
    }

    /// Asserts that the module works.
    fn assert_works(&mut self) {
        let reply: Vec<i64> = send(&mut self.connection, "RL.SLIDING k 5 1m");
        assert_eq!(reply[..3], [1, 5, 4]);
        self.wait_for_cron();
        assert_eq!(send::<Vec<String>>(&mut self.connection, "CONFIG GET rl.*").len(), 10);
    }
}

#[test]
fn a_server_where_the_name_of_a_command_is_taken_refuses_the_module_and_lives() {
    let names: Vec<String> = {
        let server = Server::start().unwrap();
        send(&mut connect(&server), "COMMAND LIST FILTERBY MODULE rl")
    };
    assert!(names.len() > 10, "{names:?}");
    for name in names.iter().map(|name| name.to_uppercase()).filter(|name| name != "CL.THROTTLE") {
        let mut bare = Bare::start();
        let other = other_module().to_str().unwrap().to_owned();
        let () = try_send(&mut bare.connection, &words("LOAD", &other, &name)).unwrap();
        let reason = format!("the server refuses the registration of {name}: the name is taken");
        bare.assert_refuses("LOAD", "", &reason);
        bare.assert_refuses("LOADEX", "CONFIG rl.cl-throttle no", &reason);
        let theirs: String = send(&mut bare.connection, &format!("{name} k"));
        assert_eq!(theirs, "theirs", "the other module goes on");
        send::<()>(&mut bare.connection, "MODULE UNLOAD name-taken");
        bare.load("LOAD", "");
        bare.assert_works();
        assert_eq!(bare.commands().len(), names.len(), "{name}: the setting is forgotten");
    }
}

#[test]
fn a_server_that_refuses_a_setting_refuses_the_module_and_lives() {
    for (setting, value) in [
        ("rl.max-log-entries", "0"),
        ("rl.max-log-entries", "many"),
        ("rl.max-leases", "0"),
        ("rl.max-leases", "1000001"),
        ("rl.top-entries", "10001"),
        ("rl.cl-throttle", "perhaps"),
        ("rl.client-clock", "2"),
    ] {
        let mut bare = Bare::start();
        // Settings that are read before the wrong one are forgotten, too.
        let good = "CONFIG rl.max-log-entries 7 CONFIG rl.max-leases 7 CONFIG rl.cl-throttle no";
        let reason = "the server refuses the settings rl.*";
        bare.assert_refuses("LOADEX", &format!("{good} CONFIG {setting} {value}"), reason);
        bare.load("LOAD", "");
        bare.assert_works();
        for name in ["rl.max-log-entries", "rl.max-leases"] {
            let found: Vec<String> = send(&mut bare.connection, &format!("CONFIG GET {name}"));
            assert_eq!(found[1], "100000", "{name}");
        }
        assert!(bare.commands().iter().any(|name| name.eq_ignore_ascii_case("CL.THROTTLE")));
    }
}

#[test]
fn a_module_that_is_given_arguments_is_refused() {
    let mut bare = Bare::start();
    let reason = "the module takes no arguments; its settings are rl.* in the configuration";
    bare.assert_refuses("LOAD", "max-log-entries 5", reason);
    bare.assert_refuses("LOADEX", "CONFIG rl.max-log-entries 5 ARGS x", reason);
    bare.load("LOAD", "");
    bare.assert_works();
}

#[test]
fn another_module_that_has_the_name_of_redis_cell_s_command_keeps_it() {
    let server = Server::builder().module_before(other_module()).start().unwrap();
    let mut connection = server.connection().unwrap();
    let theirs = Value::SimpleString("theirs".into());
    assert_eq!(send::<Value>(&mut connection, "CL.THROTTLE k 1 1 1"), theirs);
    assert_eq!(send::<Vec<i64>>(&mut connection, "RL.THROTTLE k 1 1 1")[0], 0);
    assert!(server.log().contains("CL.THROTTLE: the name is taken"), "{}", server.log());
}
