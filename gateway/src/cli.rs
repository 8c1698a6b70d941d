//! The command line. Every flag of `serve` can be given by an environment variable as well.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::answer::fields::Form;
use crate::files;
use crate::identity::Trust;
use crate::redis::Url;
use crate::request::{Descriptor, Entry};
use crate::rules::limit::{Algorithm, duration};
use crate::rules::{Mode, Options, Rule};
use crate::service::Outage;

/// A rate limit service for Envoy, nginx, Caddy and Traefik, on the redis-rl module.
#[derive(Debug, Parser)]
#[command(name = "redis-rl-gateway", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Answer gateways: Envoy by gRPC, Traefik, Caddy and nginx by HTTP.
    Serve(Box<Serve>),
    /// Say what is wrong with a configuration, with file, line and column.
    Check(Check),
    /// Say which rules a request would meet: `explain rules.yaml --domain api user=42 path=/login + remote_address=10.0.0.7`
    Explain(Explain),
}

/// How rules are read.
#[derive(Clone, Debug, Args)]
pub struct Reading {
    /// The algorithm of rules that name none
    #[arg(long, env = "RL_GATEWAY_ALGORITHM", value_enum, default_value = "fixed_window")]
    pub algorithm: Algorithm,
    /// Fixed windows of a day, week, month or year are the calendar's (UTC, moved by the rule's offset)
    #[arg(long, env = "RL_GATEWAY_CALENDAR")]
    pub calendar: bool,
    /// Several files may have rules of one domain
    #[arg(long, env = "RL_GATEWAY_MERGE_DOMAINS")]
    pub merge_domains: bool,
    /// For how long a leaky bucket lets a request wait for its turn at most. Proxies have to wait for longer
    #[arg(long, env = "RL_GATEWAY_LONGEST_TURN", value_parser = duration, default_value = "100ms")]
    pub longest_turn: Duration,
}

impl Reading {
    /// As the rules take it.
    pub fn options(&self) -> Options {
        Options {
            algorithm: self.algorithm,
            calendar: self.calendar,
            merge_domains: self.merge_domains,
            longest_turn: self.longest_turn,
        }
    }
}

/// `serve`
#[derive(Debug, Args)]
// Of a flag that is given twice the last one holds: so a script's can be changed by what is added to it.
#[command(args_override_self = true)]
pub struct Serve {
    /// The rules: a file, or a folder of *.yaml and *.yml. Changes hold from the next request on
    #[arg(long, env = "RL_GATEWAY_CONFIG", value_name = "PATH")]
    pub config: PathBuf,
    /// The server with the redis-rl module: redis://[user:password@]host:port[/db], rediss:// with TLS, unix:///path,
    /// redis+cluster://host:port,host:port or redis+sentinel://host:port,host:port/name
    #[arg(
        long,
        env = "RL_GATEWAY_REDIS",
        value_name = "URL",
        default_value = "redis://127.0.0.1:6379",
        hide_env_values = true
    )]
    pub redis: Url,
    /// Where Envoy asks
    #[arg(long, env = "RL_GATEWAY_GRPC", value_name = "ADDRESS", default_value = "127.0.0.1:8081")]
    pub grpc: SocketAddr,
    /// Where Traefik, Caddy and nginx ask: /check, /json, /healthz
    #[arg(long, env = "RL_GATEWAY_HTTP", value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub http: SocketAddr,
    /// Where Prometheus asks: /metrics
    #[arg(
        long,
        env = "RL_GATEWAY_METRICS",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:6070"
    )]
    pub metrics: SocketAddr,
    /// How long a request waits for the server at most, before the server counts as away
    #[arg(long, env = "RL_GATEWAY_TIMEOUT", value_parser = duration, default_value = "50ms")]
    pub timeout: Duration,
    /// What happens to requests while the server is away: they pass, are refused, or are counted in this process
    #[arg(long, env = "RL_GATEWAY_ON_OUTAGE", value_enum, default_value = "open")]
    pub on_outage: Outage,
    /// Gateways that share the load: with `--on-outage local` each grants its share
    #[arg(long, env = "RL_GATEWAY_INSTANCES", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub instances: u32,
    /// Denials that are answered from memory until their wait is over, at most so many; 0 asks the server each time
    #[arg(long, env = "RL_GATEWAY_REMEMBER", value_name = "COUNT", default_value_t = 100_000)]
    pub remember: usize,
    /// How long each of them is answered from memory at most: until then a reset by others is not seen
    #[arg(long, env = "RL_GATEWAY_REMEMBER_FOR", value_parser = duration, default_value = "1m")]
    pub remember_for: Duration,
    /// Decide, count and report everything, and refuse nothing
    #[arg(long, env = "RL_GATEWAY_SHADOW")]
    pub shadow: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub reading: Reading,
    /// The header fields that clients see: draft-11, draft-6, draft-7, x-ratelimit or none
    #[arg(long, env = "RL_GATEWAY_FIELDS", value_enum, default_value = "draft-11")]
    pub fields: Fields,
    /// Proxies before /check whose forwarding header is believed: their number, or their ranges, separated by commas
    #[arg(
        long,
        env = "RL_GATEWAY_TRUSTED_PROXIES",
        value_name = "COUNT|CIDR,...",
        default_value = "1"
    )]
    pub trusted_proxies: Trust,
    /// The header that they write
    #[arg(
        long,
        env = "RL_GATEWAY_FORWARDED_HEADER",
        value_enum,
        default_value = "x-forwarded-for"
    )]
    pub forwarded_header: crate::identity::Header,
    /// How many bits of an IPv4 address are one client
    #[arg(long, env = "RL_GATEWAY_PREFIX4", default_value_t = 32, value_parser = clap::value_parser!(u8).range(1..=32))]
    pub prefix4: u8,
    /// How many bits of an IPv6 address are one client
    #[arg(long, env = "RL_GATEWAY_PREFIX6", default_value_t = 64, value_parser = clap::value_parser!(u8).range(1..=128))]
    pub prefix6: u8,
    /// A secret with which values are hashed in keys, for those that could be guessed
    #[arg(long, env = "RL_GATEWAY_PEPPER", value_name = "SECRET", hide_env_values = true)]
    pub pepper: Option<String>,
    /// What all keys begin with
    #[arg(long, env = "RL_GATEWAY_KEY_PREFIX", default_value = "rl")]
    pub key_prefix: String,
    /// From which percentage of a limit on a grant counts as near it
    #[arg(long, env = "RL_GATEWAY_NEAR_LIMIT", value_name = "PERCENT", default_value_t = 80, value_parser = clap::value_parser!(u64).range(..=100))]
    pub near_limit: u64,
    /// Threads; all cores if not given
    #[arg(long, env = "RL_GATEWAY_THREADS")]
    pub threads: Option<usize>,
    /// How the log is written
    #[arg(long, env = "RL_GATEWAY_LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// What is logged: error, warn, info, debug (each decision), or a filter of the tracing crate
    #[arg(long, env = "RL_GATEWAY_LOG", default_value = "info")]
    pub log: String,
    /// How long requests under way may take once the program is asked to end
    #[arg(long, env = "RL_GATEWAY_DRAIN", value_parser = duration, default_value = "10s")]
    pub drain: Duration,
    /// Where traces go, as OTLP over HTTP
    #[cfg(feature = "otlp")]
    #[arg(long, env = "RL_GATEWAY_OTLP", value_name = "URL")]
    pub otlp: Option<String>,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum LogFormat {
    Text,
    Json,
}

/// The header fields that clients see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Fields {
    #[value(name = "draft-11")]
    Draft11,
    #[value(name = "draft-6")]
    Draft6,
    #[value(name = "draft-7")]
    Draft7,
    #[value(name = "x-ratelimit")]
    XRateLimit,
    None,
}

impl Fields {
    /// The form, if fields are sent at all.
    pub fn form(self) -> Option<Form> {
        match self {
            Self::Draft11 => Some(Form::Draft11),
            Self::Draft6 => Some(Form::Draft6),
            Self::Draft7 => Some(Form::Draft7),
            Self::XRateLimit => Some(Form::XRateLimit),
            Self::None => None,
        }
    }
}

/// `check`
#[derive(Debug, Args)]
pub struct Check {
    /// A file, or a folder of *.yaml and *.yml
    pub path: PathBuf,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub reading: Reading,
}

/// `explain`
#[derive(Debug, Args)]
pub struct Explain {
    /// A file, or a folder of *.yaml and *.yml
    pub path: PathBuf,
    /// The domain of the request
    #[arg(long)]
    pub domain: String,
    /// Entries of a descriptor, as key=value; + begins the next descriptor
    #[arg(required = true, value_name = "KEY=VALUE")]
    pub entries: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub reading: Reading,
}

/// Checks a configuration: a sentence for each rule that could be read, or all that is wrong.
///
/// # Errors
/// What is wrong, a line each.
pub fn check(path: &Path, options: &Options) -> Result<String, String> {
    let (texts, rules) = files::load(path, options).map_err(lines)?;
    let files = texts.len();
    Ok(format!(
        "{files} file{}, domains: {}\n",
        if files == 1 { "" } else { "s" },
        rules.names().join(", ")
    ))
}

/// Says which rules a request would meet.
///
/// # Errors
/// The configuration is broken, the domain is not in it, or an entry has no `=`.
pub fn explain(args: &Explain) -> Result<String, String> {
    let (_, rules) = files::load(&args.path, &args.reading.options()).map_err(lines)?;
    let domain = rules.domain(&args.domain).ok_or_else(|| {
        format!("there is no domain {:?}; there are: {}\n", args.domain, rules.names().join(", "))
    })?;
    let descriptors = descriptors(&args.entries)?;
    let found: Vec<_> = descriptors.iter().map(|descriptor| domain.find(descriptor)).collect();
    let replaced: Vec<&String> =
        found.iter().flatten().flat_map(|found| &found.rule.replaces).collect();
    let mut text = String::new();
    for (descriptor, found) in descriptors.iter().zip(&found) {
        let entries: Vec<_> = descriptor
            .entries
            .iter()
            .map(|entry| format!("({}, {})", entry.key, entry.value))
            .collect();
        let _ = write!(text, "{}: ", entries.join(", "));
        let _ = match found {
            None => writeln!(text, "no rule, so it passes"),
            Some(found)
                if found.rule.name.as_ref().is_some_and(|name| replaced.contains(&name)) =>
            {
                writeln!(text, "{}, which another rule replaces, so it passes", found.rule.label)
            }
            Some(found) => writeln!(text, "{}", describe(found.rule)),
        };
    }
    Ok(text)
}

fn descriptors(entries: &[String]) -> Result<Vec<Descriptor>, String> {
    let mut all = vec![Descriptor::default()];
    for text in entries {
        if text == "+" {
            all.push(Descriptor::default());
            continue;
        }
        let (key, value) =
            text.split_once('=').ok_or_else(|| format!("an entry is key=value, not {text:?}\n"))?;
        if let Some(last) = all.last_mut() {
            last.entries.push(Entry { key: key.to_owned(), value: value.to_owned() });
        }
    }
    if all.iter().any(|descriptor| descriptor.entries.is_empty()) {
        return Err("+ stands between two descriptors\n".to_owned());
    }
    Ok(all)
}

fn describe(rule: &Rule) -> String {
    let Some(limit) = &rule.limit else {
        return format!("{}, unlimited ({})", rule.label, rule.place);
    };
    let mut command = redis::Cmd::new();
    limit.words(&mut command, limit.cost, b"<the lease>");
    let words: Vec<_> = command
        .args_iter()
        .filter_map(|arg| match arg {
            redis::Arg::Simple(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        })
        .collect();
    let mode = match rule.mode {
        Mode::Enforced if rule.force => ", charged by force",
        Mode::Enforced => "",
        Mode::Shadow => ", in shadow mode",
        Mode::Quota => ", in quota mode",
    };
    format!("{}, {}{mode} ({})", rule.label, words.join(" "), rule.place)
}

fn lines(problems: Vec<crate::rules::Problem>) -> String {
    problems.iter().fold(String::new(), |mut text, problem| {
        let _ = writeln!(text, "{problem}");
        text
    })
}
