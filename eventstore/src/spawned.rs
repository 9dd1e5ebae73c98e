//! A future in a task of its own.

use std::future::Future;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::FutureExt;
use tokio::task::JoinHandle;

use crate::error::BackendError;

/// Goes on while nobody polls it, so that it gives back what it holds; aborted when it is dropped.
pub(crate) struct Spawned<T>(JoinHandle<T>);

impl<T: Send + 'static> Spawned<T> {
    pub(crate) fn begin(run: impl Future<Output = T> + Send + 'static) -> Self {
        Self(tokio::spawn(run))
    }
}

impl<T> Future for Spawned<T> {
    /// The error is that the runtime has ended.
    type Output = Result<T, BackendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match ready!(self.0.poll_unpin(cx)) {
            Ok(done) => Ok(done),
            Err(failed) if failed.is_panic() => resume_unwind(failed.into_panic()),
            Err(cancelled) => Err(BackendError::new(cancelled)),
        })
    }
}

impl<T> Drop for Spawned<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
