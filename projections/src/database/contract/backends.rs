//! Databases of read models for tests, which look into them by other ways than the runner's.

use std::sync::Arc;

use annals_eventstore::Checkpoint;
use async_trait::async_trait;

use super::unit;
use crate::column::ColumnValue;
use crate::database::memory::MemoryReadModels;
use crate::database::{Fault, Model, Place, ReadModels};
use crate::read_model::TableSpec;

/// A new database for each test.
#[async_trait]
pub(crate) trait Backend: Send + Sync {
    /// A handle on it, such as each process has one of its own.
    fn handle(&self) -> Arc<dyn ReadModels>;

    /// The columns `id` and `cents` of every row, in the order of `id`.
    async fn accounts(&self, model: &Model) -> Vec<(String, i64)>;

    /// The same by the stable name of a read model.
    async fn named(&self, table: &'static TableSpec) -> Vec<(String, i64)>;

    /// Puts a stored checkpoint elsewhere, or removes it.
    async fn set_checkpoint(&self, model: &Model, checkpoint: Option<Checkpoint>);

    /// Removes all rows and puts the stored checkpoint to the beginning, in one transaction.
    async fn empty(&self, model: &Model);

    /// Which version the stable name of a read model shows.
    async fn shown(&self, table: &str) -> Option<u32>;

    fn is_postgres(&self) -> bool {
        false
    }
}

/// What tests ask of read models.
#[async_trait]
pub(crate) trait LookUp {
    /// Where a model is.
    async fn checkpoint(&self, model: &Model) -> Result<Option<Checkpoint>, Fault>;

    /// The same with its owner's epoch.
    async fn place(&self, model: &Model) -> Result<Option<Place>, Fault>;

    /// The rows of these keys, wherever the model is.
    async fn rows(&self, model: &Model, keys: &[Vec<ColumnValue>]) -> Result<Vec<Vec<ColumnValue>>, Fault>;
}

#[async_trait]
impl<M: ReadModels + ?Sized> LookUp for M {
    async fn checkpoint(&self, model: &Model) -> Result<Option<Checkpoint>, Fault> {
        Ok(self.place(model).await?.map(|place| place.checkpoint))
    }

    async fn place(&self, model: &Model) -> Result<Option<Place>, Fault> {
        Ok(self.places(&[unit(model)]).await?.remove(0))
    }

    async fn rows(&self, model: &Model, keys: &[Vec<ColumnValue>]) -> Result<Vec<Vec<ColumnValue>>, Fault> {
        let from = self.place(model).await?.expect("the model was prepared");
        Ok(self.load(model, &from, keys, usize::MAX).await?.expect("nobody moves the checkpoint meanwhile"))
    }
}

/// One that takes SQL.
#[async_trait]
pub(crate) trait SqlBackend: Backend {
    async fn run(&self, sql: &str);

    /// The first column of a query, as text.
    async fn texts(&self, sql: &str) -> Vec<String>;

    /// The table of checkpoints.
    fn checkpoints(&self) -> &'static str;

    /// From now on the table refuses that rows are removed.
    async fn refuse_removals(&self, table: &str);

    /// The names of a table's indexes besides that of its key.
    async fn indexes(&self, table: &str) -> Vec<String>;
}

#[derive(Default)]
pub(crate) struct InMemory(MemoryReadModels);

#[async_trait]
impl Backend for InMemory {
    fn handle(&self) -> Arc<dyn ReadModels> {
        Arc::new(self.0.clone())
    }

    async fn accounts(&self, model: &Model) -> Vec<(String, i64)> {
        let pair = |row: Vec<ColumnValue>| match (&row[0], &row[1]) {
            (ColumnValue::Text(id), ColumnValue::Integer(cents)) => (id.to_string(), *cents),
            other => panic!("an account begins otherwise: {other:?}"),
        };
        self.0.rows(model).into_iter().map(pair).collect()
    }

    async fn named(&self, table: &'static TableSpec) -> Vec<(String, i64)> {
        let version = self.0.shown(table.name).expect("the name shows a version");
        self.accounts(&Model { projection: table.name, version, table }).await
    }

    async fn set_checkpoint(&self, model: &Model, checkpoint: Option<Checkpoint>) {
        self.0.set_checkpoint(model, checkpoint);
    }

    async fn empty(&self, model: &Model) {
        self.0.empty(model);
    }

    async fn shown(&self, table: &str) -> Option<u32> {
        self.0.shown(table)
    }
}

/// The version that the text of a view names: the number behind the table's name.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
fn version_in(view: &str, table: &str) -> Option<u32> {
    let (_, rest) = view.rsplit_once(&format!("{table}_v"))?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
async fn empty(backend: &dyn SqlBackend, model: &Model) {
    let (table, checkpoints) = (model.table_name(), backend.checkpoints());
    let projection = model.projection;
    // In the order of a runner that commits, so that the two do not wait for each other.
    backend.run(&format!(
        "UPDATE {checkpoints} SET position = 0, event_id = NULL WHERE projection = '{projection}'; DELETE FROM {table}"
    ))
    .await;
}

#[cfg(feature = "sqlite")]
pub(crate) use file::InFile;

#[cfg(feature = "sqlite")]
mod file {
    use annals_eventstore::SqliteDatabase;
    use sqlx::{AssertSqlSafe, Row};
    use tempfile::TempDir;

    use super::*;
    use crate::database::sqlite::SqliteReadModels;

    pub(crate) struct InFile {
        _folder: TempDir,
        pub(crate) database: SqliteDatabase,
    }

    impl InFile {
        pub(crate) async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let database = SqliteDatabase::open(folder.path().join("read.db")).await.unwrap();
            Self { _folder: folder, database }
        }

        async fn pairs(&self, relation: &str) -> Vec<(String, i64)> {
            let mut reader = self.database.read().await.unwrap();
            let sql = AssertSqlSafe(format!("SELECT id, cents FROM {relation} ORDER BY id"));
            let rows = sqlx::query(sql).fetch_all(&mut *reader).await.unwrap();
            rows.iter().map(|row| (row.get(0), row.get(1))).collect()
        }
    }

    #[async_trait]
    impl Backend for InFile {
        fn handle(&self) -> Arc<dyn ReadModels> {
            Arc::new(SqliteReadModels::new(self.database.clone()))
        }

        async fn accounts(&self, model: &Model) -> Vec<(String, i64)> {
            self.pairs(&model.table_name()).await
        }

        async fn named(&self, table: &'static TableSpec) -> Vec<(String, i64)> {
            self.pairs(table.name).await
        }

        async fn set_checkpoint(&self, model: &Model, checkpoint: Option<Checkpoint>) {
            let mut transaction = self.database.begin().await.unwrap();
            let query = match checkpoint {
                None => sqlx::query("DELETE FROM annals_checkpoints WHERE projection = ?1"),
                Some(_) => {
                    sqlx::query("UPDATE annals_checkpoints SET position = ?2, event_id = ?3 WHERE projection = ?1")
                }
            };
            let mut query = query.bind(model.projection);
            if let Some(Checkpoint { position, event_id, .. }) = checkpoint {
                query = query.bind(position.get()).bind(event_id.map(|id| id.get().as_bytes().to_vec()));
            }
            query.execute(&mut *transaction).await.unwrap();
            transaction.commit().await.unwrap();
        }

        async fn shown(&self, table: &str) -> Option<u32> {
            let sql = format!("SELECT sql FROM sqlite_schema WHERE type = 'view' AND name = '{table}'");
            super::version_in(self.texts(&sql).await.first()?, table)
        }

        async fn empty(&self, model: &Model) {
            super::empty(self, model).await;
        }
    }

    #[async_trait]
    impl SqlBackend for InFile {
        async fn run(&self, sql: &str) {
            let mut transaction = self.database.begin().await.unwrap();
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *transaction).await.unwrap();
            transaction.commit().await.unwrap();
        }

        async fn texts(&self, sql: &str) -> Vec<String> {
            let mut reader = self.database.read().await.unwrap();
            let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut *reader).await.unwrap();
            rows.iter().map(|row| row.get::<Option<String>, _>(0).unwrap_or_default()).collect()
        }

        fn checkpoints(&self) -> &'static str {
            "annals_checkpoints"
        }

        async fn refuse_removals(&self, table: &str) {
            let refuse =
                format!("CREATE TRIGGER keep BEFORE DELETE ON \"{table}\" BEGIN SELECT RAISE(ABORT, 'kept'); END");
            self.run(&refuse).await;
        }

        async fn indexes(&self, table: &str) -> Vec<String> {
            let sql = format!(
                "SELECT name FROM sqlite_schema
                 WHERE type = 'index' AND tbl_name = '{table}' AND sql IS NOT NULL
                 ORDER BY name"
            );
            self.texts(&sql).await
        }
    }
}

#[cfg(feature = "postgres")]
pub(crate) use postgres::InPostgres;

#[cfg(feature = "postgres")]
mod postgres {
    use annals_eventstore::{PostgresDatabase, PostgresOptions};
    use sqlx::{AssertSqlSafe, Row};

    use super::*;
    use crate::database::postgres::PostgresReadModels;

    pub(crate) struct InPostgres {
        pub(crate) database: PostgresDatabase,
        /// By which the handles reach it: the same, or through a pooler.
        by: PostgresDatabase,
        pub(crate) scratch: annals_scratch::Database,
    }

    impl InPostgres {
        pub(crate) async fn new() -> Self {
            let scratch = annals_scratch::Database::empty().await;
            let database = PostgresDatabase::open(scratch.url()).await.unwrap();
            Self { by: database.clone(), database, scratch }
        }

        /// Whose handles go through a pooler that has fewer connections than they.
        pub(crate) async fn behind_a_pooler() -> Self {
            let scratch = annals_scratch::Database::empty_on_our_own().await;
            let database = PostgresDatabase::open(scratch.url()).await.unwrap();
            let pooled = PostgresOptions::new(scratch.url_through_pooler()).pooled();
            Self { by: PostgresDatabase::open_with(&pooled).await.unwrap(), database, scratch }
        }

        async fn pairs(&self, relation: &str) -> Vec<(String, i64)> {
            let mut reader = self.database.read().await.unwrap();
            let sql = AssertSqlSafe(format!("SELECT id, cents FROM {relation} ORDER BY id"));
            let rows = sqlx::query(sql).fetch_all(&mut *reader).await.unwrap();
            rows.iter().map(|row| (row.get(0), row.get(1))).collect()
        }
    }

    #[async_trait]
    impl Backend for InPostgres {
        fn is_postgres(&self) -> bool {
            true
        }

        fn handle(&self) -> Arc<dyn ReadModels> {
            Arc::new(PostgresReadModels::new(self.by.clone()))
        }

        async fn accounts(&self, model: &Model) -> Vec<(String, i64)> {
            self.pairs(&model.table_name()).await
        }

        async fn named(&self, table: &'static TableSpec) -> Vec<(String, i64)> {
            self.pairs(table.name).await
        }

        async fn set_checkpoint(&self, model: &Model, checkpoint: Option<Checkpoint>) {
            let query = match checkpoint {
                None => sqlx::query("DELETE FROM annals.checkpoints WHERE projection = $1"),
                Some(_) => {
                    sqlx::query("UPDATE annals.checkpoints SET position = $2, event_id = $3 WHERE projection = $1")
                }
            };
            let mut query = query.bind(model.projection);
            if let Some(Checkpoint { position, event_id, .. }) = checkpoint {
                query = query.bind(position.get()).bind(event_id.map(|id| id.get()));
            }
            query.execute(&mut *self.database.read().await.unwrap()).await.unwrap();
        }

        async fn shown(&self, table: &str) -> Option<u32> {
            let sql = format!("SELECT pg_get_viewdef(to_regclass('{table}'))");
            super::version_in(self.texts(&sql).await.first()?, table)
        }

        async fn empty(&self, model: &Model) {
            super::empty(self, model).await;
        }
    }

    #[async_trait]
    impl SqlBackend for InPostgres {
        async fn run(&self, sql: &str) {
            let mut connection = self.database.read().await.unwrap();
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *connection).await.unwrap();
        }

        async fn texts(&self, sql: &str) -> Vec<String> {
            let mut reader = self.database.read().await.unwrap();
            let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut *reader).await.unwrap();
            rows.iter().map(|row| row.get::<Option<String>, _>(0).unwrap_or_default()).collect()
        }

        fn checkpoints(&self) -> &'static str {
            "annals.checkpoints"
        }

        async fn refuse_removals(&self, table: &str) {
            let refuse = format!(
                "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'kept'; END $$;
                 CREATE TRIGGER keep BEFORE DELETE ON \"{table}\" FOR EACH ROW EXECUTE FUNCTION keep()"
            );
            self.run(&refuse).await;
        }

        async fn indexes(&self, table: &str) -> Vec<String> {
            let sql = format!(
                "SELECT i.relname::text
                 FROM pg_index AS x
                 JOIN pg_class AS i ON i.oid = x.indexrelid
                 WHERE x.indrelid = to_regclass('\"{table}\"') AND NOT x.indisprimary
                 ORDER BY 1"
            );
            self.texts(&sql).await
        }
    }
}
