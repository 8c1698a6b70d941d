//! The running program: listeners, and what happens when it is asked to end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tonic::service::Routes;
use tonic_health::ServingStatus;

use crate::cli::Serve;
use crate::grpc::{self, RateLimits};
use crate::http;
use crate::identity::Identity;
use crate::metrics::{self, Meters};
use crate::plan::Style;
use crate::redis::{self, Store};
use crate::rules::KeyStyle;
use crate::service::{Service, Settings};
use crate::{files, listen, telemetry};

/// How often the samples of the latency histograms are counted. They are counted on a thread that serves, and meanwhile it serves
/// nobody: so it is done before they are many.
const UPKEEP: Duration = Duration::from_millis(50);

/// Runs until it is asked to end, and until what was under way is finished then.
///
/// # Errors
/// The configuration is broken, or an address cannot be listened on.
pub fn run(serve: Serve) -> anyhow::Result<()> {
    let telemetry = telemetry::start(&serve)?;
    let mut runtime = match serve.threads {
        Some(1) => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if let Some(threads) = serve.threads.filter(|&threads| threads > 1) {
        runtime.worker_threads(threads);
    }
    let runtime = runtime.enable_all().build()?;
    let ended = runtime.block_on(listen(serve));
    telemetry.end();
    // Nobody waits for a file that is being read: its file system may hang.
    runtime.shutdown_background();
    ended
}

async fn listen(serve: Serve) -> anyhow::Result<()> {
    let prometheus = metrics::install()?;
    let options = serve.reading.options();
    let (texts, rules) = files::load(&serve.config, &options).map_err(|problems| {
        let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("the configuration is broken:\n{}", lines.join("\n"))
    })?;
    tracing::info!(domains = ?rules.names(), "the configuration is read");
    let store = Store::start(redis::Settings { url: serve.redis.clone(), timeout: serve.timeout });
    let settings = settings(&serve, store.is_cluster());
    let meters = Meters::default();
    meters.register(&rules);
    let service = Arc::new(Service::new(rules, store, settings, meters));
    service.meters().loaded(true);

    let (end, ended) = watch::channel(false);
    let grpc = bind("grpc", serve.grpc).await?;
    let http = bind("http", serve.http).await?;
    let metrics = bind("metrics", serve.metrics).await?;
    tokio::spawn(files::watch(serve.config.clone(), options, texts, service.clone()));
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status(grpc::NAME, ServingStatus::Serving).await;
    let grpc = grpc::serve(
        grpc,
        RateLimits::new(service.clone(), serve.fields.form()),
        Routes::new(health_service)
            .add_service(reflection_v1()?)
            .add_service(reflection_v1alpha()?),
        asked(ended.clone()),
    );
    let identity = Identity::new(
        serve.trusted_proxies.clone(),
        serve.forwarded_header,
        serve.prefix4,
        serve.prefix6,
    )?;
    let router = http::router(
        Arc::new(http::Asked::new(service.clone(), serve.fields.form())),
        identity,
        ended.clone(),
    );
    let http = listen::serve_http(http, router, asked(ended.clone()));
    let exporter = exporter(prometheus, service.clone());
    tokio::spawn(listen::serve_http(metrics, exporter, std::future::pending()));
    println!("redis-rl-gateway: ready");

    tokio::spawn(async move {
        signalled().await;
        tracing::info!("asked to end: no new requests, and those under way are finished");
        health.set_service_status(grpc::NAME, ServingStatus::NotServing).await;
        end.send_replace(true);
    });
    tokio::select! {
        ((), ()) = async { tokio::join!(grpc, http) } => {}
        () = late(ended, serve.drain) => {
            tracing::warn!("requests or connections are left after {:?}: they are cut off", serve.drain);
        }
    }
    Ok(())
}

fn settings(serve: &Serve, cluster: bool) -> Settings {
    let pepper = serve.pepper.as_ref().map(|pepper| pepper.as_bytes().to_vec());
    Settings {
        style: Style {
            keys: KeyStyle { prefix: serve.key_prefix.clone(), pepper },
            algorithm: serve.reading.algorithm,
            longest_turn: serve.reading.longest_turn,
            cluster,
        },
        on_outage: serve.on_outage,
        shadow: serve.shadow,
        near_limit: serve.near_limit,
        remember: serve.remember,
        remember_for: serve.remember_for,
        instances: serve.instances,
    }
}

/// Listens, and says where: with port 0 it is the system that chooses.
async fn bind(name: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener =
        TcpListener::bind(address).await.with_context(|| format!("--{name} {address}"))?;
    println!("redis-rl-gateway: {name} on {}", listener.local_addr()?);
    Ok(listener)
}

fn reflection_v1() -> anyhow::Result<
    tonic_reflection::server::v1::ServerReflectionServer<
        impl tonic_reflection::server::v1::ServerReflection,
    >,
> {
    Ok(reflected().build_v1()?)
}

fn reflection_v1alpha() -> anyhow::Result<
    tonic_reflection::server::v1alpha::ServerReflectionServer<
        impl tonic_reflection::server::v1alpha::ServerReflection,
    >,
> {
    Ok(reflected().build_v1alpha()?)
}

fn reflected() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(grpc::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

fn exporter(prometheus: PrometheusHandle, service: Arc<Service>) -> Router {
    let upkeep = prometheus.clone();
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(UPKEEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            upkeep.run_upkeep();
        }
    });
    let render = move || {
        service.meters().breaker(!service.is_asked());
        let text = prometheus.render();
        async move { ([("content-type", "text/plain; version=0.0.4")], text) }
    };
    Router::new().route("/metrics", get(render))
}

/// Until somebody asks the program to end.
async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

async fn asked(mut ended: watch::Receiver<bool>) {
    let _ = ended.wait_for(|&ended| ended).await;
}

async fn late(ended: watch::Receiver<bool>, drain: Duration) {
    asked(ended).await;
    tokio::time::sleep(drain).await;
}
