//! Files of facts, about ten bytes each.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::fact::Fact;

/// The length of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// In bytes.
    pub(crate) offset: u64,
    /// The position of the last fact. The next fact is stored as the difference to it.
    last: u64,
}

/// A record open for writing.
pub(crate) struct Record {
    file: BufWriter<File>,
    at: Mark,
}

impl Record {
    /// The record in this file, cut off at `mark`.
    pub(crate) fn resume(path: &Path, mark: Mark) -> io::Result<Self> {
        let mut file = File::options().create(true).truncate(false).write(true).open(path)?;
        file.set_len(mark.offset)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self { file: BufWriter::new(file), at: mark })
    }

    pub(crate) fn add(&mut self, fact: &Fact) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(24);
        put(&mut bytes, zigzag(fact.position.wrapping_sub(self.at.last).cast_signed()));
        put(&mut bytes, fact.stream.into());
        put(&mut bytes, fact.version.into());
        bytes.extend(fact.tail.to_le_bytes());
        self.at = Mark { offset: self.at.offset + bytes.len() as u64, last: fact.position };
        self.file.write_all(&bytes)
    }

    /// Writes everything to the file, and returns its length.
    pub(crate) fn mark(&mut self) -> io::Result<Mark> {
        self.file.flush()?;
        Ok(self.at)
    }
}

/// The facts of a record up to a mark, in the order in which they were added.
pub(crate) struct Facts {
    bytes: io::Take<BufReader<File>>,
    last: u64,
}

impl Facts {
    pub(crate) fn until(path: &Path, mark: Mark) -> io::Result<Self> {
        Ok(Self { bytes: BufReader::new(File::open(path)?).take(mark.offset), last: 0 })
    }

    pub(crate) fn all(path: &Path) -> io::Result<Self> {
        Self::until(path, Mark { offset: std::fs::metadata(path)?.len(), last: 0 })
    }

    fn fact(&mut self) -> io::Result<Fact> {
        let position = self.last.wrapping_add(unzigzag(self.number()?).cast_unsigned());
        self.last = position;
        let small = |number: u64| u32::try_from(number).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e));
        let (stream, version) = (small(self.number()?)?, small(self.number()?)?);
        let mut tail = [0; 4];
        self.bytes.read_exact(&mut tail)?;
        Ok(Fact { position, stream, version, tail: u32::from_le_bytes(tail) })
    }

    fn number(&mut self) -> io::Result<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            self.bytes.read_exact(&mut byte)?;
            number |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] < 0x80 {
                return Ok(number);
            }
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "a number has too many bytes"))
    }
}

impl Iterator for Facts {
    type Item = io::Result<Fact>;

    fn next(&mut self) -> Option<Self::Item> {
        let is_over = self.bytes.limit() == 0;
        (!is_over).then(|| self.fact())
    }
}

/// Seven bits per byte, the lowest first.
fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Gives small numbers for small differences of either sign.
fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(count: u32) -> Vec<Fact> {
        let fact = |n: u32| Fact {
            position: if n.is_multiple_of(5) { u64::from(n) } else { u64::MAX / 2 - u64::from(n) * 300 },
            stream: n.wrapping_mul(77_777_777),
            version: u32::MAX - n,
            tail: n.wrapping_mul(0x9e37_79b9),
        };
        (0..count).map(fact).collect()
    }

    fn read(path: &Path, mark: Mark) -> io::Result<Vec<Fact>> {
        Facts::until(path, mark)?.collect()
    }

    #[test]
    fn a_record_returns_the_facts_added_before_the_mark() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("record");
        let facts = facts(200);
        let mut record = Record::resume(&path, Mark::default())?;
        for fact in &facts[..90] {
            record.add(fact)?;
        }
        let mark = record.mark()?;
        for fact in &facts[95..] {
            record.add(fact)?;
        }
        drop(record);
        assert_eq!(read(&path, mark)?, facts[..90]);

        let mut record = Record::resume(&path, mark)?;
        for fact in &facts[90..] {
            record.add(fact)?;
        }
        record.mark()?;
        assert_eq!(Facts::all(&path)?.collect::<io::Result<Vec<_>>>()?, facts);
        Ok(())
    }

    #[test]
    fn a_torn_record_is_an_error() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("record");
        let mut record = Record::resume(&path, Mark::default())?;
        record.add(&facts(1)[0])?;
        let mark = record.mark()?;
        assert!(read(&path, Mark { offset: mark.offset - 1, ..mark }).is_err());
        Ok(())
    }
}
