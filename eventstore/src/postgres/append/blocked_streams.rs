//! Streams that are blocked by another open transaction.
//!
//! Appends to such a stream bypass the writers, so that later appends to other streams do not wait. They run one at a time,
//! so that one stream cannot take all connections.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;

use crate::stream::StreamId;

type Turn = Arc<tokio::sync::Mutex<()>>;

/// The blocked streams of one handle.
#[derive(Clone, Default)]
pub(crate) struct BlockedStreams(Arc<Mutex<HashMap<StreamId, Turn>>>);

impl BlockedStreams {
    /// The queue of appends to the stream that bypass the writers, if it is blocked.
    pub(crate) fn find(&self, stream: &StreamId) -> Option<StreamTurn> {
        let turn = Arc::clone(self.lock().get(stream)?);
        Some(StreamTurn { blocked_streams: self.clone(), stream: stream.clone(), turn: Some(turn) })
    }

    /// The same; marks the stream as blocked.
    pub(crate) fn enter(&self, stream: &StreamId) -> StreamTurn {
        let turn = Arc::clone(self.lock().entry(stream.clone()).or_default());
        StreamTurn { blocked_streams: self.clone(), stream: stream.clone(), turn: Some(turn) }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StreamId, Turn>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the queue of one stream. When the last is dropped, the stream is no longer blocked.
pub(crate) struct StreamTurn {
    blocked_streams: BlockedStreams,
    stream: StreamId,
    turn: Option<Turn>,
}

impl StreamTurn {
    /// Waits until all earlier ones are done.
    pub(crate) async fn turn(&self) -> OwnedMutexGuard<()> {
        let turn = self.turn.as_ref().expect("it is there until the drop");
        Arc::clone(turn).lock_owned().await
    }
}

impl Drop for StreamTurn {
    fn drop(&mut self) {
        let mut streams = self.blocked_streams.lock();
        drop(self.turn.take());
        if streams.get(&self.stream).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            streams.remove(&self.stream);
        }
    }
}
