//! The list of orders: filtered, searched, sorted, and read in parts.
//!
//! A part begins behind the last row of the part before, which its cursor holds. That costs the same for the thousandth part as for
//! the first, and a row that is added or changed in between hides no other: `OFFSET` has neither.

use annals::resilience::Deadline;
use annals::{Position, StreamProjection};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::degradation::{Page, Shown};
use crate::domain::order::{CustomerId, Status};
use crate::read_models::customers::{CustomerRow, Customers};
use crate::read_models::list::{Listed, OrderList};
use crate::service::access::Caller;
use crate::service::api::cursor::{Cursor, Sort};
use crate::service::api::past;
use crate::service::api::texts::{NAMED, Values, pattern, text};
use crate::service::api::views::{OrderLine, OrderPage};
use crate::service::app::App;
use crate::service::ask::{Asked, moment};
use crate::service::problem::Problem;

/// All of them.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Which orders, and how.
#[derive(Deserialize, Default, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Only those of this status.
    pub status: Option<Status>,
    /// Only those of this customer.
    #[param(max_length = 200)]
    pub customer: Option<String>,
    /// Only those in whose id, customer or products this is found, in any case, or in the name of their customer; of more than twenty
    /// such customers, in the order of their ids, only the first twenty.
    #[param(max_length = 100)]
    pub q: Option<String>,
    /// `placed-at`, `total` or `customer`, with a `-` before it for the greatest first; the newest first if it is left out.
    pub sort: Option<String>,
    /// How many, 20 if it is left out.
    #[param(minimum = 1, maximum = 100)]
    pub limit: Option<u32>,
    /// `next` of the part before.
    pub after: Option<String>,
    /// `previous` of the part behind.
    pub before: Option<String>,
    /// The list as it was, at a time such as 2026-03-02T09:30:00Z. Names of customers are those of now, also where `q` is searched for.
    pub as_of: Option<String>,
    /// `X-Position` of a write: the list has it, or says that it has not.
    pub at_least: Option<String>,
    /// Nobody is found by who the customer is. A page asks so while it hides that.
    #[serde(skip)]
    #[param(ignore)]
    pub without_names: bool,
}

/// The same, checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
    /// Whether nobody is found by who the customer is. A part may have fewer rows then, and others still follow.
    pub without_names: bool,
}

impl Wanted {
    pub fn of(query: &ListQuery, caller: &Caller) -> Result<Self, Problem> {
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
            without_names: query.without_names,
        })
    }
}

/// What the header `X-Stale` says: the page is an older one, which stands in for what could not be read.
const STALE: HeaderName = HeaderName::from_static("x-stale");

/// The list of orders, in parts. While it cannot be read, it is the last one of this question, up to five minutes old: it has
/// `stale_seconds`, and the headers `Age` and `X-Stale`.
#[utoipa::path(get, path = "/orders", operation_id = "list_orders", tag = "orders", params(ListQuery),
    responses((status = 200, body = OrderPage, headers(
        ("X-Position" = String, description = "The list shows everything up to here."),
        ("X-Stale" = Option<String>, description = "`last-page`, or `older-than-asked` if it has not what `at_least` asks for."),
        ("Age" = Option<u64>, description = "Of a page that is stale: how many seconds ago it was read.")
    ))), security(("api_key" = ["customer", "admin"])))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    deadline: Deadline,
    Asked(query): Asked<ListQuery>,
) -> Result<Response, Problem> {
    let (page, position) = shown(&app, &caller, deadline, &query).await?;
    let (stale_seconds, older_than_asked) = (page.stale_seconds, page.older_than_asked);
    let mut response = Json(page).into_response();
    let headers = response.headers_mut();
    headers.extend(position.into_iter().flat_map(|position| app.position(position)));
    if let Some(seconds) = stale_seconds {
        headers.insert(header::AGE, seconds.into());
        headers.insert(STALE, HeaderValue::from_static("last-page"));
    }
    if older_than_asked {
        headers.insert(STALE, HeaderValue::from_static("older-than-asked"));
    }
    Ok(response)
}

/// The part of the list that a caller asks for; and up to where it shows everything, unless it is of the past.
pub async fn shown(
    app: &App,
    caller: &Caller,
    deadline: Deadline,
    query: &ListQuery,
) -> Result<(OrderPage, Option<Position>), Problem> {
    let wanted = Wanted::of(query, caller)?;
    let seen = app.seen(query.at_least.as_deref())?;
    let waited = async {
        app.wait_for::<OrderList>(seen, deadline).await?;
        app.wait_for::<Customers>(seen, deadline).await
    };
    match waited.await {
        // While the database cannot be asked how far the list is, there still is the last page.
        Err(problem) if problem.is_outage() => {}
        waited => waited?,
    }
    if let Some(time) = &query.as_of {
        return Ok((past::page(app, caller, moment(time)?, &wanted, deadline).await?, None));
    }
    let read = |_| page(app, caller, &wanted);
    let shown = app.pages.get(&caller.tenant, &wanted, seen, deadline, read).await?;
    let Shown { value: mut page, position, stale_seconds, older_than_asked } = shown;
    (page.stale_seconds, page.older_than_asked) = (stale_seconds, older_than_asked);
    Ok((page, Some(position)))
}

/// Reads a part of the list as it is.
async fn page(app: &App, caller: &Caller, wanted: &Wanted) -> Result<Page<OrderPage>, Problem> {
    let (views, tenant) = (&app.shop.views, &caller.tenant);
    // Before the rows, so that they show at least as much.
    let position = app.progress(&[OrderList::NAME, Customers::NAME]).await?;
    let sort = if wanted.backward { wanted.sort.reversed() } else { wanted.sort };
    let values = Values::of(wanted, named(app, caller, wanted).await?);
    let rows = views.select_of_tenant::<OrderList>(tenant, text(wanted, sort), &values.all(wanted)).await?;
    Ok(Page { value: part(app, caller, wanted, rows).await?, position })
}

/// The customers in whose names a search finds something.
pub async fn named(app: &App, caller: &Caller, wanted: &Wanted) -> Result<Vec<CustomerRow>, Problem> {
    match &wanted.search {
        Some(search) if !wanted.without_names => {
            let pattern = pattern(Some(search));
            Ok(app.shop.views.select_of_tenant::<Customers>(&caller.tenant, NAMED, &[&pattern]).await?)
        }
        _ => Ok(Vec::new()),
    }
}

/// Makes a part of the rows that were found, of which there is one more than wanted if others follow.
pub async fn part(app: &App, caller: &Caller, wanted: &Wanted, mut rows: Vec<Listed>) -> Result<OrderPage, Problem> {
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
    if let Some(search) = wanted.search.as_ref().filter(|_| wanted.without_names) {
        rows.retain(|row| row.search.replacen(&row.customer.as_str().to_lowercase(), "", 1).contains(search));
    }
    let customers: Vec<CustomerId> = rows.iter().map(|row| row.customer.clone()).collect();
    let names = app.shop.views.find_many_of_tenant::<Customers>(&caller.tenant, &customers).await?;
    let orders = rows.into_iter().zip(names).map(|(row, named)| OrderLine::of(row, named.map(|named| named.name)));
    Ok(OrderPage { orders: orders.collect(), next, previous, ..OrderPage::default() })
}
