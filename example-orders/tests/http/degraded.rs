//! What the service answers while something that it needs is really gone: the read side, the whole database, the payment service.

use annals::engine::{Clock, SystemClock};
use annals_scratch::Database;
use example_orders::services::{Faults, Kind, Server as Service};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};

use crate::browser::Browser;
use crate::checkouts::choreographed;
use crate::server::{ADMIN, ALICE, Answer, BETA, BOB, Server, Store};

/// The list of orders, which nobody can read.
enum Broken {
    /// Its view is gone; this makes it again.
    Removed(SqliteConnection, String),
    /// Its table is locked until this is dropped.
    Locked(PgConnection),
}

impl Broken {
    async fn of(store: &Store) -> Self {
        match store {
            Store::File(file, _) => {
                let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
                let mut connection = SqliteConnection::connect_with(&options).await.expect("it opens");
                let view = sqlx::query_scalar("SELECT sql FROM sqlite_schema WHERE name = 'order_list'");
                let view = view.fetch_one(&mut connection).await.expect("there is a view");
                sqlx::query("DROP VIEW order_list").execute(&mut connection).await.expect("dropped");
                Self::Removed(connection, view)
            }
            Store::Postgres(database) => {
                let mut connection = PgConnection::connect(database.url()).await.expect("it answers");
                let lock = "BEGIN; LOCK TABLE order_list IN ACCESS EXCLUSIVE MODE";
                sqlx::raw_sql(lock).execute(&mut connection).await.expect("locked");
                Self::Locked(connection)
            }
        }
    }

    async fn repair(self) {
        match self {
            Self::Removed(mut connection, view) => {
                sqlx::raw_sql(AssertSqlSafe(view)).execute(&mut connection).await.expect("made");
                connection.close().await.expect("closed");
            }
            Self::Locked(connection) => connection.close().await.expect("closed"),
        }
    }
}

fn ids(page: &Answer) -> Vec<String> {
    let page = page.json();
    let orders = page["orders"].as_array().into_iter().flatten();
    orders.filter_map(|order| order["order_id"].as_str()).map(str::to_owned).collect()
}

#[tokio::test]
async fn a_list_that_cannot_be_read_is_the_last_one_and_says_so_and_what_it_has_not_on_both_databases() {
    for store in Store::each().await {
        let server = Server::on(store).await;
        let (_, first) = server.place(ADMIN, "first", "alice", 100).await;
        let path = format!("/orders?at_least={first}");
        let fresh = server.get(&path, ADMIN).await;
        assert_eq!((fresh.status, fresh.header("x-stale"), fresh.header("age")), (200, "", ""), "{}", fresh.text);
        assert!(!fresh.header("x-position").is_empty());
        let (second, seen) = server.place(ADMIN, "second", "alice", 100).await;
        // Another question, whose page is another one: the read model has it now.
        assert_eq!(server.get(&format!("/orders?limit=1&at_least={seen}"), ADMIN).await.status, 200);

        let broken = Broken::of(&server.store).await;
        let later = format!("/orders?at_least={seen}");
        let (stale, older, of_beta, of_alice) = tokio::join!(
            server.get(&path, ADMIN),
            server.get(&later, ADMIN),
            server.get("/orders", BETA),
            server.get("/orders", ALICE)
        );
        assert_eq!((stale.status, stale.header("x-stale")), (200, "last-page"), "{}", stale.text);
        assert!(stale.json()["stale_seconds"].is_u64() && stale.header("age").parse::<u64>().is_ok(), "{}", stale.text);
        assert_eq!((ids(&stale), stale.header("x-position")), (ids(&fresh), fresh.header("x-position")));
        assert_eq!((older.status, older.header("x-stale")), (200, "older-than-asked"), "{}", older.text);
        assert_eq!(older.json()["older_than_asked"], true);
        assert!(!ids(&older).contains(&second));
        // Of another shop, and of a caller who sees less: what others have asked is not theirs.
        assert!(of_beta.problem().0 >= 500 && of_alice.problem().0 >= 500, "{} {}", of_beta.text, of_alice.text);
        // What does not need it goes on.
        let (third, last) = server.place(ADMIN, "third", "alice", 100).await;
        assert_eq!(server.get(&format!("/orders/{third}/history"), ADMIN).await.status, 200);
        server.switch("stale-pages", false).await;
        assert!(server.get("/orders", ADMIN).await.problem().0 >= 500);
        server.switch("stale-pages", true).await;
        broken.repair().await;
        // The breaker may have opened, and is open for some seconds.
        let fresh = |answer: &Answer| answer.status == 200 && answer.header("x-stale").is_empty();
        let read = server.until(&format!("/orders?at_least={last}"), ADMIN, fresh).await;
        assert!(ids(&read).contains(&third) && read.json().get("stale_seconds").is_none());
    }
}

/// One customer of a large shop, whose searches took too long, had the reads of all shops refused.
#[tokio::test]
async fn reads_that_fail_in_one_shop_are_refused_there_alone_and_health_says_so() {
    let server = Server::on(Store::file()).await;
    let Store::File(file, _) = &server.store else { unreachable!("it was made above") };
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
    let mut connection = SqliteConnection::connect_with(&options).await.expect("it opens");
    sqlx::query("DROP VIEW order_detail").execute(&mut connection).await.expect("dropped");
    let reads = |key| server.get("/orders?limit=7", key);
    assert_eq!(reads(BETA).await.status, 200);
    for _ in 0..12 {
        assert!(server.get("/orders/o-1003", ADMIN).await.problem().0 >= 500);
    }
    assert_eq!(reads(ADMIN).await.problem(), (503, "busy".to_owned()));
    assert_eq!(server.get("/orders?limit=8", BETA).await.status, 200, "it has its own breaker");
    let refused = |answer: &Answer| answer.json()["checks"]["reads"]["status"] == "down";
    let ready = server.until("/health/ready", ADMIN, refused).await;
    assert_eq!((ready.status, &ready.json()["status"]), (200, &json!("degraded")), "{}", ready.text);
    server.place(ADMIN, "k", "alice", 100).await;
    connection.close().await.expect("closed");
}

/// One customer who asked for such an order five times had the reads of the whole shop refused.
#[tokio::test]
async fn an_event_that_cannot_be_read_is_no_reason_to_refuse_other_reads() {
    let server = Server::on(Store::file()).await;
    let (id, position) = server.place(ALICE, "own", "alice", 100).await;
    assert_eq!(server.get(&format!("/orders/{id}?at_least={position}"), ADMIN).await.status, 200);
    server.unreadable("alpha", &id).await;
    let then = SystemClock.now();
    for _ in 0..12 {
        for path in [format!("/orders/{id}/history"), format!("/orders/{id}?as_of={then}")] {
            assert_eq!(server.get(&path, ALICE).await.problem(), (500, "broken".to_owned()), "{path}");
        }
    }
    assert_eq!(server.get("/orders/o-1002", ADMIN).await.status, 200);
}

#[tokio::test]
async fn an_order_that_cannot_be_read_is_answered_like_none_to_those_whose_it_is_not() {
    let server = Server::on(Store::file()).await;
    let id = choreographed(&server).await;
    server.unreadable("alpha", &id).await;
    let history = server.get(&format!("/orders/{id}/history"), ALICE).await;
    assert_eq!(history.problem(), (500, "broken".to_owned()), "{}", history.text);
    let (bob, then) = (Browser::of(&server, BOB).await, SystemClock.now());
    let why = json!({ "reason": "x" });
    let lines = json!({ "lines": [{ "product": "x", "quantity": 1, "price": { "minor": 1, "currency": "EUR" } }] });
    for order in [&*id, "o-none"] {
        let path = |rest: &str| format!("/orders/{order}{rest}");
        for rest in ["", "/history", "/checkout", &format!("?as_of={then}")] {
            assert_eq!(server.get(&path(rest), BOB).await.status, 404, "{order}{rest}");
        }
        assert_eq!(bob.get(&format!("/dashboard{}", path(""))).await.status, 404, "{order}");
        for (method, rest, body) in [("POST", "/cancel", &why), ("POST", "/return", &why), ("PUT", "/lines", &lines)] {
            let answer = server.write(method, &path(rest), BOB, &path(rest), body).await;
            assert_eq!(answer.status, 404, "{order}{rest}: {}", answer.text);
        }
    }
    assert_eq!(server.post(&format!("/orders/{id}/cancel"), ALICE, "own", &why).await.status, 500);
}

/// Runs SQL beside a database, in that of the server.
async fn beside(database: &Database, sql: String) {
    let (server, _) = database.url().rsplit_once(database.name()).expect("a URL with a name");
    let mut connection = PgConnection::connect(&format!("{server}postgres")).await.expect("it answers");
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.expect("done");
}

#[tokio::test]
async fn while_the_database_is_gone_lists_are_the_last_ones_and_no_balancer_sends_requests() {
    let server = Server::on(Store::postgres().await).await;
    let Store::Postgres(database) = &server.store else { unreachable!("it was made above") };
    let (_, first) = server.place(ADMIN, "first", "alice", 100).await;
    let path = format!("/orders?at_least={first}");
    let fresh = server.get(&path, ADMIN).await;
    assert_eq!((fresh.status, fresh.header("x-stale")), (200, ""), "{}", fresh.text);
    let (_, seen) = server.place(ADMIN, "second", "alice", 100).await;

    let name = database.name();
    let all = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
    beside(database, format!("ALTER DATABASE \"{name}\" ALLOW_CONNECTIONS false")).await;
    beside(database, all).await;
    let later = format!("/orders?at_least={seen}");
    let (stale, older) = tokio::join!(server.get(&path, ADMIN), server.get(&later, ADMIN));
    assert_eq!((stale.status, stale.header("x-stale")), (200, "last-page"), "{}", stale.text);
    assert_eq!((older.status, older.header("x-stale")), (200, "older-than-asked"), "{}", older.text);
    let toggles = server.get("/operator/toggles", crate::server::OPERATOR).await;
    assert_eq!(toggles.json()["toggles"].as_array().map(Vec::len), Some(4), "they need no database");
    let ready = server.until("/health/ready", ADMIN, |answer| answer.status == 503).await.json();
    assert_eq!(ready["checks"]["database"]["status"], "down", "{ready}");
    assert_eq!(server.get("/health/live", ADMIN).await.status, 200, "a restart would not help");

    beside(database, format!("ALTER DATABASE \"{name}\" ALLOW_CONNECTIONS true")).await;
    server.until("/health/ready", ADMIN, |answer| answer.status == 200).await;
    server.until(&later, ADMIN, |answer| answer.status == 200 && answer.header("x-stale").is_empty()).await;
}

#[tokio::test]
async fn what_orders_can_do_without_is_called_degraded_and_requests_still_come() {
    let folder = tempfile::tempdir().expect("a folder");
    let payment = Service::start(Kind::Payment, folder.path(), 0).await.expect("it starts");
    let settings = [("ORDERS_SERVICES__PAYMENT", &*payment.url), ("ORDERS_MOST_LAG_MS", "300")];
    let server = Server::with(Store::postgres().await, &settings).await;
    let check = async |name: &str, status: &str| {
        let is = |answer: &Answer| answer.status == 200 && answer.json()["checks"][name]["status"] == status;
        let ready = server.until("/health/ready", ADMIN, is).await.json();
        assert_eq!(ready["status"], if status == "up" { "up" } else { "degraded" }, "{ready}");
    };
    check("payment", "up").await;
    payment.faults.set(Faults { down: true, ..Faults::default() });
    check("payment", "down").await;
    payment.faults.set(Faults::default());
    check("payment", "up").await;
    server.switch("stale-pages", false).await;
    check("cache", "down").await;
    server.switch("stale-pages", true).await;
    check("cache", "up").await;
    // A read model that cannot be written is behind.
    let broken = Broken::of(&server.store).await;
    server.place(ADMIN, "behind", "alice", 100).await;
    check("projections", "down").await;
    broken.repair().await;
    check("projections", "up").await;
    assert_eq!(server.post("/orders/o-1003/cancel", ADMIN, "k", &json!({ "reason": "late" })).await.status, 200);
    payment.stop().await;
    let is_down = |answer: &Answer| answer.json()["checks"]["payment"]["status"] == "down";
    let ready = server.until("/health/ready", ADMIN, is_down).await;
    assert!(!ready.text.contains("127.0.0.1"), "where it is is nobody's business: {}", ready.text);
}
