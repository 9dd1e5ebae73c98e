//! How a repository begins a load with a snapshot, and takes one.

use super::as_of::Last;
use super::cache::Known;
use super::handle::Repository;
use super::reading::read_to;
use super::scope::Direct;
use crate::aggregate::Evolve;
use crate::error::ReadError;
use crate::event::EventId;
use crate::snapshot::{Job, Snapshot, Snapshots, StoredSnapshot};
use crate::stream::{StreamId, StreamVersion};

/// How many snapshots of a stream are looked at before it is read without one.
const MOST_LOOKED_AT: usize = 8;

impl<A: Evolve> Repository<A> {
    /// The state of the latest snapshot that can be used; the state before the first event if there is none.
    pub(super) async fn latest_snapshot(&self, stream: &StreamId) -> Result<Known<A>, ReadError> {
        self.snapshot_within(stream, Last::Version(StreamVersion::stored(i64::MAX))).await
    }

    /// The same, of the past up to an event.
    ///
    /// The first snapshot of the handle is compared with its events before any is used, so that no state is ever given that
    /// an `evolve` without a raised fold number would make wrong. That costs one full read of a stream per handle; what is
    /// loaded meanwhile is read in full too.
    pub(super) async fn snapshot_within(&self, stream: &StreamId, last: Last) -> Result<Known<A>, ReadError> {
        let Some(snapshots) = self.snapshots.as_ref().filter(|snapshots| !snapshots.health.is_disabled()) else {
            return Ok(Known::start());
        };
        let Some(known) = self.usable(snapshots, stream, last).await else {
            tracing::debug!(%stream, key = &*snapshots.key, "no snapshot of this build can be used");
            snapshots.health.miss();
            return Ok(Known::start());
        };
        if snapshots.health.is_trusted() {
            snapshots.health.hit();
            return Ok(known);
        }
        let replayed = read_to(&mut Direct(&*self.store), stream, Known::start(), known.version).await?;
        snapshots.compare(stream, &known, &replayed);
        Ok(replayed)
    }

    async fn usable(&self, snapshots: &Snapshots<A>, stream: &StreamId, mut last: Last) -> Option<Known<A>> {
        let store = self.store.snapshots()?;
        for _ in 0..MOST_LOOKED_AT {
            let found = match last {
                Last::Version(version) => store.load_snapshot(stream, &snapshots.key, version).await,
                Last::Position(position) => store.load_snapshot_as_of(stream, &snapshots.key, position).await,
            };
            let found = match found {
                Ok(found) => found?,
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(%stream, error, "snapshots cannot be read; the stream is read from its first event");
                    return None;
                }
            };
            let version = found.snapshot.version;
            match snapshots.known(found) {
                Ok(known) => return Some(known),
                Err(why) => tracing::warn!(%stream, %version, why, "a snapshot is not used"),
            }
            // Positions rise with versions, so an event before this one is not after the position either.
            last = Last::Version(StreamVersion::stored(version.get() - 1));
        }
        None
    }

    /// Has a snapshot of a stored state saved, beside the commands.
    pub(super) fn take_snapshot(&self, stream: &StreamId, known: &Known<A>) {
        let (Some(snapshots), Some(store)) = (&self.snapshots, self.store.snapshots()) else { return };
        let Some(event_id) = known.last_event.filter(|_| !snapshots.health.is_disabled()) else { return };
        store.queue().offer(Job {
            store: self.store.clone(),
            health: snapshots.health.clone(),
            stream: stream.clone(),
            version: known.version,
            write: snapshots.writer(stream.clone(), known.clone(), event_id),
        });
    }
}

/// Writes a state as JSON, when it is called.
type Write = Box<dyn FnOnce() -> Result<Snapshot, String> + Send>;

impl<A: Evolve> Snapshots<A> {
    /// The state in a snapshot, or why it is not used.
    fn known(&self, found: StoredSnapshot) -> Result<Known<A>, String> {
        let StoredSnapshot { snapshot, is_in_log } = found;
        if !snapshot.is_intact() {
            return Err("its digest is not that of its row, which was changed by hand or is damaged".to_owned());
        }
        if !is_in_log {
            return Err(
                "the log does not have its event: the history has changed, by a restore or a failover".to_owned()
            );
        }
        let state = self.codec.decode(&snapshot.body).map_err(|e| format!("its state cannot be read: {e}"))?;
        let bytes = snapshot.body.as_str().len();
        Ok(Known {
            state: state.into(),
            version: snapshot.version,
            last_event: Some(snapshot.event_id),
            bytes,
            is_due: false,
        })
    }

    /// Compares a snapshot with what its events give.
    fn compare(&self, stream: &StreamId, snapshot: &Known<A>, replayed: &Known<A>) {
        if (replayed.version, replayed.last_event) != (snapshot.version, snapshot.last_event) {
            // The history has changed since the snapshot was read.
            self.health.miss();
            return;
        }
        if self.codec.is_same(&snapshot.state, &replayed.state) {
            self.health.trust();
            self.health.hit();
            return;
        }
        self.health.disable();
        self.health.miss();
        tracing::error!(
            aggregate = A::TYPE,
            %stream,
            version = %snapshot.version,
            fold = A::FOLD,
            "a snapshot gives another state than its events, so this process neither uses nor takes snapshots of this \
             aggregate any more; raise `fold` in `#[aggregate(..)]`, as `evolve` has changed"
        );
    }

    fn writer(&self, stream: StreamId, known: Known<A>, event_id: EventId) -> Write {
        let (codec, key) = (self.codec, self.key.clone());
        Box::new(move || {
            let body = codec.encode_faithfully(&known.state)?;
            Ok(Snapshot::new(stream, key, known.version, event_id, body))
        })
    }
}
