//! Sales by day, with the slider: the figures as they were known at any time.

use annals::Tenant;
use annals::engine::{Clock, SystemClock};
use axum::Json;
use axum::extract::State;
use axum::http::Method;
use axum::response::Response;
use jiff::tz::Offset;
use jiff::{Timestamp, ToSpan};
use maud::{Markup, html};
use serde::Deserialize;
use std::collections::BTreeSet;

use crate::dashboard::chart::{Chart, Kind, Series};
use crate::dashboard::error::Trouble;
use crate::dashboard::format::{amount_of, count};
use crate::dashboard::layout::Page;
use crate::dashboard::query::{Query, Then};
use crate::dashboard::slider;
use crate::dashboard::topic::Topic;
use crate::dashboard::visitor::Visitor;
use crate::service::api::analytics::{self, DaysQuery, Sales};
use crate::service::api::list::{self, ListQuery};
use crate::service::ask::Asked;
use crate::service::problem::Problem;

/// Where it is.
pub const PATH: &str = "/dashboard/analytics";

/// The slider has at most so many places.
const MOST: i64 = 100;

/// Seconds between two places: the least of these with which there are not too many.
const STEPS: [i64; 10] = [10, 60, 300, 900, 3_600, 21_600, 86_400, 604_800, 2_592_000, 31_536_000];

/// When.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnalyticsQuery {
    #[serde(default)]
    as_of: String,
}

/// The page.
pub async fn show(visitor: Visitor, Query(query): Query<AnalyticsQuery>) -> Result<Response, Trouble> {
    visitor.needs(&Method::GET, "/analytics/days")?;
    let then = Then::read(&query.as_of);
    let asked = Asked(DaysQuery { as_of: then.of_the_api(), ..DaysQuery::default() });
    let app = visitor.dashboard.app.clone();
    let Json(sales) = analytics::by_day(State(app), visitor.caller().clone(), visitor.deadline(), asked).await?;
    let moments = moments(first_order(&visitor).await?, SystemClock.now());
    let content = html! {
        div.head { div { h1 { "Analytics" } p.quiet { "Sales of the shop " (visitor.caller().tenant) " by day (UTC), as they were known." } } }
        (slider::slider(PATH, &moments, true, &then))
        @if sales.days.is_empty() {
            section.card { p.empty { "Nothing was sold" @if then.at.is_some() { " until then" } "." } }
        } @else {
            (totals(&sales))
            div.columns { (charts(&sales, &visitor.caller().tenant)) }
            (table(&sales))
        }
    };
    let page = Page::new("Analytics", content).live(Topic::Orders).with_charts();
    Ok(then.answered(if then.at.is_some() { page.past() } else { page }.to(&visitor)))
}

/// When the first order was placed.
async fn first_order(visitor: &Visitor) -> Result<Option<Timestamp>, Problem> {
    let asked = ListQuery { sort: Some("placed-at".to_owned()), limit: Some(1), ..ListQuery::default() };
    let (page, _) = list::shown(&visitor.dashboard.app, visitor.caller(), visitor.deadline(), &asked).await?;
    Ok(page.orders.first().map(|order| order.placed_at))
}

/// The places of the slider: at whole steps, so that they stay where they are while time goes on.
fn moments(first: Option<Timestamp>, now: Timestamp) -> Vec<Timestamp> {
    let Some(first) = first else { return Vec::new() };
    let (first, now) = (first.as_second(), now.as_second());
    let fits = |step: &&i64| (now - first) / **step < MOST;
    let step = STEPS.iter().find(fits).copied().unwrap_or(STEPS[STEPS.len() - 1]);
    let begin = (first / step + 1) * step;
    let places = (0..=MOST).map(|n| begin + n * step).take_while(|at| *at < now);
    places.filter_map(|at| Timestamp::from_second(at).ok()).collect()
}

fn totals(sales: &Sales) -> Markup {
    html! {
        @for total in &sales.totals {
            dl.figures aria-label={ "Totals in " (total.currency) } {
                div { dt { "Orders" } dd data-field="orders" { (count(total.orders)) } }
                div { dt { "Ordered" } dd data-field="ordered" { (amount_of(total.ordered, &total.currency)) } }
                div { dt { "Revenue" } dd data-field="revenue" { (amount_of(total.revenue, &total.currency)) } }
                div { dt { "Average order" } dd data-field="average" {
                    @match total.average_order { Some(average) => (amount_of(average, &total.currency)), None => "none" }
                } }
            }
        }
    }
}

fn charts(sales: &Sales, tenant: &Tenant) -> Markup {
    let second = |day: jiff::civil::Date| Offset::UTC.to_timestamp(day.at(0, 0, 0, 0)).map_or(0, Timestamp::as_second);
    let days: BTreeSet<_> = sales.days.iter().map(|row| row.day).collect();
    // A day without sales is a day, too.
    let (first, last) = (days.first().copied().unwrap_or_default(), days.last().copied().unwrap_or_default());
    let all: Vec<_> = first.series(1.day()).take_while(|day| *day <= last).take(3_660).collect();
    let currencies: BTreeSet<&str> = sales.days.iter().map(|row| &*row.currency).collect();
    let chart = |value: fn(&analytics::DaySales) -> f64| Chart {
        x: all.iter().map(|day| second(*day)).collect(),
        series: currencies
            .iter()
            .map(|currency| {
                let of = |day| sales.days.iter().find(|row| row.day == day && row.currency == *currency);
                let values = all.iter().map(|day| of(*day).map(value)).collect();
                Series { name: (*currency).to_owned(), values }
            })
            .collect(),
        unit: "",
    };
    let orders = chart(|row| row.orders as f64);
    let revenue = chart(|row| row.revenue as f64 / 100.0);
    html! {
        section.card { h2 { "Orders by day" } (orders.show(&format!("Orders of {tenant} by day"), Kind::Days)) }
        section.card { h2 { "Revenue by day" } (revenue.show(&format!("Revenue of {tenant} by day"), Kind::Days)) }
    }
}

fn table(sales: &Sales) -> Markup {
    html! {
        section.card aria-labelledby="days" {
            h2 #days { "Days" }
            table.stack {
                thead {
                    tr {
                        th scope="col" { "Day" } th.number scope="col" { "Orders" } th.number scope="col" { "Ordered" }
                        th.number scope="col" { "Revenue" } th.number scope="col" { "Average order" }
                    }
                }
                tbody {
                    @for row in &sales.days {
                        tr #{ "day-" (row.day) "-" (row.currency) } {
                            th scope="row" data-name="Day" { time datetime=(row.day) { (row.day) } }
                            td.number data-name="Orders" { (count(row.orders)) }
                            td.number data-name="Ordered" { (amount_of(row.ordered, &row.currency)) }
                            td.number data-name="Revenue" { (amount_of(row.revenue, &row.currency)) }
                            td.number data-name="Average order" {
                                @match row.average_order { Some(average) => (amount_of(average, &row.currency)), None => "none" }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slider_has_few_places_between_the_first_order_and_now_and_they_stay() {
        let at = |seconds| Timestamp::from_second(seconds).expect("a time");
        assert_eq!(moments(None, at(5)), []);
        assert_eq!(moments(Some(at(3)), at(31)), [at(10), at(20), at(30)]);
        for length in [0, 9, 10, 999, 1_000, 86_400, 40_000_000, 3_000_000_000] {
            let moments = moments(Some(at(1_000)), at(1_000 + length));
            assert!(moments.len() <= 101, "{length}: {}", moments.len());
            assert!(moments.iter().all(|one| *one > at(1_000) && *one < at(1_000 + length)), "{length}");
        }
    }
}
