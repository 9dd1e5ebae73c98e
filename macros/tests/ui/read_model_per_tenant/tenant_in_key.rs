#![allow(dead_code, unused_imports)]

use annals_macros::ReadModel;

#[path = "../../it/mirror.rs"]
mod mirror;

#[derive(ReadModel, Clone)]
#[read_model(table = "order_list", key("tenant", "order_id"), index("tenant", "status"), per_tenant, crate = crate::mirror)]
struct OrderRow {
    order_id: i64,
    status: i64,
}

fn main() {}
