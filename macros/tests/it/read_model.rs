use annals_macros::ReadModel;
use serde::{Deserialize, Serialize};

use crate::mirror::{ColumnError, ColumnSpec, ColumnType, ColumnValue, IndexSpec, ReadModel as _, TableSpec};

#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
enum Status {
    Open,
    Shipped,
}

#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "order_list", key = "order_id", index = "status", index("placed", "status"), crate = crate::mirror)]
struct OrderRow {
    order_id: i64,
    #[column(text)]
    status: Status,
    #[column(text)]
    before: Option<Status>,
    #[column(name = "placed")]
    placed_at: Option<i64>,
    #[column(json)]
    lines: Vec<u8>,
    r#type: i64,
}

#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "daily_sales", key("tenant", "day"), crate = crate::mirror)]
struct SalesRow {
    day: i64,
    tenant: i64,
}

fn row() -> OrderRow {
    OrderRow {
        order_id: 7,
        status: Status::Shipped,
        before: Some(Status::Open),
        placed_at: None,
        lines: vec![1, 2],
        r#type: 3,
    }
}

#[test]
fn the_table_has_a_column_for_each_field_and_the_indexes() {
    let column = |name, column_type, nullable| ColumnSpec { name, column_type, nullable };
    let columns = [
        column("order_id", ColumnType::Integer, false),
        column("status", ColumnType::Text, false),
        column("before", ColumnType::Text, true),
        column("placed", ColumnType::Integer, true),
        column("lines", ColumnType::Json, false),
        column("type", ColumnType::Integer, false),
    ];
    assert_eq!(OrderRow::TABLE.name, "order_list");
    assert_eq!(OrderRow::TABLE.columns, columns);
    assert_eq!(OrderRow::TABLE.key, ["order_id"]);
    assert_eq!(
        OrderRow::TABLE.indexes,
        [IndexSpec { columns: &["status"] }, IndexSpec { columns: &["placed", "status"] }]
    );
    let TableSpec { key, indexes, .. } = SalesRow::TABLE;
    assert_eq!((*key, *indexes), (&["tenant", "day"][..], &[][..]));
}

#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "shelves", key = "shelf", index = "full", per_tenant, crate = crate::mirror)]
struct ShelfRow {
    shelf: i64,
    full: i64,
}

#[test]
fn a_table_per_tenant_has_the_tenant_first_and_the_row_does_not_have_it() {
    let column = |name, column_type| ColumnSpec { name, column_type, nullable: false };
    let TableSpec { columns, key, indexes, per_tenant, .. } = ShelfRow::TABLE;
    assert_eq!(
        *columns,
        [column("tenant", ColumnType::Text), column("shelf", ColumnType::Integer), column("full", ColumnType::Integer)]
    );
    assert_eq!((*key, *indexes), (&["tenant", "shelf"][..], &[IndexSpec { columns: &["tenant", "full"] }][..]));
    assert!(*per_tenant && !OrderRow::TABLE.per_tenant);
    let row = ShelfRow { shelf: 1, full: 2 };
    assert_eq!((row.key(), row.to_columns()), (1, vec![ColumnValue::Integer(1), ColumnValue::Integer(2)]));
}

#[test]
fn a_key_of_one_column_is_its_type_and_of_several_a_tuple_in_the_order_of_the_key() {
    let key: i64 = row().key();
    assert_eq!(key, 7);
    let key: (i64, i64) = SalesRow { day: 1, tenant: 2 }.key();
    assert_eq!(key, (2, 1));
}

#[test]
fn rows_come_back_equal() {
    let check = |row: OrderRow| {
        let back = OrderRow::from_columns(&mut row.to_columns().into_iter());
        assert_eq!(back, Ok(row));
    };
    check(row());
    check(OrderRow { before: None, placed_at: Some(1), ..row() });
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
struct Half {
    kept: u8,
    #[serde(skip)]
    lost: u8,
}

#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "halves", key = "id", crate = crate::mirror)]
struct HalfRow {
    id: i64,
    #[column(json)]
    half: Half,
    #[column(text)]
    status: Status,
}

#[test]
fn a_row_is_normalized_field_by_field() {
    let mut row = HalfRow { id: 1, half: Half { kept: 2, lost: 3 }, status: Status::Open };
    row.normalize().unwrap();
    assert_eq!(row, HalfRow { id: 1, half: Half { kept: 2, lost: 0 }, status: Status::Open });
}

#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "twice", key = "id", crate = crate::mirror)]
struct TwiceRow {
    id: i64,
    #[column(json)]
    twice: Option<Option<u8>>,
}

#[test]
fn what_serde_writes_as_null_beside_none_comes_back_as_it_was() {
    for (twice, column) in [(None, ColumnValue::Null), (Some(None), ColumnValue::Json("null".to_owned()))] {
        let mut row = TwiceRow { id: 1, twice };
        assert_eq!(row.to_columns()[1], column);
        row.normalize().unwrap();
        assert_eq!(row, TwiceRow { id: 1, twice });
        assert_eq!(TwiceRow::from_columns(&mut row.to_columns().into_iter()), Ok(row));
    }
}

#[test]
fn values_are_in_the_order_of_the_columns() {
    assert_eq!(
        row().to_columns(),
        [
            ColumnValue::Integer(7),
            ColumnValue::Text("Shipped".to_owned()),
            ColumnValue::Text("Open".to_owned()),
            ColumnValue::Null,
            ColumnValue::Json("[1,2]".to_owned()),
            ColumnValue::Integer(3),
        ]
    );
}

#[test]
fn a_value_that_does_not_fit_is_an_error_that_names_its_column() {
    let mut columns = row().to_columns();
    columns[3] = ColumnValue::Text("yesterday".to_owned());
    let Err(ColumnError(message)) = OrderRow::from_columns(&mut columns.clone().into_iter()) else { panic!() };
    assert_eq!(message, "placed: Text(\"yesterday\")");
    columns.truncate(2);
    let Err(ColumnError(message)) = OrderRow::from_columns(&mut columns.into_iter()) else { panic!() };
    assert_eq!(message, "before: missing");
}

/// The names in derived code do not conflict with those of the macro that wrote the type.
#[test]
fn rows_may_come_from_a_macro() {
    macro_rules! declare {
        ($rust:ident, $table:literal, $field:ident: $type:ty) => {
            #[derive(ReadModel, Clone, Debug, PartialEq)]
            #[read_model(table = $table, key = "id", crate = crate::mirror)]
            struct $rust {
                id: i64,
                $field: $type,
            }
        };
    }
    declare!(BellRow, "bells", rung: Option<i64>);
    let row = BellRow { id: 1, rung: None };
    assert_eq!(BellRow::TABLE.columns[1].name, "rung");
    assert_eq!(BellRow::from_columns(&mut row.to_columns().into_iter()), Ok(row));
}
