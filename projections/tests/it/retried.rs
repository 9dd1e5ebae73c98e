//! A process that retries ten thousand parked events is killed in the middle of it.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use annals_eventstore::{EventStore, PostgresOptions, Recorded, SqliteStore, StreamId, Tenant};
use annals_macros::ReadModel;
use annals_projections::{
    ProjectionError, Projections, ProjectionsBuilder, ProjectionsExt, Retried, StreamProjection, StreamRow,
};
use annals_scratch::again::{again, is_again};

use super::backends::{Backend, Shop, block_on};
use super::shop::OrderEvent;

const PARKED: usize = 10_000;
const SOON: Duration = Duration::from_secs(60);

/// What a process that retries may have in memory at most, with all of the test's program.
const MOST_MEMORY_KB: u64 = 256 << 10;

#[derive(ReadModel, Clone)]
#[read_model(table = "payments", key = "order_id")]
struct Payments {
    order_id: String,
    events: i64,
    /// Tells apart other orders of the same events.
    digest: i64,
}

/// Counts the events of an order; the first one cannot be applied by a build without a fix.
struct Counted {
    fixed: bool,
}

impl StreamProjection for Counted {
    type Event = OrderEvent;
    type Row = Payments;
    const AGGREGATES: &'static [&'static str] = &["order"];

    fn apply(&self, event: &Recorded<OrderEvent>, row: &mut StreamRow<'_, Payments>) -> Result<(), ProjectionError> {
        if !self.fixed && event.version.get() == 1 {
            return Err(ProjectionError::new("nobody has thought of it"));
        }
        let order_id = row.key().clone();
        let row = row.get_or_insert_with(|| Payments { order_id, events: 0, digest: 0 });
        row.events += 1;
        row.digest = digest(row.digest, event.version.get());
        Ok(())
    }
}

fn digest(before: i64, version: i64) -> i64 {
    (before * 31 + version) % 1_000_003
}

async fn start(projections: ProjectionsBuilder, fixed: bool) -> Projections {
    let counted = Counted { fixed }.dead_letter();
    projections.with(counted).lease(Duration::from_millis(300)).start().await.unwrap()
}

fn parked_stream() -> StreamId {
    StreamId::new(Tenant::default(), "order", "o-1").unwrap()
}

/// How many streams are parked; such a one has all of its events.
async fn parked(views: &Projections) -> usize {
    let letters = views.dead_letters::<Counted>().await.unwrap();
    let whole = |version, waiting| version == 1 && waiting == PARKED as u64 - 1;
    assert!(letters.iter().all(|letter| whole(letter.event.version.get(), letter.waiting)), "{letters:?}");
    letters.len()
}

/// What the process does that is killed, or comes to the end and says what it had in memory.
async fn retry(projections: ProjectionsBuilder) {
    let views = start(projections, true).await;
    println!("retries");
    let retried = views.retry::<Counted>(&parked_stream()).await.unwrap();
    assert_eq!(retried, Retried::Reopened { events: PARKED as u64 });
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    println!("peak {}", peak.trim().trim_end_matches(" kB"));
    views.close().await;
}

/// Starts a process that retries, and waits until it does.
fn begin(name: &str, backend: &Backend) -> (std::process::Child, BufReader<std::process::ChildStdout>) {
    let mut command = again(&[], module_path!(), name);
    let mut child = command.env("SHOP", backend.place_of_events()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("retries") {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0, "it has ended");
    }
    (child, lines)
}

fn killed_while_it_retries(name: &str, backend: &Backend) {
    let order = vec![OrderEvent::Paid; 1_000];
    block_on(async {
        let shop: Shop = backend.open().await;
        for _ in 0..PARKED / order.len() {
            shop.append("o-1", &order).await;
        }
        let views = start(shop.projections(), false).await;
        views.caught_up(SOON).await.unwrap();
        assert_eq!(parked(&views).await, 1);
        views.close().await;
        shop.close().await;
    });
    for millis in [3, 15, 40] {
        let (mut child, _) = begin(name, backend);
        std::thread::park_timeout(Duration::from_millis(millis));
        child.kill().unwrap();
        child.wait().unwrap();
        let left = block_on(async {
            let shop = backend.open().await;
            let views = start(shop.projections(), true).await;
            let left = parked(&views).await;
            if left == 1 {
                assert!(views.find::<Counted>(&"o-1".to_owned()).await.unwrap().is_none(), "half of it is applied");
            }
            views.close().await;
            shop.close().await;
            left
        });
        if left == 0 {
            break;
        }
    }
    block_on(async {
        let shop = backend.open().await;
        let views = start(shop.projections(), true).await;
        let left = parked(&views).await;
        views.close().await;
        if left == 1 {
            let (mut child, lines) = begin(name, backend);
            let said: Vec<String> = lines.lines().map(|line| line.unwrap()).collect();
            assert!(child.wait().unwrap().success(), "{said:?}");
            let peak: u64 = said.iter().find_map(|line| line.strip_prefix("peak ")).unwrap().parse().unwrap();
            assert!(peak < MOST_MEMORY_KB, "{peak} kB");
        }
        let views = start(shop.projections(), true).await;
        assert_eq!(parked(&views).await, 0);
        shop.append("o-1", &order[..1]).await;
        views.caught_up(SOON).await.unwrap();
        let row = views.find::<Counted>(&"o-1".to_owned()).await.unwrap().unwrap();
        let all = 1..=PARKED as i64 + 1;
        assert_eq!((row.events, row.digest), (PARKED as i64 + 1, all.fold(0, digest)));
        views.close().await;
        shop.close().await;
    });
}

#[test]
fn a_retry_whose_process_is_killed_is_whole_or_not_begun_on_sqlite() {
    if is_again() {
        return block_on(async {
            let store = SqliteStore::open(std::env::var_os("SHOP").unwrap()).await.unwrap();
            retry(store.projections()).await;
            store.close().await;
        });
    }
    let backend = Backend::in_one_file();
    killed_while_it_retries("a_retry_whose_process_is_killed_is_whole_or_not_begun_on_sqlite", &backend);
}

#[test]
fn a_retry_whose_process_is_killed_is_whole_or_not_begun_on_postgres() {
    if is_again() {
        return block_on(async {
            let store = PostgresOptions::new(std::env::var("SHOP").unwrap()).open().await.unwrap();
            retry(store.projections()).await;
            store.close().await;
        });
    }
    let backend = block_on(Backend::in_one_postgres());
    killed_while_it_retries("a_retry_whose_process_is_killed_is_whole_or_not_begun_on_postgres", &backend);
}
