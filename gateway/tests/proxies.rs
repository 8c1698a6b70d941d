//! A site as its users have it: an application, a proxy in front of it with one of the configurations in `gateway/examples/`, the
//! gateway with their rules, and a server with the module.
//!
//! ```text
//! client 127.x.y.z -> proxy -> application
//!                       '-> gateway -> server
//! ```
//!
//! The configurations are run as they are, but for their ports: 8000 is the proxy's, 9000 the application's, 8080 and 8081 are the
//! gateway's. `packaging/docker/envoy.yaml` has other ports, and hosts of its own. The proxies are those that `scripts/setup gateway`
//! fetches, or installed ones; without one its tests are skipped, or fail if `RL_PROXIES=required`.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use tempfile::TempDir;
use tokio::sync::Semaphore;

use crate::program::Gateway;
use crate::server::{Server, free_port, patience};

/// A proxy of which there is a configuration.
#[derive(Clone, Copy)]
pub struct Kind {
    /// The program's name.
    pub name: &'static str,
    /// The folder of its configuration, in the repository.
    folder: &'static str,
    /// Its configuration, and further files that this one names.
    files: &'static [&'static str],
    /// The rules of its gateway, in the repository.
    rules: &'static str,
    /// Which ports in its files are its own and the application's.
    ports: [u16; 2],
    /// What it is started with, in the folder of its files.
    arguments: &'static [&'static str],
    /// What stands differently in its files.
    edits: &'static [(&'static str, &'static str)],
}

/// What they have in common.
const EXAMPLE: Kind = Kind {
    name: "",
    folder: "gateway/examples",
    files: &[],
    rules: "gateway/examples/ratelimit.yaml",
    ports: [8000, 9000],
    arguments: &[],
    edits: &[],
};

pub const ENVOY: Kind = Kind {
    name: "envoy",
    files: &["envoy.yaml"],
    // A base id of its own: else a second Envoy on this machine does not start.
    arguments: &["-c", "envoy.yaml", "--use-dynamic-base-id", "--log-level", "warn"],
    ..EXAMPLE
};
/// As the comment in its file says.
pub const ENVOY_DENIES: Kind =
    Kind { edits: &[("failure_mode_deny: false", "failure_mode_deny: true")], ..ENVOY };
/// The one of `compose.yaml`, where each service has a host of its own. Envoy waits longer here, for a busy machine.
pub const ENVOY_IN_COMPOSE: Kind = Kind {
    folder: "packaging/docker",
    rules: "packaging/gateway/example.yaml",
    ports: [10000, 8000],
    edits: &[
        ("address: 0.0.0.0", "address: 127.0.0.1"),
        ("address: upstream,", "address: 127.0.0.1,"),
        ("address: gateway,", "address: 127.0.0.1,"),
        ("timeout: 0.1s", "timeout: 5s"),
    ],
    ..ENVOY
};
pub const CADDY: Kind = Kind {
    name: "caddy",
    files: &["Caddyfile"],
    arguments: &["run", "--config", "Caddyfile"],
    ..EXAMPLE
};
pub const TRAEFIK: Kind = Kind {
    name: "traefik",
    files: &["traefik.yaml", "traefik-dynamic.yaml"],
    arguments: &["--configFile=traefik.yaml"],
    ..EXAMPLE
};
pub const NGINX: Kind = Kind {
    name: "nginx",
    files: &["nginx.conf"],
    arguments: &[
        "-p",
        ".",
        "-c",
        "nginx.conf",
        "-g",
        "daemon off; pid nginx.pid; error_log stderr;",
    ],
    ..EXAMPLE
};

/// As `docs/gateway.md` says.
pub const NGINX_REFUSES: Kind =
    Kind { edits: &[("error_page 502 504 = @unanswered;", "")], ..NGINX };

/// A file of the repository.
pub fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// What reached the application.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub uri: String,
    pub headers: HeaderMap,
    pub body: String,
}

/// The application. It answers 200, or the status that the request's `x-status` says; fields of the request that begin with
/// `x-answer-` are fields of the response without that; and with `x-hold` it waits until it is let go.
#[derive(Clone)]
pub struct Application {
    port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
    held: Arc<Semaphore>,
}

impl Application {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let application = Self {
            port: listener.local_addr().unwrap().port(),
            seen: Arc::default(),
            held: Arc::new(Semaphore::new(0)),
        };
        let router = Router::new().fallback(Self::answer).with_state(application.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        application
    }

    async fn answer(State(this): State<Self>, request: Request) -> Response<String> {
        let (head, body) = request.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let headers = head.headers;
        this.seen.lock().unwrap().push(Seen {
            method: head.method.to_string(),
            uri: head.uri.to_string(),
            headers: headers.clone(),
            body: String::from_utf8(body.to_vec()).unwrap(),
        });
        if headers.contains_key("x-hold") {
            this.held.acquire().await.unwrap().forget();
        }
        let mut response = Response::new("the application's answer".to_owned());
        if let Some(status) = headers.get("x-status") {
            *response.status_mut() = StatusCode::from_bytes(status.as_bytes()).unwrap();
        }
        for (name, value) in &headers {
            if let Some(name) = name.as_str().strip_prefix("x-answer-") {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                response.headers_mut().insert(name, value.clone());
            }
        }
        response
    }

    /// What has reached it since it was asked last.
    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    /// Waits until it holds so many requests.
    pub async fn holds(&self, requests: usize) {
        eventually("requests that reach the application", || {
            self.seen.lock().unwrap().len() >= requests
        })
        .await;
    }

    /// Lets one of the held requests go.
    pub fn let_go(&self) {
        self.held.add_permits(1);
    }
}

/// A running proxy.
struct Proxy {
    child: Child,
    folder: TempDir,
    port: u16,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // nginx's workers end with their master if that one is asked to end, and not if it is killed.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < Duration::from_secs(10)
        {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Proxy {
    async fn start(kind: Kind, program: &Path, ports: &BTreeMap<u16, u16>) -> Self {
        let mut taken = 0;
        loop {
            let mut proxy = Self::spawn(kind, program, ports);
            let start = Instant::now();
            loop {
                if tokio::net::TcpStream::connect(("127.0.0.1", proxy.port)).await.is_ok() {
                    return proxy;
                }
                let ended = proxy.child.try_wait().unwrap();
                if ended.is_some()
                    && taken < 5
                    && proxy.log().to_lowercase().contains("address already in use")
                {
                    taken += 1;
                    break;
                }
                assert!(
                    ended.is_none() && start.elapsed() < patience(),
                    "{} did not start ({ended:?}): {}",
                    kind.name,
                    proxy.log()
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    fn spawn(kind: Kind, program: &Path, ports: &BTreeMap<u16, u16>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port().unwrap();
        let mut ports = ports.clone();
        ports.insert(kind.ports[0], port);
        let read = |name: &&str| fs::read_to_string(file(kind.folder).join(name)).unwrap();
        let texts = with_ports(kind.files.iter().map(read).collect(), &ports);
        for (name, mut text) in kind.files.iter().zip(texts) {
            for (from, to) in kind.edits {
                assert!(text.contains(from), "{name} does not say {from}");
                text = text.replace(from, to);
            }
            fs::write(folder.path().join(name), text).unwrap();
        }
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new(program)
            .args(kind.arguments)
            .current_dir(folder.path())
            // What they would otherwise keep in the home folder.
            .env("HOME", folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, folder, port }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

/// These files with other ports. Each of them must stand somewhere: a port that the files do not have would be left alone
/// silently.
fn with_ports(texts: Vec<String>, ports: &BTreeMap<u16, u16>) -> Vec<String> {
    let mut texts = texts;
    for (from, to) in ports {
        let mut found = false;
        for text in &mut texts {
            for prefix in ["127.0.0.1:", "port_value: "] {
                let port = format!("{prefix}{from}");
                found |= text.contains(&port);
                // The new one is marked, so that it is not taken for one of the next.
                *text = text.replace(&port, &format!("{prefix}={to}"));
            }
        }
        assert!(found, "no file has port {from}");
    }
    texts.iter().map(|text| text.replace(":=", ":").replace(": =", ": ")).collect()
}

/// Where this proxy is. Without one its tests are skipped, unless `RL_PROXIES=required` says that all are to be
/// there that can be fetched for this machine, as `make test-gateway` does.
fn program(name: &str) -> Option<PathBuf> {
    let fetched = fs::read_dir(file("target/programs"));
    let fetched = fetched.into_iter().flatten().flatten().map(|entry| entry.path());
    let fetched = fetched.filter(|folder| {
        let folder = folder.file_name().unwrap_or_default().to_string_lossy();
        folder.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'))
    });
    let path = env::var_os("PATH").unwrap_or_default();
    let mut files = fetched.chain(env::split_paths(&path)).map(|folder| folder.join(name));
    let found = files.find(|file| file.is_file());
    if found.is_none() {
        let can_be_had = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));
        let required = env::var("RL_PROXIES").is_ok_and(|value| value == "required") && can_be_had;
        assert!(!required, "there is no {name}: scripts/setup gateway fetches it");
        println!("not tested: there is no {name} (scripts/setup gateway fetches it)");
    }
    found
}

/// All of it.
pub struct Site {
    pub kind: Kind,
    proxy: Proxy,
    pub application: Application,
    pub gateway: Gateway,
    pub server: Server,
}

impl Site {
    /// A site with this proxy, or nothing if it cannot be had.
    pub async fn start(kind: Kind) -> Option<Self> {
        Self::with(kind, &[]).await
    }

    /// The same with further arguments for the gateway.
    pub async fn with(kind: Kind, arguments: &[&str]) -> Option<Self> {
        if !cfg!(target_os = "linux") {
            println!("not tested: loopback has one address alone here, and clients need one each");
            return None;
        }
        let program = program(kind.name)?;
        let application = Application::start().await;
        let server = Server::start().unwrap();
        let gateway = Gateway::start(&server, &file(kind.rules), arguments);
        let asked =
            if kind.name == ENVOY.name { (8081, gateway.grpc) } else { (8080, gateway.http) };
        let ports = BTreeMap::from([(kind.ports[1], application.port), asked]);
        let proxy = Proxy::start(kind, &program, &ports).await;
        let site = Self { kind, proxy, application, gateway, server };
        site.wait_until_ready().await;
        Some(site)
    }

    /// A proxy that listens may still have to find its upstreams.
    async fn wait_until_ready(&self) {
        let start = Instant::now();
        let client = self.client("127.0.255.1");
        loop {
            let answer = client.get("/ready").await;
            if answer.status == 200 && self.has_asked(&answer) {
                break;
            }
            assert!(start.elapsed() < patience(), "{}: {answer:?} {}", self.kind.name, self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.application.seen();
    }

    /// Whether the gateway was asked about this request, as far as the answer shows it.
    fn has_asked(&self, answer: &Answer) -> bool {
        self.kind.name == TRAEFIK.name || !answer.field("ratelimit").is_empty()
    }

    /// What the proxy and the gateway have logged.
    pub fn log(&self) -> String {
        format!("{}{}", self.proxy.log(), self.gateway.log())
    }

    /// What the server has counted under the key with these parts: 0 without one.
    pub fn used(&self, parts: &[&str]) -> i64 {
        let mut connection = self.server.connection().unwrap();
        let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut connection).unwrap();
        let Some(key) = keys.iter().find(|key| parts.iter().all(|part| key.contains(part))) else {
            return 0;
        };
        let info: Option<BTreeMap<String, redis::Value>> =
            redis::cmd("RL.INFO").arg(key).query(&mut connection).unwrap();
        let used = info.as_ref().and_then(|info| info.get("used"));
        used.map_or(0, |used| redis::from_redis_value_ref(used).unwrap())
    }

    /// A client with this address.
    pub fn client(&self, address: &str) -> Client {
        let address: IpAddr = address.parse().unwrap();
        let http = reqwest::Client::builder().local_address(address).build().unwrap();
        Client { http, port: self.proxy.port, headers: HeaderMap::new() }
    }

    /// What remains of a policy after a granted request. Traefik hands that to the application alone.
    pub fn remaining(&self, answer: &Answer, policy: &str) -> Option<u64> {
        if self.kind.name != TRAEFIK.name {
            return answer.remaining(policy);
        }
        let seen = self.application.seen.lock().unwrap();
        let headers = seen.last().unwrap().headers.clone();
        Answer { headers, ..answer.clone() }.remaining(policy)
    }
}

/// A client of a site.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    port: u16,
    headers: HeaderMap,
}

impl Client {
    /// The same client, with a header.
    pub fn with(&self, name: &'static str, value: impl AsRef<[u8]>) -> Self {
        let mut client = self.clone();
        client.headers.insert(name, HeaderValue::from_bytes(value.as_ref()).unwrap());
        client
    }

    /// What it sees of a path.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.http.get(self.url(path))).await
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response =
            request.headers(self.headers.clone()).timeout(patience()).send().await.unwrap();
        Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.text().await.unwrap(),
        }
    }

    /// What it sees of a path that it posts something to.
    pub async fn post(&self, path: &str, body: &'static str) -> Answer {
        self.send(self.http.post(self.url(path)).body(body)).await
    }

    /// The statuses of as many requests.
    pub async fn statuses(&self, path: &str, requests: usize) -> Vec<u16> {
        let mut statuses = Vec::new();
        for _ in 0..requests {
            statuses.push(self.get(path).await.status);
        }
        statuses
    }
}

/// What a client saw.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    /// A field's value; empty without one.
    pub fn field(&self, name: &str) -> String {
        let value = self.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        value.unwrap_or_default()
    }

    /// A parameter of a policy in the field `RateLimit`: `r`, what remains, or `t`, in how many seconds more does.
    pub fn of(&self, policy: &str, parameter: &str) -> Option<u64> {
        let field = self.field("ratelimit");
        let item =
            field.split(", ").find_map(|item| item.strip_prefix(&format!("\"{policy}\";")))?;
        item.split(';')
            .find_map(|part| part.strip_prefix(parameter)?.strip_prefix('=')?.parse().ok())
    }

    /// What remains of a policy.
    pub fn remaining(&self, policy: &str) -> Option<u64> {
        self.of(policy, "r")
    }

    /// Status and fields of limits, as the page shows them.
    pub fn shown(&self) -> String {
        const FIELDS: [&str; 7] = [
            "RateLimit-Policy",
            "RateLimit",
            "Retry-After",
            "X-RateLimit-Limit",
            "X-RateLimit-Remaining",
            "X-RateLimit-Reset",
            "X-Envoy-RateLimited",
        ];
        let values =
            |name: &str| self.headers.get_all(name).iter().map(|value| value.to_str().unwrap());
        let fields = FIELDS
            .iter()
            .flat_map(|name| values(name).map(move |value| format!("<br>`{name}: {value}`")));
        format!("{}{}", self.status, fields.collect::<String>())
    }
}

/// Waits until something is so.
pub async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < patience(), "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
