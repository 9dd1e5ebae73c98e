//! A read model as of a position is what a projection holds that was stopped there.

use annals_eventstore::{AsOf, EventStore, Position, ReadError, Tenant};
use fastrand::Rng;

use super::accounts::{Account, AccountEvent, Accounts};
use super::fixture::Fixture;
use super::law::random_event;
use crate::{AsOfError, Projections, RowsAsOf};

fn id_and_cents(answer: &RowsAsOf<Account>) -> Vec<(String, i64)> {
    answer.rows.iter().map(|row| (row.id.clone(), row.cents)).collect()
}

async fn as_of(views: &Projections, position: Position) -> RowsAsOf<Account> {
    views.as_of::<Accounts>(AsOf::position(position)).await.unwrap()
}

pub(super) async fn rows_as_of_a_position_are_those_of_a_projection_that_was_stopped_there(shop: Fixture) {
    let seed = std::env::var("ANNALS_SEED").map_or_else(|_| fastrand::u64(..), |s| s.parse().expect("a number"));
    println!("ANNALS_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let views = shop.start().await;
    assert!(as_of(&views, Position::START).await.rows.is_empty());
    let mut held = Vec::new();
    for _ in 0..shop.rounds() / 2 {
        let (id, first) = random_event(&mut rng);
        let more = (0..rng.usize(..3)).map(|_| random_event(&mut rng).1);
        let events: Vec<_> = std::iter::once(first).chain(more).collect();
        let before = shop.store.head().await.unwrap().position;
        let position = shop.append(&id, events).await;
        views.wait_for(position, shop.soon()).await.unwrap();
        held.push((before, position, shop.rows::<Accounts>().await));
    }
    for (before, position, rows) in &held {
        let answer = as_of(&views, *position).await;
        assert_eq!((id_and_cents(&answer), answer.position), (rows.clone(), *position));
        // A position in the middle of the append is answered with what was there before it.
        for within in before.get() + 1..position.get() {
            assert_eq!(as_of(&views, Position::new(within).unwrap()).await.position, *before);
        }
        assert_eq!(as_of(&views, answer.position).await, answer);
    }
    views.close().await;
    assert!(views.as_of::<Accounts>(AsOf::position(held[0].1)).await.is_ok(), "closing stops the runner alone");
}

pub(super) async fn what_cannot_be_shown_as_it_was_says_why(shop: Fixture) {
    let views = shop.projections().with(Accounts).most_rows_as_of(2).start().await.unwrap();
    for id in ["a", "b"] {
        shop.append(id, [AccountEvent::Opened]).await;
    }
    let two = shop.store.head().await.unwrap().position;
    shop.append("c", [AccountEvent::Opened]).await;
    let three = shop.store.head().await.unwrap().position;
    assert_eq!(as_of(&views, two).await.rows.len(), 2);
    match views.as_of::<Accounts>(AsOf::position(three)).await {
        Err(AsOfError::TooManyRows { limit: 2, position, .. }) => assert_eq!(position, three),
        other => panic!("{other:?}"),
    }
    let refused = shop.append("a", [AccountEvent::Refused]).await;
    match views.as_of::<Accounts>(AsOf::position(refused)).await {
        Err(AsOfError::Stopped(stopped)) => assert_eq!(stopped.event.unwrap().position, refused),
        other => panic!("{other:?}"),
    }
    match views.as_of_tenant::<Accounts>(&Tenant::default(), AsOf::position(two)).await {
        Err(AsOfError::Read(ReadError::Invalid(invalid))) => assert_eq!(invalid.field, "tenant"),
        other => panic!("{other:?}"),
    }
    // What came later does not matter.
    assert_eq!(as_of(&views, two).await.rows.len(), 2);
    let beyond = Position::new(refused.get() + 1).unwrap();
    for nothing in [AsOf::version(1), AsOf::position(beyond), AsOf::time(jiff::Timestamp::MAX)] {
        assert!(matches!(views.as_of::<Accounts>(nothing).await, Err(AsOfError::Read(_))), "{nothing}");
    }
    views.close().await;
}

/// A batch that asks for rows over and over is folded in parts; the parts behind the first count too.
#[tokio::test(start_paused = true)]
async fn a_long_chain_of_lookups_behind_the_first_batch_loses_no_event() {
    let shop = Fixture::new();
    let ids: Vec<String> = (0..40).map(|n| format!("n{n:02}")).collect();
    for pair in ids.windows(2) {
        shop.append(&pair[0], [AccountEvent::Linked(pair[1].clone())]).await;
    }
    for _ in 0..11 {
        shop.append("between", vec![AccountEvent::Opened; 1_000]).await;
    }
    let at = shop.append("n00", [AccountEvent::PaidAtTheEnd(1), AccountEvent::PaidAtTheEnd(2)]).await;
    let views = shop.start().await;
    let cents = as_of(&views, at).await.rows.iter().find(|row| row.id == "n39").map(|row| row.cents);
    assert_eq!(cents, Some(3));
    views.close().await;
}
