//! The decision loop: one command from the request key to the answer, on the store itself or inside a transaction.

use std::future::Future;

use tokio::time::Instant;

use super::error::ExecuteError;
use super::observed::observed;
use super::scope::CommandScope;
use super::settle::{SettleToken, Settled, settle};
use super::turns::Turn;
use crate::append::{Append, Appended};
use crate::context::Context;
use crate::error::{AppendError, BackendError, ErrorFamily, Invalid, ReadError};
use crate::store::EventStore;
use crate::stream::{StreamId, StreamVersion};

/// What a command decides on: one aggregate, or several of one tenant.
pub(crate) trait Subject: Sync {
    /// Their states and versions.
    type States: Clone + Send + Sync;
    /// What was decided.
    type Events: Send + Sync;
    /// The answer to the command.
    type Answer;

    /// Waits until no earlier command runs on the same streams, not beyond `deadline`.
    fn take_turns(
        &self,
        deadline: Option<Instant>,
    ) -> impl Future<Output = Result<[Option<Turn<'_>>; 2], AppendError>> + Send;

    /// The states that are known without asking the store; `None` if there is one to read first.
    fn cached(&self) -> Option<Self::States>;

    /// The states before the first events.
    fn start(&self) -> Self::States;

    /// Reads on from `states`. Outside of a transaction the result is remembered.
    fn read<S: CommandScope>(
        &self,
        scope: &mut S,
        states: Self::States,
    ) -> impl Future<Output = Result<Self::States, ReadError>> + Send;

    /// How many of the aggregates get events.
    fn changed(&self, events: &Self::Events) -> Changed;

    /// The append of events, of which there are some, and the states that they lead to.
    fn append(&self, states: &Self::States, events: &Self::Events) -> Result<(Append, Self::States), Invalid>;

    /// Their streams, at the versions of the states.
    fn versions(&self, states: &Self::States) -> Vec<(StreamId, StreamVersion)>;

    fn remember(&self, states: &Self::States);

    /// Forgets what is cached.
    fn evict(&self);

    /// The stream that errors name.
    fn stream(&self) -> &StreamId;

    /// Refuses the first answer to a request that was another one.
    fn check_ours(&self, appended: &Appended) -> Result<(), AppendError>;

    /// Reads the states at the versions of an answer.
    fn read_at<S: CommandScope>(
        &self,
        scope: &mut S,
        appended: &Appended,
    ) -> impl Future<Output = Result<Self::States, ReadError>> + Send;

    /// What the store's answer means, with the states at its versions.
    fn answer(&self, appended: &Appended, states: Self::States) -> Self::Answer;

    /// The answer to a command without events and without a request key.
    fn nothing(&self, states: &Self::States) -> Self::Answer;
}

/// How many aggregates of a command get events.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Changed {
    None,
    Some,
    All,
}

/// In which circumstances a command is executed.
#[derive(Clone, Copy)]
pub(crate) struct Circumstances<'c> {
    /// The store that settles unknown outcomes.
    pub(crate) store: &'c dyn EventStore,
    pub(crate) context: &'c Context,
    /// How often to decide.
    pub(crate) attempts: u32,
}

/// Decides and appends, again after every conflict, as often as the circumstances allow.
pub(crate) async fn execute<S, P, R>(
    scope: &mut S,
    subject: &P,
    circumstances: Circumstances<'_>,
    decide: impl Fn(&P::States) -> Result<P::Events, R>,
) -> Result<P::Answer, ExecuteError<R>>
where
    S: CommandScope,
    P: Subject,
{
    let Circumstances { context, attempts: most, .. } = circumstances;
    if let Some(first) = first_answer(scope, subject, context).await? {
        return Ok(first);
    }
    // Kept until the command has its answer, so that others of this process lose no race against it. A transaction has locks of
    // its own in the database, which commands that keep a turn may wait for.
    let _turns = match S::IS_TRANSACTION {
        true => [None, None],
        false => subject.take_turns(context.deadline()).await?,
    };
    let cached = subject.cached();
    // A transaction is read first: it sees what it has appended itself, which is in no cache.
    let mut is_fresh = S::IS_TRANSACTION || cached.is_none();
    let mut states = cached.unwrap_or_else(|| subject.start());
    if is_fresh {
        states = read_in_time(scope, subject, context, states).await?;
    }
    let mut attempts = 1;
    loop {
        let decided = decide(&states);
        let changed = decided.as_ref().map_or(Changed::None, |events| subject.changed(events));
        if !is_fresh && changed != Changed::All {
            // Only an append proves a cached state current, and here is nothing to append to one of the streams.
            drop(decided);
            states = read_in_time(scope, subject, context, states).await?;
            is_fresh = true;
            continue;
        }
        let events = match decided {
            Ok(events) => events,
            Err(rejection) => {
                // The very request may have been executed by another caller since the key was looked up, and be the
                // reason why the domain now rejects it.
                let first = first_answer(scope, subject, context).await?;
                return first.ok_or(ExecuteError::Rejected(rejection));
            }
        };
        let (append, next) = match (changed, context.request()) {
            (Changed::None, None) => return Ok(subject.nothing(&states)),
            (Changed::None, Some(request)) => {
                let streams = subject.versions(&states);
                (Append::request_about(context.tenant().clone(), request.clone(), streams), states.clone())
            }
            _ => subject.append(&states, &events)?,
        };
        drop(events);
        let append = in_context(append, context);
        let appended = append_in(scope, subject, circumstances, &append);
        match observed(subject.stream(), context, appended).await {
            // Without a request key a repeat is that of the same events, so their state is the one.
            Ok(appended) if appended.repeated && context.request().is_some() => {
                // With this token it is the same append, which is answered as this one was.
                let source = BackendError::new("the deadline passed before the state of the first answer was read");
                let late = || unknown(subject.stream(), append, source);
                return in_time::<S, _, _>(context, again(scope, subject, &appended), late).await;
            }
            Ok(appended) => {
                // What a transaction adds may never be committed.
                if !S::IS_TRANSACTION && !appended.repeated {
                    subject.remember(&next);
                }
                return Ok(subject.answer(&appended, next));
            }
            Err(ExecuteError::Append(AppendError::WrongExpectedVersion { stream, actual, .. })) if attempts < most => {
                attempts += 1;
                tracing::debug!(%stream, %actual, attempts, "another writer appended first, deciding again");
                states = read_in_time(scope, subject, context, states).await?;
                is_fresh = true;
            }
            Err(e) => {
                if e.family() == Some(ErrorFamily::Conflict) {
                    // Nothing was read after it.
                    subject.evict();
                }
                return Err(e);
            }
        }
    }
}

/// Waits for `run`; outside of a transaction not beyond the deadline of the command, which then fails with `late`.
async fn in_time<S: CommandScope, T, E>(
    context: &Context,
    run: impl Future<Output = Result<T, E>>,
    late: impl FnOnce() -> E,
) -> Result<T, E> {
    match context.deadline().filter(|_| !S::IS_TRANSACTION) {
        None => run.await,
        Some(deadline) => tokio::time::timeout_at(deadline, run).await.unwrap_or_else(|_| Err(late())),
    }
}

fn not_sent<R>(subject: &impl Subject) -> ExecuteError<R> {
    AppendError::DeadlineExceeded { stream: subject.stream().clone() }.into()
}

async fn read_in_time<S: CommandScope, P: Subject, R>(
    scope: &mut S,
    subject: &P,
    context: &Context,
    states: P::States,
) -> Result<P::States, ExecuteError<R>> {
    let read = async { Ok(subject.read(scope, states).await?) };
    in_time::<S, _, _>(context, read, || not_sent(subject)).await
}

/// The answer to this request, if it was executed before.
async fn first_answer<S: CommandScope, P: Subject, R>(
    scope: &mut S,
    subject: &P,
    context: &Context,
) -> Result<Option<P::Answer>, ExecuteError<R>> {
    let Some(request) = context.request() else { return Ok(None) };
    let look = async {
        match scope.find_request(context.tenant(), request).await? {
            Some(appended) => again(scope, subject, &appended).await.map(Some),
            None => Ok(None),
        }
    };
    in_time::<S, _, _>(context, look, || not_sent(subject)).await
}

/// The answer to what was executed before.
pub(super) async fn again<P: Subject, R>(
    scope: &mut impl CommandScope,
    subject: &P,
    appended: &Appended,
) -> Result<P::Answer, ExecuteError<R>> {
    subject.check_ours(appended)?;
    let states = subject.read_at(scope, appended).await?;
    Ok(subject.answer(appended, states))
}

/// The append under the request key and the deadline of the command.
fn in_context(mut append: Append, context: &Context) -> Append {
    if let Some(request) = context.request() {
        append = append.with_request(request.clone());
    }
    match context.deadline() {
        Some(deadline) => append.with_deadline(deadline),
        None => append,
    }
}

/// Appends, and outside of a transaction resolves an unknown outcome.
async fn append_in<S: CommandScope, R>(
    scope: &mut S,
    subject: &impl Subject,
    circumstances: Circumstances<'_>,
    append: &Append,
) -> Result<Appended, ExecuteError<R>> {
    let source = match scope.append_once(append.clone()).await {
        Err(AppendError::OutcomeUnknown { source, .. }) if !S::IS_TRANSACTION => source,
        known => return Ok(known?),
    };
    let stream = subject.stream();
    tracing::warn!(%stream, error = %source, "an append has an unknown outcome, settling it");
    subject.evict();
    match settle(circumstances.store, append, stream, circumstances.context.deadline(), source).await {
        Settled::Known(known) => Ok(known?),
        Settled::Unknown(source) => Err(unknown(stream, append.clone(), source)),
    }
}

fn unknown<R>(stream: &StreamId, append: Append, source: BackendError) -> ExecuteError<R> {
    let token = SettleToken::new(stream.clone(), append);
    ExecuteError::OutcomeUnknown { stream: stream.clone(), token, source }
}
