use annals_macros::Event;

#[derive(Event)]
enum ShopEvent {
    #[event(transparent)]
    Stock(String),
}

fn main() {}
