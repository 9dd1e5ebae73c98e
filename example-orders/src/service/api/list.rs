//! The list of orders: filtered, searched, sorted, and read in parts.
//!
//! A part begins behind the last row of the part before, which its cursor holds. That costs the same for the thousandth part as for
//! the first, and a row that is added or changed in between hides no other: `OFFSET` has neither.

use annals::projections::QueryValue;
use annals::resilience::Deadline;
use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::domain::order::{CustomerId, Status};
use crate::read_models::customers::Customers;
use crate::read_models::list::{Listed, OrderList};
use crate::service::access::Caller;
use crate::service::api::cursor::{Column, Cursor, Key, Sort};
use crate::service::api::past;
use crate::service::api::views::{OrderLine, OrderPage};
use crate::service::app::App;
use crate::service::ask::{Asked, moment};
use crate::service::problem::Problem;

/// All of them.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Which orders, and how.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Only those of this status.
    status: Option<Status>,
    /// Only those of this customer.
    #[param(max_length = 200)]
    customer: Option<String>,
    /// Only those in whose id, customer or products this is found, in any case.
    #[param(max_length = 100)]
    q: Option<String>,
    /// `placed-at`, `total` or `customer`, with a `-` before it for the greatest first; the newest first if it is left out.
    sort: Option<String>,
    /// How many, 20 if it is left out.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// `next` of the part before.
    after: Option<String>,
    /// `previous` of the part behind.
    before: Option<String>,
    /// The list as it was, at a time such as 2026-03-02T09:30:00Z.
    as_of: Option<String>,
    /// `X-Position` of a write: the list has it.
    at_least: Option<String>,
}

/// The same, checked.
pub struct Wanted {
    pub status: Option<Status>,
    pub customer: Option<CustomerId>,
    /// In small letters.
    pub search: Option<String>,
    pub sort: Sort,
    pub limit: usize,
    /// Where the part begins.
    pub from: Option<Cursor>,
    /// Whether it ends there instead.
    pub backward: bool,
}

impl Wanted {
    fn of(query: &ListQuery, caller: &Caller) -> Result<Self, Problem> {
        let bad = |detail: &str| Problem::bad("query-invalid", detail);
        let sort = Sort::parse(query.sort.as_deref())?;
        let (from, backward) = match (&query.after, &query.before) {
            (Some(_), Some(_)) => return Err(bad("`after` and `before` are given; send one of them")),
            (Some(after), None) => (Some(Cursor::parse(after, sort)?), false),
            (None, Some(before)) => (Some(Cursor::parse(before, sort)?), true),
            (None, None) => (None, false),
        };
        let limit = query.limit.unwrap_or(20) as usize;
        if !(1..=100).contains(&limit) {
            return Err(bad("`limit` is from 1 to 100"));
        }
        if query.q.as_ref().is_some_and(|q| q.contains('\0') || q.chars().count() > 100) {
            return Err(bad("`q` has at most 100 characters, and not U+0000"));
        }
        let customer = query.customer.as_ref().map(CustomerId::new).transpose()?;
        Ok(Self {
            status: query.status,
            customer: caller.only(customer)?,
            search: query.q.as_ref().map(|q| q.to_lowercase()).filter(|q| !q.is_empty()),
            sort,
            limit,
            from,
            backward,
        })
    }
}

/// The list of orders, in parts.
#[utoipa::path(get, path = "/orders", tag = "orders", params(ListQuery),
    responses((status = 200, body = OrderPage)), security(("api_key" = ["customer", "admin"])))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    deadline: Deadline,
    Asked(query): Asked<ListQuery>,
) -> Result<Json<OrderPage>, Problem> {
    let wanted = Wanted::of(&query, &caller)?;
    app.shows::<OrderList>(query.at_least.as_deref(), deadline).await?;
    let (rows, as_of_position) = match &query.as_of {
        Some(time) => {
            let (rows, position) = past::rows(&app, &caller, moment(time)?, &wanted).await?;
            (rows, Some(position.get()))
        }
        None => (rows(&app, &caller, &wanted).await?, None),
    };
    let mut page = page(&app, &caller, &wanted, rows).await?;
    page.as_of_position = as_of_position;
    Ok(Json(page))
}

/// Makes a part of the rows that were found, of which there is one more than wanted if others follow.
async fn page(app: &App, caller: &Caller, wanted: &Wanted, mut rows: Vec<Listed>) -> Result<OrderPage, Problem> {
    let others_follow = rows.len() > wanted.limit;
    rows.truncate(wanted.limit);
    if wanted.backward {
        rows.reverse();
    }
    let place =
        |row: Option<&Listed>, is_wanted| row.filter(|_| is_wanted).map(|row| Cursor::of(wanted.sort, row).to_text());
    let next = place(rows.last(), wanted.backward || others_follow);
    let begun = wanted.from.is_some();
    let previous = place(rows.first(), if wanted.backward { others_follow } else { begun });
    let customers: Vec<CustomerId> = rows.iter().map(|row| row.customer.clone()).collect();
    let names = app.shop.views.find_many_of_tenant::<Customers>(&caller.tenant, &customers).await?;
    let named = rows.into_iter().zip(names).map(|(row, named)| OrderLine::of(row, named.map(|named| named.name)));
    Ok(OrderPage { orders: named.collect(), next, previous, as_of_position: None })
}

// The texts of all orders; each has the same filters. A filter that is not wanted is null, and then compares a column with itself.
macro_rules! filtered {
    () => {
        "status = coalesce($1, status) AND customer = coalesce($2, customer) AND search LIKE $3 ESCAPE '!'"
    };
}

macro_rules! texts {
    ($column:literal, $beyond:literal, $direction:literal) => {
        [
            concat!(filtered!(), " ORDER BY ", $column, " ", $direction, ", order_id ", $direction, " LIMIT $4"),
            concat!(
                filtered!(),
                " AND ",
                $column,
                " ",
                $beyond,
                "= $5 AND (",
                $column,
                " ",
                $beyond,
                " $5 OR order_id ",
                $beyond,
                " $6) ORDER BY ",
                $column,
                " ",
                $direction,
                ", order_id ",
                $direction,
                " LIMIT $4"
            ),
        ]
    };
}

/// The text for an order: from the beginning, and from a cursor.
fn texts(sort: Sort) -> [&'static str; 2] {
    match (sort.column, sort.descending) {
        (Column::PlacedAt, false) => texts!("placed_at", ">", "ASC"),
        (Column::PlacedAt, true) => texts!("placed_at", "<", "DESC"),
        (Column::Total, false) => texts!("total", ">", "ASC"),
        (Column::Total, true) => texts!("total", "<", "DESC"),
        (Column::Customer, false) => texts!("customer", ">", "ASC"),
        (Column::Customer, true) => texts!("customer", "<", "DESC"),
    }
}

/// The rows of a part and one more, in the order in which they are read.
async fn rows(app: &App, caller: &Caller, wanted: &Wanted) -> Result<Vec<Listed>, Problem> {
    let sort = if wanted.backward { wanted.sort.reversed() } else { wanted.sort };
    let [from_the_beginning, from_a_cursor] = texts(sort);
    let pattern = pattern(wanted.search.as_deref());
    let most = wanted.limit as i64 + 1;
    let filters: [&dyn QueryValue; 4] = [&wanted.status, &wanted.customer, &pattern, &most];
    let Some(Cursor { key, order, .. }) = &wanted.from else {
        return Ok(app.shop.views.select_of_tenant::<OrderList>(&caller.tenant, from_the_beginning, &filters).await?);
    };
    let key: &dyn QueryValue = match key {
        Key::PlacedAt(time) => time,
        Key::Total(cents) => cents,
        Key::Customer(customer) => customer,
    };
    let values: Vec<&dyn QueryValue> = filters.into_iter().chain([key, order as &dyn QueryValue]).collect();
    Ok(app.shop.views.select_of_tenant::<OrderList>(&caller.tenant, from_a_cursor, &values).await?)
}

/// A pattern of `LIKE` that finds a text as it is: what stands for others in a pattern stands for itself.
fn pattern(search: Option<&str>) -> String {
    let mut pattern = String::from("%");
    for letter in search.unwrap_or_default().chars() {
        if matches!(letter, '%' | '_' | '!') {
            pattern.push('!');
        }
        pattern.push(letter);
    }
    if search.is_some() {
        pattern.push('%');
    }
    pattern
}
