//! What a reader keeps: the record of what it was given, and the checkpoint up to which the record counts.

use std::io;
use std::path::PathBuf;

use annals::engine::Incarnation;
use annals::{Checkpoint, EventId, Position};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::torture::Fault;
use crate::torture::fact::Fact;
use crate::torture::place::Place;
use crate::torture::record::{Facts, Mark, Record};

/// After so many facts a checkpoint is kept.
const SAVE_AFTER: usize = 500;

/// The checkpoint as it is stored.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Kept {
    incarnation: Option<Uuid>,
    position: i64,
    event_id: Option<Uuid>,
    record: Mark,
    done: bool,
}

pub(crate) struct Shelf {
    path: PathBuf,
    record: Record,
    kept: Kept,
    unsaved: usize,
}

impl Shelf {
    /// As it was when the checkpoint was kept last.
    pub(super) fn resume(place: &Place, reader: usize) -> Result<Self, Fault> {
        let path = place.checkpoint(reader);
        let kept = load(&path)?;
        Ok(Self { record: Record::resume(&place.delivered(reader), kept.record)?, path, kept, unsaved: 0 })
    }

    /// Where to go on; nothing if it has never read.
    pub(super) fn checkpoint(&self) -> Result<Option<Checkpoint>, Fault> {
        let Some(incarnation) = self.kept.incarnation else { return Ok(None) };
        Ok(Some(Checkpoint {
            incarnation: Incarnation(incarnation),
            position: Position::new(self.kept.position)?,
            event_id: self.kept.event_id.map(EventId::new).transpose()?,
        }))
    }

    pub(super) fn position(&self) -> u64 {
        self.kept.position.unsigned_abs()
    }

    /// Whether the last event of the run has come.
    pub(super) fn is_done(&self) -> bool {
        self.kept.done
    }

    /// Records an event.
    pub(super) fn add(&mut self, fact: &Fact) -> io::Result<()> {
        self.kept.done |= fact.is_last();
        self.unsaved += 1;
        self.record.add(fact)
    }

    /// Says how far the log has been read. Keeps that now and then, and at the end.
    pub(super) fn reached(&mut self, checkpoint: &Checkpoint) -> Result<(), Fault> {
        self.kept.incarnation = Some(checkpoint.incarnation.0);
        self.kept.position = checkpoint.position.get();
        self.kept.event_id = checkpoint.event_id.map(EventId::get);
        if self.unsaved >= SAVE_AFTER || self.kept.done {
            self.save()?;
        }
        Ok(())
    }

    /// Keeps the checkpoint, with the record up to it. Whoever is killed in between finds the one before.
    pub(super) fn save(&mut self) -> Result<(), Fault> {
        self.kept.record = self.record.mark()?;
        self.unsaved = 0;
        let new = self.path.with_extension("new");
        std::fs::write(&new, serde_json::to_vec(&self.kept)?)?;
        Ok(std::fs::rename(new, &self.path)?)
    }
}

fn load(path: &std::path::Path) -> Result<Kept, Fault> {
    match std::fs::read(path) {
        Ok(kept) => Ok(serde_json::from_slice(&kept)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Kept::default()),
        Err(error) => Err(error.into()),
    }
}

/// What a reader was given in all, for the judge.
pub(crate) fn judged(place: &Place, reader: usize) -> Result<Facts, Fault> {
    let kept = load(&place.checkpoint(reader))?;
    // A reader that has not come to its first checkpoint has no record that counts.
    let path = place.delivered(reader);
    Record::resume(&path, kept.record)?;
    Ok(Facts::upto(&path, kept.record)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_after_the_checkpoint_is_forgotten() -> Result<(), Fault> {
        let folder = tempfile::tempdir()?;
        let place = Place::new(folder.path());
        let facts: Vec<Fact> = (1..=900).map(|n| Fact { position: n, stream: 1_000, version: 1, tail: 1 }).collect();
        let incarnation = Incarnation(Uuid::from_u128(1));
        let at = |n: i64| -> Result<Checkpoint, Fault> {
            let event_id = Some(EventId::new(Uuid::from_u128(n.unsigned_abs().into()))?);
            Ok(Checkpoint { incarnation, position: Position::new(n)?, event_id })
        };
        let mut shelf = Shelf::resume(&place, 0)?;
        assert_eq!(shelf.checkpoint()?, None);
        for fact in &facts {
            shelf.add(fact)?;
            shelf.reached(&at(fact.position.cast_signed())?)?;
        }
        drop(shelf);
        let saved = SAVE_AFTER;
        let shelf = Shelf::resume(&place, 0)?;
        assert_eq!(shelf.checkpoint()?, Some(at(saved as i64)?));
        assert_eq!(judged(&place, 0)?.collect::<io::Result<Vec<_>>>()?, facts[..saved]);
        assert!(judged(&place, 1)?.next().is_none());
        Ok(())
    }
}
