//! Reactors whose types are hidden from the engine, and the events of a page on their way to one.

use std::sync::Arc;

use annals_eventstore::__private::aggregate_types;
use annals_eventstore::{EventId, Tenant};
use futures::future::BoxFuture;

use super::effect_key::EffectKey;
use super::error::ReactorError;
use super::reactor::{Options, Reacting, Reactor};
use crate::batch::{Batch, Decoded, Decoder, Unreadable};
use crate::error::EventPlace;

/// A reactor whose types are hidden.
pub(crate) trait AnyReactor: Send + Sync {
    fn name(&self) -> &'static str;

    /// The stored names of the events it wants.
    fn names(&self) -> Vec<&'static str>;

    /// The aggregate types of the events that it wants, if all of them are of one.
    fn aggregate_types(&self) -> Option<Vec<&'static str>>;

    fn tenant(&self) -> Option<&Tenant>;

    /// From now on it wants the events of this tenant alone.
    fn set_tenant(&mut self, tenant: Tenant);

    fn options(&self) -> Options;

    fn decoder(&self) -> Decoder;

    /// What it gets of a page; `bytes` is held as long as any of it is in memory.
    fn page(&self, batch: &Batch, bytes: Held) -> Arc<dyn Reactions>;
}

/// The events of a page that a reactor wants, by their numbers.
pub(crate) trait Reactions: Send + Sync {
    fn len(&self) -> usize;

    fn place(&self, at: usize) -> &EventPlace;

    fn event_id(&self, at: usize) -> EventId;

    /// How many parts the event is read as.
    ///
    /// # Errors
    /// If it cannot be read.
    fn parts(&self, at: usize) -> Result<usize, Unreadable>;

    /// The W3C trace context under which the event was recorded, unless that says that the trace is not kept.
    fn trace_parent(&self, at: usize) -> Option<&str>;

    /// Reacts to one part of an event that can be read.
    fn react(self: Arc<Self>, at: usize, part: usize) -> BoxFuture<'static, Result<(), ReactorError>>;
}

/// Bytes of payload that are in memory, as long as this is.
pub(crate) struct Held {
    all: Arc<std::sync::atomic::AtomicUsize>,
    bytes: usize,
}

impl Held {
    pub(crate) fn new(all: &Arc<std::sync::atomic::AtomicUsize>, bytes: usize) -> Self {
        all.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
        Self { all: Arc::clone(all), bytes }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, std::sync::atomic::Ordering::Relaxed);
    }
}

pub(crate) struct TypedReactor<R> {
    reactor: Arc<R>,
    tenant: Option<Tenant>,
    options: Options,
}

impl<R: Reactor> TypedReactor<R> {
    pub(crate) fn new(Reacting { reactor, options }: Reacting<R>) -> Self {
        let tenant = reactor.tenant();
        Self { reactor: Arc::new(reactor), tenant, options }
    }
}

impl<R: Reactor> AnyReactor for TypedReactor<R> {
    fn name(&self) -> &'static str {
        R::NAME
    }

    fn names(&self) -> Vec<&'static str> {
        <R::Event as annals_eventstore::Event>::READS.iter().map(|shape| shape.name).collect()
    }

    fn aggregate_types(&self) -> Option<Vec<&'static str>> {
        aggregate_types::<R::Event>()
    }

    fn tenant(&self) -> Option<&Tenant> {
        self.tenant.as_ref()
    }

    fn set_tenant(&mut self, tenant: Tenant) {
        self.tenant = Some(tenant);
    }

    fn options(&self) -> Options {
        self.options
    }

    fn decoder(&self) -> Decoder {
        Decoder::of::<R::Event>()
    }

    fn page(&self, batch: &Batch, bytes: Held) -> Arc<dyn Reactions> {
        Arc::new(Page { reactor: Arc::clone(&self.reactor), events: batch.of::<R::Event>(), _bytes: bytes })
    }
}

struct Page<R: Reactor> {
    reactor: Arc<R>,
    events: Arc<Vec<Decoded<R::Event>>>,
    _bytes: Held,
}

impl<R: Reactor> Reactions for Page<R> {
    fn len(&self) -> usize {
        self.events.len()
    }

    fn place(&self, at: usize) -> &EventPlace {
        &self.events[at].place
    }

    fn event_id(&self, at: usize) -> EventId {
        self.events[at].event_id
    }

    fn parts(&self, at: usize) -> Result<usize, Unreadable> {
        self.events[at].parts.as_ref().map(|parts| parts.as_slice().len()).map_err(Clone::clone)
    }

    fn trace_parent(&self, at: usize) -> Option<&str> {
        self.events[at].trace_parent()
    }

    fn react(self: Arc<Self>, at: usize, part: usize) -> BoxFuture<'static, Result<(), ReactorError>> {
        Box::pin(async move {
            let parts = self.events[at].parts.as_ref().ok();
            let Some(event) = parts.and_then(|parts| parts.as_slice().get(part)) else { return Ok(()) };
            let key = EffectKey::new(R::NAME, event.event_id, event.part);
            self.reactor.react(event, &key).await
        })
    }
}
