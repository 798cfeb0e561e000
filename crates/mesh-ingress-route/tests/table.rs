//! The rules of precedence and matching, one by one, and the errors of a table.
#![allow(clippy::unwrap_used)]

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use mesh_ingress_core::{Protocol, Scheme, Vhost, VhostPolicy};
use mesh_ingress_route::{
    Action, Backend, DotSegments, HeaderMatch, Miss, PathMatch, QueryMatch, Redirect, Route,
    RouteError, RouteQuery, RouteTable, ValueMatch, WildcardScope,
};

fn to(route: Route) -> Route {
    route.to("web.default:80".parse().unwrap())
}

fn table(routes: Vec<(Route, &'static str)>) -> RouteTable<&'static str> {
    RouteTable::new(routes.into_iter().map(|(route, name)| (to(route), name))).unwrap()
}

/// Looks up a request such as `GET shop.example.com/path?query`, with headers.
fn ask(
    table: &RouteTable<&'static str>,
    request: &str,
    headers: &[(&'static str, &'static str)],
) -> Result<&'static str, Miss> {
    let (method, rest) = request.split_once(' ').unwrap_or(("GET", request));
    let (host, target) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let target = if target.is_empty() { "/" } else { target };
    let uri: Uri = target.parse().unwrap();
    let method: Method = method.parse().unwrap();
    let map: HeaderMap = headers
        .iter()
        .map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        })
        .collect();
    let query = RouteQuery::new(host, &method, &uri, &map);
    table.lookup(&query).map(|(_, value)| *value)
}

#[test]
fn hosts_exact_then_longest_wildcard_then_any() {
    let table = table(vec![
        (Route::any_host(), "any"),
        (Route::host("*.example.com"), "one"),
        (
            Route::host("*.example.com").wildcard(WildcardScope::ManyLabels),
            "many",
        ),
        (Route::host("*.shop.example.com"), "deeper"),
        (Route::host("a.shop.example.com"), "exact"),
        (Route::host("[2001:db8::1]"), "ipv6"),
    ]);
    for (request, wanted) in [
        ("a.shop.example.com/", "exact"),
        ("A.SHOP.Example.Com:8443/", "exact"),
        ("a.shop.example.com./", "exact"),
        ("a.shop.example.com.:80/", "exact"),
        ("b.shop.example.com/", "deeper"),
        ("shop.example.com/", "one"),
        ("b.c.shop.example.com/", "many"),
        ("example.com/", "any"),
        (".example.com/", "any"),
        ("xexample.com/", "any"),
        ("a.shop.example.com.evil/", "any"),
        ("[2001:DB8::1]:80/", "ipv6"),
        ("/", "any"),
    ] {
        assert_eq!(ask(&table, request, &[]), Ok(wanted), "{request}");
    }
}

#[test]
fn ingress_wildcards_cover_one_label_only() {
    let table = table(vec![(Route::host("*.foo.com"), "wild")]);
    assert_eq!(ask(&table, "bar.foo.com/", &[]), Ok("wild"));
    for host in ["baz.bar.foo.com", "foo.com", ".foo.com", "foo.com.bar"] {
        assert_eq!(ask(&table, host, &[]), Err(Miss::UnknownHost), "{host}");
    }
}

#[test]
fn host_without_a_matching_path_does_not_end_the_search() {
    let table = table(vec![
        (Route::any_host(), "default backend"),
        (Route::host("*.example.com").path_prefix("/wild"), "wild"),
        (Route::host("a.example.com").path_prefix("/a"), "a"),
    ]);
    assert_eq!(ask(&table, "a.example.com/a", &[]), Ok("a"));
    assert_eq!(ask(&table, "a.example.com/wild", &[]), Ok("wild"));
    assert_eq!(ask(&table, "a.example.com/x", &[]), Ok("default backend"));
}

#[test]
fn paths_exact_then_longest_prefix() {
    let table = table(vec![
        (Route::host("h").path_prefix("/"), "root"),
        (Route::host("h").path_prefix("/foo"), "foo"),
        (Route::host("h").path_exact("/foo"), "foo exactly"),
        (Route::host("h").path_prefix("/foo/bar/"), "foo bar"),
        (
            Route::host("h").path(PathMatch::StringPrefix("/fo".into())),
            "fo plain",
        ),
        (
            Route::host("h").path(PathMatch::StringPrefix("/foo/ba".into())),
            "foo ba plain",
        ),
    ]);
    for (request, wanted) in [
        ("h/foo", "foo exactly"),
        ("h/foo/", "foo"),
        ("h/foo//", "foo"),
        ("h/foo/b", "foo"),
        ("h/foobar", "fo plain"),
        ("h/fo", "fo plain"),
        ("h/FOO", "root"),
        ("h/f", "root"),
        ("h/foo/ba", "foo ba plain"),
        ("h/foo/bar", "foo bar"),
        ("h/foo/bar/", "foo bar"),
        ("h/foo/bar/x", "foo bar"),
        ("h/foo/barx", "foo ba plain"),
        ("h//foo", "root"),
    ] {
        assert_eq!(ask(&table, request, &[]), Ok(wanted), "{request}");
    }
}

#[test]
fn paths_are_compared_as_sent() {
    let table = table(vec![
        (Route::host("h").path_prefix("/a"), "a"),
        (Route::host("h").path_exact("/a%2Fb"), "encoded slash"),
        (Route::host("h").path_prefix("/caf%C3%A9"), "café"),
    ]);
    assert_eq!(ask(&table, "h/a%2Fb", &[]), Ok("encoded slash"));
    assert_eq!(ask(&table, "h/a%2fb", &[]), Err(Miss::NoRoute));
    assert_eq!(ask(&table, "h/%61", &[]), Err(Miss::NoRoute));
    assert_eq!(ask(&table, "h/caf%C3%A9/x", &[]), Ok("café"));
    assert_eq!(ask(&table, "h/caf%c3%a9/x", &[]), Err(Miss::NoRoute));
}

#[test]
fn dot_segments_match_nothing_by_default() {
    let table = table(vec![(Route::any_host(), "any")]);
    for path in ["h/a/../b", "h/.", "h/a/%2e%2E/b", "h/..%2fadmin", "h/..;/x"] {
        assert_eq!(ask(&table, path, &[]), Err(Miss::DotSegments), "{path}");
    }
    let table = table.dot_segments(DotSegments::AsSent);
    assert_eq!(ask(&table, "h/a/../b", &[]), Ok("any"));
}

#[test]
fn conditions_rank_method_headers_query_then_order() {
    let table = table(vec![
        (Route::host("h").path_prefix("/p"), "plain"),
        (
            Route::host("h")
                .path_prefix("/p")
                .query("a", "1")
                .query("b", "2"),
            "two params",
        ),
        (
            Route::host("h").path_prefix("/p").query("a", "1"),
            "one param",
        ),
        (
            Route::host("h").path_prefix("/p").header("x", "1"),
            "one header",
        ),
        (
            Route::host("h").path_prefix("/p").header("y", "1"),
            "other header",
        ),
        (
            Route::host("h")
                .path_prefix("/p")
                .header("X", "1")
                .header("y", "1"),
            "two headers",
        ),
        (
            Route::host("h").path_prefix("/p").method(Method::PUT),
            "method",
        ),
        (
            Route::host("h").path_prefix("/p/q").method(Method::PUT),
            "longer path",
        ),
    ]);
    let both = &[("x", "1"), ("y", "1")];
    assert_eq!(ask(&table, "h/p", &[]), Ok("plain"));
    assert_eq!(ask(&table, "h/p?a=1", &[]), Ok("one param"));
    assert_eq!(ask(&table, "h/p?b=2&a=1", &[]), Ok("two params"));
    assert_eq!(
        ask(&table, "h/p?b=2&a=1", &[("y", "1")]),
        Ok("other header")
    );
    assert_eq!(ask(&table, "h/p?b=2&a=1", both), Ok("two headers"));
    assert_eq!(ask(&table, "PUT h/p?b=2&a=1", both), Ok("method"));
    assert_eq!(ask(&table, "PUT h/p/q", both), Ok("longer path"));
    // The longer path does not match, so the shorter one is tried.
    assert_eq!(ask(&table, "GET h/p/q", &[("x", "1")]), Ok("one header"));
}

#[test]
fn routes_of_equal_rank_match_in_the_given_order() {
    let first = Route::host("h").header("x", "1");
    let second = Route::host("h").header("y", "1");
    let both = &[("x", "1"), ("y", "1")];
    let one = table(vec![(first.clone(), "x"), (second.clone(), "y")]);
    assert_eq!(ask(&one, "h/", both), Ok("x"));
    let other = table(vec![(second, "y"), (first, "x")]);
    assert_eq!(ask(&other, "h/", both), Ok("y"));
}

#[test]
fn any_header_line_and_the_first_query_parameter_count() {
    let present = |name: &str| HeaderMatch::new(name, ValueMatch::Present);
    let table = table(vec![
        (Route::host("h").header("x", "b"), "header"),
        (Route::host("h").header_match(present("z")), "present"),
        (Route::host("h").query("q", "1"), "param"),
        (Route::host("h").query("empty", ""), "empty"),
        (
            Route::host("h").query_match(QueryMatch::new("p", ValueMatch::Present)),
            "p",
        ),
    ]);
    assert_eq!(ask(&table, "h/", &[("x", "a"), ("x", "b")]), Ok("header"));
    assert_eq!(ask(&table, "h/", &[("x", "B")]), Err(Miss::NoRoute));
    assert_eq!(ask(&table, "h/", &[("z", "")]), Ok("present"));
    assert_eq!(ask(&table, "h/?q=1&q=2", &[]), Ok("param"));
    assert_eq!(ask(&table, "h/?q=2&q=1", &[]), Err(Miss::NoRoute));
    assert_eq!(ask(&table, "h/?Q=1", &[]), Err(Miss::NoRoute));
    assert_eq!(ask(&table, "h/?empty", &[]), Ok("empty"));
    assert_eq!(ask(&table, "h/?empty=", &[]), Ok("empty"));
    assert_eq!(ask(&table, "h/?x=p&p=x=y", &[]), Ok("p"));
}

#[test]
fn targets_without_a_path_match_nothing() {
    let table = table(vec![(Route::any_host(), "any")]);
    let headers = HeaderMap::new();
    for path in ["", "*"] {
        let root = Uri::default();
        let mut query = RouteQuery::new("h", &Method::OPTIONS, &root, &headers);
        query.path = path;
        assert_eq!(table.find(&query), None, "{path:?}");
    }
}

#[test]
fn empty_table_finds_nothing() {
    let table = table(vec![]);
    assert!(table.is_empty());
    assert_eq!(ask(&table, "h/", &[]), Err(Miss::UnknownHost));
}

#[test]
fn errors_name_the_route_and_the_reason() {
    let good = to(Route::host("good.example"));
    let bad = |route: Route| {
        let error = RouteTable::new([(good.clone(), ()), (route, ())]).unwrap_err();
        error.to_string()
    };
    for (route, message) in [
        (
            to(Route::host("shop.example.com:80")),
            "route 2 (shop.example.com:80/): invalid host \"shop.example.com:80\": leave the port",
        ),
        (
            to(Route::host("h").path_prefix("api")),
            "route 2 (hapi): invalid path \"api\": it does not begin with '/'",
        ),
        (
            to(Route::host("h").header("x y", "1").name("named")),
            "route 2 (named): invalid header name \"x y\": it is not a token",
        ),
        (
            to(Route::host("h").header("x", "a\nb")),
            "invalid header value \"a\\nb\"",
        ),
        (
            to(Route::host("h").query("a=b", "1")),
            "invalid query parameter name \"a=b\": '=' at position 2",
        ),
        (
            to(Route::host("h").query("a", "1&2")),
            "invalid query parameter value \"1&2\": '&' at position 2",
        ),
        (
            Route::host("h"),
            "route 2 (h/) has no backend, give it one with .to(",
        ),
        (
            Route::host("h").weighted([
                Backend::new("a.x:80".parse().unwrap()).weight(0),
                Backend::new("b.x:80".parse().unwrap()).weight(0),
            ]),
            "route 2 (h/): all 2 backends have weight 0",
        ),
        (
            to(Route::host("GOOD.example.").path_prefix("/").name("again")),
            "route 2 (again) matches the same requests as route 1 (good.example/)",
        ),
        (
            Route::host("h").redirect(Redirect::new(StatusCode::OK)),
            "invalid redirect status \"200\"",
        ),
        (
            Route::host("h").redirect(Redirect::to_uri(StatusCode::FOUND, "https://x/\r\na: b")),
            "invalid redirect URI",
        ),
        (
            Route::host("h").redirect(Redirect::new(StatusCode::FOUND).host("*.x")),
            "invalid redirect host",
        ),
        (
            Route::host("h").respond(StatusCode::CONTINUE),
            "invalid response status \"100\"",
        ),
    ] {
        let error = bad(route);
        assert!(error.contains(message), "{error}\n  wanted: {message}");
    }
}

#[test]
fn same_conditions_in_another_order_are_duplicates() {
    let one = to(Route::host("h").header("x", "1").header("Y", "2"));
    let other = to(Route::host("h").header("y", "2").header("X", "1"));
    let error = RouteTable::new([(one.clone(), 1), (other, 2)]).unwrap_err();
    assert!(matches!(
        error,
        RouteError::Duplicate {
            first_position: 1,
            second_position: 2,
            ..
        }
    ));
    let different = to(Route::host("h").header("y", "2").header("X", "2"));
    assert!(RouteTable::new([(one, 1), (different, 2)]).is_ok());
}

#[test]
fn redirects_and_responses_need_no_backend() {
    let https = Redirect::new(StatusCode::PERMANENT_REDIRECT).scheme(Scheme::Https);
    let table = RouteTable::new([
        (Route::host("a").redirect(https.clone()), ()),
        (
            Route::host("b").respond(StatusCode::SERVICE_UNAVAILABLE),
            (),
        ),
    ])
    .unwrap();
    let actions: Vec<_> = table
        .iter()
        .map(|(route, ())| route.action().clone())
        .collect();
    assert_eq!(
        actions,
        [
            Action::Redirect(https),
            Action::Respond(StatusCode::SERVICE_UNAVAILABLE)
        ]
    );
    let shown = format!("{table:?}");
    assert_eq!(shown, r#"["a/ answers 308", "b/ answers 503"]"#);
}

#[test]
fn settings_of_a_backend_win_over_those_of_its_route() {
    let vhost: Vhost = "own.example".parse().unwrap();
    let own = Backend::new("own.x:80".parse().unwrap())
        .vhost(VhostPolicy::Override(vhost.clone()))
        .protocol(Protocol::Http1);
    let route = Route::any_host()
        .to("before.x:80".parse().unwrap())
        .to_backend(own)
        .vhost(VhostPolicy::Preserve)
        .protocol(Protocol::Http2)
        .to("after.x:80".parse().unwrap());
    let seen: Vec<_> = route
        .backends()
        .iter()
        .map(|backend| (backend.get_vhost().clone(), backend.get_protocol()))
        .collect();
    assert_eq!(
        seen,
        [
            (VhostPolicy::Preserve, Protocol::Http2),
            (VhostPolicy::Override(vhost), Protocol::Http1),
            (VhostPolicy::Preserve, Protocol::Http2),
        ]
    );
}

#[cfg(feature = "regex")]
mod regex {
    use super::*;

    #[test]
    fn regexes_match_last_and_in_the_given_order() {
        let table = table(vec![
            (Route::host("h").path_regex("/v[0-9]+/"), "versioned"),
            (
                Route::host("h").path_regex("/v1/x").method(Method::PUT),
                "later",
            ),
            (Route::host("h").path_regex("/v1/x"), "never"),
            (Route::host("h").path_prefix("/v1/y"), "prefix"),
            (Route::host("h").path_exact("/V2/exact"), "exact"),
        ]);
        assert_eq!(ask(&table, "h/v1/x", &[]), Ok("versioned"));
        assert_eq!(ask(&table, "h/V1/X", &[]), Ok("versioned"));
        assert_eq!(ask(&table, "h/v1/y/z", &[]), Ok("prefix"));
        assert_eq!(ask(&table, "h/V2/exact", &[]), Ok("exact"));
        assert_eq!(ask(&table, "h/x/v1/", &[]), Err(Miss::NoRoute));
        assert_eq!(ask(&table, "h/v/", &[]), Err(Miss::NoRoute));
    }

    #[test]
    fn header_values_by_regex() {
        let one_of = ValueMatch::Regex("^(eu|us)-".into());
        let table = table(vec![(
            Route::host("h").header_match(HeaderMatch::new("x-region", one_of)),
            "region",
        )]);
        assert_eq!(ask(&table, "h/", &[("x-region", "eu-1")]), Ok("region"));
        assert_eq!(
            ask(&table, "h/", &[("x-region", "EU-1")]),
            Err(Miss::NoRoute)
        );
        assert_eq!(
            ask(&table, "h/", &[("x-region", "xeu-1")]),
            Err(Miss::NoRoute)
        );
    }

    #[test]
    fn invalid_regex_is_named_in_the_error() {
        let error = RouteTable::new([(to(Route::host("h").path_regex("/(a")), ())]).unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("route 1 (h~/(a): invalid regular expression \"/(a\""),
            "{text}"
        );
        // An alternation must not escape the anchor.
        let table = table(vec![(Route::host("h").path_regex("/a|/b"), "ab")]);
        assert_eq!(ask(&table, "h/x/b", &[]), Err(Miss::NoRoute));
    }

    #[test]
    fn text_form_of_a_regex() {
        let route: Route = "h~/v[0-9]+/=web.default:80".parse().unwrap();
        assert_eq!(route.get_path(), &PathMatch::Regex("/v[0-9]+/".into()));
        assert_eq!(route.to_string(), "h~/v[0-9]+/=web.default:80");
        let error = "h~/(=web.default:80"
            .parse::<Route>()
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("invalid regular expression \"/(\""),
            "{error}"
        );
    }
}
