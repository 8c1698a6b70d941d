//! What clients are told, beyond the cases that the clients of redis-rl share.

use serde_json::{Value, json};

use crate::answer::fields::{Form, Named, QuotaUnit, fields};
use crate::answer::problem::unreadable;
use crate::decision::Verdict;

fn denied(name: &str, limit: u64, wait_ms: Option<u64>) -> Named<'_> {
    let verdict = Verdict { allowed: false, limit, remaining: 0, wait_ms, reset_ms: 9_000 };
    Named { name, verdict, quota: None, window_us: None, unit: QuotaUnit::Requests }
}

#[test]
fn of_limits_that_refuse_for_equally_long_the_first_is_shown() {
    for wait in [Some(2_000), None] {
        let found = fields(&[denied("a", 1, wait), denied("b", 2, wait)], Form::Draft6, 0).unwrap();
        assert_eq!(found[1], ("RateLimit-Limit", "1".to_owned()), "{wait:?}");
    }
}

#[test]
fn without_limits_there_are_no_fields() {
    for (_, form) in Form::NAMES {
        assert_eq!(fields(&[], form, 0), Ok(Vec::new()), "{form:?}");
    }
}

#[test]
fn numbers_may_be_as_large_as_they_can() {
    for (_, form) in Form::NAMES {
        let found = fields(&[denied("a", u64::MAX, Some(u64::MAX - 1))], form, u64::MAX).unwrap();
        let retry = found.last().unwrap();
        assert_eq!(*retry, ("Retry-After", u64::MAX.div_ceil(1000).to_string()), "{form:?}");
    }
}

#[test]
fn a_request_that_cannot_be_read_gets_the_reason() {
    for (status, title) in [(400, "Bad Request"), (413, "Content Too Large")] {
        let body: Value = serde_json::from_str(&unreadable(status, "a \"reason\"\n").body).unwrap();
        let expected = json!({"type": "about:blank", "title": title, "status": status, "detail": "a \"reason\"\n"});
        assert_eq!(body, expected);
    }
}
