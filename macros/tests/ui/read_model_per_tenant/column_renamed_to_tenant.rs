#![allow(dead_code, unused_imports)]

use annals_macros::ReadModel;

#[path = "../../it/mirror.rs"]
mod mirror;

#[derive(ReadModel, Clone)]
#[read_model(table = "order_list", key = "order_id", per_tenant, crate = crate::mirror)]
struct OrderRow {
    order_id: i64,
    #[column(name = "tenant")]
    whose: i64,
}

fn main() {}
