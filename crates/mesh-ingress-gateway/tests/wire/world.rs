//! A gateway with everything around it.

use mesh_ingress_testkit::{DnsServer, RawOrigin, Step};
use tokio::net::TcpStream;

use crate::gateway::Gateway;
pub(crate) use crate::reply::field_values;
use crate::reply::{Client, Reply, soon};

/// The public name of the site.
pub(crate) const HOST: &str = "shop.example.com";
/// The Service's name, which the origin gets as `Host`.
pub(crate) const VHOST: &str = "web.default.svc.cluster.local";
/// A request that must never reach an origin.
pub(crate) const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: shop.example.com\r\n\r\n";
pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A client's request line and fields, with the `Host` of the site.
pub(crate) fn head(line: &str, fields: &str) -> String {
    format!("{line}\r\nHost: {HOST}\r\n{fields}\r\n")
}

pub(crate) fn get(path: &str) -> String {
    head(&format!("GET {path} HTTP/1.1"), "")
}

/// The script of an origin that answers one request on each connection with these bytes, and closes
/// it.
pub(crate) fn answer(bytes: impl AsRef<[u8]>) -> Vec<Step> {
    vec![Step::ReadHead, Step::send(bytes.as_ref().to_vec())]
}

/// The script of an origin that answers many requests without a body.
pub(crate) fn ok() -> Vec<Step> {
    std::iter::repeat_with(|| answer(OK))
        .take(10)
        .flatten()
        .collect()
}

pub(crate) struct World {
    pub(crate) origin: RawOrigin,
    pub(crate) gateway: Gateway,
    _dns: DnsServer,
}

impl World {
    /// Starts with an origin that follows one script on each connection.
    pub(crate) async fn start(scripts: impl IntoIterator<Item = Vec<Step>>) -> Self {
        Self::with(scripts, &[]).await
    }

    pub(crate) async fn with(
        scripts: impl IntoIterator<Item = Vec<Step>>,
        options: &[&str],
    ) -> Self {
        let origin = RawOrigin::start(scripts).await.unwrap();
        let dns = DnsServer::start().await.unwrap();
        let web = format!("web.default:{}", origin.addr().port())
            .parse()
            .unwrap();
        dns.add_service(&web, &"cluster.local".parse().unwrap(), origin.addr().ip());
        let mut all: Vec<String> = [
            "--workers",
            "1",
            "--dns",
            &dns.addr().to_string(),
            "--upstream-cidr",
            "127.0.0.0/8",
            "--route",
            &format!("{HOST}/={web}"),
        ]
        .map(str::to_owned)
        .to_vec();
        all.extend(options.iter().map(|option| (*option).to_owned()));
        Self {
            origin,
            gateway: Gateway::start(&all).await,
            _dns: dns,
        }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::new(TcpStream::connect(self.gateway.addr).await.unwrap())
    }

    /// A client that has sent something.
    pub(crate) async fn send(&self, bytes: impl AsRef<[u8]>) -> Client {
        let mut client = self.client().await;
        client.send(bytes).await;
        client
    }

    /// Sends one request and reads its response.
    pub(crate) async fn ask(&self, request: impl AsRef<[u8]>) -> Reply {
        self.send(request).await.reply().await
    }

    /// The first head that came on a connection to the origin.
    pub(crate) async fn head_at_origin(&self, connection: usize) -> String {
        self.received(connection, "\r\n\r\n").await;
        let received = self.origin.received(connection);
        let text = String::from_utf8_lossy(&received).into_owned();
        text.split_once("\r\n\r\n").unwrap().0.to_owned() + "\r\n"
    }

    /// Waits until a connection to the origin has received this text.
    pub(crate) async fn received(&self, connection: usize, text: &str) {
        let there = |bytes: &[u8]| {
            bytes
                .windows(text.len())
                .any(|part| part == text.as_bytes())
        };
        soon(self.origin.wait_for_received(connection, there)).await;
    }

    /// All bytes that the origin has received, on all connections.
    pub(crate) fn all_received(&self) -> String {
        let connections = 0..self.origin.connections();
        let received = connections.map(|connection| self.origin.received(connection));
        String::from_utf8_lossy(&received.collect::<Vec<_>>().concat()).into_owned()
    }

    /// The request head that the origin gets when the gateway forwards this request.
    pub(crate) async fn forwarded(&self, request: impl AsRef<[u8]>) -> String {
        let mut client = self.send(request).await;
        let head = self.head_at_origin(0).await;
        let reply = client.reply().await;
        assert_eq!(reply.status, 200, "{}", reply.head);
        head
    }

    /// A later request is answered, over a connection to the origin other than the first,
    /// which is closed.
    pub(crate) async fn first_connection_is_not_used_again(&self) {
        let reply = self.ask(get("/after")).await;
        assert_eq!((reply.status, reply.text()), (200, "ok"), "{}", reply.head);
        assert_eq!(self.origin.connections(), 2);
        soon(self.origin.wait_for_closed(0)).await;
        let first = self.origin.received(0);
        assert!(!String::from_utf8_lossy(&first).contains("/after"));
    }

    /// The origin has received nothing so far, and answers.
    pub(crate) async fn nothing_has_reached_the_origin(&self) {
        let reply = self.ask(get("/after")).await;
        assert_eq!((reply.status, reply.text()), (200, "ok"), "{}", reply.head);
        let received = self.all_received();
        assert!(
            received.starts_with("GET /after HTTP/1.1\r\n"),
            "{received}"
        );
        assert_eq!(received.matches(" HTTP/1.").count(), 1, "{received}");
    }
}
