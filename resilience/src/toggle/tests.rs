use super::*;
use futures::FutureExt;

#[tokio::test]
async fn every_change_is_seen_in_order_with_who_made_it() {
    let discount = Toggle::new("discount", 0_u32);
    discount.set(1, "before");
    let mut changes = discount.changes();
    assert_eq!(discount.set(5, "kim"), 1);
    assert_eq!(discount.set(5, "kim"), 5, "no change");
    discount.set(10, "lee");
    let seen = [changes.next().await.unwrap(), changes.next().await.unwrap()];
    assert_eq!(
        seen.map(|change| (change.number, change.from, change.to, change.by)),
        [(2, 1, 5, "kim".to_owned()), (3, 5, 10, "lee".to_owned())]
    );
    assert!(changes.next().now_or_never().is_none());
    assert_eq!(discount.get(), 10);
}

#[tokio::test]
async fn a_slow_reader_learns_how_many_it_missed() {
    let toggle = Toggle::new("count", 0);
    let mut changes = toggle.changes();
    for value in 1..=300 {
        toggle.set(value, "test");
    }
    assert_eq!(changes.next().await, Err(MissedChanges { count: 44 }));
    assert_eq!(changes.next().await.unwrap().number, 45);
}

#[test]
fn threads_lose_no_change() {
    let toggle = Toggle::new("count", (0, 0));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let toggle = &toggle;
            scope.spawn(move || {
                for value in 1..=50 {
                    toggle.set((thread, value), "thread");
                }
            });
        }
    });
    let state = toggle.lock();
    assert_eq!(state.number, 200);
    let mut last = (0, 0);
    for change in &state.changes {
        assert_eq!(change.from, last);
        last = change.to;
    }
}
