//! One connection: to a server, or to the master that the sentinels name at that moment.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, IntoConnectionInfo, ProtocolVersion,
    PushInfo, PushKind, RedisConnectionInfo, RedisResult, TlsCertificates, TlsMode,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tokio::sync::Notify;

use super::node::QUEUE;
use super::url::{Address, Login, Place, Url, host_port};

/// What connections are called in the server's CLIENT LIST.
pub(super) const NAME: &str = "redis-rl-gateway";

/// How long it may take to connect and to log in: more than an answer may take, since TLS and names take their time.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// So many bytes are collected before a write that others wait for.
const WRITE_BUFFER: usize = 64 << 10;

/// Whether to talk over TLS, and the certificates to trust instead of the usual ones.
#[derive(Clone)]
pub(super) struct Tls {
    pub(super) on: bool,
    pub(super) ca: Option<Arc<Vec<u8>>>,
}

impl Tls {
    /// Whether the certificates can be used.
    pub(super) fn check(&self) -> Result<(), String> {
        // The crate would trust nobody then, and say so only by every connection that fails.
        if self.ca.as_ref().is_some_and(|ca| CertificateDer::pem_slice_iter(ca).next().is_none()) {
            return Err("there is none".into());
        }
        self.address((String::new(), 0)).map(drop).map_err(|error| error.to_string())
    }

    fn certificates(&self) -> Option<TlsCertificates> {
        let ca = self.ca.as_ref()?;
        Some(TlsCertificates { client_tls: None, root_cert: Some(ca.to_vec()) })
    }

    fn address(&self, (host, port): Address) -> RedisResult<ConnectionAddr> {
        if !self.on {
            return Ok(ConnectionAddr::Tcp(host, port));
        }
        // A program that has chosen another keeps it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let address = ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None };
        match self.certificates() {
            Some(certificates) => Client::build_with_tls(address, certificates)
                .map(|client| client.get_connection_info().addr().clone()),
            None => Ok(address),
        }
    }
}

/// Whom to connect to.
pub(super) struct Target {
    url: Url,
    /// Which server of a cluster.
    node: Option<Address>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.node {
            Some((host, port)) => f.write_str(&host_port(host, *port)),
            None => self.url.fmt(f),
        }
    }
}

impl Target {
    /// The server of an address, outside a cluster.
    pub(super) fn new(url: Url) -> Self {
        Self { url, node: None }
    }

    /// A server of a cluster.
    pub(super) fn node(url: &Url, node: Address) -> Self {
        Self { url: url.clone(), node: Some(node) }
    }

    /// Which server of a cluster it is.
    pub(super) fn as_node(&self) -> Option<&Address> {
        self.node.as_ref()
    }

    /// Connects and logs in. `gone` is notified when the connection ends.
    pub(super) async fn connect(&self, gone: Arc<Notify>) -> RedisResult<MultiplexedConnection> {
        let client = match (&self.node, &self.url.place) {
            (Some(node), _) => self.client(self.url.tls.address(node.clone())?)?,
            (None, Place::Server(address)) => {
                self.client(self.url.tls.address(address.clone())?)?
            }
            (None, Place::Socket(path)) => self.client(ConnectionAddr::Unix(path.into()))?,
            (None, Place::Sentinel { sentinels, master, login }) => {
                self.sentinels(sentinels, master, login)?.async_get_client().await?
            }
            (None, Place::Cluster(_)) => {
                return Err((ErrorKind::InvalidClientConfig, "which server of the cluster?").into());
            }
        };
        // RESP3, since only there the end of a connection is told without asking.
        let told = move |push: PushInfo| {
            if push.kind == PushKind::Disconnection {
                gone.notify_one();
            }
            Ok::<_, Infallible>(())
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(None)
            .set_pipeline_buffer_size(QUEUE)
            .set_write_backpressure_boundary(WRITE_BUFFER)
            .set_push_sender(told);
        client.get_multiplexed_async_connection_with_config(&config).await
    }

    fn client(&self, address: ConnectionAddr) -> RedisResult<Client> {
        let Login { user, password } = &self.url.login;
        let mut settings = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            .set_db(self.url.db)
            .set_lib_name(NAME, env!("CARGO_PKG_VERSION"));
        if let Some(user) = user {
            settings = settings.set_username(user);
        }
        if let Some(password) = password {
            settings = settings.set_password(password);
        }
        let info = address.into_connection_info()?;
        Client::open(info.set_tcp_settings(tcp()).set_redis_settings(settings))
    }

    fn sentinels(
        &self,
        sentinels: &[Address],
        master: &str,
        login: &Login,
    ) -> RedisResult<SentinelClient> {
        let Url { tls, login: Login { user, password }, db, .. } = &self.url;
        let sentinels = sentinels.iter().cloned().map(|address| tls.address(address));
        let sentinels = sentinels.collect::<RedisResult<Vec<_>>>()?;
        let mut builder =
            SentinelClientBuilder::new(sentinels, master, SentinelServerType::Master)?
                .set_client_to_redis_protocol(ProtocolVersion::RESP3)
                .set_client_to_redis_tcp_settings(tcp())
                .set_client_to_redis_db(*db);
        if let Some(user) = user {
            builder = builder.set_client_to_redis_username(user);
        }
        if let Some(password) = password {
            builder = builder.set_client_to_redis_password(password);
        }
        if tls.on {
            builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
        }
        if let Some(certificates) = tls.certificates() {
            builder = builder.set_client_to_redis_certificates(certificates);
        }
        if let Some(user) = &login.user {
            builder = builder.set_client_to_sentinel_username(user);
        }
        if let Some(password) = &login.password {
            builder = builder.set_client_to_sentinel_password(password);
        }
        builder.build()
    }
}

/// Small writes go out at once.
fn tcp() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}
