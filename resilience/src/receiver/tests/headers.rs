//! The service without a server, which would add headers of its own.

use axum::routing::post;
use tower_service::Service;

use super::*;

#[tokio::test]
async fn a_repeat_has_the_headers_of_the_answer_but_none_of_its_connection_and_its_moment() {
    const OF_THE_MOMENT: [(&str, &str); 5] = [
        ("date", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("connection", "close"),
        ("trailer", "sum"),
        ("upgrade", "h2c"),
        ("transfer-encoding", "chunked"),
    ];
    let handler = async || (OF_THE_MOMENT, [("order", "7"), ("etag", "v1")], "paid");
    let records = MemoryRecords::new(MemorySettings::default()).unwrap();
    let mut service: Router = Router::new().route("/", post(handler)).layer(Receiver::new(records, caller));
    for replayed in [false, true] {
        let request = Request::post("/").header("user", "ann").header("idempotency-key", "k1");
        let response = service.call(request.body(Body::empty()).unwrap()).await.unwrap();
        let headers = response.headers();
        assert_eq!(headers.contains_key("idempotent-replayed"), replayed);
        assert_eq!((&headers["order"], &headers["etag"]), (&"7".parse().unwrap(), &"v1".parse().unwrap()));
        for (name, _) in OF_THE_MOMENT {
            assert_eq!(headers.contains_key(name), !replayed, "`{name}`, replayed: {replayed}");
        }
    }
}

#[tokio::test]
async fn requests_that_change_nothing_are_handled_each_time_whatever_their_key_and_caller() {
    let runs = Arc::new(AtomicU32::new(0));
    let counted = runs.clone();
    let handler = async move || counted.fetch_add(1, Ordering::SeqCst).to_string();
    let records = MemoryRecords::new(MemorySettings::default()).unwrap();
    let settings = ReceiverSettings { required: true, ..ReceiverSettings::default() };
    let receiver = Receiver::with(records.clone(), caller, settings);
    let mut service: Router = Router::new().route("/", any(handler)).layer(receiver);
    for method in ["GET", "GET", "HEAD", "OPTIONS", "TRACE"] {
        let request = Request::builder().method(method).header("idempotency-key", "k1");
        let response = service.call(request.uri("/").body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(
            (response.status(), response.headers().contains_key("idempotent-replayed")),
            (StatusCode::OK, false)
        );
    }
    assert_eq!((runs.load(Ordering::SeqCst), records.keys()), (5, 0));
}
