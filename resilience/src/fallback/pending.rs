use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::future::BoxFuture;

use super::{Cached, Entry};
use crate::class::Judge;
use crate::error::CallError;
use crate::policy::{Call, Pending};

impl<'a, F, J> Pending<'a, F, J> {
    /// Gives `value` where there is no answer, unless the call itself was at fault.
    #[must_use = "a call is made when it is awaited"]
    pub fn or_value<T, E, Fut>(self, value: T) -> BoxFuture<'a, Result<T, CallError<E>>>
    where
        F: FnMut(Call) -> Fut + Send + 'a,
        Fut: Future<Output = Result<T, E>> + Send + 'a,
        J: Judge<T, E> + Send + Sync + 'a,
        T: Send + 'a,
        E: Send + 'a,
    {
        let call = self.into_future();
        Box::pin(async move { call.await.or_else(|error| value_unless_at_fault(error, value)) })
    }

    /// Asks `other` where there is no answer, unless the call itself was at fault.
    #[must_use = "a call is made when it is awaited"]
    pub fn or_else<T, E, Fut, Other>(
        self,
        other: impl FnOnce(CallError<E>) -> Other + Send + 'a,
    ) -> BoxFuture<'a, Result<T, CallError<E>>>
    where
        F: FnMut(Call) -> Fut + Send + 'a,
        Fut: Future<Output = Result<T, E>> + Send + 'a,
        J: Judge<T, E> + Send + Sync + 'a,
        Other: Future<Output = Result<T, CallError<E>>> + Send + 'a,
        T: Send + 'a,
        E: Send + 'a,
    {
        let call = self.into_future();
        Box::pin(async move {
            match call.await {
                Err(error) if !error.call_at_fault() => other(error).await,
                answer => answer,
            }
        })
    }

    /// Gives the fresh answer of a cache without a call, and a stale one where the call gives none, unless the call itself
    /// was at fault.
    pub fn or_cached<T, E, Fut>(self, entry: &'a Entry<T>) -> OrCached<'a, T, E>
    where
        F: FnMut(Call) -> Fut + Send + 'a,
        Fut: Future<Output = Result<T, E>> + Send + 'a,
        J: Judge<T, E> + Send + Sync + 'a,
        T: Clone + Send + Sync + 'a,
        E: Send + 'a,
    {
        let (policy, deadline) = self.wait();
        // Waiting for another caller's answer takes from the time of the call that may follow.
        OrCached { answer: Box::pin(entry.get(policy, deadline, self.deadline(deadline).into_future())) }
    }
}

fn value_unless_at_fault<T, E>(error: CallError<E>, value: T) -> Result<T, CallError<E>> {
    if error.call_at_fault() { Err(error) } else { Ok(value) }
}

/// A call behind a cache, from [`Pending::or_cached`].
#[must_use = "a call is made when it is awaited"]
pub struct OrCached<'a, T, E> {
    answer: BoxFuture<'a, Result<Cached<T>, CallError<E>>>,
}

impl<'a, T: Send + 'a, E: Send + 'a> OrCached<'a, T, E> {
    /// Gives `value` where there is neither an answer nor a stale one, unless the call itself was at fault. It is never
    /// stored.
    pub fn or_value(self, value: T) -> Self {
        let answer = self.answer;
        let last_resort = Cached { value, age: None, stale: true };
        Self {
            answer: Box::pin(async move { answer.await.or_else(|error| value_unless_at_fault(error, last_resort)) }),
        }
    }
}

impl<T, E> Future for OrCached<'_, T, E> {
    type Output = Result<Cached<T>, CallError<E>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.answer.as_mut().poll(context)
    }
}

impl<T, E> fmt::Debug for OrCached<'_, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrCached").finish_non_exhaustive()
    }
}
