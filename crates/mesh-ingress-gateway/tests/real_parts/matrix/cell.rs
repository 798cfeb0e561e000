//! One cell of the matrix: a client, the gateway, an origin, and the application behind it.

use std::collections::BTreeSet;

use http::Method;
use mesh_ingress_testkit::{BodyEnd, ReceivedRequest};

use super::app::{App, ECHO, GRPC, GRPC_TRAILERS, LARGE, MIB, TELL};
use super::check::{Checked, bytes, expect, expect_bytes, values};
use super::client::{Answer, Call, PUBLIC_HOST};
use super::load::{self, Width};
use super::origin::{Seen, Server, Software, Speaks};
use super::websocket::{self, Outcome};
use crate::dns_and_nginx::{DNS, VHOST, WEB, dns, web};
use crate::lab::{Dnsmasq, Gateway, Lab, Record};

const OCTET_STREAM: &str = "application/octet-stream";
const SIXTEEN_KIB: usize = 16 * 1024;
/// How many requests h2load sends.
const GETS: usize = 600;
const POSTS: usize = 200;
const LARGE_GETS: usize = 40;

/// How the end of a request's body is told on the wire to the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// There is no body.
    None,
    /// In `Content-Length`.
    Length(usize),
    /// By the last chunk or the end of the stream.
    Unknown,
}

/// Everything that one cell needs, running.
pub(crate) struct Cell<'a> {
    lab: &'a Lab,
    name: String,
    client: Speaks,
    upstream: Speaks,
    software: Software,
    gateway: Gateway,
    app: App,
    _origin: Server,
    _dnsmasq: Dnsmasq,
}

type Shape<'a> = fn(&Cell<'a>) -> Checked<Vec<Seen>>;

impl<'a> Cell<'a> {
    pub(crate) fn start(
        lab: &'a Lab,
        software: Software,
        client: Speaks,
        upstream: Speaks,
    ) -> Self {
        let dnsmasq = Dnsmasq::start(lab, dns(), &[Record::address(VHOST, WEB)]);
        let app = App::start();
        let origin = software.start(lab, upstream, web());
        let route = format!("{PUBLIC_HOST}/=web.default:80");
        let gateway = Gateway::serve(&[
            "--dns",
            DNS,
            "--route",
            &route,
            "--upstream-cidr",
            "127.0.0.0/8",
            "--upstream-protocol",
            upstream.upstream_protocol(),
            // Each worker has connections of its own, and the kernel deals clients out to workers.
            "--workers",
            "1",
        ]);
        Self {
            lab,
            name: format!(
                "{} client, gateway, {} to {software:?}",
                client.name(),
                upstream.name()
            ),
            client,
            upstream,
            software,
            gateway,
            app,
            _origin: origin,
            _dnsmasq: dnsmasq,
        }
    }

    /// All shapes of one request and one response, one after another over one upstream connection.
    pub(crate) fn holds_for_single_exchanges(self) {
        let mut peers = BTreeSet::new();
        let shapes: [(&str, Shape<'a>); 6] = [
            ("GET", Self::get),
            ("POST 16 KiB", Self::post),
            ("chunked POST", Self::chunked_post),
            ("HEAD", Self::head),
            ("1 MiB response", Self::large_response),
            ("gRPC-like trailers", Self::trailers),
        ];
        let mut failures = Vec::new();
        for (shape, check) in shapes {
            // Left by a cell that failed.
            self.app.take_requests();
            match check(&self) {
                Ok(seen) => peers.extend(seen.into_iter().map(|seen| seen.peer)),
                Err(error) => failures.push(format!("{shape}: {error}")),
            }
        }
        if failures.is_empty() {
            let one = expect("upstream connections", &peers.len(), &1);
            failures.extend(one.err());
        }
        self.end(&failures);
    }

    /// Many requests at a time: none fails, none is sent twice, connections are used again.
    pub(crate) fn holds_under_load(self) {
        let mut failures = Vec::new();
        let body = bytes(SIXTEEN_KIB);
        let mut check = |what: &str, result: Checked| {
            failures.extend(result.err().map(|error| format!("{what}: {error}")));
        };
        check("h2load, GET", self.h2load(TELL, GETS, None));
        check("h2load, POST 16 KiB", self.h2load(ECHO, POSTS, Some(&body)));
        check(
            "h2load, 1 MiB response",
            self.h2load(LARGE, LARGE_GETS, None),
        );
        // It speaks nothing else.
        if self.client == Speaks::Http1 {
            check("wrk, GET", self.wrk(TELL, None));
            check("wrk, POST 16 KiB and chunked", self.wrk(ECHO, Some(&body)));
        }
        self.end(&failures);
    }

    /// A WebSocket whose messages are sent back, where the origin can do it; else a refusal.
    pub(crate) fn holds_for_websockets(self) {
        let result = self.websocket();
        self.end(&result.err().into_iter().collect::<Vec<_>>());
    }

    fn end(self, failures: &[String]) {
        let Self { name, gateway, .. } = self;
        assert!(failures.is_empty(), "{name}:\n{}", failures.join("\n"));
        assert!(gateway.stop().success(), "{name}: SIGTERM ends the gateway");
    }

    fn call(&self, path: &str) -> Call {
        Call::new(self.lab, self.client, path)
    }

    fn get(&self) -> Checked<Vec<Seen>> {
        let path = format!("{TELL}/a%2Fb//c?q=%20&r");
        let answer = self.call(&path).header("X-Several: one").send()?;
        self.answered(&answer)?;
        let request = self.one_request(&Method::GET)?;
        let target = request.uri.path_and_query().map(ToString::to_string);
        expect("target", &target.as_deref(), &Some(path.as_str()))?;
        expect(
            "x-several",
            &values(&request.headers, "x-several"),
            &["one"].to_vec(),
        )?;
        expect("body", &request.body_len, &0)?;
        // The report of the application came back whole.
        let told = String::from_utf8_lossy(&answer.body);
        expect("begins", &told.starts_with("origin: app\n"), &true)?;
        let length = answer.body.len().to_string();
        expect(
            "content-length",
            &answer.header("content-length"),
            &vec![length.as_str()],
        )?;
        Ok(vec![self.seen(&request, Framing::None)?])
    }

    fn post(&self) -> Checked<Vec<Seen>> {
        let body = bytes(SIXTEEN_KIB);
        let answer = self.call(ECHO).body(OCTET_STREAM, &body).send()?;
        let request = self.echoed(&answer, &body)?;
        Ok(vec![self.seen(&request, Framing::Length(SIXTEEN_KIB))?])
    }

    fn chunked_post(&self) -> Checked<Vec<Seen>> {
        let body = bytes(SIXTEEN_KIB);
        let answer = self
            .call(ECHO)
            .body_of_unknown_length(OCTET_STREAM, &body)
            .send()?;
        let request = self.echoed(&answer, &body)?;
        Ok(vec![self.seen(&request, Framing::Unknown)?])
    }

    /// The body of the request is what was sent, that of the answer is the same.
    fn echoed(&self, answer: &Answer, body: &[u8]) -> Checked<ReceivedRequest> {
        self.answered(answer)?;
        let request = self.one_request(&Method::POST)?;
        expect("body's end", &request.body_end, &BodyEnd::Complete)?;
        expect_bytes("body at the origin", &request.body, body)?;
        expect_bytes("body of the answer", &answer.body, body)?;
        let kind = vec![OCTET_STREAM];
        expect("content-type", &answer.header("content-type"), &kind)?;
        Ok(request)
    }

    fn head(&self) -> Checked<Vec<Seen>> {
        let mut call = self
            .call(LARGE)
            .flag("--head")
            .option("--write-out", "%{size_download} bytes; ");
        let mut expected = "0 bytes; ".to_owned();
        let mut methods = vec![&Method::HEAD];
        // Over HTTP/1.1 the next request shows that nothing came after the header section: curl
        // would give the connection up. Over HTTP/2 curl 7.88, Debian's, cannot use a connection
        // with prior knowledge a second time, with any server.
        if self.client == Speaks::Http1 {
            call = call
                .then(self.client, TELL)
                .option("--write-out", "then %{http_code}, %{num_connects} connects");
            expected.push_str("then 200, 0 connects");
            methods.push(&Method::GET);
        }
        let answer = call.send()?;
        self.answered(&answer)?;
        let length = MIB.to_string();
        let told = answer.header("content-length");
        expect("content-length", &told, &vec![length.as_str()])?;
        expect("curl", &answer.told, &expected)?;
        let requests = self.app.take_requests();
        let arrived: Vec<_> = requests.iter().map(|request| &request.method).collect();
        expect("requests at the origin", &arrived, &methods)?;
        let seen = |request| self.seen(request, Framing::None);
        requests.iter().map(seen).collect()
    }

    fn large_response(&self) -> Checked<Vec<Seen>> {
        let answer = self.call(LARGE).send()?;
        self.answered(&answer)?;
        let length = usize::try_from(MIB).map_err(|error| error.to_string())?;
        let expected: Vec<u8> = (b'a'..=b'z').cycle().take(length).collect();
        expect_bytes("body", &answer.body, &expected)?;
        let told = answer.header("content-length");
        expect("content-length", &told, &vec![MIB.to_string().as_str()])?;
        let request = self.one_request(&Method::GET)?;
        Ok(vec![self.seen(&request, Framing::None)?])
    }

    /// A unary gRPC call: a message up, the same down, its status after it.
    fn trailers(&self) -> Checked<Vec<Seen>> {
        // A message of five bytes: not compressed, its length, itself.
        let message = b"\0\0\0\0\x05hello";
        let mut call = self
            .call(GRPC)
            .body("application/grpc", message)
            .header("TE: trailers");
        if self.client == Speaks::Http1 {
            call = call.header("Connection: TE");
        }
        let answer = call.send()?;
        self.answered(&answer)?;
        expect_bytes("body", &answer.body, message)?;
        let kind = answer.header("content-type");
        expect("content-type", &kind, &vec!["application/grpc"])?;
        for (name, value) in GRPC_TRAILERS {
            expect(name, &answer.trailer(name), &vec![value])?;
            expect("in the header section", &answer.header(name), &Vec::new())?;
        }
        let request = self.one_request(&Method::POST)?;
        expect_bytes("body at the origin", &request.body, message)?;
        Ok(vec![self.seen(&request, Framing::Length(message.len()))?])
    }

    fn websocket(&self) -> Checked {
        let outcome = websocket::echo(self.client)?;
        let Some(speaks) = self.software.websockets(self.upstream) else {
            let refused = matches!(outcome, Outcome::Refused(status) if status.is_server_error());
            expect("refused", &refused, &true).map_err(|error| format!("{error}: {outcome:?}"))?;
            // The gateway is none the worse for it.
            return self.answered(&self.call(TELL).send()?);
        };
        expect("outcome", &outcome, &Outcome::Echoed)?;
        let opened = self.app.take_requests().pop();
        self.came_in(speaks, &opened.ok_or("no request arrived")?)?;
        Ok(())
    }

    fn h2load(&self, path: &str, count: usize, body: Option<&[u8]>) -> Checked {
        let bytes = load::h2load(self.lab, self.client, path, count, body)?;
        let each = match (path, body) {
            (LARGE, _) => Some(MIB),
            (_, Some(body)) => u64::try_from(body.len()).ok(),
            // The reports differ in length.
            (_, None) => None,
        };
        if let Some(each) = each {
            let all = u64::try_from(count).map_or(0, |count| count * each);
            expect("bytes of bodies", &bytes, &all)?;
        }
        let requests = self.app.take_requests();
        expect("requests at the origin", &requests.len(), &count)?;
        self.came_right(&requests, body)
    }

    fn wrk(&self, path: &str, body: Option<&[u8]>) -> Checked {
        let answered = load::wrk(self.lab, path, body)?;
        let mut requests = self.app.take_requests();
        // When its time is up, wrk leaves those on the way alone, and they may arrive during the
        // next run.
        requests.retain(|request| request.uri.path() == path);
        let most = answered + Width::of(Speaks::Http1).requests_at_a_time();
        let right = (answered..=most).contains(&requests.len());
        expect("as many as answered at the origin", &right, &true)
            .map_err(|error| format!("{error}: {} of {answered}..={most}", requests.len()))?;
        requests.retain(|request| request.body_end == BodyEnd::Complete);
        let enough = requests.len() >= answered;
        expect("all that were answered complete", &enough, &true)?;
        self.came_right(&requests, body)
    }

    fn came_right(&self, requests: &[ReceivedRequest], body: Option<&[u8]>) -> Checked {
        let mut peers = BTreeSet::new();
        for request in requests {
            expect_bytes(
                "body at the origin",
                &request.body,
                body.unwrap_or_default(),
            )?;
            peers.insert(self.came_in(self.upstream, request)?.peer);
        }
        let most = match self.upstream {
            Speaks::Http1 => Width::of(self.client).requests_at_a_time(),
            // All of that fits into what one connection carries.
            Speaks::H2c => 1,
        };
        expect("connections used again", &(peers.len() <= most), &true)
            .map_err(|error| format!("{error}: {} connections, {most} will do", peers.len()))
    }

    /// Checks that hold for every answer.
    fn answered(&self, answer: &Answer) -> Checked {
        expect("status", &answer.status, &200)
            .map_err(|error| format!("{error}: {answer:.500?}"))?;
        expect("version", &answer.version.as_str(), &self.client.version())?;
        expect("x-origin", &answer.header("x-origin"), &vec![App::NAME])?;
        if self.client == Speaks::H2c {
            // RFC 9113 §8.2.2.
            for name in ["connection", "keep-alive", "transfer-encoding", "upgrade"] {
                expect(name, &answer.header(name), &Vec::new())?;
            }
        }
        Ok(())
    }

    fn one_request(&self, method: &Method) -> Checked<ReceivedRequest> {
        let mut requests = self.app.take_requests();
        expect("requests at the origin", &requests.len(), &1)?;
        let request = requests.pop().ok_or("no request")?;
        expect("method", &request.method, method)?;
        Ok(request)
    }

    fn seen(&self, request: &ReceivedRequest, framing: Framing) -> Checked<Seen> {
        let seen = self.came_in(self.upstream, request)?;
        let length = match framing {
            Framing::Length(length) => Some(length.to_string()),
            Framing::None | Framing::Unknown => None,
        };
        expect("content-length at the origin", &seen.length, &length)?;
        // HTTP/2 has no transfer codings (RFC 9113 §8.2.2).
        let chunked = framing == Framing::Unknown
            && self.upstream == Speaks::Http1
            && self.software.tells_coding();
        let coding = chunked.then(|| "chunked".to_owned());
        expect("transfer-encoding at the origin", &seen.coding, &coding)?;
        Ok(seen)
    }

    /// Checks that hold for every request at the origin: it arrived once, under the Service's name, in
    /// the origin's protocol, and with the host that the client asked for.
    fn came_in(&self, speaks: Speaks, request: &ReceivedRequest) -> Checked<Seen> {
        let seen = Seen::read(&request.headers)?;
        expect("port of the peer is 0", &(seen.peer.port() == 0), &false)?;
        let version = seen.version.as_str();
        expect("version at the origin", &version, &speaks.version())?;
        expect("host at the origin", &seen.host.as_str(), &VHOST)?;
        for (name, value) in [
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-host", PUBLIC_HOST),
            ("x-forwarded-proto", "http"),
        ] {
            expect(name, &values(&request.headers, name), &vec![value])?;
        }
        Ok(seen)
    }
}
