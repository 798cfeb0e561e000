use mesh_ingress::{ClusterDns, Downstream, MeshIngress, Route};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// A gateway that answers each request by itself, and a connection to it.
async fn connection() -> (Arc<Clients>, TcpStream, ClientIo, Http1Service) {
    let dns = ClusterDns::builder().nameserver(([127, 0, 0, 1], 1).into());
    let mesh = MeshIngress::builder()
        .resolver(dns.build().unwrap())
        .route(Route::any_host().respond(StatusCode::NO_CONTENT));
    let mesh = mesh.build().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap());
    let (client, accepted) = tokio::join!(client, listener.accept());
    let (stream, peer) = accepted.unwrap();
    let (phase, seen) = watch::channel(Phase::Serving);
    // Serving for as long as the test runs.
    std::mem::forget(phase);
    let (clients, _) = Clients::new(seen.clone(), Duration::ZERO);
    let (stream, switch) = GuardedStream::guarded(Vec::new(), stream);
    let activity = Arc::new(Activity::default());
    let io = ClientIo::new(stream, Arc::clone(&activity));
    let service = Http1Service {
        mesh: mesh.for_connection(&Downstream::new(peer)),
        switch,
        activity,
        stop: Arc::new(Stop::new(seen)),
    };
    (clients, client.unwrap(), io, service)
}

async fn answer(client: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Time is the test's own here: it moves on when nothing else does.
#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_put_aside_and_taken_up_again() {
    let (clients, mut client, mut io, mut service) = connection().await;
    for request in ["/first", "/second", "/third"] {
        let get = format!("GET {request} HTTP/1.1\r\nhost: shop.example.com\r\n\r\n");
        client.write_all(get.as_bytes()).await.unwrap();
        let phase = clients.phase.clone();
        let active = clients.serve_active(io, service, phase);
        let (rested, head) = tokio::join!(active, answer(&mut client));
        assert!(head.starts_with("HTTP/1.1 204 "), "{head}");
        (io, service) = match rested {
            Rested::Idle(idle) => *idle,
            Rested::Ended(_) => panic!("{request}: the connection has ended"),
        };
    }
    // It is as if nothing had been in between: the client is told when it goes away.
    drop((io, service));
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_has_begun_is_not_put_aside() {
    let (clients, mut client, io, service) = connection().await;
    client.write_all(b"GET / HTTP/1.1\r\nho").await.unwrap();
    let phase = clients.phase.clone();
    let active = clients.serve_active(io, service, phase);
    let rest = async {
        // Time flies for whoever would put it aside.
        tokio::time::advance(Duration::from_secs(60)).await;
        client
            .write_all(b"st: shop.example.com\r\n\r\n")
            .await
            .unwrap();
        answer(&mut client).await
    };
    let (rested, head) = tokio::join!(active, rest);
    assert!(head.starts_with("HTTP/1.1 204 "), "{head}");
    assert!(matches!(rested, Rested::Idle(_)));
}

/// RFC 9112 §9.6: what follows the last request is never served, however long it keeps coming.
#[tokio::test(start_paused = true)]
async fn rfc9112_9_6_what_is_closed_is_not_taken_up_again() {
    let (clients, mut client, io, service) = connection().await;
    let mut octets = b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n".to_vec();
    // As much as is read at once, to its last octet: what is read ends between two requests, and
    // what follows is still with the kernel when the connection is closed.
    let filler = "GET /filler HTTP/1.1\r\nhost: h\r\nx: \r\n\r\n";
    let padding = "p".repeat(8192 - octets.len() - filler.len());
    octets.extend(filler.replace("x: ", &format!("x: {padding}")).bytes());
    assert_eq!(octets.len(), 8192);
    let evil = "GET /evil HTTP/1.1\r\nhost: h\r\n\r\n";
    octets.extend(evil.repeat(100).bytes());
    client.write_all(&octets).await.unwrap();

    let phase = clients.phase.clone();
    let active = clients.serve_active(io, service, phase);
    let talk = async {
        let head = answer(&mut client).await;
        assert!(head.contains("connection: close"), "{head}");
        // It goes on for as long as it is read from.
        for _ in 0..50 {
            if client.write_all(evil.as_bytes()).await.is_err() {
                break;
            }
            tokio::time::advance(Duration::from_millis(100)).await;
        }
    };
    let (rested, ()) = tokio::join!(active, talk);
    assert!(matches!(rested, Rested::Ended(_)));
}

#[tokio::test(start_paused = true)]
async fn who_asks_is_not_idle_however_quick_the_answer() {
    let activity = Arc::new(Activity::default());
    let mut patience = Patience::new(Some(Duration::from_millis(100)), Arc::clone(&activity));
    let poll =
        |patience: &mut Patience| patience.poll(&mut Context::from_waker(std::task::Waker::noop()));
    assert!(poll(&mut patience).is_pending());
    for _ in 0..5 {
        tokio::time::advance(Duration::from_millis(60)).await;
        drop(activity.answer());
        assert!(poll(&mut patience).is_pending());
    }
    tokio::time::advance(Duration::from_millis(101)).await;
    assert_eq!(poll(&mut patience), Poll::Ready(Overdue::TooLate));
}
