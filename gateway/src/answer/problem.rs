//! The body of a refusal: `application/problem+json` of RFC 9457, with the types that draft-ietf-httpapi-ratelimit-headers-11
//! registers.

use serde::Serialize;

use super::fields::Named;

const TYPES: &str = "https://iana.org/assignments/http-problem-types#";

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A limit refuses.
    QuotaExceeded,
    /// A limit refuses a client that is blocked for its retries.
    AbnormalUsage,
    /// Nobody can say, and so nothing passes.
    ReducedCapacity,
}

impl Kind {
    /// Each with the name of its type.
    pub const NAMES: [(&'static str, Self); 3] = [
        ("quota-exceeded", Self::QuotaExceeded),
        ("abnormal-usage-detected", Self::AbnormalUsage),
        ("temporary-reduced-capacity", Self::ReducedCapacity),
    ];

    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|&&(_, kind)| kind == self).map_or("", |&(name, _)| name)
    }

    fn status(self) -> u16 {
        match self {
            Self::QuotaExceeded | Self::AbnormalUsage => 429,
            Self::ReducedCapacity => 503,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::QuotaExceeded => {
                "Request cannot be satisfied as assigned quota has been exceeded"
            }
            Self::AbnormalUsage => {
                "Request not satisfied due to detection of abnormal request pattern"
            }
            Self::ReducedCapacity => {
                "Request cannot be satisfied due to temporary server capacity constraints"
            }
        }
    }
}

/// What is answered instead of what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The status.
    pub status: u16,
    /// The type of the body.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
}

impl Problem {
    fn new(content: &Content<'_>) -> Self {
        // Text and a number: nothing that JSON could not hold.
        let body = serde_json::to_string(content).unwrap_or_default();
        Self { status: content.status, content_type: "application/problem+json", body }
    }
}

#[derive(Serialize)]
struct Content<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(rename = "violated-policies", skip_serializing_if = "Option::is_none")]
    violated_policies: Option<Vec<&'a str>>,
}

/// The refusal of a request by some of these limits.
pub fn problem(kind: Kind, limits: &[Named<'_>]) -> Problem {
    let violated = limits.iter().filter(|limit| !limit.verdict.allowed).map(|limit| limit.name);
    Problem::new(&Content {
        r#type: format!("{TYPES}{}", kind.name()),
        title: kind.title(),
        status: kind.status(),
        detail: None,
        violated_policies: (kind != Kind::ReducedCapacity).then(|| violated.collect()),
    })
}

/// The answer to a request that cannot be read, with what is wrong with it.
pub fn unreadable(status: u16, detail: &str) -> Problem {
    let detail = Some(detail);
    let title = if status == 413 { "Content Too Large" } else { "Bad Request" };
    Problem::new(&Content {
        r#type: "about:blank".to_owned(),
        title,
        status,
        detail,
        violated_policies: None,
    })
}
