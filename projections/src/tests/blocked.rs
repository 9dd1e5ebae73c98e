//! Tables that others lock, and rows that are large: what they cost the projections beside them.

use std::time::Duration;

use annals_eventstore::{EventStore, Recorded};

use super::accounts::{Account, AccountEvent, Accounts};
use super::fixture::{Counts, Fixture, pairs, until_at};
use crate::{Projection, ProjectionError, ProjectionState, Projections, Rows};

fn paid(count: usize) -> impl Iterator<Item = AccountEvent> {
    std::iter::repeat_n(AccountEvent::Paid(1), count)
}

fn state(views: &Projections, name: &str) -> ProjectionState {
    views.status().into_iter().find(|status| *status.name == *name).expect("it was started").state
}

/// A VACUUM FULL of one read model must not stop all others for as long as it takes.
pub(super) async fn a_table_that_others_lock_costs_its_own_projection_alone(shop: Fixture) {
    let views = shop.projections().with(Accounts).with(Counts).start().await.unwrap();
    let first = shop.append("a", paid(1)).await;
    views.wait_for(first, shop.soon()).await.unwrap();
    shop.models.lock_table(Some("accounts"));
    for id in ["b", "a"] {
        let last = shop.append(id, paid(2)).await;
        views.wait_for_one::<Counts>(last, shop.soon()).await.expect("the other projection goes on");
    }
    let state = state(&views, "accounts");
    assert!(matches!(state, ProjectionState::Retrying { .. }), "{state:?}");
    shop.models.lock_table(None);
    let last = shop.append("c", paid(1)).await;
    views.wait_for(last, Duration::from_secs(60)).await.expect("it goes on when the table is free");
    until_at(&views, last).await;
    let all = pairs(&[("a", 3), ("b", 2), ("c", 1)]);
    assert_eq!((shop.rows::<Accounts>().await, shop.rows::<Counts>().await), (all.clone(), all));
    assert!(views.status().iter().all(|status| matches!(status.state, ProjectionState::Live)), "{:?}", views.status());
}

/// Thousands of small events on large rows must not hold all of these in memory.
pub(super) async fn rows_that_are_large_are_loaded_for_fewer_events_at_once(shop: Fixture) {
    let ids: Vec<String> = (0..110).map(|n| format!("n{n:03}")).collect();
    for id in &ids {
        shop.append(id, [AccountEvent::Linked("x".repeat(200_000))]).await;
    }
    let views = shop.start().await;
    let last = shop.store.head().await.unwrap();
    views.wait_for(last.position, shop.soon()).await.unwrap();
    views.close().await;
    for id in &ids {
        shop.append(id, paid(1)).await;
    }
    let before = shop.models.most_loaded();
    let views = shop.start().await;
    let last = shop.store.head().await.unwrap();
    views.wait_for(last.position, shop.soon()).await.unwrap();
    let loaded = shop.models.most_loaded();
    assert!(before < 20 << 20 && (10 << 20..20 << 20).contains(&loaded), "at once: {loaded} bytes");
    assert!(shop.rows::<Accounts>().await.iter().all(|(_, cents)| *cents == 1));
}

/// Makes a row of 200 kB of each account.
struct LargeRows;

impl Projection for LargeRows {
    type Event = AccountEvent;
    type Row = Account;

    fn apply(&self, event: &Recorded<AccountEvent>, rows: &mut Rows<Account>) -> Result<(), ProjectionError> {
        let account = Account::new(event.stream.aggregate_id(), 1, event.recorded_at);
        rows.upsert(Account { next: Some("x".repeat(200_000)), ..account });
        Ok(())
    }
}

/// A batch of small events must not hold all the large rows that it makes.
pub(super) async fn large_rows_of_small_events_are_written_in_parts(shop: Fixture) {
    for n in 0..110 {
        shop.append(&format!("n{n:03}"), paid(1)).await;
    }
    let views = shop.projections().with(LargeRows).start().await.unwrap();
    let last = shop.store.head().await.unwrap();
    views.wait_for(last.position, shop.soon()).await.unwrap();
    let written = shop.models.most_written();
    assert!((10 << 20..20 << 20).contains(&written), "at once: {written} bytes");
    assert_eq!(shop.rows::<Accounts>().await.len(), 110);
}

#[cfg(feature = "postgres")]
mod in_postgres {
    use annals_eventstore::PostgresDatabase;
    use sqlx::AssertSqlSafe;

    use super::*;
    use crate::database::contract::InPostgres;
    use crate::{ColumnValue, IndexSpec, ReadModel, TableSpec};

    async fn shop() -> (Fixture, PostgresDatabase) {
        let backend = InPostgres::new().await;
        let database = backend.database.clone();
        (Fixture::at(backend), database)
    }

    #[tokio::test]
    async fn a_lock_on_a_table_neither_stops_other_projections_nor_the_end_of_its_own() {
        let (shop, database) = shop().await;
        let mut cents = 1;
        for mode in ["SHARE", "ACCESS EXCLUSIVE"] {
            let views = shop.projections().with(Accounts).with(Counts).start().await.unwrap();
            let first = shop.append("a", paid(1)).await;
            views.wait_for(first, shop.soon()).await.unwrap();
            let mut lock = database.begin().await.unwrap();
            let statement = AssertSqlSafe(format!("LOCK TABLE accounts_v1 IN {mode} MODE"));
            sqlx::raw_sql(statement).execute(&mut *lock).await.unwrap();
            let last = shop.append("a", paid(1)).await;
            views.wait_for_one::<Counts>(last, shop.soon()).await.expect("the other projection goes on");
            let until_it_says_so = async {
                while !matches!(state(&views, "accounts"), ProjectionState::Retrying { .. }) {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(shop.soon(), until_it_says_so).await.unwrap_or_else(|_| panic!("{mode}"));
            tokio::time::timeout(shop.soon(), views.close()).await.expect("nobody waits for the lock");
            lock.rollback().await.unwrap();
            cents += 2;
        }
        let views = shop.start().await;
        views.wait_for(shop.store.head().await.unwrap().position, shop.soon()).await.unwrap();
        assert_eq!(shop.rows::<Accounts>().await, pairs(&[("a", cents - 1)]));
    }

    /// [`Accounts`] with one more index.
    struct Indexed;

    #[derive(Clone)]
    struct IndexedAccount(Account);

    impl ReadModel for IndexedAccount {
        type Key = String;
        const TABLE: &'static TableSpec = &TableSpec {
            indexes: &[IndexSpec { columns: &["cents"] }, IndexSpec { columns: &["touched"] }],
            ..*Account::TABLE
        };

        fn key(&self) -> String {
            self.0.key()
        }

        fn to_columns(&self) -> Vec<ColumnValue> {
            self.0.to_columns()
        }

        fn from_columns(columns: &mut dyn Iterator<Item = ColumnValue>) -> Result<Self, crate::ColumnError> {
            Account::from_columns(columns).map(Self)
        }
    }

    impl Projection for Indexed {
        type Event = AccountEvent;
        type Row = IndexedAccount;

        fn apply(
            &self,
            _: &annals_eventstore::Recorded<AccountEvent>,
            _: &mut Rows<IndexedAccount>,
        ) -> Result<(), ProjectionError> {
            Ok(())
        }
    }

    /// Ends each CREATE INDEX only when the advisory lock 27 is free.
    const SLOW_INDEXES: &str = "
        CREATE FUNCTION slow() RETURNS event_trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_advisory_xact_lock(27); END $$;
        CREATE EVENT TRIGGER slow ON ddl_command_end WHEN TAG IN ('CREATE INDEX') EXECUTE FUNCTION slow()
    ";

    /// A deploy that adds an index must not stop the projections of the build that still runs.
    #[tokio::test]
    async fn while_an_index_is_made_others_write_to_its_table() {
        let backend = InPostgres::new().await;
        let database = backend.database.clone();
        let shop = Fixture::at(backend);
        let running = shop.start().await;
        let first = shop.append("a", paid(1)).await;
        running.wait_for(first, shop.soon()).await.unwrap();
        let mut slow = database.begin().await.unwrap();
        sqlx::raw_sql(SLOW_INDEXES).execute(&mut *slow).await.unwrap();
        slow.commit().await.unwrap();
        let mut slow = database.begin().await.unwrap();
        sqlx::raw_sql("SELECT pg_advisory_xact_lock(27)").execute(&mut *slow).await.unwrap();

        let beside = shop.beside();
        let start = tokio::spawn(async move { beside.projections().with(Indexed).start().await });
        let mut watcher = database.read().await.unwrap();
        let is_waiting = "SELECT count(*) > 0 FROM pg_stat_activity
                          WHERE query LIKE 'CREATE INDEX%' AND wait_event_type = 'Lock' AND wait_event = 'advisory'";
        while !sqlx::query_scalar::<_, bool>(is_waiting).fetch_one(&mut *watcher).await.unwrap() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let second = shop.append("a", paid(1)).await;
        running.wait_for(second, Duration::from_secs(5)).await.expect("nobody waits for the index");
        slow.rollback().await.unwrap();
        start.await.unwrap().unwrap().close().await;
        let valid = "SELECT count(*) FROM pg_index WHERE indrelid = 'accounts_v1'::regclass AND indisvalid";
        assert_eq!(sqlx::query_scalar::<_, i64>(valid).fetch_one(&mut *watcher).await.unwrap(), 3);
    }

    /// An index that a process left unfinished when it ended is of no use to queries, and costs each write.
    #[tokio::test]
    async fn an_index_that_was_left_unfinished_is_made_anew() {
        let backend = InPostgres::new().await;
        let database = backend.database.clone();
        let shop = Fixture::at(backend);
        shop.start().await.close().await;
        let unfinished = "UPDATE pg_index SET indisvalid = false
                          WHERE NOT indisprimary AND indrelid = 'accounts_v1'::regclass";
        sqlx::raw_sql(unfinished).execute(&mut *database.read().await.unwrap()).await.unwrap();
        shop.start().await.close().await;
        let finished = "SELECT count(*) FROM pg_index WHERE indrelid = 'accounts_v1'::regclass AND indisvalid";
        let mut reader = database.read().await.unwrap();
        assert_eq!(sqlx::query_scalar::<_, i64>(finished).fetch_one(&mut *reader).await.unwrap(), 2);
    }
}
