//! The list of orders: filtered, searched, read in parts, and kept up to date.

use axum::http::{Method, Uri};
use axum::response::Response;
use maud::{Markup, html};
use serde::{Deserialize, Serialize};

use crate::dashboard::error::Trouble;
use crate::dashboard::format::{count, money, time};
use crate::dashboard::layout::Page;
use crate::dashboard::personal::{self, personal};
use crate::dashboard::query::{Query, filled};
use crate::dashboard::topic::Topic;
use crate::dashboard::visitor::{Visitor, escaped};
use crate::domain::order::Status;
use crate::service::api::list::{self, ListQuery};
use crate::service::api::views::{OrderLine, OrderPage};
use crate::service::problem::Problem;

/// Where it is.
pub const PATH: &str = "/dashboard/orders";

/// What the form says, of which everything may be empty.
#[derive(Deserialize, Serialize, Default, Clone)]
#[serde(default, deny_unknown_fields)]
pub struct OrdersQuery {
    status: String,
    customer: String,
    q: String,
    sort: String,
    after: String,
    before: String,
}

const STATUSES: [Status; 7] = [
    Status::Placed,
    Status::Paid,
    Status::Reserved,
    Status::Shipped,
    Status::Delivered,
    Status::Cancelled,
    Status::Returned,
];

const SORTS: [(&str, &str); 5] = [
    ("", "newest first"),
    ("placed-at", "oldest first"),
    ("-total", "largest total first"),
    ("total", "smallest total first"),
    (BY_CUSTOMER, "by customer"),
];

const BY_CUSTOMER: &str = "customer";

/// The page.
pub async fn show(mut visitor: Visitor, Query(query): Query<OrdersQuery>) -> Result<Response, Trouble> {
    visitor.needs(&Method::GET, "/orders")?;
    // What is found by a customer tells of whom it is, and where a part of the list by customers ends is one, who would be in the links
    // to the others.
    let hides = personal::is_asked_for(&visitor);
    let would_tell = hides && (query.sort.contains(BY_CUSTOMER) || !query.customer.is_empty());
    let query =
        if would_tell { OrdersQuery { status: query.status, q: query.q, ..OrdersQuery::default() } } else { query };
    if would_tell {
        // Forms lead back to the page, so its own address must not tell either.
        visitor.uri = query.url("", "").parse().unwrap_or_else(|_| Uri::from_static(PATH));
    }
    let asked = query.of_the_api(hides)?;
    let (page, _) = list::shown(&visitor.dashboard.app, visitor.caller(), visitor.deadline(), &asked).await?;
    let is_filtered = [&query.status, &query.customer, &query.q].into_iter().any(|field| !field.is_empty());
    let content = html! {
        div.head {
            div { h1 { "Orders" } p.quiet { "Of the shop " (visitor.caller().tenant) ". The list follows what happens." } }
            (personal::button(&visitor))
        }
        (query.form(hides))
        @if would_tell { p.notice { "Orders are found and sorted by customer while personal data is shown. These are of all customers, the newest first." } }
        @if let Some(seconds) = page.stale_seconds {
            p.notice.warn { "The list cannot be read at the moment. This is how it was " (seconds) " s ago." }
        }
        section.card aria-label="List" data-list {
            @if page.orders.is_empty() {
                p.empty {
                    @if is_filtered { "No order is like that. " a href=(PATH) { "Show all" } }
                    @else { "There is no order yet. The first one will appear here." }
                }
            } @else {
                (table(&visitor, &page.orders))
            }
            (query.parts(&page))
        }
    };
    Ok(Page::new("Orders", content).live(Topic::Orders).to(&visitor))
}

impl OrdersQuery {
    /// As the API is asked; without names if those are hidden.
    fn of_the_api(&self, hides: bool) -> Result<ListQuery, Problem> {
        let named = |status: &&Status| status.to_string() == self.status;
        let status = STATUSES.iter().find(named).copied();
        if status.is_none() && !self.status.is_empty() {
            return Err(Problem::bad("query-invalid", "`status` is none of an order"));
        }
        Ok(ListQuery {
            status,
            customer: filled(&self.customer),
            q: filled(&self.q),
            sort: filled(&self.sort),
            after: filled(&self.after),
            before: filled(&self.before),
            without_names: hides,
            ..ListQuery::default()
        })
    }

    fn form(&self, hides: bool) -> Markup {
        let places = if hides { "order or product" } else { "order, customer or product" };
        html! {
            form.card method="get" action=(PATH) role="search" data-at-once {
                div.row {
                    div.grow {
                        label for="q" { "Search" }
                        input #q name="q" type="search" value=(self.q) maxlength="100" placeholder=(places);
                    }
                    div {
                        label for="status" { "Status" }
                        select #status name="status" {
                            option value="" { "all" }
                            @for status in STATUSES {
                                option value=(status) selected[self.status == status.to_string()] { (status) }
                            }
                        }
                    }
                    @if !hides {
                        div {
                            label for="customer" { "Customer" }
                            input #customer name="customer" value=(self.customer) maxlength="200" size="12" autocomplete="off";
                        }
                    }
                    div {
                        label for="sort" { "Sort" }
                        select #sort name="sort" {
                            @for (sort, name) in SORTS.into_iter().filter(|(sort, _)| !hides || *sort != BY_CUSTOMER) {
                                option value=(sort) selected[self.sort == sort] { (name) }
                            }
                        }
                    }
                    button.main type="submit" { "Show" }
                }
            }
        }
    }

    /// To the parts before and behind.
    /// The address of a part of the list.
    fn url(&self, after: &str, before: &str) -> String {
        let fields = [
            ("status", &*self.status),
            ("customer", &self.customer),
            ("q", &self.q),
            ("sort", &self.sort),
            ("after", after),
            ("before", before),
        ];
        let pairs = fields.into_iter().filter(|(_, value)| !value.is_empty());
        let pairs: Vec<String> = pairs.map(|(name, value)| format!("{name}={}", escaped(value))).collect();
        format!("{PATH}?{}", pairs.join("&"))
    }

    fn parts(&self, page: &OrderPage) -> Markup {
        html! {
            @if page.previous.is_some() || page.next.is_some() {
                nav.pages aria-label="Parts of the list" {
                    @if let Some(previous) = &page.previous { a.button rel="prev" href=(self.url("", previous)) { "← Before" } }
                    @else { span {} }
                    @if let Some(next) = &page.next { a.button rel="next" href=(self.url(next, "")) { "More →" } }
                }
            }
        }
    }
}

fn table(visitor: &Visitor, orders: &[OrderLine]) -> Markup {
    html! {
        table.stack #orders {
            caption.visually-hidden { "Orders" }
            thead {
                tr {
                    th scope="col" { "Order" }
                    th scope="col" { "Status" }
                    th scope="col" { "Customer" }
                    th.number scope="col" { "Pieces" }
                    th.number scope="col" { "Total" }
                    th scope="col" { "Placed (UTC)" }
                }
            }
            tbody {
                @for order in orders {
                    tr #{ "order-" (order.order_id) } {
                        th scope="row" data-name="Order" { a href={ (PATH) "/" (escaped(order.order_id.as_str())) } { (order.order_id) } }
                        td data-name="Status" { (badge(order.status)) }
                        td data-name="Customer" { (personal(visitor, order.customer_name.as_deref().unwrap_or(order.customer.as_str()))) }
                        td.number data-name="Pieces" { (count(order.pieces)) }
                        td.number data-name="Total" { (money(order.total)) }
                        td data-name="Placed (UTC)" { (time(order.placed_at)) }
                    }
                }
            }
        }
    }
}

/// The status of an order, as a word with a colour.
pub fn badge(status: Status) -> Markup {
    let kind = match status {
        Status::Unknown => "",
        Status::Placed => "warn",
        Status::Paid | Status::Reserved | Status::Shipped => "busy",
        Status::Delivered => "good",
        Status::Cancelled | Status::Returned => "bad",
    };
    html! { span class={ "state " (kind) } { (status) } }
}
