//! Rows by key and by condition, as a user reads them.

use std::cell::Cell;
use std::time::Duration;

use annals_eventstore::{
    ErrorFamily, EventId, EventStore, ExpectedVersion, Incarnation, NewEvent, Position, PostgresDatabase,
    PostgresOptions, Recorded, StreamId, Tenant,
};
use annals_macros::{Event, ReadModel};
use annals_projections::{
    PositionToken, Projection, ProjectionError, Projections, QueryError, QueryValue, ReadModel as _, Rows, WaitError,
    text_column,
};
use futures::FutureExt;
use futures::future::join_all;
use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::backends::{Backend, Shop, block_on};
use super::shop::{OrderEvent, OrderList, OrderRow, Sales, Status, placed};

const SOON: Duration = Duration::from_secs(30);

macro_rules! on_both {
    ($($test:ident,)*) => {
        mod in_a_file {$(
            #[test]
            fn $test() {
                super::block_on(super::$test(super::Backend::in_one_file()));
            }
        )*}
        mod in_postgres {$(
            #[test]
            fn $test() {
                super::block_on(async { super::$test(super::Backend::in_one_postgres().await).await });
            }
        )*}
    };
}

on_both! {
    rows_are_found_by_their_keys_in_the_order_of_the_keys,
    rows_are_selected_in_order_and_ties_are_in_the_order_of_the_keys,
    values_of_every_type_find_their_rows,
    more_rows_than_one_call_may_read_are_refused_and_never_cut,
    no_text_shows_a_row_of_another_tenant,
    a_build_reads_what_another_version_shows_if_its_rows_fit_and_says_so_if_not,
    a_row_that_somebody_else_has_written_is_an_error_of_its_own,
    reads_that_are_dropped_at_any_moment_leave_nothing_behind,
    waits_and_reads_that_nobody_polls_keep_nobody_else_waiting,
    tenants_take_turns_with_their_queries,
    what_cannot_be_read_says_why,
    a_token_brings_a_position_back_to_its_store_alone,
}

async fn append<E: annals_eventstore::Event>(shop: &Shop, tenant: &str, id: &str, event: &E) -> Position {
    let store = shop.store();
    let stream = StreamId::new(Tenant::new(tenant).unwrap(), "order", id).unwrap();
    let event = NewEvent::of(EventId::new(store.ids().next_id()).unwrap(), event).unwrap();
    store.append(&stream, ExpectedVersion::Any, vec![event]).await.unwrap().position
}

fn ids(rows: &[OrderRow]) -> Vec<&str> {
    rows.iter().map(|row| &*row.order_id).collect()
}

async fn rows_are_found_by_their_keys_in_the_order_of_the_keys(backend: Backend) {
    let shop = backend.open().await;
    let views = shop.projections().with(OrderList).with(Sales).start().await.unwrap();
    assert!(views.find::<OrderList>(&"o-1".to_owned()).await.unwrap().is_none());
    let mut last = Position::START;
    for n in 0..40 {
        let events: Vec<_> = (0..10).map(|m| placed(&format!("c-{}", n * 10 + m), n)).collect();
        last = shop.append(&format!("o-{n}"), &events).await;
    }
    views.wait_for(last, SOON).await.unwrap();

    let row = views.find::<OrderList>(&"o-7".to_owned()).await.unwrap().unwrap();
    assert_eq!((row.cents, row.status, row.history), (7, Status::Placed, vec!["placed".to_owned()]));
    assert!(views.find::<OrderList>(&"O-7".to_owned()).await.unwrap().is_none(), "byte for byte");

    assert!(views.find_many::<OrderList>(&[]).await.unwrap().is_empty());
    let keys = ["o-9", "none", "o-1", "o-9"].map(str::to_owned);
    let found = views.find_many::<OrderList>(&keys).await.unwrap();
    let found: Vec<_> = found.iter().map(|row| row.as_ref().map(|row| &*row.order_id)).collect();
    assert_eq!(found, [Some("o-9"), None, Some("o-1"), Some("o-9")]);

    // A key of two columns, more of them than one statement takes in SQLite, backwards and each twice.
    let keys: Vec<_> =
        (0..400).rev().map(|n| (format!("c-{n}"), Status::Placed)).flat_map(|key| [key.clone(), key]).collect();
    let found = views.find_many::<Sales>(&keys).await.unwrap();
    assert_eq!(found.len(), 800);
    for (key, row) in keys.iter().zip(&found) {
        assert_eq!(row.as_ref().map(|row| row.key()), Some(key.clone()));
    }
    assert!(views.find::<Sales>(&("c-1".to_owned(), Status::Paid)).await.unwrap().is_none());

    views.close().await;
    assert!(
        views.clone().find::<OrderList>(&"o-7".to_owned()).await.unwrap().is_some(),
        "closing stops the runner alone"
    );
}

async fn rows_are_selected_in_order_and_ties_are_in_the_order_of_the_keys(backend: Backend) {
    let shop = backend.open().await;
    let views = shop.projections().with(OrderList).start().await.unwrap();
    let mut last = Position::START;
    for (n, customer) in ["bob", "ann", "Ann", "änn", "bob", "ann"].into_iter().enumerate() {
        last = shop.append(&format!("o-{n}"), &[placed(customer, 100 * (n as i64 % 3))]).await;
    }
    last = last.max(shop.append("o-1", &[OrderEvent::Paid]).await);
    views.wait_for(last, SOON).await.unwrap();
    let check = async |text: &'static str, values: &[&dyn QueryValue], expected: &[&str]| {
        let rows = views.select::<OrderList>(text, values).await.unwrap();
        assert_eq!(ids(&rows), expected, "{text}");
    };
    check("", &[], &["o-0", "o-1", "o-2", "o-3", "o-4", "o-5"]).await;
    check("status = $1", &[&Status::Paid], &["o-1"]).await;
    check("status = 'placed' AND cents > $1", &[&150_u8], &["o-2", "o-5"]).await;
    check(
        "status <> $1 OR cents = $2 ORDER BY cents DESC",
        &[&Status::Paid, &100],
        &["o-2", "o-5", "o-1", "o-4", "o-0", "o-3"],
    )
    .await;
    check("ORDER BY customer", &[], &["o-2", "o-1", "o-5", "o-0", "o-4", "o-3"]).await;
    check("ORDER BY customer LIMIT $1 OFFSET $2", &[&2, &1], &["o-1", "o-5"]).await;
    check("ORDER BY order_id DESC LIMIT 2", &[], &["o-5", "o-4"]).await;
    check("lower(customer) LIKE $1 ORDER BY cents", &[&"a%"], &["o-1", "o-2", "o-5"]).await;
    check("customer IN ('bob', $1) AND NOT cents = 0", &[&"Ann"], &["o-2", "o-4"]).await;
    check("length(customer) = 3 AND coalesce(nullif(customer, 'ann'), 'x') = 'x'", &[], &["o-1", "o-5"]).await;
    check("changed_at <= $1 LIMIT 1", &[&Timestamp::UNIX_EPOCH], &[]).await;
    check("cents / 100 = 2 AND cents % 100 = 0 AND cents - 1 > 198", &[], &["o-2", "o-5"]).await;
    check("CASE WHEN cents > 100 THEN customer ELSE order_id END = 'Ann'", &[], &["o-2"]).await;
    check("history IS NOT NULL AND TRUE LIMIT 1", &[], &["o-0"]).await;
    check("LIMIT 0", &[], &[]).await;
    check("customer = ''' OR ''1'' = ''1'", &[], &[]).await;
    check("customer = $1", &[&"' OR '1' = '1"], &[]).await;
    views.close().await;
}

/// A column of each type that a field can have.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "every_type", key("id", "at", "day", "small"))]
struct Every {
    id: Uuid,
    at: Timestamp,
    day: Date,
    small: i16,
    middle: i32,
    large: i64,
    byte: u8,
    word: u16,
    long: u32,
    real: f64,
    done: bool,
    text: String,
    raw: Vec<u8>,
    status: Status,
    of: Tenant,
    perhaps: Option<i64>,
    when: Option<Timestamp>,
    maybe: Option<bool>,
    #[column(json)]
    doc: Vec<String>,
}

#[derive(Event, Serialize, Deserialize, Clone, Debug)]
enum EveryEvent {
    #[event(name = "every.made")]
    Made { n: i64 },
}

struct EveryType;

impl Projection for EveryType {
    type Event = EveryEvent;
    type Row = Every;

    fn apply(&self, event: &Recorded<EveryEvent>, rows: &mut Rows<Every>) -> Result<(), ProjectionError> {
        let EveryEvent::Made { n } = event.event;
        rows.upsert(every(n));
        Ok(())
    }
}

fn every(n: i64) -> Every {
    let first = n == 0;
    Every {
        id: Uuid::from_u128(n as u128),
        at: if first {
            "-004713-11-24T00:00:00Z".parse().unwrap()
        } else {
            "9999-12-30T21:59:59.999999Z".parse().unwrap()
        },
        day: if first { "-009999-01-01".parse().unwrap() } else { "9999-12-31".parse().unwrap() },
        small: if first { i16::MIN } else { i16::MAX },
        middle: if first { i32::MIN } else { i32::MAX },
        large: if first { i64::MIN } else { i64::MAX },
        byte: u8::MAX,
        word: u16::MAX,
        long: u32::MAX,
        real: if first { f64::NEG_INFINITY } else { 5e-324 },
        done: first,
        text: "'\"\\%_;-- \u{202e}☂".to_owned(),
        raw: vec![0, 255, b'\''],
        status: Status::Paid,
        of: Tenant::new("north").unwrap(),
        perhaps: (!first).then_some(-1),
        when: (!first).then_some(Timestamp::UNIX_EPOCH),
        maybe: (!first).then_some(false),
        doc: vec!["\"".to_owned()],
    }
}

async fn values_of_every_type_find_their_rows(backend: Backend) {
    let shop = backend.open().await;
    let views = shop.projections().with(EveryType).start().await.unwrap();
    let mut last = Position::START;
    for n in [0, 1] {
        last = append(&shop, "default", &format!("e-{n}"), &EveryEvent::Made { n }).await;
    }
    views.wait_for(last, SOON).await.unwrap();
    let rows = [every(0), every(1)];
    for row in &rows {
        assert_eq!(views.find::<EveryType>(&row.key()).await.unwrap().as_ref(), Some(row));
    }
    assert_eq!(views.select::<EveryType>("ORDER BY small", &[]).await.unwrap(), rows);
    let Every { id, at, day, small, middle, large, byte, word, long, real, done, text, raw, status, of, .. } = &rows[0];
    let (other, now) = (&rows[1], Timestamp::from_second(1_772_359_200).unwrap());
    for (text, values) in [
        ("id = $1", &[id as &dyn QueryValue][..]),
        ("at = $1", &[at]),
        ("day = $1", &[day]),
        ("small = $1", &[small]),
        ("middle = $1", &[middle]),
        ("large = $1", &[large]),
        ("byte = $1 AND NOT small > 0", &[byte]),
        ("word = $1 AND word = $2 AND done", &[word, &Some(*word)]),
        ("long = $1 AND done = $2", &[long, done]),
        ("real = $1", &[real]),
        ("done = $1", &[done]),
        ("text = $1 AND done", &[text]),
        ("raw = $1 AND done", &[raw]),
        ("status = $1 AND done", &[status]),
        ("of = $1 AND done", &[of]),
        ("perhaps IS NULL AND maybe IS NOT DISTINCT FROM $1", &[&None::<bool>]),
        ("perhaps IS DISTINCT FROM $1", &[&other.perhaps]),
        ("when IS NULL AND at < $1", &[&now]),
        ("\"when\" IS NULL AND at < $1", &[&now]),
        ("at BETWEEN $1 AND $2", &[at, &now]),
    ] {
        let found = views.select::<EveryType>(text, values).await;
        match text.starts_with("when") {
            // A word of SQL is no column without its quotes.
            true => assert!(matches!(&found, Err(error) if error.family() == ErrorFamily::Invalid), "{found:?}"),
            false => assert_eq!(found.unwrap(), rows[..1], "{text}"),
        }
    }
    for text in ["perhaps = $1", "perhaps <> $1", "perhaps IN ($1)"] {
        assert!(
            views.select::<EveryType>(text, &[&None::<i64>]).await.unwrap().is_empty(),
            "null equals nothing: {text}"
        );
    }
    let nulls_last = views.select::<EveryType>("ORDER BY \"when\" NULLS LAST", &[]).await.unwrap();
    assert_eq!(nulls_last, [every(1), every(0)]);
    views.close().await;
}

async fn more_rows_than_one_call_may_read_are_refused_and_never_cut(backend: Backend) {
    let most = Projections::MOST_ROWS;
    let shop = backend.open().await;
    let views = shop.projections().with(Sales).start().await.unwrap();
    shop.run(
        "INSERT INTO sales_v1 (customer, status, orders, cents)
         WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 10000)
         SELECT 'c-' || n, 'placed', n, 0 FROM n",
    )
    .await;
    assert_eq!(views.select::<Sales>("", &[]).await.unwrap().len(), most);
    let mut keys: Vec<_> = (1..=most).map(|n| (format!("c-{n}"), Status::Placed)).collect();
    let found = views.find_many::<Sales>(&keys).await.unwrap();
    assert!(keys.iter().zip(&found).all(|(key, row)| row.as_ref().is_some_and(|row| row.key() == *key)));
    keys.push(keys[0].clone());
    match views.find_many::<Sales>(&keys).await {
        Err(error @ QueryError::TooManyKeys { given: 10_001, most: 10_000, .. }) => {
            assert_eq!(error.family(), ErrorFamily::Invalid);
        }
        other => panic!("{:?}", other.map(|rows| rows.len())),
    }
    shop.run("INSERT INTO sales_v1 (customer, status, orders, cents) VALUES ('one-more', 'placed', 0, 0)").await;
    for text in ["", "status = 'placed' ORDER BY cents", "OFFSET 0"] {
        match views.select::<Sales>(text, &[]).await {
            Err(error @ QueryError::TooManyRows { read_model: "sales", most: 10_000 }) => {
                assert!(error.to_string().contains("LIMIT 10000"), "{error}");
            }
            other => panic!("{text}: {:?}", other.map(|rows| rows.len())),
        }
    }
    assert_eq!(views.select::<Sales>("OFFSET 1", &[]).await.unwrap().len(), most);
    assert_eq!(views.select::<Sales>("LIMIT 10000", &[]).await.unwrap().len(), most);
    assert_eq!(views.select::<Sales>("LIMIT $1 OFFSET 9999", &[&10_000]).await.unwrap().len(), 2);
    let error = views.select::<Sales>("LIMIT 10001", &[]).await.unwrap_err();
    assert!(error.to_string().contains("asks for 10001 rows at once, and 10000 are the most"), "{error}");
    views.close().await;
}

/// What is said of a card, kept apart by tenant. A column is called like the view, others are words of SQL.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "secrets", key("owner", "n"), index = "secret", per_tenant)]
struct Secret {
    owner: String,
    n: i64,
    secret: String,
    secrets: i64,
    union: i64,
    from: Option<String>,
}

struct Secrets;

impl Projection for Secrets {
    type Event = EveryEvent;
    type Row = Secret;

    fn apply(&self, event: &Recorded<EveryEvent>, rows: &mut Rows<Secret>) -> Result<(), ProjectionError> {
        let EveryEvent::Made { n } = event.event;
        let (owner, secret) = (event.stream.aggregate_id().to_owned(), format!("of {}", event.stream.tenant()));
        // A division by a column of another tenant's rows would fail.
        let secrets = i64::from(event.stream.tenant().as_str() != "south");
        rows.upsert(Secret { owner, n, secret, secrets, union: n, from: None });
        Ok(())
    }
}

async fn no_text_shows_a_row_of_another_tenant(backend: Backend) {
    let shop = backend.open().await;
    let views = shop.projections().with(Secrets).start().await.unwrap();
    let mut last = Position::START;
    for tenant in ["north", "south", "default", "%", "' OR '1' = '1"] {
        for n in 0..3 {
            last = append(&shop, tenant, "o-1", &EveryEvent::Made { n }).await;
        }
    }
    views.wait_for(last, SOON).await.unwrap();
    let north = Tenant::new("north").unwrap();
    let own = |rows: &[Secret]| rows.iter().all(|row| row.secret == "of north");

    for tenant in ["north", "south", "%", "' OR '1' = '1"] {
        let tenant = Tenant::new(tenant).unwrap();
        let row = views.find_of_tenant::<Secrets>(&tenant, &("o-1".to_owned(), 1)).await.unwrap().unwrap();
        assert_eq!(row.secret, format!("of {tenant}"));
        let all = views.select_of_tenant::<Secrets>(&tenant, "", &[]).await.unwrap();
        assert_eq!(
            all.iter().map(|row| (row.n, &row.secret)).collect::<Vec<_>>(),
            [(0, &row.secret), (1, &row.secret), (2, &row.secret)]
        );
    }
    let keys: Vec<_> = (0..4).map(|n| ("o-1".to_owned(), n)).collect();
    let found = views.find_many_of_tenant::<Secrets>(&north, &keys).await.unwrap();
    assert!(
        found[..3].iter().all(|row| row.as_ref().is_some_and(|row| row.secret == "of north")) && found[3].is_none()
    );
    let nobody = Tenant::new("nobody").unwrap();
    assert!(views.select_of_tenant::<Secrets>(&nobody, "TRUE OR TRUE", &[]).await.unwrap().is_empty());

    // Allowed, and true of every row.
    for text in [
        "TRUE OR TRUE",
        "n = 0 OR n <> 0 ORDER BY n",
        "secret = 'of south' OR TRUE",
        "NOT FALSE OR secret IS NULL LIMIT 100",
        "10 / secrets > 0 AND 10 % secrets = 0",
        "CASE WHEN secret = 'of south' THEN TRUE ELSE TRUE END",
        "secrets >= union OR union >= secrets",
        "coalesce(\"from\", secret) IS NOT NULL ORDER BY 1 / secrets, \"from\" NULLS FIRST",
        "n IN (0, 1, 2) OR n NOT IN (0, 1, 2)",
        "OFFSET 0",
        "ORDER BY n + 1",
        "(((TRUE)))",
    ] {
        let rows =
            views.select_of_tenant::<Secrets>(&north, text, &[]).await.unwrap_or_else(|e| panic!("{text}: {e:?}"));
        assert!(rows.len() == 3 && own(&rows), "{text}: {rows:?}");
    }
    // Refused, whatever a database would make of it.
    for text in [
        "TRUE) OR (TRUE",
        "TRUE)) AS r --",
        "TRUE) UNION ALL SELECT tenant, owner, n, secret, secrets, 1, NULL, 1 FROM secrets WHERE (TRUE",
        "TRUE UNION ALL SELECT owner FROM secrets",
        "TRUE OR owner IN (SELECT owner FROM secrets)",
        "owner IN secrets",
        "owner IN (TABLE secrets)",
        "EXISTS (SELECT 1 FROM secrets WHERE tenant = 'south')",
        "ORDER BY (SELECT secret FROM secrets LIMIT 1)",
        "LIMIT (SELECT count(*) FROM secrets)",
        "LIMIT -1",
        "tenant = 'south'",
        "\"tenant\" = 'south' OR TRUE",
        "t.tenant = 'south'",
        "r.tenant = 'south'",
        "secrets.tenant = 'south'",
        "secrets_v1.secret = 'of south'",
        "TRUE --",
        "TRUE /*",
        "TRUE; SELECT * FROM secrets",
        "TRUE; DELETE FROM secrets_v1",
        "secret = '\\' OR TRUE --'",
        "secret = E'\\' OR TRUE",
        "secret = $q$ OR TRUE $q$",
        "$1 = $1",
        "$2 IS NOT NULL",
        "union(n)",
        "secrets(n) IS NULL",
        "\"secrets\" (n) IS NULL",
        "query_to_xml('SELECT * FROM secrets', TRUE, TRUE, '') IS NULL",
        "pg_read_file('x') IS NULL",
        "set_config('search_path', 'x', FALSE) IS NULL",
        "n BETWEEN 0 AND 9 FOR UPDATE",
        "TRUE WINDOW w AS (ORDER BY n)",
        "TRUE GROUP BY n HAVING TRUE",
        "TRUE LIMIT 1 LIMIT 1",
        "owner LIKE '%' ESCAPE '\\'",
        "CAST(secret AS INTEGER) = 1",
        "secret::integer = 1",
        "\0",
        "TRUE\0 OR TRUE",
    ] {
        match views.select_of_tenant::<Secrets>(&north, text, &[]).await {
            Err(error @ QueryError::Text { .. }) => assert_eq!(error.family(), ErrorFamily::Invalid),
            other => panic!("{text}: {other:?}"),
        }
    }
    // What the checks let through and no database takes is refused there, alike.
    for text in [
        "AND",
        "from(secret)",
        "TRUE TRUE",
        "IN ()",
        "END CASE",
        "n = = 1",
        "FROM",
        "TRUE ORDER BY n n",
        "NULLS FIRST",
        "()",
        "DISTINCT FROM union",
        "n IN (union FROM secrets)",
        "union from secrets",
        "(secrets, union) = 1",
    ] {
        match views.select_of_tenant::<Secrets>(&north, text, &[]).await {
            Err(error @ (QueryError::Database { .. } | QueryError::Text { .. })) => {
                assert_eq!(error.family(), ErrorFamily::Invalid, "{text}: {error:?}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
    let count = shop.query("SELECT CAST(count(*) AS TEXT) FROM secrets").await;
    assert_eq!(count, ["15"], "nothing was removed");
    views.close().await;
}

/// The list of orders with other columns, under other versions.
macro_rules! list {
    ($row:ident, $projection:ident, $version:expr, $key:tt, { $($(#[$meta:meta])* $field:ident: $type:ty = $value:expr,)* }) => {
        #[derive(ReadModel, Clone, Debug)]
        #[read_model(table = "order_list", key $key)]
        struct $row {
            order_id: String,
            customer: String,
            $($(#[$meta])* $field: $type,)*
        }

        struct $projection;

        impl Projection for $projection {
            type Event = OrderEvent;
            type Row = $row;
            const NAME: &'static str = "order_list";
            const VERSION: u32 = $version;

            fn apply(&self, event: &Recorded<OrderEvent>, rows: &mut Rows<$row>) -> Result<(), ProjectionError> {
                let OrderEvent::Placed { customer, .. } = &event.event else { return Ok(()) };
                let order_id = event.stream.aggregate_id().to_owned();
                rows.upsert($row { order_id, customer: customer.clone(), $($field: $value,)* });
                Ok(())
            }
        }
    };
}

list!(First, ListOne, 1, ("order_id"), {});
list!(Second, ListTwo, 2, ("order_id"), { note: Option<String> = Some("two".to_owned()), count: i64 = 2, });
list!(Third, ListThree, 3, ("order_id"), { note: i64 = 3, count: i64 = 3, });
list!(Fourth, ListFour, 4, ("order_id", "customer"), { note: i64 = 4, count: i64 = 4, at: Timestamp = Timestamp::UNIX_EPOCH, });

fn unfit<R: std::fmt::Debug>(answer: Result<R, QueryError>, versions: (u32, u32)) -> Vec<String> {
    match answer {
        Err(error @ QueryError::OtherVersion { shown, here, .. }) if (shown, here) == versions => {
            assert!(error.is_transient(), "{error}");
            assert!(error.to_string().contains("try again when the deploy is done, or show version"), "{error}");
            let QueryError::OtherVersion { unfit, .. } = error else { unreachable!() };
            unfit
        }
        other => panic!("{other:?}"),
    }
}

async fn a_build_reads_what_another_version_shows_if_its_rows_fit_and_says_so_if_not(backend: Backend) {
    let shop = backend.open().await;
    let id = "o-1".to_owned();
    let one = shop.projections().with(ListOne).start().await.unwrap();
    let position = shop.append(&id, &[placed("ann", 5)]).await;
    one.wait_for(position, SOON).await.unwrap();
    let two = shop.projections().with(ListTwo).start().await.unwrap();
    two.show::<ListTwo>(SOON).await.unwrap();

    // The newer version has all that the older needs.
    assert_eq!(one.find::<ListOne>(&id).await.unwrap().unwrap().customer, "ann");
    assert_eq!(one.select::<ListOne>("customer = 'ann'", &[]).await.unwrap().len(), 1);
    assert!(one.find::<ListOne>(&"none".to_owned()).await.unwrap().is_none());
    assert_eq!(two.find::<ListTwo>(&id).await.unwrap().unwrap().note.as_deref(), Some("two"));

    // The older lacks what the newer needs, also where no row is found, and in a condition alone.
    one.show::<ListOne>(SOON).await.unwrap();
    let lacks = ["it has no column `note`", "it has no column `count`"];
    assert_eq!(unfit(two.find::<ListTwo>(&id).await, (1, 2)), lacks);
    assert_eq!(unfit(two.find_many::<ListTwo>(&["none".to_owned()]).await, (1, 2)), lacks);
    assert_eq!(unfit(two.select::<ListTwo>("note = 'x'", &[]).await, (1, 2)), lacks);
    two.show::<ListTwo>(SOON).await.unwrap();
    assert_eq!(two.select::<ListTwo>("note = 'two'", &[]).await.unwrap().len(), 1);
    assert_eq!(one.find::<ListOne>(&id).await.unwrap().unwrap().order_id, "o-1");

    // A version that declares a column otherwise can come by way of one that lacks it.
    one.show::<ListOne>(SOON).await.unwrap();
    let three = shop.projections().with(ListThree).start().await.unwrap();
    three.show::<ListThree>(SOON).await.unwrap();
    let retyped = ["`note` is integer there and text null here"];
    assert_eq!(unfit(two.find::<ListTwo>(&id).await, (3, 2)), retyped);
    assert_eq!(unfit(two.select::<ListTwo>("", &[]).await, (3, 2)), retyped);
    assert_eq!(unfit(two.select::<ListTwo>("note = 'two'", &[]).await, (3, 2)), retyped);
    assert_eq!(unfit(two.select::<ListTwo>("note IS NULL", &[]).await, (3, 2)), retyped);
    assert_eq!(one.find::<ListOne>(&id).await.unwrap().unwrap().customer, "ann");

    // With another key, one key of the older may name many rows.
    let four = shop.projections().with(ListFour).start().await.unwrap();
    four.show::<ListFour>(SOON).await.unwrap();
    let key = ["its key is `order_id, customer` there and `order_id` here"];
    assert_eq!(unfit(one.find::<ListOne>(&id).await, (4, 1)), key);
    assert_eq!(unfit(three.select::<ListThree>("", &[]).await, (4, 3)), key);
    assert_eq!(four.find::<ListFour>(&(id.clone(), "ann".to_owned())).await.unwrap().unwrap().note, 4);

    // A text that is wrong is no matter of versions.
    three.show::<ListThree>(SOON).await.unwrap();
    let wrong = one.select::<ListOne>("customer customer", &[]).await;
    assert!(matches!(wrong, Err(QueryError::Database { .. })), "{wrong:?}");
    for views in [one, two, three, four] {
        views.close().await;
    }
}

async fn a_row_that_somebody_else_has_written_is_an_error_of_its_own(backend: Backend) {
    let shop = backend.open().await;
    let views = shop.projections().with(OrderList).with(Sales).start().await.unwrap();
    let position = shop.append("o-1", &[placed("ann", 5)]).await;
    views.wait_for(position, SOON).await.unwrap();
    shop.run("UPDATE order_list_v1 SET status = 'gone'").await;
    let error = views.find::<OrderList>(&"o-1".to_owned()).await.unwrap_err();
    assert!(matches!(&error, QueryError::Unreadable { read_model: "order_list", .. }), "{error:?}");
    assert_eq!(error.family(), ErrorFamily::Broken);
    let cause = std::error::Error::source(&error).unwrap();
    assert!(format!("{cause:?}").contains("status"), "{cause:?}");

    // A read model that is gone, and one whose name is.
    shop.run("DROP VIEW sales").await;
    let gone = views.find::<Sales>(&("ann".to_owned(), Status::Placed)).await;
    assert!(matches!(&gone, Err(QueryError::Database { .. })), "{gone:?}");
    shop.run(match shop.table_of_names() {
        "annals_read_models" => "DELETE FROM annals_read_models",
        _ => "DELETE FROM annals.read_models",
    })
    .await;
    for row in [views.find::<OrderList>(&"o-1".to_owned()).await, views.find::<OrderList>(&"o-2".to_owned()).await] {
        let error = row.unwrap_err();
        assert!(annals_eventstore_chain(&error).contains("start the projections again"), "{error:?}");
    }
    views.close().await;
}

fn annals_eventstore_chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(Some(error), |error| error.source());
    sources.map(|error| error.to_string()).collect::<Vec<_>>().join(": ")
}

/// More reads are begun and dropped than there are connections; each at another moment.
async fn reads_that_are_dropped_at_any_moment_leave_nothing_behind(backend: Backend) {
    let shop = backend.open().await;
    let views = shop.projections().with(OrderList).start().await.unwrap();
    let position = shop.append("o-1", &[placed("ann", 5)]).await;
    views.wait_for(position, SOON).await.unwrap();
    let id = "o-1".to_owned();
    for polls in 0..120 {
        let views = views.clone();
        let mut read: futures::future::BoxFuture<'_, ()> = match polls % 3 {
            0 => async { drop(views.find::<OrderList>(&id).await.unwrap()) }.boxed(),
            1 => async { drop(views.find_many::<OrderList>(&vec![id.clone(); 600]).await.unwrap()) }.boxed(),
            _ => async { drop(views.select::<OrderList>("cents > $1", &[&1]).await.unwrap()) }.boxed(),
        };
        for _ in 0..polls / 6 {
            if futures::poll!(&mut read).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(read);
    }
    let position = shop.append("o-1", &[OrderEvent::Paid]).await;
    views.wait_for(position, SOON).await.unwrap();
    let row = tokio::time::timeout(SOON, views.find::<OrderList>(&id)).await.expect("connections are free");
    assert_eq!(row.unwrap().unwrap().status, Status::Paid, "no connection is left in a transaction of then");
    views.close().await;
    shop.close().await;
}

async fn what_cannot_be_read_says_why(backend: Backend) {
    let shop = backend.open().await;
    let views = shop.projections().with(OrderList).start().await.unwrap();
    let unknown = views.find::<Sales>(&("ann".to_owned(), Status::Paid)).await.unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "no projection is called `sales` and has version 1 and this row; started are `order_list` (version 1); add it by `with`"
    );
    // Another row under the name of one that runs.
    assert!(matches!(views.find::<ListOne>(&"o-1".to_owned()).await, Err(QueryError::Unknown { .. })));
    for key in ["nul\0".to_owned(), "x".repeat(2_601)] {
        let error = views.find::<OrderList>(&key).await.unwrap_err();
        assert!(matches!(error, QueryError::Key(_)), "{error:?}");
        assert_eq!(error.family(), ErrorFamily::Invalid);
    }
    assert!(views.find::<OrderList>(&"x".repeat(2_600)).await.unwrap().is_none());
    let number = views.select::<OrderList>("cents = $1 OR cents = $2", &[&5, &None::<i32>]).await.unwrap();
    assert!(number.is_empty());
    let value = views.select::<OrderList>("cents = $1", &[&f64::NAN]).await.unwrap_err();
    assert_eq!(
        value.to_string(),
        "value $1 of the query of `order_list` is NaN, which SQLite would store as null; use an `Option`"
    );
    let text = views.select::<OrderList>("cost > 5", &[]).await.unwrap_err();
    assert_eq!(
        text.to_string(),
        "the text for `order_list` has the name `cost`, which is no column, word or function that it may have; its columns are \
         `order_id`, `customer`, `status`, `cents`, `changed_at`, `history`; write a query that needs more than columns, values and \
         comparisons as SQL of your own"
    );
    views.close().await;
    shop.close().await;
    let closed = views.find::<OrderList>(&"o-1".to_owned()).await.unwrap_err();
    assert!(matches!(&closed, QueryError::Database { .. }) && closed.family() == ErrorFamily::Invalid, "{closed:?}");
}

/// A wait that its caller did not poll had the turn of all waits; four such reads had all connections of a file.
async fn waits_and_reads_that_nobody_polls_keep_nobody_else_waiting(backend: Backend) {
    let shop = backend.open().await;
    let views = shop.projections().with(OrderList).start().await.unwrap();
    let last = shop.append("o-1", &[placed("ann", 5)]).await;
    views.wait_for(last, SOON).await.unwrap();
    // Each is polled once, and so is in the middle of its work.
    let mut waits = Vec::new();
    while waits.len() < 3 {
        let mut wait = Box::pin(views.wait_for(last, SOON));
        if futures::poll!(wait.as_mut()).is_pending() {
            waits.push(wait);
        }
    }
    let others = async {
        views.wait_for(last, Duration::from_secs(5)).await.unwrap();
        views.progress().await.unwrap();
    };
    tokio::time::timeout(SOON, others).await.expect("others are answered");
    let key = "o-1".to_owned();
    let mut reads = Vec::new();
    while reads.len() < 8 {
        let mut read = Box::pin(views.find::<OrderList>(&key));
        // The database may be faster than this task.
        if futures::poll!(read.as_mut()).is_pending() {
            reads.push(read);
        }
    }
    let read = tokio::time::timeout(Duration::from_secs(4), views.find::<OrderList>(&key)).await;
    assert!(read.expect("it is answered").unwrap().is_some());
    for read in reads {
        assert!(read.await.unwrap().is_some());
    }
    for wait in waits {
        wait.await.unwrap();
    }
    views.close().await;
    shop.close().await;
}

/// A query waited for the 300 of another tenant that were before it.
async fn tenants_take_turns_with_their_queries(backend: Backend) {
    const MANY: usize = 200;
    let shop = backend.open().await;
    let views = shop.projections().with(Secrets).start().await.unwrap();
    let [loud, quiet] = ["loud", "quiet"].map(|tenant| Tenant::new(tenant).unwrap());
    append(&shop, "loud", "o-1", &EveryEvent::Made { n: 1 }).await;
    let last = append(&shop, "quiet", "o-1", &EveryEvent::Made { n: 1 }).await;
    views.wait_for(last, SOON).await.unwrap();
    let (views, key) = (&views, &("o-1".to_owned(), 1));
    let query = async |tenant: &Tenant, by_key: bool| match by_key {
        true => views.find_of_tenant::<Secrets>(tenant, key).await.unwrap().is_some(),
        false => !views.select_of_tenant::<Secrets>(tenant, "n = $1", &[&1]).await.unwrap().is_empty(),
    };
    for by_key in [true, false] {
        let answered = Cell::new(0);
        let all = join_all((0..MANY).map(async |n| {
            assert!(query(&loud, n.is_multiple_of(2)).await);
            answered.set(answered.get() + 1);
        }));
        let other = async {
            // All of them are in the queue, but for those that were answered by now.
            tokio::task::yield_now().await;
            let begun = answered.get();
            assert!(query(&quiet, by_key).await);
            answered.get() - begun
        };
        let (_, before) = futures::join!(all, other);
        // There are ten connections at most.
        assert!(before <= 40, "{before} queries of the other tenant were answered before");
    }
    views.close().await;
    shop.close().await;
}

async fn a_token_brings_a_position_back_to_its_store_alone(backend: Backend) {
    let shop = backend.open().await;
    let views = shop.projections().with(OrderList).start().await.unwrap();
    let position = shop.append("o-1", &[placed("ann", 5)]).await;
    let text = views.token(position).to_string();
    assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') && text.len() <= 52, "{text}");
    let token: PositionToken = text.parse().unwrap();
    assert_eq!((token.position, token.incarnation), (position, shop.store().incarnation()));
    views.wait_for_token(&token, SOON).await.unwrap();
    assert!(views.find::<OrderList>(&"o-1".to_owned()).await.unwrap().is_some());
    views.wait_for_token(&views.token(Position::START), SOON).await.unwrap();

    let other = PositionToken { incarnation: Incarnation(Uuid::from_u128(7)), ..token };
    // At once, however long it could wait.
    let refused = views.wait_for_token(&other, Duration::MAX).await.unwrap_err();
    assert!(
        matches!(&refused, WaitError::OtherStore { .. }) && refused.family() == ErrorFamily::Invalid,
        "{refused:?}"
    );
    views.wait_for_one_token::<OrderList>(&token, SOON).await.unwrap();
    let refused = views.wait_for_one_token::<OrderList>(&other, Duration::MAX).await.unwrap_err();
    assert!(matches!(&refused, WaitError::OtherStore { .. }), "{refused:?}");
    let beyond = PositionToken { position: Position::new(i64::MAX).unwrap(), ..token };
    assert!(matches!(views.wait_for_token(&beyond, Duration::from_millis(50)).await, Err(WaitError::TimedOut { .. })));
    views.close().await;
}

#[test]
fn a_token_is_one_text_and_no_other() {
    let token = PositionToken { incarnation: Incarnation(Uuid::from_u128(0xab)), position: Position::new(17).unwrap() };
    let text = "17-000000000000000000000000000000ab";
    assert_eq!(token.to_string(), text);
    for position in [0, 1, i64::MAX] {
        let token = PositionToken { position: Position::new(position).unwrap(), ..token };
        assert_eq!(token.to_string().parse(), Ok(token));
    }
    for (wrong, says) in [
        ("", "is ``, which has no incarnation behind a hyphen"),
        ("17", "has no incarnation behind a hyphen"),
        ("-1-000000000000000000000000000000ab", "does not begin with a whole number"),
        ("abc-000000000000000000000000000000ab", "does not begin with a whole number"),
        ("+17-000000000000000000000000000000ab", "does not begin with a whole number"),
        (" 17-000000000000000000000000000000ab", "does not begin with a whole number"),
        ("017-000000000000000000000000000000ab", "does not begin with a whole number"),
        ("9223372036854775808-000000000000000000000000000000ab", "does not begin with a whole number"),
        ("17-00000000-0000-0000-0000-0000000000ab", "does not end with an incarnation"),
        ("17-000000000000000000000000000000AB", "does not end with an incarnation"),
        ("17-000000000000000000000000000000ab\n", "does not end with an incarnation"),
        ("17-{00000000000000000000000000000ab}", "does not end with an incarnation"),
        ("17-0000000000000000000000000000000é", "does not end with an incarnation"),
    ] {
        let error = wrong.parse::<PositionToken>().unwrap_err();
        assert_eq!(error.field, "position token");
        assert!(error.problem.contains(says), "{error}");
    }
    let long = "é".repeat(10_000).parse::<PositionToken>().unwrap_err();
    assert!(long.to_string().len() < 300, "{long}");
}

/// A database that an app opens beside its store, through a pooler that has fewer connections than there are readers.
#[test]
fn rows_are_read_through_a_pooler() {
    block_on(async {
        let scratch = annals_scratch::Database::empty_on_our_own().await;
        let pooled = PostgresOptions::new(scratch.url_through_pooler()).pooled();
        let reports = PostgresDatabase::open_with(&pooled).await.unwrap();
        let backend = Backend::in_one_file();
        let shop = backend.open().await;
        let views = Projections::of(&shop.store(), &reports).with(OrderList).with(Secrets).start().await.unwrap();
        shop.append("o-1", &[placed("ann", 5)]).await;
        let position = append(&shop, "north", "n-1", &EveryEvent::Made { n: 1 }).await;
        views.wait_for(position, SOON).await.unwrap();
        let reads = (0..50).map(|n| {
            let views = views.clone();
            tokio::spawn(async move {
                let id = if n % 2 == 0 { "o-1" } else { "none" };
                let row = views.find::<OrderList>(&id.to_owned()).await.unwrap();
                assert_eq!(row.is_some(), n % 2 == 0);
                let rows = views.select::<OrderList>("cents = $1", &[&(5 + n % 2)]).await.unwrap();
                assert_eq!(rows.len(), usize::from(n % 2 == 0));
                let north = Tenant::new("north").unwrap();
                assert_eq!(views.select_of_tenant::<Secrets>(&north, "", &[]).await.unwrap().len(), 1);
            })
        });
        for read in futures::future::join_all(reads).await {
            read.unwrap();
        }
        views.close().await;
    });
}

text_column!(Shape);

/// An id of a user's own, by reference and by value.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Hash)]
struct Shape(String);

#[test]
fn values_are_given_as_they_come() {
    let shape = Shape("x".to_owned());
    let by_reference = &shape;
    let (text, name) = (String::from("a"), "b");
    let values: &[&dyn QueryValue] = &[&shape, by_reference, &5, &text, &name, &"c", &Some(1_u16), &Tenant::default()];
    assert_eq!(values.len(), 8);
}
