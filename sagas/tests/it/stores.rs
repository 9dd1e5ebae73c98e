//! Each test of a runner on every store that holds its table.

use annals_eventstore::{PostgresOptions, PostgresStore, SqliteStore, TransactionalStore};
use annals_projections::ReadModelDatabase;
use tempfile::TempDir;

/// Where a store is. Each time it is opened is as another process that uses it.
pub(crate) trait Place {
    type Store: TransactionalStore<Database: ReadModelDatabase>;

    async fn open(&self) -> Self::Store;
}

pub(crate) struct File(TempDir);

impl File {
    pub(crate) async fn new() -> Self {
        Self(tempfile::tempdir().expect("there is room"))
    }
}

impl Place for File {
    type Store = SqliteStore;

    async fn open(&self) -> SqliteStore {
        annals_eventstore::sqlite(self.0.path().join("sagas.db")).await.expect("it opens")
    }
}

pub(crate) struct Server(annals_scratch::Database);

impl Server {
    pub(crate) async fn new() -> Self {
        Self(annals_scratch::Database::empty().await)
    }
}

impl Place for Server {
    type Store = PostgresStore;

    async fn open(&self) -> PostgresStore {
        PostgresOptions::new(self.0.url()).migrate().open().await.expect("it opens")
    }
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("there are threads").block_on(future)
}

/// A test per store of each function, which takes the place of the store.
macro_rules! on_every_store {
    ($($test:ident),* $(,)?) => {
        mod sqlite {
            $(#[test]
            fn $test() {
                crate::stores::block_on(async { super::$test(crate::stores::File::new().await).await });
            })*
        }

        mod postgres {
            $(#[test]
            fn $test() {
                crate::stores::block_on(async { super::$test(crate::stores::Server::new().await).await });
            })*
        }
    };
}
pub(crate) use on_every_store;
