//! Compares the table with a naive reference: match every route, then sort.
#![allow(clippy::panic, clippy::unwrap_used)]

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::LazyLock;

use http::{HeaderMap, HeaderValue, Method, Uri};
use mesh_ingress_route::{PathMatch, Route, RouteQuery, RouteTable, ValueMatch, WildcardScope};
use proptest::prelude::*;
use proptest::sample::select;

/// The target of queries whose path the tests set themselves.
static ROOT: LazyLock<Uri> = LazyLock::new(Uri::default);

/// Lower sorts first and wins; `None` does not match.
type Rank = (
    Reverse<u8>,
    Reverse<usize>,
    u8,
    u8,
    Reverse<usize>,
    u8,
    bool,
    Reverse<usize>,
    Reverse<usize>,
);

fn rank(route: &Route, request: &RouteQuery<'_>) -> Option<Rank> {
    let (host, length, scope) = host_rank(route, request.host)?;
    let (kind, path, plain) = path_rank(route.get_path(), request.path)?;
    if route
        .get_method()
        .is_some_and(|method| method != request.method)
    {
        return None;
    }
    for condition in route.get_headers() {
        let ValueMatch::Exact(wanted) = &condition.value else {
            panic!("the strategy has only exact values");
        };
        let lines = request.headers.get_all(&*condition.name);
        lines.iter().find(|value| *value == &**wanted)?;
    }
    for condition in route.get_query() {
        let ValueMatch::Exact(wanted) = &condition.value else {
            panic!("the strategy has only exact values");
        };
        let first = request.query?.split('&').find_map(|param| {
            let (name, value) = param.split_once('=').unwrap_or((param, ""));
            (name == &*condition.name).then_some(value)
        })?;
        (first == &**wanted).then_some(())?;
    }
    Some((
        Reverse(host),
        Reverse(length),
        scope,
        kind,
        Reverse(path),
        plain,
        route.get_method().is_none(),
        Reverse(route.get_headers().len()),
        Reverse(route.get_query().len()),
    ))
}

fn host_rank(route: &Route, host: &str) -> Option<(u8, usize, u8)> {
    let host = host.split(':').next()?.to_lowercase();
    let rule = route.get_host().to_lowercase();
    if rule == "*" {
        return Some((0, 0, 0));
    }
    let Some(suffix) = rule.strip_prefix('*') else {
        return (rule == host).then_some((2, 0, 0));
    };
    let labels = host.strip_suffix(suffix)?;
    if labels.is_empty() {
        return None;
    }
    match route.get_wildcard() {
        WildcardScope::OneLabel if labels.contains('.') => None,
        WildcardScope::OneLabel => Some((1, suffix.len(), 0)),
        _ => Some((1, suffix.len(), 1)),
    }
}

fn path_rank(rule: &PathMatch, path: &str) -> Option<(u8, usize, u8)> {
    match rule {
        PathMatch::Exact(text) => (**text == *path).then_some((0, 0, 0)),
        PathMatch::Prefix(text) => {
            let elements = |text: &str| -> Vec<String> {
                text.trim_end_matches('/')
                    .split('/')
                    .map(str::to_owned)
                    .collect()
            };
            // Only a trailing slash is ignored; empty elements count.
            let (rule, path): (Vec<_>, Vec<_>) = (elements(text), path.split('/').collect());
            let same = rule.len() <= path.len() && rule.iter().zip(&path).all(|(a, b)| a == b);
            same.then_some((1, text.trim_end_matches('/').len(), 0))
        }
        PathMatch::StringPrefix(text) => path.starts_with(&**text).then_some((1, text.len(), 1)),
        other => panic!("the strategy has no {other}"),
    }
}

fn naive(routes: &[Route], request: &RouteQuery<'_>) -> Option<usize> {
    let ranked = routes.iter().enumerate();
    let ranked = ranked.filter_map(|(index, route)| Some((rank(route, request)?, index)));
    ranked.min().map(|(_, index)| index)
}

fn path_text() -> impl Strategy<Value = String> {
    let element = select(vec!["a", "ab", "b", "A", "%2f", "a%2Fb", "x;v=1"]);
    (prop::collection::vec(element, 0..4), any::<bool>()).prop_map(|(elements, slash)| {
        let text: String = elements
            .iter()
            .map(|element| format!("/{element}"))
            .collect();
        match slash || text.is_empty() {
            true => text + "/",
            false => text,
        }
    })
}

fn route() -> impl Strategy<Value = Route> {
    let host = select(vec![
        "*",
        "a.example",
        "A.b.example",
        "*.example",
        "*.b.example",
        "*.a.b.example",
    ]);
    let scope = select(vec![WildcardScope::OneLabel, WildcardScope::ManyLabels]);
    let path = (path_text(), 0..3).prop_map(|(text, kind)| match kind {
        0 => PathMatch::Exact(text.into()),
        1 => PathMatch::Prefix(text.into()),
        _ => PathMatch::StringPrefix(text.into()),
    });
    let method = prop::option::of(select(vec![Method::GET, Method::POST]));
    let headers = prop::sample::subsequence(vec![("x-a", "1"), ("X-B", "1"), ("x-a", "2")], 0..=2);
    let query = prop::sample::subsequence(vec![("a", "1"), ("b", ""), ("a", "2")], 0..=2);
    (host, scope, path, method, headers, query).prop_map(
        |(host, scope, path, method, headers, query)| {
            let mut route = Route::host(host).wildcard(scope).path(path);
            if let Some(method) = method {
                route = route.method(method);
            }
            for (name, value) in headers {
                route = route.header(name, value);
            }
            for (name, value) in query {
                route = route.query(name, value);
            }
            route.to("web.default:80".parse().unwrap())
        },
    )
}

fn distinct(routes: Vec<Route>) -> Vec<Route> {
    let mut seen = HashSet::new();
    let keep = |route: &Route| seen.insert(route.match_key().unwrap());
    routes.into_iter().filter(keep).collect()
}

#[derive(Debug)]
struct Request {
    host: &'static str,
    path: String,
    query: Option<&'static str>,
    method: Method,
    headers: HeaderMap,
}

impl Request {
    fn query(&self) -> RouteQuery<'_> {
        let mut query = RouteQuery::new(self.host, &self.method, &ROOT, &self.headers);
        query.path = &self.path;
        query.query = self.query;
        query
    }
}

fn request() -> impl Strategy<Value = Request> {
    let host = select(vec![
        "a.example",
        "A.Example:8080",
        "b.example",
        "a.b.example",
        "c.b.example",
        "x.a.b.example",
        "example",
        "other",
        "y.x.other.example",
    ]);
    let query = select(vec![
        None,
        Some(""),
        Some("a=1"),
        Some("b&a=2&a=1"),
        Some("b=&a=1"),
    ]);
    let method = select(vec![Method::GET, Method::POST, Method::PUT]);
    let headers = prop::sample::subsequence(vec![("x-a", "1"), ("x-b", "1"), ("x-a", "2")], 0..=3);
    (host, path_text(), query, method, headers).prop_map(|(host, path, query, method, lines)| {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, HeaderValue::from_static(value));
        }
        Request {
            host,
            path,
            query,
            method,
            headers,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn lookup_agrees_with_a_scan_of_all_routes(
        routes in prop::collection::vec(route(), 0..60).prop_map(distinct),
        requests in prop::collection::vec(request(), 1..40),
    ) {
        let table = RouteTable::new(routes.iter().cloned().zip(0..)).unwrap();
        for request in &requests {
            let request = request.query();
            let wanted = naive(&routes, &request);
            prop_assert_eq!(table.find(&request).copied(), wanted, "{:?}", request);
        }
    }

    #[test]
    fn no_request_makes_the_lookup_panic(host in ".*", path in ".*", query in prop::option::of(".*")) {
        let table = RouteTable::new([
            (Route::any_host().path_prefix("/a").to("a.x:80".parse().unwrap()), ()),
            (Route::host("*.example").wildcard(WildcardScope::ManyLabels).to("b.x:80".parse().unwrap()), ()),
        ]).unwrap();
        let headers = HeaderMap::new();
        let mut request = RouteQuery::new(&host, &Method::GET, &ROOT, &headers);
        request.path = &path;
        request.query = query.as_deref();
        let _ = table.lookup(&request);
    }

    #[test]
    fn no_text_makes_parsing_panic(text in "[a-z*./=:@,~^$-]{0,40}") {
        if let Ok(route) = text.parse::<Route>() {
            prop_assert!(RouteTable::new([(route, ())]).is_ok());
        }
    }

    #[test]
    fn displayed_routes_parse_again(
        host in "(\\*|(\\*\\.)?[a-zA-Z0-9]{1,8}(\\.[a-z0-9]{1,8}){0,3})",
        path in "((=?/|/)[a-zA-Z0-9=%._;/-]{0,12}\\*?)?",
        weights in prop::collection::vec(0_u32.., 1..4),
    ) {
        let services: Vec<_> = weights.iter().map(|w| format!("a.b:80@{w}")).collect();
        let text = format!("{host}{path}={}", services.join(","));
        // Dot segments are refused; an exact path may end with a star.
        prop_assume!(!mesh_ingress_route::path::has_dot_segments(&path));
        // `/.*` is the string prefix `/.`, which has a dot segment.
        let prefix = path.strip_suffix('*').unwrap_or(&path);
        prop_assume!(!mesh_ingress_route::path::has_dot_segments(prefix));
        let route: Route = text.parse().map_err(|error| TestCaseError::fail(format!("{error}")))?;
        let shown: Route = route.to_string().parse().unwrap();
        prop_assert_eq!(&shown, &route);
    }
}

/// A thousand hosts with ten routes each, every route requested by a path of its own.
#[test]
fn large_table_finds_every_route() {
    let paths = [
        "/",
        "/a",
        "/a/b",
        "/a/b/c",
        "/ab",
        "/b",
        "/b/a",
        "/static",
        "/static/img",
        "/z",
    ];
    let mut routes = Vec::new();
    for host in 0..1000 {
        for (i, path) in paths.iter().enumerate() {
            let route = match host % 10 {
                9 => Route::host(format!("*.w{host}.example")),
                _ => Route::host(format!("h{host}.example")),
            };
            let route = match i % 3 {
                2 => route.path_exact(*path),
                _ => route.path_prefix(*path),
            };
            routes.push(route.to("web.default:80".parse().unwrap()));
        }
    }
    let table = RouteTable::new(routes.iter().cloned().zip(0..)).unwrap();
    assert_eq!(table.len(), 10_000);
    let headers = HeaderMap::new();
    for host in (0..1000).step_by(7) {
        let host_name = match host % 10 {
            9 => format!("any.w{host}.example:443"),
            _ => format!("H{host}.example"),
        };
        for path in paths {
            for path in [
                path.to_owned(),
                format!("{path}/"),
                format!("{path}/x"),
                format!("{path}x"),
            ] {
                let mut request = RouteQuery::new(&host_name, &Method::GET, &ROOT, &headers);
                request.path = &path;
                // Routes of other hosts cannot match, so these ten are enough.
                let own = &routes[host * 10..host * 10 + 10];
                let wanted = naive(own, &request).map(|index| host * 10 + index);
                assert_eq!(table.find(&request), wanted.as_ref(), "{host_name}{path}");
            }
        }
    }
}
