//! Steps that are commands of an aggregate in the same store.

use std::fmt::Display;
use std::sync::Arc;

use annals_eventstore::{AggregateStore, Context, Decide, EventStore, ExecuteError, Repository};
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::event::SagaEvent;
use crate::instance::{Instance, SagaId};

/// A command of one aggregate, as a step of a saga. [`command`] makes it.
pub struct LocalCommand(Box<dyn Execute>);

/// The command `command` of the aggregate called `id`, for [`Saga::local`](crate::Saga::local). A rejection refuses the step.
///
/// The tenant is that of the engine, whatever that of the repository is.
pub fn command<A, D>(repository: &Repository<A>, id: A::Id, command: D) -> LocalCommand
where
    A: Decide<D>,
    A::Id: 'static,
    A::Rejection: Display,
    D: Send + Sync + 'static,
{
    LocalCommand(Box::new(Typed { repository: repository.clone(), id, command }))
}

/// What the saga records about the outcome of the command; `None` if the step is not to be done any more.
pub(crate) type Record<'a> = &'a (dyn Fn(&Instance, Result<(), String>) -> Option<Vec<SagaEvent>> + Send + Sync);

/// The step was not to be done any more.
#[derive(Debug, thiserror::Error)]
#[error("the step is not to be done any more")]
pub(crate) struct NotDue;

/// Where the instance is recorded.
#[derive(Clone, Copy)]
pub(crate) struct InstanceAt<'a> {
    pub(crate) store: &'a Arc<dyn EventStore>,
    pub(crate) context: &'a Context,
    pub(crate) instances: &'a Repository<Instance>,
    pub(crate) id: &'a SagaId,
}

impl LocalCommand {
    /// Decides and appends: events of the aggregate and of the saga, or a refusal of the saga alone.
    pub(crate) async fn execute(self, at: InstanceAt<'_>, record: Record<'_>) -> Result<(), ExecuteError<NotDue>> {
        self.0.execute(at, record).await
    }
}

trait Execute: Send + Sync {
    fn execute<'a>(
        self: Box<Self>,
        at: InstanceAt<'a>,
        record: Record<'a>,
    ) -> BoxFuture<'a, Result<(), ExecuteError<NotDue>>>;
}

struct Typed<A: Decide<D>, D> {
    repository: Repository<A>,
    id: A::Id,
    command: D,
}

impl<A, D> Execute for Typed<A, D>
where
    A: Decide<D>,
    A::Id: 'static,
    A::Rejection: Display,
    D: Send + Sync + 'static,
{
    fn execute<'a>(
        self: Box<Self>,
        at: InstanceAt<'a>,
        record: Record<'a>,
    ) -> BoxFuture<'a, Result<(), ExecuteError<NotDue>>> {
        async move {
            let Self { repository, id, command } = *self;
            let decide = |instance: &Instance, state: &A| {
                let (events, outcome) = match state.decide(&command) {
                    Ok(events) => (events, Ok(())),
                    Err(rejection) => (Vec::new(), Err(rejection.to_string())),
                };
                Ok((record(instance, outcome).ok_or(NotDue)?, events))
            };
            at.store.execute_two(at.context, (at.instances, at.id), (&repository, &id), decide).await.map(drop)
        }
        .boxed()
    }
}
