//! One command from the request key to the answer.

use std::sync::Arc;

use super::answer::Executed;
use super::cache::Known;
use super::error::ExecuteError;
use super::handle::Repository;
use super::reading::Reading;
use super::settle::{SettleToken, Settled, settle};
use crate::aggregate::{Evolve, IntoEvents};
use crate::append::{Append, Appended};
use crate::error::{AppendError, ErrorFamily, Invalid, ReadError};
use crate::event::{EventId, NewEvent};
use crate::stream::{StreamId, StreamVersion};

/// The work of one call: which repository, which stream.
pub(crate) struct Attempt<'r, A: Evolve> {
    pub(crate) repository: &'r Repository<A>,
    pub(crate) stream: StreamId,
}

impl<A: Evolve> Attempt<'_, A> {
    /// Decides and appends, again after every conflict, as often as the repository allows.
    pub(super) async fn execute<T, R, F>(&self, decide: F) -> Result<Executed, ExecuteError<R>>
    where
        T: IntoEvents<A::Event>,
        F: Fn(&A) -> Result<T, R>,
    {
        if let Some(first) = self.first_answer().await? {
            return Ok(first);
        }
        let cached = self.cached();
        let mut is_fresh = cached.is_none();
        let mut known = match cached {
            Some(known) => known,
            None => self.read_in_time(Known::start()).await?,
        };
        let mut attempts = 1;
        loop {
            let decided = decide(&known.state).map(IntoEvents::into_events);
            if !is_fresh && !matches!(&decided, Ok(events) if !events.is_empty()) {
                // Only an append proves a cached state current, and here is nothing to append.
                drop(decided);
                known = self.read_in_time(known).await?;
                is_fresh = true;
                continue;
            }
            let events = match decided {
                Ok(events) => events,
                Err(rejection) => {
                    // The very request may have been executed by another caller since the key was looked up, and be the
                    // reason why the domain now says no.
                    return match self.first_answer().await? {
                        Some(first) => Ok(first),
                        None => Err(ExecuteError::Rejected(rejection)),
                    };
                }
            };
            if events.is_empty() {
                return self.record_nothing(known.version).await;
            }
            let (new, next) = self.prepare(&known, &events)?;
            match self.append(self.append_of(&known, new)).await {
                Ok(appended) => {
                    if !appended.repeated {
                        self.remember(&next);
                    }
                    return Ok(self.answer(&appended, known.version)?);
                }
                Err(ExecuteError::Append(AppendError::WrongExpectedVersion { actual, .. }))
                    if attempts < self.repository.attempts =>
                {
                    attempts += 1;
                    tracing::debug!(stream = %self.stream, %actual, attempts, "another writer came first, deciding again");
                    known = self.read_in_time(known).await?;
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

    /// What is known of the aggregate without asking the store.
    pub(crate) fn cached(&self) -> Option<Known<A>> {
        self.repository.cache.get(self.repository.store.incarnation(), &self.stream)
    }

    /// Takes the events after `known` into it, or all if the stream has another history by now, and remembers the result.
    pub(super) async fn read(&self, known: Known<A>) -> Result<Known<A>, ReadError> {
        let mut reading = Reading::on(known);
        loop {
            let (after, limit) = reading.wanted();
            let page = self.repository.store.load_page(&self.stream, after, limit).await?;
            if reading.take(&self.stream, page)? {
                break;
            }
        }
        let known = self.finish(reading);
        self.remember(&known);
        Ok(known)
    }

    /// What was read. A cached state of another history must not stand in the way of a shorter one.
    pub(super) fn finish(&self, reading: Reading<A>) -> Known<A> {
        if reading.is_anew {
            self.repository.cache.evict(&self.stream);
        }
        reading.known
    }

    /// The same, but not beyond the deadline of the command.
    async fn read_in_time<R>(&self, known: Known<A>) -> Result<Known<A>, ExecuteError<R>> {
        let read = self.read(known);
        match self.repository.context.deadline() {
            None => Ok(read.await?),
            Some(deadline) => match tokio::time::timeout_at(deadline, read).await {
                Ok(read) => Ok(read?),
                Err(_) => Err(AppendError::DeadlineExceeded { stream: self.stream.clone() }.into()),
            },
        }
    }

    /// The answer to this request, if it was executed before.
    async fn first_answer(&self) -> Result<Option<Executed>, AppendError> {
        let Some(request) = self.repository.context.request() else { return Ok(None) };
        let found = self.repository.store.find_request(self.stream.tenant(), request).await?;
        found.map(|appended| self.answer(&appended, StreamVersion::NONE)).transpose()
    }

    pub(crate) fn answer(&self, appended: &Appended, decided_on: StreamVersion) -> Result<Executed, AppendError> {
        Executed::of(appended, &self.stream, decided_on, self.repository.context.request())
    }

    /// A command that led to no events: with a request key, that is remembered.
    async fn record_nothing<R>(&self, version: StreamVersion) -> Result<Executed, ExecuteError<R>> {
        let Some(request) = self.repository.context.request() else {
            return Ok(Executed::nothing(&self.stream, version));
        };
        let append = Append::nothing(self.stream.tenant().clone(), request.clone());
        let appended = self.append(self.in_time(append)).await?;
        Ok(self.answer(&appended, version)?)
    }

    /// Encodes events under new ids, and folds them into the state that they lead to.
    ///
    /// What is folded is what reading them back gives. So an event that could be stored but never read again, and one on
    /// which `evolve` panics, are found before they are stored; and a cached state is that of a later load.
    pub(crate) fn prepare(&self, known: &Known<A>, events: &[A::Event]) -> Result<(Vec<NewEvent>, Known<A>), Invalid> {
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

    pub(crate) fn append_of(&self, known: &Known<A>, new: Vec<NewEvent>) -> Append {
        let append = Append::to(self.stream.clone(), known.expected(), new);
        self.in_time(match self.repository.context.request() {
            Some(request) => append.with_request(request.clone()),
            None => append,
        })
    }

    fn in_time(&self, append: Append) -> Append {
        match self.repository.context.deadline() {
            Some(deadline) => append.with_deadline(deadline),
            None => append,
        }
    }

    /// Appends, and finds out what happened if the store cannot say at once.
    async fn append<R>(&self, append: Append) -> Result<Appended, ExecuteError<R>> {
        let store = &*self.repository.store;
        let source = match store.append_many(append.clone()).await {
            Err(AppendError::OutcomeUnknown { source, .. }) => source,
            known => return Ok(known?),
        };
        tracing::warn!(stream = %self.stream, error = %source, "an append has an unknown outcome, settling it");
        self.repository.cache.evict(&self.stream);
        match settle(store, &append, &self.stream, self.repository.context.deadline(), source).await {
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
