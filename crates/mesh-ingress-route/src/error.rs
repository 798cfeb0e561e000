//! What can be wrong with a set of routes, and why a request has none.

use mesh_ingress_core::ParseError;

/// A set of routes that cannot become a table.
///
/// Each message names the route: by its name, and by its place in the order they were given,
/// counted from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// A part of a route is not what it should be.
    #[error("route {position} ({name}): {source}")]
    Invalid {
        /// The place of the route, counted from 1.
        position: usize,
        /// The name of the route.
        name: String,
        /// What is wrong, with the text in question.
        source: ParseError,
    },
    /// A route has nowhere to send requests to.
    #[error(
        "route {position} ({name}) has no backend, give it one with .to(\"name.namespace:port\".parse()?)"
    )]
    NoBackend {
        /// The place of the route, counted from 1.
        position: usize,
        /// The name of the route.
        name: String,
    },
    /// All backends of a route have weight 0.
    #[error(
        "route {position} ({name}): all {backends} backends have weight 0, at least one must get requests"
    )]
    NoWeight {
        /// The place of the route, counted from 1.
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

/// Why no route was found for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Miss {
    /// The path has dot segments, which the table [refuses](crate::DotSegments::Reject): to be
    /// answered with 400.
    #[error("the path has dot segments (\"..\" or \".\", maybe percent-encoded)")]
    DotSegments,
    /// No route is for the host: to be answered with 421 where the client's connection was meant
    /// for another host, and else with 404.
    #[error("no route is for this host")]
    UnknownHost,
    /// There are routes for the host, but none for this path, method, headers and query: to be
    /// answered with 404.
    #[error("no route of this host matches the path, method, headers and query")]
    NoRoute,
}
