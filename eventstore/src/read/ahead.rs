//! One page under way while the consumer works on the one before.

use std::future::Future;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::task::JoinHandle;

use crate::error::{BackendError, ReadError};

/// The limit of the first page of the log; a reader that stops early has not read much for nothing.
pub(super) const FIRST_PAGE: usize = 64;

/// The limit of the first page of one stream: most aggregates are loaded in one round trip.
pub(super) const FIRST_STREAM_PAGE: usize = 256;

/// The largest limit of a later page.
const LARGEST_PAGE: usize = 4_096;

/// The limit of the page after one of `limit`.
pub(super) fn grown(limit: usize) -> usize {
    (limit * 4).min(LARGEST_PAGE)
}

/// At most one running read, kept between polls, so that a caller that stops polling does not lose its answer.
pub(super) struct Ahead<T> {
    reading: Option<BoxFuture<'static, Result<T, ReadError>>>,
}

impl<T: Send + 'static> Ahead<T> {
    pub(super) fn idle() -> Self {
        Self { reading: None }
    }

    /// Begins a read in its own task, which is aborted when this value is dropped.
    pub(super) fn begin(&mut self, read: impl Future<Output = Result<T, ReadError>> + Send + 'static) {
        self.reading = Some(Spawned(tokio::spawn(read)).boxed());
    }

    /// Waits for the read that is under way, or for the one that `start` makes if none is.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        start: impl FnOnce() -> BoxFuture<'static, Result<T, ReadError>>,
    ) -> Poll<Result<T, ReadError>> {
        let answer = ready!(self.reading.get_or_insert_with(start).poll_unpin(cx));
        self.reading = None;
        Poll::Ready(answer)
    }
}

/// A task that is aborted when this value is dropped.
struct Spawned<T>(JoinHandle<Result<T, ReadError>>);

impl<T> Future for Spawned<T> {
    type Output = Result<T, ReadError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match ready!(self.0.poll_unpin(cx)) {
            Ok(answer) => answer,
            Err(failed) if failed.is_panic() => resume_unwind(failed.into_panic()),
            Err(cancelled) => Err(ReadError::Unavailable { source: BackendError::new(cancelled) }),
        })
    }
}

impl<T> Drop for Spawned<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
