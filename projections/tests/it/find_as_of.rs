//! The row of one stream as it was is the one that the whole read model had then, on every store.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use annals_eventstore::{
    After, Append, AsOf, EventId, EventStore, ExpectedVersion, Filter, MemoryStore, NewEvent, Page, Position,
    ReadError, Recorded, RecordedEvent, SqliteDatabase, StreamId, StreamVersion, Tenant, forward_event_store,
};
use annals_macros::{Event, ReadModel};
use annals_projections::{
    AsOfError, EventPlace, ProjectionError, Projections, ProjectionsBuilder, ReadModel, RowAsOf, RowsAsOf,
    StreamProjection, StreamRow,
};
use async_trait::async_trait;
use fastrand::Rng;
use serde::{Deserialize, Serialize};

use super::backends::Backend;

#[derive(Event, Serialize, Deserialize, Clone, Debug)]
enum ParcelEvent {
    #[event(name = "parcel.sent")]
    Sent,
    #[event(name = "parcel.moved")]
    Moved { to: u32 },
    #[event(name = "parcel.delivered")]
    Delivered,
    /// What no fold can apply.
    #[event(name = "parcel.lost")]
    Lost,
}

/// Where each parcel of a tenant was; run with dead letters.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "parcels", key = "id", per_tenant)]
struct Parcel {
    id: u32,
    #[column(json)]
    places: Vec<u32>,
}

struct Parcels;

impl StreamProjection for Parcels {
    type Event = ParcelEvent;
    type Row = Parcel;
    const AGGREGATES: &'static [&'static str] = &["parcel"];

    fn apply(&self, event: &Recorded<ParcelEvent>, row: &mut StreamRow<'_, Parcel>) -> Result<(), ProjectionError> {
        match event.event {
            ParcelEvent::Sent => row.insert(Parcel { id: *row.key(), places: Vec::new() }),
            ParcelEvent::Moved { to } => {
                let id = *row.key();
                row.get_or_insert_with(|| Parcel { id, places: Vec::new() }).places.push(to);
            }
            ParcelEvent::Delivered => row.remove(),
            ParcelEvent::Lost => return Err(ProjectionError::new("nobody knows where it is")),
        }
        Ok(())
    }
}

/// How often anything was moved, with all parts of a stream's name in the key; run without dead letters.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "moves", key("tenant", "kind", "id"))]
struct Moved {
    tenant: Tenant,
    kind: String,
    id: u32,
    moves: i64,
}

struct Moves;

impl StreamProjection for Moves {
    type Event = ParcelEvent;
    type Row = Moved;
    const AGGREGATES: &'static [&'static str] = &["letter", "parcel"];

    fn apply(&self, event: &Recorded<ParcelEvent>, row: &mut StreamRow<'_, Moved>) -> Result<(), ProjectionError> {
        if let ParcelEvent::Lost = event.event {
            return Err(ProjectionError::new("nobody knows where it is"));
        }
        let (tenant, kind, id) = row.key().clone();
        row.get_or_insert_with(|| Moved { tenant, kind, id, moves: 0 }).moves += 1;
        Ok(())
    }
}

/// The parcels of each tenant have these numbers; the last has no events.
const IDS: std::ops::RangeInclusive<u32> = 0..=3;

/// What was answered for a parcel of a tenant at a moment.
type Held = (usize, u32, AsOf, RowAsOf<Parcel>);

struct Post {
    store: Arc<dyn EventStore>,
    views: Projections,
    tenants: [Tenant; 2],
    rng: Rng,
}

impl Post {
    async fn new(store: Arc<dyn EventStore>, projections: ProjectionsBuilder) -> Self {
        let seed = std::env::var("ANNALS_SEED").map_or_else(|_| fastrand::u64(..), |s| s.parse().expect("a number"));
        println!("ANNALS_SEED={seed}");
        let views = projections.with(Parcels.slots(2).dead_letter()).with(Moves).start().await.unwrap();
        // What runs is not asked.
        views.close().await;
        let tenants = ["north", "south"].map(|name| Tenant::new(name).unwrap());
        Self { store, views, tenants, rng: Rng::with_seed(seed) }
    }

    fn stream(&self, tenant: usize, id: u32) -> StreamId {
        StreamId::new(self.tenants[tenant].clone(), "parcel", id.to_string()).unwrap()
    }

    fn new_events(&self, events: impl IntoIterator<Item = ParcelEvent>) -> Vec<NewEvent> {
        let new = |event| NewEvent::of(EventId::new(self.store.ids().next_id()).unwrap(), &event).unwrap();
        events.into_iter().map(new).collect()
    }

    fn random_events(&mut self) -> Vec<NewEvent> {
        let count = self.rng.usize(1..4);
        let rng = &mut self.rng;
        let random = |_| match rng.u32(..40) {
            0..10 => ParcelEvent::Sent,
            10..34 => ParcelEvent::Moved { to: rng.u32(..) },
            34..39 => ParcelEvent::Delivered,
            _ => ParcelEvent::Lost,
        };
        let events: Vec<_> = (0..count).map(random).collect();
        self.new_events(events)
    }

    /// Appends to one stream or two of a tenant.
    async fn append(&mut self) {
        let (tenant, first) = (self.rng.usize(..2), self.rng.u32(..3));
        let mut append = Append::to(self.stream(tenant, first), ExpectedVersion::Any, self.random_events());
        if self.rng.bool() {
            append = append.and(self.stream(tenant, (first + 1) % 3), ExpectedVersion::Any, self.random_events());
        }
        self.store.append_many(append).await.unwrap();
    }

    /// More than fits on the first page that is read of a stream.
    async fn append_many(&self, tenant: usize, id: u32) {
        let moved = self.new_events((0..200).map(|to| ParcelEvent::Moved { to }));
        self.store.append(&self.stream(tenant, id), ExpectedVersion::Any, moved).await.unwrap();
    }

    async fn log(&self) -> Vec<RecordedEvent> {
        self.store.read_page(After::START, &Filter::all(), 10_000).await.unwrap().events
    }

    async fn parcel(&self, tenant: usize, id: u32, as_of: AsOf) -> RowAsOf<Parcel> {
        self.views.find_of_tenant_as_of::<Parcels>(&self.tenants[tenant], &id, as_of).await.unwrap()
    }

    /// Compares each row of a moment with the whole read model of that moment.
    async fn check(&self, as_of: AsOf) -> Vec<Held> {
        let mut held = Vec::new();
        let moves = self.views.as_of::<Moves>(as_of).await;
        for (number, tenant) in self.tenants.iter().enumerate() {
            let parcels = self.views.as_of_tenant::<Parcels>(tenant, as_of).await.unwrap();
            for id in IDS {
                let parcel = self.parcel(number, id, as_of).await;
                let row = parcels.rows.iter().find(|row| row.id == id);
                let parked = parcels.parked.iter().find(|event| event.stream == self.stream(number, id));
                assert_eq!((parcel.row.as_ref(), parcel.parked.as_ref()), (row, parked), "{as_of}");
                assert_eq!(parcel.position, parcels.position, "{as_of}");
                self.check_moved(&moves, (tenant.clone(), "parcel".to_owned(), id), as_of, parked).await;
                held.push((number, id, as_of, parcel));
            }
        }
        held
    }

    /// The same of what stops at the event that `Parcels` parks a stream for.
    async fn check_moved(
        &self,
        all: &Result<RowsAsOf<Moved>, AsOfError>,
        key: (Tenant, String, u32),
        as_of: AsOf,
        parked: Option<&EventPlace>,
    ) {
        match (all, self.views.find_as_of::<Moves>(&key, as_of).await, parked) {
            (Err(_), Err(AsOfError::Stopped(stopped)), Some(_)) => assert_eq!(stopped.event.as_ref(), parked),
            (Ok(all), Ok(one), None) => {
                assert_eq!(
                    (one.row.as_ref(), one.position),
                    (all.rows.iter().find(|row| row.key() == key), all.position)
                );
            }
            // Another stream stops the whole.
            (Err(AsOfError::Stopped(_)), Ok(one), None) => assert_eq!(one.parked, None),
            other => panic!("{as_of}: {other:?}"),
        }
    }
}

async fn rows_as_they_were_are_those_of_the_whole(mut post: Post) {
    for at in 0..30 {
        post.append().await;
        if at % 15 == 3 {
            post.append_many(at % 2, 0).await;
        }
    }
    let log = post.log().await;
    let mut held = post.check(AsOf::position(Position::START)).await;
    for _ in 0..6 {
        let event = post.rng.choice(&log).unwrap();
        held.extend(post.check(AsOf::position(event.position)).await);
        let time = AsOf::time(event.recorded_at);
        while let Err(not_over) = post.store.log_as_of(time).await {
            assert!(matches!(not_over, ReadError::Invalid(_)), "{not_over:?}");
        }
        held.extend(post.check(time).await);
    }
    // What comes later changes nothing.
    for _ in 0..5 {
        post.append().await;
    }
    for (tenant, id, as_of, answer) in held {
        assert_eq!(post.parcel(tenant, id, as_of).await, answer, "{as_of}");
        assert_eq!(post.parcel(tenant, id, AsOf::position(answer.position)).await, answer, "{as_of}");
    }
    post.check_versions(0, 0).await;
    post.views.close().await;
}

impl Post {
    /// A row at a version is that at the position of the version's event, where an append ends there.
    async fn check_versions(&self, tenant: usize, id: u32) {
        let stream = self.stream(tenant, id);
        let events = self.store.load_page(&stream, StreamVersion::NONE, 10_000).await.unwrap().events;
        assert_eq!(self.parcel(tenant, id, AsOf::version(0)).await.position, Position::START);
        for event in events.iter().step_by(13) {
            let at = self.parcel(tenant, id, AsOf::version(event.version.get())).await;
            let as_of = self.parcel(tenant, id, AsOf::position(event.position)).await;
            assert_eq!(at.position, event.position);
            if as_of.position == at.position {
                assert_eq!(at, as_of);
            }
        }
        let count = i64::try_from(events.len()).unwrap();
        for (version, problem) in [(-1, "`version` is -1"), (count + 1, "has fewer events; ask for an earlier one")] {
            let refused =
                self.views.find_of_tenant_as_of::<Parcels>(&self.tenants[tenant], &id, AsOf::version(version)).await;
            assert!(refused.as_ref().unwrap_err().to_string().contains(problem), "{refused:?}");
        }
    }
}

async fn in_memory() -> (tempfile::TempDir, MemoryStore, SqliteDatabase) {
    let folder = tempfile::tempdir().unwrap();
    let database = SqliteDatabase::open(folder.path().join("views.db")).await.unwrap();
    (folder, MemoryStore::new(), database)
}

#[tokio::test]
async fn rows_of_streams_as_they_were_are_those_of_the_whole_in_memory() {
    let (_folder, store, database) = in_memory().await;
    let post = Post::new(Arc::new(store.clone()), Projections::of(&store, &database)).await;
    rows_as_they_were_are_those_of_the_whole(post).await;
}

async fn of_backend(backend: Backend) {
    let shop = backend.open().await;
    let post = Post::new(shop.store(), shop.projections()).await;
    rows_as_they_were_are_those_of_the_whole(post).await;
    shop.close().await;
}

#[tokio::test]
async fn rows_of_streams_as_they_were_are_those_of_the_whole_on_sqlite() {
    of_backend(Backend::in_one_file()).await;
}

#[tokio::test]
async fn rows_of_streams_as_they_were_are_those_of_the_whole_on_postgres() {
    of_backend(Backend::in_one_postgres().await).await;
}

/// Counts the pages of the log that are read.
#[derive(Clone)]
struct Counting(MemoryStore, Arc<AtomicUsize>);

#[async_trait]
impl EventStore for Counting {
    forward_event_store!(self => self.0; except read_page);

    async fn read_page(&self, after: After, filter: &Filter, limit: usize) -> Result<Page, ReadError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.read_page(after, filter, limit).await
    }
}

#[tokio::test]
async fn for_the_row_of_a_stream_as_it_was_the_log_is_not_read() {
    let (_folder, store, database) = in_memory().await;
    let store = Counting(store, Arc::default());
    let post = Post::new(Arc::new(store.clone()), Projections::of(&store, &database)).await;
    post.append_many(0, 1).await;
    let (tenant, last) = (&post.tenants[0], post.store.head().await.unwrap().position);
    let before = store.1.load(Ordering::Relaxed);
    let row = post.parcel(0, 1, AsOf::position(last)).await.row.unwrap();
    assert_eq!((row.places.len(), store.1.load(Ordering::Relaxed)), (200, before));
    post.views.as_of_tenant::<Parcels>(tenant, AsOf::position(last)).await.unwrap();
    assert!(store.1.load(Ordering::Relaxed) > before);
}

#[tokio::test]
async fn a_key_that_no_row_can_have_is_refused() {
    let (_folder, store, database) = in_memory().await;
    let north = Tenant::new("north").unwrap();
    let views = Projections::of(&store, &database).with(Moves).for_tenant(north.clone()).start().await.unwrap();
    let start = AsOf::position(Position::START);
    let of = |tenant: &str, kind: &str| (Tenant::new(tenant).unwrap(), kind.to_owned(), 1);
    assert_eq!(views.find_as_of::<Moves>(&of("north", "letter"), start).await.unwrap().row, None);
    for (key, refused) in [
        (
            of("south", "letter"),
            "`tenant` is `south`, but projection `moves` is of tenant `north`; ask a projection that reads its events",
        ),
        (
            of("north", "bill"),
            "`aggregate_type` `bill` is not one of those that `moves` has rows for; ask for one of [\"letter\", \"parcel\"]",
        ),
    ] {
        assert_eq!(views.find_as_of::<Moves>(&key, start).await.unwrap_err().to_string(), refused);
    }
    let unknown = views.find_of_tenant_as_of::<Parcels>(&north, &1, start).await;
    assert!(matches!(unknown, Err(AsOfError::Unknown { .. })), "{unknown:?}");
    for nothing in [AsOf::position(Position::new(1).unwrap()), AsOf::time(jiff::Timestamp::MAX), AsOf::version(1)] {
        let refused = views.find_as_of::<Moves>(&of("north", "letter"), nothing).await;
        assert!(matches!(refused, Err(AsOfError::Read(ReadError::Invalid(_)))), "{refused:?}");
    }
    views.close().await;
}
