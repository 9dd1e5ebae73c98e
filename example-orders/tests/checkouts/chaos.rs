//! Checkouts of both variants while services fail at random, are stopped and come back, and the process that runs the checkouts ends
//! and is started again. In the end each has ended, and the books agree with the orders.
//!
//! `ANNALS_SEED` chooses the faults, and is printed; `ANNALS_CHAOS_SECONDS` says for how long, 4 s without it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use annals::resilience::Deadline;
use annals::sagas::{By, Intervention, SagaId, Status};
use annals::{EventStore, SqliteStore};
use example_orders::checkout::{Checkouts, Flow, Standing};
use example_orders::domain::order::{OrderCommand, Status as OrderStatus};
use example_orders::services::{Faults, Kind, Server, Servers};
use fastrand::Rng;

use crate::{LEASE, begin, cart, order, quick, shop, start};

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("`{name}` is `{text}`, no number")))
}

/// What goes wrong for the next moment.
fn faults(random: &mut Rng) -> Faults {
    let share = |random: &mut Rng| if random.bool() { random.f64() * 0.3 } else { 0.0 };
    Faults {
        latency_ms: if random.bool() { random.u64(0..200) } else { 0 },
        errors: share(random),
        lost_answers: share(random) * 0.5,
        closed: random.u8(0..20) == 0,
        down: random.u8(0..8) == 0,
    }
}

/// Begins checkouts for `seconds`, while the services fail.
async fn load(
    checkouts: &Checkouts,
    servers: &Servers,
    random: &mut Rng,
    seconds: f64,
    ids: &mut BTreeMap<usize, SagaId>,
) {
    let (mut tick, until) =
        (tokio::time::interval(Duration::from_millis(50)), Instant::now() + Duration::from_secs_f64(seconds));
    while Instant::now() < until {
        tick.tick().await;
        let number = ids.len();
        let flow = if random.bool() { Flow::Orchestrated } else { Flow::Choreographed };
        // One in ten is more than the warehouse has.
        let quantity = if random.u8(0..10) == 0 { 11 } else { random.u32(1..5) };
        ids.insert(number, begin(checkouts, flow, cart(number, quantity)).await);
        if random.u8(0..10) == 0 {
            // It may be too late, or too early.
            let cancel = OrderCommand::Cancel { reason: "chaos".to_owned() };
            checkouts.orders.send(&order(random.usize(0..=number)), cancel).await.ok();
        }
        if random.u8(0..10) == 0 {
            let change = OrderCommand::Change { lines: cart(number, random.u32(1..5)).lines };
            checkouts.orders.send(&order(number), change).await.ok();
        }
        if random.u8(0..6) == 0 {
            let server = [&servers.payment, &servers.stock, &servers.shipping][random.usize(0..3)];
            server.faults.set(faults(random));
        }
    }
}

/// Lets all go well, and waits until each checkout has ended. Somebody retries those that are stuck.
async fn settle(checkouts: &Checkouts, servers: &Servers, ids: &BTreeMap<usize, SagaId>) {
    for server in [&servers.payment, &servers.stock, &servers.shipping] {
        server.faults.set(Faults::default());
    }
    let kim = By::new("kim", "all is well again").expect("both are given");
    let until = Instant::now() + SETTLED;
    for id in ids.values() {
        let mut standing = ended(checkouts, id, until).await;
        if standing.status == Status::Stuck {
            checkouts.decide(&shop(), id, Intervention::Retry, &kim).await.expect("it may");
            standing = ended(checkouts, id, until).await;
        }
        if standing.status == Status::Stuck {
            // Its customer cancelled it when the parcel was under way. All is taken back without it.
            let loaded = checkouts.orders.load(&standing.order).await.expect("it is read");
            assert_eq!(loaded.state.status, OrderStatus::Cancelled, "{id} is stuck for another reason");
            checkouts.decide(&shop(), id, Intervention::Complete, &kim).await.expect("it may");
            standing = ended(checkouts, id, until).await;
        }
        assert!(standing.status.is_final(), "{standing:?}; {:#?}", checkouts.reactors.reactors());
    }
}

/// How long checkouts may take to end when all goes well again: a reactor that has failed for long tries again after up to a minute, and
/// what it does may be answered by another one.
const SETTLED: Duration = Duration::from_secs(150);

/// Waits until a checkout has ended or is stuck. Its customer would be answered before that, when their time is over or while the breaker
/// of the payment service is open.
async fn ended(checkouts: &Checkouts, id: &SagaId, until: Instant) -> Standing {
    loop {
        let standing = checkouts.wait(&shop(), id, Deadline::within(Duration::from_secs(1))).await.expect("it stands");
        if standing.status.is_final() || standing.status == Status::Stuck || Instant::now() > until {
            return standing;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Whether the books agree with the orders; what differs, if they do not.
async fn differences(checkouts: &Checkouts, servers: &Servers, ids: &BTreeMap<usize, SagaId>) -> Vec<String> {
    let (mut differences, mut expected) = (Vec::new(), [0; 3]);
    let of = [&servers.payment, &servers.stock, &servers.shipping];
    for (number, id) in ids {
        let loaded = checkouts.orders.load(&order(*number)).await.expect("it is read");
        let cents = loaded.state.total.map_or(0, |total| total.minor);
        let should = match loaded.state.status {
            OrderStatus::Shipped => [cents, cents / 4_900, 1],
            _ => [0; 3],
        };
        let mut open = [0; 3];
        for ((open, expected), (server, should)) in open.iter_mut().zip(&mut expected).zip(of.iter().zip(should)) {
            *open = server.entry(&shop(), &order(*number)).await.expect("it is read").open();
            *expected += should;
        }
        let is_final = matches!(loaded.state.status, OrderStatus::Shipped | OrderStatus::Cancelled);
        if open != should || !is_final {
            differences.push(format!("{id}: the order is {}, and the books say {open:?}", loaded.state.status));
        }
    }
    for (server, expected) in of.iter().zip(expected) {
        let sums = server.sums(&shop()).await.expect("they are read");
        if sums.open() != expected {
            differences.push(format!("{sums:?} of {}, but the orders say {expected}", server.url));
        }
    }
    differences
}

/// Ends a service, so that nobody listens for a while, and starts it again.
async fn restart(server: Server, kind: Kind, folder: &std::path::Path) -> Server {
    let port = server.url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    server.stop().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    Server::start(kind, folder, port).await.expect("it starts again")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_fails_each_checkout_ends_and_the_books_agree_with_the_orders() {
    let seed = setting("ANNALS_SEED").unwrap_or_else(|| fastrand::u64(..));
    let seconds = setting("ANNALS_CHAOS_SECONDS").unwrap_or(4);
    println!("ANNALS_SEED={seed}");
    let mut random = Rng::with_seed(seed);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("orders.db");
    let (mut ids, third) = (BTreeMap::new(), seconds as f64 / 3.0);

    let store: SqliteStore = annals::sqlite(&file).await.expect("a store");
    let (mut servers, checkouts) = start::<4>(folder.path(), &store, quick()).await;
    load(&checkouts, &servers, &mut random, third, &mut ids).await;
    servers.stock = restart(servers.stock, Kind::Stock, folder.path()).await;
    load(&checkouts, &servers, &mut random, third, &mut ids).await;
    // The shop ends in the middle, and another process goes on.
    checkouts.close().await;
    store.close().await;
    let store: SqliteStore = annals::sqlite(&file).await.expect("a store");
    let clients = servers.clients(quick()).expect("the settings fit");
    let checkouts = Checkouts::start::<4>(&store, clients, LEASE).await.expect("they start");
    servers.payment = restart(servers.payment, Kind::Payment, folder.path()).await;
    load(&checkouts, &servers, &mut random, third, &mut ids).await;

    settle(&checkouts, &servers, &ids).await;
    // What a flow has led to may come after its end: a reactor that has failed for long waits for up to a minute before it tries again.
    let until = Instant::now() + Duration::from_secs(90);
    let mut left = differences(&checkouts, &servers, &ids).await;
    while !left.is_empty() && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(200)).await;
        left = differences(&checkouts, &servers, &ids).await;
    }
    let reactors = checkouts.reactors.reactors();
    assert!(left.is_empty(), "with ANNALS_SEED={seed}, of {} checkouts: {left:#?}; {reactors:#?}", ids.len());
    let mut ends = BTreeMap::new();
    for id in ids.values() {
        *ends.entry(checkouts.standing(&shop(), id).await.expect("it stands").answer).or_insert(0) += 1;
    }
    println!("{} checkouts: {ends:?}", ids.len());
    checkouts.close().await;
    store.close().await;
    servers.stop().await;
}
