//! The log, and with the feature `otlp` traces.

use std::io::IsTerminal as _;

use axum::http::HeaderMap;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::cli::{LogFormat, Serve};
use crate::service::TRACES;

/// Keeps what has to be flushed at the end.
#[derive(Default)]
pub struct Telemetry {
    #[cfg(feature = "otlp")]
    provider: Option<opentelemetry_sdk::trace::SdkTracerProvider>,
}

impl Telemetry {
    /// Sends what is left.
    pub fn end(&self) {
        #[cfg(feature = "otlp")]
        if let Some(provider) = &self.provider
            && let Err(error) = provider.shutdown()
        {
            tracing::warn!(%error, "the last traces could not be sent");
        }
    }
}

/// Starts the log, on standard error.
///
/// # Errors
/// The filter cannot be read, or another log is started already.
pub fn start(serve: &Serve) -> anyhow::Result<Telemetry> {
    let filter = EnvFilter::try_new(format!("{},{TRACES}=off", serve.log))?;
    let layer = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let log = match serve.log_format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    let registry = tracing_subscriber::registry().with(log.with_filter(filter));
    #[cfg(feature = "otlp")]
    if let Some(url) = &serve.otlp {
        use opentelemetry::trace::TracerProvider as _;
        use opentelemetry_otlp::WithExportConfig as _;
        let exporter =
            opentelemetry_otlp::SpanExporter::builder().with_http().with_endpoint(url).build()?;
        let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(
                opentelemetry_sdk::Resource::builder()
                    .with_service_name("redis-rl-gateway")
                    .build(),
            )
            .build();
        let traces = tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("redis-rl-gateway"))
            .with_filter(EnvFilter::try_new(format!("{TRACES}=debug"))?);
        opentelemetry::global::set_text_map_propagator(
            opentelemetry_sdk::propagation::TraceContextPropagator::new(),
        );
        registry.with(traces).try_init()?;
        return Ok(Telemetry { provider: Some(provider) });
    }
    registry.try_init()?;
    Ok(Telemetry::default())
}

/// Makes a span part of the trace that the `traceparent` among these headers names. Without a trace it begins one, and in a
/// program without the feature `otlp` there are none.
#[cfg_attr(not(feature = "otlp"), expect(unused_variables))]
pub fn continue_trace(span: &tracing::Span, headers: &HeaderMap) {
    #[cfg(feature = "otlp")]
    if !span.is_disabled() {
        use tracing_opentelemetry::OpenTelemetrySpanExt as _;
        let parent = opentelemetry::global::get_text_map_propagator(|propagator| {
            propagator.extract(&Fields(headers))
        });
        // It fails where nobody collects traces.
        let _ = span.set_parent(parent);
    }
}

#[cfg(feature = "otlp")]
struct Fields<'a>(&'a HeaderMap);

#[cfg(feature = "otlp")]
impl opentelemetry::propagation::Extractor for Fields<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(axum::http::HeaderName::as_str).collect()
    }
}

#[cfg(all(test, feature = "otlp"))]
mod tests {
    use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;

    use super::*;

    #[test]
    fn a_span_belongs_to_the_trace_of_the_request() {
        opentelemetry::global::set_text_map_propagator(
            opentelemetry_sdk::propagation::TraceContextPropagator::new(),
        );
        let provider = opentelemetry_sdk::trace::SdkTracerProvider::default();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let trace = |headers: &HeaderMap| {
                let span = tracing::debug_span!(target: TRACES, "decide");
                continue_trace(&span, headers);
                span.context().span().span_context().trace_id().to_string()
            };
            let mut headers = HeaderMap::new();
            assert_ne!(trace(&headers), "0af7651916cd43dd8448eb211c80319c");
            let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
            headers.insert("traceparent", axum::http::HeaderValue::from_static(parent));
            assert_eq!(trace(&headers), "0af7651916cd43dd8448eb211c80319c");
        });
    }
}
