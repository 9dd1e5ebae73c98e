//! Lists are read in parts: each order is in one part, whatever else happens in between.

use annals::engine::{IdSource, Payload, TimeOrderedIds};
use annals::{Append, EventId, EventStore, ExpectedVersion, NewEvent, PostgresOptions, StreamId, Tenant};
use serde_json::json;

use crate::server::{ADMIN, ALICE, BETA, Server, Store};

/// Fifty orders in one append, so at one time, of which ten cost the same; of the shop of the test.
async fn fifty_at_once(store: &Store) {
    let alpha = Tenant::new("alpha").expect("a tenant");
    let placed = |number: i64| {
        let cents = if number < 10 { 500 } else { 1_000 + number };
        let price = json!({ "minor": cents, "currency": "EUR" });
        let line = json!({ "product": "100% cotton_towel", "quantity": 1, "price": price });
        let payload = json!({ "customer": format!("c-{}", number % 3), "lines": [line], "total": price }).to_string();
        let stream = StreamId::new(alpha.clone(), "order", format!("o-{number:02}")).expect("an id");
        let payload = Payload::from_json(&payload).expect("JSON");
        let event = NewEvent::raw(EventId::new(TimeOrderedIds.next_id()).expect("an id"), "order.placed", 3, payload)
            .expect("an event");
        (stream, event)
    };
    let (stream, event) = placed(0);
    let mut append = Append::to(stream, ExpectedVersion::NoStream, vec![event]);
    for (stream, event) in (1..50).map(placed) {
        append = append.and(stream, ExpectedVersion::NoStream, vec![event]);
    }
    match store {
        Store::File(file, _) => annals::sqlite(file).await.expect("opened").append_many(append).await,
        Store::Postgres(database) => {
            PostgresOptions::new(database.url()).migrate().open().await.expect("opened").append_many(append).await
        }
    }
    .expect("appended");
}

impl Server {
    /// All orders of a list, part by part; `between` is called after each part.
    async fn parts(&self, query: &str, backward: bool, mut between: impl AsyncFnMut(usize)) -> Vec<String> {
        let (mut all, mut cursor) = (Vec::new(), None::<String>);
        for part in 0.. {
            let from = match (&cursor, backward) {
                (None, false) => String::new(),
                (None, true) => panic!("a backward walk begins at a cursor"),
                (Some(cursor), false) => format!("&after={cursor}"),
                (Some(cursor), true) => format!("&before={cursor}"),
            };
            let page = self.get(&format!("/orders?limit=7&{query}{from}"), ADMIN).await.json();
            let orders = page["orders"].as_array().expect("a list").clone();
            all.extend(orders.iter().filter_map(|order| order["order_id"].as_str()).map(str::to_owned));
            between(part).await;
            match page["next"].as_str() {
                Some(next) => cursor = Some(next.to_owned()),
                None => return all,
            }
        }
        all
    }

    /// The same from the last part to the first; as it is read, so mirrored.
    async fn backward(&self, query: &str) -> Vec<String> {
        let (mut last, mut cursor) = (None, String::new());
        loop {
            let page = self.get(&format!("/orders?limit=7&{query}{cursor}"), ADMIN).await.json();
            match page["next"].as_str() {
                Some(next) => cursor = format!("&after={next}"),
                None => {
                    last = Some(page).or(last);
                    break;
                }
            }
        }
        let mut all = Vec::new();
        while let Some(page) = last {
            let orders = page["orders"].as_array().expect("a list");
            all.extend(orders.iter().rev().filter_map(|order| order["order_id"].as_str()).map(str::to_owned));
            last = match page["previous"].as_str() {
                Some(previous) => {
                    Some(self.get(&format!("/orders?limit=7&{query}&before={previous}"), ADMIN).await.json())
                }
                None => None,
            };
        }
        all
    }
}

#[tokio::test]
async fn each_order_is_in_one_part_by_every_sort_in_both_directions_on_both_databases() {
    for store in Store::each().await {
        let server = Server::on(store).await;
        fifty_at_once(&server.store).await;
        let seen = server.write("PUT", "/customers/alice", ADMIN, "seen", &json!({ "name": "Alice" })).await;
        server.get(&format!("/orders?at_least={}", seen.header("x-position")), ADMIN).await;
        let now = server.get("/orders/o-1001/history", ADMIN).await.json()["events"][0]["at"].clone();
        assert!(now.is_string());
        for sort in ["placed-at", "-placed-at", "total", "-total", "customer", "-customer"] {
            let forward = server.parts(&format!("sort={sort}"), false, async |_| {}).await;
            let mut distinct = forward.clone();
            distinct.sort();
            distinct.dedup();
            assert_eq!((forward.len(), distinct.len()), (57, 57), "{sort}");
            let mut mirrored = server.backward(&format!("sort={sort}")).await;
            mirrored.reverse();
            assert_eq!(mirrored, forward, "{sort}");
            let other = sort.strip_prefix('-').map_or(format!("-{sort}"), str::to_owned);
            let mut opposite = server.parts(&format!("sort={other}"), false, async |_| {}).await;
            opposite.reverse();
            assert_eq!(opposite, forward, "{sort} and {other}");
        }
        // Orders that come and change in between hide no other.
        let before = server.parts("sort=total&customer=c-1", false, async |_| {}).await;
        let walked = server
            .parts("sort=total&customer=c-1", false, async |part| {
                let once = format!("between-{part}");
                server.place(ADMIN, &once, "c-1", 400 + part as i64).await;
                let why = json!({ "reason": "between" });
                let cancelled = server.post(&format!("/orders/{}/cancel", before[part]), ADMIN, &once, &why).await;
                assert_eq!(cancelled.status, 422, "the key was used: {}", cancelled.text);
                let cancelled =
                    server.post(&format!("/orders/{}/cancel", before[part]), ADMIN, &format!("c{once}"), &why).await;
                assert_eq!(cancelled.status, 200, "{}", cancelled.text);
            })
            .await;
        let missing: Vec<_> = before.iter().filter(|order| !walked.contains(order)).collect();
        assert!(missing.is_empty(), "{missing:?}");

        let found = async |q: &str| {
            let page = server.get(&format!("/orders?limit=100&q={q}"), ADMIN).await.json();
            page["orders"].as_array().map_or(0, Vec::len)
        };
        assert_eq!(found("100%25%20COTTON_").await, 50, "a search is for the text as it is, in any case");
        assert_eq!((found("100_").await, found("%25%25").await, found("o-1003").await), (0, 0, 1));
        // By the name of a customer, which is in another read model.
        assert_eq!((found("bob%20BROWN").await, found("b%25n").await), (3, 0));
        let paid = server.get("/orders?status=paid&limit=100", ADMIN).await.json();
        assert_eq!(paid["orders"].as_array().map(Vec::len), Some(1));
        assert_eq!(server.get("/orders?limit=100", BETA).await.json()["orders"].as_array().map(Vec::len), Some(5));
        for (query, code) in [
            ("limit=0", "query-invalid"),
            ("limit=101", "query-invalid"),
            ("limit=x", "query-invalid"),
            ("sort=price", "query-invalid"),
            ("statuss=paid", "query-invalid"),
            ("status=eaten", "query-invalid"),
            ("after=00", "cursor-invalid"),
            ("before=%C3%A4", "cursor-invalid"),
            ("after=00&before=00", "query-invalid"),
        ] {
            let refused = server.get(&format!("/orders?{query}"), ADMIN).await;
            assert_eq!(refused.problem(), (400, code.to_owned()), "{query}");
        }
        let next = server.get("/orders?limit=7&sort=total", ADMIN).await.json()["next"].as_str().map(str::to_owned);
        let other = server.get(&format!("/orders?sort=-total&after={}", next.expect("others follow")), ADMIN).await;
        assert_eq!(other.problem(), (400, "cursor-invalid".to_owned()));
        // A customer sees own orders alone, whatever is asked for.
        let own = server.get("/orders?limit=100", ALICE).await.json();
        assert!(
            own["orders"].as_array().is_some_and(|all| all.len() == 4 && all.iter().all(|o| o["customer"] == "alice"))
        );
        assert_eq!(server.get("/orders?customer=bob", ALICE).await.problem(), (404, "not-found".to_owned()));
    }
}
