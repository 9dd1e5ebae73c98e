use annals_macros::ReadModel;

#[derive(ReadModel, Clone)]
#[read_model(table = "order_list", key = "order_id")]
struct OrderRow {
    order_id: i64,
}

fn main() {}
