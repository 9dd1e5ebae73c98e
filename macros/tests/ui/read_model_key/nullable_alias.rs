#![allow(dead_code, unused_imports)]

use annals_macros::ReadModel;

#[path = "../../it/mirror.rs"]
mod mirror;

type MaybeId = Option<i64>;

#[derive(ReadModel, Clone)]
#[read_model(table = "order_list", key = "order_id", crate = crate::mirror)]
struct OrderRow {
    order_id: MaybeId,
}

fn main() {}
