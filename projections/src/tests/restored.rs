//! The log is restored from an older backup, and events of another history follow, while the read models keep the lost events.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use annals_eventstore::{AsOf, EventStore, MemoryStore, Position, ReadError, Recorded, SeededIds};

use super::accounts::{Account, AccountEvent, Accounts};
use super::fixture::{Doubled, Fixture, pairs, until_at};
use super::streams::PerAccount;
use super::swapped::Swapped;
use crate::{AsOfError, ProjectionError, Projections, StreamProjection, StreamRow, WaitError};

/// A log that is restored, with the read models of the log that was lost.
struct Restored {
    /// The log before the restore.
    lost: Fixture,
    /// The log after it. The first five events are the same.
    kept: Fixture,
    /// The first of these until the restore, then the second.
    store: Swapped,
}

impl Restored {
    async fn new() -> Self {
        // Equal ids: one incarnation, and the same events up to the backup.
        let store = || MemoryStore::builder().ids(SeededIds::new(1)).build();
        let lost = Fixture::new().with_store(store());
        let kept = lost.with_store(store());
        for log in [&lost, &kept] {
            log.append("a", vec![AccountEvent::Paid(1); 5]).await;
        }
        kept.store.ids().next_id();
        let store = Swapped::new(lost.store.clone(), kept.store.clone());
        assert_eq!(lost.store.incarnation(), kept.store.incarnation());
        Self { lost, kept, store }
    }

    async fn start(&self) -> Projections {
        self.lost.over(self.store.clone()).with(Accounts).start().await.unwrap()
    }

    /// An event after the backup, at position 6 at least.
    async fn pay(&self, log: &Fixture) -> Position {
        log.append("a", [AccountEvent::Paid(100)]).await
    }
}

fn position(n: i64) -> Position {
    Position::new(n).unwrap()
}

async fn assert_stopped(log: &Restored, views: &Projections, of: Position) {
    let ended = views.wait_for(of, log.kept.soon()).await;
    assert!(matches!(ended, Err(WaitError::Stopped(_))), "the rows lack the event at {of}: {ended:?}");
}

/// The rows hold ten events of the lost history, so their checkpoint is beyond the new event, which they lack.
#[tokio::test(start_paused = true)]
async fn a_wait_for_an_event_after_a_restore_never_ends_well_on_rows_of_the_lost_events() {
    let log = Restored::new().await;
    let views = log.start().await;
    let last = log.lost.append("a", vec![AccountEvent::Paid(10); 5]).await;
    views.wait_for(last, log.kept.soon()).await.unwrap();
    log.store.swap();
    let new = log.pay(&log.kept).await;
    assert_eq!((last.get(), new.get()), (10, 6));
    assert_stopped(&log, &views, new).await;
    for of in [1, 5, 6, 10, 11] {
        assert_stopped(&log, &views, position(of)).await;
    }
    assert_eq!(log.kept.rows::<Accounts>().await, pairs(&[("a", 55)]));
}

/// The stored checkpoint is of both histories; what the runner has passed over since is not.
#[tokio::test(start_paused = true)]
async fn events_of_no_concern_that_were_lost_do_not_stand_for_new_ones() {
    let log = Restored::new().await;
    let views = log.start().await;
    views.wait_for(position(5), log.kept.soon()).await.unwrap();
    let passed_over = log.lost.append_raw("x", "another.event", "1").await;
    log.store.announce();
    views.wait_for(passed_over, log.kept.soon()).await.unwrap();
    until_at(&views, passed_over).await;
    assert_eq!(log.kept.position::<Accounts>().await, 5, "the checkpoint is stored later");
    log.store.swap();
    let new = log.pay(&log.kept).await;
    assert_eq!(passed_over, new);
    assert_stopped(&log, &views, new).await;
}

/// Reading the page has compared the log already.
#[tokio::test(start_paused = true)]
async fn a_wait_for_what_the_runner_reads_meanwhile_compares_nothing_again() {
    let log = Restored::new().await;
    let views = log.start().await;
    views.wait_for(position(5), log.kept.soon()).await.unwrap();
    until_at(&views, position(5)).await;
    let before = log.store.checks();
    let mut last = Position::START;
    for _ in 0..10 {
        last = log.pay(&log.lost).await;
        log.store.announce();
        views.wait_for(last, log.kept.soon()).await.unwrap();
    }
    assert_eq!(log.store.checks(), before);
    views.wait_for(last, log.kept.soon()).await.unwrap();
    assert_eq!(log.store.checks(), before + 1, "nothing was read since this wait began");
}

#[tokio::test(start_paused = true)]
async fn a_version_of_the_lost_events_is_not_shown_in_place_of_one_of_the_restored_log() {
    let log = Restored::new().await;
    let older = log.start().await;
    let last = log.lost.append("a", vec![AccountEvent::Paid(10); 5]).await;
    older.wait_for(last, log.kept.soon()).await.unwrap();
    let new = log.pay(&log.kept).await;
    let newer = log.kept.beside().projections().with(Doubled).start().await.unwrap();
    newer.wait_for(new, log.kept.soon()).await.unwrap();
    assert_eq!(log.kept.shown::<Accounts>().await, Some(2));
    log.store.swap();
    let ended = older.show::<Accounts>(log.kept.soon()).await;
    assert!(matches!(ended, Err(WaitError::Stopped(_))), "{ended:?}");
    assert_eq!(log.kept.shown::<Accounts>().await, Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_version_of_the_restored_log_is_shown_in_place_of_one_of_the_lost_events() {
    let log = Restored::new().await;
    let newer = log.lost.projections().with(Doubled).start().await.unwrap();
    let last = log.lost.append("a", vec![AccountEvent::Paid(10); 5]).await;
    newer.wait_for(last, log.kept.soon()).await.unwrap();
    newer.close().await;
    let new = log.pay(&log.kept).await;
    let older = log.kept.start().await;
    older.show::<Accounts>(log.kept.soon()).await.unwrap();
    assert_eq!(log.kept.shown::<Accounts>().await, Some(1));
    older.wait_for(new, log.kept.soon()).await.unwrap();
}

/// Folds as `PerAccount` does. From a moment on, the log is restored while it does.
struct Restores {
    store: Swapped,
    now: Arc<AtomicBool>,
}

impl StreamProjection for Restores {
    type Event = AccountEvent;
    type Row = Account;
    const AGGREGATES: &'static [&'static str] = PerAccount::AGGREGATES;

    fn apply(&self, event: &Recorded<AccountEvent>, row: &mut StreamRow<'_, Account>) -> Result<(), ProjectionError> {
        if self.now.load(Ordering::SeqCst) {
            self.store.swap_unnoticed();
        }
        StreamProjection::apply(&PerAccount::default(), event, row)
    }
}

/// The rows would be those of events that are not in the log.
#[tokio::test(start_paused = true)]
async fn a_restore_while_a_read_model_is_built_as_it_was_is_an_error() {
    for of_one_stream in [false, true] {
        let log = Restored::new().await;
        let now = Arc::new(AtomicBool::new(false));
        let projection = Restores { store: log.store.clone(), now: Arc::clone(&now) };
        let views = log.lost.over(log.store.clone()).with(projection).start().await.unwrap();
        let last = log.lost.append("a", vec![AccountEvent::Paid(10); 5]).await;
        views.wait_for(last, log.kept.soon()).await.unwrap();
        now.store(true, Ordering::SeqCst);
        let answer = match of_one_stream {
            false => views.as_of::<Restores>(AsOf::position(last)).await.map(drop),
            true => views.find_as_of::<Restores>(&"a".to_owned(), AsOf::position(last)).await.map(drop),
        };
        assert!(matches!(answer, Err(AsOfError::Read(ReadError::StoreRewound { .. }))), "{answer:?}");
    }
}
