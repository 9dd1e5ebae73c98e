//! Read models in a SQLite file: the schema, and the plans. What every database must do is in `database/contract`.

use sqlx::Row;

use super::SqliteReadModels;
use crate::database::Model;
use crate::database::contract::{EVERYTHING, InFile, MODEL, SqlHome, key, prepare};
use crate::read_model::TableSpec;

/// Each key is sought in the table's tree; a scan of the whole table per batch would make every batch slower than the last.
#[tokio::test]
async fn rows_are_sought_by_their_key() {
    const SINGLE: Model = Model {
        projection: "single",
        version: 1,
        table: &TableSpec { name: "single", key: &["order"], indexes: &[], ..EVERYTHING },
    };
    let file = InFile::new().await;
    for model in [MODEL, SINGLE] {
        prepare(&file, &model).await.unwrap();
        let statements = SqliteReadModels::new(file.database.clone()).statements(&model);
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
    let file = InFile::new().await;
    prepare(&file, &MODEL).await.unwrap();
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
