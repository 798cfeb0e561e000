//! What stands in for TLS where this crate is built without it: a refusal.

use std::convert::Infallible;

use mesh_ingress_core::{Error, Tls};
use tokio::net::TcpStream;

use crate::pool::Pool;
use crate::stream::Stream;
use crate::tls::failure::Failure;

/// A handshake that is never made.
#[derive(Debug)]
pub(crate) struct Handshake(Infallible);

impl Handshake {
    pub(crate) fn new(pool: &Pool, _: &Tls) -> Result<Self, Error> {
        let addr = pool.addr;
        Err(Failure::NotBuilt { addr }.into_error())
    }

    pub(crate) async fn run(self, _: TcpStream) -> Result<Stream, Error> {
        match self.0 {}
    }
}
