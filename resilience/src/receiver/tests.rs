use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use axum::routing::any;
use futures::future::join_all;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::*;
use crate::IdempotencyKey;
use crate::loopback::{Answer as Got, ask, open, read, serve};

mod headers;
mod settings;
mod shares;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The caller is who the header says, as if it had been authenticated.
fn caller(parts: &Parts) -> Option<Caller> {
    Some(Caller::new(parts.headers.get("user")?.to_str().ok()?))
}

type CallerOf = fn(&Parts) -> Option<Caller>;

/// A service on loopback, whose handler counts its runs.
#[derive(Clone)]
struct Shop {
    address: SocketAddr,
    runs: Arc<AtomicU32>,
    /// A permit for each run that may go on from where it waits.
    gate: Arc<Semaphore>,
    records: MemoryRecords,
    receiver: Receiver<MemoryRecords, CallerOf>,
}

impl Shop {
    /// Requests to `/status/NNN` are answered with that status, to `/panic` with a panic the first time, to `/wait` when the
    /// gate lets one through, to `/big` with 2,000 bytes, to `/stream` and `/broken` with three times 500 bytes and an end,
    /// or an error, to `/slow` with a body that waits for the gate; to others with 201.
    async fn open() -> Self {
        let settings = ReceiverSettings { request_bytes: 1_000, answer_bytes: 1_000, ..ReceiverSettings::default() };
        Self::with(settings, MemorySettings::default()).await
    }

    async fn with(settings: ReceiverSettings, memory: MemorySettings) -> Self {
        let records = MemoryRecords::new(memory).unwrap();
        let receiver = Receiver::with(records.clone(), caller as CallerOf, settings);
        let (runs, gate) = (Arc::new(AtomicU32::new(0)), Arc::new(Semaphore::new(0)));
        let handler = {
            let (runs, gate) = (runs.clone(), gate.clone());
            move |request: Request<Body>| handle(runs.clone(), gate.clone(), request)
        };
        let nested = Router::new().route("/order", any(handler.clone()));
        let router = Router::new()
            .nest("/one", nested.clone().layer(receiver.clone()))
            .nest("/two", nested.layer(receiver.clone()))
            .merge(Router::new().fallback(any(handler)).layer(receiver.clone()));
        Self { address: serve(router).await, runs, gate, records, receiver }
    }

    fn runs(&self) -> u32 {
        self.runs.load(Ordering::SeqCst)
    }

    async fn until_runs(&self, runs: u32) {
        while self.runs() < runs {
            sleep(ms(2)).await;
        }
    }

    async fn send(&self, request: &str, user: &str, key: &str, body: &str) -> Got {
        ask(self.address, request, &[("user", user), ("idempotency-key", key)], body).await
    }
}

async fn handle(runs: Arc<AtomicU32>, gate: Arc<Semaphore>, request: Request<Body>) -> Response<Body> {
    let run = runs.fetch_add(1, Ordering::SeqCst) + 1;
    let path = request.uri().path().to_owned();
    if let Some(status) = path.strip_prefix("/status/") {
        let status: u16 = status.parse().unwrap();
        return (StatusCode::from_u16(status).unwrap(), format!("run {run}")).into_response();
    }
    match path.as_str() {
        "/panic" if run == 1 => panic!("on purpose"),
        "/wait" => gate.acquire().await.unwrap().forget(),
        "/big" => return (StatusCode::CREATED, [("location", "/orders/1")], "x".repeat(2_000)).into_response(),
        "/slow" => {
            let body = async move {
                gate.acquire().await.unwrap().forget();
                Ok::<_, std::io::Error>("end")
            };
            return (StatusCode::CREATED, Body::from_stream(futures::stream::once(body))).into_response();
        }
        "/stream" => return stream(None),
        "/broken" => return stream(Some(std::io::Error::other("on purpose"))),
        _ => {}
    }
    (StatusCode::CREATED, [("location", "/orders/1")], format!("order {run}")).into_response()
}

/// An answer whose length is not known before its end.
fn stream(error: Option<std::io::Error>) -> Response<Body> {
    let chunks = std::iter::repeat_n("x".repeat(500), if error.is_some() { 1 } else { 3 }).map(Ok);
    let body = Body::from_stream(futures::stream::iter(chunks.chain(error.map(Err))));
    (StatusCode::CREATED, body).into_response()
}

#[tokio::test]
async fn a_repeat_gets_the_first_answer_marked_as_a_repeat() {
    let shop = Shop::open().await;
    let first = shop.send("POST /orders", "ann", "k1", "X").await;
    assert_eq!((first.status, first.body.as_str(), first.header("idempotent-replayed")), (201, "order 1", None));
    let again = shop.send("POST /orders", "ann", "k1", "X").await;
    assert_eq!((again.status, again.body.as_str()), (201, "order 1"));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!((again.header("location"), shop.runs()), (Some("/orders/1"), 1));
}

#[tokio::test]
async fn two_callers_with_one_key_each_run_once() {
    let shop = Shop::open().await;
    assert_eq!(shop.send("POST /orders", "ann", "k1", "X").await.body, "order 1");
    let other = shop.send("POST /orders", "bob", "k1", "X").await;
    assert_eq!((other.status, other.body.as_str()), (201, "order 2"));
    shop.send("POST /orders", "bob", "k2", "X").await;
    assert_eq!(shop.send("POST /orders", "ann", "k2", "Y").await.body, "order 4", "the key is free for ann");
}

#[tokio::test]
async fn another_request_with_the_key_is_refused_and_told_what_differs() {
    let shop = Shop::open().await;
    let body = r#"{"amount":100,"to":"a"}"#;
    assert_eq!(shop.send("POST /transfers?to=a", "ann", "k1", body).await.status, 201);
    for (request, body, differs) in [
        ("POST /transfers?to=b", body, "query"),
        ("PUT /transfers?to=a", body, "method"),
        ("POST /transfers/2?to=a", body, "path"),
        ("POST /transfers?to=a", r#"{"to": "a", "amount": 100}"#, "body"),
    ] {
        let refused = shop.send(request, "ann", "k1", body).await;
        assert_eq!(refused.status, 422, "{request}");
        assert!(refused.body.contains(&format!("not the same: {differs}\"")), "{}", refused.body);
        assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    }
    assert_eq!(shop.runs(), 1);
}

#[tokio::test]
async fn routes_of_nested_routers_are_told_apart_by_their_whole_path() {
    let shop = Shop::open().await;
    assert_eq!(shop.send("POST /one/order", "ann", "k1", "X").await.status, 201);
    assert_eq!(shop.send("POST /two/order", "ann", "k1", "X").await.status, 422);
}

#[tokio::test]
async fn two_at_once_run_the_handler_once() {
    let shop = Shop::open().await;
    let all = join_all((0..20).map(|_| shop.send("POST /wait", "ann", "k1", "X")));
    let open = async {
        shop.until_runs(1).await;
        // All others are refused while the first one waits.
        let refused = shop.send("POST /wait", "ann", "k1", "X").await;
        assert_eq!((refused.status, refused.header("retry-after")), (409, Some("1")));
        assert_eq!(
            shop.send("POST /wait", "ann", "k1", "Y").await.status,
            422,
            "another body is 422 also while in flight"
        );
        shop.gate.add_permits(20);
    };
    let (all, ()) = tokio::join!(all, open);
    assert!(all.iter().all(|answer| [201, 409].contains(&answer.status)));
    assert!(all.iter().any(|answer| answer.status == 201));
    assert_eq!(shop.runs(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_at_once_of_which_half_leave_run_the_handler_once() {
    let shop = Shop::open().await;
    for round in 0..20 {
        let key = format!("k-{round}");
        let headers = [("user", "ann"), ("idempotency-key", key.as_str())];
        let one = async |number: u64| {
            let connection = open(shop.address, "POST /orders", &headers, "x").await.unwrap();
            if number.is_multiple_of(2) {
                sleep(Duration::from_micros(number * 40)).await;
                return;
            }
            let got = read(connection).await.unwrap();
            assert!(got.status == 201 || got.status == 409, "{got:?}");
        };
        join_all((0..50).map(one)).await;
        let last = shop.send("POST /orders", "ann", &key, "x").await;
        assert_eq!((last.status, last.body), (201, format!("order {}", round + 1)));
        assert_eq!(shop.runs(), round + 1);
    }
    shop.receiver.drained().await;
}

#[tokio::test]
async fn a_handler_whose_client_left_runs_to_its_end() {
    let shop = Shop::open().await;
    let headers = [("user", "ann"), ("idempotency-key", "k1")];
    let client = open(shop.address, "POST /wait", &headers, "X").await.unwrap();
    shop.until_runs(1).await;
    drop(client);
    // The server has time to notice; the key is never free.
    for _ in 0..20 {
        assert_eq!(shop.send("POST /wait", "ann", "k1", "X").await.status, 409);
        sleep(ms(2)).await;
    }
    shop.gate.add_permits(1);
    tokio::time::timeout(Duration::from_secs(10), shop.receiver.drained()).await.unwrap();
    let stored = shop.send("POST /wait", "ann", "k1", "X").await;
    assert_eq!((stored.status, stored.body.as_str(), shop.runs()), (201, "order 1", 1));
}

#[tokio::test]
async fn a_client_that_leaves_while_it_sends_claims_nothing() {
    let shop = Shop::open().await;
    let head =
        "POST /orders HTTP/1.1\r\nhost: localhost\r\nuser: ann\r\nidempotency-key: k1\r\ncontent-length: 2\r\n\r\nX";
    let mut client = tokio::net::TcpStream::connect(shop.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut client, head.as_bytes()).await.unwrap();
    drop(client);
    assert_eq!(shop.send("POST /orders", "ann", "k1", "X").await.body, "order 1");
}

#[tokio::test]
async fn a_handler_that_panics_gives_the_key_back() {
    let shop = Shop::open().await;
    assert_eq!(shop.send("POST /panic", "ann", "k1", "X").await.status, 500);
    assert_eq!(shop.records.keys(), 0);
    assert_eq!(shop.send("POST /panic", "ann", "k1", "X").await.body, "order 2");
}

#[tokio::test]
async fn final_answers_are_repeated_and_others_run_again() {
    let shop = Shop::open().await;
    for status in [200, 201, 204, 400, 402, 404, 409, 422] {
        let (request, before) = (format!("POST /status/{status}"), shop.runs());
        let key = format!("k{status}");
        for replayed in [None, Some("true")] {
            let answer = shop.send(&request, "ann", &key, "X").await;
            assert_eq!((answer.status, answer.header("idempotent-replayed")), (status, replayed));
        }
        assert_eq!(shop.runs(), before + 1, "{status} is final");
    }
    let kept = shop.records.keys();
    for status in [303, 408, 425, 429, 500, 502, 503, 504] {
        let (request, before) = (format!("POST /status/{status}"), shop.runs());
        for _ in 0..2 {
            assert_eq!(shop.send(&request, "ann", &format!("k{status}"), "X").await.status, status);
        }
        assert_eq!(shop.runs(), before + 2, "{status} is not final");
    }
    assert_eq!(shop.records.keys(), kept);
}

#[tokio::test]
async fn an_answer_too_big_to_keep_is_no_reason_to_run_again() {
    let shop = Shop::open().await;
    let first = shop.send("POST /big", "ann", "k1", "X").await;
    assert_eq!((first.status, first.body.len()), (201, 2_000));
    let again = shop.send("POST /big", "ann", "k1", "X").await;
    assert_eq!((again.status, again.body.as_str(), again.header("location")), (201, "", Some("/orders/1")));
    assert_eq!(again.header("idempotent-replayed"), Some("without-body"));
    assert_eq!(shop.runs(), 1);
}

#[tokio::test]
async fn an_answer_that_turns_out_too_big_or_breaks_off_is_sent_on_and_not_made_again() {
    let shop = Shop::open().await;
    let first = shop.send("POST /stream", "ann", "k1", "X").await;
    assert_eq!((first.status, first.body.matches('x').count()), (201, 1_500));
    // The server closes the connection, so there may be no answer to read.
    let headers = [("user", "ann"), ("idempotency-key", "k2")];
    let broken = read(open(shop.address, "POST /broken", &headers, "X").await.unwrap()).await;
    assert!(broken.is_err() || broken.is_ok_and(|answer| !answer.body.contains("\r\n0\r\n")));
    for (request, key) in [("POST /stream", "k1"), ("POST /broken", "k2")] {
        let again = shop.send(request, "ann", key, "X").await;
        assert_eq!((again.status, again.body.as_str()), (201, ""));
        assert_eq!(again.header("idempotent-replayed"), Some("without-body"));
    }
    assert_eq!(shop.runs(), 2);
}

#[tokio::test]
async fn the_key_is_in_flight_until_the_whole_answer_is_there() {
    let shop = Shop::open().await;
    let first = shop.send("POST /slow", "ann", "k1", "X");
    let repeats = async {
        shop.until_runs(1).await;
        for _ in 0..10 {
            assert_eq!(shop.send("POST /slow", "ann", "k1", "X").await.status, 409);
        }
        shop.gate.add_permits(1);
    };
    let (first, ()) = tokio::join!(first, repeats);
    assert_eq!((first.status, shop.runs()), (201, 1));
    assert_eq!(shop.send("POST /slow", "ann", "k1", "X").await.body, "end");
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_with_and_without_its_length() {
    let shop = Shop::open().await;
    assert_eq!(shop.send("POST /orders", "ann", "k1", &"x".repeat(1_000)).await.status, 201);
    assert_eq!(shop.send("POST /orders", "ann", "k2", &"x".repeat(1_001)).await.status, 413);
    let head = "POST /orders HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nuser: ann\r\nidempotency-key: k2\r\n\
                transfer-encoding: chunked\r\n\r\n";
    let body = format!("1F4\r\n{0}\r\n1F4\r\n{0}\r\n1\r\nx\r\n0\r\n\r\n", "x".repeat(500));
    let mut connection = tokio::net::TcpStream::connect(shop.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut connection, format!("{head}{body}").as_bytes()).await.unwrap();
    assert_eq!(read(connection).await.unwrap().status, 413);
    assert_eq!((shop.runs(), shop.records.keys()), (1, 1));
}

#[tokio::test]
async fn keys_that_cannot_be_used_are_refused_and_requests_without_one_pass() {
    let shop = Shop::open().await;
    assert_eq!(shop.send("POST /orders", "ann", "a b", "X").await.status, 400);
    let twice = [("user", "ann"), ("idempotency-key", "k1"), ("idempotency-key", "k2")];
    assert_eq!(ask(shop.address, "POST /orders", &twice, "X").await.status, 400);
    let unknown = [("idempotency-key", "k1")];
    assert_eq!(ask(shop.address, "POST /orders", &unknown, "X").await.status, 401);
    assert_eq!(shop.runs(), 0);
    for run in 1..3 {
        assert_eq!(ask(shop.address, "POST /orders", &[], "X").await.body, format!("order {run}"));
        assert_eq!(shop.send("GET /orders", "ann", "k1", "").await.status, 201);
        shop.runs.fetch_sub(1, Ordering::SeqCst);
    }
    let required = ReceiverSettings { required: true, ..ReceiverSettings::default() };
    let shop = Shop::with(required, MemorySettings::default()).await;
    assert_eq!(ask(shop.address, "POST /orders", &[("user", "ann")], "X").await.status, 400);
}

#[tokio::test]
async fn without_room_for_a_key_the_handler_does_not_run() {
    let memory = MemorySettings { keys: 3, keys_of_a_caller: 2, ..MemorySettings::default() };
    let shop = Shop::with(ReceiverSettings::default(), memory).await;
    for (user, key, status) in
        [("ann", "k1", 201), ("ann", "k2", 201), ("ann", "k3", 503), ("bob", "k1", 201), ("eve", "k1", 503)]
    {
        let answer = shop.send("POST /orders", user, key, "X").await;
        assert_eq!((answer.status, answer.header("retry-after").is_some()), (status, status == 503), "{user} {key}");
    }
    assert_eq!(shop.send("POST /orders", "ann", "k1", "X").await.body, "order 1", "no key was forgotten");
    assert_eq!(shop.runs(), 3);
}

#[tokio::test]
async fn the_key_is_handed_to_the_handler() {
    async fn echo(key: IdempotencyKey) -> String {
        key.to_string()
    }
    let address = serve(Router::new().route("/", any(echo))).await;
    assert_eq!(ask(address, "POST /", &[("idempotency-key", "k1")], "").await.body, "k1");
    assert_eq!(ask(address, "POST /", &[], "").await.status, 400);
}

fn id(key: &str) -> RecordId {
    RecordId { caller: Caller::new("ann"), key: IdempotencyKey::new(key).unwrap() }
}

fn print() -> Fingerprint {
    Fingerprint::new(&Caller::new("ann"), "POST", "/orders", None, b"X")
}

fn answer(bytes: usize) -> Answer {
    let body = Some(bytes::Bytes::from(vec![b'x'; bytes]));
    Answer { status: StatusCode::CREATED, headers: http::HeaderMap::new(), body }
}

async fn keep(records: &MemoryRecords, key: &str, bytes: usize) {
    match records.claim(&id(key), &print()).await.unwrap() {
        Found::New(claim) => claim.keep(answer(bytes)).await.unwrap(),
        found => panic!("{found:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn answers_are_kept_for_their_time_and_then_forgotten() {
    let records = MemoryRecords::new(MemorySettings::default()).unwrap();
    keep(&records, "k1", 10).await;
    tokio::time::advance(Duration::from_secs(24 * 3600) - ms(1)).await;
    assert!(matches!(records.claim(&id("k1"), &print()).await.unwrap(), Found::Answered(_, _)));
    tokio::time::advance(ms(1)).await;
    keep(&records, "k2", 10).await;
    assert_eq!((records.keys(), records.bytes()), (1, 10));
    keep(&records, "k1", 10).await;
}

#[tokio::test(start_paused = true)]
async fn the_oldest_bodies_are_forgotten_and_no_key_is() {
    let records = MemoryRecords::new(MemorySettings { bytes: 100, ..MemorySettings::default() }).unwrap();
    for key in 0..10 {
        keep(&records, &format!("k{key}"), 30).await;
        tokio::time::advance(ms(1)).await;
    }
    assert_eq!((records.keys(), records.bytes()), (10, 90));
    for key in 0..10 {
        let Found::Answered(_, answer) = records.claim(&id(&format!("k{key}")), &print()).await.unwrap() else {
            panic!()
        };
        assert_eq!(answer.body.is_some(), key >= 7, "{key}");
    }
    // What was forgotten of the old ones is not counted twice when they expire.
    tokio::time::advance(Duration::from_secs(24 * 3600)).await;
    for key in 0..10 {
        keep(&records, &format!("k{key}"), 30).await;
    }
    assert_eq!((records.keys(), records.bytes()), (10, 90));
}

/// The place of what was made was kept whatever it took, so a limit on bytes was none.
#[tokio::test(start_paused = true)]
async fn answers_with_long_headers_stay_within_the_bytes_too() {
    let records = MemoryRecords::new(MemorySettings { bytes: 10_000, ..MemorySettings::default() }).unwrap();
    // The second time what was forgotten of those that have expired does not count.
    for _ in 0..2 {
        for number in 0..100 {
            let Found::New(claim) = records.claim(&id(&format!("k{number}")), &print()).await.unwrap() else {
                panic!()
            };
            let mut answer = answer(10);
            answer.headers.insert("location", "x".repeat(1_000).parse().unwrap());
            claim.keep(answer).await.unwrap();
            assert!(records.bytes() <= 10_000, "{} bytes after {number}", records.bytes());
        }
        assert_eq!(records.keys(), 100);
        let Found::Answered(_, oldest) = records.claim(&id("k0"), &print()).await.unwrap() else { panic!() };
        let Found::Answered(_, newest) = records.claim(&id("k99"), &print()).await.unwrap() else { panic!() };
        assert_eq!((oldest.headers.len(), newest.headers.len()), (0, 1));
        tokio::time::advance(MemorySettings::default().retention).await;
    }
    assert!(matches!(records.claim(&id("k0"), &print()).await.unwrap(), Found::New(_)));
    assert_eq!((records.keys(), records.bytes()), (0, 0), "the claim was dropped");
}

#[tokio::test]
async fn a_dropped_claim_gives_the_key_back_and_a_kept_one_does_not() {
    let records = MemoryRecords::new(MemorySettings::default()).unwrap();
    let found = records.claim(&id("k1"), &print()).await.unwrap();
    assert!(matches!(records.claim(&id("k1"), &print()).await.unwrap(), Found::InFlight(_)));
    drop(found);
    assert_eq!(records.keys(), 0);
    keep(&records, "k1", 1).await;
    assert!(matches!(records.claim(&id("k1"), &print()).await.unwrap(), Found::Answered(_, _)));
}

#[test]
fn a_fingerprint_is_the_same_in_every_build() {
    let print = Fingerprint::new(&Caller::new("ann"), "POST", "/orders", Some("a=1"), b"X");
    let hex: String = print.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    insta::assert_snapshot!(hex);
    let other = Fingerprint::new(&Caller::new("bob"), "POST", "/orders", Some("a=1"), b"X");
    assert_eq!(print.differences(&other).len(), 4, "the caller is a part of it");
}

/// Records that keep an answer when they are allowed to, or that cannot be reached.
struct Slow {
    records: MemoryRecords,
    keeping: Arc<Semaphore>,
    keep: Arc<Semaphore>,
    reachable: bool,
}

struct SlowClaim {
    claim: MemoryClaim,
    keeping: Arc<Semaphore>,
    keep: Arc<Semaphore>,
}

impl Records for Slow {
    type Claim = SlowClaim;

    async fn claim(&self, id: &RecordId, fingerprint: &Fingerprint) -> Result<Found<SlowClaim>, RecordsError> {
        if !self.reachable {
            return Err(RecordsError::Unavailable("no connection".into()));
        }
        Ok(match self.records.claim(id, fingerprint).await? {
            Found::New(claim) => {
                Found::New(SlowClaim { claim, keeping: self.keeping.clone(), keep: self.keep.clone() })
            }
            Found::InFlight(other) => Found::InFlight(other),
            Found::Answered(other, answer) => Found::Answered(other, answer),
        })
    }
}

impl Claim for SlowClaim {
    async fn keep(self, answer: Answer) -> Result<(), RecordsError> {
        self.keeping.add_permits(1);
        self.keep.acquire().await.unwrap().forget();
        self.claim.keep(answer).await
    }
}

async fn slow_shop(reachable: bool) -> (SocketAddr, Arc<Semaphore>, Arc<Semaphore>, Arc<AtomicU32>) {
    let records = MemoryRecords::new(MemorySettings::default()).unwrap();
    let (keeping, keep, runs) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)), Arc::new(AtomicU32::new(0)));
    let slow = Slow { records, keeping: keeping.clone(), keep: keep.clone(), reachable };
    let counted = runs.clone();
    let handler = move || async move { counted.fetch_add(1, Ordering::SeqCst).to_string() };
    let router = Router::new().route("/", any(handler)).layer(Receiver::new(slow, caller));
    (serve(router).await, keeping, keep, runs)
}

#[tokio::test]
async fn the_key_is_in_flight_and_the_client_waits_until_the_answer_is_kept() {
    let (address, keeping, keep, runs) = slow_shop(true).await;
    let headers = [("user", "ann"), ("idempotency-key", "k1")];
    let mut first = tokio::spawn(async move { ask(address, "POST /", &headers, "X").await });
    keeping.acquire().await.unwrap().forget();
    for _ in 0..3 {
        assert_eq!(ask(address, "POST /", &headers, "X").await.status, 409);
    }
    assert!(tokio::time::timeout(ms(50), &mut first).await.is_err(), "it has no answer that is not kept");
    keep.add_permits(1);
    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(ask(address, "POST /", &headers, "X").await.header("idempotent-replayed"), Some("true"));
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn without_records_the_handler_does_not_run() {
    let (address, _, _, runs) = slow_shop(false).await;
    let refused = ask(address, "POST /", &[("user", "ann"), ("idempotency-key", "k1")], "X").await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert!(!refused.body.contains("no connection"), "what fails inside is not for clients");
    assert_eq!(runs.load(Ordering::SeqCst), 0);
}
