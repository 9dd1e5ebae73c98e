//! The store and the events of the driver.

use std::sync::Arc;

use annals::engine::Payload;
use annals::sagas::{SagasBuilder, SagasExt};
use annals::{
    EventId, EventStore, NewEvent, PostgresOptions, ProjectionsBuilder, ProjectionsExt, SqliteStore, StreamId, Tenant,
};
use uuid::Uuid;

use crate::Fault;

/// Opens the store that `url` names; a new one gets its schema.
pub(crate) async fn open(url: &str) -> Result<Arc<dyn EventStore>, Fault> {
    Ok(open_with_projections(url).await?.0)
}

/// The same, with what starts projections into the database of the store.
pub(crate) async fn open_with_projections(url: &str) -> Result<(Arc<dyn EventStore>, ProjectionsBuilder), Fault> {
    match database(url)? {
        Database::File(file) => {
            let store = SqliteStore::open(file).await?;
            let views = store.projections();
            Ok((Arc::new(store), views))
        }
        Database::Server(url) => {
            let store = PostgresOptions::new(url).migrate().open().await?;
            let views = store.projections();
            Ok((Arc::new(store), views))
        }
    }
}

/// The same, with what starts sagas.
pub(crate) async fn open_with_sagas(url: &str) -> Result<(Arc<dyn EventStore>, SagasBuilder), Fault> {
    match database(url)? {
        Database::File(file) => {
            let store = SqliteStore::open(file).await?;
            let sagas = store.sagas();
            Ok((Arc::new(store), sagas))
        }
        Database::Server(url) => {
            let store = PostgresOptions::new(url).migrate().open().await?;
            let sagas = store.sagas();
            Ok((Arc::new(store), sagas))
        }
    }
}

enum Database<'a> {
    File(&'a str),
    Server(&'a str),
}

fn database(url: &str) -> Result<Database<'_>, Fault> {
    if let Some(file) = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:")) {
        return Ok(Database::File(file));
    }
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        return Ok(Database::Server(url));
    }
    Err("the URL names no known store; use `sqlite:FILE` or `postgres://..`".into())
}

const AGGREGATE_TYPE: &str = "drive";

/// The driver's stream of this name.
pub(crate) fn stream(name: &str) -> Result<StreamId, Fault> {
    Ok(StreamId::new(Tenant::default(), AGGREGATE_TYPE, name)?)
}

/// The name of a stream in the output: only the id for streams of the driver.
pub(crate) fn shown(stream: &StreamId) -> String {
    if stream.aggregate_type() == AGGREGATE_TYPE && *stream.tenant() == Tenant::default() {
        stream.aggregate_id().to_owned()
    } else {
        stream.to_string()
    }
}

/// An event with the payload `{"n": n}`.
pub(crate) fn event(id: Uuid, n: i64) -> Result<NewEvent, Fault> {
    Ok(NewEvent::raw(EventId::new(id)?, "drive.counted", 1, Payload::from_json(&format!("{{\"n\":{n}}}"))?)?)
}
