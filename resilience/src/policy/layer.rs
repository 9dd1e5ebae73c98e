//! A policy as a layer of tower, over the same engine.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use tower_layer::Layer;
use tower_service::Service;

use super::{Call, Policy};
use crate::class::{Class, ResultJudge};
use crate::deadline::Deadline;
use crate::error::CallError;

/// Puts a [`Policy`] around a service of tower.
///
/// `repeat` gives the request again for a further attempt, or `None` for one that must not be made again: then there is one
/// attempt. `judge` says the class of a result, so a response with status 503 counts as what it is.
///
/// Readiness is left to the attempt: a service that is not ready takes the attempt's time.
///
/// ```
/// # use annals_resilience::{Class, Policy, PolicyLayer, retry::Retry};
/// # use std::convert::Infallible;
/// # use std::{future::Ready, task::{Context, Poll}};
/// # use tower_layer::Layer;
/// # use tower_service::Service;
/// # #[derive(Clone)] struct Client;
/// # impl Service<u16> for Client {
/// #     type Response = u16;
/// #     type Error = Infallible;
/// #     type Future = Ready<Result<u16, Infallible>>;
/// #     fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> { Poll::Ready(Ok(())) }
/// #     fn call(&mut self, request: u16) -> Self::Future { std::future::ready(Ok(request)) }
/// # }
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let stock = Policy::fast("stock").retry(Retry::default()).build()?;
/// let layer = PolicyLayer::new(
///     stock.clone(),
///     |request: &u16| Some(*request),
///     |response: &Result<u16, Infallible>| response.as_ref().map_or(Class::Failure, |status| Class::of_status(*status, None)),
/// );
/// let mut client = layer.layer(Client);
/// // The last response is returned when there is no further attempt.
/// assert_eq!(client.call(503).await?, 503);
/// assert_eq!(stock.breaker().snapshot().failures, 3);
/// # Ok(())
/// # }
/// ```
pub struct PolicyLayer<R, J> {
    policy: Policy,
    repeat: Arc<R>,
    judge: Arc<J>,
}

impl<R, J> PolicyLayer<R, J> {
    /// A layer with this policy.
    pub fn new(policy: Policy, repeat: R, judge: J) -> Self {
        Self { policy, repeat: Arc::new(repeat), judge: Arc::new(judge) }
    }
}

impl<R, J> Clone for PolicyLayer<R, J> {
    fn clone(&self) -> Self {
        Self { policy: self.policy.clone(), repeat: self.repeat.clone(), judge: self.judge.clone() }
    }
}

impl<S, R, J> Layer<S> for PolicyLayer<R, J> {
    type Service = PolicyService<S, R, J>;

    fn layer(&self, service: S) -> Self::Service {
        PolicyService { service, layer: self.clone() }
    }
}

/// A service with a policy around it, from [`PolicyLayer`].
pub struct PolicyService<S, R, J> {
    service: S,
    layer: PolicyLayer<R, J>,
}

impl<S: Clone, R, J> Clone for PolicyService<S, R, J> {
    fn clone(&self) -> Self {
        Self { service: self.service.clone(), layer: self.layer.clone() }
    }
}

impl<S, Req, R, J> Service<Req> for PolicyService<S, R, J>
where
    S: Service<Req> + Clone + Send + 'static,
    S::Future: Send,
    S::Response: Send,
    S::Error: Send,
    Req: Send + 'static,
    R: Fn(&Req) -> Option<Req> + Send + Sync + 'static,
    J: Fn(&Result<S::Response, S::Error>) -> Class + Send + Sync + 'static,
{
    type Response = S::Response;
    type Error = CallError<S::Error>;
    type Future = BoxFuture<'static, Result<S::Response, CallError<S::Error>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let service = self.service.clone();
        let PolicyLayer { policy, repeat, judge } = self.layer.clone();
        Box::pin(async move {
            let judge = move |result: &Result<S::Response, S::Error>| judge(result);
            // Asked before the first attempt, which chaos may make fail without a request.
            let mut second = Some(repeat(&request));
            let has_next = &AtomicBool::new(matches!(second, Some(Some(_))));
            let mut next = Some(request);
            let attempt = move |_: Call| {
                let mut service = service.clone();
                let request = next.take().expect("a further attempt is made only if there is a request for it");
                next = second.take().unwrap_or_else(|| repeat(&request));
                has_next.store(next.is_some(), Ordering::Relaxed);
                async move {
                    poll_fn(|context| service.poll_ready(context)).await?;
                    service.call(request).await
                }
            };
            let repeatable = || has_next.load(Ordering::Relaxed);
            policy.engine.run(repeatable, Deadline::NONE, &ResultJudge(judge), attempt).await
        })
    }
}

impl<R, J> fmt::Debug for PolicyLayer<R, J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicyLayer").field("policy", &self.policy.name()).finish_non_exhaustive()
    }
}

impl<S, R, J> fmt::Debug for PolicyService<S, R, J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicyService").field("policy", &self.layer.policy.name()).finish_non_exhaustive()
    }
}
