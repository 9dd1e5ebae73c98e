//! Finding out what became of an append whose outcome is unknown.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::append::{Append, Appended};
use crate::error::{AppendError, BackendError};
use crate::store::EventStore;
use crate::stream::StreamId;

/// How often the same append is sent again.
const TRIES: u32 = 6;
/// The pause before the first of these; each next is twice as long, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// An append whose outcome is unknown, with the ids of its events: enough to find out later what happened.
///
/// It is valid in this process only; cloning it is cheap. [`Repository::settle`](crate::Repository::settle) takes it.
///
/// ```
/// # mod order { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/order.rs")); }
/// # use order::*;
/// use annals_eventstore::testing::{Fault, FaultyStore};
/// use annals_eventstore::{AggregateStore, ExecuteError, MemoryStore};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?.block_on(async {
/// let store = FaultyStore::new(MemoryStore::new());
/// let orders = store.aggregate::<Order>();
/// let id = OrderId::new("o-17")?;
/// orders.execute(&id, |order| order.place(12_00)).await?;
///
/// // Every answer of the store is lost, also those to the repeated appends.
/// store.fail_next(7, Fault::After);
/// let token = match orders.execute(&id, |order| order.pay(12_00)).await {
///     Err(ExecuteError::OutcomeUnknown { token, .. }) => token,
///     other => panic!("{other:?}"),
/// };
///
/// // Later the store is available again and reports that the append was stored.
/// let done = orders.settle(&token).await?;
/// assert!(done.repeated && done.version.get() == 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct SettleToken(Arc<Unsettled>);

#[derive(Debug)]
struct Unsettled {
    stream: StreamId,
    append: Append,
}

impl SettleToken {
    pub(super) fn new(stream: StreamId, append: Append) -> Self {
        // The deadline was for the command, not for settling it later.
        Self(Arc::new(Unsettled { stream, append: append.without_deadline() }))
    }

    /// The stream of the aggregate that the command was for.
    #[must_use]
    pub fn stream(&self) -> &StreamId {
        &self.0.stream
    }

    pub(super) fn append(&self) -> &Append {
        &self.0.append
    }
}

/// How settling ended.
pub(super) enum Settled {
    /// The store knows.
    Known(Result<Appended, AppendError>),
    /// It could not be found out in time; this is the last error.
    Unknown(BackendError),
}

/// Sends the same append once more. Only an answer about its event ids ends an unknown outcome: after any other error, such
/// as a read-only server or an unreadable row, the first attempt may be stored.
pub(super) async fn ask(store: &dyn EventStore, append: &Append, stream: &StreamId) -> Result<Appended, AppendError> {
    store.append_many(append.clone()).await.map_err(|error| match error {
        AppendError::OutcomeUnknown { .. } => error,
        error if error.settles_outcome() => error,
        error => AppendError::OutcomeUnknown { stream: stream.clone(), source: BackendError::new(error) },
    })
}

/// Appends the same event ids again until the outcome is known: a bounded number of times, and not after
/// `deadline`.
pub(super) async fn settle(
    store: &dyn EventStore,
    append: &Append,
    stream: &StreamId,
    deadline: Option<Instant>,
    mut source: BackendError,
) -> Settled {
    let mut pause = FIRST_PAUSE;
    for _ in 0..TRIES {
        if deadline.is_some_and(|deadline| Instant::now() + pause >= deadline) {
            break;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        match ask(store, append, stream).await {
            Err(AppendError::OutcomeUnknown { source: again, .. }) => source = again,
            known => return Settled::Known(known),
        }
    }
    Settled::Unknown(source)
}
