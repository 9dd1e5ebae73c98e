//! The cost of catching up.

use super::{event, new_store, stream};
use crate::filter::Filter;
use crate::position::After;
use crate::postgres::PostgresOptions;
use crate::store::EventStore;
use crate::stream::ExpectedVersion;

#[tokio::test]
async fn a_filtered_read_of_the_known_final_part_does_not_ask_the_horizon() {
    let (database, _connection) = new_store().await;
    let store = PostgresOptions::new(database.url()).open().await.unwrap();
    let appended = store.append(&stream("a"), ExpectedVersion::NoStream, vec![event(&store)]).await.unwrap();
    let filter = Filter::all().event_name(&*event(&store).name).unwrap();
    let page = store.read_page(After::START, &filter, 10).await.unwrap();
    assert_eq!((page.events.len(), page.end), (1, true));
    let asked = store.reader().horizon.asked();
    assert!(asked > 0, "nothing was known before");
    let page = store.read_page(After::START, &filter, 10).await.unwrap();
    assert_eq!((page.events.len(), page.end), (1, true));
    assert_eq!(store.reader().horizon.asked(), asked);
    // At the head the horizon must be asked.
    store.read_page(appended.position.into(), &filter, 10).await.unwrap();
    assert!(store.reader().horizon.asked() > asked);
}
