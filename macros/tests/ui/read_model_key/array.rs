#![allow(dead_code, unused_imports)]

use annals_macros::ReadModel;

#[path = "../../it/mirror.rs"]
mod mirror;

#[derive(ReadModel, Clone)]
#[read_model(table = "order_list", key = ["order_id", "day"], crate = crate::mirror)]
struct OrderRow {
    order_id: i64,
    day: i64,
}

fn main() {}
