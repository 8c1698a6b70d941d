//! Who a request is counted for, beyond the cases that the clients share.

use crate::identity::{Header, Identity, IdentityError, Trust};

fn client(trust: &str, header: Header, lines: &[&[u8]]) -> Result<String, IdentityError> {
    let identity = Identity::new(trust.parse().unwrap(), header, 32, 64).unwrap();
    identity.client(Some("10.0.0.1".parse().unwrap()), lines.iter().copied())
}

#[test]
fn an_escaped_quote_ends_no_quoted_text() {
    for line in [
        r#"for=203.0.113.9;host="a\",b", for=10.0.0.2"#,
        r#"for=203.0.113.9;host="a\\\",b", for=10.0.0.2"#,
        r#"for=203.0.113.9;host="a,b\\", for=10.0.0.2"#,
    ] {
        let found = client("2", Header::Forwarded, &[line.as_bytes()]);
        assert_eq!(found.as_deref(), Ok("203.0.113.9"), "{line}");
    }
}

#[test]
fn bytes_that_are_no_text_are_no_address_and_are_not_read_left_of_the_client() {
    for header in [Header::XForwardedFor, Header::Forwarded] {
        let error = client("1", header, &[b"for=\xff\xfe"]).unwrap_err();
        assert_eq!(error.code(), "bad-address");
    }
    let line = b"\xff, \"\xfe, 203.0.113.9";
    assert_eq!(client("1", Header::XForwardedFor, &[line]).as_deref(), Ok("203.0.113.9"));
}

#[test]
fn an_entry_that_is_ipv4_mapped_is_ipv4() {
    let lines: [&[u8]; 1] = [b"203.0.113.9, ::ffff:10.0.0.2"];
    for trust in ["2", "10.0.0.0/8"] {
        assert_eq!(client(trust, Header::XForwardedFor, &lines).as_deref(), Ok("203.0.113.9"));
    }
    let lines: [&[u8]; 1] = [b"[::ffff:203.0.113.9]:4711"];
    assert_eq!(client("1", Header::XForwardedFor, &lines).as_deref(), Ok("203.0.113.9"));
}

#[test]
fn an_entry_is_quoted_in_an_error_up_to_a_length() {
    let error = client("1", Header::XForwardedFor, &[&[b'x'; 100_000]]).unwrap_err();
    assert_eq!(error.to_string(), format!("\"{}\" is no address", "x".repeat(64)));
}

#[test]
fn trust_is_a_number_or_ranges() {
    let ranges = |ranges: &[&str]| {
        Ok(Trust::Ranges(ranges.iter().map(|range| range.parse().unwrap()).collect()))
    };
    let bad = |text: &str| {
        let reason = format!(
            "{text:?} is neither a number of proxies nor a range of addresses like 10.0.0.0/8"
        );
        Err(IdentityError::BadSetup(reason))
    };
    for (text, expected) in [
        ("0", Ok(Trust::Nobody)),
        (" 2 ", Ok(Trust::Count(2))),
        ("10.0.0.0/8", ranges(&["10.0.0.0/8"])),
        (
            "10.0.0.0/8, 192.0.2.7,2001:db8::/48",
            ranges(&["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/48"]),
        ),
        ("::ffff:10.0.0.0/104", ranges(&["10.0.0.0/8"])),
        ("::/0", ranges(&["::/0"])),
        ("", bad("")),
        ("-1", bad("-1")),
        ("1.5", bad("1.5")),
        ("10.0.0.0/8,", bad("")),
        ("example.org", bad("example.org")),
        ("10.0.0.0/33", bad("10.0.0.0/33")),
    ] {
        assert_eq!(text.parse(), expected, "{text:?}");
    }
}
