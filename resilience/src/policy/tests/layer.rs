use std::convert::Infallible;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use tower_layer::Layer;
use tower_service::Service;

use super::*;

/// Answers with the statuses of a script, and counts the requests it got.
#[derive(Clone)]
struct Scripted {
    script: &'static [u16],
    got: Arc<std::sync::Mutex<Vec<&'static str>>>,
    ready: bool,
}

impl Scripted {
    fn new(script: &'static [u16]) -> Self {
        Self { script, got: Arc::default(), ready: false }
    }
}

impl Service<&'static str> for Scripted {
    type Response = u16;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<u16, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: &'static str) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "a service is asked whether it is ready before each call");
        let mut got = self.got.lock().unwrap();
        let status = self.script[got.len()];
        got.push(request);
        Box::pin(async move {
            sleep(ms(5)).await;
            Ok(status)
        })
    }
}

/// Sends one request through a layer that may repeat `GET` only.
async fn send(
    script: &'static [u16],
    request: &'static str,
) -> (Result<u16, CallError<Infallible>>, Vec<&'static str>, Policy) {
    let policy = Policy::fast("stock").retry(fixed()).build().unwrap();
    let layer = PolicyLayer::new(
        policy.clone(),
        |request: &&'static str| (*request == "GET").then_some(*request),
        |result: &Result<u16, Infallible>| {
            result.as_ref().map_or(Class::Failure, |status| Class::of_status(*status, None))
        },
    );
    let scripted = Scripted::new(script);
    let mut service = layer.layer(scripted.clone());
    let answer = service.call(request).await;
    let got = scripted.got.lock().unwrap().clone();
    (answer, got, policy)
}

#[tokio::test(start_paused = true)]
async fn a_request_that_may_be_repeated_is_sent_again() {
    let (answer, got, policy) = send(&[503, 502, 200], "GET").await;
    assert_eq!((answer.unwrap(), got), (200, vec!["GET"; 3]));
    assert_eq!(policy.breaker().snapshot().failures, 2);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_must_not_be_repeated_is_sent_once_and_its_answer_is_returned() {
    let (answer, got, _) = send(&[503, 200], "POST").await;
    assert_eq!((answer.unwrap(), got), (503, vec!["POST"]));
}

#[tokio::test(start_paused = true)]
async fn what_a_guard_refuses_does_not_reach_the_service() {
    let policy = Policy::fast("stock").breaker_mode(Mode::HeldOpen).build().unwrap();
    let layer = PolicyLayer::new(policy, |_: &&'static str| None, |_: &Result<u16, Infallible>| Class::Success);
    let scripted = Scripted::new(&[]);
    let error = layer.layer(scripted.clone()).call("GET").await.unwrap_err();
    assert_eq!((error.guard(), error.attempts), (Some(Guard::Breaker), 0));
    assert!(scripted.got.lock().unwrap().is_empty());
}

/// Chaos makes the first attempt fail without a request, so nothing was known of a second one.
#[tokio::test(start_paused = true)]
async fn an_injected_error_is_made_again_if_the_request_may_be() {
    for (request, expected) in [("GET", Ok(200)), ("POST", Err(1))] {
        let policy = Policy::fast("stock").retry(fixed()).build().unwrap();
        policy.set_chaos(Some(ChaosSettings { errors: 1.0, ..ChaosSettings::default() })).unwrap();
        let layer = PolicyLayer::new(
            policy.clone(),
            |request: &&'static str| (*request == "GET").then_some(*request),
            |_: &Result<u16, Infallible>| Class::Success,
        );
        let mut service = layer.layer(Scripted::new(&[200]));
        let without_chaos = async {
            sleep(ms(50)).await;
            policy.set_chaos(None).unwrap();
        };
        let (answer, ()) = tokio::join!(service.call(request), without_chaos);
        assert_eq!(answer.map_err(|error| error.attempts), expected, "{request}");
    }
}
