//! Processes follow flows, and one of them is killed again and again; every flow has one end, and nothing is recorded twice.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use annals_eventstore::{EventStore, PostgresOptions, Tenant, TransactionalStore};
use annals_projections::ReadModelDatabase;
use annals_sagas::{SagaEvent, SagasExt, timeline};
use annals_scratch::again::{again, is_again};

use super::flows::ShopEvent::{self, Cancelled, Created, NotReserved, Paid, Refunded, Reserved, Shipped};
use super::flows::{Checkout, emit, handled};
use super::stores::block_on;
use super::world::id;

/// How many flows there are.
const FLOWS: usize = 15;
/// How often a process is killed.
const KILLS: usize = 4;
/// How long a process may be silent.
const LEASE: Duration = Duration::from_millis(300);
const SOON: Duration = Duration::from_secs(60);

/// What comes behind the beginning of a flow, in any order; every third one fails.
fn rest(flow: usize) -> Vec<ShopEvent> {
    if flow.is_multiple_of(3) {
        vec![Paid, NotReserved, Cancelled, Refunded, Refunded]
    } else {
        vec![Paid, Reserved, Shipped, Shipped, Paid]
    }
}

fn name(flow: usize) -> String {
    format!("f-{flow}")
}

/// Follows flows until it is killed.
async fn follow<S: TransactionalStore<Database: ReadModelDatabase>>(store: S) {
    let sagas = store.sagas().track(Checkout).expect("it is sound").lease(LEASE).start().await.expect("it starts");
    std::future::pending::<()>().await;
    sagas.close().await;
}

async fn recorded(store: &(impl EventStore + Clone), flow: usize) -> Vec<SagaEvent> {
    let events = timeline(store, &Tenant::default(), &id(name(flow))).await.expect("it is read");
    events.into_iter().map(|event| event.event).collect()
}

/// Emits the events of all flows while processes follow them, kills one of these again and again, and looks at the ends.
async fn kill_and_look<S>(store: S, test: &str, arguments: &[(&str, &str)])
where
    S: TransactionalStore<Database: ReadModelDatabase>,
{
    let seed =
        std::env::var("ANNALS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("ANNALS_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    // Flows are those that begin after they were followed for the first time.
    let sagas = store.sagas().track(Checkout).expect("it is sound").start().await.expect("it starts");
    sagas.close().await;
    let start = || {
        let mut command = again(&[], module_path!(), test);
        command.envs(arguments.iter().copied()).spawn().expect("it is a program")
    };
    let mut children = [start(), start()];
    let mut events: Vec<_> =
        (0..FLOWS).flat_map(|flow| rest(flow).into_iter().map(move |event| (flow, event))).collect();
    random.shuffle(&mut events);
    for flow in 0..FLOWS {
        emit(&store, &name(flow), Created).await;
    }
    let parts = events.len().div_ceil(KILLS);
    for (kill, part) in events.chunks(parts).enumerate() {
        for (flow, event) in part {
            emit(&store, &name(*flow), *event).await;
        }
        // The moment does not matter, so it is a random one.
        tokio::time::sleep(Duration::from_millis(random.u64(20..250))).await;
        let child = &mut children[kill % 2];
        child.kill().expect("it is our child");
        child.wait().expect("it is our child");
        *child = start();
    }
    let mut ends = BTreeMap::new();
    let all_end = async {
        for flow in 0..FLOWS {
            let end = if flow.is_multiple_of(3) { SagaEvent::Compensated } else { SagaEvent::Completed };
            loop {
                let recorded = recorded(&store, flow).await;
                if recorded.last() == Some(&end) {
                    ends.insert(flow, recorded);
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    let ended = tokio::time::timeout(SOON, all_end).await;
    for mut child in children {
        child.kill().expect("it is our child");
        child.wait().expect("it is our child");
    }
    assert!(ended.is_ok(), "{} of {FLOWS} flows have ended as they should", ends.len());
    for (flow, recorded) in &ends {
        let mut signals: Vec<_> = recorded.iter().filter_map(signal).collect();
        let all = signals.len();
        signals.sort_unstable();
        signals.dedup();
        assert_eq!(all, signals.len(), "flow {flow}: {recorded:?}");
    }
    // What comes behind the end, and what was not handled yet, changes nothing.
    for flow in 0..FLOWS {
        emit(&store, &name(flow), Paid).await;
    }
    let sagas = store.sagas().track(Checkout).expect("it is sound").start().await.expect("it starts");
    handled(&store, &sagas).await;
    for (flow, before) in ends {
        assert_eq!(recorded(&store, flow).await, before, "flow {flow}");
    }
    sagas.close().await;
    store.close().await;
}

fn signal(event: &SagaEvent) -> Option<&str> {
    match event {
        SagaEvent::SignalReceived { step, .. } => Some(step),
        _ => None,
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary folder has a plain name")
}

#[test]
fn flows_on_sqlite_have_one_end_however_often_the_process_that_follows_them_is_killed() {
    if is_again() {
        let path = std::env::var_os("FLOWS_FILE").expect("the parent sets it");
        return block_on(async { follow(annals_eventstore::sqlite(path).await.expect("it opens")).await });
    }
    let folder = tempfile::tempdir().expect("there is room");
    let path = folder.path().join("flows.db");
    block_on(async {
        let store = annals_eventstore::sqlite(&path).await.expect("it opens");
        let test = "flows_on_sqlite_have_one_end_however_often_the_process_that_follows_them_is_killed";
        kill_and_look(store, test, &[("FLOWS_FILE", text(&path))]).await;
    });
}

#[test]
fn flows_on_postgres_have_one_end_however_often_the_process_that_follows_them_is_killed() {
    if is_again() {
        let url = std::env::var("FLOWS_URL").expect("the parent sets it");
        return block_on(async { follow(PostgresOptions::new(url).migrate().open().await.expect("it opens")).await });
    }
    block_on(async {
        let database = annals_scratch::Database::empty().await;
        let store = PostgresOptions::new(database.url()).migrate().open().await.expect("it opens");
        let test = "flows_on_postgres_have_one_end_however_often_the_process_that_follows_them_is_killed";
        kill_and_look(store, test, &[("FLOWS_URL", database.url())]).await;
    });
}
