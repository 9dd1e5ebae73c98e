//! Commands inside a transaction, in which events and the user's own rows are stored together or not at all.

use async_trait::async_trait;

use super::answer::Executed;
use super::attempt::Attempt;
use super::cache::Known;
use super::error::ExecuteError;
use super::handle::Repository;
use super::reading::Reading;
use crate::aggregate::{Evolve, IntoEvents};
use crate::append::{Append, Appended};
use crate::error::{AppendError, Invalid, ReadError};
use crate::position::Incarnation;
use crate::request::RequestKey;
use crate::store::StreamPage;
use crate::stream::{StreamId, StreamVersion, Tenant};

/// What a transaction must be able to do so that commands can be executed in it.
#[async_trait]
pub(crate) trait Within: Send {
    /// The store that the transaction is one of.
    fn incarnation(&self) -> Incarnation;

    /// The events of the stream after a version, as the transaction sees them.
    async fn load(&mut self, stream: &StreamId, after: StreamVersion, limit: usize) -> Result<StreamPage, ReadError>;

    /// What is remembered of a request, in this transaction or an earlier one.
    async fn first_answer(&mut self, tenant: &Tenant, request: &RequestKey) -> Result<Option<Appended>, AppendError>;

    /// Appends; a conflict leaves the transaction usable.
    async fn append_within(&mut self, append: Append) -> Result<Appended, AppendError>;
}

/// Executes a command of the aggregate called `id` inside a transaction: again after every conflict, as often as the
/// repository allows.
pub(crate) async fn execute_within<A, T, R, F>(
    work: &mut impl Within,
    repository: &Repository<A>,
    id: &A::Id,
    decide: F,
) -> Result<Executed, ExecuteError<R>>
where
    A: Evolve,
    T: IntoEvents<A::Event>,
    F: Fn(&A) -> Result<T, R>,
{
    if repository.store().incarnation() != work.incarnation() {
        return Err(Invalid::new("repository", "is one of another store", "use one of this store").into());
    }
    let attempt = Attempt { repository, stream: repository.stream(id)? };
    let request = repository.context().request();
    if let Some(first) = first_answer(work, &attempt).await? {
        return Ok(first);
    }
    // What is cached is committed, so it is a beginning of what this transaction sees. What it adds itself is not
    // remembered: it may never be committed.
    let mut known = attempt.cached().unwrap_or_else(Known::start);
    let mut attempts = 1;
    loop {
        let mut reading = Reading::on(known);
        loop {
            let (after, limit) = reading.wanted();
            let page = work.load(&attempt.stream, after, limit).await?;
            if reading.take(&attempt.stream, page)? {
                break;
            }
        }
        known = attempt.finish(reading);
        let events = match decide(&known.state) {
            Ok(events) => events.into_events(),
            Err(rejection) => {
                // The very request may have been executed by another caller since the key was looked up, and be the
                // reason why the domain now says no.
                return first_answer(work, &attempt).await?.ok_or(ExecuteError::Rejected(rejection));
            }
        };
        let append = if !events.is_empty() {
            let (new, _) = attempt.prepare(&known, &events)?;
            attempt.append_of(&known, new)
        } else if let Some(request) = request {
            Append::nothing(attempt.stream.tenant().clone(), request.clone())
        } else {
            return Ok(Executed::nothing(&attempt.stream, known.version));
        };
        match work.append_within(append).await {
            Ok(appended) => return Ok(attempt.answer(&appended, known.version)?),
            // If the stream has another history by now, the next read finds that out.
            Err(AppendError::WrongExpectedVersion { .. }) if attempts < repository.attempts => attempts += 1,
            Err(e) => return Err(e.into()),
        }
    }
}

/// The answer to the request of the attempt, if it was executed before.
async fn first_answer<A: Evolve>(
    work: &mut impl Within,
    attempt: &Attempt<'_, A>,
) -> Result<Option<Executed>, AppendError> {
    let Some(request) = attempt.repository.context().request() else { return Ok(None) };
    let found = work.first_answer(attempt.stream.tenant(), request).await?;
    found.map(|appended| attempt.answer(&appended, StreamVersion::NONE)).transpose()
}
