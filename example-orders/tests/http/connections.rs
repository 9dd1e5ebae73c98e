//! Connections that send nothing, or too slowly, and those of others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use example_orders::connections::{Connections, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};

use crate::server::{ADMIN, Server, Store};

/// A connection that never sends the rest of a header.
async fn half_a_header(address: &str) -> TcpStream {
    let mut connection = TcpStream::connect(address).await.expect("connected");
    connection.write_all(b"GET /orders HTTP/1.1\r\nx: ").await.expect("sent");
    connection
}

/// Waits until the other side has closed it.
async fn closed(mut connection: TcpStream) {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), connection.read_to_end(&mut answer));
    // A reset is an end too.
    drop(read.await.expect("the connection is closed"));
}

/// A thousand of them, without any key, stopped the service and the port of its health for as long as they liked.
#[tokio::test]
async fn connections_that_send_half_a_header_are_ended_and_others_are_answered() {
    let settings = [("ORDERS_CONNECTIONS", "3"), ("ORDERS_HEADER_SECONDS", "1")];
    let mut server = Server::with(Store::file(), &settings).await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(half_a_header(&server.address).await);
    }
    let begun = Instant::now();
    let answer = tokio::time::timeout(Duration::from_secs(20), server.get("/orders", ADMIN)).await.expect("in time");
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(begun.elapsed() > Duration::from_millis(500), "there was no place for it before");
    futures::future::join_all(silent.into_iter().map(closed)).await;
    let (status, log) = tokio::task::spawn_blocking(move || server.terminate()).await.expect("it ended");
    let lines = log.matches("no connection is taken until one of those that are open ends").count();
    assert!(status.success() && lines == 1, "{log}");
}

/// What is behind the head of such a request would be read as the next one, or is lost with the connection.
#[tokio::test]
async fn who_is_refused_before_the_body_is_read_is_told_that_the_connection_ends() {
    let server = Server::on(Store::file()).await;
    let answer = async |head: &str, body: &str| {
        let mut connection = TcpStream::connect(&server.address).await.expect("connected");
        let length = "host: shop\r\ncontent-type: application/json\r\ncontent-length: 2\r\n";
        let request = format!("{head}\r\n{length}\r\n{body}");
        connection.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
            let read = tokio::time::timeout(Duration::from_secs(20), connection.read_buf(&mut answer));
            assert!(read.await.expect("in time").expect("read") > 0, "{answer:?}");
        }
        String::from_utf8(answer).expect("text").to_lowercase()
    };
    let key = format!("authorization: Bearer {ADMIN}");
    for (head, status) in [
        ("POST /orders HTTP/1.1".to_owned(), 401),
        (format!("POST /orders HTTP/1.1\r\n{key}"), 400),
        (format!("PUT /operator/toggles/x HTTP/1.1\r\n{key}"), 403),
        ("POST /nothing HTTP/1.1".to_owned(), 404),
        ("POST /dashboard/sign-out HTTP/1.1".to_owned(), 403),
    ] {
        let answer = answer(&head, "").await;
        assert!(answer.starts_with(&format!("http/1.1 {status}")) && answer.contains("connection: close"), "{answer}");
    }
    let read = answer(&format!("POST /orders HTTP/1.1\r\n{key}\r\nidempotency-key: k"), "{}").await;
    assert!(read.starts_with("http/1.1 4") && !read.contains("connection: close"), "{read}");
}

#[tokio::test]
async fn requests_in_flight_may_take_longer_than_a_header_and_are_answered_after_the_end_has_begun() {
    let (gate, running) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let wait = {
        let (gate, running) = (Arc::clone(&gate), Arc::clone(&running));
        async move || {
            running.add_permits(1);
            gate.acquire().await.expect("open").forget();
            "done"
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let (stop, stopped) = oneshot::channel::<()>();
    let limits = Connections { most: 2, header: Duration::from_millis(100) };
    let router = Router::new().route("/", get(wait));
    let mut serving = tokio::spawn(serve(listener, router, limits, async { drop(stopped.await) }));
    let url = format!("http://{address}/");
    let ask = || tokio::spawn(reqwest::get(url.clone()));
    let (first, second, third) = (ask(), ask(), ask());
    drop(running.acquire_many(2).await.expect("open"));
    // Longer than a header may take; and the third has no place.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(running.available_permits(), 2);
    gate.add_permits(1);
    while running.available_permits() < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(stop);
    let ended = tokio::time::timeout(Duration::from_millis(100), &mut serving).await;
    assert!(ended.is_err(), "it waits for the requests in flight");
    assert!(TcpStream::connect(&address).await.is_err(), "and takes no others");
    gate.add_permits(2);
    for answer in [first, second, third] {
        let answer = answer.await.expect("sent").expect("answered");
        assert_eq!(answer.text().await.expect("whole"), "done");
    }
    tokio::time::timeout(Duration::from_secs(20), serving).await.expect("it ends").expect("no panic");
}
