//! Streams that somebody's open transaction keeps others from.
//!
//! Appends to such a stream go beside the writers, so that nobody behind them waits too, and one at a time, so that one
//! stream cannot take all connections.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;

use crate::stream::StreamId;

type Turn = Arc<tokio::sync::Mutex<()>>;

/// The streams of one handle that are held up.
#[derive(Clone, Default)]
pub(crate) struct BlockedStreams(Arc<Mutex<HashMap<StreamId, Turn>>>);

impl BlockedStreams {
    /// The line of those who append to the stream beside the writers, if it is held up.
    pub(crate) fn find(&self, stream: &StreamId) -> Option<StreamTurn> {
        let turn = Arc::clone(self.lock().get(stream)?);
        Some(StreamTurn { blocked_streams: self.clone(), stream: stream.clone(), turn: Some(turn) })
    }

    /// The same, which holds the stream up from now on.
    pub(crate) fn enter(&self, stream: &StreamId) -> StreamTurn {
        let turn = Arc::clone(self.lock().entry(stream.clone()).or_default());
        StreamTurn { blocked_streams: self.clone(), stream: stream.clone(), turn: Some(turn) }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StreamId, Turn>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the line of one stream. The last one to leave ends it.
pub(crate) struct StreamTurn {
    blocked_streams: BlockedStreams,
    stream: StreamId,
    turn: Option<Turn>,
}

impl StreamTurn {
    /// Waits until nobody before is left.
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
