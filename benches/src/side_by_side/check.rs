//! Checks equal work: the fields that each proxy sends to the origin, and whether it keeps connections.
//!
//! The origin reports the fields it got. A proxy that leaves one out is not measured.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::handshake;
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::BoxError;

use super::engine;
use super::lab::{self, ANSWER_TIMEOUT, MANY, PUBLIC_HOST, Services, VHOST};
use super::subject::{Kind, Setup};

/// As large as those of S4.
const BODY: usize = 16 * 1024;

/// The fields that the origin got with one request.
#[derive(Debug)]
struct Told(String);

impl Told {
    fn get(&self, name: &str) -> &str {
        let value = self.0.lines().find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        });
        value.unwrap_or_default()
    }

    /// Checks that a field has this value, or any if none is given.
    fn expect(&self, name: &str, value: Option<&str>) -> Result<(), BoxError> {
        let told = self.get(name);
        match value {
            Some(value) if told == value => Ok(()),
            None if !told.is_empty() => Ok(()),
            Some(value) => Err(format!("tells the origin {name}: {told:?}, not {value:?}").into()),
            None => Err(format!("does not tell the origin {name}").into()),
        }
    }

    fn expect_all(
        &self,
        kind: Kind,
        setup: &Setup<'_>,
        public: &str,
        vhost: &str,
    ) -> Result<(), BoxError> {
        if kind.is_floor() {
            return Ok(());
        }
        let port = setup.listen.port().to_string();
        self.expect("host", Some(vhost))?;
        self.expect("x-forwarded-host", Some(public))?;
        self.expect("x-forwarded-proto", Some("http"))?;
        self.expect("x-forwarded-port", Some(&port))?;
        self.expect("x-real-ip", Some("127.0.0.1"))?;
        // Envoy says an address of the machine for a loopback one.
        self.expect("x-forwarded-for", None)?;
        self.expect("x-request-id", None)
    }
}

/// Checks that a proxy does the work of its scenario.
pub(crate) fn check(kind: Kind, setup: &Setup<'_>) -> Result<(), BoxError> {
    if setup.websocket {
        drop(engine::upgrade(setup.listen)?);
        let told = Told(setup.lab.last_upgrade());
        return told.expect_all(kind, setup, PUBLIC_HOST, VHOST);
    }
    if setup.services == Services::One {
        return exchanges(kind, setup, PUBLIC_HOST, VHOST);
    }
    for number in [0, 7, MANY - 1] {
        let (public, vhost) = (lab::host_of(number), setup.services.vhost_of(number));
        exchanges(kind, setup, &public, &vhost)?;
    }
    Ok(())
}

/// Two GETs on one connection, and a POST.
fn exchanges(kind: Kind, setup: &Setup<'_>, public: &str, vhost: &str) -> Result<(), BoxError> {
    let protocol = if setup.h2_origin {
        "HTTP/2.0"
    } else {
        "HTTP/1.1"
    };
    let told = match setup.h2 {
        true => over_h2(setup.listen, public)?,
        false => over_h1(setup.listen, public)?,
    };
    let [first, second, post] = &told;
    for told in &told {
        told.expect("protocol", Some(protocol))?;
        told.expect_all(kind, setup, public, vhost)?;
    }
    post.expect("content-length", Some(&BODY.to_string()))?;
    if second.get("requests").parse::<u64>()? < 2 {
        return Err("does not use a connection to the origin again".into());
    }
    if !kind.is_floor() && first.get("x-request-id") == second.get("x-request-id") {
        return Err("gives two requests one id".into());
    }
    Ok(())
}

fn over_h1(to: SocketAddr, public: &str) -> Result<[Told; 3], BoxError> {
    let mut stream = TcpStream::connect_timeout(&to, ANSWER_TIMEOUT)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let get = format!("GET /told HTTP/1.1\r\nHost: {public}\r\n\r\n");
    let mut post =
        format!("POST /told HTTP/1.1\r\nHost: {public}\r\nContent-Length: {BODY}\r\n\r\n");
    post.push_str(&"x".repeat(BODY));
    let mut exchange = |request: &str| -> Result<Told, BoxError> {
        stream.write_all(request.as_bytes())?;
        let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
        while engine::length(&answer)?.is_none_or(|length| answer.len() < length) {
            match stream.read(&mut buffer)? {
                0 => return Err("closes a connection that is to be kept".into()),
                read => answer.extend(buffer.iter().take(read)),
            }
        }
        let text = String::from_utf8_lossy(&answer);
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body);
        Ok(Told(body.unwrap_or_default().to_owned()))
    };
    Ok([exchange(&get)?, exchange(&get)?, exchange(&post)?])
}

fn over_h2(to: SocketAddr, public: &str) -> Result<[Told; 3], BoxError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let exchanges = async {
        let io = TokioIo::new(tokio::net::TcpStream::connect(to).await?);
        let (mut sender, connection) = handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        let mut exchange = async |method: Method, body: Vec<u8>| -> Result<Told, BoxError> {
            let request = Request::builder().method(method);
            let request = request.uri(format!("http://{public}/told"));
            let request = request.body(Full::new(Bytes::from(body)))?;
            sender.ready().await?;
            let response = sender.send_request(request).await?;
            if !response.status().is_success() {
                return Err(format!("answers with {}", response.status()).into());
            }
            let body = response.into_body().collect().await?.to_bytes();
            Ok(Told(String::from_utf8_lossy(&body).into_owned()))
        };
        Ok([
            exchange(Method::GET, Vec::new()).await?,
            exchange(Method::GET, Vec::new()).await?,
            exchange(Method::POST, vec![b'x'; BODY]).await?,
        ])
    };
    runtime.block_on(async { tokio::time::timeout(ANSWER_TIMEOUT, exchanges).await })?
}

#[cfg(test)]
mod tests {
    use super::Told;

    #[test]
    fn missing_field_is_an_error() {
        let told = Told("Host: a\r\nX-Real-IP: \r\n".to_owned());
        assert!(told.expect("host", Some("a")).is_ok());
        assert!(told.expect("host", Some("b")).is_err());
        assert!(told.expect("x-real-ip", None).is_err());
        assert!(told.expect("x-request-id", None).is_err());
    }
}
