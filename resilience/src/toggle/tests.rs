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

/// A log whose level is a toggle: the thread that changed it waited for its own lock for ever.
#[test]
fn what_writes_the_log_may_ask_the_toggle() {
    struct Log(Toggle<bool>, std::sync::mpsc::Sender<bool>);
    impl tracing::Subscriber for Log {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn event(&self, _: &tracing::Event<'_>) {
            self.1.send(self.0.is_on()).unwrap();
        }
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }
    let (asked, answer) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let verbose = Toggle::new("verbose", false);
        tracing::subscriber::with_default(Log(verbose.clone(), asked), || verbose.set(true, "kim"));
    });
    assert_eq!(answer.recv_timeout(std::time::Duration::from_secs(5)), Ok(true));
}
