//! esrs. It has no feed to follow; its read models are written inside the appends, so that `project` appends again.

use std::sync::Arc;
use std::time::Instant;

use annals_peers::{Built, Fault, Page, Paid, Peer, Setup};
use async_trait::async_trait;
use esrs::handler::TransactionalEventHandler;
use esrs::store::postgres::{PgStore, PgStoreBuilder, PgStoreError};
use esrs::store::{EventStore, StoreEvent};
use esrs::{Aggregate, AggregateState};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::pools;

#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Event(Paid);

/// The log.
pub struct Order;

/// A log beside it, whose appends write a read model.
struct Listed;

macro_rules! aggregate {
    ($type:ty, $name:literal) => {
        impl Aggregate for $type {
            const NAME: &'static str = $name;
            type State = ();
            type Command = ();
            type Event = Event;
            type Error = std::convert::Infallible;

            fn handle_command((): &(), (): ()) -> Result<Vec<Event>, Self::Error> {
                Ok(Vec::new())
            }

            fn apply_event((): (), _event: Event) {}
        }
    };
}

aggregate!(Order, "paid");
aggregate!(Listed, "listed");

/// Streams are called by UUIDs.
fn id(name: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes())
}

pub struct OnPostgres {
    store: PgStore<Order>,
    pool: PgPool,
}

impl Peer for OnPostgres {
    const TABLE: &'static str = "paid_events";
    type Stream = AggregateState<()>;
    type Cursor = ();

    async fn open(setup: &Setup) -> Result<Self, Fault> {
        let pool = pools::postgres(setup).await?;
        let store = PgStoreBuilder::<Order>::new(pool.clone()).try_build().await?;
        Ok(Self { store, pool })
    }

    fn stream(&self, name: &str) -> AggregateState<()> {
        AggregateState::with_id(id(name))
    }

    async fn append(&self, stream: &mut AggregateState<()>, events: Vec<Paid>) -> Result<(), Fault> {
        self.store.persist(stream, events.into_iter().map(Event).collect()).await?;
        Ok(())
    }

    async fn load(&self, name: &str) -> Result<Vec<Paid>, Fault> {
        let events = self.store.by_aggregate_id(id(name)).await?;
        Ok(events.into_iter().map(|event| event.payload.0).collect())
    }

    async fn read(&self) -> Result<u64, Fault> {
        let mut events = self.store.stream_events(&self.pool);
        let mut count = 0;
        while let Some(event) = events.try_next().await? {
            std::hint::black_box(event);
            count += 1;
        }
        Ok(count)
    }

    async fn page(&self, _after: Option<&()>) -> Result<Option<Page<()>>, Fault> {
        Ok(None)
    }

    async fn project(&self, round: usize, events: u64) -> Result<Option<Built>, Fault> {
        let table = pools::make_totals(&self.pool, round).await?;
        let upserts = Upserts(pools::upsert(&table));
        let builder = PgStoreBuilder::<Listed>::new(self.pool.clone());
        let store = builder.add_transactional_event_handler(upserts).try_build().await?;
        let begun = Instant::now();
        append_all(Arc::new(store), round, events).await?;
        let time = begun.elapsed();
        Ok(Some(Built { totals: pools::totals(&self.pool, &table).await?, time }))
    }
}

/// Events of a stream, appended at once.
const LENGTH: u64 = 10;

/// How many write at once.
const WRITERS: u64 = 10;

async fn append_all(store: Arc<PgStore<Listed>>, round: usize, events: u64) -> Result<(), Fault> {
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for first in (writer * LENGTH..events).step_by(usize::try_from(WRITERS * LENGTH)?) {
                    let mut stream = AggregateState::with_id(id(&format!("listed-{round}-{first}")));
                    let events = (first..first + LENGTH).map(|n| Event(Paid::nth(n))).collect();
                    store.persist(&mut stream, events).await?;
                }
                Ok::<_, Fault>(())
            })
        })
        .collect();
    for writer in writers {
        writer.await??;
    }
    Ok(())
}

struct Upserts(String);

#[async_trait]
impl TransactionalEventHandler<Listed, PgStoreError, PgConnection> for Upserts {
    async fn handle(&self, event: &StoreEvent<Event>, transaction: &mut PgConnection) -> Result<(), PgStoreError> {
        let upsert = sqlx::query(&self.0).bind(event.aggregate_id.to_string()).bind(event.payload.0.amount);
        upsert.execute(transaction).await?;
        Ok(())
    }
}
