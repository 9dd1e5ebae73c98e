//! Rows are found by the stable name, as the model's columns.

use jiff::Timestamp;

use super::{EVERYTHING, MODEL, SqlBackend, key, prepare, row, work};
use crate::column::{ColumnType, ColumnValue};
use crate::database::{Model, QueryFault, ReadModels, Switch};
use crate::read_model::{ColumnSpec, IndexSpec, TableSpec};
use crate::reads::{Query, Select};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

const fn column(name: &'static str, column_type: ColumnType) -> ColumnSpec {
    ColumnSpec { name, column_type, nullable: false }
}

/// A list such as an app has, per tenant.
pub(crate) const LISTED: Model = Model {
    projection: "listed",
    version: 1,
    table: &TableSpec {
        name: "listed",
        columns: &[
            column("tenant", ColumnType::Text),
            column("order_id", ColumnType::Text),
            column("status", ColumnType::Text),
            column("placed_at", ColumnType::Timestamp),
        ],
        key: &["tenant", "order_id"],
        indexes: &[IndexSpec { columns: &["tenant", "status", "placed_at"] }],
        per_tenant: true,
    },
};

/// What the text `status = $1 ORDER BY placed_at DESC LIMIT 20` becomes.
pub(crate) const LATEST: [&str; 3] = ["r.\"status\" = $1", "r.\"placed_at\" DESC, r.\"order_id\"", "LIMIT 20"];

fn select(condition: &str, order: &str, values: Vec<(ColumnType, ColumnValue)>) -> Select {
    let (condition, order) = (condition.to_owned(), order.to_owned());
    Select { condition, order, limit: "LIMIT 100".to_owned(), values, tenant: None }
}

async fn found(
    models: &dyn ReadModels,
    model: &Model,
    shown: u32,
    query: Query<'_>,
) -> Result<Option<Vec<Vec<ColumnValue>>>, QueryFault> {
    models.query(model, shown, &query).await
}

/// The key columns of rows.
fn keys(rows: &[Vec<ColumnValue>]) -> Vec<Vec<ColumnValue>> {
    rows.iter().map(|row| row[..2].to_vec()).collect()
}

pub(super) async fn rows_are_found_by_key_and_by_condition_as_they_were_written(backend: &dyn SqlBackend) {
    let models = backend.handle();
    prepare(backend, &MODEL).await.unwrap();
    let nothing = found(&*models, &MODEL, 1, Query::Keys(&[key("a", 1)])).await.unwrap();
    assert_eq!(nothing, Some(vec![]), "an empty table is shown too");
    let mut nulls = key("null", i64::MIN);
    nulls.resize(8, ColumnValue::Null);
    let mut rows = vec![nulls];
    rows.extend((0..700).map(|n| row(if n % 2 == 0 { "even" } else { "odd" }, n, n as f64 / 4.0)));
    models.commit(&[&work(0, 1, rows.clone(), vec![])], NOW).await.unwrap();

    for wanted in [1, 2, 3, 256, 257, 699] {
        let mut wanted = keys(&rows[..wanted]);
        wanted.push(key("nobody", 7));
        let mut found = found(&*models, &MODEL, 1, Query::Keys(&wanted)).await.unwrap().unwrap();
        found.sort_by_key(
            |row| if row[1] == ColumnValue::Integer(i64::MIN) { "".into() } else { format!("{:>9}", row[1]) },
        );
        assert_eq!(found, rows[..wanted.len() - 1]);
    }
    // One value of each type, each of which leaves all rows but that of nulls.
    let values: Vec<_> =
        EVERYTHING.columns.iter().zip(&rows[1]).map(|(column, value)| (column.column_type, value.clone())).collect();
    for at in (3..=6).chain([1]) {
        let value = if at == 1 { (ColumnType::Integer, ColumnValue::Integer(0)) } else { values[at].clone() };
        let condition = format!("r.\"{}\" {} $1", EVERYTHING.columns[at].name, if at == 1 { ">=" } else { "=" });
        let found = found(&*models, &MODEL, 1, Query::Select(&select(&condition, "r.\"group\"", vec![value]))).await;
        assert_eq!(found.unwrap().unwrap(), rows[1..101], "{condition}");
    }
    let share = vec![(ColumnType::Real, ColumnValue::Real(1.0)), (ColumnType::Text, ColumnValue::Text("odd".into()))];
    let text = select("r.\"share\" < $1 AND r.\"order\" = $2 OR $2 IS NULL", "r.\"group\" DESC", share);
    let odd = found(&*models, &MODEL, 1, Query::Select(&text)).await.unwrap().unwrap();
    assert_eq!(keys(&odd), [key("odd", 3), key("odd", 1)]);
    // A null has the type of its column.
    for (column, (column_type, _)) in EVERYTHING.columns.iter().zip(&values).take(7) {
        let condition = format!("r.\"{}\" = $1", column.name);
        let text = select(&condition, "r.\"group\"", vec![(*column_type, ColumnValue::Null)]);
        assert_eq!(found(&*models, &MODEL, 1, Query::Select(&text)).await.unwrap(), Some(vec![]), "{condition}");
    }
    // The order is that of columns, also of one that is read in another form.
    let text =
        Select { limit: "LIMIT 2 OFFSET 1".to_owned(), ..select("", "r.\"doc\" NULLS LAST, r.\"group\"", vec![]) };
    let second = found(&*models, &MODEL, 1, Query::Select(&text)).await.unwrap().unwrap();
    assert_eq!(second, rows[2..4]);
    let wrong = found(&*models, &MODEL, 1, Query::Select(&select("r.\"nothing\"", "r.\"group\"", vec![]))).await;
    assert!(matches!(wrong, Err(QueryFault::Database(_))), "{wrong:?}");
}

/// The second version holds something else under the same name, as after a way back and another forth.
pub(super) async fn nothing_is_read_of_a_version_that_was_not_expected(backend: &dyn SqlBackend) {
    const OTHERWISE: Model = Model {
        version: 2,
        table: &TableSpec {
            columns: &{
                let mut columns = [EVERYTHING.columns[0]; 8];
                let mut at = 0;
                while at < 8 {
                    columns[at] = ColumnSpec { column_type: ColumnType::Text, ..EVERYTHING.columns[at] };
                    at += 1;
                }
                columns
            },
            ..EVERYTHING
        },
        ..MODEL
    };
    let models = backend.handle();
    prepare(backend, &MODEL).await.unwrap();
    models.commit(&[&work(0, 1, vec![row("a", 1, 1.0)], vec![])], NOW).await.unwrap();
    backend.run("DROP VIEW \"select\"").await;
    // Made as if by hand: what is declared here would be refused.
    let shown = Switch { even_down: true, foreign: None };
    let texts = crate::changes::Changes {
        written: vec![(0..8).map(|_| ColumnValue::Text("".into())).collect()],
        ..Default::default()
    };
    let table = backend.checkpoints();
    let second = async { models.prepare(&OTHERWISE, &super::shape_of(&OTHERWISE), super::incarnation(), NOW).await };
    // Without the row of its name nothing is known about the version that was shown.
    backend.run(&format!("DELETE FROM {}", table.replace("checkpoints", "read_models"))).await;
    second.await.unwrap();
    let work = crate::database::Work { model: OTHERWISE, changes: texts, ..work(0, 1, vec![], vec![]) };
    models.commit(&[&work], NOW).await.unwrap();
    models.show(&OTHERWISE, shown).await.unwrap();
    let all = select("", "r.\"order\"", vec![]);
    for query in [Query::Select(&all), Query::Keys(&[key("", 1)])] {
        let first = found(&*models, &MODEL, 1, query).await;
        assert!(matches!(first, Ok(None)) || matches!(query, Query::Keys(_)) && first.is_err(), "{first:?}");
    }
    assert_eq!(found(&*models, &OTHERWISE, 2, Query::Select(&all)).await.unwrap().unwrap().len(), 1);
    let none = select("1 = 0", "r.\"order\"", vec![]);
    assert_eq!(found(&*models, &OTHERWISE, 1, Query::Select(&none)).await.unwrap(), None, "also where no row fits");
    assert_eq!(models.name(&OTHERWISE).await.unwrap().unwrap().version, 2);
}
