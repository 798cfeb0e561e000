//! Errors of a set of routes, and reasons why no route matches.

use mesh_ingress_core::ParseError;

/// Why a set of routes makes no table.
///
/// Each message has the route's name and its position in the given order, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// A part of a route is invalid.
    #[error("route {position} ({name}): {source}")]
    Invalid {
        /// The position of the route, counted from 1.
        position: usize,
        /// The name of the route.
        name: String,
        /// The reason, with the invalid text.
        source: ParseError,
    },
    /// A route has no backend.
    #[error(
        "route {position} ({name}) has no backend, give it one with .to(\"name.namespace:port\".parse()?)"
    )]
    NoBackend {
        /// The position of the route, counted from 1.
        position: usize,
        /// The name of the route.
        name: String,
    },
    /// All backends of a route have weight 0.
    #[error(
        "route {position} ({name}): all {backends} backends have weight 0, at least one must get requests"
    )]
    NoWeight {
        /// The position of the route, counted from 1.
        position: usize,
        /// The name of the route.
        name: String,
        /// How many backends it has.
        backends: usize,
    },
    /// Two routes match the same requests, so that one of them would never be used.
    #[error(
        "route {second_position} ({second}) matches the same requests as route {first_position} \
         ({first}), join them into one with weighted backends or take one out"
    )]
    Duplicate {
        /// The place of the route that came first, counted from 1.
        first_position: usize,
        /// The name of the route that came first.
        first: String,
        /// The place of the other.
        second_position: usize,
        /// The name of the other.
        second: String,
    },
}

/// Why no route matches a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Miss {
    /// The path has dot segments, which the table [refuses](crate::DotSegments::Reject). Answer 400.
    #[error("the path has dot segments (\"..\" or \".\", maybe percent-encoded)")]
    DotSegments,
    /// No route has the host. Answer 421 if the client's connection was made for another host, and
    /// otherwise 404.
    #[error("no route is for this host")]
    UnknownHost,
    /// The host has routes, but none for this path, method, headers and query. Answer 404.
    #[error("no route of this host matches the path, method, headers and query")]
    NoRoute,
}
