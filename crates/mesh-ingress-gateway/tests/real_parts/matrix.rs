//! Real origins and real clients, in every pairing of protocols.
//!
//! | on the wire to the gateway | what it is |
//! |---|---|
//! | origins | Debian's nginx and haproxy, Envoy, an nginx newer than Debian's |
//! | clients | curl, h2load and wrk; for WebSockets a client library, curl has none |
//!
//! Behind each origin is an application of our own, which records what came through, see [`app`].
//! The tests are named by origin, protocol of the client and protocol of the origin.

mod app;
mod cell;
mod client;
mod load;
mod origin;
mod websocket;

use self::cell::Cell;
use self::origin::Software::{Envoy, Haproxy, Nginx, NginxMainline};
use self::origin::Speaks::{H2c, Http1};
use crate::lab::Lab;

/// A module of tests for each origin: three for each pairing of protocols.
macro_rules! matrix {
    ($($module:ident: $software:expr;)*) => {$(
        mod $module {
            use super::*;

            matrix! { @pairing $software;
                http1_to_http1: Http1, Http1;
                http1_to_h2c: Http1, H2c;
                h2c_to_http1: H2c, Http1;
                h2c_to_h2c: H2c, H2c;
            }
        }
    )*};
    (@pairing $software:expr; $(
        $pairing:ident: $client:expr, $upstream:expr;
    )*) => {$(
        mod $pairing {
            use super::*;

            #[test]
            fn single_exchanges() {
                Lab::run(|lab| {
                    Cell::start(lab, $software, $client, $upstream).holds_for_single_exchanges();
                });
            }

            #[test]
            fn load() {
                Lab::run(|lab| {
                    Cell::start(lab, $software, $client, $upstream).holds_under_load();
                });
            }

            #[test]
            fn websocket() {
                Lab::run(|lab| {
                    Cell::start(lab, $software, $client, $upstream).holds_for_websockets();
                });
            }
        }
    )*};
}

matrix! {
    nginx: Nginx;
    nginx_mainline: NginxMainline;
    haproxy: Haproxy;
    envoy: Envoy;
}
