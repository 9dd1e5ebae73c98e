//! What a command decides on: one aggregate, or two of one store.

use std::sync::Arc;

use tokio::time::Instant;

use super::answer::{Executed, Loaded};
use super::as_of::Last;
use super::cache::Known;
use super::decision::{Changed, Subject, execute};
use super::error::ExecuteError;
use super::handle::Repository;
use super::reading::{Reading, read_to};
use super::scope::CommandScope;
use super::turns::Turn;
use crate::aggregate::{Evolve, IntoEvents};
use crate::append::{Append, Appended};
use crate::error::{AppendError, Invalid, ReadError};
use crate::event::{EventId, NewEvent};
use crate::request::RequestKey;
use crate::stream::{StreamId, StreamVersion};

/// One aggregate: which repository, which stream.
pub(crate) struct One<'r, A: Evolve> {
    repository: &'r Repository<A>,
    stream: StreamId,
}

impl<'r, A: Evolve> One<'r, A> {
    /// The aggregate called `id`.
    pub(crate) fn new(repository: &'r Repository<A>, id: &A::Id) -> Result<Self, Invalid> {
        Ok(Self { repository, stream: repository.stream(id)? })
    }

    /// Executes a command on it.
    pub(crate) async fn execute<S, T, R, F>(&self, scope: &mut S, decide: F) -> Result<Executed<A>, ExecuteError<R>>
    where
        S: CommandScope,
        T: IntoEvents<A::Event>,
        F: Fn(&A) -> Result<T, R>,
    {
        let circumstances = self.repository.circumstances();
        execute(scope, self, circumstances, move |known| decide(&known.state).map(IntoEvents::into_events)).await
    }

    /// The aggregate after its last event.
    pub(super) async fn load(self, scope: &mut impl CommandScope) -> Result<Loaded<A>, ReadError> {
        let known = self.cached().unwrap_or_else(Known::start);
        let Known { state, version, last_event, .. } = self.read(scope, known).await?;
        Ok(Loaded { stream: self.stream, state, version, last_event })
    }

    /// The aggregate of a stream of the repository's kind.
    pub(super) fn of_stream(repository: &'r Repository<A>, stream: StreamId) -> Self {
        Self { repository, stream }
    }

    /// An answer about other streams alone belongs to another request.
    pub(super) fn check_request(&self, appended: &Appended, request: Option<&RequestKey>) -> Result<(), AppendError> {
        let ours = appended.streams.is_empty() || appended.streams.iter().any(|s| s.stream == self.stream);
        request.filter(|_| !ours).map_or(Ok(()), |request| Err(self.reused(request)))
    }

    /// The key was used for a request about other streams.
    fn reused(&self, request: &RequestKey) -> AppendError {
        AppendError::RequestKeyReused { tenant: self.stream.tenant().clone(), key: request.key().to_owned() }
    }

    /// Its turn among the commands on it.
    async fn turn(&self, deadline: Option<Instant>) -> Result<Turn<'_>, AppendError> {
        self.repository.turns.take(&self.stream, deadline, self.repository.store()).await
    }

    /// Folds the events up to `version`, from a snapshot below it if there is one.
    async fn fold_to<S: CommandScope>(&self, scope: &mut S, version: StreamVersion) -> Result<Known<A>, ReadError> {
        let known = match S::IS_TRANSACTION {
            true => Known::start(),
            false => self.repository.snapshot_within(&self.stream, Last::Version(version)).await?,
        };
        read_to(scope, &self.stream, known, version).await
    }

    /// Encodes events under new ids, and folds them into the state that they lead to.
    ///
    /// What is folded is what reading them back gives. So an event that could be stored but never read again, and one on
    /// which `evolve` panics, are found before they are stored; and a cached state is that of a later load.
    fn prepare(&self, known: &Known<A>, events: &[A::Event]) -> Result<(Vec<NewEvent>, Known<A>), Invalid> {
        let ids = self.repository.store.ids();
        let metadata = self.repository.metadata();
        let mut next = known.clone();
        let mut new = Vec::with_capacity(events.len());
        for event in events {
            let (event, copy) = NewEvent::with_copy(EventId::new(ids.next_id())?, event)?;
            Arc::make_mut(&mut next.state).evolve(&copy);
            next.bytes += event.payload.as_str().len();
            new.push(event.with_metadata(metadata.clone()));
        }
        if let Some(version) = known.version.plus(events.len()) {
            next.version = version;
        }
        next.last_event = new.last().map_or(known.last_event, |event| Some(event.event_id));
        next.is_due = A::SNAPSHOT.is_due_after(known.version.get(), new.iter().map(|event| &*event.name));
        Ok((new, next))
    }
}

impl<A: Evolve> Subject for One<'_, A> {
    type States = Known<A>;
    type Events = Vec<A::Event>;
    type Answer = Executed<A>;

    async fn take_turns(&self, deadline: Option<Instant>) -> Result<[Option<Turn<'_>>; 2], AppendError> {
        Ok([Some(self.turn(deadline).await?), None])
    }

    fn cached(&self) -> Option<Known<A>> {
        self.repository.cache.get(self.repository.store.incarnation(), &self.stream)
    }

    fn start(&self) -> Known<A> {
        Known::start()
    }

    /// Takes the events after `known` into it, or all if the stream has another history by now. Where nothing is known, it
    /// begins with a snapshot; not in a transaction, which a statement that fails would abort.
    async fn read<S: CommandScope>(&self, scope: &mut S, mut known: Known<A>) -> Result<Known<A>, ReadError> {
        if known.version == StreamVersion::NONE && !S::IS_TRANSACTION {
            known = self.repository.latest_snapshot(&self.stream).await?;
        }
        let begun = known.version;
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
            self.evict();
        }
        if !S::IS_TRANSACTION {
            let begun = if reading.is_anew { StreamVersion::NONE } else { begun };
            reading.known.is_due = A::SNAPSHOT.is_due_after_load(reading.known.version.get() - begun.get());
            self.remember(&reading.known);
            reading.known.is_due = false;
        }
        Ok(reading.known)
    }

    fn changed(&self, events: &Vec<A::Event>) -> Changed {
        if events.is_empty() { Changed::None } else { Changed::All }
    }

    fn append(&self, known: &Known<A>, events: &Vec<A::Event>) -> Result<(Append, Known<A>), Invalid> {
        let (new, next) = self.prepare(known, events)?;
        Ok((Append::to(self.stream.clone(), known.expected(), new), next))
    }

    fn versions(&self, known: &Known<A>) -> Vec<(StreamId, StreamVersion)> {
        vec![(self.stream.clone(), known.version)]
    }

    fn remember(&self, known: &Known<A>) {
        self.repository.cache.put(self.repository.store.incarnation(), &self.stream, known);
        if known.is_due {
            self.repository.take_snapshot(&self.stream, known);
        }
    }

    fn evict(&self) {
        self.repository.cache.evict(&self.stream);
    }

    fn stream(&self) -> &StreamId {
        &self.stream
    }

    fn check_ours(&self, appended: &Appended) -> Result<(), AppendError> {
        self.check_request(appended, self.repository.context().request())
    }

    async fn read_at<S: CommandScope>(&self, scope: &mut S, appended: &Appended) -> Result<Known<A>, ReadError> {
        let known = self.read(scope, self.cached().unwrap_or_else(Known::start)).await?;
        match appended.streams.iter().find(|s| s.stream == self.stream) {
            // Other commands came since.
            Some(ours) if ours.version < known.version => self.fold_to(scope, ours.version).await,
            Some(ours) if ours.version > known.version => Err(ReadError::Damaged {
                position: appended.position,
                what: format!(
                    "`{}` ends with {}, and the answer to a request is {}",
                    self.stream, known.version, ours.version
                ),
            }),
            _ => Ok(known),
        }
    }

    fn answer(&self, appended: &Appended, known: Known<A>) -> Executed<A> {
        Executed::of(appended, &self.stream, known)
    }

    fn nothing(&self, known: &Known<A>) -> Executed<A> {
        Executed::nothing(&self.stream, known)
    }
}

/// Two aggregates of one tenant.
pub(super) struct Two<'r, A: Evolve, B: Evolve> {
    first: One<'r, A>,
    second: One<'r, B>,
}

impl<'r, A: Evolve, B: Evolve> Two<'r, A, B> {
    /// Refuses one aggregate twice: both decisions would expect the same version.
    pub(super) fn new(first: One<'r, A>, second: One<'r, B>) -> Result<Self, Invalid> {
        if first.stream == second.stream {
            let fix = "give two aggregates, or decide on the one by `execute`";
            return Err(Invalid::new("second", format!("is `{}`, as is the first", first.stream), fix));
        }
        Ok(Self { first, second })
    }
}

impl<A: Evolve, B: Evolve> Subject for Two<'_, A, B> {
    type States = (Known<A>, Known<B>);
    type Events = (Vec<A::Event>, Vec<B::Event>);
    type Answer = (Executed<A>, Executed<B>);

    /// In the order of the streams, so that no two commands wait for each other.
    async fn take_turns(&self, deadline: Option<Instant>) -> Result<[Option<Turn<'_>>; 2], AppendError> {
        let (first, second) = if self.first.stream < self.second.stream {
            let first = self.first.turn(deadline).await?;
            (first, self.second.turn(deadline).await?)
        } else {
            let second = self.second.turn(deadline).await?;
            (self.first.turn(deadline).await?, second)
        };
        Ok([Some(first), Some(second)])
    }

    fn cached(&self) -> Option<(Known<A>, Known<B>)> {
        Some((self.first.cached()?, self.second.cached()?))
    }

    fn start(&self) -> (Known<A>, Known<B>) {
        (self.first.cached().unwrap_or_else(Known::start), self.second.cached().unwrap_or_else(Known::start))
    }

    async fn read<S: CommandScope>(
        &self,
        scope: &mut S,
        (first, second): (Known<A>, Known<B>),
    ) -> Result<(Known<A>, Known<B>), ReadError> {
        Ok((self.first.read(scope, first).await?, self.second.read(scope, second).await?))
    }

    fn changed(&self, (first, second): &Self::Events) -> Changed {
        match (first.is_empty(), second.is_empty()) {
            (true, true) => Changed::None,
            (false, false) => Changed::All,
            _ => Changed::Some,
        }
    }

    fn append(&self, states: &Self::States, events: &Self::Events) -> Result<(Append, Self::States), Invalid> {
        let (first, first_next) = self.first.prepare(&states.0, &events.0)?;
        let (second, second_next) = self.second.prepare(&states.1, &events.1)?;
        let to_first = |events| Append::to(self.first.stream.clone(), states.0.expected(), events);
        let (second_stream, second_expected) = (self.second.stream.clone(), states.1.expected());
        let append = match (first.is_empty(), second.is_empty()) {
            (true, _) => Append::to(second_stream, second_expected, second),
            (_, true) => to_first(first),
            _ => to_first(first).and(second_stream, second_expected, second),
        };
        Ok((append, (first_next, second_next)))
    }

    fn versions(&self, states: &Self::States) -> Vec<(StreamId, StreamVersion)> {
        vec![(self.first.stream.clone(), states.0.version), (self.second.stream.clone(), states.1.version)]
    }

    fn remember(&self, states: &Self::States) {
        self.first.remember(&states.0);
        self.second.remember(&states.1);
    }

    fn evict(&self) {
        self.first.evict();
        self.second.evict();
    }

    fn stream(&self) -> &StreamId {
        &self.first.stream
    }

    fn check_ours(&self, appended: &Appended) -> Result<(), AppendError> {
        let ours = [&self.first.stream, &self.second.stream];
        let request = self.first.repository.context().request();
        let foreign = || appended.streams.iter().any(|s| !ours.contains(&&s.stream));
        request.filter(|_| foreign()).map_or(Ok(()), |request| Err(self.first.reused(request)))
    }

    async fn read_at<S: CommandScope>(&self, scope: &mut S, appended: &Appended) -> Result<Self::States, ReadError> {
        Ok((self.first.read_at(scope, appended).await?, self.second.read_at(scope, appended).await?))
    }

    fn answer(&self, appended: &Appended, states: Self::States) -> Self::Answer {
        (self.first.answer(appended, states.0), self.second.answer(appended, states.1))
    }

    fn nothing(&self, states: &Self::States) -> Self::Answer {
        (self.first.nothing(&states.0), self.second.nothing(&states.1))
    }
}
