#![allow(dead_code, unused_imports)]

use annals_macros::ReadModel;

#[path = "../../it/mirror.rs"]
mod mirror;

#[derive(ReadModel, Clone)]
#[read_model(table = "order_list", key = "order_id", index = "state", crate = crate::mirror)]
struct OrderRow {
    order_id: i64,
    status: i64,
}

/// The use of a refused type causes no second message.
fn key(row: &OrderRow) -> i64 {
    mirror::ReadModel::key(row)
}

fn main() {}
