//! A server that does not answer, and one whose table or connections are held by others: calls end at their deadlines.

use std::convert::Infallible;
use std::time::Duration;

use annals_eventstore::{
    AggregateStore, Append, AppendError, Appended, Begun, Context, DatabaseError, ErrorFamily, EventStore,
    ExecuteError, ExpectedVersion, Filter, Fingerprint, Position, PostgresOptions, PostgresStore, ReadError,
    Repository, RequestKey, RequestUnitOfWork, StreamVersion, Tenant, TransactionalStore, UnitOfWork,
};
use annals_scratch::Server;
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use sqlx::{Connection, PgConnection};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::{event_for, run, stream};
use crate::order::{Order, OrderEvent, OrderId};

const DEADLINE: Duration = Duration::from_millis(300);

/// How late an answer may be, beside what a bare timer of the same time is.
const LATE: Duration = Duration::from_millis(50);

/// What became of a call: not done for sure, or unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    NotDone,
    Unknown,
}

type Call<'c> = (&'static str, BoxFuture<'c, End>);

fn of_append<T: std::fmt::Debug>(answer: Result<T, AppendError>) -> End {
    match answer.map_err(|error| (error.family(), error)) {
        Err((ErrorFamily::OutcomeUnknown, _)) => End::Unknown,
        Err((ErrorFamily::Transient, _)) => End::NotDone,
        other => panic!("{other:?}"),
    }
}

fn of_command<T>(answer: Result<T, ExecuteError<Infallible>>) -> End {
    match answer.map(drop).map_err(|error| (error.family(), error)) {
        Err((Some(ErrorFamily::OutcomeUnknown), _)) => End::Unknown,
        Err((Some(ErrorFamily::Transient), _)) => End::NotDone,
        other => panic!("{other:?}"),
    }
}

fn of_read<T>(answer: Result<T, ReadError>) -> End {
    assert!(answer.is_err_and(|error| error.is_transient()));
    End::NotDone
}

fn of_database<T>(answer: Result<T, DatabaseError>) -> End {
    match answer.map(drop) {
        Err(DatabaseError::OutcomeUnknown { .. }) => End::Unknown,
        Err(DatabaseError::Unavailable { .. }) => End::NotDone,
        other => panic!("{other:?}"),
    }
}

fn request(key: &str) -> RequestKey {
    RequestKey::new(key, Fingerprint::of(&key).unwrap()).unwrap()
}

fn placed(_: &Order) -> Result<OrderEvent, Infallible> {
    Ok(OrderEvent::Placed { total: 12_00 })
}

/// Runs the calls side by side. Each must have ended `LATE` after `deadline`.
async fn check(state: &str, deadline: Instant, calls: Vec<Call<'_>>) -> Vec<(&'static str, End)> {
    let timer = async {
        sleep_until(deadline).await;
        deadline.elapsed()
    };
    let timed = calls.into_iter().map(async |(what, call)| {
        // One that never ends is reported too.
        let end = timeout_at(deadline + Duration::from_secs(2), call).await;
        (what, end.unwrap_or(End::Unknown), deadline.elapsed())
    });
    let (late_anyway, ended) = tokio::join!(timer, join_all(timed));
    let too_late: Vec<_> = ended.iter().filter(|(_, _, late)| *late > LATE + late_anyway).collect();
    assert!(too_late.is_empty(), "{state}: {too_late:?}, {late_anyway:?}");
    ended.into_iter().map(|(what, end, _)| (what, end)).collect()
}

/// What calls with a deadline need that is made before the server stops.
struct Prepared {
    store: PostgresStore,
    orders: Repository<Order>,
    work: [Option<RequestUnitOfWork<PostgresStore>>; 4],
    unit: Option<annals_eventstore::PostgresUnitOfWork>,
}

impl Prepared {
    /// With the deadline of its units of work: in `time`, or later if they could not be begun in half of it.
    async fn new(store: PostgresStore, mut time: Duration) -> (Self, Instant) {
        let orders = store.aggregate::<Order>();
        orders.execute(&OrderId::new("cached").unwrap(), placed).await.unwrap();
        loop {
            let deadline = Instant::now() + time;
            let context = Context::default().with_deadline(deadline);
            let begun = timeout_at(deadline - time / 2, join_all([(); 4].map(|()| store.begin_with(&context)))).await;
            let begun = begun.map(|begun| begun.into_iter().collect::<Result<Vec<_>, _>>());
            let Ok(Ok(begun)) = begun else {
                time *= 2;
                assert!(time < Duration::from_secs(60), "{:?}", begun.err());
                continue;
            };
            let mut begun = begun.into_iter();
            let work = [(); 4].map(|()| match begun.next() {
                Some(Begun::New(begun)) => Some(begun),
                other => panic!("it is new: {}", other.is_some()),
            });
            let unit = Some(store.begin().await.unwrap());
            return (Self { store, orders, work, unit }, deadline);
        }
    }

    /// Every call that takes a deadline. The streams and keys have `name` in their names.
    fn calls(&mut self, name: &str, deadline: Instant) -> (Vec<Append>, Vec<Call<'_>>) {
        let Self { store, orders, work, unit } = self;
        let (store, orders): (&PostgresStore, &Repository<Order>) = (store, orders);
        let append = |kind: &str, count| {
            let events = (0..count).map(|_| event_for(store)).collect();
            let to = stream(&format!("{kind} {name}"));
            Append::to(to, ExpectedVersion::NoStream, events).with_deadline(deadline)
        };
        let two = append("two", 1).and(stream(&format!("more {name}")), ExpectedVersion::Any, vec![event_for(store)]);
        let keyed = append("keyed", 1).with_request(request(&format!("append {name}")));
        let appends = vec![append("small", 1), append("some", 3), append("large", 40), two, keyed];
        let mut calls: Vec<Call<'_>> = Vec::new();
        for append in &appends {
            let append = append.clone();
            calls.push(("append", async move { of_append(store.append_many(append).await) }.boxed()));
        }
        let context = Context::default().with_deadline(deadline);
        let in_time = orders.with(context.clone());
        let with_key = |key: &str| in_time.with(context.clone().with_request(request(&format!("{key} {name}"))));
        let id = |id: &str| OrderId::new(id).unwrap();
        for (what, orders, id) in [
            ("cached command", in_time.clone(), id("cached")),
            ("command", in_time.clone(), id("new")),
            ("command with a key", with_key("a"), id("cached")),
            ("new command with a key", with_key("b"), id("other")),
        ] {
            calls.push((what, async move { of_command(orders.execute(&id, placed).await) }.boxed()));
        }
        let (both, two_orders) = (context.clone(), orders.clone());
        calls.push((
            "command over two",
            async move {
                let (one, other) = (OrderId::new("one").unwrap(), OrderId::new("two").unwrap());
                let decide = |_: &Order, _: &Order| {
                    Ok::<_, Infallible>((OrderEvent::Placed { total: 1 }, OrderEvent::Placed { total: 1 }))
                };
                of_command(store.execute_two(&both, (&two_orders, &one), (&two_orders, &other), decide).await)
            }
            .boxed(),
        ));
        let histories = in_time.clone();
        let history = async move { of_read(histories.history(&OrderId::new("cached").unwrap()).await) };
        calls.push(("history", history.boxed()));
        let loads = in_time.clone();
        calls.push(("load", async move { of_read(loads.load(&OrderId::new("cached").unwrap()).await) }.boxed()));
        let begin = context.clone().with_request(request(&format!("unit {name}")));
        calls.push(("begin", async move { of_append(store.begin_with(&begin).await) }.boxed()));
        let [to_append, to_execute, to_commit, to_roll_back] = work;
        let (more, repository) = (append("in unit", 1), orders.clone());
        if let Some(work) = to_append {
            calls.push(("append in a unit", async move { of_append(work.append(more).await) }.boxed()));
        }
        if let Some(work) = to_execute {
            let call =
                async move { of_command(work.execute(&repository, &OrderId::new("unit").unwrap(), placed).await) };
            calls.push(("command in a unit", call.boxed()));
        }
        if let Some(work) = to_commit.take() {
            calls.push(("commit", async move { of_append(work.commit().await) }.boxed()));
        }
        if let Some(work) = to_roll_back.take() {
            calls.push((
                "roll back",
                async move {
                    // In the end it is rolled back in any case.
                    let _ = work.rollback().await;
                    End::NotDone
                }
                .boxed(),
            ));
        }
        let more = append("in plain unit", 1);
        if let Some(unit) = unit {
            calls.push(("append in a plain unit", async move { of_append(unit.append(more).await) }.boxed()));
        }
        (appends, calls)
    }
}

/// Every append is what its answer said, and may be sent again.
async fn settle(store: &PostgresStore, appends: Vec<Append>, ends: &[(&str, End)]) {
    let ends = ends.iter().filter(|(what, _)| *what == "append").map(|(_, end)| *end);
    for (append, end) in appends.into_iter().zip(ends) {
        let stream = append.parts()[0].stream.clone();
        let stored = store.load_page(&stream, StreamVersion::NONE, 100).await.unwrap().events.len();
        assert!(stored == 0 || end == End::Unknown && stored == append.parts()[0].events.len(), "{stream}: {end:?}");
        let again = append.with_deadline(Instant::now() + Duration::from_secs(30));
        let answer: Appended = store.append_many(again).await.unwrap();
        assert!(!answer.repeated || end == End::Unknown);
    }
}

/// A server that hangs must not keep the callers who said how long they wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_with_a_deadline_ends_with_it_while_the_server_does_not_answer() {
    let server = tokio::task::block_in_place(|| Server::start(&[]));
    let options = PostgresOptions::new(server.url("postgres")).connections(20);
    let store = options.migrate().open().await.unwrap();
    for rested in [false, true] {
        // A connection that has rested is tried before it is used.
        let rest = if rested { Duration::from_millis(1_050) } else { Duration::ZERO };
        let (mut prepared, deadline) = Prepared::new(store.clone(), Duration::from_secs(2) + rest * 2).await;
        sleep(rest).await;
        let frozen = tokio::task::block_in_place(|| server.freeze());
        let (mut appends, calls) = prepared.calls(&format!("{rested} 1"), deadline);
        let mut ends = check("open connections", deadline, calls).await;
        // The second time the writers still wait for an answer, and reads need new connections.
        let deadline = Instant::now() + DEADLINE;
        let (more, calls) = prepared.calls(&format!("{rested} 2"), deadline);
        appends.extend(more);
        ends.extend(check("new connections", deadline, calls).await);
        tokio::task::block_in_place(|| drop(frozen));
        drop(prepared);
        settle(&store, appends, &ends).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_with_a_deadline_ends_with_it_while_others_hold_the_table_or_the_connections() {
    let database = crate::backends::postgres_database().await;
    let store = PostgresOptions::new(database.url()).open().await.unwrap();
    let mut other = PgConnection::connect(database.url()).await.unwrap();
    let (mut prepared, deadline) = Prepared::new(store.clone(), Duration::from_secs(1)).await;
    run(&mut other, "BEGIN; LOCK TABLE annals.events, annals.request_keys IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let (appends, calls) = prepared.calls("locked", deadline);
    let ends = check("a locked table", deadline, calls).await;
    run(&mut other, "ROLLBACK").await.unwrap();
    drop(prepared);
    settle(&store, appends, &ends).await;

    let mut borrowed = Vec::new();
    while let Ok(unit) = timeout_at(Instant::now() + DEADLINE, store.begin()).await {
        borrowed.push(unit.unwrap());
    }
    let deadline = Instant::now() + DEADLINE;
    let context = Context::default().with_deadline(deadline);
    let large = (0..40).map(|_| event_for(&store)).collect();
    let large = Append::to(stream("large"), ExpectedVersion::Any, large).with_deadline(deadline);
    let calls: Vec<Call<'_>> = vec![
        ("begin", async { of_append(store.begin_with(&context).await) }.boxed()),
        ("large append", async { of_append(store.append_many(large).await) }.boxed()),
    ];
    let ends = check("no connection", deadline, calls).await;
    assert!(ends.iter().all(|(_, end)| *end == End::NotDone), "{ends:?}");
}

/// The store's own limits hold where no deadline is given.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_without_a_deadline_end_with_the_limits_of_the_store_while_the_server_does_not_answer() {
    let limit = Duration::from_millis(400);
    let server = tokio::task::block_in_place(|| Server::start(&[]));
    let options = PostgresOptions::new(server.url("postgres")).connections(20).migrate();
    let store = options.answer_timeout(limit).connection_timeout(limit).open().await.unwrap();
    store.append(&stream("a"), ExpectedVersion::Any, vec![event_for(&store)]).await.unwrap();
    let mut units = Vec::new();
    for n in 0..2 {
        let mut unit = store.begin().await.unwrap();
        unit.append(Append::to(stream(&format!("u{n}")), ExpectedVersion::Any, vec![event_for(&store)])).await.unwrap();
        units.push(unit);
    }
    let transaction = store.database().begin().await.unwrap();
    let placed_only = Filter::all().event_name("placed").unwrap();
    let frozen = tokio::task::block_in_place(|| server.freeze());
    let (store, filter) = (&store, &placed_only);
    let (commit, roll_back) = (units.pop().unwrap(), units.pop().unwrap());
    let small = Append::to(stream("small"), ExpectedVersion::Any, vec![event_for(store)]);
    let key = request("k");
    let calls: Vec<Call<'_>> = vec![
        ("append", async move { of_append(store.append_many(small).await) }.boxed()),
        ("load", async { of_read(store.load_page(&stream("a"), StreamVersion::NONE, 10).await) }.boxed()),
        ("read", async { of_read(store.read_page(Position::START.into(), &Filter::all(), 10).await) }.boxed()),
        ("filtered", async { of_read(store.read_page(Position::START.into(), filter, 10).await) }.boxed()),
        ("head", async { of_read(store.head().await) }.boxed()),
        ("request", async { of_append(store.find_request(&Tenant::default(), &key).await) }.boxed()),
        ("begin", async { of_append(store.begin().await.map(drop)) }.boxed()),
        ("transaction", async { of_database(store.database().begin().await) }.boxed()),
        ("reader", async { of_database(store.database().read().await) }.boxed()),
        ("commit", async move { of_append(commit.commit().await) }.boxed()),
        ("commit of a transaction", async move { of_database(transaction.commit().await) }.boxed()),
        (
            "roll back",
            async move {
                let _ = roll_back.rollback().await;
                End::NotDone
            }
            .boxed(),
        ),
    ];
    // One for a connection, one for an answer, and a second for a rollback.
    let ends = check("no answer", Instant::now() + limit * 2 + Duration::from_millis(300), calls).await;
    let unknown: Vec<_> = ends.iter().filter(|(_, end)| *end == End::Unknown).map(|(what, _)| *what).collect();
    assert_eq!(unknown, ["append", "commit", "commit of a transaction"]);
    tokio::task::block_in_place(|| drop(frozen));
}
