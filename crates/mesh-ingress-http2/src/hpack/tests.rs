//! The examples of RFC 7541 Appendix C, and malformed sections.

use http::{HeaderName, HeaderValue, StatusCode};
use proptest::prelude::*;

use super::*;

fn from_hex(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.chars().filter(char::is_ascii_hexdigit).collect();
    let pairs = digits.chunks(2).map(|pair| pair.iter().collect::<String>());
    pairs
        .map(|pair| u8::from_str_radix(&pair, 16).unwrap_or_default())
        .collect()
}

fn decode(decoder: &mut Decoder, section: &[u8]) -> Result<Vec<String>, DecodeError> {
    let mut fields = Vec::new();
    decoder.decode(section, usize::MAX, |field| fields.push(describe(&field)))?;
    Ok(fields)
}

fn describe(field: &Field) -> String {
    match field {
        Field::Method(method) => format!(":method: {method}"),
        Field::Scheme(scheme) => format!(":scheme: {scheme}"),
        Field::Authority(authority) => format!(":authority: {authority}"),
        Field::Path(path) => format!(":path: {path}"),
        Field::InvalidPath => ":path: odd".to_owned(),
        Field::Protocol(protocol) => format!(":protocol: {protocol:?}"),
        Field::Regular(name, value) => {
            format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))
        }
        Field::Malformed(why) => (*why).to_owned(),
    }
}

const FIRST: [&str; 4] = [
    ":method: GET",
    ":scheme: http",
    ":path: /",
    ":authority: www.example.com",
];
const THIRD: [&str; 5] = [
    ":method: GET",
    ":scheme: https",
    ":path: /index.html",
    ":authority: www.example.com",
    "custom-key: custom-value",
];

fn three_requests(sections: [&str; 3]) {
    let mut decoder = Decoder::new(4096);
    let mut next = |section| decode(&mut decoder, &from_hex(section));
    assert_eq!(
        next(sections[0]).as_deref(),
        Ok(&FIRST.map(str::to_owned)[..])
    );
    let second = [&FIRST[..], &["cache-control: no-cache"]].concat();
    let second: Vec<_> = second.into_iter().map(str::to_owned).collect();
    assert_eq!(next(sections[1]), Ok(second));
    assert_eq!(
        next(sections[2]).as_deref(),
        Ok(&THIRD.map(str::to_owned)[..])
    );
}

#[test]
fn rfc7541_c_3_requests_without_huffman_codes() {
    three_requests([
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ]);
}

#[test]
fn rfc7541_c_4_requests_with_huffman_codes() {
    three_requests([
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ]);
}

/// With a table of 256 bytes, which evicts entries.
#[test]
fn rfc7541_c_5_old_entries_are_evicted() {
    let mut decoder = Decoder::new(256);
    let mut next = |section| decode(&mut decoder, &from_hex(section));
    let first = next(
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 \
         2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 \
         6c65 2e63 6f6d",
    );
    let rest = [
        "cache-control: private",
        "date: Mon, 21 Oct 2013 20:13:21 GMT",
        "location: https://www.example.com",
    ];
    // `:status` is malformed in a request, but still enters the table.
    assert_eq!(
        first.map(|fields| fields[1..].join("|")),
        Ok(rest.join("|"))
    );
    let second = next("4803 3330 37c1 c0bf");
    assert_eq!(
        second.map(|fields| fields[1..].join("|")),
        Ok(rest.join("|"))
    );
    let third = next(
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d \
         54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 \
         5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e \
         3d31",
    );
    let third_rest = [
        "cache-control: private",
        "date: Mon, 21 Oct 2013 20:13:22 GMT",
        "location: https://www.example.com",
        "content-encoding: gzip",
        "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
    ];
    assert_eq!(
        third.map(|fields| fields[1..].join("|")),
        Ok(third_rest.join("|"))
    );
}

/// All connections of a thread share one buffer.
#[test]
fn rfc7541_5_2_truncated_string_leaves_no_bytes_behind() {
    // `x: secret`, and then bytes that are no Huffman code.
    let broken = from_hex("00 01 78 8b 4148 b0ac 5b5b 5bff ffff ff");
    assert!(decode(&mut Decoder::new(0), &broken).is_err());
    let next = decode(&mut Decoder::new(0), &from_hex("00 01 78 03 616263"));
    assert_eq!(next, Ok(vec!["x: abc".to_owned()]));
}

#[test]
fn rfc7541_4_2_table_size_update_comes_first_and_within_the_limit() {
    let get = [0x82];
    let decode = |section: &[u8]| decode(&mut Decoder::new(4096), section);
    assert!(decode(&[&[0x20][..], &get].concat()).is_ok());
    assert!(
        decode(&[&[0x20, 0x3f, 0xe1, 0x1f][..], &get].concat()).is_ok(),
        "4096"
    );
    assert!(
        decode(&[&[0x3f, 0xe2, 0x1f][..], &get].concat()).is_err(),
        "4097"
    );
    assert!(decode(&[&get[..], &[0x20]].concat()).is_err());
}

#[test]
fn rfc7541_4_3_smaller_table_evicts_entries() {
    let mut decoder = Decoder::new(4096);
    let insert = from_hex("400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65");
    assert!(decode(&mut decoder, &insert).is_ok());
    assert!(decode(&mut decoder, &[0xbe]).is_ok());
    assert!(decode(&mut decoder, &[0x20, 0x3f, 0xe1, 0x1f, 0xbe]).is_err());
}

#[test]
fn rfc7541_4_4_entry_larger_than_the_table_empties_it() {
    let mut decoder = Decoder::new(64);
    assert!(decode(&mut decoder, &from_hex("40 01 61 01 62")).is_ok());
    assert!(decode(&mut decoder, &[0xbe]).is_ok());
    let large = [&[0x40, 1, b'a', 40][..], &[b'b'; 40]].concat();
    assert!(decode(&mut decoder, &large).is_ok());
    assert!(decode(&mut decoder, &[0xbe]).is_err());
}

#[test]
fn rfc9113_10_5_1_fields_beyond_the_limit_are_decoded_but_not_kept() {
    let mut decoder = Decoder::new(4096);
    let insert = from_hex("40 01 61 01 62");
    // 34 bytes each.
    for (limit, shown) in [(33, 0), (34, 1), (67, 1), (68, 2)] {
        let mut fields = 0;
        let section = [&insert[..], &[0xbe, 0xbe]].concat();
        let decoded = decoder.decode(&section, limit, |_| fields += 1);
        assert_eq!(decoded, Ok(Decoded::TooLarge));
        assert_eq!(fields, shown);
        assert_eq!(decoder.decode(&[0xbe], 34, |_| {}), Ok(Decoded::Complete));
    }
}

#[test]
fn rfc9113_8_2_malformed_fields_are_recognised() {
    let literal = |name: &[u8], value: &[u8]| {
        let length = |text: &[u8]| u8::try_from(text.len()).unwrap_or_default();
        [&[0, length(name)][..], name, &[length(value)], value].concat()
    };
    let malformed = |name: &str, value: &str| {
        let mut malformed = false;
        let section = literal(name.as_bytes(), value.as_bytes());
        let decoded = Decoder::new(0).decode(&section, usize::MAX, |field| {
            malformed = matches!(field, Field::Malformed(_));
        });
        assert_eq!(decoded, Ok(Decoded::Complete));
        malformed
    };
    for (name, value) in [
        ("X-Upper", "1"),
        ("", "1"),
        ("a b", "1"),
        ("a:b", "1"),
        (":evil", "1"),
        (":status", "200"),
        ("connection", "close"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("te", "trailers, gzip"),
        ("x", "a\r\nb"),
        ("x", "a\0"),
        ("x", " a"),
        ("x", "a\t"),
        (":path", ""),
        (":path", "evil"),
        (":path", "/a b"),
        (":path", "**"),
        (":scheme", "ftp"),
        (":method", "GET "),
        (":method", ""),
        (":authority", "a b"),
        (":authority", ""),
    ] {
        assert!(malformed(name, value), "{name}: {value}");
    }
    for (name, value) in [
        ("te", "trailers"),
        ("x", ""),
        ("x", "a \t b"),
        ("x", "\u{e9}"),
        (":path", "*"),
        (":path", "/a?b=\"<c>\""),
        (":protocol", "websocket"),
        (":authority", "[::1]:80"),
    ] {
        assert!(!malformed(name, value), "{name}: {value}");
    }
}

#[test]
fn rfc7541_4_2_smaller_table_of_the_peer_is_acknowledged() {
    let mut encoder = Encoder::default();
    let mut begun = |size| {
        let mut out = Vec::new();
        if let Some(size) = size {
            encoder.table_size(size);
        }
        encoder.begin(&mut out);
        out
    };
    assert_eq!(begun(None), []);
    assert_eq!(begun(Some(65_536)), []);
    assert_eq!(begun(Some(0)), [0x20]);
    assert_eq!(begun(None), []);
}

#[test]
fn rfc7541_6_1_statuses() {
    let written = |code| {
        let mut out = Vec::new();
        status(StatusCode::from_u16(code).unwrap_or_default(), &mut out);
        out
    };
    assert_eq!(written(200), [0x88]);
    assert_eq!(written(500), [0x8e]);
    assert_eq!(written(999), [0x08, 0x03, b'9', b'9', b'9']);
    assert_eq!(written(302), [0x08, 0x82, 0x64, 0x02]);
}

proptest! {
    /// No input makes the decoder panic or the table exceed its limit.
    #[test]
    fn any_bytes_are_decoded_or_refused(sections in proptest::collection::vec(
        proptest::collection::vec(any::<u8>(), 0..60), 0..10)) {
        let mut decoder = Decoder::new(100);
        for section in sections {
            if decoder.decode(&section, 1000, |_| {}).is_err() {
                break;
            }
        }
    }

    #[test]
    fn encoded_text_decodes(
        fields in proptest::collection::vec(("[a-z][a-z0-9-]{0,20}", "[!-~]{0,80}"), 0..10)) {
        let mut out = Vec::new();
        let mut expected = Vec::new();
        for (name, value) in fields {
            if matches!(name.as_str(), "te" | "connection" | "upgrade") {
                continue;
            }
            expected.push(format!("{name}: {value}"));
            let name = HeaderName::try_from(name);
            let value = HeaderValue::try_from(value);
            if let (Ok(name), Ok(mut value)) = (name, value) {
                value.set_sensitive(out.len() % 2 == 1);
                field(&name, &value, &mut out);
            }
        }
        prop_assert_eq!(decode(&mut Decoder::new(0), &out), Ok(expected));
    }
}

/// The value is marked as sensitive for later hops.
#[test]
fn rfc7541_6_2_3_never_indexed_value_is_sensitive() {
    for (how, marked) in [(0x00, false), (0x10, true), (0x40, false)] {
        let mut sensitive = Vec::new();
        let section = [&[how][..], b"\x01a\x01b"].concat();
        let decoded = Decoder::new(4096).decode(&section, usize::MAX, |field| {
            if let Field::Regular(_, value) = field {
                sensitive.push(value.is_sensitive());
            }
        });
        assert_eq!(decoded, Ok(Decoded::Complete));
        assert_eq!(sensitive, [marked], "{how:#x}");
    }
}

#[test]
fn clones_of_a_table_share_their_bytes() {
    let mut decoder = Decoder::new(4096);
    let mut places = Vec::new();
    for section in [&from_hex("40 01 61 05 68656c6c6f")[..], &[0xbe], &[0xbe]] {
        let decoded = decoder.decode(section, usize::MAX, |field| {
            if let Field::Regular(_, value) = field {
                places.push(value.as_bytes().as_ptr());
            }
        });
        assert_eq!(decoded, Ok(Decoded::Complete));
    }
    assert_eq!(places[0], places[1]);
    assert_eq!(places[1], places[2]);
}
