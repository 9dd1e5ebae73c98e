//! What a user of the facade can see, from commands to read models, by its names alone.

mod deadline;
mod promises;
mod requests;
mod tenants;

use std::time::Duration;

use annals::postgres::PostgresDatabase;
use annals::prelude::*;
use annals::projections::ReadModelDatabase;
use annals::sqlite::SqliteDatabase;
use annals::{
    Aggregate, Event, EventStore, Evolve, MemoryStore, PostgresOptions, Projection, ProjectionError, Projections,
    ProjectionsExt, ReadModel, Recorded, Repository, Rows, SqliteStore, text_id,
};
use serde::{Deserialize, Serialize};
use sqlx::Row;

text_id! {
    /// The number on the card.
    pub struct CardId;
}

#[derive(Event, Serialize, Deserialize, Clone, Debug)]
enum CardEvent {
    #[event(name = "card.loaded")]
    Loaded { cents: i64 },
    #[event(name = "card.spent")]
    Spent { cents: i64, shop: String },
}

#[derive(Aggregate, Default, Clone)]
#[aggregate(name = "card", id = CardId, event = CardEvent)]
struct Card {
    cents: i64,
}

impl Evolve for Card {
    fn evolve(&mut self, event: &CardEvent) {
        match event {
            CardEvent::Loaded { cents } => self.cents += cents,
            CardEvent::Spent { cents, .. } => self.cents -= cents,
        }
    }
}

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("there are only {0} cents left")]
struct TooLittle(i64);

impl Card {
    fn load(&self, cents: i64) -> Result<CardEvent, TooLittle> {
        Ok(CardEvent::Loaded { cents })
    }

    fn spend(&self, cents: i64, shop: &str) -> Result<CardEvent, TooLittle> {
        if cents > self.cents {
            return Err(TooLittle(self.cents));
        }
        Ok(CardEvent::Spent { cents, shop: shop.to_owned() })
    }
}

#[derive(ReadModel, Clone)]
#[read_model(table = "balance", key = "card")]
struct Balance {
    card: CardId,
    cents: i64,
}

struct Balances;

impl Projection for Balances {
    type Event = CardEvent;
    type Row = Balance;

    fn apply(&self, event: &Recorded<CardEvent>, rows: &mut Rows<Balance>) -> Result<(), ProjectionError> {
        let card: CardId = event.aggregate_id()?;
        let row = rows.get_or_insert_with(&card.clone(), || Balance { card, cents: 0 })?;
        match &event.event {
            CardEvent::Loaded { cents } => row.cents += cents,
            CardEvent::Spent { cents, .. } => row.cents -= cents,
        }
        Ok(())
    }
}

#[derive(ReadModel, Clone)]
#[read_model(table = "turnover", key = "shop")]
struct Turnover {
    shop: String,
    cents: i64,
}

struct Turnovers;

impl Projection for Turnovers {
    type Event = CardEvent;
    type Row = Turnover;

    fn apply(&self, event: &Recorded<CardEvent>, rows: &mut Rows<Turnover>) -> Result<(), ProjectionError> {
        if let CardEvent::Spent { cents, shop } = &event.event {
            rows.get_or_insert_with(shop, || Turnover { shop: shop.clone(), cents: 0 })?.cents += cents;
        }
        Ok(())
    }
}

const TIMEOUT: Duration = Duration::from_secs(30);

/// Sixteen tasks spend from four cards at once, more than there is; every cent is loaded, spent or refused.
async fn spend_wildly(cards: &Repository<Card>) -> Result<i64, Box<dyn std::error::Error>> {
    for card in 0..4 {
        cards.execute(&CardId::new(format!("c-{card}"))?, |card| card.load(100)).await?;
    }
    let tasks: Vec<_> = (0..16)
        .map(|n| {
            let cards = cards.clone().attempts(1_000);
            tokio::spawn(async move {
                let mut spent = 0;
                for _ in 0..5 {
                    let id = CardId::new(format!("c-{}", n % 4)).expect("a name");
                    match cards.execute(&id, |card| card.spend(9, &format!("shop-{}", n % 3))).await {
                        Ok(_) => spent += 9,
                        Err(error) => assert!(error.rejection().is_some(), "only the card says no"),
                    }
                }
                spent
            })
        })
        .collect();
    let mut spent = 0;
    for task in tasks {
        spent += task.await?;
    }
    Ok(spent)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_card_is_overdrawn_by_racing_writers_on_any_store() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let sqlite = SqliteStore::open(folder.path().join("cards.db")).await?;
    let scratch = annals_scratch::Database::empty().await;
    let postgres = PostgresOptions::new(scratch.url()).migrate().open().await?;
    let memory = MemoryStore::new();
    for cards in [memory.aggregate::<Card>(), sqlite.aggregate::<Card>(), postgres.aggregate::<Card>()] {
        // 80 tries of 9 cents on 4 cards of 100: each card can pay 11 of its 20.
        assert_eq!(spend_wildly(&cards).await?, 4 * 11 * 9);
        for card in 0..4 {
            assert_eq!(cards.load(&CardId::new(format!("c-{card}"))?).await?.state.cents, 1);
        }
    }
    Ok(())
}

const BALANCES: &str = "SELECT card, cents FROM balance ORDER BY card";
const TURNOVERS: &str = "SELECT shop, cents FROM turnover ORDER BY shop";

type Table = Vec<(String, i64)>;

async fn in_sqlite(database: &SqliteDatabase, sql: &'static str) -> Table {
    let mut reader = database.read().await.expect("a reader");
    let rows = sqlx::query(sql).fetch_all(&mut *reader).await.expect("the table is there");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

async fn in_postgres(database: &PostgresDatabase, sql: &'static str) -> Table {
    let mut reader = database.read().await.expect("a reader");
    let rows = sqlx::query(sql).fetch_all(&mut *reader).await.expect("the table is there");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Builds the read models beside the events while those come, over several starts. Gives what was spent.
async fn build_live<S: EventStore + ProjectionsExt + Clone>(
    open: impl AsyncFn() -> Result<S, Box<dyn std::error::Error>>,
) -> Result<i64, Box<dyn std::error::Error>> {
    let mut spent = 0;
    for _ in 0..3 {
        let store = open().await?;
        let views = store.projections().with(Balances).with(Turnovers).start().await?;
        spent += spend_wildly(&store.aggregate::<Card>()).await?;
        views.wait_for(store.head().await?.position, TIMEOUT).await?;
        views.close().await;
        store.close().await;
    }
    Ok(spent)
}

/// Builds the read models of a log elsewhere, in one pass.
async fn build_again(
    store: impl EventStore + Clone,
    elsewhere: impl ReadModelDatabase,
) -> Result<(), Box<dyn std::error::Error>> {
    let views = Projections::of(&store, &elsewhere).with(Turnovers).with(Balances).start().await?;
    views.wait_for(store.head().await?.position, TIMEOUT).await?;
    views.close().await;
    Ok(())
}

/// What was built while the events came, over several starts, is what one pass over the log builds elsewhere, in a database of
/// either kind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rebuild_equals_first_build() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("cards.db");
    let spent = build_live(async || Ok(annals::sqlite(&path).await?)).await?;
    let store = annals::sqlite(&path).await?;
    let file = SqliteDatabase::open(folder.path().join("again.db")).await?;
    build_again(store.clone(), file.clone()).await?;
    let scratch = annals_scratch::Database::empty().await;
    let server = PostgresDatabase::open(scratch.url()).await?;
    build_again(store.clone(), server.clone()).await?;
    for (sql, total) in [(TURNOVERS, spent), (BALANCES, 3 * 400 - spent)] {
        let live = in_sqlite(store.database(), sql).await;
        assert_eq!(live.iter().map(|(_, cents)| cents).sum::<i64>(), total);
        assert_eq!(live, in_sqlite(&file, sql).await);
        assert_eq!(live, in_postgres(&server, sql).await);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rebuild_equals_first_build_of_a_log_on_postgresql() -> Result<(), Box<dyn std::error::Error>> {
    let (log, views) = (annals_scratch::Database::empty().await, annals_scratch::Database::empty().await);
    let open = async || Ok(PostgresOptions::new(log.url()).migrate().open().await?);
    let spent = build_live(open).await?;
    let store = open().await?;
    let folder = tempfile::tempdir()?;
    let file = SqliteDatabase::open(folder.path().join("again.db")).await?;
    build_again(store.clone(), file.clone()).await?;
    let server = PostgresDatabase::open(views.url()).await?;
    build_again(store.clone(), server.clone()).await?;
    for (sql, total) in [(TURNOVERS, spent), (BALANCES, 3 * 400 - spent)] {
        let live = in_postgres(store.database(), sql).await;
        assert_eq!(live.iter().map(|(_, cents)| cents).sum::<i64>(), total);
        assert_eq!(live, in_sqlite(&file, sql).await);
        assert_eq!(live, in_postgres(&server, sql).await);
    }
    Ok(())
}
