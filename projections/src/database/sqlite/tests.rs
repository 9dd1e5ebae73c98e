//! Read models in a SQLite file: what is created, what is refused, what is written.

use annals_eventstore::{Checkpoint, EventId, Incarnation, Position, SqliteDatabase};
use jiff::Timestamp;
use sqlx::{AssertSqlSafe, Row};
use tempfile::TempDir;
use uuid::Uuid;

use super::SqliteReadModels;
use crate::changes::Changes;
use crate::column::{ColumnType, ColumnValue};
use crate::database::{Model, Moved, ReadModels, Work};
use crate::error::StartError;
use crate::read_model::{ColumnSpec, IndexSpec, TableSpec};

const fn column(name: &'static str, column_type: ColumnType, nullable: bool) -> ColumnSpec {
    ColumnSpec { name, column_type, nullable }
}

/// One column of every type, a key of two columns and words of SQL as names.
const EVERYTHING: TableSpec = TableSpec {
    name: "select",
    columns: &[
        column("order", ColumnType::Text, false),
        column("group", ColumnType::Integer, false),
        column("share", ColumnType::Real, true),
        column("done", ColumnType::Bool, true),
        column("at", ColumnType::Timestamp, true),
        column("id", ColumnType::Uuid, true),
        column("raw", ColumnType::Bytes, true),
        column("doc", ColumnType::Json, true),
    ],
    key: &["order", "group"],
    indexes: &[IndexSpec { columns: &["done", "at"] }],
};

const MODEL: Model = Model { projection: "everything", version: 1, table: &EVERYTHING };

struct File {
    _folder: TempDir,
    database: SqliteDatabase,
    models: SqliteReadModels,
}

async fn file() -> File {
    let folder = tempfile::tempdir().unwrap();
    let database = SqliteDatabase::open(folder.path().join("read.db")).await.unwrap();
    let models = SqliteReadModels::new(database.clone());
    models.migrate().await.unwrap();
    File { _folder: folder, database, models }
}

impl File {
    async fn prepare(&self, model: &Model) -> Result<crate::database::Prepared, StartError> {
        self.models.prepare(model, life(), Timestamp::UNIX_EPOCH).await
    }

    async fn texts(&self, sql: &str) -> Vec<String> {
        let mut reader = self.database.read().await.unwrap();
        let rows = sqlx::query(AssertSqlSafe(sql.to_owned())).fetch_all(&mut *reader).await.unwrap();
        rows.iter().map(|row| row.get::<Option<String>, _>(0).unwrap_or_default()).collect()
    }

    async fn run(&self, sql: &str) {
        let mut transaction = self.database.begin().await.unwrap();
        sqlx::query(AssertSqlSafe(sql.to_owned())).execute(&mut *transaction).await.unwrap();
        transaction.commit().await.unwrap();
    }
}

fn life() -> Incarnation {
    Incarnation(Uuid::from_u128(1))
}

fn checkpoint(position: i64) -> Checkpoint {
    let event_id = EventId::new(Uuid::from_u128(position as u128)).unwrap();
    Checkpoint { incarnation: life(), position: Position::new(position).unwrap(), event_id: Some(event_id) }
}

fn row(order: &str, group: i64, share: f64) -> Vec<ColumnValue> {
    vec![
        ColumnValue::Text(order.into()),
        ColumnValue::Integer(group),
        ColumnValue::Real(share),
        ColumnValue::Bool(true),
        ColumnValue::Timestamp(Timestamp::from_microsecond(-1_234_567).unwrap()),
        ColumnValue::Uuid(Uuid::from_u128(9)),
        ColumnValue::Bytes([0_u8, 255].as_slice().into()),
        ColumnValue::Json("{\"a\":[1]}".into()),
    ]
}

fn key(order: &str, group: i64) -> Vec<ColumnValue> {
    vec![ColumnValue::Text(order.into()), ColumnValue::Integer(group)]
}

fn work(from: i64, to: i64, written: Vec<Vec<ColumnValue>>, removed: Vec<Vec<ColumnValue>>) -> Work {
    Work { model: MODEL, from: Position::new(from).unwrap(), to: checkpoint(to), changes: Changes { written, removed } }
}

#[tokio::test]
async fn every_type_comes_back_as_it_was_written() {
    let file = file().await;
    let prepared = file.prepare(&MODEL).await.unwrap();
    assert_eq!(prepared.checkpoint, Checkpoint::start(life()));
    let nulls = {
        let mut columns = key("null", i64::MIN);
        columns.resize(8, ColumnValue::Null);
        columns
    };
    let whole = row("a", 1, 3.0);
    let first = work(0, 5, vec![whole.clone(), nulls.clone()], vec![]);
    assert_eq!(file.models.commit(&[&first], Timestamp::UNIX_EPOCH).await.unwrap(), [Moved::Done]);
    let mut loaded = file.models.load(&MODEL, &[key("a", 1), key("null", i64::MIN), key("a", 2)]).await.unwrap();
    loaded.sort_by_key(|row| row[0].to_string());
    assert_eq!(loaded, [whole, nulls]);
    assert_eq!(file.models.checkpoint(&MODEL).await.unwrap(), Some(checkpoint(5)));
    assert_eq!(file.texts("SELECT \"order\" FROM \"select\" WHERE \"done\" = 1 ORDER BY 1").await, ["a"]);
}

#[tokio::test]
async fn any_number_of_rows_is_written_loaded_and_removed_exactly() {
    let file = file().await;
    file.prepare(&MODEL).await.unwrap();
    let mut position = 0;
    for rows in [1_i64, 2, 3, 7, 64, 255, 256, 257, 700] {
        let name = format!("of {rows}");
        let written: Vec<_> = (0..rows).map(|n| row(&name, n, n as f64)).collect();
        let keys: Vec<_> = (0..rows).map(|n| key(&name, n)).collect();
        let commit = work(position, position + 1, written, vec![]);
        assert_eq!(file.models.commit(&[&commit], Timestamp::UNIX_EPOCH).await.unwrap(), [Moved::Done]);
        assert_eq!(file.models.load(&MODEL, &keys).await.unwrap().len(), rows as usize, "{rows} rows");
        let commit = work(position + 1, position + 2, vec![], keys[1..].to_vec());
        file.models.commit(&[&commit], Timestamp::UNIX_EPOCH).await.unwrap();
        position += 2;
        let left = file.models.load(&MODEL, &keys).await.unwrap();
        assert_eq!(left, [row(&name, 0, 0.0)], "all but the first of {rows} rows are removed");
    }
    assert_eq!(file.texts("SELECT CAST(count(*) AS TEXT) FROM \"select\"").await, ["9"]);
}

#[tokio::test]
async fn a_row_written_again_replaces_the_first() {
    let file = file().await;
    file.prepare(&MODEL).await.unwrap();
    file.models.commit(&[&work(0, 1, vec![row("a", 1, 1.0)], vec![])], Timestamp::UNIX_EPOCH).await.unwrap();
    file.models.commit(&[&work(1, 2, vec![row("a", 1, 2.0)], vec![])], Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!(file.models.load(&MODEL, &[key("a", 1)]).await.unwrap(), [row("a", 1, 2.0)]);
}

#[tokio::test]
async fn a_part_whose_checkpoint_stands_elsewhere_writes_nothing_and_the_others_do() {
    const OTHER: Model = Model { projection: "other", version: 1, table: &TableSpec { name: "other", ..EVERYTHING } };
    let file = file().await;
    file.prepare(&MODEL).await.unwrap();
    file.prepare(&OTHER).await.unwrap();
    let stale = work(7, 9, vec![row("a", 1, 1.0)], vec![]);
    let fresh = Work { model: OTHER, ..work(0, 9, vec![row("b", 1, 1.0)], vec![]) };
    let moved = file.models.commit(&[&stale, &fresh], Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!(moved, [Moved::Overtaken, Moved::Done]);
    assert!(file.models.load(&MODEL, &[key("a", 1)]).await.unwrap().is_empty());
    assert_eq!(file.models.checkpoint(&MODEL).await.unwrap().unwrap().position, Position::START);
    assert_eq!(file.models.load(&OTHER, &[key("b", 1)]).await.unwrap().len(), 1);
    assert_eq!(file.models.checkpoint(&OTHER).await.unwrap(), Some(checkpoint(9)));
}

#[tokio::test]
async fn rows_and_checkpoint_commit_together_or_not_at_all() {
    let file = file().await;
    file.prepare(&MODEL).await.unwrap();
    file.models.commit(&[&work(0, 1, vec![row("a", 1, 1.0)], vec![])], Timestamp::UNIX_EPOCH).await.unwrap();
    // The second statement of the commit fails: a trigger refuses removals.
    file.run("CREATE TRIGGER keep BEFORE DELETE ON \"select_v1\" BEGIN SELECT RAISE(ABORT, 'kept'); END").await;
    let second = work(1, 2, vec![row("b", 1, 1.0)], vec![key("a", 1)]);
    let fault = file.models.commit(&[&second], Timestamp::UNIX_EPOCH).await.unwrap_err();
    assert!(!fault.transient);
    assert_eq!(fault.part, Some(0));
    assert_eq!(file.models.checkpoint(&MODEL).await.unwrap(), Some(checkpoint(1)));
    assert_eq!(file.texts("SELECT \"order\" FROM \"select\" ORDER BY 1").await, ["a"]);
}

#[tokio::test]
async fn a_commit_that_is_dropped_at_any_moment_leaves_rows_and_checkpoint_in_step() {
    let file = file().await;
    file.prepare(&MODEL).await.unwrap();
    let written: Vec<_> = (0..300).map(|n| row("a", n, 1.0)).collect();
    let commit = work(0, 300, written, vec![key("b", 1)]);
    let parts = [&commit];
    for polls in 0.. {
        {
            let mut running = std::pin::pin!(file.models.commit(&parts, Timestamp::UNIX_EPOCH));
            let mut finished = false;
            for _ in 0..polls {
                if futures::poll!(&mut running).is_ready() {
                    finished = true;
                    break;
                }
                tokio::task::yield_now().await;
            }
            if finished {
                break;
            }
        }
        // Whoever takes the write lock next cleans up; then both are old or both are new.
        drop(file.database.begin().await.unwrap());
        let position = file.models.checkpoint(&MODEL).await.unwrap().unwrap().position.get();
        let rows = file.texts("SELECT CAST(count(*) AS TEXT) FROM \"select\"").await;
        assert!(
            (position == 0 && rows == ["0"]) || (position == 300 && rows == ["300"]),
            "after {polls} polls the checkpoint is at {position} with {rows:?} rows"
        );
        if position == 300 {
            break;
        }
    }
}

#[tokio::test]
async fn preparing_twice_goes_on_from_the_stored_checkpoint() {
    let file = file().await;
    assert!(file.prepare(&MODEL).await.unwrap().shown);
    file.models.commit(&[&work(0, 4, vec![], vec![])], Timestamp::UNIX_EPOCH).await.unwrap();
    let again = file.prepare(&MODEL).await.unwrap();
    assert_eq!((again.checkpoint, again.shown), (checkpoint(4), true));
}

#[tokio::test]
async fn another_shape_under_the_same_version_is_refused() {
    let file = file().await;
    file.prepare(&MODEL).await.unwrap();
    let changes: [(&str, TableSpec); 3] = [
        ("a column less", TableSpec { columns: EVERYTHING.columns.split_at(7).0, ..EVERYTHING }),
        ("another key", TableSpec { key: &["group", "order"], ..EVERYTHING }),
        ("another name", TableSpec { name: "elsewhere", ..EVERYTHING }),
    ];
    for (change, table) in changes {
        let table: &'static TableSpec = Box::leak(Box::new(table));
        let error = file.prepare(&Model { table, ..MODEL }).await.expect_err(change).to_string();
        assert!(error.contains("raise its `VERSION`"), "{change}: {error}");
        assert!(file.prepare(&Model { table, version: 2, ..MODEL }).await.is_ok(), "{change}, but as version 2");
        file.run("DELETE FROM annals_checkpoints WHERE version = 2").await;
        file.run(&format!("DROP TABLE \"{}_v2\"", table.name)).await;
    }
}

#[tokio::test]
async fn a_table_that_somebody_altered_or_dropped_is_refused() {
    let file = file().await;
    file.prepare(&MODEL).await.unwrap();
    file.run("ALTER TABLE \"select_v1\" ADD COLUMN \"extra\" TEXT").await;
    let error = file.prepare(&MODEL).await.unwrap_err().to_string();
    assert!(error.contains("extra TEXT null"), "{error}");
    file.run("DROP VIEW \"select\"").await;
    file.run("DROP TABLE \"select_v1\"").await;
    let error = file.prepare(&MODEL).await.unwrap_err().to_string();
    assert!(error.contains("no table"), "{error}");
}

#[tokio::test]
async fn names_that_belong_to_something_else_are_refused() {
    let file = file().await;
    file.run("CREATE TABLE \"select\" (x TEXT)").await;
    let error = file.prepare(&MODEL).await.unwrap_err().to_string();
    assert!(error.contains("`select`, which is a table that annals did not make"), "{error}");
    file.run("DROP TABLE \"select\"").await;
    file.run("CREATE VIEW \"select\" AS SELECT 1 AS x").await;
    let error = file.prepare(&MODEL).await.unwrap_err().to_string();
    assert!(error.contains("is a view that annals did not make"), "{error}");
    file.run("DROP VIEW \"select\"").await;
    file.run("CREATE TABLE \"select_v1\" (x TEXT)").await;
    let error = file.prepare(&MODEL).await.unwrap_err().to_string();
    assert!(error.contains("`select_v1`, which is a table without a checkpoint"), "{error}");
    file.run("DROP TABLE \"select_v1\"").await;
    file.prepare(&MODEL).await.unwrap();
    let error = file.prepare(&Model { projection: "thief", ..MODEL }).await.unwrap_err().to_string();
    assert!(error.contains("is the read model of projection `everything`"), "{error}");
}

#[tokio::test]
async fn a_raised_version_has_its_own_table_and_is_shown_when_told() {
    let file = file().await;
    file.prepare(&MODEL).await.unwrap();
    file.models.commit(&[&work(0, 1, vec![row("old", 1, 1.0)], vec![])], Timestamp::UNIX_EPOCH).await.unwrap();
    let second = Model { version: 2, ..MODEL };
    let prepared = file.prepare(&second).await.unwrap();
    assert_eq!((prepared.checkpoint.position, prepared.shown), (Position::START, false));
    let commit = Work { model: second, ..work(0, 1, vec![row("new", 1, 1.0)], vec![]) };
    file.models.commit(&[&commit], Timestamp::UNIX_EPOCH).await.unwrap();
    let shown = "SELECT \"order\" FROM \"select\" ORDER BY 1";
    assert_eq!(file.texts(shown).await, ["old"]);
    file.models.show(&second).await.unwrap();
    assert_eq!(file.texts(shown).await, ["new"]);
    assert!(file.prepare(&second).await.unwrap().shown);
    assert!(!file.prepare(&MODEL).await.unwrap().shown);
}

#[tokio::test]
async fn indexes_follow_the_declaration_and_a_users_own_stay() {
    const INDEXES: &str = "
        SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'select_v1' AND sql IS NOT NULL ORDER BY name
    ";
    let file = file().await;
    file.prepare(&MODEL).await.unwrap();
    let first = file.texts(INDEXES).await;
    assert_eq!(first.len(), 1);
    file.run("CREATE INDEX \"select_v1_by_hand\" ON \"select_v1\" (\"raw\")").await;
    let other: &'static TableSpec =
        Box::leak(Box::new(TableSpec { indexes: &[IndexSpec { columns: &["share"] }], ..EVERYTHING }));
    let restarted = SqliteReadModels::new(file.database.clone());
    restarted.prepare(&Model { table: other, ..MODEL }, life(), Timestamp::UNIX_EPOCH).await.unwrap();
    let second = file.texts(INDEXES).await;
    assert_eq!(second.len(), 2, "{second:?}");
    assert!(second.contains(&"select_v1_by_hand".to_owned()));
    assert!(!second.contains(&first[0]));
}

/// Each key is sought in the table's tree; a scan of the whole table per batch would make every batch slower than the last.
#[tokio::test]
async fn rows_are_sought_by_their_key() {
    const SINGLE: Model = Model {
        projection: "single",
        version: 1,
        table: &TableSpec { name: "single", key: &["order"], indexes: &[], ..EVERYTHING },
    };
    let file = file().await;
    for model in [MODEL, SINGLE] {
        file.prepare(&model).await.unwrap();
        let statements = file.models.statements(&model);
        let keys: Vec<_> = (0..8).map(|n| key("a", n)[..model.table.key.len()].to_vec()).collect();
        for sized in [&statements.load, &statements.remove] {
            let (sql, keys) = sized.padded(&keys).remove(0);
            let plan = format!("EXPLAIN QUERY PLAN {sql}");
            let mut reader = file.database.read().await.unwrap();
            let rows = super::bind_all(plan.into(), keys).fetch_all(&mut *reader).await.unwrap();
            let plan: Vec<String> = rows.iter().map(|row| row.get::<String, _>("detail")).collect();
            assert!(plan[0].starts_with(&format!("SEARCH {}", model.table_name())), "{plan:?}");
        }
    }
}

#[tokio::test]
async fn the_schema_of_a_read_model_is_as_agreed() {
    let file = file().await;
    file.prepare(&MODEL).await.unwrap();
    let schema = file.texts("SELECT sql FROM sqlite_schema WHERE name LIKE 'select%' ORDER BY type DESC, name").await;
    assert_eq!(
        schema,
        [
            "CREATE VIEW \"select\" AS SELECT \"order\", \"group\", \"share\", \"done\", \"at\", \"id\", \"raw\", \"doc\" \
             FROM \"select_v1\"",
            "CREATE TABLE \"select_v1\" (\"order\" TEXT NOT NULL, \"group\" INTEGER NOT NULL, \"share\" REAL, \
             \"done\" INTEGER, \"at\" INTEGER, \"id\" BLOB, \"raw\" BLOB, \"doc\" TEXT, \
             PRIMARY KEY (\"order\", \"group\")) STRICT, WITHOUT ROWID",
            "CREATE INDEX \"select_v1_by_b048b5fa\" ON \"select_v1\" (\"done\", \"at\")",
        ]
    );
    let shape = file.texts("SELECT shape FROM annals_checkpoints ORDER BY projection").await;
    assert_eq!(
        shape,
        [
            "select(order text, group integer, share real null, done bool null, at timestamp null, id uuid null, raw bytes null, \
          doc json null; key order, group)"
        ]
    );
}
