//! A request over HTTP whose effect is an append: the receiver's key and the request key of the append are one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use annals::prelude::*;
use annals::resilience::receiver::{Caller, MemoryRecords, MemorySettings, Receiver};
use annals::resilience::{Deadline, IdempotencyKey};
use annals::{Context, Filter, MemoryStore, Position, Repository, RequestKey};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Card, CardId};

/// Who sends a request, as if it had been authenticated.
fn user(headers: &HeaderMap) -> Option<&str> {
    headers.get("user")?.to_str().ok()
}

#[derive(Clone)]
struct Till {
    cards: Repository<Card>,
    runs: Arc<AtomicU32>,
}

/// Loads 100 cents on a card. The first run of each fails after its append, as if its machine had trouble then.
async fn load(
    State(till): State<Till>,
    Path(card): Path<String>,
    deadline: Deadline,
    key: IdempotencyKey,
    headers: HeaderMap,
) -> Result<(StatusCode, String), StatusCode> {
    let run = till.runs.fetch_add(1, Ordering::SeqCst) + 1;
    let loaded = async {
        let card = CardId::new(card)?;
        // Two callers may use one key; the fingerprint is that of what is asked for.
        let caller = user(&headers).unwrap_or_default();
        let request = RequestKey::of_caller(caller, &key, &("load", card.as_str(), 100))?;
        let cards = till.cards.with(Context::default().with_request(request).with_deadline(deadline));
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(cards.execute(&card, |card| card.load(100)).await?)
    };
    let loaded = loaded.await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    if run.is_multiple_of(2) {
        Ok((StatusCode::CREATED, format!("version {}", loaded.version.get())))
    } else {
        Err(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

/// Status, whether it was marked as a replay, and body.
async fn send(address: SocketAddr, user: &str, headers: &str) -> (u16, bool, String) {
    let mut connection = TcpStream::connect(address).await.expect("the service answers");
    let head = format!("POST /cards/c-1 HTTP/1.1\r\nhost: here\r\nconnection: close\r\nuser: {user}\r\n{headers}\r\n");
    connection.write_all(head.as_bytes()).await.expect("the service answers");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.expect("the service answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("the service answers");
    let status = head.split(' ').nth(1).expect("a status").parse().expect("the service answers");
    (status, head.contains("idempotent-replayed: true"), body.to_owned())
}

#[tokio::test]
async fn what_was_appended_and_answered_with_500_is_found_by_its_key_and_not_appended_again() {
    let store = MemoryStore::new();
    let till = Till { cards: store.aggregate::<Card>(), runs: Arc::default() };
    let records = MemoryRecords::new(MemorySettings::default()).unwrap();
    let caller = |parts: &Parts| user(&parts.headers).map(Caller::new);
    let router = Router::new().route("/cards/{card}", post(load)).layer(Receiver::new(records, caller));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = router.with_state(till.clone());
    tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
    let key = "idempotency-key: k-1\r\n";

    assert_eq!(send(address, "ann", key).await.0, 500);
    assert_eq!(send(address, "ann", key).await, (201, false, "version 1".to_owned()), "rebuilt from the first append");
    assert_eq!(send(address, "ann", key).await, (201, true, "version 1".to_owned()));
    assert_eq!(till.runs.load(Ordering::SeqCst), 2);

    assert_eq!(send(address, "bob", key).await.0, 500);
    assert_eq!(send(address, "bob", key).await, (201, false, "version 2".to_owned()), "the key of another caller");
    let page = store.read_page(Position::START.into(), &Filter::all(), 10).await.unwrap();
    assert_eq!(page.events.len(), 2);

    let late = format!("{}: 0\r\nidempotency-key: k-2\r\n", Deadline::HEADER);
    assert_eq!(send(address, "ann", &late).await.0, 503, "nothing is appended after the deadline");
    let page = store.read_page(Position::START.into(), &Filter::all(), 10).await.unwrap();
    assert_eq!(page.events.len(), 2);
}
