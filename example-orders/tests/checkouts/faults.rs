//! What a client meets, and what the book of the service says then.

use annals::Tenant;
use annals::resilience::{Deadline, IdempotencyKey};
use annals::sagas::StepError;
use example_orders::services::{Client, Clients, Faults, Kind, Origin, SHOP, Server};
use serde_json::{Value, json};
use std::time::Duration;

use crate::{order, quick, shop};

struct Payment {
    server: Server,
    client: Client,
    http: reqwest::Client,
}

impl Payment {
    async fn start(folder: &std::path::Path, port: u16) -> Self {
        let server = Server::start(Kind::Payment, folder, port).await.expect("it starts");
        let client = Clients::new([&server.url; 3], quick()).expect("the settings fit").payment;
        Self { server, client, http: reqwest::Client::new() }
    }

    /// As an operator does.
    async fn set(&self, faults: Faults) -> u16 {
        let request = self.http.put(format!("{}/faults", self.server.url)).json(&faults);
        request.send().await.expect("an answer").status().as_u16()
    }

    /// Charges an order of a shop 49.00 EUR, once.
    async fn charge(&self, number: usize, of: &str) -> Result<String, StepError> {
        let body = json!({
            "order": order(number), "payment": format!("pay-{number}"), "amount": { "minor": 4900, "currency": "EUR" }
        });
        self.send(number, "do", &body, of).await
    }

    async fn refund(&self, number: usize) -> Result<(), StepError> {
        self.send(number, "undo", &json!(order(number)), shop().as_str()).await
    }

    async fn send<T: serde::de::DeserializeOwned>(
        &self,
        number: usize,
        direction: &str,
        body: &Value,
        of: &str,
    ) -> Result<T, StepError> {
        let key = IdempotencyKey::new(format!("checkout-{number}/charge/{direction}")).expect("a key");
        let origin = Origin { shop: of.to_owned(), trace: None };
        let deadline = Deadline::within(Duration::from_millis(300));
        let sent = self.client.send("/charge", body, &origin, &key, deadline);
        deadline.run(sent).await.unwrap_or_else(|over| Err(StepError::unknown(over)))
    }

    /// What was charged and what of that was given back, in cents, and how often something was charged.
    async fn book(&self, of: &str) -> (i64, i64, u64) {
        let sums = self.server.sums(&Tenant::new(of).expect("a tenant")).await.expect("they are read");
        (sums.made, sums.taken_back, sums.entries)
    }
}

#[tokio::test]
async fn each_fault_is_what_it_says_and_whatever_was_met_an_order_is_charged_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let payment = Payment::start(folder.path(), 0).await;
    let shop = shop();
    let off = Faults::default;
    let mut charged = 0;
    for (number, faults, has_effect) in [
        (1, Faults { latency_ms: 100, ..off() }, true),
        (2, Faults { errors: 1.0, ..off() }, false),
        (3, Faults { lost_answers: 1.0, ..off() }, true),
        (4, Faults { closed: true, ..off() }, false),
        (5, Faults { down: true, ..off() }, false),
    ] {
        assert_eq!(payment.set(faults.clone()).await, 200);
        let met = payment.charge(number, shop.as_str()).await;
        let expected = match number {
            1 => met.is_ok(),
            2 | 3 => matches!(met, Err(StepError::Unknown { .. })),
            4 => matches!(met, Err(StepError::Refused { .. })),
            _ => matches!(met, Err(StepError::Transient { .. })),
        };
        assert!(expected, "{faults:?}: {met:?}");
        charged += i64::from(has_effect);
        assert_eq!(payment.book(shop.as_str()).await.0, 4_900 * charged, "{faults:?}");

        // Sent again under its key, it is done, and not a second time.
        payment.set(off()).await;
        assert_eq!(payment.charge(number, shop.as_str()).await, Ok(format!("pay-{number}")), "{faults:?}");
        charged = i64::try_from(number).expect("few");
        assert_eq!(payment.book(shop.as_str()).await, (4_900 * charged, 0, charged.unsigned_abs()), "{faults:?}");
    }
    assert_eq!(payment.set(Faults { errors: 1.5, ..off() }).await, 400);
    assert_eq!(payment.server.faults.get(), off(), "what is refused changes nothing");
    payment.server.stop().await;
}

#[tokio::test]
async fn a_service_that_is_gone_is_no_effect_and_what_it_did_before_it_has_not_forgotten() {
    let folder = tempfile::tempdir().expect("a folder");
    let shop = shop();
    let payment = Payment::start(folder.path(), 0).await;
    payment.charge(1, shop.as_str()).await.expect("charged");
    let port = payment.server.url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let Payment { server, client, http } = payment;
    server.stop().await;
    let origin = Origin { shop: shop.to_string(), trace: None };
    let key = IdempotencyKey::new("checkout-2/charge/undo").expect("a key");
    let met = client.send::<()>("/charge", &order(2), &origin, &key, Deadline::NONE).await;
    assert!(matches!(met, Err(StepError::Transient { .. })), "{met:?}");

    let server = Server::start(Kind::Payment, folder.path(), port).await.expect("it starts again");
    let payment = Payment { server, client, http };
    assert_eq!(payment.charge(1, shop.as_str()).await, Ok("pay-1".to_owned()));
    assert_eq!(payment.book(shop.as_str()).await, (4_900, 0, 1));
    payment.server.stop().await;
}

#[tokio::test]
async fn shops_have_books_of_their_own_a_refund_comes_once_and_what_was_undone_is_not_done_later() {
    let folder = tempfile::tempdir().expect("a folder");
    let payment = Payment::start(folder.path(), 0).await;
    let shop = shop();
    // The same numbers in two shops.
    for of in [shop.as_str(), "south"] {
        payment.charge(1, of).await.expect("charged");
    }
    for _ in 0..2 {
        payment.refund(1).await.expect("refunded");
        payment.refund(2).await.expect("there is nothing to refund");
    }
    let late = payment.charge(2, shop.as_str()).await;
    assert!(matches!(late, Err(StepError::Refused { .. })), "{late:?}");
    assert_eq!(payment.book(shop.as_str()).await, (4_900, 4_900, 1));
    assert_eq!(payment.book("south").await, (4_900, 0, 1));

    let sums = payment.http.get(format!("{}/book", payment.server.url));
    let answer = sums.try_clone().expect("no body").send().await.expect("an answer");
    assert_eq!(answer.status(), 401, "of nobody's shop");
    let book: Value = sums.header(SHOP, "south").send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(book, json!({ "entries": 1, "made": 4900, "taken_back": 0 }));
    payment.server.stop().await;
}
