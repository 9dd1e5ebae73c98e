//! Transaction projections: SQL of the test's own on both databases, and everything that it may do.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use annals_eventstore::{
    Checkpoint, DatabaseError, DecodeError, Event, EventShape, Holder, IdSource, Invalid, Payload, Position, Recorded,
    Tenant, TimeOrderedIds,
};
use sqlx::AssertSqlSafe;
use tokio::sync::Semaphore;

use super::accounts::{AccountEvent, Accounts};
use super::fixture::{Fixture, at, pairs, until_at};
use super::leases::until;
use super::troubled::Trouble;
use crate::database::contract::{LookUp, unit};
use crate::database::{Model, Place, Runner};
use crate::error::StopCause;
use crate::transaction::NO_TABLE;
use crate::{
    InTransaction, Projection, ProjectionError, ProjectionState, ProjectionTransaction, Projections, ReadModel, Rows,
    StartError, Stopped, TableSpec, TransactionProjection, Verdict, WaitError,
};

/// What a test looks into, and what holds an event up.
#[derive(Clone)]
struct Probe {
    /// How many events were begun.
    begun: Arc<AtomicU32>,
    /// How often an event of a fault that passes still fails.
    faults: Arc<AtomicU32>,
    /// An event that is to be slow takes one.
    slow: Arc<Semaphore>,
    /// The projections themselves.
    views: Arc<OnceLock<Projections>>,
}

impl Probe {
    fn new() -> Self {
        let [begun, faults] = [(), ()].map(|()| Arc::new(AtomicU32::new(0)));
        Self { begun, faults, slow: Arc::new(Semaphore::new(0)), views: Arc::default() }
    }

    fn begun(&self) -> u32 {
        self.begun.load(Ordering::SeqCst)
    }
}

/// What each account holds. Each version has a table of its own, except those that say otherwise.
struct Totals<const VERSION: u32 = 1>(Probe);

/// An error of an app's own around one of the database.
#[derive(Debug, thiserror::Error)]
#[error("the till jams")]
struct Jammed(#[source] DatabaseError);

const ADD: [&str; 2] = [
    "INSERT INTO totals_v1 AS t (id, cents) VALUES ($1, $2)
     ON CONFLICT (id) DO UPDATE SET cents = t.cents + excluded.cents",
    "INSERT INTO totals_v2 AS t (id, cents) VALUES ($1, $2)
     ON CONFLICT (id) DO UPDATE SET cents = t.cents + excluded.cents",
];

const MAKE: [[&str; 2]; 2] = [
    [
        "DROP TABLE IF EXISTS totals_v1",
        "CREATE TABLE totals_v1 (id TEXT PRIMARY KEY, cents BIGINT NOT NULL CHECK (cents < 1000000))",
    ],
    [
        "DROP TABLE IF EXISTS totals_v2",
        "CREATE TABLE totals_v2 (id TEXT PRIMARY KEY, cents BIGINT NOT NULL CHECK (cents < 1000000))",
    ],
];

/// Runs any text on the connection of sqlx.
async fn run(tx: &mut ProjectionTransaction<'_>, sql: &str) -> Result<(), ProjectionError> {
    let sql = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
    match tx.is_postgres() {
        true => sql.execute(tx.postgres()?).await.map(drop)?,
        false => sql.execute(tx.sqlite()?).await.map(drop)?,
    }
    Ok(())
}

impl<const VERSION: u32> TransactionProjection for Totals<VERSION> {
    type Event = AccountEvent;
    const NAME: &'static str = "totals";
    const VERSION: u32 = VERSION;

    async fn set_up(&self, tx: &mut ProjectionTransaction<'_>) -> Result<(), ProjectionError> {
        for sql in MAKE[VERSION as usize - 1] {
            tx.execute(sql, &[]).await?;
        }
        Ok(())
    }

    async fn apply(
        &self,
        event: &Recorded<AccountEvent>,
        tx: &mut ProjectionTransaction<'_>,
    ) -> Result<(), ProjectionError> {
        let Probe { begun, faults, slow, views } = &self.0;
        begun.fetch_add(1, Ordering::SeqCst);
        let (id, add) = (event.stream.aggregate_id(), ADD[VERSION as usize - 1]);
        match &event.event {
            AccountEvent::Paid(cents) => drop(tx.execute(add, &[&id, cents]).await?),
            AccountEvent::Moved { to, cents } => {
                tx.execute(add, &[&id, &-cents]).await?;
                tx.execute(add, &[to, cents]).await?;
            }
            AccountEvent::Refused => {
                tx.execute(add, &[&id, &1_000]).await?;
                return Err(ProjectionError::new("it cannot be applied"));
            }
            AccountEvent::Panicking => {
                tx.execute(add, &[&id, &1_000]).await?;
                panic!("it panics");
            }
            // Text of SQL: an error is handed on, or ignored.
            AccountEvent::Linked(sql) => run(tx, sql).await?,
            AccountEvent::Careless(sql) => drop(run(tx, sql).await),
            AccountEvent::NotANumber => {
                tx.execute(add, &[&id, &1]).await?;
                let left = faults.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
                if left.is_ok() {
                    return Err(
                        Jammed(DatabaseError::Busy { waited: Duration::ZERO, holder: Holder::OtherHandle }).into()
                    );
                }
            }
            AccountEvent::LooksUp(_) => {
                let own = views.get().expect("set by the test");
                own.wait_for(event.position, Duration::from_millis(50)).await?;
            }
            AccountEvent::PaidStrictly(cents) => {
                slow.acquire().await?.forget();
                tx.execute(add, &[&id, cents]).await?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// The table of a version, as others see it.
fn table(version: u32) -> Model {
    const TABLE: &TableSpec = &TableSpec { name: "totals", ..*super::accounts::Account::TABLE };
    Model { projection: "totals", version, table: TABLE }
}

async fn start(shop: &Fixture, probe: &Probe) -> Projections {
    let views = shop.projections().with(Accounts).with_transaction(Totals::<1>(probe.clone()));
    views.lease(Duration::from_millis(300)).start().await.unwrap()
}

/// Why the transaction projection has stopped. That of rows may have stopped for reasons of its own.
async fn stop_of(views: &Projections) -> Stopped {
    loop {
        if let ProjectionState::Stopped(stopped) = views.status().remove(1).state {
            return stopped;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn totals(shop: &Fixture) -> Vec<(String, i64)> {
    shop.rows_of(&table(1)).await
}

/// Where its stored checkpoint is.
async fn stored(shop: &Fixture) -> Checkpoint {
    shop.models.checkpoint(&table(1)).await.expect("it answers").expect("it was started")
}

async fn wait(views: &Projections, shop: &Fixture, position: Position) {
    views.wait_for_one::<InTransaction<Totals>>(position, shop.soon()).await.unwrap();
}

fn paid(cents: i64) -> AccountEvent {
    AccountEvent::Paid(cents)
}

async fn rows_are_those_of_all_events_however_they_are_cut_into_transactions(shop: Fixture) {
    let probe = Probe::new();
    // More than fit into one transaction, in two batches at least.
    let events =
        |n: i64| (0..n).map(|n| if n % 7 == 0 { AccountEvent::Opened } else { paid(n % 5) }).collect::<Vec<_>>();
    let expected = |n: i64| (0..n).filter(|n| n % 7 > 0).map(|n| n % 5).sum::<i64>();
    shop.append("a", events(1_200)).await;
    let head = shop.append("b", [AccountEvent::Moved { to: "c".into(), cents: 3 }]).await;
    let views = start(&shop, &probe).await;
    wait(&views, &shop, head).await;
    let rows = [("a", expected(1_200)), ("b", -3), ("c", 3)];
    assert_eq!(totals(&shop).await, pairs(&rows));
    assert_eq!(probe.begun(), 1_201, "each event once");

    // One by one, and after a restart.
    for n in 0..5 {
        let position = shop.append("d", [paid(n)]).await;
        wait(&views, &shop, position).await;
        assert_eq!(stored(&shop).await.position, position);
    }
    views.close().await;
    let head = shop.append("d", [paid(100)]).await;
    let views = start(&shop, &probe).await;
    wait(&views, &shop, head).await;
    assert_eq!(totals(&shop).await, pairs(&[rows[0], rows[1], rows[2], ("d", 110)]));
    assert_eq!(probe.begun(), 1_207);
    views.close().await;
}

async fn an_event_that_fails_is_rolled_back_to_those_before_it_and_named(shop: Fixture) {
    let failures: [(AccountEvent, &str); 4] = [
        (AccountEvent::Refused, "it cannot be applied"),
        (AccountEvent::Panicking, "it panicked: it panics"),
        (AccountEvent::Linked("SELECT 1 FROM nowhere".into()), "nowhere"),
        (AccountEvent::Paid(2_000_000), "the schema refused the rows"),
    ];
    for (at, (failing, why)) in failures.into_iter().enumerate() {
        let (probe, id) = (Probe::new(), format!("a{at}"));
        let good = shop.append(&id, [paid(1), paid(2)]).await;
        let bad = shop.append(&id, [failing]).await;
        let last = shop.append(&id, [paid(4)]).await;
        let views = start(&shop, &probe).await;
        let stopped = stop_of(&views).await;
        assert_eq!((&*stopped.projection, stopped.version, stopped.position), ("totals", 1, good));
        assert_eq!(stopped.event.as_ref().map(|event| event.position), Some(bad));
        assert!(stopped.to_string().contains(why), "{stopped}");
        assert_eq!(
            totals(&shop).await.last(),
            Some(&(id.clone(), 3)),
            "what is before it is applied, and nothing of it"
        );
        assert_eq!(stored(&shop).await.position, good);
        let refused = views.wait_for(last, shop.soon()).await.unwrap_err();
        assert!(matches!(refused, WaitError::Stopped(_)), "{refused:?}");
        assert!(views.health().await[1].verdict.is_failed());
        // The event is still there when it is started again, and again nothing is stored.
        assert!(views.start_again::<InTransaction<Totals>>().await.unwrap());
        stop_of(&views).await;
        assert_eq!(totals(&shop).await.last(), Some(&(id, 3)));
        views.close().await;
        // Somebody has decided that it does not count.
        shop.put(&table(1), Some(last)).await;
    }
}

/// An error of a statement that was ignored makes PostgreSQL refuse what follows; the event that did it is named.
async fn an_ignored_error_leaves_nothing_half_done(shop: Fixture) {
    let probe = Probe::new();
    let good = shop.append("a", [paid(1)]).await;
    let careless = shop.append("a", [AccountEvent::Careless("SELECT 1 FROM nowhere".into())]).await;
    let last = shop.append("a", [paid(2), paid(4)]).await;
    let views = start(&shop, &probe).await;
    if shop.is_postgres() {
        let stopped = stop_of(&views).await;
        assert_eq!(stopped.event.as_ref().map(|event| event.position), Some(careless), "{stopped}");
        assert_eq!(totals(&shop).await, pairs(&[("a", 1)]));
        assert_eq!(stored(&shop).await.position, good);
    } else {
        wait(&views, &shop, last).await;
        assert_eq!(totals(&shop).await, pairs(&[("a", 7)]));
    }
    views.close().await;
}

async fn faults_that_may_pass_are_retried_and_nothing_is_applied_twice(shop: Fixture) {
    let probe = Probe::new();
    let views = shop.projections().with_transaction(Totals::<1>(probe.clone())).start().await.unwrap();
    // An error of the app's own, with one of the database behind it.
    probe.faults.store(2, Ordering::SeqCst);
    let position = shop.append("a", [paid(1), AccountEvent::NotANumber, paid(2)]).await;
    wait(&views, &shop, position).await;
    assert_eq!(totals(&shop).await, pairs(&[("a", 4)]));
    // The commit fails, and may have failed.
    shop.models.trouble_commits([Some(Trouble::Passing), Some(Trouble::Unanswered), Some(Trouble::Unanswered)]);
    let position = shop.append("a", [paid(10), paid(20)]).await;
    wait(&views, &shop, position).await;
    let position = shop.append("a", [paid(40)]).await;
    wait(&views, &shop, position).await;
    assert_eq!(totals(&shop).await, pairs(&[("a", 74)]));
    // One that the database itself raises.
    if shop.is_postgres() {
        let deadlock = "DO $$ BEGIN
            IF nextval('attempts') < 3 THEN RAISE 'again' USING ERRCODE = 'deadlock_detected'; END IF;
        END $$";
        let make = shop.append("a", [AccountEvent::Linked("CREATE SEQUENCE attempts".into())]).await;
        wait(&views, &shop, make).await;
        let position = shop.append("a", [paid(100), AccountEvent::Linked(deadlock.into())]).await;
        wait(&views, &shop, position).await;
        assert_eq!(totals(&shop).await, pairs(&[("a", 174)]));
    }
    views.close().await;
}

async fn a_transaction_that_sql_ends_is_noticed_and_its_checkpoint_stays(shop: Fixture) {
    for (at, sql) in ["COMMIT", "ROLLBACK", "ROLLBACK; BEGIN", "COMMIT; BEGIN"].into_iter().enumerate() {
        for ignored in [false, true] {
            let (probe, id) = (Probe::new(), format!("{sql} {at} {ignored}"));
            let sql = sql.to_owned();
            let ends = if ignored { AccountEvent::Careless(sql.clone()) } else { AccountEvent::Linked(sql.clone()) };
            let good = shop.append(&id, [paid(1)]).await;
            let views = start(&shop, &probe).await;
            wait(&views, &shop, good).await;
            let bad = shop.append(&id, [ends]).await;
            let stopped = stop_of(&views).await;
            assert!(matches!(&*stopped.cause, StopCause::TransactionEnded), "{id}: {stopped}");
            assert_eq!(stopped.event.as_ref().map(|event| event.position), Some(bad), "{id}");
            assert_eq!(stored(&shop).await.position, good);
            assert!(totals(&shop).await.contains(&(id.clone(), 1)));
            views.close().await;

            // With other events before it in the transaction: SQLite stores none of it, whatever the statement.
            let before = shop.append(&id, [paid(2)]).await;
            shop.put(&table(1), Some(before)).await;
            let before = shop.append(&id, [paid(4)]).await;
            let bad = shop.append(&id, [AccountEvent::Careless(sql.clone())]).await;
            let last = shop.append(&id, [paid(8)]).await;
            let views = start(&shop, &probe).await;
            let stopped = stop_of(&views).await;
            assert!(matches!(&*stopped.cause, StopCause::TransactionEnded), "{id}: {stopped}");
            if !shop.is_postgres() {
                assert_eq!(stopped.event.as_ref().map(|event| event.position), Some(bad), "{id}");
                assert_eq!(stored(&shop).await.position, before);
                assert!(totals(&shop).await.contains(&(id.clone(), 5)), "{:?}", totals(&shop).await);
            }
            views.close().await;
            shop.put(&table(1), Some(last)).await;
        }
    }
}

/// What follows fails too; but what was stored by then is stored, and must not be stored again.
async fn what_a_commit_by_sql_may_have_stored_is_not_written_twice(shop: Fixture) {
    for (at, failing) in [AccountEvent::Refused, AccountEvent::NotANumber].into_iter().enumerate() {
        let (probe, id) = (Probe::new(), format!("a{at}"));
        probe.faults.store(3, Ordering::SeqCst);
        let last = shop.append(&id, [paid(2_000), AccountEvent::Careless("COMMIT".into()), failing]).await;
        let views = start(&shop, &probe).await;
        let stopped = stop_of(&views).await;
        assert!(matches!(&*stopped.cause, StopCause::TransactionEnded), "{stopped}");
        let (_, cents) = totals(&shop).await.pop().expect("the first event is stored");
        assert!((2_000..=3_000).contains(&cents), "{cents}");
        views.close().await;
        shop.put(&table(1), Some(last)).await;
    }
}

async fn what_sql_leaves_on_the_connection_reaches_nobody_else(shop: Fixture) {
    let probe = Probe::new();
    let views = start(&shop, &probe).await;
    let sql = match shop.is_postgres() {
        true => "CREATE TEMPORARY TABLE totals_v1 (id text, cents bigint); SET search_path = pg_temp",
        false => "CREATE TEMPORARY TABLE totals_v1 (id TEXT, cents BIGINT); PRAGMA foreign_keys = OFF",
    };
    let position = shop.append("a", [paid(1), AccountEvent::Linked(sql.into())]).await;
    wait(&views, &shop, position).await;
    for n in 0..3 {
        let position = shop.append("a", [paid(n)]).await;
        wait(&views, &shop, position).await;
    }
    assert_eq!(totals(&shop).await, pairs(&[("a", 4)]));
    if !shop.is_postgres() {
        let hidden = "CREATE TEMPORARY TABLE annals_checkpoints (projection TEXT)";
        let bad = shop.append("a", [AccountEvent::Linked(hidden.into())]).await;
        let stopped = stop_of(&views).await;
        assert_eq!(stopped.event.as_ref().map(|event| event.position), Some(bad));
        assert!(stopped.to_string().contains("a temporary table `annals_checkpoints` of the projection"), "{stopped}");
    }
    views.close().await;
}

/// What a former owner begins finds out before any SQL runs.
async fn a_transaction_begins_where_the_checkpoint_is_and_for_its_owner_alone(shop: Fixture) {
    let probe = Probe::new();
    let views = start(&shop, &probe).await;
    let position = shop.append("a", [paid(1)]).await;
    wait(&views, &shop, position).await;
    views.close().await;
    let models = shop.handle();
    let own = Model { table: NO_TABLE, ..table(1) };
    let place = models.places(&[unit(&own)]).await.unwrap().remove(0).unwrap();
    let elsewhere = [
        Place { epoch: place.epoch - 1, ..place },
        Place { epoch: place.epoch + 1, ..place },
        Place { checkpoint: at(place.checkpoint, 0), ..place },
        Place { checkpoint: Checkpoint { event_id: None, ..place.checkpoint }, ..place },
    ];
    for from in elsewhere {
        assert!(models.begin_applying(&own, &from).await.unwrap().is_none(), "{from:?}");
    }
    // While it is open nobody takes the projection over; what is dropped changes nothing.
    let open = models.begin_applying(&own, &place).await.unwrap().expect("it is there");
    if shop.is_postgres() {
        let runner = Runner {
            id: TimeOrderedIds.next_id(),
            name: "other".into(),
            runs: vec![("totals", 1)],
            stopped: Vec::new(),
        };
        let claimed = shop.handle().claim(&runner, &[unit(&own)], Duration::from_secs(1)).await.unwrap();
        assert!(claimed.is_empty(), "{claimed:?}");
    }
    drop(open);
    let open = models.begin_applying(&own, &place).await.unwrap().expect("it is still there");
    assert!(open.commit(&at(place.checkpoint, 7), jiff::Timestamp::UNIX_EPOCH).await.unwrap());
    assert_eq!(stored(&shop).await.position.get(), 7);
}

async fn one_that_is_slow_keeps_no_other_waiting(shop: Fixture) {
    let probe = Probe::new();
    let views = start(&shop, &probe).await;
    let position = shop.append("a", [paid(1), AccountEvent::PaidStrictly(2)]).await;
    until("it is at the slow event", || probe.begun() == 2).await;
    if shop.is_postgres() {
        views.wait_for_one::<Accounts>(position, shop.soon()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(700)).await;
        let states = views.status();
        assert!(matches!(states[1].state, ProjectionState::CatchingUp | ProjectionState::Live), "{states:?}");
    }
    assert_eq!(totals(&shop).await, pairs(&[]), "nothing of the transaction is seen");
    probe.slow.add_permits(1);
    wait(&views, &shop, position).await;
    assert_eq!(totals(&shop).await, pairs(&[("a", 3)]));
    views.close().await;
}

async fn it_is_paused_watched_and_waited_for_as_any_other(shop: Fixture) {
    let probe = Probe::new();
    let views = start(&shop, &probe).await;
    let position = shop.append("a", [paid(1)]).await;
    views.wait_for(position, shop.soon()).await.unwrap();
    views.caught_up(shop.soon()).await.unwrap();
    until_at(&views, position).await;
    let status = views.status().remove(1);
    assert_eq!((&*status.name, status.version, status.position, status.applied), ("totals", 1, position, 1));
    let progress = views.progress().await.unwrap().remove(1);
    assert_eq!((&*progress.projection, progress.position), ("totals", position));
    assert!(progress.elsewhere.is_none());
    let health = views.health().await.remove(1);
    assert!(matches!(health.verdict, Verdict::Healthy | Verdict::CatchingUp), "{health}");

    views.pause::<InTransaction<Totals>>("the backup").await.unwrap();
    let last = shop.append("a", [paid(2)]).await;
    views.wait_for_one::<Accounts>(last, shop.soon()).await.expect("others go on");
    until("it says so", || matches!(views.status()[1].state, ProjectionState::Paused { .. })).await;
    assert_eq!(totals(&shop).await, pairs(&[("a", 1)]));
    assert!(views.resume::<InTransaction<Totals>>().await.unwrap());
    views.wait_for(last, shop.soon()).await.unwrap();
    assert_eq!(totals(&shop).await, pairs(&[("a", 3)]));
    assert!(!views.start_again::<InTransaction<Totals>>().await.unwrap(), "it has not stopped");

    // Where nothing concerns it, its checkpoint follows all the same.
    let head = shop.append_raw("a", "something.else", "{}").await;
    views.wait_for(head, shop.soon()).await.unwrap();
    // Another process takes over where this one ends.
    let other = shop.beside();
    let second = start(&other, &Probe::new()).await;
    views.close().await;
    let last = shop.append("a", [paid(4)]).await;
    wait(&second, &other, last).await;
    assert_eq!(totals(&shop).await, pairs(&[("a", 7)]));
    second.close().await;
    assert_eq!(stored(&shop).await.position, last);
    let closed = second.wait_for(Position::new(last.get() + 1).unwrap(), shop.soon()).await.unwrap_err();
    assert!(matches!(closed, WaitError::Closed { .. }), "{closed:?}");
}

async fn a_raised_version_is_set_up_beside_the_old_one_and_each_has_its_own_checkpoint(shop: Fixture) {
    let (old, new) = (Probe::new(), Probe::new());
    let views = start(&shop, &old).await;
    let first = shop.append("a", [paid(1)]).await;
    wait(&views, &shop, first).await;
    let raised = shop.beside().projections().with_transaction(Totals::<2>(new.clone())).start().await.unwrap();
    let last = shop.append("a", [paid(2)]).await;
    wait(&views, &shop, last).await;
    raised.wait_for_one::<InTransaction<Totals<2>>>(last, shop.soon()).await.unwrap();
    assert_eq!((totals(&shop).await, shop.rows_of(&table(2)).await), (pairs(&[("a", 3)]), pairs(&[("a", 3)])));
    assert_eq!((old.begun(), new.begun()), (2, 2), "it begins at the start of the log");
    raised.close().await;
    views.close().await;
    // Whose checkpoint was removed is set up and built anew.
    shop.put(&table(1), None).await;
    let views = start(&shop, &old).await;
    wait(&views, &shop, last).await;
    assert_eq!(totals(&shop).await, pairs(&[("a", 3)]));
    assert_eq!(old.begun(), 4);
    views.close().await;
}

/// One that does nothing.
macro_rules! idle {
    ($idle:ident, $event:ty, $name:literal, $tenant:expr) => {
        struct $idle;

        impl TransactionProjection for $idle {
            type Event = $event;
            const NAME: &'static str = $name;

            fn tenant(&self) -> Option<Tenant> {
                $tenant
            }

            async fn set_up(&self, _: &mut ProjectionTransaction<'_>) -> Result<(), ProjectionError> {
                Ok(())
            }

            async fn apply(
                &self,
                _: &Recorded<$event>,
                _: &mut ProjectionTransaction<'_>,
            ) -> Result<(), ProjectionError> {
                Ok(())
            }
        }
    };
}

idle!(Idle, AccountEvent, "idle", None);
idle!(NamedAccounts, AccountEvent, "accounts", None);
idle!(OfNorth, AccountEvent, "totals", Some(Tenant::new("north").unwrap()));
idle!(WantsMore, More, "totals", None);

/// The events that [`Totals`] wants, and one more.
struct More(AccountEvent);

impl Event for More {
    const SHAPES: &'static [EventShape] = &{
        let mut shapes = [EventShape { name: "tipped", version: 1, rust_name: "Tipped" }; 15];
        let mut at = 0;
        while at < 14 {
            shapes[at] = AccountEvent::SHAPES[at];
            at += 1;
        }
        shapes
    };

    fn shape(&self) -> &'static EventShape {
        self.0.shape()
    }

    fn encode(&self) -> Result<Payload, Invalid> {
        self.0.encode()
    }

    fn decode(name: &str, version: u32, payload: &Payload) -> Result<Self, DecodeError> {
        AccountEvent::decode(name, version, payload).map(Self)
    }
}

struct NamedTotals;

impl Projection for NamedTotals {
    type Event = AccountEvent;
    type Row = super::accounts::Account;
    const NAME: &'static str = "totals";

    fn apply(&self, _: &Recorded<AccountEvent>, _: &mut Rows<Self::Row>) -> Result<(), ProjectionError> {
        Ok(())
    }
}

async fn what_changed_without_a_raised_version_is_refused(shop: Fixture) {
    let views = start(&shop, &Probe::new()).await;
    let unknown = views.wait_for_one::<NamedTotals>(Position::START, shop.soon()).await.unwrap_err();
    assert!(matches!(&unknown, WaitError::Unknown { .. }), "one with its name that has rows is another: {unknown}");
    views.close().await;
    let more = shop.projections().with_transaction(WantsMore).start().await.unwrap_err();
    assert!(matches!(&more, StartError::EventsChanged { new, .. } if *new == ["tipped"]), "{more}");
    let tenant = shop.projections().with_transaction(OfNorth).start().await.unwrap_err();
    assert!(matches!(&tenant, StartError::TenantChanged { .. }), "{tenant}");
    let rows = shop.projections().with_transaction(NamedAccounts).start().await.unwrap_err();
    let StartError::ShapeChanged { declared, .. } = &rows else { panic!("{rows}") };
    assert_eq!(declared, "transaction");
    let twice = shop.projections().with(Accounts).with_transaction(NamedAccounts).start().await.unwrap_err();
    assert!(twice.to_string().contains("`accounts` is that of two projections"), "{twice}");
    let two = shop.projections().with_transaction(Totals::<1>(Probe::new())).with_transaction(Idle);
    two.start().await.expect("two without a table are two").close().await;
}

/// Makes a table, and then runs this.
struct Broken(&'static str);

impl TransactionProjection for Broken {
    type Event = AccountEvent;
    const NAME: &'static str = "broken";

    async fn set_up(&self, tx: &mut ProjectionTransaction<'_>) -> Result<(), ProjectionError> {
        tx.execute("CREATE TABLE totals_v1 (id TEXT PRIMARY KEY, cents BIGINT NOT NULL)", &[]).await.ok();
        match self.0 {
            "" => Err(ProjectionError::new("it has no plan")),
            sql => run(tx, sql).await,
        }
    }

    async fn apply(
        &self,
        _: &Recorded<AccountEvent>,
        _: &mut ProjectionTransaction<'_>,
    ) -> Result<(), ProjectionError> {
        Ok(())
    }
}

async fn tables_that_cannot_be_set_up_leave_nothing_behind(shop: Fixture) {
    let start = async |sql| shop.projections().with_transaction(Broken(sql)).start().await.unwrap_err();
    let error = start("").await;
    assert!(matches!(&error, StartError::SetUp { version: 1, .. }), "{error}");
    assert_eq!(super::fixture::said(&error), SET_UP);
    let error = start("SELECT 1 FROM nowhere").await;
    assert!(matches!(&error, StartError::Database { projection: "broken", .. }), "{error:?}");
    let error = start("ROLLBACK").await;
    assert!(matches!(&error, StartError::SetUp { .. }), "{error:?}");
    if !shop.is_postgres() {
        let error = start("COMMIT").await;
        assert!(matches!(&error, StartError::SetUp { .. }), "{error:?}");
    }
    let gone = Model { projection: "broken", ..table(1) };
    assert_eq!(shop.models.checkpoint(&gone).await.unwrap(), None);
    // Nothing of the table is there, as it can be made again.
    let views = shop.projections().with_transaction(Broken("SELECT 1")).start().await.unwrap();
    assert_eq!(totals(&shop).await, pairs(&[]));
    views.close().await;
}

const SET_UP: &str =
    "projection `broken` (version 1) could not set up its tables; fix what it says and start again: it has no plan";

async fn one_that_waits_for_itself_is_told_at_its_time_limit(shop: Fixture) {
    let probe = Probe::new();
    let views = start(&shop, &probe).await;
    probe.views.set(views.clone()).expect("it is set once");
    let bad = shop.append("a", [AccountEvent::LooksUp(String::new())]).await;
    let stopped = stop_of(&views).await;
    assert_eq!(stopped.event.as_ref().map(|event| event.position), Some(bad));
    assert!(stopped.to_string().contains("`totals`"), "{stopped}");
    views.close().await;
}

/// As an event that ends the process: it is tried by one after the other, alone, and then not any more.
async fn an_event_that_ends_processes_stops_it_at_last(shop: Fixture) {
    let probe = Probe::new();
    let views = start(&shop, &probe).await;
    let good = shop.append("a", [paid(1)]).await;
    wait(&views, &shop, good).await;
    views.close().await;
    let bad = shop.append("a", [paid(2)]).await;
    shop.append("a", [paid(4)]).await;
    let own = Model { table: NO_TABLE, ..table(1) };
    super::leases::die_applying(&shop, unit(&own), bad, 5).await;
    let views = start(&shop, &probe).await;
    let stopped = stop_of(&views).await;
    assert!(matches!(&*stopped.cause, StopCause::ProcessEnded(5)), "{stopped:?}");
    assert_eq!(stopped.event.as_ref().map(|event| event.position), Some(bad));
    assert_eq!(probe.begun(), 1, "it is not tried");
    assert!(views.start_again::<InTransaction<Totals>>().await.unwrap());
    let last = shop.append("a", [paid(8)]).await;
    wait(&views, &shop, last).await;
    assert_eq!(totals(&shop).await, pairs(&[("a", 15)]));
    views.close().await;
}

#[tokio::test(start_paused = true)]
async fn read_models_without_sql_refuse_it() {
    let refused = Fixture::new().projections().with_transaction(Totals::<1>(Probe::new())).start().await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "`database` takes no SQL, which projection `totals` consists of; use a SQLite file or a PostgreSQL database"
    );
}

/// One list, so that neither database can miss a test.
macro_rules! on_both {
    ($($test:ident,)*) => {
        mod in_file {$(
            #[tokio::test]
            async fn $test() {
                let backend = crate::database::contract::InFile::new().await;
                super::$test(super::Fixture::at(backend)).await;
            }
        )*}

        mod in_postgres {$(
            #[tokio::test]
            async fn $test() {
                let backend = crate::database::contract::InPostgres::new().await;
                super::$test(super::Fixture::at(backend)).await;
            }
        )*}
    };
}

on_both! {
    rows_are_those_of_all_events_however_they_are_cut_into_transactions,
    an_event_that_fails_is_rolled_back_to_those_before_it_and_named,
    an_ignored_error_leaves_nothing_half_done,
    faults_that_may_pass_are_retried_and_nothing_is_applied_twice,
    a_transaction_that_sql_ends_is_noticed_and_its_checkpoint_stays,
    what_a_commit_by_sql_may_have_stored_is_not_written_twice,
    what_sql_leaves_on_the_connection_reaches_nobody_else,
    a_transaction_begins_where_the_checkpoint_is_and_for_its_owner_alone,
    one_that_is_slow_keeps_no_other_waiting,
    it_is_paused_watched_and_waited_for_as_any_other,
    a_raised_version_is_set_up_beside_the_old_one_and_each_has_its_own_checkpoint,
    what_changed_without_a_raised_version_is_refused,
    tables_that_cannot_be_set_up_leave_nothing_behind,
    one_that_waits_for_itself_is_told_at_its_time_limit,
    an_event_that_ends_processes_stops_it_at_last,
}
