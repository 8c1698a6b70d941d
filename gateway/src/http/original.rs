//! The request that a gateway asks about, as the gateway describes it in the headers of its own request to `/check`.
//!
//! | of the original | is read from | else |
//! | --- | --- | --- |
//! | method | `X-Forwarded-Method`, `X-Original-Method` | the request's own |
//! | path and query | what follows `/check` in the request's own, or `X-Forwarded-Uri`, `X-Original-URI` | |
//! | host | `X-Forwarded-Host` | `Host` |
//! | address | the forwarding header, through trusted proxies | |
//! | anything else | a header, a parameter of the query, or a cookie that the configuration names | |
//!
//! What a client can write in two ways must not be two limiters. So a path is decoded, and its dots and double slashes are
//! resolved; a host is in lower case and has no port. Two headers that say different things are an error: one of
//! them is the client's.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, Uri};
use percent_encoding::{AsciiSet, percent_decode, percent_encode};
use thiserror::Error;

use crate::identity::{Identity, IdentityError};
use crate::request::{Descriptor, Entry};
use crate::rules::file::Source;

/// The path that a gateway asks, or that what it asks begins with.
pub const CHECK: &str = "/check";

const METHOD: &[&str] = &["x-forwarded-method", "x-original-method"];
const URI: &[&str] = &["x-forwarded-uri", "x-original-uri"];
const HOST: &[&str] = &["x-forwarded-host"];

/// What cannot be told from a request.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unclear {
    /// Headers with the same meaning, or lines of one header.
    #[error(
        "{0} say different things: the gateway sets one of them, and has to remove what clients send"
    )]
    Disagree(String),
    /// The address of the client.
    #[error("the client's address cannot be told: {0}")]
    Address(#[from] IdentityError),
}

/// The original request.
#[derive(Debug)]
pub struct Original<'a> {
    headers: &'a HeaderMap,
    peer: Option<IpAddr>,
    method: String,
    path: String,
    query: Vec<u8>,
    host: String,
}

impl<'a> Original<'a> {
    /// Reads it from the gateway's own request. `peer` is the gateway.
    ///
    /// # Errors
    /// Its headers contradict each other.
    pub fn read(
        method: &Method,
        uri: &Uri,
        headers: &'a HeaderMap,
        peer: Option<IpAddr>,
    ) -> Result<Self, Unclear> {
        let below = uri.path().strip_prefix(CHECK).unwrap_or_default().as_bytes();
        let (path, query) = match below {
            b"" => path_and_query(one(headers, URI)?.unwrap_or_default()),
            below => (below, uri.query().unwrap_or_default().as_bytes()),
        };
        let own_host =
            || one(headers, &["host"]).map(|host| host.or_else(|| Some(uri.host()?.as_bytes())));
        let host = match one(headers, HOST)? {
            None => own_host()?,
            // Proxies append.
            Some(hosts) => hosts.rsplit(|&byte| byte == b',').next(),
        };
        Ok(Self {
            headers,
            peer,
            method: text(one(headers, METHOD)?.unwrap_or(method.as_str().as_bytes())),
            path: if path.is_empty() { String::new() } else { resolved(path) },
            query: query.to_vec(),
            host: host.map(bare_host).unwrap_or_default(),
        })
    }

    /// The descriptors of this request: one for each path of keys for which it has all values.
    ///
    /// # Errors
    /// A value that is asked for cannot be told.
    pub fn descriptors(
        &self,
        templates: &[Vec<String>],
        check: &BTreeMap<String, Source>,
        identity: &Identity,
    ) -> Result<Vec<Descriptor>, Unclear> {
        let entries = |keys: &Vec<String>| {
            let values = keys.iter().map(|key| self.value(key, check.get(key), identity));
            let values = values.collect::<Result<Option<Vec<_>>, _>>()?;
            let entry = |(key, value): (&String, String)| Entry { key: key.clone(), value };
            Ok(values.map(|values| keys.iter().zip(values).map(entry).collect()))
        };
        let known = templates.iter().map(entries).filter_map(Result::transpose);
        known
            .map(|entries| entries.map(|entries| Descriptor { entries, ..Descriptor::default() }))
            .collect()
    }

    /// The value of a key, from the source that the configuration names or as every request has it. An empty one is none:
    /// everybody without one would share a limiter.
    fn value(
        &self,
        key: &str,
        source: Option<&Source>,
        identity: &Identity,
    ) -> Result<Option<String>, Unclear> {
        let value = match (source, key) {
            (Some(Source::Header(name)), _) => one(self.headers, &[name])?.map(text),
            (Some(Source::Query(name)), _) => self.parameter(name),
            (Some(Source::Cookie(name)), _) => self.cookie(name).map(text),
            (None, "remote_address") => {
                let lines = self
                    .headers
                    .get_all(identity.header().name())
                    .iter()
                    .map(HeaderValue::as_bytes);
                Some(identity.client(self.peer, lines)?)
            }
            (None, "method") => Some(self.method.clone()),
            (None, "path") => Some(self.path.clone()),
            (None, "host") => Some(self.host.clone()),
            (None, _) => None,
        };
        Ok(value.filter(|value| !value.is_empty()))
    }

    fn parameter(&self, name: &str) -> Option<String> {
        let mut all = form_urlencoded::parse(&self.query);
        all.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    fn cookie(&self, name: &str) -> Option<&[u8]> {
        let lines = self.headers.get_all("cookie").iter().map(HeaderValue::as_bytes);
        let mut pairs =
            lines.flat_map(|line| line.split(|&byte| byte == b';')).map(<[u8]>::trim_ascii);
        let value =
            pairs.find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
        let inner = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
        Some(inner.unwrap_or(value))
    }
}

/// The domain that the gateway names, like `/check?domain=api`.
pub fn domain(uri: &Uri) -> Option<String> {
    asked(uri, "domain")
}

/// Whether the gateway wants a refusal to be a 403, as in `/check?deny=403`.
pub fn denies_by_403(uri: &Uri) -> bool {
    asked(uri, "deny").is_some_and(|status| status == "403")
}

/// A parameter of the gateway's own. Below `/check` the query is the client's, and says nothing.
fn asked(uri: &Uri, name: &str) -> Option<String> {
    let query = uri.query().filter(|_| uri.path() == CHECK)?;
    form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

/// The value of headers that mean the same. A header that is empty is not there.
fn one<'a>(headers: &'a HeaderMap, names: &[&str]) -> Result<Option<&'a [u8]>, Unclear> {
    let lines = names.iter().flat_map(|&name| headers.get_all(name));
    let mut values =
        lines.map(|line| line.as_bytes().trim_ascii()).filter(|value| !value.is_empty());
    let first = values.next();
    if values.any(|other| Some(other) != first) {
        return Err(Unclear::Disagree(names.join(" and ")));
    }
    Ok(first)
}

/// The parts of a URI, which may have a scheme and a host before its path.
fn path_and_query(uri: &[u8]) -> (&[u8], &[u8]) {
    let mut parts = uri.splitn(2, |&byte| byte == b'?');
    let (path, query) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let slashes =
        path.windows(3).position(|part| part == b"://").filter(|_| !path.starts_with(b"/"));
    let after = slashes.and_then(|at| path.get(at + 3..));
    let path = after.map_or(path, |rest| {
        let slash = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
        rest.get(slash..).unwrap_or_default()
    });
    (path, query)
}

/// A path as the server behind the gateway is likely to read it.
fn resolved(path: &[u8]) -> String {
    let decoded: Cow<'_, [u8]> = percent_decode(path).into();
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut folder = true;
    for segment in decoded.split(|&byte| byte == b'/') {
        folder = matches!(segment, b"" | b"." | b"..");
        match segment {
            b".." => drop(kept.pop()),
            b"" | b"." => {}
            _ => kept.push(segment),
        }
    }
    let slash = if folder && !kept.is_empty() { "/" } else { "" };
    format!("/{}{slash}", text(&kept.join(&b'/')))
}

/// A host without its port, in lower case.
fn bare_host(host: &[u8]) -> String {
    let host = text(host.trim_ascii());
    let bare = host.parse::<Authority>().map_or(host, |authority| authority.host().to_owned());
    bare.trim_end_matches('.').to_ascii_lowercase()
}

/// Bytes as text. In what is no UTF-8 they are escaped, so that different values stay different.
fn text(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes)
        .map_or_else(|_| percent_encode(bytes, &AsciiSet::EMPTY).to_string(), str::to_owned)
}
