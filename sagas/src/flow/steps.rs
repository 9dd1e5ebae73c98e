//! What a flow consists of.

use std::collections::BTreeMap;
use std::time::Duration;

use annals_eventstore::{CorrelationId, Event, Invalid};

use crate::builder::COMPENSATION;
use crate::definition::{self, Definition, Kind, Step, Undo};
use crate::event::Direction;

/// A business transaction that no saga directs: reactors answer events with commands, whose events others answer. A flow is all
/// events of one correlation id. [`SagasBuilder::track`](crate::SagasBuilder::track) gives each a stream and a row in
/// `saga_instances`, whose id is the correlation id: so it is seen how far it has come, that it took too long, and that it is stuck.
///
/// A flow is running until each of its steps was seen, in any order. Then it is completed. An event that says that it fails, or the end of its
/// time, makes it compensating: that is recorded once, as [`SagaEvent::CompensationBegun`](crate::SagaEvent::CompensationBegun), to
/// which a reactor can react. It is compensated when each step that was seen, and that some event undoes, was undone. If that
/// takes longer than [`FlowSteps::compensation_within`], it is stuck.
///
/// What comes behind the end of a flow changes nothing, and neither do events whose correlation id is the id of a saga: that has a row of its own.
///
/// The tracker calls nobody and changes nothing but the stream of the flow. Reactors keep the correlation id and are
/// repeated without effect by `orders.with(Context::caused_by(event)).send_once(&id, key.to_string(), command)`.
///
/// ```
/// use annals_macros::Event;
/// use annals_sagas::{Flow, FlowSteps};
/// use serde::{Deserialize, Serialize};
/// use std::time::Duration;
///
/// #[derive(Event, Serialize, Deserialize, Clone)]
/// enum ShopEvent {
///     #[event(name = "order.placed")]
///     Placed,
///     #[event(name = "order.cancelled")]
///     Cancelled,
///     #[event(name = "payment.completed")]
///     Paid,
///     #[event(name = "payment.failed")]
///     NotPaid,
/// }
///
/// struct Checkout;
///
/// impl Flow for Checkout {
///     type Event = ShopEvent;
///     const NAME: &'static str = "checkout";
///
///     fn steps() -> FlowSteps {
///         FlowSteps::begin("order.placed")
///             .undone_by("order.cancelled")
///             .step("payment.completed")
///             .fails("payment.failed")
///             .timeout(Duration::from_secs(60))
///     }
/// }
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// use annals_sagas::SagasExt;
///
/// let store = annals_eventstore::sqlite(folder.path().join("shop.db")).await?;
/// let sagas = store.sagas().track(Checkout)?.start().await?;
/// # sagas.close().await;
/// # Ok(()) }
/// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
/// ```
pub trait Flow: Send + Sync + 'static {
    /// The events that its steps are among. Events without a correlation id belong to no flow.
    type Event: Event;

    /// What names it in the column `saga_type`, and its reactor; chosen once. The rule is that of
    /// [`Reactor::NAME`](annals_projections::Reactor::NAME).
    const NAME: &'static str;

    /// Its steps.
    fn steps() -> FlowSteps;

    /// Whether the events of a correlation are a flow of this kind; by default those of each are. For an event that is recorded in
    /// flows and also elsewhere: an order that is placed without a checkout, say.
    fn follows(_correlation: &CorrelationId) -> bool {
        true
    }
}

/// The steps of a [`Flow`], by the stored names of the events that say that they are done.
#[derive(Clone, Debug)]
#[must_use = "return it from `steps`"]
pub struct FlowSteps {
    steps: Vec<(String, Option<String>)>,
    fails: Vec<String>,
    timeout: Option<Duration>,
    compensation: Duration,
}

/// What an event says about a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    Step(String, Direction),
    Fails,
}

impl FlowSteps {
    /// A flow that begins with this event. Events of a correlation that has none are of no flow.
    pub fn begin(event: &str) -> Self {
        Self { steps: vec![(event.to_owned(), None)], fails: Vec::new(), timeout: None, compensation: COMPENSATION }
    }

    /// One more step: the event that says that it is done.
    pub fn step(mut self, event: &str) -> Self {
        self.steps.push((event.to_owned(), None));
        self
    }

    /// The event that says that the last step is undone. Without one, the step needs no undo.
    pub fn undone_by(mut self, event: &str) -> Self {
        if let Some((_, undone_by)) = self.steps.last_mut() {
            *undone_by = Some(event.to_owned());
        }
        self
    }

    /// An event that says that the flow cannot be completed.
    pub fn fails(mut self, event: &str) -> Self {
        self.fails.push(event.to_owned());
        self
    }

    /// How long a flow may take from when it is first seen until it is completed; without one it may take for ever.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// How long its compensation may take before it is stuck; a day by default.
    pub fn compensation_within(mut self, limit: Duration) -> Self {
        self.compensation = limit;
        self
    }

    /// The saga that stands for the flow, and what each event says about it.
    pub(crate) fn build<F: Flow>(self) -> Result<(Definition<()>, BTreeMap<String, Mark>), Invalid> {
        let mut marks = BTreeMap::new();
        let mut mark = |event: &str, mark: Mark| {
            if !F::Event::READS.iter().any(|shape| shape.name == event) {
                let problem = format!("`{event}` of flow `{}` is not one that its type of events reads", F::NAME);
                return Err(Invalid::new("event", problem, "use the stored name of one of them"));
            }
            if marks.insert(event.to_owned(), mark).is_some() {
                let problem = format!("`{event}` of flow `{}` is declared twice", F::NAME);
                return Err(Invalid::new("event", problem, "let each event say one thing"));
            }
            Ok(())
        };
        let mut steps = Vec::new();
        for (event, undone_by) in self.steps {
            mark(&event, Mark::Step(event.clone(), Direction::Do))?;
            if let Some(undone_by) = &undone_by {
                mark(undone_by, Mark::Step(event.clone(), Direction::Undo))?;
            }
            steps.push(Step {
                name: event,
                kind: Kind::Signal(|_| Ok(())),
                // Who answers whom is the reactors' business, and events of several streams are seen in any order.
                after: Vec::new(),
                undo: undone_by.map_or(Undo::Nothing(String::new()), |_| Undo::Signal),
                keep: None,
                retry: None,
                retry_undo: None,
            });
        }
        for event in self.fails {
            mark(&event, Mark::Fails)?;
        }
        let definition = definition::build(F::NAME.to_owned(), steps, self.timeout, self.compensation)?;
        Ok((definition, marks))
    }
}
