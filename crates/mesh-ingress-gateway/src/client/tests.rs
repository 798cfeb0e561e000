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
