//! Deadlines of requests to a real server.

use std::net::SocketAddr;

use axum::routing::get;
use axum::{Extension, Router};

use super::*;
use crate::loopback::{Answer, ask, serve};

/// Answers with the milliseconds that are left.
async fn left(deadline: Deadline) -> String {
    deadline.left().map_or("none".to_owned(), |left| left.as_millis().to_string())
}

async fn asked(address: SocketAddr, headers: &[&str]) -> Answer {
    let headers: Vec<_> = headers.iter().map(|value| (Deadline::HEADER, *value)).collect();
    ask(address, "GET /", &headers, "").await
}

/// What a request with these headers has left: at most so much, and not much less.
async fn has_left(address: SocketAddr, headers: &[&str], expected: u128) {
    let answer = asked(address, headers).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let left: u128 = answer.body.parse().unwrap();
    assert!(left <= expected && left + 1_000 > expected, "{left} ms are left of {expected} ms, by {headers:?}");
}

#[tokio::test]
async fn a_request_has_what_its_header_says_and_never_more_than_the_service_allows() {
    let service = Router::new().route("/", get(left));
    let address = serve(service.clone().layer(Extension(LongestDeadline(ms(20_000))))).await;
    has_left(address, &["2500"], 2_500).await;
    has_left(address, &["19999"], 19_999).await;
    for longer in ["20001", "2147483647"] {
        has_left(address, &[longer], 20_000).await;
    }
    has_left(address, &[], 20_000).await;
    assert_eq!(asked(address, &["0"]).await.body, "0", "nothing is left, which is not the same as no header");
    has_left(serve(service).await, &[], 30_000).await;
}

#[tokio::test]
async fn a_header_that_is_no_deadline_is_answered_with_400_and_says_what_one_is() {
    let address = serve(Router::new().route("/", get(left))).await;
    for wrong in
        [&["soon"][..], &["-1"], &["1.5"], &[""], &["2147483648"], &["99999999999999999999"], &["5", "5"], &["\u{e9}"]]
    {
        let answer = asked(address, wrong).await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (400, Some("application/problem+json")),
            "{wrong:?}"
        );
        let text = "the header `x-deadline-ms` must be one whole number of milliseconds from 0 to 2147483647";
        assert!(answer.body.contains(text), "{wrong:?}: {}", answer.body);
    }
}

#[tokio::test]
async fn a_deadline_counts_from_its_first_extraction() {
    async fn slow(first: Deadline) -> Deadline {
        tokio::time::sleep(ms(60)).await;
        first
    }
    /// Takes its time before the handler.
    struct Authenticated;
    impl<S: Send + Sync> axum::extract::FromRequestParts<S> for Authenticated {
        type Rejection = HeaderError;
        async fn from_request_parts(parts: &mut http::request::Parts, state: &S) -> Result<Self, HeaderError> {
            slow(Deadline::from_request_parts(parts, state).await?).await;
            Ok(Self)
        }
    }
    let handler = async |_: Authenticated, deadline: Deadline, again: Deadline| {
        assert_eq!(deadline, again);
        left(deadline).await
    };
    let first = axum::middleware::from_extractor::<Deadline>();
    let address = serve(Router::new().route("/", get(handler)).layer(first)).await;
    let answer = asked(address, &["5000"]).await;
    assert!(answer.body.parse::<u64>().unwrap() <= 4_940, "{answer:?}");
}
