//! Where the server is, as users write it.
//!
//! ```text
//! redis://[user:password@]host[:port][/db]
//! unix://[user:password@]/path/of/socket[?db=n]
//! redis+sentinel://[user:password@]host[:port],host[:port].../master[/db]
//! redis+cluster://[user:password@]host[:port],host[:port]...
//!
//! rediss://, rediss+sentinel://, rediss+cluster://       over TLS
//! ?ca=/path/of/ca.pem                                    and trust these certificates, no others
//! ?sentinel-user=NAME, ?sentinel-password=SECRET         as whom to log in to the sentinels
//! ```
//!
//! What has a meaning in an address (`/ ? # @ : %`) is written as `%2F` and the like where it belongs to a name or a password.

use std::fmt;
use std::fs;
use std::str::FromStr;
use std::sync::Arc;

use percent_encoding::percent_decode_str;

use super::connect::Tls;

/// Where the server is. Neither its `Debug` nor its `Display` shows a password.
#[derive(Clone)]
pub struct Url {
    pub(super) place: Place,
    pub(super) tls: Tls,
    pub(super) login: Login,
    pub(super) db: i64,
}

#[derive(Clone)]
pub(super) enum Place {
    Server(Address),
    Socket(String),
    Sentinel { sentinels: Vec<Address>, master: String, login: Login },
    Cluster(Vec<Address>),
}

/// As whom to log in.
#[derive(Clone, Default)]
pub(super) struct Login {
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
}

/// Host and port.
pub(super) type Address = (String, u16);

/// What is wrong with an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadUrl(String);

const SCHEMES: &str = "redis://, rediss://, redis+sentinel://, rediss+sentinel://, redis+cluster://, rediss+cluster:// or unix://";

impl FromStr for Url {
    type Err = BadUrl;

    fn from_str(text: &str) -> Result<Self, BadUrl> {
        let begins = || BadUrl(format!("the address of Redis begins with {SCHEMES}"));
        let (scheme, rest) = text.split_once("://").ok_or_else(begins)?;
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let tail = rest.strip_prefix(authority).unwrap_or_default();
        let (user, hosts) = authority
            .rsplit_once('@')
            .map_or((None, authority), |(user, hosts)| (Some(user), hosts));

        // All but the hosts, which may be several.
        let user = user.map(|user| format!("{user}@")).unwrap_or_default();
        let parts = url::Url::parse(&format!("redis://{user}host{tail}"))
            .map_err(|error| BadUrl(format!("the address of Redis is not understood: {error}")))?;
        if parts.fragment().is_some() {
            return bad("a # in the address of Redis is written as %23");
        }
        let login = Login {
            user: some(&decoded(parts.username())?),
            password: parts.password().map(decoded).transpose()?,
        };
        let mut options = Options::read(&parts)?;
        let mut path = parts.path().trim_matches('/').split('/').map(decoded);
        let mut next = || path.next().transpose().map(|part| part.filter(|part| !part.is_empty()));

        let place = match scheme {
            "redis" | "rediss" => match addresses(hosts, 6379)?.as_slice() {
                [one] => Place::Server(one.clone()),
                _ => return bad("several servers are redis+sentinel:// or redis+cluster://"),
            },
            "redis+sentinel" | "rediss+sentinel" => Place::Sentinel {
                sentinels: addresses(hosts, 26379)?,
                master: next()?
                    .map_or_else(|| bad("after the sentinels comes /NAME of the master"), Ok)?,
                login: options.sentinel.take().unwrap_or_default(),
            },
            "redis+cluster" | "rediss+cluster" => Place::Cluster(addresses(hosts, 6379)?),
            "unix" if hosts.is_empty() => Place::Socket(decoded(parts.path())?),
            "unix" => return bad("the path of a socket begins with a slash: unix:///path"),
            _ => return Err(begins()),
        };
        let is_socket = matches!(place, Place::Socket(_));
        let db = if is_socket { options.db.take() } else { next()? };
        if !is_socket && let Some(more) = next()? {
            return bad(format!("/{more} at the end of the address of Redis has no meaning"));
        }
        let url =
            Self { place, tls: options.tls(scheme.starts_with("rediss"))?, login, db: number(db)? };
        if options.sentinel.is_some() || options.db.is_some() {
            return bad("sentinel-user and sentinel-password are for sentinels, db is for unix://");
        }
        if url.is_cluster() && url.db != 0 {
            return bad("a cluster has no database but 0");
        }
        url.check()
    }
}

/// What follows the question mark.
#[derive(Default)]
struct Options {
    ca: Option<String>,
    db: Option<String>,
    sentinel: Option<Login>,
}

impl Options {
    fn read(parts: &url::Url) -> Result<Self, BadUrl> {
        let mut options = Self::default();
        for (name, value) in parts.query_pairs() {
            let value = Some(value.into_owned());
            match name.as_ref() {
                "ca" => options.ca = value,
                "db" => options.db = value,
                "sentinel-user" => options.sentinel.get_or_insert_default().user = value,
                "sentinel-password" => options.sentinel.get_or_insert_default().password = value,
                _ => {
                    return bad(
                        "the options of the address of Redis are ca, db, sentinel-user and sentinel-password",
                    );
                }
            }
        }
        Ok(options)
    }

    fn tls(&self, on: bool) -> Result<Tls, BadUrl> {
        let ca = match &self.ca {
            Some(_) if !on => return bad("ca is for TLS: rediss://"),
            Some(path) => Some(Arc::new(fs::read(path).map_err(|error| {
                BadUrl(format!("the certificates in {path} cannot be read: {error}"))
            })?)),
            None => None,
        };
        Ok(Tls { on, ca })
    }
}

impl Url {
    /// Whether the servers are a cluster.
    pub fn is_cluster(&self) -> bool {
        matches!(self.place, Place::Cluster(_))
    }

    /// The servers of a cluster that are known before any of them was asked.
    pub(super) fn seeds(&self) -> &[Address] {
        if let Place::Cluster(seeds) = &self.place { seeds } else { &[] }
    }

    /// Whether the certificates are some.
    fn check(self) -> Result<Self, BadUrl> {
        self.tls.check().map_err(|error| {
            BadUrl(format!("the certificates in ca are not understood: {error}"))
        })?;
        Ok(self)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.on { "rediss" } else { "redis" };
        let user = self.login.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        let list = |addresses: &[Address]| {
            let hosts: Vec<_> =
                addresses.iter().map(|(host, port)| host_port(host, *port)).collect();
            hosts.join(",")
        };
        match &self.place {
            Place::Server((host, port)) => {
                write!(f, "{scheme}://{user}{}", host_port(host, *port))?;
            }
            Place::Socket(path) => write!(f, "unix://{user}{path}")?,
            Place::Sentinel { sentinels, master, .. } => {
                write!(f, "{scheme}+sentinel://{user}{}/{master}", list(sentinels))?;
            }
            Place::Cluster(seeds) => write!(f, "{scheme}+cluster://{user}{}", list(seeds))?,
        }
        match (&self.place, self.db) {
            (_, 0) => Ok(()),
            (Place::Socket(_), db) => write!(f, "?db={db}"),
            (_, db) => write!(f, "/{db}"),
        }
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// As in an address.
pub(super) fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn addresses(hosts: &str, port: u16) -> Result<Vec<Address>, BadUrl> {
    let address = |text: &str| {
        let wrong = |why: &str| BadUrl(format!("{text:?} is no host, or host:port: {why}"));
        let parts = url::Url::parse(&format!("redis://{text}"))
            .map_err(|error| wrong(&error.to_string()))?;
        let host = match parts.host() {
            Some(url::Host::Domain(name)) => decoded(name)?,
            Some(url::Host::Ipv4(address)) => address.to_string(),
            Some(url::Host::Ipv6(address)) => address.to_string(),
            None => return Err(wrong("it is empty")),
        };
        Ok((host, parts.port().unwrap_or(port)))
    };
    hosts.split(',').map(address).collect()
}

fn number(db: Option<String>) -> Result<i64, BadUrl> {
    let Some(db) = db else { return Ok(0) };
    match db.parse() {
        Ok(number @ 0..) => Ok(number),
        _ => bad(format!("{db:?} is no number of a database")),
    }
}

fn decoded(text: &str) -> Result<String, BadUrl> {
    let text = percent_decode_str(text).decode_utf8();
    text.map(String::from).map_err(|_| BadUrl("the address of Redis is not UTF-8".into()))
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn bad<T>(what: impl Into<String>) -> Result<T, BadUrl> {
    Err(BadUrl(what.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_as_they_were_understood_but_for_passwords() {
        for (text, shown) in [
            ("redis://h", "redis://h:6379"),
            ("redis://h:7000/3", "redis://h:7000/3"),
            ("redis://h/", "redis://h:6379"),
            ("redis://:secret@h", "redis://h:6379"),
            ("redis://user:sec%2Fret%40@10.0.0.1/1", "redis://user@10.0.0.1:6379/1"),
            ("rediss://[::1]:7000", "rediss://[::1]:7000"),
            ("unix:///run/redis.sock", "unix:///run/redis.sock"),
            ("unix://u:secret@/run/my%20redis.sock?db=2", "unix://u@/run/my redis.sock?db=2"),
            ("redis+sentinel://a,b:7/main", "redis+sentinel://a:26379,b:7/main"),
            (
                "rediss+sentinel://u:p@a/main/4?sentinel-password=secret",
                "rediss+sentinel://u@a:26379/main/4",
            ),
            ("redis+cluster://a:1,[::1]:2,c", "redis+cluster://a:1,[::1]:2,c:6379"),
        ] {
            let url = text.parse::<Url>().map(|url| url.to_string());
            assert_eq!(url, Ok(shown.to_owned()), "{text}");
        }
        let url: Url = "redis://user:sec%2Fret%40@h".parse().unwrap();
        assert_eq!(url.login.password.as_deref(), Some("sec/ret@"));
        assert!(!format!("{url:?}").contains("ret"));
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (text, told) in [
            ("localhost:6379", "begins with redis://"),
            ("http://h", "begins with redis://"),
            ("redis://", "is empty"),
            ("redis://h:port", "invalid port number"),
            ("redis://h:70000", "invalid port number"),
            ("redis://h/x", "\"x\" is no number"),
            ("redis://h/-1", "\"-1\" is no number"),
            ("redis://h/1/2", "/2 at the end"),
            ("redis://a,b", "redis+sentinel:// or redis+cluster://"),
            ("redis://h#insecure", "%23"),
            ("redis://h?protocol=3", "options"),
            ("redis://h?db=3", "db is for unix://"),
            ("redis://h?ca=/x", "ca is for TLS"),
            ("redis://h?sentinel-user=x", "are for sentinels"),
            ("rediss://h?ca=/nowhere", "/nowhere cannot be read"),
            ("rediss://h?ca=/dev/null", "not understood: there is none"),
            ("redis+sentinel://a", "NAME of the master"),
            ("redis+sentinel://a,,b/m", "is empty"),
            ("redis+cluster://a/1", "no database but 0"),
            ("unix://run/redis.sock", "begins with a slash"),
        ] {
            let error =
                text.parse::<Url>().err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
