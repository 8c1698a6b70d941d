//! Who a request is counted for: the address of the client behind trusted proxies.
//!
//! Proxies append what they see to the right of the forwarding header, and clients write what they like to its left:
//!
//! ```text
//! X-Forwarded-For: 1.1.1.1, 203.0.113.9, 10.0.0.2        the peer: 10.0.0.1
//!                  forged   the client   a proxy          a proxy
//! ```
//!
//! So the header is read from the right, and nothing to the left of the client is ever looked at. An address that cannot be
//! determined is an error of the setup: it must not become one limiter for everybody. `clients/vectors.json` has the cases
//! that the clients share.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use thiserror::Error;

/// Which proxies are trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// None: the peer is the client.
    #[default]
    Nobody,
    /// So many: the peer, and those that it is behind.
    Count(u32),
    /// Those in these ranges.
    Ranges(Vec<IpNet>),
}

/// A header in which proxies hand on who asked them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Header {
    /// `X-Forwarded-For`
    #[default]
    XForwardedFor,
    /// `Forwarded` of RFC 7239
    Forwarded,
}

impl Header {
    /// Its name, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::XForwardedFor => "x-forwarded-for",
            Self::Forwarded => "forwarded",
        }
    }
}

/// Why it cannot be said who a request is counted for.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// What stands where the client should be.
    #[error("{0:?} is no address")]
    BadAddress(String),
    /// There is no address of the peer, and no trust by count.
    #[error("the peer has no address")]
    NoPeer,
    /// A trusted proxy hands on nothing.
    #[error("a trusted proxy sends no {0}")]
    NoHeader(&'static str),
    /// The request came through fewer proxies than are trusted.
    #[error("{trusted} proxies are trusted, and {header} has {found} entries")]
    TooFewHops {
        /// Proxies that are trusted.
        trusted: u32,
        /// Entries that there are.
        found: u32,
        /// The header's name.
        header: &'static str,
    },
    /// No request can be right.
    #[error("{0}")]
    BadSetup(String),
}

impl IdentityError {
    /// The code that all clients of redis-rl give it.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::BadAddress(_) | Self::NoPeer => "bad-address",
            Self::NoHeader(_) => "no-header",
            Self::TooFewHops { .. } => "too-few-hops",
            Self::BadSetup(_) => "bad-setup",
        }
    }
}

impl FromStr for Trust {
    type Err = IdentityError;

    /// Reads a number of proxies, or their ranges: `2`, `10.0.0.0/8,192.0.2.7`.
    fn from_str(text: &str) -> Result<Self, IdentityError> {
        if let Ok(count) = text.trim().parse() {
            return Ok(if count == 0 { Self::Nobody } else { Self::Count(count) });
        }
        text.split(',').map(range).collect::<Result<_, _>>().map(Self::Ranges)
    }
}

fn range(text: &str) -> Result<IpNet, IdentityError> {
    let text = text.trim();
    let range =
        text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
            IdentityError::BadSetup(format!(
                "{text:?} is neither a number of proxies nor a range of addresses like 10.0.0.0/8"
            ))
        })?;
    Ok(unmapped(range))
}

/// A range of IPv4-mapped addresses is one of IPv4, since that is what they are read as.
fn unmapped(range: IpNet) -> IpNet {
    let IpNet::V6(range6) = range else { return range };
    let mapped = range6.network().to_ipv4_mapped().zip(range6.prefix_len().checked_sub(96));
    mapped.and_then(|(address, prefix)| IpNet::new(address.into(), prefix).ok()).unwrap_or(range)
}

/// How clients are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    trust: Trust,
    header: Header,
    prefix4: u8,
    prefix6: u8,
}

impl Identity {
    /// Clients by so many bits of their address, as trusted proxies hand it on.
    ///
    /// # Errors
    /// An address has not so many bits.
    pub fn new(
        trust: Trust,
        header: Header,
        prefix4: u8,
        prefix6: u8,
    ) -> Result<Self, IdentityError> {
        if prefix4 > 32 || prefix6 > 128 {
            return Err(IdentityError::BadSetup(
                "prefix4 is from 0 to 32, and prefix6 from 0 to 128".to_owned(),
            ));
        }
        Ok(Self { trust, header, prefix4, prefix6 })
    }

    /// The header that is to be read.
    pub const fn header(&self) -> Header {
        self.header
    }

    /// The client: its address like `203.0.113.9`, or the part of it that makes a client like `2001:db8::/64`.
    ///
    /// `lines` are those of the [header](Self::header), in the order received.
    ///
    /// # Errors
    /// It cannot be said who it is.
    pub fn client<'a>(
        &self,
        peer: Option<IpAddr>,
        lines: impl DoubleEndedIterator<Item = &'a [u8]>,
    ) -> Result<String, IdentityError> {
        let address = self.address(peer, lines)?;
        let prefix = if address.is_ipv4() { self.prefix4 } else { self.prefix6 };
        match IpNet::new(address, prefix) {
            Ok(network) if prefix < network.max_prefix_len() => Ok(network.trunc().to_string()),
            _ => Ok(address.to_string()),
        }
    }

    fn address<'a>(
        &self,
        peer: Option<IpAddr>,
        lines: impl DoubleEndedIterator<Item = &'a [u8]>,
    ) -> Result<IpAddr, IdentityError> {
        let peer = peer.map(|peer| peer.to_canonical()).ok_or(IdentityError::NoPeer);
        let hops = lines.rev().flat_map(|line| hops(self.header, line));
        match &self.trust {
            Trust::Nobody => peer,
            Trust::Count(count) => self.by_count(hops, *count),
            Trust::Ranges(ranges) => self.by_range(peer?, hops, ranges),
        }
    }

    fn by_count<'a>(
        &self,
        hops: impl Iterator<Item = &'a [u8]>,
        trusted: u32,
    ) -> Result<IpAddr, IdentityError> {
        let mut found = 0;
        for hop in hops {
            found += 1;
            if found == trusted {
                return read_address(hop);
            }
        }
        let header = self.header.name();
        Err(match found {
            0 => IdentityError::NoHeader(header),
            _ => IdentityError::TooFewHops { trusted, found, header },
        })
    }

    /// The first address from the right outside the ranges. If all are inside, so is the client: it is the last one.
    fn by_range<'a>(
        &self,
        peer: IpAddr,
        hops: impl Iterator<Item = &'a [u8]>,
        ranges: &[IpNet],
    ) -> Result<IpAddr, IdentityError> {
        let trusted = |address: IpAddr| ranges.iter().any(|range| range.contains(&address));
        if !trusted(peer) {
            return Ok(peer);
        }
        let mut last = Err(IdentityError::NoHeader(self.header.name()));
        for hop in hops {
            let address = read_address(hop)?;
            last = Ok(address);
            if !trusted(address) {
                break;
            }
        }
        last
    }
}

/// The entries of a line from the right. Empty ones are none.
fn hops(header: Header, line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let quotes = header == Header::Forwarded;
    split_from_right(line, b',', quotes)
        .filter(|entry| !entry.is_empty())
        .map(move |entry| if quotes { parameter_for(entry) } else { entry })
}

/// The parts of a text between separators, from the right and trimmed.
fn split_from_right(text: &[u8], separator: u8, quotes: bool) -> impl Iterator<Item = &[u8]> {
    let mut left = Some(text);
    std::iter::from_fn(move || {
        let text = left.take()?;
        let last = match last_separator(text, separator, quotes)
            .and_then(|at| text.split_at_checked(at))
        {
            Some((before, [_, last @ ..])) => {
                left = Some(before);
                last
            }
            _ => text,
        };
        Some(last.trim_ascii())
    })
}

/// Quotes, if they count, are paired from the right too: one that a client leaves open must not swallow what a proxy
/// appended.
fn last_separator(text: &[u8], separator: u8, quotes: bool) -> Option<usize> {
    let mut quoted = false;
    for (at, &byte) in text.iter().enumerate().rev() {
        if byte == separator && !quoted {
            return Some(at);
        }
        if byte == b'"' && quotes {
            let escapes = text.iter().take(at).rev().take_while(|&&before| before == b'\\').count();
            quoted ^= escapes % 2 == 0;
        }
    }
    None
}

/// The value of the parameter `for`. Without one the hop has no address.
fn parameter_for(element: &[u8]) -> &[u8] {
    for pair in split_from_right(element, b';', true) {
        let mut parts = pair.splitn(2, |&byte| byte == b'=');
        let name = parts.next().unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"for") {
            let value = parts.next().unwrap_or_default().trim_ascii();
            let value = value.strip_prefix(b"\"").unwrap_or(value);
            return value.strip_suffix(b"\"").unwrap_or(value);
        }
    }
    b""
}

/// Reads an address with or without a port. An IPv4-mapped one is IPv4, and a zone is left out.
pub(crate) fn read_address(text: &[u8]) -> Result<IpAddr, IdentityError> {
    let bad =
        || IdentityError::BadAddress(String::from_utf8_lossy(text).chars().take(64).collect());
    let whole = std::str::from_utf8(text).map_err(|_| bad())?.trim();
    let (bare, port) = match whole.strip_prefix('[') {
        Some(inner) => match inner.split_once(']').ok_or_else(bad)? {
            (bare, "") => (bare, None),
            (bare, rest) => (bare, Some(rest.strip_prefix(':').ok_or_else(bad)?)),
        },
        None => match whole.split_once(':') {
            Some((bare, port)) if !port.contains(':') => (bare, Some(port)),
            // IPv6 without brackets has no port.
            _ => (whole, None),
        },
    };
    if !port.is_none_or(is_port) {
        return Err(bad());
    }
    let address = bare.split('%').next().unwrap_or_default();
    address.parse().map(|address: IpAddr| address.to_canonical()).map_err(|_| bad())
}

fn is_port(text: &str) -> bool {
    (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}
