use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::Request;

use super::*;
use crate::loopback::{Answer, ask, serve};

async fn server(settings: RateLimit) -> std::net::SocketAddr {
    let limiter = RateLimiter::<String>::new("tenants", settings).unwrap();
    let tenant = |request: &Request<Body>| Some(request.headers().get("tenant")?.to_str().ok()?.to_owned());
    serve(Router::new().route("/", get(async || "ok")).layer(RateLimitLayer::new(limiter, tenant))).await
}

fn headers(answer: &Answer) -> [Option<&str>; 4] {
    ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset", "retry-after"].map(|name| answer.header(name))
}

#[tokio::test]
async fn every_answer_says_what_is_left_and_a_refusal_when_to_come_again() {
    let address = server(RateLimit { burst: Some(2), ..RateLimit::per_minute(2) }).await;
    let ask = async |tenant| ask(address, "GET /", &[("tenant", tenant)], "").await;
    let first = ask("acme").await;
    assert_eq!((first.status, headers(&first)), (200, [Some("2"), Some("1"), Some("30"), None]));
    let second = ask("acme").await;
    assert_eq!((second.status, headers(&second)), (200, [Some("2"), Some("0"), Some("60"), None]));
    let third = ask("acme").await;
    assert_eq!((third.status, headers(&third)), (429, [Some("2"), Some("0"), Some("60"), Some("30")]));
    assert_eq!(third.header("content-type"), Some("application/problem+json"));
    assert_eq!(ask("other").await.status, 200, "another tenant has a quota of its own");
}

#[tokio::test]
async fn a_caller_that_waits_as_long_as_the_answer_says_is_admitted() {
    let address = server(RateLimit::per_second(10)).await;
    let ask = async || ask(address, "GET /", &[("tenant", "acme")], "").await;
    let limited = loop {
        let answer = ask().await;
        if answer.status == 429 {
            break answer;
        }
    };
    assert_eq!(limited.header("retry-after"), Some("1"), "at most 100 ms are rounded up, never to 0");
    tokio::time::sleep(secs(1)).await;
    assert_eq!(ask().await.status, 200);
}

#[tokio::test]
async fn requests_without_a_key_are_not_limited() {
    let address = server(RateLimit::per_minute(1)).await;
    for _ in 0..3 {
        let answer = ask(address, "GET /", &[], "").await;
        assert_eq!((answer.status, headers(&answer)), (200, [None; 4]));
    }
}
