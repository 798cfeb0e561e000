//! An HTTP/2 peer that the test controls frame by frame (RFC 9113 §4.1).
#![allow(dead_code)]

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

pub(crate) const NO_ERROR: u32 = 0;
pub(crate) const REFUSED_STREAM: u32 = 7;

const MAX_CONCURRENT_STREAMS: u16 = 3;

/// A frame that the client sent.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Bytes,
}

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
        assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
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
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await.ok()?;
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = head;
        let length = u32::from_be_bytes([0, l0, l1, l2]) as usize;
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).await.ok()?;
        match kind {
            SETTINGS if flags & ACK == 0 => self.send(SETTINGS, ACK, 0, &[]).await,
            SETTINGS => self.unsettled -= 1,
            PING if flags & ACK == 0 && self.is_well => self.send(PING, ACK, 0, &payload).await,
            _ => {}
        }
        Some(Frame {
            kind,
            flags,
            stream: u32::from_be_bytes([s0, s1, s2, s3]) & (u32::MAX >> 1),
            payload: payload.into(),
        })
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
        self.send(RST_STREAM, 0, stream, &reason.to_be_bytes())
            .await;
    }

    /// Sends a GOAWAY with the last stream `last`.
    pub(crate) async fn go_away(&mut self, last: u32) {
        let mut payload = BytesMut::new();
        payload.put_u32(last);
        payload.put_u32(NO_ERROR);
        self.send(GOAWAY, 0, 0, &payload).await;
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = BytesMut::new();
        let length = u32::try_from(payload.len()).unwrap();
        frame.put_slice(&length.to_be_bytes()[1..]);
        frame.put_u8(kind);
        frame.put_u8(flags);
        frame.put_u32(stream);
        frame.put_slice(payload);
        // Fails if the client has closed the connection.
        let _ = self.stream.write_all(&frame).await;
    }
}
