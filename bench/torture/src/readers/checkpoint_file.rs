//! What a reader stores: the record of delivered events, and the checkpoint up to which the record counts.

use std::io;
use std::path::PathBuf;

use annals::engine::Incarnation;
use annals::{Checkpoint, EventId, Position};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Fault;
use crate::fact::Fact;
use crate::record::{Facts, Mark, Record};
use crate::run_folder::RunFolder;

/// The checkpoint is saved after this many facts.
const SAVE_AFTER: usize = 500;

/// The checkpoint as it is stored.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Saved {
    incarnation: Option<Uuid>,
    position: i64,
    event_id: Option<Uuid>,
    record: Mark,
    complete: bool,
}

pub(crate) struct CheckpointFile {
    path: PathBuf,
    record: Record,
    saved: Saved,
    unsaved: usize,
}

impl CheckpointFile {
    /// The state when the checkpoint was saved last.
    pub(super) fn resume(folder: &RunFolder, reader: usize) -> Result<Self, Fault> {
        let path = folder.checkpoint(reader);
        let saved = load(&path)?;
        Ok(Self { record: Record::resume(&folder.delivered(reader), saved.record)?, path, saved, unsaved: 0 })
    }

    /// The checkpoint to continue from; none if the reader has never saved one.
    pub(super) fn checkpoint(&self) -> Result<Option<Checkpoint>, Fault> {
        let Some(incarnation) = self.saved.incarnation else { return Ok(None) };
        Ok(Some(Checkpoint {
            incarnation: Incarnation(incarnation),
            position: Position::new(self.saved.position)?,
            event_id: self.saved.event_id.map(EventId::new).transpose()?,
        }))
    }

    pub(super) fn position(&self) -> u64 {
        self.saved.position.unsigned_abs()
    }

    /// Whether the last event of the run was delivered.
    pub(super) fn is_complete(&self) -> bool {
        self.saved.complete
    }

    /// Records a delivered event.
    pub(super) fn add(&mut self, fact: &Fact) -> io::Result<()> {
        self.saved.complete |= fact.is_last();
        self.unsaved += 1;
        self.record.add(fact)
    }

    /// Sets the checkpoint. Saves it now and then, and at the end.
    pub(super) fn set_checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), Fault> {
        self.saved.incarnation = Some(checkpoint.incarnation.0);
        self.saved.position = checkpoint.position.get();
        self.saved.event_id = checkpoint.event_id.map(EventId::get);
        if self.unsaved >= SAVE_AFTER || self.saved.complete {
            self.save()?;
        }
        Ok(())
    }

    /// Saves the checkpoint and the length of its record. After a kill in between, the old file is still there.
    pub(super) fn save(&mut self) -> Result<(), Fault> {
        self.saved.record = self.record.mark()?;
        self.unsaved = 0;
        let new = self.path.with_extension("new");
        std::fs::write(&new, serde_json::to_vec(&self.saved)?)?;
        Ok(std::fs::rename(new, &self.path)?)
    }
}

fn load(path: &std::path::Path) -> Result<Saved, Fault> {
    match std::fs::read(path) {
        Ok(saved) => Ok(serde_json::from_slice(&saved)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Saved::default()),
        Err(error) => Err(error.into()),
    }
}

/// Everything that was delivered to a reader.
pub(crate) fn delivered_facts(folder: &RunFolder, reader: usize) -> Result<Facts, Fault> {
    let saved = load(&folder.checkpoint(reader))?;
    // Without a checkpoint, nothing in the record counts.
    let path = folder.delivered(reader);
    Record::resume(&path, saved.record)?;
    Ok(Facts::until(&path, saved.record)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_after_the_checkpoint_are_dropped() -> Result<(), Fault> {
        let directory = tempfile::tempdir()?;
        let folder = RunFolder::new(directory.path());
        let facts: Vec<Fact> = (1..=900).map(|n| Fact { position: n, stream: 1_000, version: 1, tail: 1 }).collect();
        let incarnation = Incarnation(Uuid::from_u128(1));
        let at = |n: i64| -> Result<Checkpoint, Fault> {
            let event_id = Some(EventId::new(Uuid::from_u128(n.unsigned_abs().into()))?);
            Ok(Checkpoint { incarnation, position: Position::new(n)?, event_id })
        };
        let mut file = CheckpointFile::resume(&folder, 0)?;
        assert_eq!(file.checkpoint()?, None);
        for fact in &facts {
            file.add(fact)?;
            file.set_checkpoint(&at(fact.position.cast_signed())?)?;
        }
        drop(file);
        let file = CheckpointFile::resume(&folder, 0)?;
        assert_eq!(file.checkpoint()?, Some(at(SAVE_AFTER as i64)?));
        assert_eq!(delivered_facts(&folder, 0)?.collect::<io::Result<Vec<_>>>()?, facts[..SAVE_AFTER]);
        assert!(delivered_facts(&folder, 1)?.next().is_none());
        Ok(())
    }
}
