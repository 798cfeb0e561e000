//! An HTTP/2 peer that the test controls frame by frame (RFC 9113 §4.1).
#![allow(dead_code)]

use bytes::{BufMut, BytesMut};
use mesh_ingress_testkit::http2::{
    ACK, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, NO_ERROR, PING, PREFACE, SETTINGS, frame,
    goaway, rst_stream,
};
pub(crate) use mesh_ingress_testkit::http2::{DATA, REFUSED_STREAM, RST_STREAM};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const MAX_CONCURRENT_STREAMS: u16 = 3;

/// One connection of the client.
#[derive(Debug)]
pub(crate) struct Peer {
    stream: TcpStream,
    /// Whether it answers pings.
    pub(crate) is_well: bool,
    /// SETTINGS that the client has not acknowledged yet.
    unsettled: usize,
}

impl Peer {
    /// Accepts a connection and allows `streams` concurrent streams.
    pub(crate) async fn accept(listener: &TcpListener, streams: u32) -> Self {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.unwrap();
        assert_eq!(preface, PREFACE);
        let mut peer = Self {
            stream,
            is_well: true,
            unsettled: 0,
        };
        peer.allow_streams(streams).await;
        peer
    }

    /// Allows `streams` concurrent streams from now on.
    pub(crate) async fn allow_streams(&mut self, streams: u32) {
        let mut setting = BytesMut::new();
        setting.put_u16(MAX_CONCURRENT_STREAMS);
        setting.put_u32(streams);
        self.send(SETTINGS, 0, 0, &setting).await;
        self.unsettled += 1;
    }

    /// Waits until the client has acknowledged the settings; it must not send any other frame
    /// meanwhile.
    pub(crate) async fn settled(&mut self) {
        while self.unsettled > 0 {
            let frame = self.read().await.unwrap();
            assert!(!matches!(frame.kind, DATA | HEADERS), "{frame:?}");
        }
    }

    /// The next frame other than SETTINGS, PING and WINDOW_UPDATE; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            let frame = self.read().await?;
            if matches!(frame.kind, DATA | HEADERS | RST_STREAM | GOAWAY) {
                return Some(frame);
            }
        }
    }

    async fn read(&mut self) -> Option<Frame> {
        let frame = Frame::read(&mut self.stream).await.ok()?;
        match frame.kind {
            SETTINGS if frame.flags & ACK == 0 => self.send(SETTINGS, ACK, 0, &[]).await,
            SETTINGS => self.unsettled -= 1,
            PING if frame.flags & ACK == 0 && self.is_well => {
                self.send(PING, ACK, 0, &frame.payload).await;
            }
            _ => {}
        }
        Some(frame)
    }

    /// The stream of the next request, after its head.
    pub(crate) async fn request(&mut self) -> u32 {
        loop {
            let frame = self.next().await.expect("a request");
            if frame.kind == HEADERS {
                return frame.stream;
            }
        }
    }

    /// Reads until the connection ends.
    pub(crate) async fn ended(&mut self) {
        while self.next().await.is_some() {}
    }

    /// Answers 200 without a body.
    pub(crate) async fn answer(&mut self, stream: u32) {
        self.send(HEADERS, END_HEADERS | END_STREAM, stream, &[0x88])
            .await;
    }

    /// Answers 200, with a body to follow.
    pub(crate) async fn begin_answer(&mut self, stream: u32) {
        self.send(HEADERS, END_HEADERS, stream, &[0x88]).await;
    }

    /// Sends the end of a body.
    pub(crate) async fn end_answer(&mut self, stream: u32, data: &[u8]) {
        self.send(DATA, END_STREAM, stream, data).await;
    }

    /// Sends an empty 103.
    pub(crate) async fn hint(&mut self, stream: u32) {
        // The name is `:status`, and the value a literal without indexing (RFC 7541 §6.2.2).
        self.send(HEADERS, END_HEADERS, stream, b"\x08\x03103")
            .await;
    }

    pub(crate) async fn reset(&mut self, stream: u32, reason: u32) {
        self.write(&rst_stream(stream, reason)).await;
    }

    /// Sends a GOAWAY with the last stream `last`.
    pub(crate) async fn go_away(&mut self, last: u32) {
        self.write(&goaway(last, NO_ERROR)).await;
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.write(&frame(kind, flags, stream, payload)).await;
    }

    async fn write(&mut self, bytes: &[u8]) {
        // Fails if the client has closed the connection.
        let _ = self.stream.write_all(bytes).await;
    }
}
