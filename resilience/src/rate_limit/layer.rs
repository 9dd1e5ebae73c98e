use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use tower_layer::Layer;
use tower_service::Service;

use super::{Quota, RateLimiter, header_seconds};
use crate::http::problem;

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// A layer of tower that counts requests by key, and refuses those above the quota with 429.
///
/// Every answer has `ratelimit-limit`, `ratelimit-remaining` and `ratelimit-reset`, of which the last is in seconds; a
/// refusal has `retry-after` too, and the code `rate-limited`. Waits are rounded up and never 0: a caller that waits that long is admitted.
pub struct RateLimitLayer<K: Hash + Eq + Clone, F> {
    shared: Arc<Shared<K, F>>,
}

struct Shared<K: Hash + Eq + Clone, F> {
    limiter: RateLimiter<K>,
    key: F,
}

impl<K: Hash + Eq + Clone, F> RateLimitLayer<K, F> {
    /// `key` says whose quota a request uses, as its tenant's; `None` for one that is not limited.
    pub fn new<B>(limiter: RateLimiter<K>, key: F) -> Self
    where
        F: Fn(&Request<B>) -> Option<K>,
    {
        Self { shared: Arc::new(Shared { limiter, key }) }
    }

    /// The limiter.
    pub fn limiter(&self) -> &RateLimiter<K> {
        &self.shared.limiter
    }
}

impl<S, K: Hash + Eq + Clone, F> Layer<S> for RateLimitLayer<K, F> {
    type Service = RateLimitService<S, K, F>;

    fn layer(&self, service: S) -> Self::Service {
        RateLimitService { service, shared: self.shared.clone() }
    }
}

/// A service behind a [`RateLimitLayer`].
pub struct RateLimitService<S, K: Hash + Eq + Clone, F> {
    service: S,
    shared: Arc<Shared<K, F>>,
}

impl<S, K, F, B, A> Service<Request<B>> for RateLimitService<S, K, F>
where
    S: Service<Request<B>, Response = Response<A>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    A: From<Bytes> + Send + 'static,
    K: Hash + Eq + Clone,
    F: Fn(&Request<B>) -> Option<K>,
{
    type Response = Response<A>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<A>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let Shared { limiter, key } = &*self.shared;
        match key(&request).map(|key| limiter.check(&key)) {
            None => Box::pin(self.service.call(request)),
            Some(Ok(quota)) => {
                let answer = self.service.call(request);
                Box::pin(async move {
                    let mut response = answer.await?;
                    insert(response.headers_mut(), quota);
                    Ok(response)
                })
            }
            Some(Err(limited)) => {
                let mut response = problem(StatusCode::TOO_MANY_REQUESTS, "rate-limited", &limited.to_string());
                insert(response.headers_mut(), limited.quota);
                // The next call may pass in less than a nanosecond that a duration can say; 0 would mean now.
                let seconds = header_seconds(limited.retry_after).max(1);
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
                Box::pin(std::future::ready(Ok(response)))
            }
        }
    }
}

fn insert(headers: &mut HeaderMap, quota: Quota) {
    headers.insert(LIMIT, HeaderValue::from(quota.limit));
    headers.insert(REMAINING, HeaderValue::from(quota.remaining));
    headers.insert(RESET, HeaderValue::from(header_seconds(quota.reset)));
}

impl<K: Hash + Eq + Clone, F> Clone for RateLimitLayer<K, F> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<S: Clone, K: Hash + Eq + Clone, F> Clone for RateLimitService<S, K, F> {
    fn clone(&self) -> Self {
        Self { service: self.service.clone(), shared: self.shared.clone() }
    }
}

impl<K: Hash + Eq + Clone, F> fmt::Debug for RateLimitLayer<K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitLayer").field("limiter", &self.shared.limiter).finish_non_exhaustive()
    }
}

impl<S, K: Hash + Eq + Clone, F> fmt::Debug for RateLimitService<S, K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitService").field("limiter", &self.shared.limiter).finish_non_exhaustive()
    }
}
