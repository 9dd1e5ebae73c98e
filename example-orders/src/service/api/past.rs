//! The list of orders as it was. Nothing is kept for it: the log up to there is folded, so it costs as much as the log of the shop is
//! long, and few may do it at once.

use std::cmp::Ordering;

use annals::AsOf;
use annals::resilience::Deadline;
use jiff::Timestamp;

use crate::read_models::list::{Listed, OrderList};
use crate::service::access::Caller;
use crate::service::api::cursor::Cursor;
use crate::service::api::list::{Wanted, named, part};
use crate::service::api::views::OrderPage;
use crate::service::app::App;
use crate::service::problem::Problem;

/// What the query of `list.rs` finds among the rows of that time: the same filters, the same order. Names are those of now.
pub async fn page(
    app: &App,
    caller: &Caller,
    time: Timestamp,
    wanted: &Wanted,
    deadline: Deadline,
) -> Result<OrderPage, Problem> {
    let _room = app.room_to_replay().await?;
    let then = || app.shop.views.as_of_tenant::<OrderList>(&caller.tenant, AsOf::time(time));
    let then = app.report(deadline, then).await?;
    let named = named(app, caller, wanted).await?;
    let fits = |row: &Listed| fits(row, wanted, named.iter().any(|named| named.customer == row.customer));
    let mut rows: Vec<Listed> = then.rows.into_iter().filter(fits).collect();
    let place = |row: &Listed| Cursor::of(wanted.sort, row);
    let backward = wanted.sort.descending != wanted.backward;
    let compare = |one: &Cursor, other: &Cursor| -> Ordering {
        let order = one.key.cmp(&other.key).then_with(|| one.order.as_str().cmp(other.order.as_str()));
        if backward { order.reverse() } else { order }
    };
    rows.sort_by(|one, other| compare(&place(one), &place(other)));
    if let Some(from) = &wanted.from {
        rows.retain(|row| compare(&place(row), from).is_gt());
    }
    rows.truncate(wanted.limit + 1);
    let page = part(app, caller, wanted, rows).await?;
    Ok(OrderPage { as_of_position: Some(then.position.get()), ..page })
}

fn fits(row: &Listed, wanted: &Wanted, is_named: bool) -> bool {
    wanted.status.is_none_or(|status| row.status == status)
        && wanted.customer.as_ref().is_none_or(|customer| row.customer == *customer)
        && (is_named || wanted.search.as_ref().is_none_or(|search| row.search.contains(search)))
}
