//! Connections: accepted until the program ends, and no longer kept than somebody is at the other end.

use std::future::Future;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulConnection, GracefulShutdown};
use tokio::net::{TcpListener, TcpStream};
use tonic::codegen::Service as _;
use tracing::{debug, warn};

/// How often a silent connection is asked whether somebody is there, how long the answer may take, and how long a message may
/// take to come.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How long a connection by HTTP/1.1 may be without a whole request: longer than proxies keep one that they do not use, for
/// these are to close it.
const LONGEST_SILENCE: Duration = Duration::from_secs(180);
/// How long nothing is accepted when the system has no room for a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves what comes on the listener until `ended`, and then until what is under way is finished.
pub async fn serve<C: GracefulConnection<Error: std::fmt::Display> + Send + 'static>(
    listener: TcpListener,
    ended: impl Future<Output = ()>,
    connection: impl Fn(TokioIo<TcpStream>, SocketAddr) -> C,
) {
    let connections = GracefulShutdown::new();
    let mut ended = pin!(ended);
    loop {
        let (stream, from) = tokio::select! {
            () = &mut ended => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) if is_of_connection(error.kind()) => continue,
                Err(error) => {
                    warn!(%error, "no connection can be accepted");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            },
        };
        // Without this option answers are only slower.
        let _ = stream.set_nodelay(true);
        let connection = connections.watch(connection(TokioIo::new(stream), from));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "a connection ended");
            }
        });
    }
    drop(listener);
    connections.shutdown().await;
}

/// Whether the connection failed, and not the listener.
fn is_of_connection(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset
    )
}

/// Serves a router by HTTP/1.1 and HTTP/2.
pub async fn serve_http(listener: TcpListener, router: Router, ended: impl Future<Output = ()>) {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(LONGEST_SILENCE);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PATIENCE)
        .keep_alive_timeout(PATIENCE);
    serve(listener, ended, |stream, from| {
        let router = router.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(from));
            router.clone().call(request)
        });
        http.serve_connection(stream, service).into_owned()
    })
    .await;
}
