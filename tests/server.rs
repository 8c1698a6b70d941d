//! Throwaway servers with the module, for tests and examples.
//!
//! ```text
//! Server::builder() ... .start()?   a process of its own, in a folder of its own, on a port of its own
//! drop(server)                      kills the process and removes the folder
//! ```
//!
//! The binary is the one that the variable RL_SERVER names, else `redis-server` or `valkey-server` from
//! PATH. The module is the one that RL_MODULE names, else what was built with the tests. Servers listen on loopback
//! alone. A port is asked of the system and freed again for the server; should another program take it in between,
//! the server says so and the next port is tried.

#![allow(dead_code, reason = "each of the binaries that use this file uses a part of it")]

use std::env::{
    self,
    consts::{DLL_PREFIX, DLL_SUFFIX},
};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

/// How long a server may take to start, to stop, or to catch up with its primary. Long, for machines
/// that are busy: who waits for a condition waits no longer than it takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// How many times slower than usual the server is: the variable RL_SLOW says so where another program runs it.
pub fn slowness() -> u32 {
    env::var("RL_SLOW").ok().and_then(|factor| factor.parse().ok()).unwrap_or(1).max(1)
}

pub fn patience() -> Duration {
    PATIENCE * slowness()
}

/// A folder for a server of a test: in memory, if there is plenty. A disk that others keep busy holds a save up for a minute,
/// and then replicas are given up and start again, for as long as clients keep their primary busy.
fn new_dir() -> io::Result<TempDir> {
    const MEMORY: &str = "/dev/shm";
    const PLENTY: u64 = 8 << 20; // in KiB
    static IS_PLENTY: LazyLock<bool> = LazyLock::new(|| {
        let df = Command::new("df").args(["-Pk", MEMORY]).output();
        let text =
            df.map(|df| String::from_utf8_lossy(&df.stdout).into_owned()).unwrap_or_default();
        let free = text.lines().nth(1).and_then(|line| line.split_whitespace().nth(3));
        free.and_then(|free| free.parse::<u64>().ok()).is_some_and(|free| free >= PLENTY)
    });
    if cfg!(test) && *IS_PLENTY { tempfile::tempdir_in(MEMORY) } else { tempfile::tempdir() }
}

/// What a server is to be started with.
#[derive(Clone, Default)]
pub struct Builder {
    modules_before: Vec<PathBuf>,
    settings: Vec<String>,
    without_module: bool,
    under: Vec<String>,
}

impl Builder {
    /// A line of the server's configuration, read after the module is loaded.
    pub fn setting(mut self, line: impl Into<String>) -> Self {
        self.settings.push(line.into());
        self
    }

    /// Clients may give the time.
    pub fn virtual_clock(self) -> Self {
        self.setting("rl.client-clock yes")
    }

    /// Another module, loaded before ours.
    pub fn module_before(mut self, library: PathBuf) -> Self {
        self.modules_before.push(library);
        self
    }

    /// A server without the module.
    pub fn without_module(mut self) -> Self {
        self.without_module = true;
        self
    }

    /// Run by another program, which becomes the server: its name and arguments.
    pub fn under<'a>(mut self, program: impl IntoIterator<Item = &'a str>) -> Self {
        self.under = program.into_iter().map(str::to_owned).collect();
        self
    }

    /// A replica of another server.
    pub fn replica_of(self, primary: &Server) -> Self {
        self.setting(format!("replicaof 127.0.0.1 {}", primary.port))
    }

    /// Starts the server, and waits until it answers.
    pub fn start(&self) -> Result<Server> {
        let mut taken = 0;
        loop {
            let dir = new_dir().context("no temporary folder")?;
            let mut server = Server { builder: self.clone(), dir, port: free_port()?, child: None };
            match server.spawn() {
                Err(_) if taken < 5 && server.log().contains("Address already in use") => {
                    taken += 1;
                }
                Err(error) => return Err(error),
                Ok(()) => return Ok(server),
            }
        }
    }
}

/// A running server.
pub struct Server {
    builder: Builder,
    dir: TempDir,
    port: u16,
    child: Option<Child>,
}

impl Server {
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A server with the module and nothing special.
    pub fn start() -> Result<Self> {
        Self::builder().start()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.dir().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub fn connection(&self) -> Result<redis::Connection> {
        let client = redis::Client::open(("127.0.0.1", self.port))?;
        let connection = client.get_connection_with_timeout(patience())?;
        connection.set_read_timeout(Some(patience() * 2))?;
        connection.set_write_timeout(Some(patience() * 2))?;
        Ok(connection)
    }

    /// Whether the process still runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Ends the server in order; with `save` it writes its data first.
    pub fn shutdown(&mut self, save: bool) -> Result<()> {
        let how = if save { "SAVE" } else { "NOSAVE" };
        let mut connection = self.connection()?;
        // The connection breaks instead of an answer.
        let _ = redis::cmd("SHUTDOWN").arg(how).query::<()>(&mut connection);
        wait_for("the server to stop", || Ok(!self.is_alive()))?;
        self.child = None;
        Ok(())
    }

    /// Kills the server at once, as a crash or a loss of power would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts the server again after it was ended, in the same folder and on the same port.
    pub fn start_again(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "the server still runs");
        self.spawn()
    }

    /// Waits until a replica has all that its primary has.
    pub fn wait_for_sync(&self, primary: &Self) -> Result<()> {
        let (mut ours, mut theirs) = (self.connection()?, primary.connection()?);
        wait_for("the replica to catch up", || {
            let info = info(&mut ours, "replication")?;
            Ok(info.contains("master_link_status:up")
                && field(&info, "slave_repl_offset")
                    == field(&self::info(&mut theirs, "replication")?, "master_repl_offset"))
        })
    }

    fn spawn(&mut self) -> Result<()> {
        let dir = self.dir.path().to_owned();
        let mut config = vec![
            format!("port {}", self.port),
            "bind 127.0.0.1".into(),
            format!("dir \"{}\"", dir.display()),
            format!("logfile \"{}\"", dir.join("log").display()),
            "save \"\"".into(),
            "daemonize no".into(),
            "enable-debug-command yes".into(),
            "enable-module-command yes".into(),
            "repl-diskless-sync-delay 0".into(),
            "appendfsync no".into(),
        ];
        let ours = if self.builder.without_module { None } else { Some(module()?) };
        for library in self.builder.modules_before.iter().chain(&ours) {
            config.push(format!("loadmodule \"{}\"", library.display()));
        }
        config.extend(self.builder.settings.iter().cloned());
        let file = dir.join("server.conf");
        fs::write(&file, config.join("\n") + "\n")?;
        // What it prints before it opens its log: errors of the configuration.
        let output = File::create(dir.join("output"))?;
        let mut words: Vec<OsString> = self.builder.under.iter().map(OsString::from).collect();
        words.extend([binary().into(), file.clone().into()]);
        let (program, arguments) = words.split_first().context("nothing to start")?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("{} does not start", program.display()))?;
        self.child = Some(child);
        self.wait_until_ready(&file)
    }

    fn wait_until_ready(&mut self, config: &Path) -> Result<()> {
        let start = Instant::now();
        loop {
            if !self.is_alive() || start.elapsed() > patience() {
                let output = fs::read_to_string(self.dir().join("output")).unwrap_or_default();
                let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
                let how = ended.map_or("too slow".into(), |status| status.to_string());
                bail!("{} did not start ({how}): {output}{}", binary().display(), self.log());
            }
            // Another test's server may have taken the port: then ours is about to say so, and to end.
            let is_ours = self.connection().and_then(|mut connection| {
                redis::cmd("PING").query::<String>(&mut connection)?; // an error while it loads its data
                let file = field(&info(&mut connection, "server")?, "config_file");
                Ok(file.is_some_and(|file| Path::new(&file) == config))
            });
            if is_ours.is_ok_and(|yes| yes) {
                return Ok(());
            }
            sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A program that watches over the server reports what it has seen only when the server ends by itself.
        for _ in 0..60 {
            if slowness() == 1 || !self.is_alive() {
                break;
            }
            // Asked more than once, since a server that writes its first append-only file refuses to end.
            let pid = self.pid().map(|pid| pid.to_string());
            let _ = Command::new("kill").args(pid).status();
            let start = Instant::now();
            while self.is_alive() && start.elapsed() < Duration::from_secs(1) {
                sleep(Duration::from_millis(10));
            }
        }
        self.kill();
    }
}

/// The server's binary.
pub fn binary() -> PathBuf {
    let named = env::var_os("RL_SERVER").map(PathBuf::from);
    let in_path = || {
        let folders = env::var_os("PATH").unwrap_or_default();
        let folders: Vec<_> = env::split_paths(&folders).collect();
        ["redis-server", "valkey-server"].iter().find_map(|name| {
            folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file())
        })
    };
    named.or_else(in_path).unwrap_or_else(|| "redis-server".into())
}

/// The module's library: the one that the variable RL_MODULE names, else as it was built with the running program: beside
/// it, or in a folder near.
pub fn module() -> Result<PathBuf> {
    if let Some(named) = env::var_os("RL_MODULE") {
        return fs::canonicalize(&named).with_context(|| format!("no module: {}", named.display()));
    }
    let program = env::current_exe()?;
    let name = format!("{DLL_PREFIX}redis_rl{DLL_SUFFIX}");
    let beside = program.parent().context("the program has no folder")?;
    let above = beside.parent().unwrap_or(beside);
    // In `deps` lies what was built for this very program: with it (a test), below (a program) or beside (an example). What lies
    // elsewhere may be older.
    [beside.join("deps").join(&name), above.join("deps").join(&name), beside.join(&name)]
        .into_iter()
        .find(|path| path.is_file())
        .with_context(|| format!("there is no {name} near {}", program.display()))
}

/// A section of INFO.
pub fn info(connection: &mut redis::Connection, section: &str) -> Result<String> {
    Ok(redis::cmd("INFO").arg(section).query(connection)?)
}

/// The value of a field of INFO.
pub fn field(info: &str, name: &str) -> Option<String> {
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.map(str::to_owned)
}

/// Waits until something is so, and says what did not come if it takes too long.
pub fn wait_for(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !is_so()? {
        ensure!(start.elapsed() < patience(), "waited in vain for {what}");
        sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// A port that nobody listened on a moment ago.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
