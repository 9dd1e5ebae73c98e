//! Several runners of one projection, and people who put its checkpoint elsewhere: whatever happens between a load and a
//! commit, the rows are those of the events up to the checkpoint, each applied once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_eventstore::{Checkpoint, DatabaseError, EventStore, Incarnation, Position, StreamId};
use async_trait::async_trait;
use fastrand::Rng;
use jiff::Timestamp;
use uuid::Uuid;

use super::accounts::{Account, AccountEvent, Accounts};
use super::fixture::{Counts, Fixture, at, model, pairs, said};
use super::law::{model as expected, random_event, typed};
use super::minimal_store::MinimalStore;
use crate::builder::ProjectionsBuilder;
use crate::changes::Changes;
use crate::column::ColumnValue;
use crate::database::contract::LookUp;
use crate::database::{
    Claimed, Fault, Model, Moved, ParkedStream, Paused, Place, Prepared, QueryFault, ReadModels, Runner, Shown, Shows,
    StoredName, Survey, Switch, UnitId, Work,
};
use crate::error::StopCause;
use crate::reactor::{Failing, Opened, Opening};
use crate::read_model::ReadModel;
use crate::reads::Query;
use crate::shape::Shape;
use crate::testing::given_events;
use crate::{Projections, StartError};

/// Pays into the account `a` without a trace of when, so that two such payments may cancel out.
fn slipped(cents: i64) -> AccountEvent {
    AccountEvent::Moved { to: "a".to_owned(), cents }
}

/// Waits until the runner wants to load rows.
async fn until_a_load(shop: &Fixture, before: usize) {
    while shop.models.loads_begun() == before {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// What somebody does who takes no lease: moves the checkpoint of [`Accounts`] and writes a row, or removes it.
async fn commit_elsewhere(shop: &Fixture, from: Checkpoint, to: Checkpoint, id: &str, cents: Option<i64>) {
    let mut changes = Changes::default();
    match cents {
        Some(cents) => changes.written.push(Account::new(id, cents, Timestamp::UNIX_EPOCH).to_columns()),
        None => changes.removed.push(vec![ColumnValue::Text(id.into())]),
    }
    let place = shop.handle().place(&model::<Accounts>()).await.unwrap().expect("it was started");
    let from = Place { checkpoint: from, ..place };
    let work = Work { model: model::<Accounts>(), from, to, changes, parking: Default::default() };
    let moved = shop.handle().commit(&[&work], Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!(moved, [Moved::Done]);
}

/// The checkpoint of the last event so far.
async fn head(shop: &Fixture) -> Checkpoint {
    shop.store.head().await.unwrap()
}

/// One runner reads +5 and -5, another one commits the +5, and the first loads the row with it. To the first nothing has
/// changed; if it went on without a comparison, the -5 would never be applied by anybody.
pub(super) async fn changes_that_cancel_out_are_a_step_that_another_process_cannot_take_half(shop: Fixture) {
    let views = shop.start().await;
    let first = shop.append("a", [AccountEvent::Opened]).await;
    views.wait_for(first, shop.soon()).await.unwrap();
    views.close().await;
    let opened = head(&shop).await;
    shop.append("z", [slipped(5)]).await;
    let half = head(&shop).await;
    let last = shop.append("z", [slipped(-5)]).await;

    let held = shop.models.hold_loads().await;
    let before = shop.models.loads_begun();
    let views = shop.start().await;
    until_a_load(&shop, before).await;
    commit_elsewhere(&shop, opened, half, "a", Some(5)).await;
    drop(held);
    views.wait_for(last, shop.soon()).await.unwrap();
    assert_eq!(shop.rows::<Accounts>().await, pairs(&[("a", 0)]));
    let last = shop.append("b", [AccountEvent::Opened]).await;
    views.wait_for(last, shop.soon()).await.unwrap();
    assert_eq!(shop.rows::<Accounts>().await, pairs(&[("a", 0), ("b", 0)]));
    views.close().await;
}

/// The same the other way round: who has reported +5 and -5 as applied must have stored that, or another process may show the
/// row between them afterwards.
pub(super) async fn what_is_reported_as_reached_is_never_taken_back_by_another_process(shop: Fixture) {
    let views = shop.start().await;
    shop.append("a", [AccountEvent::Opened]).await;
    let opened = head(&shop).await;
    let position = shop.append("y", [AccountEvent::Moved { to: "b".to_owned(), cents: 1 }]).await;
    let both = head(&shop).await;
    views.wait_for(position, shop.soon()).await.unwrap();
    views.close().await;
    shop.set_checkpoint::<Accounts>(Some(opened)).await;
    commit_elsewhere(&shop, opened, both, "b", Some(1)).await;

    let views = shop.start().await;
    let last = shop.append("z", [slipped(5), slipped(-5)]).await;
    views.wait_for(last, shop.soon()).await.unwrap();
    assert_eq!(shop.position::<Accounts>().await, last.get(), "stored at once, though no row has changed");
    views.close().await;
}

/// A fold that stops where a row is missing must not stop for a row that another process has removed since.
pub(super) async fn a_fold_that_fails_because_another_process_was_faster_continues(shop: Fixture) {
    let views = shop.start().await;
    let first = shop.append("a", [AccountEvent::Opened]).await;
    views.wait_for(first, shop.soon()).await.unwrap();
    views.close().await;
    let opened = head(&shop).await;
    shop.append("a", [AccountEvent::PaidStrictly(1), AccountEvent::Closed]).await;
    let closed = head(&shop).await;

    let held = shop.models.hold_loads().await;
    let before = shop.models.loads_begun();
    let views = shop.start().await;
    until_a_load(&shop, before).await;
    commit_elsewhere(&shop, opened, closed, "a", None).await;
    drop(held);
    let last = shop.append("b", [AccountEvent::Opened]).await;
    views.wait_for(last, shop.soon()).await.expect("there is nothing to fix");
    assert_eq!(shop.rows::<Accounts>().await, pairs(&[("b", 0)]));
    views.close().await;
}

/// A newer build of the same version gets past an event that this one cannot apply, before this one stops.
pub(super) async fn an_event_that_another_process_got_past_stops_nobody(shop: Fixture) {
    let views = shop.start().await;
    let first = shop.append("a", [AccountEvent::Opened]).await;
    views.wait_for(first, shop.soon()).await.unwrap();
    let opened = head(&shop).await;
    views.close().await;
    // The event asks for a row, so that the runner can be held before it fails.
    shop.append("x", [AccountEvent::PaidStrictly(1)]).await;
    let passed = head(&shop).await;
    let held = shop.models.hold_loads().await;
    let before = shop.models.loads_begun();
    let views = shop.start().await;
    until_a_load(&shop, before).await;
    commit_elsewhere(&shop, opened, passed, "x", Some(1)).await;
    drop(held);
    let last = shop.append("x", [AccountEvent::PaidStrictly(1)]).await;
    views.wait_for(last, shop.soon()).await.unwrap();
    assert_eq!(shop.rows::<Accounts>().await, pairs(&[("a", 0), ("x", 2)]));
    views.close().await;
}

/// The same with an event that fails without a row, so that nothing but the comparison before the stop can notice.
pub(super) async fn an_event_that_fails_without_a_row_stops_nobody_once_another_process_got_past_it(shop: Fixture) {
    let views = shop.start().await;
    let first = shop.append("a", [AccountEvent::Opened]).await;
    views.wait_for(first, shop.soon()).await.unwrap();
    let opened = head(&shop).await;
    views.close().await;
    shop.append("x", [AccountEvent::Refused]).await;
    let passed = head(&shop).await;
    let held = shop.models.hold_comparisons().await;
    let before = shop.models.comparisons_begun();
    let views = shop.start().await;
    let compares = async {
        while shop.models.comparisons_begun() == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(shop.soon(), compares).await.expect("its checkpoint is compared before it stops");
    commit_elsewhere(&shop, opened, passed, "x", Some(1)).await;
    drop(held);
    let last = shop.append("x", [AccountEvent::PaidStrictly(1)]).await;
    views.wait_for(last, shop.soon()).await.unwrap();
    assert_eq!(shop.rows::<Accounts>().await, pairs(&[("a", 0), ("x", 2)]));
    views.close().await;
}

/// Rows deleted and the checkpoint set to the beginning, in one transaction, under a runner that follows the log.
pub(super) async fn a_read_model_that_was_emptied_under_a_runner_is_built_anew(shop: Fixture) {
    let views = shop.projections().with(Accounts).with(Counts).start().await.unwrap();
    for n in 1..=3 {
        let position = shop.append("a", vec![AccountEvent::Paid(1); 5]).await;
        views.wait_for(position, shop.soon()).await.unwrap();
        shop.empty::<Accounts>().await;
        let position = shop.append("a", [AccountEvent::Paid(1)]).await;
        views.wait_for(position, shop.soon()).await.unwrap();
        assert_eq!(shop.rows::<Accounts>().await, pairs(&[("a", 6 * n)]));
        assert_eq!(shop.rows::<Counts>().await, pairs(&[("a", 6 * n)]));
    }
    // Nor does it need an event to notice.
    shop.empty::<Accounts>().await;
    let began = tokio::time::Instant::now();
    while shop.rows::<Accounts>().await != pairs(&[("a", 18)]) {
        assert!(began.elapsed() < Duration::from_secs(20), "nobody looks");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    views.close().await;
}

/// The read models were restored from a backup under a runner: rows and checkpoint of an earlier place in the same log.
pub(super) async fn a_checkpoint_put_back_with_its_rows_is_followed(shop: Fixture) {
    let views = shop.start().await;
    let position = shop.append("a", [AccountEvent::Paid(1)]).await;
    let early = head(&shop).await;
    views.wait_for(position, shop.soon()).await.unwrap();
    let position = shop.append("a", [AccountEvent::Paid(2), AccountEvent::Paid(4)]).await;
    views.wait_for(position, shop.soon()).await.unwrap();
    commit_elsewhere(&shop, head(&shop).await, early, "a", Some(1)).await;
    let position = shop.append("b", [AccountEvent::Opened]).await;
    views.wait_for(position, shop.soon()).await.unwrap();
    assert_eq!(shop.rows::<Accounts>().await, pairs(&[("a", 7), ("b", 0)]));
    views.close().await;
}

/// Two stores that share a database of read models by mistake, both before their first event.
pub(super) async fn a_checkpoint_of_another_log_is_never_adopted(shop: Fixture) {
    let views = shop.start().await;
    let other = shop.with_another_store();
    let error = other.projections().with(Accounts).start().await.expect_err("it must be refused");
    assert!(matches!(error, StartError::Rewound { .. }), "{error:?}");
    // Nor under a runner, at the beginning and behind it.
    for cents in [1, 2] {
        let mine = shop.store.head().await.unwrap();
        let theirs = at(other.store.head().await.unwrap(), mine.position.get());
        let position = shop.append("a", [AccountEvent::Paid(cents)]).await;
        views.wait_for(position, shop.soon()).await.unwrap();
        assert_ne!(theirs.incarnation, mine.incarnation);
    }
    other.append("z", [AccountEvent::Paid(100), AccountEvent::Paid(100), AccountEvent::Paid(100)]).await;
    let theirs = other.store.head().await.unwrap();
    commit_elsewhere(&shop, head(&shop).await, theirs, "z", Some(300)).await;
    shop.append("a", [AccountEvent::Paid(4)]).await;
    let stopped = views.stopped().await.unwrap_err();
    assert!(matches!(&*stopped.cause, StopCause::Read(_)), "{stopped:?}");
    assert!(said(&stopped).contains("is not an event of this store"), "{}", said(&stopped));
    assert_eq!(shop.rows::<Accounts>().await, pairs(&[("a", 3), ("z", 300)]), "their rows are not ours to write");
    assert_eq!(stopped.position, Position::new(2).unwrap());
    views.close().await;
}

/// The same position, but not the same event; and there is nothing to apply.
pub(super) async fn a_checkpoint_of_another_log_at_the_same_position_is_noticed(shop: Fixture) {
    let views = shop.start().await;
    let mine = shop.append("a", [AccountEvent::Paid(1)]).await;
    views.wait_for(mine, shop.soon()).await.unwrap();
    let other = shop.with_another_store();
    assert_eq!(other.append("z", [AccountEvent::Paid(100)]).await, mine);
    shop.set_checkpoint::<Accounts>(Some(head(&other).await)).await;
    shop.append_raw("x", "somebody.elses", "1").await;
    let stopped = tokio::time::timeout(shop.soon(), views.stopped()).await.expect("it is noticed").unwrap_err();
    assert!(said(&stopped).contains("is not an event of this store"), "{}", said(&stopped));
    views.close().await;
}

/// The read models as one process sees them: calls take random times, and once the process has died none of them ends.
#[derive(Clone)]
struct Replica {
    models: Arc<dyn ReadModels>,
    rng: Arc<Mutex<Rng>>,
    dead: Arc<AtomicBool>,
}

impl Replica {
    async fn pause(&self) {
        let millis = self.rng.lock().expect("no test panics while it holds the lock").u64(..4);
        if millis > 0 {
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
        if self.dead.load(Ordering::SeqCst) {
            std::future::pending().await
        }
    }

    async fn around<T>(&self, call: impl Future<Output = T>) -> T {
        self.pause().await;
        let answer = call.await;
        self.pause().await;
        answer
    }
}

#[async_trait]
impl ReadModels for Replica {
    async fn migrate(&self) -> Result<(), StartError> {
        self.models.migrate().await
    }

    async fn prepare(
        &self,
        model: &Model,
        shape: &Shape,
        incarnation: Incarnation,
        now: Timestamp,
    ) -> Result<Prepared, StartError> {
        self.around(self.models.prepare(model, shape, incarnation, now)).await
    }

    async fn places(&self, units: &[UnitId]) -> Result<Vec<Option<Place>>, Fault> {
        self.around(self.models.places(units)).await
    }

    async fn load(
        &self,
        model: &Model,
        from: &Place,
        keys: &[Vec<ColumnValue>],
        most: usize,
    ) -> Result<Option<Vec<Vec<ColumnValue>>>, Fault> {
        self.around(self.models.load(model, from, keys, most)).await
    }

    async fn commit(&self, work: &[&Work], now: Timestamp) -> Result<Vec<Moved>, Fault> {
        self.around(self.models.commit(work, now)).await
    }

    async fn show(&self, model: &Model, switch: Switch) -> Result<Shows, Fault> {
        self.around(self.models.show(model, switch)).await
    }

    async fn reactor_checkpoint(&self, reactor: &'static str) -> Result<Option<Checkpoint>, StartError> {
        self.models.reactor_checkpoint(reactor).await
    }

    async fn prepare_reactor(&self, opening: &Opening) -> Result<(), StartError> {
        self.models.prepare_reactor(opening).await
    }

    async fn open_reactor(&self, opening: Opening) -> Result<Opened, StartError> {
        self.models.open_reactor(opening).await
    }

    async fn failing(&self, reactor: &'static str, only_asked: bool) -> Result<Vec<Failing>, Fault> {
        self.around(self.models.failing(reactor, only_asked)).await
    }

    async fn ask_again(&self, reactor: &'static str, stream: &StreamId) -> Result<bool, Fault> {
        self.around(self.models.ask_again(reactor, stream)).await
    }

    async fn shown(&self, models: &[Model]) -> Result<Vec<Option<Shown>>, Fault> {
        self.around(self.models.shown(models)).await
    }

    async fn survey(&self, runner: &Runner, lease: Duration) -> Result<Survey, Fault> {
        self.around(self.models.survey(runner, lease)).await
    }

    async fn claim(&self, runner: &Runner, units: &[UnitId], lease: Duration) -> Result<Vec<Claimed>, Fault> {
        self.around(self.models.claim(runner, units, lease)).await
    }

    async fn release(&self, held: &[(UnitId, i64)]) -> Result<(), Fault> {
        self.around(self.models.release(held)).await
    }

    async fn begin_try(&self, unit: UnitId, epoch: i64, position: Position) -> Result<Option<u32>, Fault> {
        self.around(self.models.begin_try(unit, epoch, position)).await
    }

    async fn forget_tries(&self, projection: &str) -> Result<(), Fault> {
        self.around(self.models.forget_tries(projection)).await
    }

    async fn seize(
        &self,
        unit: UnitId,
        owner: Uuid,
        held: Option<i64>,
        lease: Duration,
    ) -> Result<Option<Place>, Fault> {
        self.around(self.models.seize(unit, owner, held, lease)).await
    }

    async fn parked(&self, unit: UnitId) -> Result<Vec<ParkedStream>, Fault> {
        self.around(self.models.parked(unit)).await
    }

    async fn leave(&self, runner: &Runner) -> Result<(), Fault> {
        self.around(self.models.leave(runner)).await
    }

    async fn pause(&self, projection: &str, by: &str, now: Timestamp) -> Result<Option<Paused>, Fault> {
        self.around(self.models.pause(projection, by, now)).await
    }

    async fn resume(&self, projection: &str) -> Result<bool, Fault> {
        self.around(self.models.resume(projection)).await
    }

    async fn name(&self, model: &Model) -> Result<Option<StoredName>, DatabaseError> {
        self.around(self.models.name(model)).await
    }

    async fn query(
        &self,
        model: &Model,
        shown: u32,
        query: &Query<'_>,
    ) -> Result<Option<Vec<Vec<ColumnValue>>>, QueryFault> {
        self.around(self.models.query(model, shown, query)).await
    }
}

/// A process that runs the projection, and reads pages of its own length.
struct Rival {
    replica: Replica,
    views: Projections,
}

impl Rival {
    async fn start(shop: &Fixture, rng: &mut Rng) -> Self {
        let replica = Replica { models: shop.handle(), rng: Arc::new(Mutex::new(rng.fork())), dead: Arc::default() };
        let store = MinimalStore::of_pages(shop, rng.usize(1..4));
        let views = ProjectionsBuilder::new(Arc::new(store), Arc::new(replica.clone()));
        let views = views.with(Accounts).lease(Duration::from_millis(100));
        Self { replica, views: views.start().await.unwrap() }
    }
}

/// Two processes over random events, many of which cancel each other out, remove rows and make them again; both die now and then
/// in the middle of anything, and somebody empties the read model. In the end it is that of a fresh fold.
pub(super) async fn rivals_that_die_and_are_put_back_leave_the_rows_of_a_fresh_fold(shop: Fixture) {
    let seed = std::env::var("ANNALS_SEED").map_or_else(|_| fastrand::u64(..), |s| s.parse().expect("a number"));
    println!("ANNALS_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let mut events: Vec<(String, AccountEvent)> = Vec::new();
    for _ in 0..shop.rounds() {
        let mut rivals = [Rival::start(&shop, &mut rng).await, Rival::start(&shop, &mut rng).await];
        for _ in 0..rng.usize(1..30) {
            match rng.u32(..16) {
                0 => shop.empty::<Accounts>().await,
                1 => {
                    let rival = &mut rivals[rng.usize(..2)];
                    rival.replica.dead.store(true, Ordering::SeqCst);
                    *rival = Rival::start(&shop, &mut rng).await;
                }
                2 => {
                    let rival = &mut rivals[rng.usize(..2)];
                    rival.views.close().await;
                    *rival = Rival::start(&shop, &mut rng).await;
                }
                3 => {
                    let last = shop.append_raw("x", "somebody.elses", "1").await;
                    rivals[rng.usize(..2)].views.wait_for(last, shop.soon()).await.unwrap();
                }
                _ => {
                    let (id, event) = random_event(&mut rng);
                    events.push((id.clone(), event.clone()));
                    shop.append(&id, [event]).await;
                }
            }
            if rng.bool() {
                tokio::time::sleep(Duration::from_millis(rng.u64(..6))).await;
            }
        }
        let (id, event) = random_event(&mut rng);
        events.push((id.clone(), event.clone()));
        let last = shop.append(&id, [event]).await;
        let given = given_events(events.iter().map(|(id, event)| (id.as_str(), event.clone())));
        let expected: Vec<_> = expected(&typed(&given)).into_iter().map(|row| (row.id, row.cents)).collect();
        for rival in &rivals {
            rival.views.wait_for(last, shop.soon()).await.unwrap();
            assert_eq!(shop.rows::<Accounts>().await, expected);
        }
        for rival in rivals {
            rival.views.close().await;
        }
        assert_eq!(shop.rows::<Accounts>().await, expected);
    }
}
