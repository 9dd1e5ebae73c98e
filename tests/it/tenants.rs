//! One id in two tenants: what happens to one is never seen in the other, live and after a rebuild. The app is generic over the
//! engines: it has a trait of its own for its queries.

use annals::postgres::PostgresDatabase;
use annals::prelude::*;
use annals::projections::ReadModelDatabase;
use annals::sqlite::SqliteDatabase;
use annals::{
    Append, AppendError, AsOf, Context, ExpectedVersion, PostgresOptions, Projection, ProjectionError, Projections,
    ReadModel, Recorded, Rows, StreamId, Tenant, TransactionalStore,
};

use super::{Card, CardEvent, CardId, TIMEOUT};

/// The list of cards, per tenant.
#[derive(ReadModel, Clone)]
#[read_model(table = "card_list", key = "card", index = "cents", per_tenant)]
struct Listed {
    card: CardId,
    cents: i64,
}

struct CardList;

impl Projection for CardList {
    type Event = CardEvent;
    type Row = Listed;

    fn apply(&self, event: &Recorded<CardEvent>, rows: &mut Rows<Listed>) -> Result<(), ProjectionError> {
        let card: CardId = event.aggregate_id()?;
        match event.event {
            CardEvent::Loaded { cents } => {
                rows.get_or_insert_with(&card.clone(), || Listed { card, cents: 0 })?.cents += cents
            }
            CardEvent::Spent { cents, .. } => {
                let left = rows.require(&card)?;
                left.cents -= cents;
                if left.cents == 0 {
                    rows.remove(&card);
                }
            }
        }
        Ok(())
    }
}

/// What is spent in each shop, per tenant: cards are in the key behind the shop.
#[derive(ReadModel, Clone)]
#[read_model(table = "spent_in", key("shop", "card"), per_tenant)]
struct SpentIn {
    shop: String,
    card: CardId,
    cents: i64,
}

struct Analytics;

impl Projection for Analytics {
    type Event = CardEvent;
    type Row = SpentIn;

    fn apply(&self, event: &Recorded<CardEvent>, rows: &mut Rows<SpentIn>) -> Result<(), ProjectionError> {
        let card: CardId = event.aggregate_id()?;
        match &event.event {
            CardEvent::Loaded { .. } => {}
            // The shop has closed: nothing of it is counted any more.
            CardEvent::Spent { cents: 1, shop } => rows.remove_by_prefix(shop),
            CardEvent::Spent { cents, shop } => {
                let key = (shop.clone(), card.clone());
                rows.get_or_insert_with(&key, || SpentIn { shop: shop.clone(), card, cents: 0 })?.cents += cents;
            }
        }
        Ok(())
    }
}

const LIST: &str = "SELECT tenant, card, cents FROM card_list ORDER BY tenant, card";
const SPENT: &str = "SELECT tenant, shop, cents FROM spent_in ORDER BY tenant, shop, card";

type Found = Vec<(String, String, i64)>;

trait Queries {
    async fn found(&self, sql: &'static str) -> Result<Found, Box<dyn std::error::Error>>;
}

impl Queries for SqliteDatabase {
    async fn found(&self, sql: &'static str) -> Result<Found, Box<dyn std::error::Error>> {
        Ok(sqlx::query_as(sql).fetch_all(&mut *self.read().await?).await?)
    }
}

impl Queries for PostgresDatabase {
    async fn found(&self, sql: &'static str) -> Result<Found, Box<dyn std::error::Error>> {
        Ok(sqlx::query_as(sql).fetch_all(&mut *self.read().await?).await?)
    }
}

fn found(rows: &[(&str, &str, i64)]) -> Found {
    rows.iter().map(|(tenant, name, cents)| ((*tenant).to_owned(), (*name).to_owned(), *cents)).collect()
}

async fn stay_apart<S, D>(store: S, elsewhere: D) -> Result<(), Box<dyn std::error::Error>>
where
    S: TransactionalStore<Database: ReadModelDatabase + Queries>,
    D: ReadModelDatabase + Queries,
{
    let views = store.projections().with(CardList).with(Analytics).start().await?;
    let [alpha, beta] = [Tenant::new("alpha")?, Tenant::new("beta")?];
    let card = CardId::new("1001")?;
    let stream = |tenant: &Tenant| StreamId::new(tenant.clone(), "card", card.as_str());
    let loaded = |cents| store.new_event(&CardEvent::Loaded { cents });

    // An append belongs to one tenant, so that nobody changes two by mistake.
    let both = Append::to(stream(&alpha)?, ExpectedVersion::NoStream, vec![loaded(100)?]).and(
        stream(&beta)?,
        ExpectedVersion::NoStream,
        vec![loaded(200)?],
    );
    let refused = store.append_many(both).await;
    assert!(matches!(&refused, Err(AppendError::Invalid(invalid)) if invalid.field == "tenant"), "{refused:?}");
    assert_eq!(store.head().await?.position, annals::Position::START);

    let cards = store.aggregate::<Card>();
    let of = |tenant: &Tenant| cards.with(Context::of(tenant.clone()));
    for (tenant, cents) in [(&alpha, 100), (&beta, 200)] {
        of(tenant).execute(&card, |card| card.load(cents)).await?;
        of(tenant).execute(&card, |card| card.spend(30, "cafe")).await?;
        of(tenant).execute(&card, |card| card.spend(20, "kiosk")).await?;
    }
    views.caught_up(TIMEOUT).await?;
    let database = store.database();
    assert_eq!(database.found(LIST).await?, found(&[("alpha", "1001", 50), ("beta", "1001", 150)]));

    let before = AsOf::position(store.head().await?.position);

    // Alpha's cafe closes and its card ends; beta's stay as they were.
    of(&alpha).execute(&card, |card| card.spend(1, "cafe")).await?;
    of(&alpha).execute(&card, |card| card.spend(49, "kiosk")).await?;
    views.caught_up(TIMEOUT).await?;
    let list = found(&[("beta", "1001", 150)]);
    let spent = found(&[("alpha", "kiosk", 69), ("beta", "cafe", 30), ("beta", "kiosk", 20)]);
    assert_eq!((database.found(LIST).await?, database.found(SPENT).await?), (list.clone(), spent.clone()));
    assert_eq!(of(&beta).load(&card).await?.state.cents, 150);
    let now = AsOf::position(store.head().await?.position);
    for (tenant, as_of, cents) in
        [(&alpha, before, &[50][..]), (&beta, before, &[150]), (&alpha, now, &[]), (&beta, now, &[150])]
    {
        let rows = views.as_of_tenant::<CardList>(tenant, as_of).await?.rows;
        assert_eq!(rows.iter().map(|row| row.cents).collect::<Vec<_>>(), cents, "{tenant} as of {as_of}");
    }
    assert!(views.as_of::<CardList>(now).await?.rows.is_empty(), "the default tenant has no cards");
    views.close().await;

    let views = Projections::of(&store, &elsewhere).with(CardList).with(Analytics).start().await?;
    views.caught_up(TIMEOUT).await?;
    assert_eq!((elsewhere.found(LIST).await?, elsewhere.found(SPENT).await?), (list, spent), "built anew");
    views.close().await;

    store.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_id_in_two_tenants_stays_apart_live_and_after_a_rebuild() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let store = annals::sqlite(folder.path().join("cards.db")).await?;
    stay_apart(store, SqliteDatabase::open(folder.path().join("again.db")).await?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_id_in_two_tenants_stays_apart_on_postgresql() -> Result<(), Box<dyn std::error::Error>> {
    let (log, views) = (annals_scratch::Database::empty().await, annals_scratch::Database::empty().await);
    let store = PostgresOptions::new(log.url()).migrate().open().await?;
    stay_apart(store, PostgresDatabase::open(views.url()).await?).await
}

/// One handle feeds the read models of one tenant, another those of the other, each in a file of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runner_per_tenant_fills_a_database_per_tenant() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let store = annals::sqlite(folder.path().join("cards.db")).await?;
    let card = CardId::new("1001")?;
    for (tenant, cents) in [("alpha", 100), ("beta", 200)] {
        let cards = store.aggregate::<Card>().with(Context::of(Tenant::new(tenant)?));
        cards.execute(&card, |card| card.load(cents)).await?;
    }
    for (tenant, cents) in [("alpha", 100), ("beta", 200)] {
        let database = SqliteDatabase::open(folder.path().join(format!("{tenant}.db"))).await?;
        let start = |tenant| Projections::of(&store, &database).with(CardList).for_tenant(tenant).start();
        let views = start(Tenant::new(tenant)?).await?;
        views.caught_up(TIMEOUT).await?;
        assert_eq!(database.found(LIST).await?, found(&[(tenant, "1001", cents)]));
        views.close().await;
        let error = start(Tenant::new("gamma")?).await.expect_err("the table has another tenant's rows").to_string();
        assert!(error.contains(&format!("of tenant `{tenant}`")), "{error}");
    }
    Ok(())
}
