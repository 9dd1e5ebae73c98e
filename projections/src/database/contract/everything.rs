//! A table with a column of every type, and rows for it.

use annals_eventstore::{Checkpoint, EventId, Incarnation, Position};
use jiff::Timestamp;
use uuid::Uuid;

use super::Backend;
use crate::changes::Changes;
use crate::column::{ColumnType, ColumnValue};
use crate::database::{Model, ParkingChanges, Place, Prepared, UnitId, Work};
use crate::error::StartError;
use crate::read_model::{ColumnSpec, IndexSpec, TableSpec};
use crate::shape::Shape;

const fn column(name: &'static str, column_type: ColumnType, nullable: bool) -> ColumnSpec {
    ColumnSpec { name, column_type, nullable }
}

/// One column of every type, a key of two columns and words of SQL as names.
pub(crate) const EVERYTHING: TableSpec = TableSpec {
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
    per_tenant: false,
};

pub(crate) const MODEL: Model = Model { projection: "everything", version: 1, table: &EVERYTHING };

pub(crate) fn incarnation() -> Incarnation {
    Incarnation(Uuid::from_u128(1))
}

pub(crate) fn checkpoint(position: i64) -> Checkpoint {
    let event_id = EventId::new(Uuid::from_u128(position as u128)).unwrap();
    Checkpoint { incarnation: incarnation(), position: Position::new(position).unwrap(), event_id: Some(event_id) }
}

/// The same, or the beginning.
pub(crate) fn place(position: i64) -> Checkpoint {
    if position == 0 { Checkpoint::start(incarnation()) } else { checkpoint(position) }
}

/// The same of the first slot, which nobody has claimed yet.
pub(crate) fn unowned(position: i64) -> Place {
    Place { slot: 0, epoch: 0, checkpoint: place(position) }
}

/// The first slot of a model.
pub(crate) fn unit(model: &Model) -> UnitId {
    UnitId { projection: model.projection, version: model.version, slot: 0 }
}

pub(crate) fn row(order: &str, group: i64, share: f64) -> Vec<ColumnValue> {
    vec![
        ColumnValue::Text(order.into()),
        ColumnValue::Integer(group),
        ColumnValue::Real(share),
        ColumnValue::Bool(true),
        ColumnValue::Timestamp(Timestamp::from_microsecond(-1_234_567).unwrap()),
        ColumnValue::Uuid(Uuid::from_u128(9)),
        ColumnValue::Bytes([0_u8, 255].as_slice().into()),
        ColumnValue::Json("{\"a\": [1]}".into()),
    ]
}

pub(crate) fn key(order: &str, group: i64) -> Vec<ColumnValue> {
    vec![ColumnValue::Text(order.into()), ColumnValue::Integer(group)]
}

pub(crate) fn work(from: i64, to: i64, written: Vec<Vec<ColumnValue>>, removed: Vec<Vec<ColumnValue>>) -> Work {
    Work {
        model: MODEL,
        from: unowned(from),
        to: checkpoint(to),
        changes: Changes { written, removed, ..Changes::default() },
        parking: ParkingChanges::default(),
    }
}

/// The shape of a model that wants one kind of events.
pub(crate) fn shape_of(model: &Model) -> Shape {
    Shape::of(model.table, vec!["happened"], None)
}

/// Prepares a model in the log's first incarnation, by a handle of its own.
pub(crate) async fn prepare(backend: &dyn Backend, model: &Model) -> Result<Prepared, StartError> {
    let models = backend.handle();
    models.migrate().await.unwrap();
    models.prepare(model, &shape_of(model), incarnation(), Timestamp::UNIX_EPOCH).await
}
