//! Many writers that keep allocated positions open, roll back, and use savepoints, beside groups of two handles; readers of
//! both that must miss nothing, and a naive one that must miss something, or this test would prove nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use annals_eventstore::{EventStore, ExpectedVersion, Filter, Position, PostgresOptions, PostgresStore};
use futures::future::join_all;
use sqlx::{PgConnection, Row};

use super::{Fixture, event_for, insert, run, stream};

const WRITERS: usize = 6;
const ROUNDS: usize = 40;
const GROUPS: usize = 10;
const OF_A_GROUP: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_writers_with_holds_hide_no_event_from_a_reader_but_many_from_a_naive_one() {
    let seed =
        std::env::var("ANNALS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("ANNALS_SEED={seed}");
    let fixture = Fixture::new().await;
    let other = PostgresOptions::new(fixture.database.url()).open().await.unwrap();
    let handles = [fixture.store.clone(), other];
    let running = Arc::new(AtomicUsize::new(WRITERS + handles.len()));
    let mut readers = Vec::new();
    for handle in &handles {
        for filter in [Filter::all(), Filter::all().event_name("placed").unwrap()] {
            readers.push(tokio::spawn(read(handle.clone(), running.clone(), filter)));
        }
    }
    let naive = tokio::spawn(read_naively(fixture.foreign().await, running.clone()));
    let mut writers = Vec::new();
    for (n, handle) in handles.into_iter().enumerate() {
        let running = running.clone();
        writers.push(tokio::spawn(async move {
            append_groups(&handle, n).await;
            running.fetch_sub(1, Ordering::AcqRel);
        }));
    }
    for writer in 0..WRITERS {
        let connection = fixture.foreign().await;
        let (running, random) = (running.clone(), fastrand::Rng::with_seed(seed.wrapping_add(writer as u64)));
        writers.push(tokio::spawn(async move {
            write(connection, writer, random).await;
            running.fetch_sub(1, Ordering::AcqRel);
        }));
    }
    for ended in join_all(writers).await {
        ended.unwrap();
    }
    let mut all = Vec::new();
    for row in sqlx::query("SELECT position FROM annals.events ORDER BY position")
        .fetch_all(&mut fixture.foreign().await)
        .await
        .unwrap()
    {
        all.push(row.get::<i64, _>(0));
    }
    assert!(all.len() > WRITERS * ROUNDS / 2 + 2 * GROUPS * OF_A_GROUP, "{} events were written", all.len());
    assert!(*all.last().unwrap() > all.len() as i64, "no number was lost");
    for reader in readers {
        assert_eq!(reader.await.unwrap(), all, "ANNALS_SEED={seed}");
    }
    let naive = naive.await.unwrap();
    assert!(naive.len() < all.len(), "the naive reader missed nothing, so nothing was tried (ANNALS_SEED={seed})");
}

async fn write(mut connection: PgConnection, writer: usize, mut random: fastrand::Rng) {
    for round in 0..ROUNDS {
        let hold = format!("SELECT pg_sleep({})", random.f64() * 0.004);
        run(&mut connection, "BEGIN; SAVEPOINT s").await.unwrap();
        if random.u8(..4) == 0 {
            insert(&mut connection, &format!("{writer}-{round}-undone")).await;
            run(&mut connection, "ROLLBACK TO s").await.unwrap();
        }
        insert(&mut connection, &format!("{writer}-{round}")).await;
        if random.bool() {
            run(&mut connection, &hold).await.unwrap();
        }
        run(&mut connection, if random.u8(..5) == 0 { "ROLLBACK" } else { "COMMIT" }).await.unwrap();
    }
}

async fn append_groups(store: &PostgresStore, handle: usize) {
    for group in 0..GROUPS {
        let append = async |n| {
            let stream = stream(&format!("group-{handle}-{group}-{n}"));
            store.append(&stream, ExpectedVersion::NoStream, vec![event_for(store)]).await.unwrap();
        };
        join_all((0..OF_A_GROUP).map(append)).await;
    }
}

async fn read(store: PostgresStore, running: Arc<AtomicUsize>, filter: Filter) -> Vec<i64> {
    let (mut after, mut seen) = (Position::START, Vec::new());
    loop {
        let over = running.load(Ordering::Acquire) == 0;
        let page = store.read_page(after.into(), &filter, 50).await.unwrap();
        seen.extend(page.events.iter().map(|event| event.position.get()));
        if let Some(checkpoint) = page.checkpoint {
            assert!(checkpoint.position > after);
            store.check_checkpoint(&checkpoint).await.unwrap();
            after = checkpoint.position;
        }
        if over && page.end {
            return seen;
        }
    }
}

async fn read_naively(mut connection: PgConnection, running: Arc<AtomicUsize>) -> Vec<i64> {
    let mut seen: Vec<i64> = Vec::new();
    loop {
        let over = running.load(Ordering::Acquire) == 0;
        let after = seen.last().copied().unwrap_or_default();
        let query = sqlx::query("SELECT position FROM annals.events WHERE position > $1 ORDER BY position").bind(after);
        seen.extend(query.fetch_all(&mut connection).await.unwrap().iter().map(|row| row.get::<i64, _>(0)));
        if over {
            return seen;
        }
    }
}
