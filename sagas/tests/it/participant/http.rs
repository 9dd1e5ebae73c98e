//! Participants behind a real server, called by sagas.

use std::net::SocketAddr;

use annals_eventstore::{Context, SystemClock};
use annals_resilience::Policy;
use annals_sagas::participant::outcome;
use annals_sagas::{Engine, Saga, SagaId, Status, StepRetry};
use axum::Router;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use tokio::sync::Semaphore;

use super::*;
use crate::loopback::{Answer, ask, open, serve};

#[derive(Serialize, Deserialize, Clone)]
struct Charge {
    cents: u32,
}

/// A payment service on loopback.
struct Service {
    two: Two,
    provider: Provider,
    /// Charges of 9 cents begin, and wait.
    begun: Arc<Semaphore>,
    gate: Arc<Semaphore>,
    address: SocketAddr,
}

impl Service {
    async fn start(two: Two) -> Self {
        let (provider, begun, gate) = (Provider::default(), Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let [participant, _] = two.participants();
        // Here the tenant is a header; elsewhere it is what authentication has found.
        let participant = participant.contexts(|request| {
            let name = request.headers.get("tenant").map_or(Some("default"), |name| name.to_str().ok());
            name.filter(|name| !name.is_empty()).and_then(|name| Tenant::new(name).ok()).map(Context::of)
        });
        let (charging, refunding) = (provider.clone(), provider.clone());
        let (has_begun, opens) = (begun.clone(), gate.clone());
        let charge = move |Charge { cents }: Charge, call: StepCall| {
            let (provider, begun, gate) = (charging.clone(), has_begun.clone(), opens.clone());
            async move {
                match cents {
                    0 => return Err(StepError::refused("no cover")),
                    1 => return Err(StepError::unknown("no answer")),
                    2 => return Err(StepError::transient("later")),
                    3 => panic!("on purpose"),
                    9 => {
                        begun.add_permits(1);
                        gate.acquire().await.map_err(StepError::unknown)?.forget();
                    }
                    _ => {}
                }
                Ok(provider.charge(&call))
            }
        };
        let refund = move |_: Charge, _: Option<u32>, call: StepCall| {
            refunding.refund(&call);
            async { Ok(()) }
        };
        let tills = two.stores[0].aggregate::<Till>();
        let paid = tills.clone();
        let pay_in = move |(): ()| answering(&tills, till(), TillEvent::PaidIn, |till: &Till| till.coins);
        let pay_out = move |(): ()| command(&paid, till(), TillEvent::PaidOut);
        let router = Router::new()
            .route("/charge", participant.remote(charge, refund))
            .route(
                "/charge-too",
                participant.remote(|_: Charge, _| async { Ok(0) }, |_: Charge, _: Option<u32>, _| async { Ok(()) }),
            )
            .route("/pay-in", participant.local(pay_in, pay_out));
        Self { two, provider, begun, gate, address: serve(router).await }
    }

    async fn send(&self, path: &str, key: &str, body: &str) -> Answer {
        ask(self.address, &format!("POST {path}"), &[("idempotency-key", key)], body).await
    }
}

#[tokio::test]
async fn each_answer_says_how_a_saga_is_to_take_it() {
    let service = Service::start(Two::on_memory().await).await;
    for (path, key, body, status, says) in [
        ("/charge", "c-1/charge/do", r#"{"cents":5}"#, 200, "17"),
        ("/charge", "c-1/charge/do", r#"{ "cents": 5 }"#, 200, "17"),
        ("/charge", "c-1/charge/do", r#"{"cents":6}"#, 422, "refused"),
        ("/pay-in", "c-1/charge/do", "", 422, "refused"),
        ("/charge", "c-1/charge/undo", r#"{"cents":5}"#, 204, ""),
        ("/charge", "c-1/charge/undo", r#"{"cents":5}"#, 204, ""),
        ("/charge", "c-1/charge/do", r#"{"cents":5}"#, 410, "refused"),
        ("/charge", "c-2/charge/undo", r#"{"cents":5}"#, 204, ""),
        ("/charge", "c-2/charge/do", r#"{"cents":5}"#, 410, "refused"),
        ("/charge", "c-3/charge/do", r#"{"cents":0}"#, 422, "no cover"),
        ("/charge", "c-3/charge/do", r#"{"cents":0}"#, 422, "no cover"),
        ("/charge", "c-4/charge/do", r#"{"cents":1}"#, 500, "unknown"),
        ("/charge", "c-5/charge/do", r#"{"cents":2}"#, 503, "transient"),
        ("/charge", "c-6/charge/do", r#"{"cents":3}"#, 500, "unknown"),
        ("/charge", "c-6/charge/do", r#"{"cents":3}"#, 409, "transient"),
        ("/charge", "c-7/charge/do", r#"{"dollars":3}"#, 400, "refused"),
        ("/charge", "c-7/charge/do", "cents", 400, "refused"),
        ("/charge", "c-7/charge", r#"{"cents":5}"#, 400, "refused"),
        ("/charge", "$c/charge/do", r#"{"cents":5}"#, 400, "refused"),
        ("/charge", "c 7/charge/do", r#"{"cents":5}"#, 400, "Idempotency-Key"),
        ("/pay-in", "c-8/pay/do", "", 200, "1"),
        ("/pay-in", "c-8/pay/do", "null", 200, "1"),
        ("/charge", "c-8/pay/undo", r#"{"cents":5}"#, 422, "another request"),
        ("/pay-in", "c-8/pay/undo", "", 204, ""),
        // The same body, at another address: the refund of the one ran for the charge of the other.
        ("/charge", "c-9/charge/do", r#"{"cents":5}"#, 200, "17"),
        ("/charge-too", "c-9/charge/do", r#"{"cents":5}"#, 422, "another request"),
        ("/charge-too", "c-9/charge/undo", r#"{"cents":5}"#, 422, "another request"),
        ("/pay-in", "c-9/charge/undo", "", 422, "another request"),
        ("/charge", "c-9/charge/undo", r#"{"cents":5}"#, 204, ""),
        ("/charge-too", "c-9/charge/undo", r#"{"cents":5}"#, 422, "another request"),
    ] {
        let answer = service.send(path, key, body).await;
        assert_eq!(answer.status, status, "{key} {body}: {answer:?}");
        assert!(answer.body.contains(says), "{key} {body}: {answer:?}");
        assert_eq!(answer.header("retry-after").is_some(), status == 409, "{answer:?}");
    }
    assert_eq!(service.provider.counted(), (0, 2, 2));
    let key = ("idempotency-key", "c-1/charge/do");
    let other = ask(service.address, "POST /charge", &[key, ("tenant", "north")], r#"{"cents":5}"#).await;
    assert_eq!((other.status, service.provider.counted().1), (200, 3));
    let nobody = ask(service.address, "POST /charge", &[key, ("tenant", "")], r#"{"cents":5}"#).await;
    assert_eq!(nobody.status, 401);
}

#[tokio::test]
async fn a_step_goes_on_although_its_client_has_left_and_another_call_waits_for_it() {
    let service = Service::start(Two::on_sqlite().await).await;
    let (key, body) = ("c-1/charge/do", r#"{"cents":9}"#);
    let client = open(service.address, "POST /charge", &[("idempotency-key", key)], body).await.unwrap();
    service.begun.acquire().await.unwrap().forget();
    drop(client);
    for _ in 0..5 {
        let other = service.send("/charge", key, body).await;
        assert_eq!((other.status, other.header("retry-after")), (409, Some("1")));
    }
    service.gate.add_permits(1);
    let stored = loop {
        let answer = service.send("/charge", key, body).await;
        if answer.status != 409 {
            break answer;
        }
    };
    assert_eq!((stored.status, stored.body.as_str(), service.provider.counted().1), (200, "17", 1));
    assert_eq!(service.two.recorded(&StepKey::new("c-1/charge").unwrap()).await.len(), 2);
}

/// The client side, as the guide has it, over a client that knows nothing of annals.
async fn post<T: serde::de::DeserializeOwned>(
    address: SocketAddr,
    path: &str,
    key: &str,
    body: String,
) -> Result<T, StepError> {
    let answer = ask(address, &format!("POST {path}"), &[("idempotency-key", key)], &body).await;
    let mut headers = HeaderMap::new();
    if let Some(wait) = answer.header("retry-after") {
        headers.insert(HeaderName::from_static("retry-after"), wait.parse().map_err(StepError::unknown)?);
    }
    let status = StatusCode::from_u16(answer.status).map_err(StepError::unknown)?;
    outcome(status, &headers, answer.body.as_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sagas_over_http_are_completed_or_leave_no_effect() {
    let service = Service::start(Two::on_sqlite().await).await;
    let address = service.address;
    let policy = Policy::medium("payments").build().unwrap();
    let quickly = StepRetry { attempts: 3, first: Duration::from_millis(1), most: Duration::from_millis(2) };
    let body = |charge: &Charge| serde_json::to_string(charge).unwrap();
    let saga = Saga::<Charge>::new("checkout")
        .remote("charge", &policy, move |charge, call| async move {
            post::<u32>(address, "/charge", call.key().as_str(), body(&charge)).await
        })
        .retry(quickly)
        .undo(move |charge, call| async move { post(address, "/charge", call.key().as_str(), body(&charge)).await })
        .remote("pay-in", &policy, move |_, call| async move {
            post::<u32>(address, "/pay-in", call.key().as_str(), String::new()).await
        })
        .undo(move |_, call| async move { post(address, "/pay-in", call.key().as_str(), String::new()).await })
        .build()
        .unwrap();
    // The saga has a store of its own.
    let engine = Engine::new(MemoryStore::new(), saga, SystemClock);
    for (number, cents, status) in [
        (1, 5, Status::Completed),
        (2, 5, Status::Completed),
        (3, 5, Status::Completed),
        // The till is full: the charge is refunded.
        (4, 5, Status::Compensated),
        // No cover.
        (5, 0, Status::Compensated),
        // Of unknown outcome each time.
        (6, 1, Status::Compensated),
    ] {
        let id = SagaId::new(format!("c-{number}")).unwrap();
        engine.start(&id, Charge { cents }).await.unwrap();
        assert_eq!(engine.run_to_end(&id).await.unwrap().status, status, "{number}");
    }
    assert_eq!(service.two.till().await.coins, 3);
    // Three are kept. What was of unknown outcome was refunded too.
    assert_eq!(service.provider.counted(), (3, 4, 2));
    let refused = service.send("/charge", "c-4/charge/do", r#"{"cents":5}"#).await;
    assert_eq!(refused.status, 410);
}
