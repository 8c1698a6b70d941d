//! What calls cost, in instructions of the server: the same on a machine that is busy as on one that is idle. valgrind counts them.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use redis::{Connection, Pipeline, Value};

use crate::client::{T0, at, send, try_send};
use crate::server::{Server, wait_for};

/// valgrind and vgdb meet in a file whose name has these variables in it. A server writes over its environment, to show what it
/// does in its place, and then valgrind reads them anew: so neither has them.
const IN_NAMES: [&str; 4] = ["LOGNAME", "USER", "HOST", "HOSTNAME"];

/// A server under valgrind's callgrind, which counts while it is asked to.
struct Counted {
    server: Server,
    connection: Connection,
    folder: tempfile::TempDir,
    /// How often it was asked.
    counts: u32,
}

impl Counted {
    /// `None` if there is no valgrind.
    fn start() -> Option<Self> {
        if !Command::new("vgdb").arg("--help").output().is_ok_and(|output| output.status.success())
        {
            println!("skipped: there is no valgrind");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let file = format!("--callgrind-out-file={}/%p", folder.path().display());
        // What the server does by itself, once a second, is left out if its binary has that name.
        let valgrind = "valgrind --quiet --tool=callgrind --instr-atstart=no --vgdb-poll=1000 \
                        --toggle-collect=serverCron --collect-atstart=yes";
        let without = IN_NAMES.into_iter().flat_map(|name| ["-u", name]);
        let words = ["env"].into_iter().chain(without);
        let words = words.chain(valgrind.split_whitespace()).chain([file.as_str()]);
        let server =
            Server::builder().virtual_clock().setting("hz 1").under(words).start().unwrap();
        let connection = server.connection().unwrap();
        Some(Self { server, connection, folder, counts: 0 })
    }

    /// The instructions that the server takes for a pipeline.
    fn count(&mut self, pipeline: &Pipeline) -> f64 {
        self.ask("instrumentation on");
        self.ask("zero");
        pipeline.query::<()>(&mut self.connection).unwrap();
        self.ask("instrumentation off");
        self.ask("dump");
        self.counts += 1;
        let file = format!("{}.{}", self.server.pid().unwrap(), self.counts);
        let file: PathBuf = self.folder.path().join(file);
        let text = fs::read_to_string(&file).unwrap();
        text.lines().find_map(|line| line.strip_prefix("totals: ")).unwrap().parse().unwrap()
    }

    fn ask(&mut self, what: &str) {
        let pid = format!("--pid={}", self.server.pid().unwrap());
        // 0: never by ptrace, which a container may forbid.
        let mut vgdb = Command::new("vgdb");
        IN_NAMES.into_iter().for_each(|name| _ = vgdb.env_remove(name));
        let mut vgdb = vgdb
            .args([&pid, "--max-invoke-ms=0"])
            .args(what.split(' '))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // valgrind looks for requests while the server works, so it is given something to do: little, since it may be counted.
        wait_for(what, || {
            send::<()>(&mut self.connection, "PING");
            Ok(vgdb.try_wait()?.is_some())
        })
        .unwrap();
        assert!(vgdb.wait().unwrap().success(), "{what}");
    }
}

/// Calls sent at once.
fn pipeline<'a>(lines: impl IntoIterator<Item = &'a str>) -> Pipeline {
    let mut pipeline = redis::pipe();
    for line in lines {
        let mut words = line.split(' ');
        let command = pipeline.cmd(words.next().unwrap());
        words.for_each(|word| _ = command.arg(word));
        pipeline.ignore();
    }
    pipeline
}

#[test]
fn many_limits_cost_no_more_than_as_many_calls_in_a_pipeline() {
    let Some(mut server) = Counted::start() else { return };
    // This is a debug build: what a call with many limits does by itself weighs more than it does for users, for whom
    // docs/benchmarks.md has the throughput. The most seen on any server is 1.21, 1.15, 1.04 and 1.12; what grows faster than
    // the number of limits would be far above.
    for (count, most) in [(2, 1.3), (3, 1.25), (10, 1.15), (50, 1.2)] {
        let names: Vec<String> = (0..count).map(|number| format!("k{number}")).collect();
        let single: Vec<String> =
            names.iter().map(|name| format!("RL.TOKENBUCKET {name} 1000000 100/60")).collect();
        let limits = vec!["TOKENBUCKET 1000000 100/60"; count].join(" ");
        let together = format!("RL.MULTI {count} {} {limits}", names.join(" "));
        let rounds = (200 / count).max(10);
        let single = pipeline(single.iter().map(String::as_str).cycle().take(rounds * count));
        let together = pipeline(std::iter::repeat_n(together.as_str(), rounds));
        single.query::<()>(&mut server.connection).unwrap();
        // The least of several: what a server does by itself comes on top, now and then.
        let mut count_of =
            |calls| (0..3).map(|_| server.count(calls)).fold(f64::INFINITY, f64::min);
        let ratio = count_of(&together) / count_of(&single);
        println!("{count} limits in one RL.MULTI take {ratio:.3} of {count} calls in a pipeline");
        assert!(ratio < most, "{count} limits: {ratio}");
    }
}

/// A log that is full: one hit in every microsecond.
struct FullLog {
    key: String,
    limit: u64,
    /// The moment of its latest hit, in microseconds after [`T0`].
    now: u64,
}

impl FullLog {
    const WINDOW_US: u64 = 1_000_000;
    const CALLS: usize = 100;

    /// Fills it on a server that nobody slows down, and takes it over from there.
    fn new(server: &mut Counted, limit: u64) -> Self {
        let quick = Server::builder().virtual_clock().start().unwrap();
        let mut connection = quick.connection().unwrap();
        let log = Self { key: format!("log:{limit}"), limit, now: limit };
        let hits: Vec<String> = (1..=limit).map(|now| log.call(1, now)).collect();
        for hits in hits.chunks(10_000) {
            pipeline(hits.iter().map(String::as_str)).query::<()>(&mut connection).unwrap();
        }
        let Value::BulkString(state) = send(&mut connection, &format!("DUMP {}", log.key)) else {
            panic!("no state");
        };
        let words = [b"RESTORE", log.key.as_bytes(), b"0", &state];
        let () = try_send(&mut server.connection, &words).unwrap();
        log.assert_full(server);
        log
    }

    fn call(&self, cost: u64, now: u64) -> String {
        format!("RL.SLIDINGLOG {} {} 1s COST {cost} AT {}", self.key, self.limit, T0 + now)
    }

    fn assert_full(&self, server: &mut Counted) {
        let reply = at(&mut server.connection, self.now, &format!("RL.PEEK {}", self.key));
        assert_eq!(reply[1..3], [self.limit as i64, 0], "it is full");
    }

    /// Denials while it is full.
    fn denials(&self, server: &mut Counted, cost: u64) -> f64 {
        let call = self.call(cost, self.now);
        server.count(&pipeline(std::iter::repeat_n(call.as_str(), Self::CALLS)))
    }

    /// Grants while it stays full: with each hit the oldest one leaves, since they are a microsecond apart.
    fn grants(&mut self, server: &mut Counted) -> f64 {
        let first = self.now - self.limit + 1;
        let moments = (first..).map(|oldest| oldest + Self::WINDOW_US).take(Self::CALLS);
        let calls: Vec<String> = moments.map(|now| self.call(1, now)).collect();
        let count = server.count(&pipeline(calls.iter().map(String::as_str)));
        self.now = first + Self::WINDOW_US + Self::CALLS as u64 - 1;
        self.assert_full(server);
        count
    }
}

#[test]
fn a_full_log_of_a_hundred_thousand_costs_at_most_twice_one_of_ten() {
    let Some(mut server) = Counted::start() else { return };
    let (mut large, mut small) =
        (FullLog::new(&mut server, 100_000), FullLog::new(&mut server, 10));
    for cost in [1, 10, 50_000, 100_000] {
        let ratio = large.denials(&mut server, cost) / small.denials(&mut server, cost.min(10));
        println!("a denial of COST {cost} takes {ratio:.2} of what it takes in a log of ten");
        assert!(ratio < 2.0, "{ratio}");
    }
    let ratio = large.grants(&mut server) / small.grants(&mut server);
    println!("a grant takes {ratio:.2} of what it takes in a log of ten");
    assert!(ratio < 2.0, "{ratio}");
}
