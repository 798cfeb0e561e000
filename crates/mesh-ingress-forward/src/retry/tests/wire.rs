//! Retries over a real HTTP/2 connection, where a task of hyper reads the request's body.

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::*;

/// How a request's body ended, as the upstream saw it.
type Ended = Result<Bytes, String>;

/// Answers 503 to the first request after one frame of its body, and 200 to others after the whole
/// body.
async fn answer_early(
    mut request: Request<Incoming>,
    ended: mpsc::UnboundedSender<Ended>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let first = request.headers().contains_key("x-first");
    if !first {
        let body = request.into_body().collect().await?.to_bytes();
        ended.send(Ok(body)).unwrap();
        return Ok(Response::default());
    }
    request.body_mut().frame().await.unwrap()?;
    tokio::spawn(async move {
        let rest = request.into_body().collect().await;
        let rest = rest.map(http_body_util::Collected::to_bytes);
        ended.send(rest.map_err(|error| error.to_string())).unwrap();
    });
    let unavailable = Response::builder().status(503).body(Full::default());
    Ok(unavailable.unwrap())
}

#[tokio::test]
async fn body_is_recalled_from_a_connection_in_the_middle_of_an_upload() {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let (ended, mut ends) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let service = service_fn(|request| answer_early(request, ended.clone()));
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(theirs), service)
            .await
    });
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(ours))
            .await
            .unwrap();
    tokio::spawn(connection);

    let (client, mut receiver) = mpsc::unbounded_channel::<Result<Frame<Bytes>, Infallible>>();
    let frames = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
    let request = request(&Method::PUT, RequestBody::new(StreamBody::new(frames)));
    client.send(Ok(Frame::data(Bytes::from("one ")))).unwrap();

    let policy = policy().build().unwrap();
    let budget = Budget::new(&policy, Instant::now());
    let attempts = Mutex::new(0);
    let sent = super::super::send(&policy, &budget, request, None, |mut request| {
        let mut attempts = attempts.lock().unwrap();
        *attempts += 1;
        if *attempts == 1 {
            let mark = http::HeaderValue::from_static("yes");
            request.headers_mut().insert("x-first", mark);
        }
        let mut sender = sender.clone();
        async move {
            let response = sender.send_request(request).await;
            let response =
                response.map_err(|error| Error::new(ErrorKind::HttpProtocolError, error))?;
            Ok(response.map(Body::new))
        }
    });
    let upload = async {
        // Reset, not ended: half a body must not look complete. Nothing else wakes hyper's task.
        let first = ends.recv().await.unwrap();
        assert!(first.is_err(), "{first:?}");
        client.send(Ok(Frame::data(Bytes::from("two")))).unwrap();
        drop(client);
        assert_eq!(ends.recv().await.unwrap().unwrap(), "one two");
    };
    let both = async { tokio::join!(sent, upload) };
    let both = tokio::time::timeout(Duration::from_secs(10), both).await;
    let (response, ()) = both.expect("a cancelled attempt keeps its stream open");
    assert_eq!(response.unwrap().status(), StatusCode::OK);
}
