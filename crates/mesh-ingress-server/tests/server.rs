//! The server with services of every kind, spoken to by hyper's client.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests, too

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, UPGRADE};
use http::{Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_ingress_io::upgrade::OnUpgrade;
use mesh_ingress_server::{
    Conn, ConnectionServer, Downstream, HttpService, RequestBody, Server, drain,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};
use tower::{Service, ServiceBuilder};

type Answer = Result<Response<Full<Bytes>>, Infallible>;

fn text(text: impl Into<Bytes>) -> Answer {
    Ok(Response::new(Full::new(text.into())))
}

fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn get() -> Request<Empty<Bytes>> {
    let request = Request::get("http://shop.example.com/").header("host", "shop.example.com");
    request.body(Empty::new()).unwrap()
}

/// Sends requests one after the other on one connection, and returns status and body of each.
async fn ask(addr: SocketAddr, version: Version, requests: usize) -> Vec<(StatusCode, String)> {
    let io = TokioIo::new(TcpStream::connect(addr).await.unwrap());
    ask_on(io, version, requests).await
}

async fn ask_on<I>(io: I, version: Version, requests: usize) -> Vec<(StatusCode, String)>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let mut answers = Vec::new();
    if version == Version::HTTP_2 {
        let handshake = http2::handshake(TokioExecutor::new(), io);
        let (mut sender, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        for _ in 0..requests {
            answers.push(read(sender.send_request(get()).await.unwrap()).await);
        }
    } else {
        let (mut sender, connection) = http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        for _ in 0..requests {
            sender.ready().await.unwrap();
            answers.push(read(sender.send_request(get()).await.unwrap()).await);
        }
    }
    answers
}

async fn read(response: Response<hyper::body::Incoming>) -> (StatusCode, String) {
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

const BOTH: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];

/// Serves for as long as the test runs; the address.
fn serve(service: impl HttpService) -> SocketAddr {
    let server = Server::bind(loopback()).unwrap();
    let addr = server.local_addrs()[0];
    tokio::spawn(server.serve(service).into_future());
    addr
}

#[tokio::test]
async fn each_request_has_the_client_as_an_extension_and_nothing_of_others() {
    let service = tower::service_fn(|mut request: Request<RequestBody>| async move {
        let client = request.extensions().get::<Downstream>().unwrap().clone();
        assert_eq!(request.extensions().len(), 1);
        request.extensions_mut().insert("left behind");
        let text = format!(
            "{} {:?} {:?}",
            client.peer, client.local, client.listener_port
        );
        let mut response = Response::new(Full::new(Bytes::from(text)));
        // As a service does that gives them back.
        *response.extensions_mut() = std::mem::take(request.extensions_mut());
        Ok::<_, Infallible>(response)
    });
    let addr = serve(service);
    for version in BOTH {
        let stream = TcpStream::connect(addr).await.unwrap();
        let own = stream.local_addr().unwrap();
        let expected = format!("{own} {:?} {:?}", Some(addr), Some(addr.port()));
        for (status, text) in ask_on(TokioIo::new(stream), version, 3).await {
            assert_eq!((status, &text), (StatusCode::OK, &expected), "{version:?}");
        }
    }
}

#[tokio::test]
async fn workers_serve_on_threads_of_their_own() {
    let workers = NonZeroUsize::new(2);
    let server = Server::builder().workers(workers).listen(loopback()).bind();
    let server = server.unwrap();
    let addr = server.local_addrs()[0];
    let (trigger, watcher) = drain::channel();
    let service = tower::service_fn(|_: Request<RequestBody>| async {
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        text(name)
    });
    let serving = server.serve(service).with_graceful_shutdown(watcher);
    let serving = tokio::spawn(serving.into_future());
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..200 {
        names.extend(ask(addr, Version::HTTP_11, 1).await);
    }
    let names: Vec<_> = names.iter().map(|(_, name)| &**name).collect();
    assert_eq!(names, ["worker-0", "worker-1"]);
    assert!(trigger.drain(Duration::from_secs(10)).await);
    serving.await.unwrap().unwrap();
    let refused = TcpStream::connect(addr).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_drain_finishes_the_request_under_way() {
    for version in BOTH {
        let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let service = {
            let (begun, go_on) = (Arc::clone(&begun), Arc::clone(&go_on));
            tower::service_fn(move |_: Request<RequestBody>| {
                let (begun, go_on) = (Arc::clone(&begun), Arc::clone(&go_on));
                async move {
                    begun.notify_one();
                    go_on.notified().await;
                    text("finished")
                }
            })
        };
        let server = Server::bind(loopback()).unwrap();
        let addr = server.local_addrs()[0];
        let (trigger, watcher) = drain::channel();
        let serving = server.serve(service).with_graceful_shutdown(watcher);
        let serving = tokio::spawn(serving.into_future());
        let asking = tokio::spawn(ask(addr, version, 1));
        begun.notified().await;
        trigger.start();
        // The listener is gone before the request is finished.
        while TcpStream::connect(addr).await.is_ok() {
            tokio::task::yield_now().await;
        }
        assert!(!serving.is_finished());
        go_on.notify_one();
        let answers = asking.await.unwrap();
        assert_eq!(answers, [(StatusCode::OK, "finished".to_owned())]);
        trigger.drained().await;
        serving.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_drain_whose_time_is_over_cuts_off() {
    let service = tower::service_fn(|_: Request<RequestBody>| async {
        std::future::pending::<()>().await;
        text("never")
    });
    let server = Server::bind(loopback()).unwrap();
    let addr = server.local_addrs()[0];
    let (trigger, watcher) = drain::channel();
    let serving = server.serve(service).with_graceful_shutdown(watcher);
    let serving = tokio::spawn(serving.into_future());
    let mut client = TcpStream::connect(addr).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n";
    client.write_all(request).await.unwrap();
    assert!(!trigger.drain(Duration::from_millis(50)).await);
    serving.await.unwrap().unwrap();
    assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0);
}

/// A limit of one request at a time: the service is not ready for the second.
#[tokio::test]
async fn a_service_that_is_not_ready_is_waited_for() {
    for version in BOTH {
        let (most, now) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let inner = {
            let (most, now) = (Arc::clone(&most), Arc::clone(&now));
            tower::service_fn(move |_: Request<RequestBody>| {
                let (most, now) = (Arc::clone(&most), Arc::clone(&now));
                async move {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    for _ in 0..10 {
                        tokio::task::yield_now().await;
                    }
                    now.fetch_sub(1, Ordering::SeqCst);
                    text("served")
                }
            })
        };
        let limit =
            tower::limit::GlobalConcurrencyLimitLayer::with_semaphore(Arc::new(Semaphore::new(1)));
        let addr = serve(ServiceBuilder::new().layer(limit).service(inner));
        let clients = (0..8).map(|_| tokio::spawn(ask(addr, version, 20)));
        let clients: Vec<_> = clients.collect();
        for client in clients {
            let answers = client.await.unwrap();
            assert_eq!(answers.len(), 20);
            assert!(answers.iter().all(|(status, _)| status.is_success()));
        }
        assert_eq!(most.load(Ordering::SeqCst), 1, "{version:?}");
    }
}

/// The same with streams of one connection.
#[tokio::test]
async fn streams_of_a_connection_wait_for_the_service_each_by_itself() {
    let inner = tower::service_fn(|_: Request<RequestBody>| async {
        tokio::task::yield_now().await;
        text("served")
    });
    let limit = tower::limit::GlobalConcurrencyLimitLayer::new(1);
    let addr = serve(ServiceBuilder::new().layer(limit).service(inner));
    let io = TokioIo::new(TcpStream::connect(addr).await.unwrap());
    let handshake = http2::handshake(TokioExecutor::new(), io);
    let (sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let requests = (0..50).map(|_| {
        let mut sender = sender.clone();
        tokio::spawn(async move { read(sender.send_request(get()).await.unwrap()).await })
    });
    for request in requests.collect::<Vec<_>>() {
        assert_eq!(request.await.unwrap().0, StatusCode::OK);
    }
}

#[tokio::test]
async fn an_error_of_the_service_is_a_500() {
    let service = tower::service_fn(|_: Request<RequestBody>| async {
        Err::<Response<String>, _>(io::Error::other("broken"))
    });
    let addr = serve(service);
    for version in BOTH {
        let answers = ask(addr, version, 2).await;
        let expected = (StatusCode::INTERNAL_SERVER_ERROR, String::new());
        assert_eq!(answers, [expected.clone(), expected], "{version:?}");
    }
}

/// It fails before it is called, and is not asked twice.
#[tokio::test]
async fn a_service_that_fails_to_get_ready_is_a_500() {
    #[derive(Clone)]
    struct Broken;

    impl Service<Request<RequestBody>> for Broken {
        type Response = Response<String>;
        type Error = io::Error;
        type Future = std::future::Ready<Result<Response<String>, io::Error>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::Error::other("never ready")))
        }

        fn call(&mut self, _: Request<RequestBody>) -> Self::Future {
            panic!("called without being ready");
        }
    }

    let addr = serve(Broken);
    for version in BOTH {
        let answers = ask(addr, version, 2).await;
        let expected = (StatusCode::INTERNAL_SERVER_ERROR, String::new());
        assert_eq!(answers, [expected.clone(), expected], "{version:?}");
    }
}

#[tokio::test]
async fn any_stream_is_a_connection() {
    for version in BOTH {
        let (client, server) = tokio::io::duplex(1024);
        let service =
            tower::service_fn(|_: Request<RequestBody>| async { text("x".repeat(10_000)) });
        let client_of = Downstream::new(([203, 0, 113, 7], 51000).into());
        let serving =
            ConnectionServer::new().serve_connection(Conn::other(server), client_of, service);
        let serving = tokio::spawn(serving);
        let answers = ask_on(TokioIo::new(client), version, 3).await;
        assert!(answers.iter().all(|(_, body)| body.len() == 10_000));
        serving.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_request_body_is_read_in_another_task_and_trailers_come_with_it() {
    let service = tower::service_fn(|request: Request<RequestBody>| async {
        let body = tokio::spawn(request.into_body().collect()).await.unwrap();
        let body = body.unwrap();
        let trailers = body.trailers().and_then(|it| it.get("x-sum")).cloned();
        let bytes = body.to_bytes().len();
        text(format!("{bytes} {trailers:?}"))
    });
    let mut client = TcpStream::connect(serve(service)).await.unwrap();
    let request =
        b"POST / HTTP/1.1\r\nhost: h\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n\
        5\r\nhello\r\n0\r\nx-sum: abc\r\n\r\n";
    client.write_all(request).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("5 Some(\"abc\")"), "{answer}");
}

/// A tunnel counts as work under way.
#[tokio::test]
async fn a_drain_waits_for_an_upgraded_connection() {
    let service = tower::service_fn(|mut request: Request<RequestBody>| async move {
        let on_upgrade = request.extensions_mut().remove::<OnUpgrade>().unwrap();
        tokio::spawn(async move {
            let (mut conn, early, _guard) = on_upgrade.await.unwrap().into_parts();
            conn.write_all(&early).await.unwrap();
            let mut byte = [0];
            while conn.read(&mut byte).await.unwrap() > 0 {
                conn.write_all(&byte).await.unwrap();
            }
        });
        let response = Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header(CONNECTION, "upgrade")
            .header(UPGRADE, "echo");
        Ok::<_, Infallible>(response.body(Empty::<Bytes>::new()).unwrap())
    });
    let server = Server::bind(loopback()).unwrap();
    let addr = server.local_addrs()[0];
    let (trigger, watcher) = drain::channel();
    let serving = server.serve(service).with_graceful_shutdown(watcher);
    tokio::spawn(serving.into_future());
    let mut client = TcpStream::connect(addr).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nearly";
    client.write_all(request).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\nearly") {
        head.push(client.read_u8().await.unwrap());
    }
    trigger.start();
    let drained = tokio::time::timeout(Duration::from_millis(500), trigger.drained());
    assert!(drained.await.is_err(), "the tunnel is still open");
    client.write_all(b"x").await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'x');
    drop(client);
    trigger.drained().await;
}
