//! Sales by day, of one shop for its staff.

use std::collections::BTreeMap;

use annals::AsOf;
use annals::projections::QueryValue;
use annals::resilience::Deadline;
use axum::Json;
use axum::extract::State;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::read_models::analytics::{Day, ShopDay, ShopSales};
use crate::service::access::Caller;
use crate::service::app::App;
use crate::service::ask::{Asked, moment};
use crate::service::problem::Problem;

/// All of them.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(by_day))
}

/// Which days.
#[derive(Deserialize, Default, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DaysQuery {
    /// The first day, such as 2026-03-02; the first of all if it is left out.
    #[param(value_type = Option<String>, format = Date)]
    pub from: Option<Date>,
    /// The last day; the last of all if it is left out.
    #[param(value_type = Option<String>, format = Date)]
    pub to: Option<Date>,
    /// The sales as they were known at a time such as 2026-03-02T09:30:00Z.
    pub as_of: Option<String>,
    /// `X-Position` of a write: the sales have it.
    pub at_least: Option<String>,
}

/// Sales by day.
#[derive(Serialize, ToSchema)]
pub struct Sales {
    /// The newest first.
    pub days: Vec<DaySales>,
    /// The sums of these days, for each currency.
    pub totals: Vec<Total>,
}

/// One day (UTC) in one currency. Amounts are in minor units.
#[derive(Serialize, ToSchema)]
pub struct DaySales {
    /// The day.
    #[schema(value_type = String, format = Date)]
    pub day: Date,
    /// The currency by its ISO code.
    pub currency: String,
    /// Orders placed on this day.
    pub orders: i64,
    /// What they cost.
    pub ordered: i64,
    /// Payments minus refunds of this day.
    pub revenue: i64,
    /// What an order costs, on average, rounded down; nothing if there is none.
    pub average_order: Option<i64>,
}

/// The sums in one currency. Amounts are in minor units.
#[derive(Serialize, ToSchema)]
pub struct Total {
    /// The currency by its ISO code.
    pub currency: String,
    /// Orders placed on these days.
    pub orders: i64,
    /// What they cost.
    pub ordered: i64,
    /// Payments minus refunds of these days.
    pub revenue: i64,
    /// What an order costs, on average, rounded down; nothing if there is none.
    pub average_order: Option<i64>,
}

/// The days from `$1` to `$2`.
pub const DAYS: &str = "day >= $1 AND day <= $2 ORDER BY day DESC, currency";

impl DaysQuery {
    /// The first and the last day.
    pub fn days(&self) -> (Date, Date) {
        (self.from.unwrap_or(Date::MIN), self.to.unwrap_or(Date::MAX))
    }
}

/// The sales of the shop by day: orders, revenue, and what an order costs on average.
#[utoipa::path(get, path = "/analytics/days", operation_id = "list_sales_by_day", tag = "analytics", params(DaysQuery),
    responses((status = 200, body = Sales)), security(("api_key" = ["admin"])))]
pub async fn by_day(
    State(app): State<App>,
    caller: Caller,
    deadline: Deadline,
    Asked(query): Asked<DaysQuery>,
) -> Result<Json<Sales>, Problem> {
    app.shows::<ShopSales>(query.at_least.as_deref(), deadline).await?;
    let (views, (from, to)) = (&app.shop.views, query.days());
    let days: [&dyn QueryValue; 2] = [&from, &to];
    let rows = match &query.as_of {
        None => app.report(deadline, || views.select_of_tenant::<ShopSales>(&caller.tenant, DAYS, &days)).await?,
        Some(time) => {
            let time = AsOf::time(moment(time)?);
            let _room = app.room_to_replay().await?;
            let then = app.report(deadline, || views.as_of_tenant::<ShopSales>(&caller.tenant, time)).await?;
            let mut rows: Vec<ShopDay> = then.rows.into_iter().filter(|row| from <= row.day && row.day <= to).collect();
            rows.sort_by(|one, other| (other.day, &one.currency).cmp(&(one.day, &other.currency)));
            rows
        }
    };
    Ok(Json(Sales::of(rows.into_iter().map(|ShopDay { day, currency, orders, ordered, revenue }| Day {
        day,
        currency,
        orders,
        ordered,
        revenue,
    }))))
}

impl Sales {
    /// The days and their sums.
    pub fn of(rows: impl Iterator<Item = Day>) -> Self {
        let mut sums: BTreeMap<String, (i64, i64, i64)> = BTreeMap::new();
        let mut days = Vec::new();
        for Day { day, currency, orders, ordered, revenue } in rows {
            let sum = sums.entry(currency.clone()).or_default();
            // A sum beyond 64 bits is more money than there is.
            *sum = (sum.0 + orders, sum.1.saturating_add(ordered), sum.2.saturating_add(revenue));
            days.push(DaySales { day, currency, orders, ordered, revenue, average_order: average(ordered, orders) });
        }
        let total = |(currency, (orders, ordered, revenue))| Total {
            currency,
            orders,
            ordered,
            revenue,
            average_order: average(ordered, orders),
        };
        Self { days, totals: sums.into_iter().map(total).collect() }
    }
}

fn average(ordered: i64, orders: i64) -> Option<i64> {
    (orders > 0).then(|| ordered / orders)
}
