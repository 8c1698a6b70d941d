//! Which call is whose, and the bodies of answers.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::http::{HeaderMap, HeaderValue, Request, Response, header};
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use prost::bytes::Bytes;
use tokio::net::TcpListener;
use tonic::Status;
use tonic::codegen::Service as _;
use tonic::service::Routes;

use super::{METHOD, RateLimits};
use crate::listen::{self, PATIENCE};

struct Calls {
    limits: RateLimits,
    others: Routes,
}

/// Serves what comes on the listener until `ended`, and then until what is under way is finished. Calls that are none of
/// [`RateLimits`] are those of `others`.
pub async fn serve(
    listener: TcpListener,
    limits: RateLimits,
    others: Routes,
    ended: impl Future<Output = ()>,
) {
    let calls = Arc::new(Calls { limits, others: others.prepare() });
    let mut http = Builder::new(TokioExecutor::new());
    http.auto_date_header(false)
        .timer(TokioTimer::new())
        .keep_alive_interval(PATIENCE)
        .keep_alive_timeout(PATIENCE);
    listen::serve(listener, ended, |stream, _| {
        let calls = Arc::clone(&calls);
        http.serve_connection(stream, service_fn(move |request| call(Arc::clone(&calls), request)))
    })
    .await;
}

async fn call(
    calls: Arc<Calls>,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Infallible> {
    if request.uri().path() == METHOD {
        return Ok(match calls.limits.call(request).await {
            Ok(message) => answered(message),
            Err(status) => status.into_http(),
        });
    }
    // Boxed: those that are asked for every request are not to carry its size about.
    let other = Box::pin(calls.others.clone().call(request));
    Ok(other.await?.map(Answer::Other))
}

fn answered(message: Bytes) -> Response<Answer> {
    let mut response = Response::new(Answer::Message(message));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// The body of an answer.
#[derive(Default)]
enum Answer {
    /// A message, with its prefix.
    Message(Bytes),
    /// The trailers, which say that all went well.
    Trailers,
    #[default]
    Empty,
    Other(tonic::body::Body),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        match this {
            Self::Message(message) => {
                let message = std::mem::take(message);
                *this = Self::Trailers;
                Poll::Ready(Some(Ok(Frame::data(message))))
            }
            Self::Trailers => {
                *this = Self::Empty;
                let ok = (Status::GRPC_STATUS.clone(), HeaderValue::from_static("0"));
                Poll::Ready(Some(Ok(Frame::trailers(HeaderMap::from_iter([ok])))))
            }
            Self::Empty => Poll::Ready(None),
            Self::Other(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Message(_) | Self::Trailers => false,
            Self::Empty => true,
            Self::Other(body) => body.is_end_stream(),
        }
    }
}
