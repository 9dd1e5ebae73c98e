//! Read models in a SQLite file: the schema, and the plans. What every database must do is in `database/contract`.

use std::time::Duration;

use annals_eventstore::{BackendError, DatabaseError, Holder, Tenant};
use sqlx::Row;

use super::SqliteReadModels;
use super::statements::Statements;
use crate::column::{ColumnType, ColumnValue};
use crate::database::Model;
use crate::database::contract::{EVERYTHING, InFile, LATEST, LISTED, MODEL, SqlBackend, key, prepare};
use crate::read_model::TableSpec;
use crate::reads::Select;

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
        let beginnings: Vec<_> = keys.iter().map(|key| key[..1].to_vec()).collect();
        let by_prefix = statements.remove_by_prefix.iter().map(|sized| (sized, &beginnings, false));
        for (sized, keys, compares) in
            [(&statements.load, &keys, true), (&statements.remove, &keys, false)].into_iter().chain(by_prefix)
        {
            let (sql, keys) = sized.padded(keys).remove(0);
            let mut plan = super::query(format!("EXPLAIN QUERY PLAN {sql}").into());
            if compares {
                plan = super::bind_place(plan, &model, &crate::database::contract::unowned(0));
            }
            let mut reader = file.database.read().await.unwrap();
            let rows = super::bind_all(plan, keys).fetch_all(&mut *reader).await.unwrap();
            let plan: Vec<String> = rows.iter().map(|row| row.get::<String, _>("detail")).collect();
            let table = model.table_name();
            assert!(plan.iter().any(|line| line.starts_with(&format!("SEARCH {table}"))), "{plan:?}");
            assert!(!plan.iter().any(|line| line.starts_with(&format!("SCAN {table}"))), "{plan:?}");
        }
    }
}

/// The plan of every read, so that a lost index shows in review. No user's text scans the rows of other tenants.
#[tokio::test]
async fn the_plans_of_queries_by_the_name_are_as_agreed() {
    let file = InFile::new().await;
    prepare(&file, &LISTED).await.unwrap();
    let statements = SqliteReadModels::new(file.database.clone()).statements(&LISTED);
    let [condition, order, limit] = LATEST.map(str::to_owned);
    let value = (ColumnType::Text, ColumnValue::Text("paid".into()));
    let tenant = Some(Tenant::default());
    let latest = Select { condition, order, limit, values: vec![value], tenant };
    let all = Select { condition: String::new(), order: "r.\"order_id\"".to_owned(), values: vec![], ..latest.clone() };
    let keys: Vec<_> = (0..3).map(|n| key("default", n)).collect();
    let mut plans = String::new();
    for (what, sql) in [
        ("find", statements.find.padded(&keys[..1]).remove(0).0),
        ("find_many", statements.find.padded(&keys).remove(0).0),
        ("select of a tenant", Statements::select(&LISTED, &all)),
        ("select by an index", Statements::select(&LISTED, &latest)),
    ] {
        let mut reader = file.database.read().await.unwrap();
        let rows =
            super::values::query(format!("EXPLAIN QUERY PLAN {sql}").into()).fetch_all(&mut *reader).await.unwrap();
        plans.push_str(&format!("{what}: {sql}\n"));
        rows.iter().for_each(|row| plans.push_str(&format!("    {}\n", row.get::<&str, _>("detail"))));
    }
    insta::assert_snapshot!(plans);
}

/// After a commit whose outcome is unknown the projection tries again, because the next try compares the checkpoint.
#[test]
fn faults_that_may_pass_are_distinguished_from_those_that_will_not() {
    let source = || BackendError::new("the disk is missing");
    for (error, transient) in [
        (DatabaseError::Busy { waited: Duration::ZERO, holder: Holder::OtherHandle }, true),
        (DatabaseError::StorageFull { source: source() }, true),
        (DatabaseError::OutcomeUnknown { source: source() }, true),
        (DatabaseError::Unavailable { source: source() }, true),
        (DatabaseError::Refused { source: source() }, false),
        (DatabaseError::Damaged { source: source() }, false),
        (DatabaseError::Closed, false),
    ] {
        let said = error.to_string();
        assert_eq!(super::fault(error).transient, transient, "{said}");
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
