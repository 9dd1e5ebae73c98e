//! A tenant does not notice what others do: not in the past, not in the status, and not in the test kit.

use annals_eventstore::{AsOf, EventStore, Recorded, Tenant};
use annals_macros::ReadModel;

use super::accounts::{Account, AccountEvent, Accounts};
use super::fixture::{Counts, Fixture, OfTenant, pairs, said, until_at};
use super::lines::{Line, LineEvent, Lines, added, stored, tenants};
use super::observed::Warnings;
use crate::testing::{GivenEvent, given_events};
use crate::{Column, ColumnValue, Projection, ProjectionError, Projections, ReadModel, RowKeyPrefix, Rows};

async fn as_of(views: &Projections, tenant: &Tenant, position: annals_eventstore::Position) -> Result<usize, String> {
    let past = views.as_of_tenant::<Lines>(tenant, AsOf::position(position)).await;
    past.map(|past| past.rows.len()).map_err(|error| said(&error))
}

#[tokio::test(start_paused = true)]
async fn rows_of_a_tenant_as_they_were_depend_on_no_other() {
    let shop = Fixture::new();
    let [small, large] = tenants();
    let line = |line| LineEvent::Added { customer: "a".into(), order: 1, line };
    shop.append_any_of(small.clone(), "l", [line(0)]).await;
    shop.append_any_of(large.clone(), "l", (0..3).map(line)).await;
    let missing = LineEvent::Paired { customer: "a".into(), order: 1, lines: [7, 8] };
    shop.append_any_of(large.clone(), "l", [missing]).await;
    let last = shop.append_any_of(small.clone(), "l", [line(1)]).await;

    let views = shop.projections().with(Lines).most_rows_as_of(2).start().await.unwrap();
    assert_eq!(as_of(&views, &small, last).await, Ok(2));
    let too_many = as_of(&views, &large, last).await.unwrap_err();
    assert!(too_many.contains("`lines` had more than 2 rows") || too_many.contains("no row"), "{too_many}");
    views.close().await;

    let views = shop.projections().with(Lines).for_tenant(small.clone());
    views.start().await.expect_err("the table is of all tenants");
    let elsewhere = Fixture::new().with_store(shop.store.clone());
    let views = elsewhere.projections().with(Lines).for_tenant(small.clone()).start().await.unwrap();
    assert_eq!(as_of(&views, &small, last).await, Ok(2));
    let refused = as_of(&views, &large, last).await.unwrap_err();
    assert!(refused.starts_with("`tenant` is `shop2`, but projection `lines` is of tenant `shop`"), "{refused}");
    views.close().await;
}

#[tokio::test(start_paused = true)]
async fn every_projection_of_a_handle_for_a_tenant_is_for_that_tenant() {
    let shop = Fixture::new();
    let north = Tenant::new("north").unwrap();
    shop.append_of(north.clone(), "a", [AccountEvent::Paid(2)]).await;
    shop.append("b", [AccountEvent::Paid(1)]).await;
    let views = shop.projections().with(Accounts).with(Counts).for_tenant(north).start().await.unwrap();
    views.caught_up(shop.soon()).await.unwrap();
    assert_eq!((shop.rows::<Accounts>().await, shop.rows::<Counts>().await), (pairs(&[("a", 2)]), pairs(&[("a", 1)])));
    views.close().await;
}

/// Two projections, one of them of a tenant, share a pass.
#[tokio::test(start_paused = true)]
async fn a_name_is_unseen_until_an_event_of_the_tenant_has_it() {
    let shop = Fixture::new();
    let north = Tenant::new("north").unwrap();
    shop.append("a", [AccountEvent::Opened, AccountEvent::Paid(1)]).await;
    let position = shop.append_of(north.clone(), "a", [AccountEvent::Opened]).await;
    let views = shop.projections().with(OfTenant(north.clone())).with(Counts).start().await.unwrap();
    views.wait_for(position, shop.soon()).await.unwrap();
    let unseen = |at: usize| views.status().remove(at).unseen;
    while unseen(0).is_empty() || unseen(1).is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    assert!(unseen(0).contains(&"paid") && !unseen(0).contains(&"opened"), "{:?}", unseen(0));
    assert!(!unseen(1).contains(&"paid") && unseen(1).contains(&"closed"), "{:?}", unseen(1));

    shop.append("a", [AccountEvent::Closed]).await;
    let position = shop.append_of(north, "a", [AccountEvent::Paid(1)]).await;
    until_at(&views, position).await;
    assert!(!unseen(0).contains(&"paid") && unseen(0).contains(&"closed"), "{:?}", unseen(0));
    assert!(!unseen(1).contains(&"closed"), "{:?}", unseen(1));
    views.close().await;
}

/// What every key begins with.
struct Everything;

impl RowKeyPrefix<<Line as ReadModel>::Key> for Everything {
    fn to_columns(&self) -> Vec<ColumnValue> {
        Vec::new()
    }
}

struct ErasesAll;

impl Projection for ErasesAll {
    type Event = LineEvent;
    type Row = Line;

    fn apply(&self, event: &Recorded<LineEvent>, rows: &mut Rows<Line>) -> Result<(), ProjectionError> {
        match event.event {
            LineEvent::CustomerErased { .. } => rows.remove_by_prefix(&Everything),
            LineEvent::OrderErased { .. } => rows.remove_by_prefix(&Whole),
            _ => Lines.apply(event, rows)?,
        }
        Ok(())
    }
}

/// The whole key, which `remove` is for.
struct Whole;

impl RowKeyPrefix<<Line as ReadModel>::Key> for Whole {
    fn to_columns(&self) -> Vec<ColumnValue> {
        vec!["a".to_owned().to_column(), 1_i64.to_column(), 0_u32.to_column()]
    }
}

/// Rows of the tenant that are not in memory would be loaded after they were removed, and written rows be lost.
#[test]
fn what_keys_begin_with_is_one_column_at_least_and_not_all() {
    let all = LineEvent::CustomerErased { customer: "a".into() };
    let one = LineEvent::OrderErased { customer: "a".into(), order: 1 };
    for (erased, values) in [(all, 1), (one, 4)] {
        given_events([("l", added()), ("l", erased), ("l", added())]).with(ErasesAll).then_stops_before(
            2,
            &format!(
                "column `tenant` and the rest begin with {values} values, of 4 key columns; fix the type of the prefix"
            ),
        );
    }
}

#[test]
#[should_panic = "OfTenant` wants the events of tenant `north` alone, and none of them is given; name it by `GivenEvent::tenant`"]
fn a_test_of_a_projection_of_one_tenant_gives_events_of_that_tenant() {
    let of_north = OfTenant(Tenant::new("north").unwrap());
    given_events([("a", AccountEvent::Opened)]).with(of_north).then_rows(Vec::<Account>::new());
}

#[test]
#[should_panic = "there is no event 2; the projection gets 1, counted from 1"]
fn a_test_names_an_event_that_there_is() {
    given_events([("l", added())]).with(Lines).then_stops_before(2, "");
}

/// What a round made of events that are left out of the next one would be stored, or rows be removed of customers who are there.
pub(super) async fn nothing_is_removed_by_an_event_behind_the_one_that_stops_the_projection(shop: Fixture) {
    let [first, second] = tenants();
    let counted = || LineEvent::Counted { customer: "a".into(), order: 1, line: 0 };
    let erased = || LineEvent::CustomerErased { customer: "a".into() };
    // No event of the next batch looks at the second line.
    let other = || LineEvent::Added { customer: "a".into(), order: 1, line: 1 };
    for tenant in [&first, &second] {
        shop.append_any_of(tenant.clone(), "l", [added(), other()]).await;
    }
    let views = shop.projections().with(Lines).start().await.unwrap();
    views.caught_up(shop.soon()).await.unwrap();
    views.close().await;

    shop.append_any_of(first.clone(), "l", [counted()]).await;
    let missing = LineEvent::Paired { customer: "a".into(), order: 1, lines: [0, 9] };
    shop.append_any_of(second.clone(), "l", [counted(), missing, erased()]).await;
    shop.append_any_of(first.clone(), "l", [erased()]).await;
    let views = shop.projections().with(Lines).start().await.unwrap();
    let stopped = views.stopped().await.expect_err("there is no line 9");
    assert_eq!(&*stopped.event.unwrap().name, "line.paired");
    views.close().await;
    for table in stored(&shop).await {
        assert_eq!(table.into_values().collect::<Vec<_>>(), [1, 0]);
    }
}

/// Rows of all tenants, with the tenant behind the customer in the key.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "orders_of_all", key("customer", "tenant", "order_no"))]
struct OrderOfAll {
    customer: String,
    tenant: Tenant,
    order_no: i64,
}

struct OrdersOfAll;

impl Projection for OrdersOfAll {
    type Event = LineEvent;
    type Row = OrderOfAll;

    fn apply(&self, event: &Recorded<LineEvent>, rows: &mut Rows<OrderOfAll>) -> Result<(), ProjectionError> {
        let tenant = event.stream.tenant().clone();
        match event.event.clone() {
            LineEvent::Added { customer, order, .. } => {
                rows.upsert(OrderOfAll { customer, tenant, order_no: order });
            }
            LineEvent::OrderErased { customer, order } => {
                let key = (customer, tenant, order);
                rows.require(&key)?;
                rows.remove(&key);
            }
            // It forgets the tenant.
            LineEvent::CustomerErased { customer } => rows.remove_by_prefix(&customer),
            _ => {}
        }
        Ok(())
    }
}

#[test]
#[should_panic = "`orders_of_all` merges tenants"]
fn the_test_kit_finds_a_removal_that_forgets_the_tenant() {
    let erased = LineEvent::CustomerErased { customer: "a".into() };
    let row = OrderOfAll { customer: "a".into(), tenant: Tenant::default(), order_no: 1 };
    given_events([("l", erased), ("l", added())]).with(OrdersOfAll).then_rows([row]);
}

#[test]
fn events_of_several_tenants_may_be_given_to_a_read_model_that_keeps_them_apart() {
    let erased = || LineEvent::OrderErased { customer: "a".into(), order: 1 };
    let [first, second] = tenants();
    let of = |tenant: &Tenant, event| GivenEvent::of("line", "l", event).tenant(tenant.clone());
    given_events([of(&first, added()), of(&second, added()), of(&first, erased()), of(&second, erased())])
        .with(OrdersOfAll)
        .then_rows([]);
}

/// A read model under the aggregate's id alone would mix the rows of tenants whose ids are alike.
#[tokio::test(start_paused = true)]
async fn rows_in_which_tenants_meet_are_warned_of_once_and_not_where_one_tenant_is_wanted() {
    let (warnings, north) = (Warnings::default(), Tenant::new("north").unwrap());
    let _guard = tracing::subscriber::set_default(warnings.clone());
    let shop = Fixture::new();
    let views = shop.projections().with(Accounts).start().await.unwrap();
    let about = |projection: &str| {
        let named = format!("projection=\"{projection}\"");
        let all = warnings.all();
        all.iter().filter(|text| text.contains("several tenants") && text.contains(&named)).count()
    };
    for (tenant, expected) in [(Tenant::default(), 0), (north.clone(), 1), (Tenant::default(), 1), (north.clone(), 1)] {
        let last = shop.append_of(tenant, "a", [AccountEvent::Paid(1)]).await;
        views.wait_for(last, shop.soon()).await.unwrap();
        assert_eq!(about("accounts"), expected, "{:?}", warnings.all());
    }
    views.close().await;
    let other = Fixture::new().with_store(shop.store.clone());
    let views = other.projections().with(OfTenant(north)).start().await.unwrap();
    views.wait_for(other.store.head().await.unwrap().position, shop.soon()).await.unwrap();
    assert_eq!(about("accounts"), 1, "{:?}", warnings.all());
    views.close().await;
    let meant = Fixture::new().with_store(shop.store.clone());
    let views = meant.projections().with(OfAll).start().await.unwrap();
    views.wait_for(meant.store.head().await.unwrap().position, shop.soon()).await.unwrap();
    assert_eq!(about("accounts"), 1, "{:?}", warnings.all());
}

/// The accounts of all tenants together, on purpose.
struct OfAll;

impl Projection for OfAll {
    type Event = AccountEvent;
    type Row = Account;
    const ACROSS_TENANTS: bool = true;

    fn apply(&self, event: &Recorded<AccountEvent>, rows: &mut Rows<Account>) -> Result<(), ProjectionError> {
        Accounts.apply(event, rows)
    }
}
