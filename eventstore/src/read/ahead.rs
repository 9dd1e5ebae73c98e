//! One page under way while the consumer works on the one before.

use std::future::Future;
use std::task::{Context, Poll, ready};

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::error::ReadError;
use crate::spawned::Spawned;

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

/// At most one running read, kept between polls, so that a caller that stops polling does not lose its answer. It is in a task of
/// its own, so that it also comes to its end, and gives back its connection, while nobody polls it.
pub(super) struct Ahead<T> {
    reading: Option<Spawned<Result<T, ReadError>>>,
}

impl<T: Send + 'static> Ahead<T> {
    pub(super) fn idle() -> Self {
        Self { reading: None }
    }

    /// Begins a read, which is aborted when this value is dropped.
    pub(super) fn begin(&mut self, read: impl Future<Output = Result<T, ReadError>> + Send + 'static) {
        self.reading = Some(Spawned::begin(read));
    }

    /// Waits for the read that is under way, or for the one that `start` makes if none is.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        start: impl FnOnce() -> BoxFuture<'static, Result<T, ReadError>>,
    ) -> Poll<Result<T, ReadError>> {
        let reading = match &mut self.reading {
            Some(reading) => reading,
            none => {
                let mut read = start();
                // One that need not wait needs no task.
                if let Poll::Ready(answer) = read.poll_unpin(cx) {
                    return Poll::Ready(answer);
                }
                none.insert(Spawned::begin(read))
            }
        };
        let answer = ready!(reading.poll_unpin(cx));
        self.reading = None;
        Poll::Ready(answer.unwrap_or_else(|source| Err(ReadError::Unavailable { source })))
    }
}
