//! Lost requests and answers: the outcome is unknown, and repeating the append settles it.

use std::time::Duration;

use annals_eventstore::{
    After, AggregateStore, Append, AppendError, Appended, EventStore, EventStoreExt, ExpectedVersion, Filter,
    Fingerprint, Position, PostgresOptions, PostgresStore, RequestKey, StreamVersion, UnitOfWork,
};
use futures::future::join_all;
use futures::{StreamExt, TryStreamExt};
use sqlx::{Connection, PgConnection, Row};

use super::proxy::{Lost, Proxy};
use super::{Fixture, event_for, run, stream};
use crate::backends::postgres_database_on_our_own;
use crate::order::{Order, OrderId};

const NO_STREAM: ExpectedVersion = ExpectedVersion::NoStream;
const ANY: ExpectedVersion = ExpectedVersion::Any;

/// All that loses the connection too.
const WITH_CONNECTION: [Lost; 3] = [Lost::Request, Lost::Answer, Lost::EndOfAnswer];

/// A part of the statement that commits a unit of work.
const COMMIT: &str = "current_setting('annals.transaction', true)";

/// An append of so many events.
fn events(store: &PostgresStore, id: &str, expected: ExpectedVersion, count: usize) -> Append {
    Append::to(stream(id), expected, (0..count).map(|_| event_for(store)).collect())
}

async fn version(store: &PostgresStore, id: &str) -> i64 {
    let page = store.load_page(&stream(id), StreamVersion::NONE, 1000).await.unwrap();
    page.events.last().map_or(0, |event| event.version.get())
}

/// Checks that the outcome of an append to the stream `id` is unknown.
fn is_unknown(answer: Result<Appended, AppendError>, id: &str, case: &str) {
    match answer {
        Err(AppendError::OutcomeUnknown { stream: at, .. }) => assert_eq!(at, stream(id), "{case}"),
        other => panic!("{case}: {other:?}"),
    }
}

#[tokio::test]
async fn appends_whose_answer_is_lost_are_all_unknown_and_each_is_settled_by_repeating_it() {
    for lost in WITH_CONNECTION {
        let fixture = Fixture::new().await;
        let proxy = Proxy::before(fixture.database.url());
        let store = PostgresOptions::new(proxy.url()).writers(1).open().await.unwrap();
        let request = RequestKey::new("k", Fingerprint::of(&1).unwrap()).unwrap();
        let mut appends: Vec<_> = (0..12).map(|n| events(&store, &format!("s{n}"), NO_STREAM, 1 + n % 3)).collect();
        appends.push(events(&store, "keyed", ANY, 2).with_request(request.clone()));
        // The second of two that cannot both hold.
        appends.push(events(&store, "s3", NO_STREAM, 1));
        let names = (0..12).map(|n| format!("s{n}")).chain(["keyed".to_owned(), "s3".to_owned()]);
        let case = |name: &str| format!("{name}, {lost:?}");

        // They all arrive before the writer looks, so one statement carries them.
        proxy.lose(lost, "annals.append_group(");
        let answers = join_all(appends.iter().map(|append| store.append_many(append.clone()))).await;
        for (answer, name) in answers.into_iter().zip(names.clone()) {
            is_unknown(answer, &name, &case(&name));
        }
        assert!(proxy.has_lost());
        // No other append is affected.
        store.append_many(events(&store, "other", NO_STREAM, 1)).await.unwrap();

        let stored = lost != Lost::Request;
        // A request is settled by its key too, with any ids.
        let keyed = events(&store, "keyed", ANY, 2).with_request(request);
        assert_eq!(store.append_many(keyed).await.unwrap().repeated, stored, "{lost:?}");
        appends.remove(12);
        let answers = join_all(appends.iter().map(|append| store.append_many(append.clone()))).await;
        for (n, (answer, name)) in answers.into_iter().zip(names.filter(|name| name != "keyed")).enumerate() {
            match answer {
                Ok(appended) => {
                    assert!(n < 12, "{}", case(&name));
                    assert_eq!(
                        (appended.repeated, appended.version().get()),
                        (stored, 1 + n as i64 % 3),
                        "{}",
                        case(&name)
                    );
                }
                Err(error) => {
                    assert!(n == 12 && matches!(error, AppendError::WrongExpectedVersion { .. }), "{error:?}")
                }
            }
        }
        let log = fixture.store.read_all(Position::START, Filter::all()).try_collect::<Vec<_>>().await.unwrap();
        assert_eq!(log.len(), 24 + 2 + 1, "{lost:?}");
    }
}

/// Every way that an append takes outside of the groups: part of its statement, expected version, and number of events.
const WAYS: [(&str, ExpectedVersion, usize); 3] =
    [("annals.append_next(", NO_STREAM, 1), ("annals.append_one(", ANY, 1), ("annals.append(", NO_STREAM, 40)];

#[tokio::test]
async fn an_append_is_unknown_whichever_way_it_took_and_settled_by_repeating_it() {
    let fixture = Fixture::new().await;
    let proxy = Proxy::before(fixture.database.url());
    for (n, (way, expected, count)) in WAYS.into_iter().enumerate() {
        for lost in WITH_CONNECTION {
            // After a conflict, even with the append itself, a writer uses checked inserts for a while.
            let store = PostgresOptions::new(proxy.url()).open().await.unwrap();
            let case = format!("{way} {lost:?}");
            let id = format!("{n}-{lost:?}");
            let append = events(&store, &id, expected, count);
            proxy.lose(lost, way);
            is_unknown(store.append_many(append.clone()).await, &id, &case);
            assert!(proxy.has_lost(), "{case}");
            let again = store.append_many(append).await.unwrap();
            assert_eq!(again.repeated, lost != Lost::Request, "{case}");
            assert_eq!(version(&fixture.store, &id).await, count as i64, "{case}");
        }
    }
}

#[tokio::test]
async fn a_commit_through_a_pooler_whose_answer_is_lost_is_unknown_and_settled_by_repeating_it() {
    let database = postgres_database_on_our_own().await;
    let proxy = Proxy::before(&database.url_through_pooler());
    let store = PostgresOptions::new(proxy.url()).pooled().writers(1).open().await.unwrap();
    for lost in [Lost::Request, Lost::Answer] {
        for count in [1, 2, 40] {
            let id = format!("{lost:?}-{count}");
            let append = events(&store, &id, NO_STREAM, count);
            // Notifications commit too.
            proxy.lose_following(lost, "annals.append", "COMMIT");
            is_unknown(store.append_many(append.clone()).await, &id, &id);
            assert!(proxy.has_lost(), "{id}");
            assert_eq!(store.append_many(append).await.unwrap().repeated, lost != Lost::Request, "{id}");
            assert_eq!(version(&store, &id).await, count as i64, "{id}");
        }
    }
}

#[tokio::test]
async fn a_unit_of_work_whose_commit_is_lost_is_unknown_and_resolved_by_its_events() {
    let fixture = Fixture::new().await;
    run(&mut fixture.foreign().await, "CREATE TABLE mine (n int PRIMARY KEY)").await.unwrap();
    let proxy = Proxy::before(fixture.database.url());
    let store = PostgresOptions::new(proxy.url()).open().await.unwrap();
    for (n, lost) in WITH_CONNECTION.into_iter().enumerate() {
        let id = format!("{lost:?}");
        let append = events(&store, &id, NO_STREAM, 2);
        let mut unit = store.begin().await.unwrap();
        sqlx::query("INSERT INTO mine VALUES ($1)").bind(n as i32).execute(&mut *unit).await.unwrap();
        unit.append(append.clone()).await.unwrap();
        proxy.lose(lost, COMMIT);
        is_unknown(unit.commit().await.map(|()| unreachable!()), &id, &id);
        let stored = lost != Lost::Request;
        assert_eq!(store.append_many(append).await.unwrap().repeated, stored, "{lost:?}");
        let own = sqlx::query("SELECT count(*) FROM mine WHERE n = $1").bind(n as i32);
        let own: i64 = own.fetch_one(&mut fixture.foreign().await).await.unwrap().get(0);
        assert_eq!(own, i64::from(stored), "{lost:?}");
    }
}

/// Before the commit, a lost connection rolls back the transaction, so the outcome is known.
#[tokio::test]
async fn an_append_inside_a_transaction_that_is_lost_is_known_not_to_be_stored() {
    let fixture = Fixture::new().await;
    let proxy = Proxy::before(fixture.database.url());
    let store = PostgresOptions::new(proxy.url()).open().await.unwrap();
    for lost in WITH_CONNECTION {
        let id = format!("{lost:?}");
        let append = events(&store, &id, NO_STREAM, 2);
        let mut unit = store.begin().await.unwrap();
        proxy.lose(lost, "annals.append_within(");
        let error = unit.append(append.clone()).await.unwrap_err();
        assert!(matches!(error, AppendError::Unavailable { .. }), "{lost:?}: {error:?}");
        let error = unit.commit().await.unwrap_err();
        assert!(matches!(error, AppendError::Unavailable { .. }), "{lost:?}: {error:?}");

        let mut own = PgConnection::connect(&proxy.url()).await.unwrap();
        let mut transaction = own.begin().await.unwrap();
        proxy.lose(lost, "annals.append_within(");
        let error = store.append_in(&mut transaction, append.clone()).await.unwrap_err();
        assert!(matches!(error, AppendError::Unavailable { .. }), "{lost:?}: {error:?}");
        drop(transaction);
        assert!(!store.append_many(append).await.unwrap().repeated, "{lost:?}");
    }
}

#[tokio::test]
async fn a_foreign_transaction_whose_commit_is_lost_is_resolved_by_its_events() {
    let fixture = Fixture::new().await;
    let proxy = Proxy::before(fixture.database.url());
    for lost in [Lost::Request, Lost::Answer] {
        let append = events(&fixture.store, &format!("{lost:?}"), NO_STREAM, 2);
        let mut own = PgConnection::connect(&proxy.url()).await.unwrap();
        let mut transaction = own.begin().await.unwrap();
        fixture.store.append_in(&mut transaction, append.clone()).await.unwrap();
        proxy.lose(lost, "COMMIT");
        transaction.commit().await.unwrap_err();
        assert_eq!(fixture.store.append_many(append).await.unwrap().repeated, lost != Lost::Request, "{lost:?}");
    }
}

#[tokio::test]
async fn a_command_whose_answer_is_lost_finds_out_by_itself_what_became_of_it() {
    let fixture = Fixture::new().await;
    let proxy = Proxy::before(fixture.database.url());
    for lost in WITH_CONNECTION {
        let orders = PostgresOptions::new(proxy.url()).open().await.unwrap().aggregate::<Order>();
        let id = OrderId::new(format!("{lost:?}")).unwrap();
        proxy.lose(lost, "annals.append_next(");
        let placed = orders.execute(&id, |order| order.place(1_200)).await.unwrap();
        assert!(proxy.has_lost(), "{lost:?}");
        assert_eq!((placed.version.get(), placed.repeated), (1, lost != Lost::Request), "{lost:?}");
        let paid = orders.execute(&id, |order| order.pay(1_200)).await.unwrap();
        assert_eq!(paid.version.get(), 2, "{lost:?}");
    }
}

/// As when a machine vanishes from the network: nothing comes any more, not even an error.
#[tokio::test]
async fn no_append_and_no_read_waits_forever_for_a_server_that_stops_answering() {
    let fixture = Fixture::new().await;
    let proxy = Proxy::before(fixture.database.url());
    let limit = Duration::from_millis(300);
    let store = PostgresOptions::new(proxy.url()).answer_timeout(limit).poll_only().open().await.unwrap();
    let check = |words: &'static str, id: &'static str, count: usize| {
        let (store, proxy, fixture) = (&store, &proxy, &fixture);
        async move {
            let append = events(store, id, NO_STREAM, count);
            proxy.lose(Lost::Silently, words);
            is_unknown(store.append_many(append.clone()).await, id, words);
            assert!(proxy.has_lost(), "{words}");
            assert!(store.append_many(append).await.unwrap().repeated, "{words}");
            assert_eq!(version(&fixture.store, id).await, count as i64, "{words}");
        }
    };
    let all = async {
        check("annals.append_next(", "one", 1).await;
        check("annals.append_group(", "group", 2).await;
        check("annals.append(", "large", 40).await;
        for words in ["version > $4", "COPY ("] {
            proxy.lose(Lost::Silently, words);
            let error = match words {
                "version > $4" => store.load_page(&stream("one"), StreamVersion::NONE, 10).await.unwrap_err(),
                _ => store.read_page(After::START, &Filter::all(), 10).await.unwrap_err(),
            };
            assert!(error.is_transient() && proxy.has_lost(), "{words}: {error:?}");
        }
        // The task that looks for commits of others is kept as little, and so are its readers.
        let mut subscription = store.subscribe(Position::START, Filter::all());
        for _ in 0..43 {
            subscription.next().await.unwrap().unwrap();
        }
        let waiting = tokio::spawn(async move { subscription.next().await.unwrap().unwrap() });
        proxy.lose(Lost::Silently, "SELECT position\n    FROM annals.events\n    ORDER BY position DESC");
        while !proxy.has_lost() {
            tokio::task::yield_now().await;
        }
        fixture.append("of another").await.unwrap();
        assert_eq!(waiting.await.unwrap().stream, stream("of another"));
    };
    tokio::time::timeout(Duration::from_secs(20), all).await.expect("nothing waits forever");
}

#[tokio::test]
async fn an_unreachable_server_is_polled_less_and_less_and_nothing_is_missed_afterwards() {
    let fixture = Fixture::new().await;
    let proxy = Proxy::before(fixture.database.url());
    let options = PostgresOptions::new(proxy.url()).poll_interval(Duration::from_millis(1)).poll_only();
    let store = options.open().await.unwrap();
    let mut subscription = store.subscribe(Position::START, Filter::all());
    fixture.append("before").await.unwrap();
    subscription.next().await.unwrap().unwrap();
    let before = proxy.connected();
    proxy.be_away(true);
    let waiting = tokio::time::timeout(Duration::from_secs(1), subscription.next());
    waiting.await.expect_err("there is nothing");
    let attempts = proxy.connected() - before;
    // Every millisecond at first.
    assert!((1..60).contains(&attempts), "{attempts} attempts in a second");
    fixture.append("meanwhile").await.unwrap();
    proxy.be_away(false);
    let event = tokio::time::timeout(Duration::from_secs(10), subscription.next()).await;
    assert_eq!(event.expect("it continues").unwrap().unwrap().stream, stream("meanwhile"));
}
