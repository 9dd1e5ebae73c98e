#![allow(dead_code, unused_imports)]

use annals_macros::ReadModel;

#[path = "../../it/mirror.rs"]
mod mirror;

#[derive(ReadModel, Clone)]
#[read_model(table = "t", key("a", "b", "c", "d", "e", "f", "g"), crate = crate::mirror)]
struct OrderRow {
    a: i64,
    b: i64,
    c: i64,
    d: i64,
    e: i64,
    f: i64,
    g: i64,
}

fn main() {}
