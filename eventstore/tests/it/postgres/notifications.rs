//! Notifications between handles, and the log messages when readers wait for long.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_eventstore::{
    After, Append, EventStore, EventStoreExt, ExpectedVersion, Filter, Position, PostgresOptions, PostgresStore,
    RecordedEvent, Subscription, UnitOfWork,
};
use annals_scratch::again::{again, is_again};
use futures::{FutureExt, StreamExt};
use metrics::{Counter, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use sqlx::Row;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};

use super::{Fixture, event_for, insert, run, stream};

const HOUR: Duration = Duration::from_secs(3_600);

/// The next event, which must be returned long before the next poll.
async fn soon(subscription: &mut Subscription) -> RecordedEvent {
    let next = tokio::time::timeout(Duration::from_secs(8), subscription.next()).await;
    next.expect("a notification arrives").unwrap().unwrap()
}

/// Waits until a connection of the database listens, another one than `but`, and gives its backend.
async fn listening(fixture: &Fixture, but: Option<i32>) -> i32 {
    let mut foreign = fixture.foreign().await;
    loop {
        let listening = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query ILIKE 'LISTEN %'
                         AND pid IS DISTINCT FROM $1 ORDER BY pid";
        let rows = sqlx::query(listening).bind(but).fetch_all(&mut foreign).await.unwrap();
        if let Some(row) = rows.first() {
            return row.get(0);
        }
        tokio::task::yield_now().await;
    }
}

async fn append(store: &PostgresStore, id: &str) -> Position {
    store.append(&stream(id), ExpectedVersion::NoStream, vec![event_for(store)]).await.unwrap().position
}

#[tokio::test]
async fn commits_of_others_are_notified_without_polling() {
    let fixture = Fixture::new().await;
    let reader = PostgresOptions::new(fixture.database.url()).poll_interval(HOUR).open().await.unwrap();
    let mut subscription = reader.subscribe(Position::START, Filter::all());
    let first = listening(&fixture, None).await;
    for id in ["a", "b", "c"] {
        let position = append(&fixture.store, id).await;
        assert_eq!(soon(&mut subscription).await.position, position);
    }
    let mut unit = fixture.store.begin().await.unwrap();
    let unit_of_work = Append::to(stream("u"), ExpectedVersion::NoStream, vec![fixture.event()]);
    let position = unit.append(unit_of_work).await.unwrap().position;
    unit.commit().await.unwrap();
    assert_eq!(soon(&mut subscription).await.position, position);
    // A lost connection is opened again, and then the handle polls for missed commits.
    run(&mut fixture.foreign().await, &format!("SELECT pg_terminate_backend({first})")).await.unwrap();
    let missed = append(&fixture.store, "d").await;
    assert_eq!(soon(&mut subscription).await.position, missed);
    listening(&fixture, Some(first)).await;
    let position = append(&fixture.store, "e").await;
    assert_eq!(soon(&mut subscription).await.position, position);
}

/// A handle that polls once an hour is notified of every commit, its own and others'. The payload of a notification by
/// another program has no effect but a poll.
#[tokio::test]
async fn waiting_readers_get_every_commit_at_once_whatever_others_notify() {
    let fixture = Fixture::new().await;
    let [writer, reader] = [(), ()].map(|()| PostgresOptions::new(fixture.database.url()).poll_interval(HOUR).open());
    let (writer, reader) = (writer.await.unwrap(), reader.await.unwrap());
    let [mut own, mut other] = [&writer, &reader].map(|store| store.subscribe(Position::START, Filter::all()));
    let first = listening(&fixture, None).await;
    listening(&fixture, Some(first)).await;
    let mut delays = Vec::new();
    for round in 0..20 {
        assert!(own.next().now_or_never().is_none() && other.next().now_or_never().is_none());
        if round == 10 {
            let mut foreign = fixture.foreign().await;
            run(&mut foreign, &format!("NOTIFY annals, '{}'", i64::MAX)).await.unwrap();
            run(&mut foreign, "NOTIFY annals, 'anything'").await.unwrap();
        }
        // Both wait for a notification, and not in a read that is still under way.
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(own.next().now_or_never().is_none() && other.next().now_or_never().is_none());
        let position = append(&writer, &format!("s-{round}")).await;
        let begun = tokio::time::Instant::now();
        assert_eq!(soon(&mut own).await.position, position);
        assert_eq!(soon(&mut other).await.position, position);
        delays.push(begun.elapsed());
    }
    delays.sort();
    assert!(delays[10] < Duration::from_millis(100), "{delays:?}");
}

/// Where the other process appends.
const URL: &str = "ANNALS_TEST_URL";

const READY: &str = "the store is open";

/// What the other process does: it appends to the stream that each line names.
async fn append_on_request() {
    let url = std::env::var(URL).expect("it was named");
    let store = PostgresOptions::new(url).poll_interval(HOUR).open().await.unwrap();
    println!("{READY}");
    loop {
        let line = tokio::task::spawn_blocking(|| std::io::stdin().lines().next());
        let Some(id) = line.await.unwrap() else { return };
        append(&store, &id.unwrap()).await;
    }
}

/// A process that polls once an hour gets events of another process at once.
#[tokio::test]
async fn readers_of_another_process_get_every_commit_at_once() {
    if is_again() {
        return append_on_request().await;
    }
    let fixture = Fixture::new().await;
    let mut command = again(&[], module_path!(), "readers_of_another_process_get_every_commit_at_once");
    command.env(URL, fixture.database.url()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut writer = command.spawn().expect("it is running already");
    let mut output = BufReader::new(writer.stdout.take().expect("it is piped")).lines().map_while(Result::ok);
    assert!(output.any(|line| line.contains(READY)), "it has ended");
    let mut input = writer.stdin.take().expect("it is piped");

    let reader = PostgresOptions::new(fixture.database.url()).poll_interval(HOUR).open().await.unwrap();
    let mut subscription = reader.subscribe(Position::START, Filter::all());
    assert!(subscription.next().now_or_never().is_none());
    listening(&fixture, None).await;
    let mut delays = Vec::new();
    for round in 0..11 {
        // It waits for a notification, and not in a read that is still under way.
        assert!(subscription.next().now_or_never().is_none());
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(subscription.next().now_or_never().is_none());
        let begun = tokio::time::Instant::now();
        writeln!(input, "s-{round}").expect("it reads");
        assert_eq!(soon(&mut subscription).await.stream, stream(&format!("s-{round}")));
        delays.push(begun.elapsed());
    }
    delays.sort();
    assert!(delays[5] < Duration::from_millis(300), "{delays:?}");
    drop(input);
    assert!(output.any(|line| line.contains("1 passed")) && writer.wait().expect("it has ended").success());
}

#[tokio::test]
async fn commits_of_others_are_found_by_polling_without_notifications() {
    let fixture = Fixture::new().await;
    let nowhere = "postgres://127.0.0.1:1/nowhere";
    let options = [
        PostgresOptions::new(fixture.database.url()).poll_only(),
        PostgresOptions::new(fixture.database.url()).listen_url(nowhere),
    ];
    for (options, id) in options.into_iter().zip(["a", "b"]) {
        let reader = options.open().await.unwrap();
        let mut subscription = reader.subscribe(reader.head().await.unwrap().position, Filter::all());
        let position = append(&fixture.store, id).await;
        assert_eq!(soon(&mut subscription).await.position, position);
    }
}

#[tokio::test]
async fn all_waiting_readers_continue_when_the_writer_ends() {
    let fixture = Fixture::new().await;
    let mut slow = fixture.foreign().await;
    run(&mut slow, "BEGIN").await.unwrap();
    insert(&mut slow, "slow").await;
    let quick = append(&fixture.store, "quick").await;
    let filters = (0..20).map(|n| if n % 2 == 0 { Filter::all() } else { Filter::all().event_name("placed").unwrap() });
    let mut readers: Vec<_> = filters.map(|filter| fixture.store.subscribe(Position::START, filter)).collect();
    let early = futures::future::join_all(readers.iter_mut().map(|r| tokio::time::timeout(HOUR / 9_000, r.next())));
    assert!(early.await.iter().all(Result::is_err), "they wait");
    run(&mut slow, "ROLLBACK").await.unwrap();
    for reader in &mut readers {
        assert_eq!(soon(reader).await.position, quick);
    }
}

/// Collects what is logged as an error or a warning.
#[derive(Clone, Default)]
pub(super) struct Errors(pub(super) Arc<Mutex<String>>);

impl Visit for Errors {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.lock().unwrap().push_str(&format!("{field}={value:?} "));
    }
}

impl tracing::Subscriber for Errors {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut self.clone());
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Remembers every value of every gauge.
#[derive(Clone, Default)]
struct Gauges(Arc<Mutex<Vec<(String, f64)>>>);

struct One(Gauges, String);

impl GaugeFn for One {
    fn increment(&self, _: f64) {}
    fn decrement(&self, _: f64) {}
    fn set(&self, value: f64) {
        self.0.0.lock().unwrap().push((self.1.clone(), value));
    }
}

impl Recorder for Gauges {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(Arc::new(One(self.clone(), key.name().to_owned())))
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[tokio::test]
async fn transactions_that_keep_readers_waiting_are_logged_and_shown_in_a_gauge() {
    let (errors, gauges) = (Errors::default(), Gauges::default());
    let _logged = tracing::subscriber::set_default(errors.clone());
    let _recorded = metrics::set_default_local_recorder(&gauges);
    for prepared in [false, true] {
        let fixture = Fixture::new().await;
        // Such names are the server's, so one that an interrupted test has left must not be ours.
        let forgotten = fixture.database.name();
        let options = PostgresOptions::new(fixture.database.url()).horizon_alarm(Duration::from_millis(100));
        let reader = options.open().await.unwrap();
        let mut slow = fixture.foreign().await;
        let pid: i32 = sqlx::query("SELECT pg_backend_pid()").fetch_one(&mut slow).await.unwrap().get(0);
        run(&mut slow, "SET application_name = 'nightly import'; BEGIN").await.unwrap();
        insert(&mut slow, "slow").await;
        if prepared {
            run(&mut slow, &format!("PREPARE TRANSACTION '{forgotten}'")).await.unwrap();
        }
        append(&fixture.store, "quick").await;
        // The previous writer may have been logged after it was checked.
        errors.0.lock().unwrap().clear();
        let begun = tokio::time::Instant::now();
        // The shared test server runs without fsync, which is logged too.
        while !errors.0.lock().unwrap().contains("readers of the log wait") {
            assert!(begun.elapsed() < Duration::from_secs(10), "nothing was logged");
            assert!(reader.read_page(After::START, &Filter::all(), 10).await.unwrap().events.is_empty());
        }
        let logged = std::mem::take(&mut *errors.0.lock().unwrap());
        let named =
            if prepared { format!("`{forgotten}`") } else { format!("backend {pid} (nightly import, idle in ") };
        assert!(logged.contains(&named), "{logged}");
        let end = if prepared { format!("ROLLBACK PREPARED '{forgotten}'") } else { "ROLLBACK".to_owned() };
        run(&mut slow, &end).await.unwrap();
        while reader.read_page(After::START, &Filter::all(), 10).await.unwrap().events.is_empty() {}
        let seen = std::mem::take(&mut *gauges.0.lock().unwrap());
        assert!(seen.iter().all(|(name, _)| name == "annals_horizon_wait_seconds"));
        assert!(seen.iter().any(|(_, value)| *value >= 0.1), "{seen:?}");
        assert_eq!(seen.last().unwrap().1, 0.0);
        reader.close().await;
    }
}
