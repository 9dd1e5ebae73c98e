//! What was built while the events came is what is built from them at once.

use annals_eventstore::{EventStore, Recorded};
use fastrand::Rng;

use super::accounts::{Account, AccountEvent, Accounts};
use super::fixture::Fixture;
use super::law::random_event;
use crate::{Projection, ProjectionError, Rows};

/// [`Accounts`] under the next version.
struct Again;

impl Projection for Again {
    type Event = AccountEvent;
    type Row = Account;
    const VERSION: u32 = 2;

    fn apply(&self, event: &Recorded<AccountEvent>, rows: &mut Rows<Account>) -> Result<(), ProjectionError> {
        Accounts.apply(event, rows)
    }
}

pub(super) async fn rebuild_equals_first_build(shop: Fixture) {
    let seed = std::env::var("ANNALS_SEED").map_or_else(|_| fastrand::u64(..), |s| s.parse().expect("a number"));
    println!("ANNALS_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    for _ in 0..4 {
        let views = shop.start().await;
        for _ in 0..rng.usize(1..60) {
            let (id, event) = random_event(&mut rng);
            let position = shop.append(&id, [event]).await;
            if rng.u32(..4) == 0 {
                views.wait_for(position, shop.soon()).await.unwrap();
            }
        }
        // Sometimes it is closed before it has caught up.
        if rng.bool() {
            views.wait_for(shop.store.head().await.unwrap().position, shop.soon()).await.unwrap();
        }
        views.close().await;
    }
    let head = shop.store.head().await.unwrap().position;
    for views in [shop.start().await, shop.projections().with(Again).start().await.unwrap()] {
        views.wait_for(head, shop.soon()).await.unwrap();
        views.close().await;
    }
    assert_eq!(shop.rows::<Accounts>().await, shop.rows::<Again>().await);
}
