//! Rules of request and response heads (RFC 9110, 9112, 9113).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests, too

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version};
use mesh_ingress_core::{Error, ErrorKind, ErrorOrigin};
use mesh_ingress_headers::framing::{self, RequestRules, ResponseRules};
use mesh_ingress_headers::{InvalidRequest, InvalidResponse, RequestRule};

const V10: Version = Version::HTTP_10;
const V11: Version = Version::HTTP_11;
const V2: Version = Version::HTTP_2;

type Fields<'a> = &'a [(&'a str, &'a [u8])];

fn map(fields: Fields<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_bytes(value).unwrap(),
        );
    }
    headers
}

fn request(version: Version, fields: Fields<'_>) -> Result<(), RequestRule> {
    let uri = Uri::from_static("/");
    framing::check_request(&Method::POST, &uri, version, &map(fields)).map_err(|e| e.rule())
}

fn target(method: &Method, uri: &str) -> Result<(), RequestRule> {
    let uri: Uri = uri.parse().unwrap();
    framing::check_request(method, &uri, V11, &HeaderMap::new()).map_err(|e| e.rule())
}

fn response(status: u16, version: Version, fields: Fields<'_>) -> Result<(), InvalidResponse> {
    framing::check_response(StatusCode::from_u16(status).unwrap(), version, &map(fields))
}

#[test]
fn rfc9112_6_1_transfer_encoding_is_exactly_chunked() {
    for good in [&b"chunked"[..], b"Chunked", b"CHUNKED"] {
        assert_eq!(request(V11, &[("transfer-encoding", good)]), Ok(()));
    }
    // The length cannot be known: 400 (RFC 9112 §6.3).
    for bad in [
        &b""[..],
        b"gzip",
        b"identity",
        b"chunked, gzip",
        b"chunked, chunked",
        b"gzip, chunked, chunked",
        b"chunked, gzip, chunked",
        b"chunked;a=b",
        b"chunked,",
        b", chunked",
        b"xchunked",
        b"chunkedx",
        b"\"chunked\"",
        b"chu nked",
        b"chunked \x80",
        b"\tchunked",
        b"chunked ",
    ] {
        assert_eq!(
            request(V11, &[("transfer-encoding", bad)]),
            Err(RequestRule::TransferEncoding),
            "{bad:?}"
        );
    }
    // The length can be known, the coding is unknown: 501 (RFC 9112 §6.1).
    for unknown in [&b"gzip, chunked"[..], b"identity,chunked", b"x, y, Chunked"] {
        assert_eq!(
            request(V11, &[("transfer-encoding", unknown)]),
            Err(RequestRule::TransferCodingUnknown),
            "{unknown:?}"
        );
    }
}

#[test]
fn rfc9112_7_1_several_transfer_encoding_lines_are_refused() {
    for (lines, rule) in [
        ([&b"chunked"[..], b"chunked"], RequestRule::TransferEncoding),
        ([b"chunked", b""], RequestRule::TransferEncoding),
        ([b"chunked", b"identity"], RequestRule::TransferEncoding),
        ([b"gzip", b"chunked"], RequestRule::TransferCodingUnknown),
    ] {
        let [first, second] = lines;
        let fields = [("transfer-encoding", first), ("transfer-encoding", second)];
        assert_eq!(request(V11, &fields), Err(rule), "{lines:?}");
    }
}

#[test]
fn rfc9112_6_1_transfer_encoding_and_content_length_are_refused_in_any_order() {
    for coding in [&b"chunked"[..], b"gzip, chunked", b"x"] {
        for fields in [
            [("transfer-encoding", coding), ("content-length", b"5")],
            [("content-length", b"5"), ("transfer-encoding", coding)],
        ] {
            assert_eq!(
                request(V11, &fields),
                Err(RequestRule::TransferEncodingAndContentLength)
            );
        }
    }
}

#[test]
fn rfc9112_6_1_http10_has_no_transfer_encoding() {
    let chunked: Fields<'_> = &[("transfer-encoding", b"chunked")];
    assert_eq!(
        request(V10, chunked),
        Err(RequestRule::TransferEncodingInHttp10)
    );
    assert_eq!(request(V10, &[("content-length", b"5")]), Ok(()));
}

#[test]
fn rfc9110_8_6_content_length_is_one_plain_number() {
    for version in [V10, V11, V2] {
        for good in [&b"0"[..], b"5", b"18446744073709551615"] {
            assert_eq!(request(version, &[("content-length", good)]), Ok(()));
        }
        for bad in [
            &b""[..],
            b"+5",
            b"-5",
            b"0x5",
            b"05",
            b"5,5",
            b"5, 5",
            b"5 5",
            b"5.0",
            b"5e1",
            b"5a",
            b"18446744073709551616",
            b"\xb2",
        ] {
            assert_eq!(
                request(version, &[("content-length", bad)]),
                Err(RequestRule::ContentLength),
                "{bad:?}"
            );
        }
        for second in [&b"5"[..], b"6", b"+5"] {
            let fields = [("content-length", &b"5"[..]), ("content-length", second)];
            assert_eq!(
                request(version, &fields),
                Err(RequestRule::ContentLengthRepeated)
            );
        }
    }
    assert_eq!(
        framing::content_length(&map(&[("content-length", b"12")])),
        Ok(Some(12))
    );
    assert_eq!(framing::content_length(&HeaderMap::new()), Ok(None));
    let twice = map(&[("content-length", b"1"), ("content-length", b"1")]);
    assert!(framing::content_length(&twice).is_err());
}

#[test]
fn rfc9112_3_2_several_hosts_are_refused() {
    for version in [V10, V11, V2] {
        let twice: Fields<'_> = &[("host", b"a.example"), ("host", b"a.example")];
        assert_eq!(request(version, twice), Err(RequestRule::HostRepeated));
    }
}

#[test]
fn rfc9112_3_2_forms_of_the_request_target() {
    for good in [
        "/",
        "/a/b?c=d&e",
        "//double",
        "/%2F..%00",
        "/?",
        "/a;b=c",
        "/\u{fc}",
        "http://example.com/",
        "http://example.com",
        "https://example.com:8443/x?y",
    ] {
        assert_eq!(target(&Method::GET, good), Ok(()), "{good}");
    }
    for (bad, rule) in [
        ("admin", RequestRule::Target),
        ("example.com:80", RequestRule::Target),
        ("ftp://example.com/", RequestRule::Target),
        ("ws://example.com/", RequestRule::Target),
        ("file://example.com/etc", RequestRule::Target),
        ("http://u:p@example.com/", RequestRule::UserInfo),
        ("http://u@example.com/", RequestRule::UserInfo),
        ("*", RequestRule::TargetAsterisk),
    ] {
        assert_eq!(target(&Method::GET, bad), Err(rule), "{bad}");
    }
    assert_eq!(target(&Method::OPTIONS, "*"), Ok(()));
    assert_eq!(target(&Method::HEAD, "*"), Err(RequestRule::TargetAsterisk));
}

#[test]
fn rfc9110_9_3_6_connect_and_trace_are_not_allowed() {
    assert_eq!(
        target(&Method::CONNECT, "example.com:443"),
        Err(RequestRule::MethodConnect)
    );
    assert_eq!(target(&Method::TRACE, "/"), Err(RequestRule::MethodTrace));
    let connect = InvalidRequest::from(RequestRule::MethodConnect);
    assert_eq!(connect.status(), StatusCode::METHOD_NOT_ALLOWED);
    // Bytes after a CONNECT may already belong to the tunnel.
    assert!(connect.closes_connection());
    assert!(!InvalidRequest::from(RequestRule::MethodTrace).closes_connection());
}

#[test]
fn rfc8441_4_extended_connect_passes_where_it_was_offered() {
    let rules = RequestRules::builder()
        .extended_connect(true)
        .build()
        .unwrap();
    let uri = Uri::from_static("https://example.com/chat");
    let check = |uri: &Uri, version| {
        let result = rules.check(&Method::CONNECT, uri, version, &HeaderMap::new());
        result.map_err(|error| error.rule())
    };
    assert_eq!(check(&uri, V2), Ok(()));
    assert_eq!(check(&uri, V11), Err(RequestRule::MethodConnect));
    let plain = Uri::from_static("example.com:443");
    assert_eq!(check(&plain, V2), Err(RequestRule::Target));
}

#[test]
fn rfc9113_8_2_2_http2_has_no_connection_specific_fields() {
    for name in [
        "connection",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
        "upgrade",
    ] {
        let fields = [(name, &b"x"[..])];
        assert_eq!(
            request(V2, &fields),
            Err(RequestRule::ConnectionSpecific),
            "{name}"
        );
        assert_eq!(
            response(200, V2, &fields),
            Err(InvalidResponse::ConnectionSpecific),
            "{name}"
        );
    }
    assert_eq!(request(V2, &[("te", b"trailers")]), Ok(()));
    for te in [&b"gzip"[..], b"trailers, gzip", b"", b"trailers;q=1"] {
        assert_eq!(
            request(V2, &[("te", te)]),
            Err(RequestRule::TeInHttp2),
            "{te:?}"
        );
    }
    let twice: Fields<'_> = &[("te", b"trailers"), ("te", b"gzip")];
    assert_eq!(request(V2, twice), Err(RequestRule::TeInHttp2));
    assert_eq!(
        request(V11, &[("te", b"gzip"), ("connection", b"te")]),
        Ok(())
    );
}

#[test]
fn rfc9110_15_6_6_versions() {
    for version in [V10, V11, V2, Version::HTTP_3] {
        assert_eq!(request(version, &[]), Ok(()));
    }
    assert_eq!(request(Version::HTTP_09, &[]), Err(RequestRule::Version));
}

#[test]
fn rfc6585_5_limits_on_the_header_section() {
    let many: HeaderMap = (0..101)
        .map(|n| {
            let name = HeaderName::try_from(format!("x-{n}")).unwrap();
            (name, HeaderValue::from_static("v"))
        })
        .collect();
    let uri = Uri::from_static("/");
    let check = |headers: &HeaderMap| {
        let result = framing::check_request(&Method::GET, &uri, V11, headers);
        result.map_err(|error| (error.rule(), error.status().as_u16()))
    };
    assert_eq!(check(&many), Err((RequestRule::TooManyFields, 431)));
    let repeated: HeaderMap = (0..101)
        .map(|_| (HeaderName::from_static("x"), HeaderValue::from_static("v")))
        .collect();
    assert_eq!(check(&repeated), Err((RequestRule::TooManyFields, 431)));
    let exact = vec![b'v'; 64 * 1024 - 4 - 1];
    assert_eq!(check(&map(&[("x", &exact)])), Ok(()));
    let over = vec![b'v'; 64 * 1024 - 4];
    assert_eq!(
        check(&map(&[("x", &over)])),
        Err((RequestRule::SectionTooLarge, 431))
    );
    assert_eq!(
        response(200, V11, &[("x", &over)]),
        Err(InvalidResponse::SectionTooLarge)
    );

    let small = RequestRules::builder()
        .max_fields(1)
        .max_section(20)
        .build()
        .unwrap();
    let check = |fields: Fields<'_>| {
        let result = small.check(&Method::GET, &uri, V11, &map(fields));
        result.map_err(|error| error.rule())
    };
    assert_eq!(check(&[("a", b"1")]), Ok(()));
    assert_eq!(
        check(&[("a", b"1"), ("a", b"2")]),
        Err(RequestRule::TooManyFields)
    );
    assert_eq!(
        check(&[("a", b"0123456789abcdef")]),
        Err(RequestRule::SectionTooLarge)
    );
}

#[test]
fn rfc9110_15_5_15_limit_on_the_target() {
    let check = |length: usize| {
        let path = format!("/{}", "a".repeat(length - 1));
        target(&Method::GET, &path)
    };
    assert_eq!(check(16 * 1024), Ok(()));
    assert_eq!(check(16 * 1024 + 1), Err(RequestRule::TargetTooLong));
    assert_eq!(
        RequestRule::TargetTooLong.status(),
        StatusCode::URI_TOO_LONG
    );
}

#[test]
fn limit_of_zero_is_refused() {
    let errors = [
        RequestRules::builder().max_fields(0).build().unwrap_err(),
        RequestRules::builder().max_section(0).build().unwrap_err(),
        RequestRules::builder().max_target(0).build().unwrap_err(),
        ResponseRules::builder().max_fields(0).build().unwrap_err(),
        ResponseRules::builder().max_section(0).build().unwrap_err(),
    ];
    assert_eq!(
        errors[0].to_string(),
        "invalid max_fields: 0 lets no request pass"
    );
    assert_eq!(errors[2].setting(), "max_target");
    assert_eq!(
        RequestRules::default(),
        RequestRules::builder().build().unwrap()
    );
    assert_eq!(
        ResponseRules::default(),
        ResponseRules::builder().build().unwrap()
    );
}

#[test]
fn rfc9112_6_3_responses_have_one_framing() {
    let chunked: (&str, &[u8]) = ("transfer-encoding", b"chunked");
    assert_eq!(response(200, V11, &[]), Ok(()));
    assert_eq!(response(200, V11, &[chunked]), Ok(()));
    assert_eq!(response(304, V11, &[chunked]), Ok(()));
    assert_eq!(response(200, V11, &[("content-length", b"5")]), Ok(()));
    assert_eq!(
        response(200, V11, &[chunked, ("content-length", b"5")]),
        Err(InvalidResponse::TransferEncodingAndContentLength)
    );
    for coding in [
        &b"gzip"[..],
        b"gzip, chunked",
        b"chunked, chunked",
        b"identity",
        b"",
    ] {
        let result = response(200, V11, &[("transfer-encoding", coding)]);
        assert_eq!(result, Err(InvalidResponse::TransferEncoding), "{coding:?}");
    }
    assert_eq!(
        response(200, V11, &[chunked, chunked]),
        Err(InvalidResponse::TransferEncoding)
    );
    for (status, version) in [(200, V10), (204, V11), (101, V11), (103, V11)] {
        let result = response(status, version, &[chunked]);
        assert_eq!(
            result,
            Err(InvalidResponse::TransferEncodingNotAllowed),
            "{status}"
        );
    }
}

#[test]
fn rfc9110_8_6_responses_have_one_content_length() {
    for bad in [
        &b"+5"[..],
        b"5,5",
        b"",
        b"05",
        b"x",
        b"99999999999999999999",
    ] {
        let result = response(200, V11, &[("content-length", bad)]);
        assert_eq!(result, Err(InvalidResponse::ContentLength), "{bad:?}");
    }
    for second in [&b"5"[..], b"6"] {
        let fields = [("content-length", &b"5"[..]), ("content-length", second)];
        assert_eq!(
            response(200, V11, &fields),
            Err(InvalidResponse::ContentLengthRepeated)
        );
    }
    for (status, length, expected) in [
        (204, &b"0"[..], Ok(())),
        (101, b"0", Ok(())),
        (304, b"1234", Ok(())),
        (204, b"5", Err(InvalidResponse::ContentNotAllowed)),
        (101, b"5", Err(InvalidResponse::ContentNotAllowed)),
        (103, b"5", Err(InvalidResponse::ContentNotAllowed)),
    ] {
        let result = response(status, V11, &[("content-length", length)]);
        assert_eq!(result, expected, "{status}");
    }
}

#[test]
fn invalid_request_converts_into_a_core_error() {
    for &rule in RequestRule::ALL {
        let refused = InvalidRequest::from(rule);
        assert!(refused.status().is_client_error() || refused.status().is_server_error());
        let error = Error::from(refused);
        assert_eq!(error.kind(), ErrorKind::HttpRequestError);
        assert_eq!(error.origin(), ErrorOrigin::Client);
        let source = std::error::Error::source(&error).unwrap();
        assert_eq!(source.downcast_ref::<InvalidRequest>(), Some(&refused));
        assert!(source.to_string().contains(rule.section()), "{source}");
    }
    for (refused, kind) in [
        (
            InvalidResponse::TransferEncoding,
            ErrorKind::HttpResponseTransferCoding,
        ),
        (InvalidResponse::ContentLength, ErrorKind::HttpProtocolError),
        (
            InvalidResponse::TooManyFields,
            ErrorKind::HttpResponseHeaderSectionSize,
        ),
    ] {
        let error = Error::from(refused);
        assert_eq!(error.kind(), kind);
        assert_eq!(error.origin(), ErrorOrigin::Upstream);
    }
}
