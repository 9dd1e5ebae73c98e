//! Units of work for one request: one effect of all that is in them, and the first answer, on both databases.

use std::convert::Infallible;
use std::time::Duration;

use annals_eventstore::{
    Actor, AggregateStore, Append, AppendError, Appended, Begun, Context, EventStoreExt, ExecuteError, Executed,
    ExpectedVersion, Filter, Fingerprint, Position, RecordedEvent, RequestKey, RequestUnitOfWork, SqliteStore,
    StreamId, Tenant, TransactionalStore, UnitOfWork,
};
use futures::TryStreamExt;
use futures::future::join_all;
use tokio::time::{Instant, timeout};

use crate::order::{Order, OrderError, OrderEvent, OrderId, Pay};

/// A store with a table of the user's own.
trait WithTable: TransactionalStore {
    async fn create_table(&self);
    async fn own_row(work: &mut RequestUnitOfWork<Self>, n: i64);
    /// Runs a statement, and tells whether it was executed.
    async fn statement(work: &mut RequestUnitOfWork<Self>, statement: &'static str) -> bool;
    async fn rows(&self) -> Vec<i64>;
}

macro_rules! with_table {
    ($store:ty) => {
        impl WithTable for $store {
            async fn create_table(&self) {
                let mut transaction = self.database().begin().await.unwrap();
                sqlx::query("CREATE TABLE mine (n BIGINT NOT NULL)").execute(&mut *transaction).await.unwrap();
                transaction.commit().await.unwrap();
            }

            async fn own_row(work: &mut RequestUnitOfWork<Self>, n: i64) {
                sqlx::query("INSERT INTO mine VALUES ($1)").bind(n).execute(&mut **work).await.unwrap();
            }

            async fn statement(work: &mut RequestUnitOfWork<Self>, statement: &'static str) -> bool {
                sqlx::raw_sql(statement).execute(&mut **work).await.is_ok()
            }

            async fn rows(&self) -> Vec<i64> {
                let mut reader = self.database().read().await.unwrap();
                sqlx::query_scalar("SELECT n FROM mine ORDER BY n").fetch_all(&mut *reader).await.unwrap()
            }
        }
    };
}

with_table!(SqliteStore);
#[cfg(feature = "postgres")]
with_table!(annals_eventstore::PostgresStore);

/// Runs each check on a new store of each kind.
macro_rules! on_both {
    ($($check:ident;)+) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $check() {
                let folder = tempfile::tempdir().unwrap();
                let store = annals_eventstore::sqlite(folder.path().join("events.db")).await.unwrap();
                super::WithTable::create_table(&store).await;
                super::$check(store).await;
            })+
        }

        #[cfg(feature = "postgres")]
        mod postgres {
            $(#[tokio::test]
            async fn $check() {
                let database = crate::backends::postgres_database().await;
                let store = annals_eventstore::postgres(database.url()).await.unwrap();
                super::WithTable::create_table(&store).await;
                super::$check(store).await;
            })+
        }
    };
}

on_both! {
    both_commands_of_a_unit_have_their_effect_and_a_repeat_runs_neither;
    a_repeat_is_answered_before_anything_is_decided;
    every_event_has_tenant_metadata_and_cause_of_the_context;
    a_key_with_another_fingerprint_is_refused_and_one_of_a_failed_unit_is_free;
    a_unit_without_events_keeps_its_key_too;
    the_key_of_a_command_without_events_is_of_its_aggregate;
    a_passed_deadline_stores_nothing;
    a_command_that_a_savepoint_has_undone_is_in_no_answer;
    a_request_that_sql_has_committed_too_early_has_one_effect;
    a_request_that_sql_has_rolled_back_stores_nothing_and_may_run_again;
    an_append_of_another_tenant_or_with_its_own_key_is_refused_and_the_unit_stays_usable;
    units_with_one_key_at_the_same_time_run_once;
    a_unit_waits_for_an_open_one_with_its_key_and_gets_the_answer_of_that;
    racing_and_cancelled_units_have_one_effect_and_the_first_answer;
}

fn order(id: &str) -> OrderId {
    OrderId::new(id).unwrap()
}

fn stream(id: &str) -> StreamId {
    StreamId::new(Tenant::new("north").unwrap(), "order", id).unwrap()
}

fn keyed(key: &str, content: &str) -> Context {
    let request = RequestKey::new(key, Fingerprint::of(&content).unwrap()).unwrap();
    Context::of(Tenant::new("north").unwrap()).with_request(request)
}

async fn log(store: &impl WithTable) -> Vec<RecordedEvent> {
    store.read_all(Position::START, Filter::all()).try_collect().await.unwrap()
}

async fn begun<S: WithTable>(store: &S, context: &Context) -> RequestUnitOfWork<S> {
    match store.begin_with(context).await.unwrap() {
        Begun::New(work) => work,
        Begun::Repeated(first) => panic!("executed before: {first:?}"),
    }
}

/// Places two orders and adds a row.
async fn place_both(
    store: &impl WithTable,
    context: &Context,
    ids: [&str; 2],
) -> Result<Appended, ExecuteError<OrderError>> {
    let mut work = match store.begin_with(context).await? {
        Begun::Repeated(first) => return Ok(first),
        Begun::New(work) => work,
    };
    let orders = store.aggregate::<Order>();
    for id in ids {
        work.execute(&orders, &order(id), |order| order.place(9)).await?;
    }
    WithTable::own_row(&mut work, 1).await;
    Ok(work.commit().await?)
}

fn versions(answer: &Appended) -> Vec<(&str, i64, usize)> {
    let of = |s: &annals_eventstore::AppendedStream| s.version.get();
    answer.streams.iter().map(|s| (s.stream.aggregate_id(), of(s), s.positions.len())).collect()
}

async fn both_commands_of_a_unit_have_their_effect_and_a_repeat_runs_neither(store: impl WithTable) {
    let context = keyed("r-1", "both");
    let first = place_both(&store, &context, ["a", "b"]).await.unwrap();
    assert_eq!((versions(&first), first.repeated), (vec![("a", 1, 1), ("b", 1, 1)], false));
    let log_then = log(&store).await;
    assert_eq!(first.position, log_then[1].position);
    assert_eq!(first.recorded_at, log_then[1].recorded_at);
    let again = place_both(&store, &context, ["a", "b"]).await.unwrap();
    assert_eq!(again, first.again());
    // A single command under the key is the same request too, and gets its part of the answer.
    let orders = store.aggregate::<Order>().with(context);
    let done = orders.execute(&order("b"), |order| order.place(9)).await.unwrap();
    assert_eq!((done.version.get(), done.position, done.repeated), (1, first.position, true));
    assert_eq!((log(&store).await, store.rows().await), (log_then, vec![1]));
}

async fn a_repeat_is_answered_before_anything_is_decided(store: impl WithTable) {
    let orders = store.aggregate::<Order>();
    let context = keyed("r-1", "pay");
    let mut work = begun(&store, &context).await;
    work.execute(&orders, &order("a"), |order| order.place(9)).await.unwrap();
    // The decision sees the first command, and may be rejected without harm.
    let refused = work.send(&orders, &order("a"), Pay { amount: 10 }).await.unwrap_err();
    assert!(refused.rejection().is_some());
    let paid = work.send(&orders, &order("a"), Pay { amount: 9 }).await.unwrap();
    assert!(paid.state.paid);
    let first = work.commit().await.unwrap();
    assert_eq!((versions(&first), first.position), (vec![("a", 2, 2)], paid.position));
    assert!(
        matches!(store.begin_with(&context).await.unwrap(), Begun::Repeated(again) if again.streams == first.streams)
    );
}

async fn every_event_has_tenant_metadata_and_cause_of_the_context(store: impl WithTable) {
    let context = keyed("r-1", "x").with_actor(Actor::new("alice").unwrap()).with_note("channel", "web");
    let mut work = begun(&store, &context).await;
    let elsewhere = Context::of(Tenant::new("south").unwrap()).with_actor(Actor::new("bob").unwrap());
    let orders = store.aggregate::<Order>().with(elsewhere);
    work.execute(&orders, &order("a"), |order| order.place(9)).await.unwrap();
    let mut own = store.new_event(&OrderEvent::Placed { total: 9 }).unwrap();
    own.metadata.actor = Some(Actor::new("carol").unwrap());
    own.metadata.extra.insert("channel".to_owned(), "shop".to_owned());
    work.append(Append::to(stream("b"), ExpectedVersion::NoStream, vec![own])).await.unwrap();
    work.commit().await.unwrap();
    let found: Vec<_> =
        log(&store).await.into_iter().map(|event| (event.stream.tenant().clone(), event.metadata)).collect();
    for ((tenant, metadata), (actor, channel)) in found.iter().zip([("alice", "web"), ("carol", "shop")]) {
        assert_eq!(tenant.as_str(), "north");
        assert_eq!(metadata.causation_id.as_ref().map(|id| id.as_str()), Some("r-1"));
        assert_eq!(metadata.actor.as_ref().map(|actor| actor.as_str()), Some(actor));
        assert_eq!(metadata.extra["channel"], channel);
    }
    assert_eq!(found.len(), 2);
}

async fn a_key_with_another_fingerprint_is_refused_and_one_of_a_failed_unit_is_free(store: impl WithTable) {
    let orders = store.aggregate::<Order>();
    let context = keyed("r-1", "x");
    begun(&store, &context).await.rollback().await.unwrap();
    let mut dropped = begun(&store, &context).await;
    dropped.execute(&orders, &order("a"), |order| order.place(1)).await.unwrap();
    drop(dropped);
    let first = place_both(&store, &context, ["a", "b"]).await.unwrap();
    assert!(!first.repeated);
    let error = store.begin_with(&keyed("r-1", "y")).await.unwrap_err();
    assert!(matches!(error, AppendError::RequestKeyReused { .. }), "{error:?}");
    // Keys belong to a tenant.
    let request = context.request().unwrap().clone();
    begun(&store, &Context::of(Tenant::new("south").unwrap()).with_request(request)).await.rollback().await.unwrap();
    assert_eq!((log(&store).await.len(), store.rows().await), (2, vec![1]));
}

async fn a_unit_without_events_keeps_its_key_too(store: impl WithTable) {
    let context = keyed("r-1", "x");
    let mut work = begun(&store, &context).await;
    WithTable::own_row(&mut work, 1).await;
    let first = work.commit().await.unwrap();
    assert_eq!((first.streams.len(), first.position, first.repeated), (0, Position::START, false));
    assert!(matches!(store.begin_with(&context).await.unwrap(), Begun::Repeated(again) if again == first.again()));
    assert_eq!(store.rows().await, [1]);
    // Without a key each one is new.
    for _ in 0..2 {
        assert!(!place_or_pay(&store, &Context::of(context.tenant().clone())).await.repeated);
    }
    assert_eq!(log(&store).await.len(), 2);
}

/// A command that leads to no events, alone or in a unit of work.
async fn nothing_on(
    store: &impl WithTable,
    context: &Context,
    id: &str,
    inside: bool,
) -> Result<Executed<Order>, ExecuteError<Infallible>> {
    let orders = store.aggregate::<Order>().with(context.clone());
    let nothing = |_: &Order| Ok::<_, Infallible>(None::<OrderEvent>);
    if !inside {
        return orders.execute(&order(id), nothing).await;
    }
    let mut work = store.begin().await?;
    let done = work.execute(&orders, &order(id), nothing).await;
    work.commit().await?;
    done
}

/// For another aggregate it was answered as done, and nothing ran.
async fn the_key_of_a_command_without_events_is_of_its_aggregate(store: impl WithTable) {
    for (key, inside) in [("r-1", false), ("r-2", true)] {
        let context = keyed(key, "x");
        let first = nothing_on(&store, &context, "a", inside).await.unwrap();
        assert!(!first.repeated && first.recorded_at.is_some());
        for inside in [false, true] {
            let again = nothing_on(&store, &context, "a", inside).await.unwrap();
            assert_eq!((again.repeated, again.version, again.recorded_at), (true, first.version, first.recorded_at));
            let other = nothing_on(&store, &context, "b", inside).await.unwrap_err();
            assert!(matches!(other, ExecuteError::Append(AppendError::RequestKeyReused { .. })), "{other:?}");
        }
    }
    assert_eq!(log(&store).await.len(), 0);
}

/// Places an order, or pays it if it is placed.
async fn place_or_pay(store: &impl WithTable, context: &Context) -> Appended {
    let mut work = begun(store, context).await;
    let decide = |order: &Order| if order.due.is_some() { order.pay(9) } else { order.place(9) };
    work.execute(&store.aggregate::<Order>(), &order("a"), decide).await.unwrap();
    work.commit().await.unwrap()
}

async fn a_passed_deadline_stores_nothing(store: impl WithTable) {
    let orders = store.aggregate::<Order>();
    let late = keyed("r-1", "x").with_deadline(Instant::now());
    let error = store.begin_with(&late).await.unwrap_err();
    assert!(matches!(error, AppendError::DeadlineExceeded { .. }), "{error:?}");
    let context = keyed("r-1", "x").with_deadline(Instant::now() + Duration::from_millis(400));
    let mut work = begun(&store, &context).await;
    work.execute(&orders, &order("a"), |order| order.place(9)).await.unwrap();
    tokio::time::sleep_until(context.deadline().unwrap()).await;
    let error = work.execute(&orders, &order("a"), |order| order.pay(9)).await.unwrap_err();
    assert!(matches!(error, ExecuteError::Append(AppendError::DeadlineExceeded { .. })), "{error:?}");
    let error = work.commit().await.unwrap_err();
    assert!(matches!(error, AppendError::DeadlineExceeded { .. }), "{error:?}");
    assert_eq!(log(&store).await.len(), 0);
    assert!(!place_both(&store, &keyed("r-1", "x"), ["a", "b"]).await.unwrap().repeated);
}

async fn sql<S: WithTable>(work: &mut RequestUnitOfWork<S>, statement: &'static str) -> bool {
    S::statement(work, statement).await
}

/// Undone by SQL of the user's own: a command, one of two of a stream, and one that another stream has then followed.
async fn a_command_that_a_savepoint_has_undone_is_in_no_answer(store: impl WithTable) {
    let orders = store.aggregate::<Order>();
    let place = |order: &Order| order.place(9);
    for (before, after) in [(None, None), (Some("a"), None), (None, Some("b")), (None, Some("a"))] {
        let context = keyed("r-1", "x");
        let mut work = begun(&store, &context).await;
        if let Some(id) = before {
            work.execute(&orders, &order(id), place).await.unwrap();
        }
        assert!(sql(&mut work, "SAVEPOINT mine").await);
        let id = order(if before.is_some() { "c" } else { "a" });
        work.execute(&orders, &id, place).await.unwrap();
        assert!(sql(&mut work, "ROLLBACK TO SAVEPOINT mine").await);
        if let Some(id) = after {
            work.execute(&orders, &order(id), place).await.unwrap();
        }
        let error = work.commit().await.unwrap_err();
        assert!(matches!(&error, AppendError::Invalid(e) if e.field == "transaction"), "{error:?}");
        assert_eq!(log(&store).await.len(), 0);
    }
    // Own rows may be undone.
    let mut work = begun(&store, &keyed("r-1", "x")).await;
    work.execute(&orders, &order("a"), place).await.unwrap();
    assert!(sql(&mut work, "SAVEPOINT mine").await);
    WithTable::own_row(&mut work, 1).await;
    assert!(sql(&mut work, "ROLLBACK TO SAVEPOINT mine").await);
    assert_eq!(versions(&work.commit().await.unwrap()), [("a", 1, 1)]);
    assert_eq!((log(&store).await.len(), store.rows().await), (1, vec![]));
}

async fn a_request_that_sql_has_committed_too_early_has_one_effect(store: impl WithTable) {
    for (n, statements) in [&["COMMIT"][..], &["COMMIT", "BEGIN"]].into_iter().enumerate() {
        let context = keyed(&format!("r-{n}"), "x");
        let ids = [format!("{n}-a"), format!("{n}-b")];
        let refused = !place_and_end_by_sql(&store, &context, &ids, statements).await;
        match store.begin_with(&context).await.unwrap() {
            // SQLite has refused the COMMIT.
            Begun::New(work) if refused => drop(work),
            Begun::Repeated(first) if !refused => assert_eq!(versions(&first), [(&*ids[0], 1, 1)]),
            begun => panic!("refused: {refused}, {begun:?}"),
        }
        let again = place_both(&store, &context, [&ids[0], &ids[1]]).await.unwrap();
        assert_eq!((again.repeated, again.streams.len()), (!refused, if refused { 2 } else { 1 }));
        let caused =
            log(&store).await.into_iter().filter(|e| e.stream.aggregate_id().starts_with(&ids[0][..1])).count();
        assert_eq!((caused, store.rows().await.len()), (again.streams.len(), n + 1));
    }
}

async fn a_request_that_sql_has_rolled_back_stores_nothing_and_may_run_again(store: impl WithTable) {
    for (n, statements) in [&["ROLLBACK"][..], &["ROLLBACK", "BEGIN"]].into_iter().enumerate() {
        let context = keyed(&format!("r-{n}"), "x");
        let ids = [format!("{n}-a"), format!("{n}-b")];
        place_and_end_by_sql(&store, &context, &ids, statements).await;
        assert_eq!((log(&store).await.len(), store.rows().await.len()), (2 * n, n));
        assert!(!place_both(&store, &context, [&ids[0], &ids[1]]).await.unwrap().repeated);
        // Own rows alone.
        let context = keyed(&format!("rows-{n}"), "x");
        let mut work = begun(&store, &context).await;
        sql(&mut work, "ROLLBACK").await;
        work.commit().await.unwrap_err();
        assert!(matches!(store.begin_with(&context).await.unwrap(), Begun::New(_)));
    }
}

/// Places an order, ends the transaction by SQL, and goes on as if it had not. Tells whether the first statement was executed.
async fn place_and_end_by_sql<S: WithTable>(
    store: &S,
    context: &Context,
    [first, second]: &[String; 2],
    statements: &[&'static str],
) -> bool {
    let orders = store.aggregate::<Order>();
    let mut work = begun(store, context).await;
    work.execute(&orders, &order(first), |order| order.place(9)).await.unwrap();
    WithTable::own_row(&mut work, 1).await;
    let mut executed = Vec::new();
    for statement in statements {
        executed.push(sql(&mut work, statement).await);
    }
    let more = work.execute(&orders, &order(second), |order| order.place(9)).await.unwrap_err();
    assert!(more.is_transient(), "{more:?}");
    let error = work.commit().await.unwrap_err();
    assert!(error.is_transient() || matches!(error, AppendError::OutcomeUnknown { .. }), "{error:?}");
    executed[0]
}

async fn an_append_of_another_tenant_or_with_its_own_key_is_refused_and_the_unit_stays_usable(store: impl WithTable) {
    let context = keyed("r-1", "x");
    let mut work = begun(&store, &context).await;
    let event = || vec![store.new_event(&OrderEvent::Placed { total: 9 }).unwrap()];
    let elsewhere = StreamId::new(Tenant::default(), "order", "a").unwrap();
    let foreign = Append::to(elsewhere, ExpectedVersion::Any, event());
    let own_key = Append::to(stream("a"), ExpectedVersion::Any, event());
    let own_key = own_key.with_request(keyed("r-2", "x").request().unwrap().clone());
    for (field, append) in [("tenant", foreign), ("request_key", own_key)] {
        let error = work.append(append).await.unwrap_err();
        assert!(matches!(&error, AppendError::Invalid(e) if e.field == field), "{error:?}");
    }
    let append = Append::to(stream("a"), ExpectedVersion::NoStream, event());
    for _ in 0..2 {
        // The same event ids are the same append.
        work.append(append.clone()).await.unwrap();
    }
    assert_eq!(versions(&work.commit().await.unwrap()), [("a", 1, 1)]);
    assert_eq!(log(&store).await.len(), 1);
}

async fn units_with_one_key_at_the_same_time_run_once(store: impl WithTable) {
    let context = keyed("r-1", "x");
    let same = (0..4).map(|_| place_both(&store, &context, ["a", "b"]));
    let answers: Vec<_> = join_all(same).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers.iter().filter(|answer| !answer.repeated).count(), 1);
    assert!(answers.iter().all(|answer| answer.streams == answers[0].streams));
    assert_eq!((log(&store).await.len(), store.rows().await), (2, vec![1]));
}

async fn a_unit_waits_for_an_open_one_with_its_key_and_gets_the_answer_of_that(store: impl WithTable) {
    let context = keyed("r-1", "x");
    let mut work = begun(&store, &context).await;
    WithTable::own_row(&mut work, 1).await;
    let mut second = std::pin::pin!(store.begin_with(&context));
    assert!(timeout(Duration::from_millis(150), &mut second).await.is_err(), "it runs beside the first");
    let first = work.commit().await.unwrap();
    assert!(matches!(second.await.unwrap(), Begun::Repeated(again) if again == first.again()));
}

/// Requests for two orders and a row each, each sent by two callers, who may lose interest or the answer at any moment and send
/// it again.
async fn racing_and_cancelled_units_have_one_effect_and_the_first_answer(store: impl WithTable) {
    let seed =
        std::env::var("ANNALS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    let orders = store.aggregate::<Order>();
    let run = async |n: i64, caller: u64| {
        let mut random = fastrand::Rng::with_seed(seed ^ n.unsigned_abs() ^ (caller << 32));
        let context = keyed(&format!("r-{n}"), "x");
        let ids = [format!("o-{}", n % 3), format!("o-{}", (n + 1) % 3)];
        let once = async || {
            let mut work = match store.begin_with(&context).await? {
                Begun::Repeated(first) => return Ok(first),
                Begun::New(work) => work,
            };
            for id in &ids {
                let place = |_: &Order| Ok::<_, OrderError>(OrderEvent::Placed { total: 1 });
                work.execute(&orders, &order(id), place).await?;
            }
            WithTable::own_row(&mut work, n).await;
            Ok::<_, ExecuteError<OrderError>>(work.commit().await?)
        };
        let mut within = Duration::from_micros(random.u64(0..8_000));
        loop {
            match timeout(within, once()).await {
                Ok(Ok(answer)) => return (n, answer),
                Ok(Err(e))
                    if e.is_transient()
                        || e.family().is_some_and(|f| f == annals_eventstore::ErrorFamily::Conflict) => {}
                Ok(Err(ExecuteError::Append(AppendError::OutcomeUnknown { .. }))) | Err(_) => {}
                Ok(Err(e)) => panic!("seed {seed}: {e:?}"),
            }
            within *= 2;
        }
    };
    let requests = (0..24).flat_map(|n| [(n, 0), (n, 1)]);
    let answers = join_all(requests.map(|(n, caller)| run(n, caller))).await;
    let stored = log(&store).await;
    for n in 0..24 {
        let cause = format!("r-{n}");
        let caused = stored.iter().filter(|e| e.metadata.causation_id.as_ref().is_some_and(|id| id.as_str() == cause));
        let caused: Vec<_> = caused.map(|event| event.position).collect();
        assert_eq!(caused.len(), 2, "seed {seed}, {cause}");
        for (_, answer) in answers.iter().filter(|(of, _)| *of == n) {
            let positions: Vec<_> = answer.streams.iter().flat_map(|s| s.positions.clone()).collect();
            assert_eq!(positions, caused, "seed {seed}, {cause}");
        }
    }
    assert_eq!((stored.len(), store.rows().await), (48, (0..24).collect::<Vec<_>>()), "seed {seed}");
}

/// Only on PostgreSQL can another append commit while the unit of work is open.
#[cfg(feature = "postgres")]
#[tokio::test]
async fn a_unit_that_an_append_with_its_key_has_overtaken_is_rolled_back_and_gets_the_answer_of_that() {
    let database = crate::backends::postgres_database().await;
    let store = annals_eventstore::postgres(database.url()).await.unwrap();
    store.create_table().await;
    let context = keyed("r-1", "x");
    let orders = store.aggregate::<Order>();
    let mut work = begun(&store, &context).await;
    work.execute(&orders, &order("a"), |order| order.place(9)).await.unwrap();
    WithTable::own_row(&mut work, 1).await;
    let done = orders.with(context.clone()).execute(&order("b"), |order| order.place(9)).await.unwrap();
    let answer = work.commit().await.unwrap();
    assert_eq!((versions(&answer), answer.position, answer.repeated), (vec![("b", 1, 1)], done.position, true));
    assert_eq!((log(&store).await.len(), store.rows().await), (1, vec![]));
}

/// Two units that append to one stream wait for each other only on PostgreSQL.
#[cfg(feature = "postgres")]
#[tokio::test]
async fn a_command_in_a_unit_that_waits_for_another_unit_ends_with_its_deadline() {
    let database = crate::backends::postgres_database().await;
    let store = annals_eventstore::postgres(database.url()).await.unwrap();
    let orders = store.aggregate::<Order>();
    let mut other = begun(&store, &keyed("r-1", "x")).await;
    other.execute(&orders, &order("a"), |order| order.place(9)).await.unwrap();
    let begin = Instant::now();
    let context = keyed("r-2", "x").with_deadline(begin + Duration::from_millis(400));
    let mut work = begun(&store, &context).await;
    let error = work.execute(&orders, &order("a"), |order| order.place(9)).await.unwrap_err();
    assert!(matches!(error, ExecuteError::Append(AppendError::DeadlineExceeded { .. })), "{error:?}");
    let error = work.commit().await.unwrap_err();
    assert!(matches!(error, AppendError::DeadlineExceeded { .. }), "{error:?}");
    assert!(begin.elapsed() < Duration::from_millis(1_500), "{:?}", begin.elapsed());
    assert_eq!(versions(&other.commit().await.unwrap()), [("a", 1, 1)]);
    assert_eq!(log(&store).await.len(), 1);
}
