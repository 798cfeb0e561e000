//! Path and query are forwarded byte for byte (RFC 9110 §7.7).

use crate::heads::refused;
use crate::world::{World, get, head, ok};

async fn kept(target: &str) {
    let world = World::start([ok()]).await;
    let head = world.forwarded(get(target)).await;
    let line = head.lines().next().unwrap();
    assert_eq!(line, format!("GET {target} HTTP/1.1"));
}

macro_rules! kept {
    ($($(#[$attr:meta])* $name:ident: $target:expr;)*) => {
        $($(#[$attr])* #[tokio::test] async fn $name() { kept(&$target).await; })*
    };
}

kept! {
    rfc9110_7_7_an_encoded_slash_is_kept: "/a%2Fb%2fc";
    rfc9110_7_7_encoded_letters_are_kept: "/%61%4A/%7e";
    rfc9110_7_7_two_slashes_are_kept: "/a//b///c/";
    rfc9110_7_7_two_slashes_at_the_beginning_are_kept: "//a/b";
    rfc9110_7_7_parameters_are_kept: "/a;b=c/d;e";
    rfc9110_7_7_a_trailing_slash_is_kept: "/a/";
    rfc9110_7_7_an_empty_query_is_kept: "/a?";
    cve_2022_2880_odd_queries_are_kept: "/?a=b;c&d=%zz&&e==f&g?h=/i/../j";
    rfc9110_7_7_plus_and_encoded_space_are_kept: "/a+b%20c?d+e%20f";
    rfc9110_7_7_names_with_dots_are_kept: "/..a/b.../.c/d..e";
    rfc9110_7_7_bytes_uris_do_not_have_are_kept: "/a|b{c}\"d\"^[e]?`|{}^[]";
    rfc9110_7_7_an_encoded_nul_is_kept: "/a%00b";
    rfc9110_7_7_bytes_above_0x7f_are_kept: "/\u{e4}?\u{f6}=\u{fc}";
    rfc9112_3_a_target_of_8_000_bytes_is_kept: format!("/{}", "a".repeat(7_999));
}

macro_rules! refused {
    ($($(#[$attr:meta])* $name:ident: $target:expr;)*) => {
        $($(#[$attr])* #[tokio::test] async fn $name() { refused_without_close(400, $target).await; })*
    };
}

/// The connection may stay open, since the end of the request is certain.
async fn refused_without_close(status: u16, target: &str) {
    let world = World::start([ok()]).await;
    let reply = world.ask(get(target)).await;
    assert_eq!(reply.status, status, "{}", reply.head);
    world.nothing_has_reached_the_origin().await;
}

refused! {
    rfc3986_5_2_4_dot_segments_are_refused: "/a/../b";
    rfc3986_5_2_4_encoded_dot_segments_are_refused: "/a/%2e%2E/b";
    rfc3986_5_2_4_dot_segments_at_the_end_are_refused: "/a/..";
    /// Bytes that no URI has and the parser does not accept: refused, not repaired.
    rfc3986_2_a_grave_accent_in_a_path_is_refused: "/a`b";
    rfc3986_2_a_less_than_sign_in_a_path_is_refused: "/a<b";
    rfc3986_2_a_greater_than_sign_in_a_path_is_refused: "/a>b";
    rfc3986_2_a_quotation_mark_in_a_query_is_refused: "/?a\"b";
    rfc3986_2_a_less_than_sign_in_a_query_is_refused: "/?a<b";
}

/// The four forms of a target that are one path.
#[tokio::test]
async fn rfc9112_3_2_2_an_absolute_target_goes_on_as_a_path() {
    let world = World::start([ok()]).await;
    let request = head("GET http://shop.example.com/a%2Fb//c?d=e HTTP/1.1", "");
    let head = world.forwarded(request).await;
    assert!(head.starts_with("GET /a%2Fb//c?d=e HTTP/1.1\r\n"), "{head}");
}

#[tokio::test]
async fn rfc9112_3_2_1_an_empty_path_with_a_query_gets_its_slash() {
    let world = World::start([ok()]).await;
    let head = world
        .forwarded(head("GET http://shop.example.com?d=e HTTP/1.1", ""))
        .await;
    assert!(head.starts_with("GET /?d=e HTTP/1.1\r\n"), "{head}");
}

#[tokio::test]
async fn rfc9112_3_2_4_an_asterisk_goes_on_with_options() {
    let world = World::start([ok()]).await;
    let head = world.forwarded(head("OPTIONS * HTTP/1.1", "")).await;
    assert!(head.starts_with("OPTIONS * HTTP/1.1\r\n"), "{head}");
}

#[tokio::test]
async fn rfc9112_3_2_a_backslash_is_no_slash() {
    let world = World::start([ok()]).await;
    let reply = world.ask(get("/a\\..\\b")).await;
    if reply.status == 200 {
        assert!(
            world
                .all_received()
                .starts_with("GET /a\\..\\b HTTP/1.1\r\n")
        );
    } else {
        assert_eq!(reply.status, 400);
        assert_eq!(world.origin.connections(), 0);
    }
}

/// A head within the limit of the section, and beyond the one of the target.
#[tokio::test]
async fn rfc9110_15_5_15_a_query_counts_too() {
    refused(414, get(&format!("/?{}", "a".repeat(17_000)))).await;
}
