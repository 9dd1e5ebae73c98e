//! What the databases make of the texts of the list, so that a lost index shows in review. A search reads the rows of the shop in
//! the order of the list, until it has found a part of it.

use sqlx::{AssertSqlSafe, Connection, PgConnection, Row, SqliteConnection};

use super::cursor::{Column, Cursor, Sort};
use super::list::Wanted;
use super::texts::text;
use crate::domain::order::{CustomerId, OrderId, Status};
use crate::location::Location;
use crate::read_models::list::Listed;
use crate::shop::Shop;

/// Twenty thousand orders of fifty shops.
const FILL: &str = "
    INSERT INTO order_list_v2 (tenant, order_id, customer, status, pieces, total, currency, placed_at, search)
    SELECT 'shop-' || n % 50, 'o-' || n, 'c-' || n % 2000, CASE n % 10 WHEN 0 THEN 'paid' ELSE 'delivered' END, 1, n, 'EUR',
           timestamptz '2026-01-01' + n * interval '1 min', 'o-' || n || ' kettle'
    FROM generate_series(1, 20000) AS n;
    ANALYZE order_list_v2
";

/// What is asked for, and the values of it: `$1`, `$2`, `$3`, and `$25` if there is a cursor.
fn questions() -> Vec<(&'static str, Wanted, [&'static str; 4])> {
    let newest = Wanted {
        status: None,
        customer: None,
        search: None,
        sort: Sort::DEFAULT,
        limit: 20,
        from: None,
        backward: false,
        without_names: false,
    };
    let (status, customer) = (Some(Status::Paid), CustomerId::new("c-51").ok());
    let dearest = Sort { column: Column::Total, descending: true };
    let row = Listed {
        order_id: OrderId::new("o-10001").expect("an id"),
        customer: CustomerId::new("c-1").expect("an id"),
        status: Status::Paid,
        pieces: 1,
        total: 10_001,
        currency: crate::domain::money::Currency::Eur,
        placed_at: "2026-01-08T00:00:00Z".parse().expect("a time"),
        search: String::new(),
    };
    let behind = |sort| Some(Cursor::of(sort, &row));
    let time = "'2026-01-08T00:00:00Z'";
    vec![
        ("the newest", newest.clone(), ["NULL", "NULL", "'%'", ""]),
        ("those behind", Wanted { from: behind(Sort::DEFAULT), ..newest.clone() }, ["NULL", "NULL", "'%'", time]),
        ("of a status", Wanted { status, ..newest.clone() }, ["'paid'", "NULL", "'%'", ""]),
        ("of a customer", Wanted { customer: customer.clone(), ..newest.clone() }, ["NULL", "'c-51'", "'%'", ""]),
        (
            "of a customer, those behind",
            Wanted { customer: customer.clone(), from: behind(Sort::DEFAULT), ..newest.clone() },
            ["NULL", "'c-51'", "'%'", time],
        ),
        ("of both", Wanted { status, customer, ..newest.clone() }, ["'paid'", "'c-51'", "'%'", ""]),
        ("the dearest", Wanted { sort: dearest, ..newest.clone() }, ["NULL", "NULL", "'%'", ""]),
        (
            "the dearest behind",
            Wanted { sort: dearest, from: behind(dearest), ..newest.clone() },
            ["NULL", "NULL", "'%'", "10001"],
        ),
        (
            "by customer",
            Wanted { sort: Sort { column: Column::Customer, descending: false }, ..newest.clone() },
            ["NULL", "NULL", "'%'", ""],
        ),
        ("found", Wanted { search: Some("kettle".to_owned()), ..newest }, ["NULL", "NULL", "'%kettle%'", ""]),
    ]
}

/// The statement as the library writes it around the text, with its values.
fn statement(wanted: &Wanted, [status, customer, pattern, place]: [&str; 4], time: &str) -> String {
    let mut text = text(wanted, wanted.sort).to_owned();
    for number in (1..=26).rev() {
        let value = match number {
            1 => status.to_owned(),
            2 => customer.to_owned(),
            3 => pattern.to_owned(),
            4 => "21".to_owned(),
            5..=24 => "NULL".to_owned(),
            25 if place.starts_with('\'') => format!("{time}{place}"),
            25 => place.to_owned(),
            _ => "'o-10001'".to_owned(),
        };
        text = text.replace(&format!("${number}"), &value);
    }
    let rows = "SELECT t.* FROM order_list AS t WHERE t.tenant = 'shop-1'";
    let (condition, order) = text.split_once(" ORDER BY ").expect("an order");
    format!("SELECT r.* FROM ({rows}) AS r WHERE ({condition}) ORDER BY {order}")
}

#[tokio::test]
async fn the_plans_of_the_list_are_as_agreed_on_sqlite() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("orders.db");
    let shop = Shop::open(&Location::File(path.clone())).await.expect("opened");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).read_only(true);
    let mut connection = SqliteConnection::connect_with(&options).await.expect("it opens");
    let mut plans = String::new();
    for (what, wanted, values) in questions() {
        plans += &format!("{what}\n");
        let explain = format!("EXPLAIN QUERY PLAN {}", statement(&wanted, values, ""));
        let rows = sqlx::query(AssertSqlSafe(explain)).fetch_all(&mut connection).await.expect("a plan");
        rows.iter().for_each(|row| plans += &format!("    {}\n", row.get::<&str, _>("detail")));
    }
    connection.close().await.expect("closed");
    shop.close().await.expect("closed");
    insta::assert_snapshot!(plans);
}

#[tokio::test]
async fn the_plans_of_the_list_are_as_agreed_on_postgresql() {
    let scratch = annals_scratch::Database::empty().await;
    let location = Location::of(None, Some(scratch.url().to_owned())).expect("a known URL");
    let shop = Shop::open(&location).await.expect("opened");
    let mut connection = PgConnection::connect(scratch.url()).await.expect("it answers");
    sqlx::raw_sql(FILL).execute(&mut connection).await.expect("filled");
    let mut plans = String::new();
    for (what, wanted, values) in questions() {
        plans += &format!("{what}\n");
        let explain = format!("EXPLAIN (COSTS OFF) {}", statement(&wanted, values, "timestamptz "));
        let rows = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_all(&mut connection).await.expect("a plan");
        rows.iter().for_each(|row| plans += &format!("    {}\n", row.get::<&str, _>(0)));
    }
    shop.close().await.expect("closed");
    insta::assert_snapshot!(plans);
}
