//! Tenants do not stop each other: with blocked streams, with many appends, with a long unit of work; and strangers stop nobody.

use std::time::Duration;

use annals_eventstore::{
    Append, AppendError, Appended, Begun, Context, EventStore, ExpectedVersion, Limits, PostgresOptions, StreamId,
    StreamVersion, Tenant, TransactionalStore, UnitOfWork,
};
use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection, Row};
use tokio::time::{Instant, timeout};

use super::notifications::Errors;
use super::{Fixture, event_for, run};
use crate::backends::postgres_database_on_our_own;

const ANY: ExpectedVersion = ExpectedVersion::Any;

/// The most that a tenant may wait for another one, on a machine that does nothing else; a blocked append waits for 5 s.
const BOUND: Duration = Duration::from_secs(2);

fn of(tenant: &str, id: &str) -> StreamId {
    StreamId::new(Tenant::new(tenant).unwrap(), "order", id).unwrap()
}

impl Fixture {
    fn one(&self, tenant: &str, id: &str) -> Append {
        Append::to(of(tenant, id), ANY, vec![self.event()])
    }

    fn two(&self, tenant: &str, id: &str) -> Append {
        self.one(tenant, id).and(of(tenant, &format!("{id} too")), ANY, vec![self.event()])
    }
}

/// A unit of work of one tenant is open on 30 of its streams, and everybody appends to these and others at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_a_unit_of_work_blocks_keep_no_other_tenant_waiting() {
    let fixture = Fixture::new().await;
    let mut unit = fixture.store.begin().await.unwrap();
    for n in 0..30 {
        unit.append(fixture.one("blocked", &format!("s{n}"))).await.unwrap();
    }
    // In turns, so that each group has some of both.
    let mut blocked = FuturesUnordered::new();
    let mut innocent = Vec::new();
    for n in 0..30 {
        let (store, append) = (fixture.store.clone(), fixture.one("blocked", &format!("s{n}")));
        blocked.push(tokio::spawn(async move { store.append_many(append).await }));
        let (store, append) = (fixture.store.clone(), fixture.one("innocent", &format!("s{n}")));
        innocent.push(tokio::spawn(async move { store.append_many(append).await }));
    }
    let begun = Instant::now();
    for append in timeout(BOUND, join_all(innocent)).await.expect("no append waits for another tenant's") {
        append.unwrap().unwrap();
    }
    let (store, several) = (&fixture.store, [fixture.two("innocent", "a"), fixture.two("innocent", "b")]);
    let others = async {
        store.load_page(&of("innocent", "s1"), StreamVersion::NONE, 10).await.unwrap();
        for append in several {
            store.append_many(append).await.unwrap();
        }
        store.begin().await.unwrap().rollback().await.unwrap();
    };
    timeout(BOUND, others).await.expect("nor does a load, a large append or a unit of work");
    assert!(begun.elapsed() < 2 * BOUND);
    unit.commit().await.unwrap();
    while let Some(append) = blocked.next().await {
        match append.unwrap() {
            Ok(_) => {}
            Err(error) => assert!(error.is_transient(), "{error:?}"),
        }
    }
}

/// One tenant sends as many appends to two streams as it can.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_large_appends_of_a_tenant_keep_no_load_of_another_waiting() {
    let fixture = Fixture::new().await;
    fixture.store.append_many(fixture.one("innocent", "a")).await.unwrap();
    let flood: Vec<_> = (0..2_000).map(|n| fixture.two("flood", &format!("s{n}"))).collect();
    let store = fixture.store.clone();
    let flood = tokio::spawn(async move { join_all(flood.into_iter().map(|append| store.append_many(append))).await });
    let (mut longest, mut loads) = (Duration::ZERO, 0);
    while !flood.is_finished() {
        let begun = Instant::now();
        fixture.store.load_page(&of("innocent", "a"), StreamVersion::NONE, 10).await.unwrap();
        fixture.store.append_many(fixture.two("innocent", &format!("b{loads}"))).await.unwrap();
        (longest, loads) = (longest.max(begun.elapsed()), loads + 1);
    }
    assert!(loads > 0 && longest < BOUND / 2, "{longest:?} of {loads}");
    let failed = flood.await.unwrap().into_iter().filter_map(Result::err).find(|error| !error.is_transient());
    assert!(failed.is_none(), "{failed:?}");
}

/// The locks against deadlocks are few, and a unit of work over many streams takes all of its tenant.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unit_of_work_over_many_streams_keeps_no_other_tenants_append_waiting() {
    let fixture = Fixture::new().await;
    let mut append = fixture.one("many", "s0");
    for n in 1..1_000 {
        append = append.and(of("many", &format!("s{n}")), ANY, vec![fixture.event()]);
    }
    let mut unit = fixture.store.begin().await.unwrap();
    unit.append(append).await.unwrap();
    let innocent = fixture.store.append_many(fixture.two("innocent", "a"));
    timeout(BOUND, innocent).await.expect("it waits for no lock of another tenant").unwrap();
    // Those of the same tenant on other streams give way for a second only.
    let innocent = fixture.store.append_many(fixture.two("many", "another"));
    timeout(2 * BOUND, innocent).await.expect("it does without the lock").unwrap();
    unit.commit().await.unwrap();
}

/// A tenant keeps as many units of work open as it gets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_units_of_work_of_a_tenant_leave_connections_for_those_of_others() {
    let fixture = Fixture::new().await;
    let of = |tenant: &str| Context::of(Tenant::new(tenant).unwrap());
    let (mut open, mut refused) = (Vec::new(), 0);
    for _ in 0..12 {
        match timeout(Duration::from_millis(100), fixture.store.begin_with(&of("noisy"))).await {
            Ok(begun) => open.push(begun.unwrap()),
            Err(_) => refused += 1,
        }
    }
    assert_eq!((open.len(), refused), (8, 4));
    let others = async {
        let Begun::New(work) = fixture.store.begin_with(&of("quiet")).await.unwrap() else { panic!("it is new") };
        fixture.store.append_many(fixture.two("quiet", "a")).await.unwrap();
        work.rollback().await.unwrap();
    };
    timeout(BOUND, others).await.expect("it has its share");
    open.pop();
    timeout(BOUND, fixture.store.begin_with(&of("noisy"))).await.expect("there is room again").unwrap();
}

/// What is sent counts until it is answered: a table that is locked takes the appends of a tenant only up to its bound.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_that_were_sent_and_not_answered_count_too() {
    let fixture = Fixture::new().await;
    let limits = Limits { queued_appends: 100, ..Limits::default() };
    let store = PostgresOptions::new(fixture.database.url()).limits(limits).open().await.unwrap();
    let mut blocker = fixture.foreign().await;
    run(&mut blocker, "BEGIN; LOCK TABLE annals.events IN SHARE MODE").await.unwrap();
    let (mut waiting, mut refused) = (Vec::new(), 0);
    for n in 0..300 {
        let (one, append) = (store.clone(), fixture.one("t", &format!("s{n}")));
        let mut sent = tokio::spawn(async move { one.append_many(append).await });
        match timeout(Duration::from_millis(1), &mut sent).await {
            Ok(answer) => match answer.unwrap() {
                Err(AppendError::Overloaded { .. }) => refused += 1,
                other => panic!("{other:?}"),
            },
            Err(_) => waiting.push(sent),
        }
    }
    let mut waited: Vec<Result<Appended, AppendError>> = Vec::new();
    run(&mut blocker, "ROLLBACK").await.unwrap();
    for sent in waiting {
        waited.push(sent.await.unwrap());
    }
    refused += waited.iter().filter(|answer| matches!(answer, Err(AppendError::Overloaded { .. }))).count();
    assert_eq!((refused, waited.iter().filter(|answer| answer.is_ok()).count()), (200, 100));
}

async fn pid_of(connection: &mut PgConnection) -> i32 {
    sqlx::query("SELECT pg_backend_pid()").fetch_one(connection).await.unwrap().get(0)
}

/// A role without any privilege on the store takes every advisory lock that it can think of, and asks for the table's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_may_only_connect_blocks_no_append_and_is_named() {
    let fixture = Fixture::new().await;
    let name = format!("stranger_{:016x}", fastrand::u64(..));
    run(&mut fixture.foreign().await, &format!("CREATE ROLE {name} LOGIN PASSWORD 'only for tests'")).await.unwrap();
    let options: PgConnectOptions = fixture.database.url().parse().unwrap();
    let mut stranger = PgConnection::connect_with(&options.username(&name).password("only for tests")).await.unwrap();
    run(&mut stranger, "SELECT pg_advisory_lock(1634627180, 1718510437)").await.unwrap();
    let of_tenant = "2097152 + ((hashtextextended('t', 0) & 1048575) << 7)";
    let turns =
        format!("SELECT pg_advisory_lock(1634627180, ({of_tenant} + n)::int) FROM generate_series(0, 127) AS n");
    run(&mut stranger, &turns).await.unwrap();
    for mode in ["ROW EXCLUSIVE", "SHARE", "ACCESS SHARE"] {
        let refused = run(&mut stranger, &format!("BEGIN; LOCK TABLE annals.events IN {mode} MODE")).await.unwrap_err();
        assert_eq!(super::code(&refused), "42501", "{mode}");
        run(&mut stranger, "ROLLBACK").await.unwrap();
    }
    let large = Append::to(of("t", "large"), ANY, (0..40).map(|_| event_for(&fixture.store)).collect());
    let store = &fixture.store;
    let appends = async {
        for append in [fixture.one("t", "a"), large, fixture.two("t", "b")] {
            store.append_many(append).await.unwrap();
        }
        store.head().await.unwrap()
    };
    let head = timeout(2 * BOUND, appends).await.expect("no append waits for the stranger for long");
    assert!(head.position.get() >= 43);
    let logged = Errors::default();
    let turn = format!("SELECT annals.wait_for_turn(({of_tenant})::int)");
    {
        let _logged = tracing::subscriber::set_default(logged.clone());
        run(&mut fixture.foreign().await, &turn).await.unwrap();
    }
    let pid = pid_of(&mut stranger).await;
    let logged = logged.0.lock().unwrap().clone();
    assert!(logged.contains(&format!("kept by backend {pid} (role {name})")), "{logged}");
    drop(stranger);
    run(&mut fixture.foreign().await, &format!("DROP ROLE {name}")).await.unwrap();
}

/// Each of them left a backend that waited for the lock, until the server took no more connections.
#[tokio::test]
async fn calls_that_give_up_before_a_locked_table_leave_few_backends_behind() {
    const CONNECTIONS: i64 = 3;
    let database = postgres_database_on_our_own().await;
    let mut other = PgConnection::connect(database.url()).await.unwrap();
    let options = |url: String| PostgresOptions::new(url).connections(CONNECTIONS as usize).poll_only();
    for options in [options(database.url().to_owned()), options(database.url_through_pooler()).pooled()] {
        let store = options.open().await.unwrap();
        let load = || async { store.load_page(&of("loud", "a"), StreamVersion::NONE, 10).await };
        join_all((0..CONNECTIONS).map(|_| load())).await.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
        run(&mut other, "BEGIN; LOCK TABLE annals.events IN ACCESS EXCLUSIVE MODE").await.unwrap();
        let mut most = 0;
        for _ in 0..15 {
            join_all((0..CONNECTIONS).map(|_| timeout(Duration::from_millis(30), load()))).await;
            let blocked = "SELECT count(*) FROM pg_stat_activity
                           WHERE datname = current_database() AND wait_event_type = 'Lock'";
            most = most.max(sqlx::query(blocked).fetch_one(&mut other).await.unwrap().get::<i64, _>(0));
        }
        // A busy server notices later that a client has gone.
        assert!((1..=4 * CONNECTIONS).contains(&most), "{most} backends");
        run(&mut other, "ROLLBACK").await.unwrap();
        timeout(BOUND, load()).await.expect("it is free again").unwrap();
        store.close().await;
    }
}
