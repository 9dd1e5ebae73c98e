//! Steps that are commands of an aggregate in the same store.

use std::fmt::Display;
use std::marker::PhantomData;
use std::sync::Arc;

use annals_eventstore::{
    Aggregate, AggregateStore, Context, Decide, EventStore, Evolve, ExecuteError, Executed, Repository,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::Serialize;
use serde_json::Value;

use crate::event::SagaEvent;
use crate::instance::Instance;
use crate::participant::StepState;

/// A command of one aggregate, as a step of a saga or of a participant, with an answer of the type `T`. [`command`] and
/// [`answering`] make it.
pub struct LocalCommand<T = ()> {
    command: Box<dyn Execute>,
    answer: PhantomData<fn() -> T>,
}

/// The command `command` of the aggregate called `id`, for [`Saga::local`](crate::Saga::local) and
/// [`Participant::do_local`](crate::participant::Participant::do_local). A rejection refuses the step.
///
/// The tenant is that of the engine or the participant, whatever that of the repository is.
pub fn command<A, D>(repository: &Repository<A>, id: A::Id, command: D) -> LocalCommand
where
    A: Decide<D>,
    A::Id: 'static,
    A::Rejection: Display,
    D: Send + Sync + 'static,
{
    LocalCommand::new(Typed { repository: repository.clone(), id, command, answer: None })
}

/// As [`command`], with an answer for a [participant](crate::participant): what `answer` makes of the state after the events. It is
/// stored together with them. One that cannot be written as JSON refuses the step.
///
/// ```
/// # mod order { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/../eventstore/docs/order.rs")); }
/// # use order::*;
/// use annals_eventstore::{AggregateStore, MemoryStore};
/// use annals_sagas::answering;
/// use annals_sagas::participant::{Participant, StepKey};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MemoryStore::new();
/// let orders = store.aggregate::<Order>();
/// let id = OrderId::new("o-17")?;
/// orders.execute(&id, |order| order.place(12_00)).await?;
///
/// let pay = answering(&orders, id, Pay { amount: 12_00 }, |order: &Order| order.paid);
/// let step = StepKey::new("checkout-7/pay")?;
/// assert!(Participant::new(store).do_local(&step, &12_00, pay).await?);
/// # Ok(())
/// # }
/// ```
pub fn answering<A, D, T>(
    repository: &Repository<A>,
    id: A::Id,
    command: D,
    answer: impl Fn(&A) -> T + Send + Sync + 'static,
) -> LocalCommand<T>
where
    A: Decide<D>,
    A::Id: 'static,
    A::Rejection: Display,
    D: Send + Sync + 'static,
    T: Serialize,
{
    let answer: Answer<A> = Box::new(move |state| serde_json::to_value(answer(state)));
    LocalCommand::new(Typed { repository: repository.clone(), id, command, answer: Some(answer) })
}

/// What the saga or the participant records about the outcome of the command, which is its answer or why it was rejected; `None` if the
/// step is not to be done any more.
pub(crate) type Record<'a, B> =
    &'a (dyn Fn(&B, Result<Value, String>) -> Option<Vec<<B as Aggregate>::Event>> + Send + Sync);

/// The step was not to be done any more.
#[derive(Debug, thiserror::Error)]
#[error("the step is not to be done any more")]
pub(crate) struct NotDue;

/// What the command is recorded with: the instance of a saga, or the step of a participant.
pub(crate) struct RecordedWith<'a, B: Evolve> {
    pub(crate) store: &'a Arc<dyn EventStore>,
    pub(crate) context: &'a Context,
    pub(crate) instances: &'a Repository<B>,
    pub(crate) id: &'a B::Id,
}

/// Where the instance is recorded.
pub(crate) type InstanceAt<'a> = RecordedWith<'a, Instance>;

/// What the saga records about the outcome of the command; `None` if the step is not to be done any more.
type RecordInstance<'a> = &'a (dyn Fn(&Instance, Result<(), String>) -> Option<Vec<SagaEvent>> + Send + Sync);

impl LocalCommand {
    /// Decides and appends: events of the aggregate and of the saga, or a refusal of the saga alone.
    pub(crate) async fn execute(
        self,
        at: InstanceAt<'_>,
        record: RecordInstance<'_>,
    ) -> Result<(), ExecuteError<NotDue>> {
        self.execute_with(at, &|instance, decided| record(instance, decided.map(drop))).await.map(drop)
    }
}

impl<T> LocalCommand<T> {
    fn new(command: impl Execute + 'static) -> Self {
        Self { command: Box::new(command), answer: PhantomData }
    }

    /// Decides and appends: events of the aggregate and what is recorded about them, or a refusal alone.
    pub(crate) async fn execute_with<B: Evolve>(
        self,
        at: RecordedWith<'_, B>,
        record: Record<'_, B>,
    ) -> Result<Executed<B>, ExecuteError<NotDue>>
    where
        dyn Execute: ExecuteWith<B>,
    {
        self.command.execute_with(at, record).await
    }
}

/// Executes a command of a type that is not known here, together with what records it.
pub(crate) trait Execute: ExecuteWith<Instance> + ExecuteWith<StepState> {}

impl<E: ExecuteWith<Instance> + ExecuteWith<StepState>> Execute for E {}

pub(crate) trait ExecuteWith<B: Evolve>: Send + Sync {
    fn execute_with<'a>(
        self: Box<Self>,
        at: RecordedWith<'a, B>,
        record: Record<'a, B>,
    ) -> BoxFuture<'a, Result<Executed<B>, ExecuteError<NotDue>>>;
}

type Answer<A> = Box<dyn Fn(&A) -> serde_json::Result<Value> + Send + Sync>;

struct Typed<A: Decide<D>, D> {
    repository: Repository<A>,
    id: A::Id,
    command: D,
    /// `None` for `null`.
    answer: Option<Answer<A>>,
}

impl<A, D> Typed<A, D>
where
    A: Decide<D>,
    A::Rejection: Display,
{
    /// The events and the answer, or why there are none.
    fn decide(&self, state: &A) -> Result<(Vec<A::Event>, Value), String> {
        let events = state.decide(&self.command).map_err(|rejection| rejection.to_string())?;
        let Some(answer) = &self.answer else { return Ok((events, Value::Null)) };
        let mut next = state.clone();
        events.iter().for_each(|event| next.evolve(event));
        let answer = answer(&next).map_err(|e| format!("its answer is no JSON: {e}"))?;
        Ok((events, answer))
    }
}

impl<A, D, B> ExecuteWith<B> for Typed<A, D>
where
    A: Decide<D>,
    A::Id: 'static,
    A::Rejection: Display,
    D: Send + Sync + 'static,
    B: Evolve,
{
    fn execute_with<'a>(
        self: Box<Self>,
        at: RecordedWith<'a, B>,
        record: Record<'a, B>,
    ) -> BoxFuture<'a, Result<Executed<B>, ExecuteError<NotDue>>> {
        async move {
            let decide = |recorded: &B, state: &A| {
                let (events, outcome) = match self.decide(state) {
                    Ok((events, answer)) => (events, Ok(answer)),
                    Err(reason) => (Vec::new(), Err(reason)),
                };
                Ok((record(recorded, outcome).ok_or(NotDue)?, events))
            };
            let second = (&self.repository, &self.id);
            let (recorded, _) = at.store.execute_two(at.context, (at.instances, at.id), second, decide).await?;
            Ok(recorded)
        }
        .boxed()
    }
}
