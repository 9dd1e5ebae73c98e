//! Bodies that nobody has read to their end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use futures::{StreamExt, stream};

/// Says with the answer that its connection ends, if the body of the request was not read to its end: the connection is of no use after
/// that, and a client that is not told so may send its next request there.
pub async fn close(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let is_read = Arc::new(AtomicBool::new(false));
    let read = is_read.clone();
    let end = stream::poll_fn(move |_| {
        read.store(true, Ordering::Relaxed);
        Poll::Ready(None)
    });
    let request = request.map(|body| Body::from_stream(body.into_data_stream().chain(end)));
    let mut response = next.run(request).await;
    if !is_read.load(Ordering::Relaxed) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
