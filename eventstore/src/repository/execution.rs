//! One command from the request key to the answer, on the store itself or inside a transaction.

use std::sync::Arc;

use super::answer::{Executed, Loaded};
use super::cache::Known;
use super::error::ExecuteError;
use super::handle::Repository;
use super::reading::Reading;
use super::scope::CommandScope;
use super::settle::{SettleToken, Settled, settle};
use crate::aggregate::{Evolve, IntoEvents};
use crate::append::{Append, Appended};
use crate::error::{AppendError, ErrorFamily, Invalid, ReadError};
use crate::event::{EventId, NewEvent};
use crate::stream::{StreamId, StreamVersion};

/// One command: which repository, which stream.
pub(crate) struct Execution<'r, A: Evolve> {
    repository: &'r Repository<A>,
    stream: StreamId,
}

impl<'r, A: Evolve> Execution<'r, A> {
    /// A command on the aggregate called `id`.
    pub(crate) fn new(repository: &'r Repository<A>, id: &A::Id) -> Result<Self, Invalid> {
        Ok(Self { repository, stream: repository.stream(id)? })
    }

    /// Decides and appends, again after every conflict, as often as the repository allows.
    pub(crate) async fn run<S, T, R, F>(&self, scope: &mut S, decide: F) -> Result<Executed, ExecuteError<R>>
    where
        S: CommandScope,
        T: IntoEvents<A::Event>,
        F: Fn(&A) -> Result<T, R>,
    {
        if let Some(first) = self.first_answer(scope).await? {
            return Ok(first);
        }
        let cached = self.cached();
        // A transaction is read first: it sees what it has appended itself, which is in no cache.
        let mut is_fresh = S::IS_TRANSACTION || cached.is_none();
        let mut known = cached.unwrap_or_else(Known::start);
        if is_fresh {
            known = self.read_in_time(scope, known).await?;
        }
        let mut attempts = 1;
        loop {
            let decided = decide(&known.state).map(IntoEvents::into_events);
            if !is_fresh && !matches!(&decided, Ok(events) if !events.is_empty()) {
                // Only an append proves a cached state current, and here is nothing to append.
                drop(decided);
                known = self.read_in_time(scope, known).await?;
                is_fresh = true;
                continue;
            }
            let events = match decided {
                Ok(events) => events,
                Err(rejection) => {
                    // The same request may have been executed by another caller since the key was looked up, and be the reason why
                    // the domain now rejects it.
                    return self.first_answer(scope).await?.ok_or(ExecuteError::Rejected(rejection));
                }
            };
            let (append, next) = match self.repository.context().request() {
                None if events.is_empty() => return Ok(Executed::nothing(&self.stream, known.version)),
                Some(request) if events.is_empty() => {
                    (Append::request_only(self.stream.tenant().clone(), request.clone()), known.clone())
                }
                _ => {
                    let (new, next) = self.prepare(&known, &events)?;
                    (Append::to(self.stream.clone(), known.expected(), new), next)
                }
            };
            drop(events);
            match self.append(scope, self.in_context(append)).await {
                Ok(appended) => {
                    // What a transaction adds may never be committed.
                    if !S::IS_TRANSACTION && !appended.repeated {
                        self.remember(&next);
                    }
                    return Ok(self.answer(&appended, known.version)?);
                }
                Err(ExecuteError::Append(AppendError::WrongExpectedVersion { actual, .. }))
                    if attempts < self.repository.attempts =>
                {
                    attempts += 1;
                    tracing::debug!(stream = %self.stream, %actual, attempts, "another writer appended first, deciding again");
                    known = self.read_in_time(scope, known).await?;
                    is_fresh = true;
                }
                Err(e) => {
                    if e.family() == Some(ErrorFamily::Conflict) {
                        // Nothing was read after it.
                        self.repository.cache.evict(&self.stream);
                    }
                    return Err(e);
                }
            }
        }
    }

    /// The aggregate after its last event.
    pub(super) async fn load(self, scope: &mut impl CommandScope) -> Result<Loaded<A>, ReadError> {
        let known = self.cached().unwrap_or_else(Known::start);
        let Known { state, version, last_event } = self.read(scope, known).await?;
        Ok(Loaded { stream: self.stream, state, version, last_event })
    }

    /// The cached state of the aggregate.
    fn cached(&self) -> Option<Known<A>> {
        self.repository.cache.get(self.repository.store.incarnation(), &self.stream)
    }

    /// Takes the events after `known` into it, or all if the history of the stream has changed. Outside of a transaction
    /// the result is cached.
    async fn read<S: CommandScope>(&self, scope: &mut S, known: Known<A>) -> Result<Known<A>, ReadError> {
        let mut reading = Reading::on(known);
        loop {
            let (after, limit) = reading.next_page();
            let page = scope.load_page(&self.stream, after, limit).await?;
            if reading.take(&self.stream, page)? {
                break;
            }
        }
        if reading.is_anew {
            // A cached state of another history must not prevent caching a shorter one.
            self.repository.cache.evict(&self.stream);
        }
        if !S::IS_TRANSACTION {
            self.remember(&reading.known);
        }
        Ok(reading.known)
    }

    /// The same, but outside of a transaction not beyond the deadline of the command.
    async fn read_in_time<S, R>(&self, scope: &mut S, known: Known<A>) -> Result<Known<A>, ExecuteError<R>>
    where
        S: CommandScope,
    {
        let read = self.read(scope, known);
        match self.repository.context.deadline().filter(|_| !S::IS_TRANSACTION) {
            None => Ok(read.await?),
            Some(deadline) => match tokio::time::timeout_at(deadline, read).await {
                Ok(read) => Ok(read?),
                Err(_) => Err(AppendError::DeadlineExceeded { stream: self.stream.clone() }.into()),
            },
        }
    }

    /// The answer to this request, if it was executed before.
    async fn first_answer(&self, scope: &mut impl CommandScope) -> Result<Option<Executed>, AppendError> {
        let Some(request) = self.repository.context.request() else { return Ok(None) };
        let found = scope.find_request(self.stream.tenant(), request).await?;
        found.map(|appended| self.answer(&appended, StreamVersion::NONE)).transpose()
    }

    fn answer(&self, appended: &Appended, decided_on: StreamVersion) -> Result<Executed, AppendError> {
        Executed::of(appended, &self.stream, decided_on, self.repository.context.request())
    }

    /// Encodes events under new ids, and folds them into the state that they lead to.
    ///
    /// The events are folded as they would be read back. So an event that could be stored but not read, or on which
    /// `evolve` panics, is found before it is stored; and a cached state equals that of a later load.
    fn prepare(&self, known: &Known<A>, events: &[A::Event]) -> Result<(Vec<NewEvent>, Known<A>), Invalid> {
        let ids = self.repository.store.ids();
        let metadata = self.repository.metadata();
        let mut next = known.clone();
        let mut new = Vec::with_capacity(events.len());
        for event in events {
            let (event, copy) = NewEvent::with_copy(EventId::new(ids.next_id())?, event)?;
            Arc::make_mut(&mut next.state).evolve(&copy);
            new.push(event.with_metadata(metadata.clone()));
        }
        if let Some(version) = known.version.plus(events.len()) {
            next.version = version;
        }
        next.last_event = new.last().map_or(known.last_event, |event| Some(event.event_id));
        Ok((new, next))
    }

    /// The append under the request key and the deadline of the command.
    fn in_context(&self, mut append: Append) -> Append {
        let context = self.repository.context();
        if let Some(request) = context.request() {
            append = append.with_request(request.clone());
        }
        match context.deadline() {
            Some(deadline) => append.with_deadline(deadline),
            None => append,
        }
    }

    /// Appends, and outside of a transaction resolves an unknown outcome.
    async fn append<S: CommandScope, R>(&self, scope: &mut S, append: Append) -> Result<Appended, ExecuteError<R>> {
        let source = match scope.append_once(append.clone()).await {
            Err(AppendError::OutcomeUnknown { source, .. }) if !S::IS_TRANSACTION => source,
            known => return Ok(known?),
        };
        tracing::warn!(stream = %self.stream, error = %source, "an append has an unknown outcome, settling it");
        self.repository.cache.evict(&self.stream);
        let (store, deadline) = (&*self.repository.store, self.repository.context.deadline());
        match settle(store, &append, &self.stream, deadline, source).await {
            Settled::Known(known) => Ok(known?),
            Settled::Unknown(source) => Err(ExecuteError::OutcomeUnknown {
                stream: self.stream.clone(),
                token: SettleToken::new(self.stream.clone(), append),
                source,
            }),
        }
    }

    fn remember(&self, known: &Known<A>) {
        self.repository.cache.put(self.repository.store.incarnation(), &self.stream, known);
    }
}
