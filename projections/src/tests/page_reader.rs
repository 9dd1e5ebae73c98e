//! Reading ahead: never a page that was read for somebody else.

use std::sync::Arc;

use annals_eventstore::testing::{Fault, FaultyStore};
use annals_eventstore::{After, Filter, Position};

use super::accounts::AccountEvent;
use super::fixture::Fixture;
use super::minimal_store::MinimalStore;
use crate::batch::Decoder;
use crate::page_reader::{PageReader, Wanted};

fn wanted(name: &str) -> Wanted {
    Wanted { filter: Filter::all().event_name(name).unwrap(), decoders: vec![Decoder::of::<AccountEvent>()] }
}

/// The names of the events in the page after `after`.
async fn names(pages: &mut PageReader, after: After, wanted: &Wanted) -> Vec<String> {
    let page = pages.next(after, wanted).await.unwrap();
    page.batch.of::<AccountEvent>().iter().map(|event| event.place.name.to_string()).collect()
}

#[tokio::test]
async fn a_page_read_ahead_is_given_only_to_those_it_was_read_for() {
    let shop = Fixture::new();
    shop.append("a", [AccountEvent::Opened, AccountEvent::Paid(1), AccountEvent::Paid(1)]).await;
    let mut pages = PageReader::of(Arc::new(shop.store.clone()));
    pages.read_ahead(After::START, &wanted("opened"));
    assert_eq!(names(&mut pages, After::START, &wanted("paid")).await, ["paid", "paid"]);
    pages.read_ahead(After::START, &wanted("paid"));
    assert_eq!(names(&mut pages, Position::new(2).unwrap().into(), &wanted("paid")).await, ["paid"]);
}

#[tokio::test]
async fn a_page_read_ahead_is_read_once() {
    let shop = Fixture::new();
    shop.append("a", [AccountEvent::Opened]).await;
    let store = FaultyStore::new(shop.store.clone());
    let mut pages = PageReader::of(Arc::new(store.clone()));
    pages.read_ahead(After::START, &wanted("opened"));
    pages.read_ahead(After::START, &wanted("opened"));
    assert_eq!(names(&mut pages, After::START, &wanted("opened")).await, ["opened"]);
    assert_eq!(store.calls(), 1);
}

/// A page ends before a row that cannot be read. The error of the next one threw it away, so that a projection applied nothing.
#[tokio::test]
async fn what_was_read_before_a_page_that_cannot_be_read_is_given_first() {
    let shop = Fixture::new();
    shop.append("a", [AccountEvent::Paid(1), AccountEvent::Paid(1), AccountEvent::Paid(1)]).await;
    let store = FaultyStore::new(MinimalStore::of_pages(&shop, 1));
    store.fail_call(3, Fault::Before);
    store.fail_call(4, Fault::Before);
    let mut pages = PageReader::of(Arc::new(store));
    let page = pages.next(After::START, &wanted("paid")).await.unwrap();
    let checkpoint = page.checkpoint.expect("two events were read");
    assert_eq!((page.batch.of::<AccountEvent>().len(), checkpoint.position.get(), page.end), (2, 2, false));
    assert!(pages.next(checkpoint.into(), &wanted("paid")).await.is_err());
    assert_eq!(names(&mut pages, checkpoint.into(), &wanted("paid")).await, ["paid"]);
}
