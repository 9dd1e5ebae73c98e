//! Reactors as a user declares them, and how one is run.

use std::time::Duration;

use annals_eventstore::{Event, Invalid, Position, Recorded, Tenant};

use super::effect_key::EffectKey;
use super::error::ReactorError;

/// A side effect of events: mails, calls of other systems, commands of other aggregates.
///
/// # What it gets
/// Every event of its type that is recorded after it was started for the first time, **at least once**: after a crash, a lost
/// answer or an error it gets an event again, with an equal [`EffectKey`]. It never gets the history by itself; what it shall
/// get of that is asked for by [`Reacting::from_start`] or [`Reacting::after`], the first time.
///
/// The events of a stream come in order, and the next is not begun before the one before it is handled. Several streams are
/// handled at once ([`Reacting::streams_at_once`]), each event in a task of its own, so that one which is slow or fails keeps
/// no other stream waiting, until 10,000 events or 32 MiB of payloads behind it are handled or read; then reading
/// pauses.
///
/// One process runs a reactor at a time, by a lease as of projections ([`ProjectionsBuilder::lease`](crate::ProjectionsBuilder::lease));
/// others stand by ([`ReactorState::Standby`](crate::ReactorState::Standby)). A process that was silent for longer than the lease,
/// and continues, notices when it next stores something; until then it may repeat effects, also out of order. So receivers must
/// use the key.
///
/// An event that can never be handled, as one with an address that is none, stops the reactor or
/// [parks its stream](Reacting::dead_letter), so that somebody looks at it. Nothing drops it: if it is to be left out, `react`
/// writes that to the log and answers with `Ok`.
///
/// # Obligations on the implementer
/// [`Reactor::react`] may be dropped at any `.await`: at the time limit ([`Reacting::time_limit`]), and when the process ends. What
/// it had asked for by then is asked for again, under the same key. It does not block its thread.
///
/// ```
/// use std::sync::Mutex;
///
/// use annals_eventstore::{EventStore, EventStoreExt, ExpectedVersion, Recorded, StreamId, Tenant};
/// use annals_macros::Event;
/// use annals_projections::{EffectKey, ProjectionsExt, Reactor, ReactorError};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Event, Serialize, Deserialize, Clone)]
/// enum OrderEvent {
///     #[event(name = "order.shipped")]
///     Shipped { email: String },
/// }
///
/// struct Mailer {
///     outbox: std::sync::Arc<Mutex<Vec<(String, String)>>>, // yours is a client of a mail service
/// }
///
/// impl Reactor for Mailer {
///     type Event = OrderEvent;
///     const NAME: &'static str = "mailer";
///
///     async fn react(&self, event: &Recorded<OrderEvent>, key: &EffectKey) -> Result<(), ReactorError> {
///         let OrderEvent::Shipped { email } = &event.event;
///         // A mail that was accepted under this key is not sent again.
///         self.outbox.lock().unwrap().push((key.to_string(), email.clone()));
///         Ok(())
///     }
/// }
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// // A test calls it without a runner.
/// let shipped = OrderEvent::Shipped { email: "ann@example.org".into() };
/// let given = annals_projections::testing::given_events([("o-17", shipped)]);
/// let outbox = std::sync::Arc::default();
/// let mailer = Mailer { outbox: std::sync::Arc::clone(&outbox) };
/// for event in given.recorded()[0].typed::<OrderEvent>()? {
///     mailer.react(&event, &EffectKey::new(Mailer::NAME, event.event_id, event.part)).await.unwrap();
/// }
/// assert_eq!(outbox.lock().unwrap().remove(0).1, "ann@example.org");
///
/// let store = annals_eventstore::sqlite(folder.path().join("orders.db")).await?;
/// let views = store.projections().react(mailer).start().await?;
///
/// let stream = StreamId::new(Tenant::default(), "order", "o-17")?;
/// let shipped = store.new_event(&OrderEvent::Shipped { email: "ann@example.org".into() })?;
/// let done = store.append(&stream, ExpectedVersion::Any, vec![shipped]).await?;
/// while views.reactors()[0].position < done.position {
///     tokio::time::sleep(std::time::Duration::from_millis(5)).await;
/// }
/// assert_eq!(outbox.lock().unwrap().len(), 1);
/// views.close().await;
/// # Ok(()) }
/// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
/// ```
pub trait Reactor: Send + Sync + 'static {
    /// What it reacts to: every event whose stored name is one that this type reads ([`Event::READS`]), from streams of any
    /// aggregate unless the type names one by `#[event(of = "order")]`. A name that the type learns later counts from then on; there is nothing to rebuild.
    type Event: Event;

    /// The name under which its position is kept, and a part of every [`EffectKey`]; chosen once. Under another name it is another
    /// reactor. Lower-case letters, digits and `_`, a letter first, at most 48 characters; no two reactors of a database
    /// share one.
    const NAME: &'static str;

    /// The only tenant whose events it gets; all tenants by default.
    fn tenant(&self) -> Option<Tenant> {
        None
    }

    /// Handles one event. Where an upcaster splits a stored event, it gets one part after the other, each with a key of its own; where
    /// one drops it, nothing.
    ///
    /// # Errors
    /// [`ReactorError`] says which are tried again. A panic is an error that is permanent.
    fn react(
        &self,
        event: &Recorded<Self::Event>,
        key: &EffectKey,
    ) -> impl Future<Output = Result<(), ReactorError>> + Send;

    /// See [`Reacting::streams_at_once`].
    fn streams_at_once(self, streams: usize) -> Reacting<Self>
    where
        Self: Sized,
    {
        Reacting::of(self).streams_at_once(streams)
    }

    /// See [`Reacting::time_limit`].
    fn time_limit(self, limit: Duration) -> Reacting<Self>
    where
        Self: Sized,
    {
        Reacting::of(self).time_limit(limit)
    }

    /// See [`Reacting::tries`].
    fn tries(self, tries: u32) -> Reacting<Self>
    where
        Self: Sized,
    {
        Reacting::of(self).tries(tries)
    }

    /// See [`Reacting::dead_letter`].
    fn dead_letter(self) -> Reacting<Self>
    where
        Self: Sized,
    {
        Reacting::of(self).dead_letter()
    }

    /// See [`Reacting::from_start`].
    #[expect(clippy::wrong_self_convention, reason = "it says where the reactor begins")]
    fn from_start(self) -> Reacting<Self>
    where
        Self: Sized,
    {
        Reacting::of(self).from_start()
    }

    /// See [`Reacting::after`].
    fn after(self, position: Position) -> Reacting<Self>
    where
        Self: Sized,
    {
        Reacting::of(self).after(position)
    }
}

/// A reactor, and how it is run. Its methods are also methods of the reactor:
/// `store.projections().react(mailer.streams_at_once(2).dead_letter())`.
#[derive(Clone, Debug)]
#[must_use = "it runs when it is given to `react` of the builder"]
pub struct Reacting<R> {
    pub(crate) reactor: R,
    pub(crate) options: Options,
}

/// How a reactor is run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) streams_at_once: usize,
    pub(crate) time_limit: Duration,
    pub(crate) tries: Option<u32>,
    pub(crate) dead_letter: bool,
    pub(crate) first: First,
}

/// Where a reactor begins when it is started for the first time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum First {
    Head,
    After(Position),
}

/// The most streams at once.
const MOST_STREAMS: usize = 256;

/// The longest time limit.
const LONGEST_TIME_LIMIT: Duration = Duration::from_secs(3600);

impl<R: Reactor> Reacting<R> {
    fn of(reactor: R) -> Self {
        let options = Options {
            streams_at_once: 8,
            time_limit: Duration::from_secs(30),
            tries: None,
            dead_letter: false,
            first: First::Head,
        };
        Self { reactor, options }
    }

    /// How many streams it handles at once: 1 to 256, 8 by default. One event of each is in progress.
    pub fn streams_at_once(mut self, streams: usize) -> Self {
        self.options.streams_at_once = streams;
        self
    }

    /// How long [`Reactor::react`] may take for one part of an event: 1 ms to one hour, 30 s by default. Then its future is dropped,
    /// which counts as a transient failure. [`Projections::close`](crate::Projections::close) waits this long for those that run.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.options.time_limit = limit;
        self
    }

    /// How many tries an event has whose failures are transient, 1 at least; without limit by default. After the last one the failure counts as
    /// permanent. With the waits in between, 10 tries take about a minute and a half, and each further one about a minute more.
    ///
    /// Whatever is set here, an event during whose handling the process ended five times without an outcome has failed
    /// permanently: it may be what ends the process.
    pub fn tries(mut self, tries: u32) -> Self {
        self.options.tries = Some(tries);
        self
    }

    /// A permanent failure parks the stream of its event: that event and all later ones of the stream wait, and the reactor
    /// goes on with the others. By default a permanent failure stops the reactor.
    ///
    /// [`Projections::parked`](crate::Projections::parked) lists the parked streams, and
    /// [`Projections::retry_parked`](crate::Projections::retry_parked) lets one go on. At most 10,000 streams are parked; the next one stops
    /// the reactor.
    pub fn dead_letter(mut self) -> Self {
        self.options.dead_letter = true;
        self
    }

    /// When it is started for the first time, it begins with the first event of the log. Afterwards this has no effect.
    pub fn from_start(self) -> Self {
        self.after(Position::START)
    }

    /// When it is started for the first time, it begins with the events after `position`; with the first event of an append that
    /// this would divide. Afterwards this has no effect.
    pub fn after(mut self, position: Position) -> Self {
        self.options.first = First::After(position);
        self
    }
}

/// As it is, with the defaults.
impl<R: Reactor> From<R> for Reacting<R> {
    fn from(reactor: R) -> Self {
        Self::of(reactor)
    }
}

impl Options {
    /// Checks the bounds.
    pub(crate) fn check(&self, reactor: &str) -> Result<(), Invalid> {
        let wrong = |field: &str, found: String, fix: &str| {
            Err(Invalid::new(field, format!("of reactor `{reactor}` is {found}"), fix))
        };
        if !(1..=MOST_STREAMS).contains(&self.streams_at_once) {
            return wrong("streams_at_once", self.streams_at_once.to_string(), "give a number from 1 to 256");
        }
        if !(Duration::from_millis(1)..=LONGEST_TIME_LIMIT).contains(&self.time_limit) {
            return wrong("time_limit", format!("{:?}", self.time_limit), "give a time from 1 ms to one hour");
        }
        if self.tries == Some(0) {
            return wrong("tries", "0".to_owned(), "give 1 at least");
        }
        Ok(())
    }
}
