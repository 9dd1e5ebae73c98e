//! What travels with a command: for whom, why, by whom, until when.

use std::collections::BTreeMap;

use tokio::time::Instant;

use crate::event::Recorded;
use crate::metadata::{Actor, CausationId, CorrelationId, Metadata, TraceParent};
use crate::request::RequestKey;
use crate::stream::Tenant;

/// The circumstances of a command: for whom, why, by whom, until when. They travel explicitly, and all but the deadline
/// land in its events.
///
/// ```
/// # mod order { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/order.rs")); }
/// # use order::*;
/// use annals_eventstore::{Actor, AggregateStore, Context, CorrelationId, EventStoreExt, MemoryStore, Tenant};
/// use futures::TryStreamExt;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let store = MemoryStore::new();
/// let context = Context::of(Tenant::new("north")?)
///     .with_correlation(CorrelationId::new("checkout-7")?)
///     .with_actor(Actor::new("alice")?)
///     .with_note("channel", "web");
/// let orders = store.aggregate::<Order>().with(context);
/// let done = orders.execute(&OrderId::new("o-17")?, |order| order.place(12_00)).await?;
///
/// let placed = store.load(&done.stream).try_next().await?.expect("it was just placed");
/// assert_eq!(placed.stream.tenant().as_str(), "north");
/// assert_eq!(placed.metadata.actor.unwrap().as_str(), "alice");
/// assert_eq!(placed.metadata.extra["channel"], "web");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Context {
    tenant: Tenant,
    metadata: Metadata,
    deadline: Option<Instant>,
    request: Option<RequestKey>,
}

impl Context {
    /// The circumstances of a command of `tenant`, with nothing else known.
    #[must_use]
    pub fn of(tenant: Tenant) -> Self {
        Self { tenant, ..Self::default() }
    }

    /// The circumstances of a command that an event has led to, for reactors: the tenant, the correlation id and the trace of the event,
    /// and its id as the cause. With the reactor's key as the request key, an event that is handled again has no second effect:
    /// `orders.with(Context::caused_by(event)).send_once(&id, key.to_string(), command)`, as long as a request key is kept.
    ///
    /// ```
    /// # mod order { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/order.rs")); }
    /// # use order::*;
    /// use annals_eventstore::{AggregateStore, Context, CorrelationId, EventStoreExt, MemoryStore, Tenant};
    /// use futures::TryStreamExt;
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
    /// let store = MemoryStore::new();
    /// let context = Context::of(Tenant::new("north")?).with_correlation(CorrelationId::new("checkout-7")?);
    /// let orders = store.aggregate::<Order>();
    /// let done = orders.with(context).execute(&OrderId::new("o-17")?, |order| order.place(12_00)).await?;
    ///
    /// let stored = store.load(&done.stream).try_next().await?.expect("it was just placed");
    /// let placed = stored.typed::<OrderEvent>()?.into_iter().next().expect("it is one event");
    /// let caused = Context::caused_by(&placed);
    /// assert_eq!(caused.tenant().as_str(), "north");
    /// assert_eq!(caused.metadata().correlation_id, placed.metadata.correlation_id);
    /// assert_eq!(caused.metadata().causation_id, Some(placed.event_id.into()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn caused_by<E>(event: &Recorded<E>) -> Self {
        let Metadata { correlation_id, trace_parent, .. } = event.metadata.clone();
        let causation_id = Some(event.event_id.into());
        let metadata = Metadata { correlation_id, causation_id, trace_parent, ..Metadata::default() };
        Self { metadata, ..Self::of(event.stream.tenant().clone()) }
    }

    /// The correlation id of the command.
    #[must_use]
    pub fn with_correlation(mut self, id: CorrelationId) -> Self {
        self.metadata.correlation_id = Some(id);
        self
    }

    /// The message that led to the command. Without one, the request key is taken for it, if there is one.
    #[must_use]
    pub fn with_causation(mut self, id: CausationId) -> Self {
        self.metadata.causation_id = Some(id);
        self
    }

    /// Who made the request.
    #[must_use]
    pub fn with_actor(mut self, actor: Actor) -> Self {
        self.metadata.actor = Some(actor);
        self
    }

    /// The W3C trace context.
    #[must_use]
    pub fn with_trace_parent(mut self, trace_parent: TraceParent) -> Self {
        self.metadata.trace_parent = Some(trace_parent);
        self
    }

    /// A note of any other kind, which replaces an earlier one of the same name.
    ///
    /// Names are 1 to 200 bytes without control characters, not beginning with `$` or `__`; values hold no U+0000; all
    /// metadata of an event is at most 16 KiB as JSON by default. What breaks that is refused when the command is
    /// executed.
    #[must_use]
    pub fn with_note(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.extra.insert(name.into(), value.into());
        self
    }

    /// The moment after which the caller no longer waits, whatever state the store is in. A command that is still reading or queued
    /// then fails with [`AppendError::DeadlineExceeded`](crate::AppendError::DeadlineExceeded) and nothing is stored; one that was
    /// sent has an [unknown outcome](crate::ExecuteError::OutcomeUnknown). A load fails as unavailable. Takes an instant
    /// of tokio (`tokio::time::Instant::now() + Duration::from_secs(2)`), an optional one, or a `Deadline` of the resilience patterns.
    #[must_use]
    pub fn with_deadline(mut self, deadline: impl Into<Option<Instant>>) -> Self {
        self.deadline = deadline.into();
        self
    }

    /// The key under which the request has one effect and one answer, however often it comes.
    #[must_use]
    pub fn with_request(mut self, request: RequestKey) -> Self {
        self.request = Some(request);
        self
    }

    /// The tenant that the command is for.
    #[must_use]
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// What lands in the metadata of the events.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// What lands in the metadata of the events of a command: without a causation id, the request is the cause.
    pub(crate) fn event_metadata(&self) -> Metadata {
        let mut metadata = self.metadata.clone();
        if let (None, Some(request)) = (&metadata.causation_id, &self.request) {
            metadata.causation_id = Some(CausationId::stored(request.key().into()));
        }
        metadata
    }

    /// The same circumstances for one of several commands of the request, whose key is stored for all of them together.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(crate) fn of_one_command(&self) -> Self {
        Self { metadata: self.event_metadata(), request: None, ..self.clone() }
    }

    /// The notes of other kinds, by name.
    #[must_use]
    pub fn notes(&self) -> &BTreeMap<String, String> {
        &self.metadata.extra
    }

    /// The moment after which the caller no longer waits, if there is one.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The key under which the request has one effect, if there is one.
    #[must_use]
    pub fn request(&self) -> Option<&RequestKey> {
        self.request.as_ref()
    }
}
