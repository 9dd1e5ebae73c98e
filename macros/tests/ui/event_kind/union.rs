use annals_macros::Event;

#[derive(Event, Clone, Copy)]
union OrderEvent {
    placed: u32,
    paid: f32,
}

fn main() {}
