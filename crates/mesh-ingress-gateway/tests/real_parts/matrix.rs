//! Real origins and real clients, in every pairing of protocols, through the built binary.
//!
//! | on the wire to the gateway | what it is |
//! |---|---|
//! | origins | Debian's nginx and haproxy, Envoy, an nginx newer than Debian's |
//! | clients | curl, h2load and wrk; for WebSockets a client library, as Debian's curl has none |
//!
//! The tests are named by origin, protocol of the client and protocol of the origin. Each of the
//! sixteen has three:
//!
//! | test | client | what goes through |
//! |---|---|---|
//! | `single_exchanges` | curl | GET, POST of 16 KiB, the same in chunks, HEAD, a response of 1 MiB, a gRPC call whose status is a trailer; all over one connection to the origin |
//! | `load` | h2load | GET, POST of 16 KiB, responses of 1 MiB, many at a time |
//! | | wrk | GET, POST of 16 KiB with its length and in chunks by turns; wrk speaks HTTP/1.1 only |
//! | `websocket` | tungstenite | text, an empty message, 100 000 bytes, the closing handshake, each echoed |
//!
//! Requests and responses are compared byte by byte, and the origin tells how each
//! request came to it: in which version, for which host, over which connection, with which length.
//!
//! # What the origins need for it
//!
//! None of the three programs can do all of this by itself: they neither send a body back nor echo
//! WebSocket messages, and trailers they only pass on. So each hands requests to an application
//! behind it, see [`app`]. The gateway's peer is always the program: its parser, its HTTP/2, its
//! framing of what the application answers. In one place it takes more than that:
//!
//! - nginx before 1.27.2, and so Debian's, drops the trailers of an HTTP/1.1 application. There the
//!   trailers are those nginx adds by itself (`add_trailer`). The newer nginx passes on the
//!   application's, and over HTTP/2 both do (`grpc_pass`).
//!
//! # What cannot be
//!
//! - WebSockets to an nginx over HTTP/2: no nginx has extended CONNECT (RFC 8441). The newer nginx
//!   takes HTTP/1.1 on the same port, and that is how the gateway, set to h2c, opens them there. The
//!   h2c port of Debian's nginx speaks nothing but HTTP/2, so no WebSocket can be opened to it by
//!   anyone: the two cells of `nginx` with an h2c origin show that it is refused with a 5xx and that
//!   the gateway serves on.
//! - The second request on a connection after a HEAD, from an HTTP/2 client: Debian's curl cannot
//!   use an h2c connection twice. h2load uses its own many times.
//! - `Transfer-Encoding` as Envoy saw it: Envoy removes the field before anything can read it. That
//!   a complete body came without a length shows the same.

mod app;
mod cell;
mod check;
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
