#![allow(dead_code, unused_imports)]

use annals_macros::ReadModel;

#[path = "../../it/mirror.rs"]
mod mirror;

#[derive(ReadModel, Clone)]
#[read_model(table = "order_list", key = "order_id", crate = crate::mirror)]
struct OrderRow<T> {
    order_id: T,
}

/// The use of a refused type causes no second message.
fn known<R: mirror::ReadModel>() {}

fn uses() {
    known::<OrderRow<u32>>();
}

fn main() {}
